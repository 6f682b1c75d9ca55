// SPDX-License-Identifier: Apache-2.0
//! The verbs over gRPC.

mod parse;

use std::sync::Arc;

use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use parse::{actor_ref, adopted, after, limit, parsed, some, time, token, volume_filter, within};

use super::{ActorFilter, Control, CreateOptions, ResumeOptions, Watch, Which, convert};
use crate::{
    error::{Error, Result},
    model::VolumeUid,
    proto::api::{self, control_server},
    rpc::status_of,
};

/// The server side of `actorvolumes.v1.Control`. Wrap it in
/// [`ControlServer`](control_server::ControlServer).
#[derive(Clone)]
pub struct ControlService {
    control: Arc<Control>,
}

impl ControlService {
    /// The service over a control plane.
    pub fn new(control: Arc<Control>) -> Self {
        Self { control }
    }

    /// Runs a verb as a task of its own: a caller that goes away stops nothing
    /// half-way.
    async fn run<T, F>(&self, verb: impl FnOnce(Arc<Control>) -> F) -> Result<Response<T>, Status>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let (control, stop) = (self.control.clone(), self.control.stop.clone());
        let verb = verb(control);
        let done = self.control.tasks.spawn(async move {
            let done = stop.run_until_cancelled(verb).await;
            done.unwrap_or_else(|| {
                Err(Error::unavailable(
                    "the server is stopping: what was recorded goes on when it is back",
                ))
            })
        });
        match done.await {
            Ok(Ok(answer)) => Ok(Response::new(answer)),
            Ok(Err(error)) => {
                if error.kind().is_alarming() {
                    tracing::error!(error = %error.full_message(), "a verb failed");
                }
                Err(status_of(&error))
            }
            Err(error) => {
                tracing::error!(%error, "a verb broke off");
                Err(Status::internal("the verb broke off: see the server's log"))
            }
        }
    }
}

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl control_server::Control for ControlService {
    async fn info(&self, _: Request<api::InfoRequest>) -> Answer<api::InfoResponse> {
        Ok(Response::new(api::InfoResponse {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            node: self.control.node().to_string(),
        }))
    }

    async fn apply_template(
        &self,
        request: Request<api::ApplyTemplateRequest>,
    ) -> Answer<api::ApplyTemplateResponse> {
        let request = request.into_inner();
        self.run(async move |control| {
            let (view, applied) = control.apply_template(&request.text).await?;
            Ok(api::ApplyTemplateResponse {
                template: Some(convert::template(view)),
                applied: convert::applied(applied),
            })
        })
        .await
    }

    async fn list_templates(
        &self,
        request: Request<api::ListTemplatesRequest>,
    ) -> Answer<api::ListTemplatesResponse> {
        let request = request.into_inner();
        self.run(async move |control| {
            let after = after(&request.page_token)?;
            let (views, next) = control.templates(after, limit(request.page_size)).await?;
            Ok(api::ListTemplatesResponse {
                templates: views.into_iter().map(convert::template).collect(),
                next_page_token: token(next),
            })
        })
        .await
    }

    async fn get_template(
        &self,
        request: Request<api::GetTemplateRequest>,
    ) -> Answer<api::Template> {
        let request = request.into_inner();
        self.run(async move |control| {
            let name = request.name.parse()?;
            let view = control.template(&name, request.revision).await?;
            Ok(convert::template(view))
        })
        .await
    }

    async fn rollback_template(
        &self,
        request: Request<api::RollbackTemplateRequest>,
    ) -> Answer<api::ApplyTemplateResponse> {
        let request = request.into_inner();
        self.run(async move |control| {
            let name = request.name.parse()?;
            let done = control.rollback_template(&name, request.revision);
            let (view, applied) = done.await?;
            Ok(api::ApplyTemplateResponse {
                template: Some(convert::template(view)),
                applied: convert::applied(applied),
            })
        })
        .await
    }

    async fn get_template_status(
        &self,
        request: Request<api::GetTemplateStatusRequest>,
    ) -> Answer<api::TemplateStatus> {
        let request = request.into_inner();
        self.run(async move |control| {
            let name = request.name.parse()?;
            let status = control.template_status(&name).await?;
            Ok(convert::template_status(status))
        })
        .await
    }

    async fn apply_storage_class(
        &self,
        request: Request<api::ApplyStorageClassRequest>,
    ) -> Answer<api::ApplyStorageClassResponse> {
        let request = request.into_inner();
        self.run(async move |control| {
            let (record, applied) = control.apply_storage_class(&request.text).await?;
            Ok(api::ApplyStorageClassResponse {
                storage_class: Some(convert::storage_class(record)),
                applied: convert::applied(applied),
            })
        })
        .await
    }

    async fn list_storage_classes(
        &self,
        request: Request<api::ListStorageClassesRequest>,
    ) -> Answer<api::ListStorageClassesResponse> {
        let request = request.into_inner();
        self.run(async move |control| {
            let after = after(&request.page_token)?;
            let limit = limit(request.page_size);
            let (records, next) = control.storage_classes(after, limit).await?;
            Ok(api::ListStorageClassesResponse {
                storage_classes: records.into_iter().map(convert::storage_class).collect(),
                next_page_token: token(next),
            })
        })
        .await
    }

    async fn list_drivers(
        &self,
        _: Request<api::ListDriversRequest>,
    ) -> Answer<api::ListDriversResponse> {
        self.run(async move |control| {
            let drivers = control.driver_status().await;
            Ok(api::ListDriversResponse {
                drivers: drivers.into_iter().map(convert::driver).collect(),
            })
        })
        .await
    }

    async fn create_actor(&self, request: Request<api::CreateActorRequest>) -> Answer<api::Actor> {
        let request = request.into_inner();
        self.run(async move |control| {
            let actor = actor_ref(&request.namespace, &request.name)?;
            let template = request.template.parse()?;
            let options = CreateOptions {
                adopt: adopted("adopt", request.adopt)?,
                request: parsed("request id", request.request_id)?,
            };
            let wait = request.wait.then(|| within(request.timeout_ms));
            let made = control.create_actor(&actor, &template, options, wait);
            Ok(convert::actor(made.await?))
        })
        .await
    }

    type WatchActorsStream = ReceiverStream<Result<api::ActorEvent, Status>>;

    async fn watch_actors(
        &self,
        request: Request<api::WatchActorsRequest>,
    ) -> Answer<Self::WatchActorsStream> {
        let request = request.into_inner();
        let read = || -> Result<Watch> {
            let namespace = parsed("namespace", request.namespace)?;
            Ok(self.control.watch(namespace, parsed("name", request.name)?))
        };
        let mut watch = read().map_err(|e| status_of(&e))?;
        // One event under way: what comes meanwhile waits as a name.
        let (sender, receiver) = tokio::sync::mpsc::channel(1);
        let stop = self.control.stop.clone();
        self.control.tasks.spawn(async move {
            let tell = async {
                loop {
                    let next = tokio::select! {
                        next = watch.next() => next,
                        () = sender.closed() => return,
                    };
                    let over = next.is_err();
                    let event = next.map(convert::actor_event).map_err(|e| status_of(&e));
                    if sender.send(event).await.is_err() || over {
                        return;
                    }
                }
            };
            stop.run_until_cancelled(tell).await;
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn list_actors(
        &self,
        request: Request<api::ListActorsRequest>,
    ) -> Answer<api::ListActorsResponse> {
        let request = request.into_inner();
        self.run(async move |control| {
            let filter = ActorFilter {
                namespace: parsed("namespace", request.namespace)?,
                template: parsed("template", request.template)?,
            };
            let after = after(&request.page_token)?;
            let limit = limit(request.page_size);
            let (views, next) = control.actors(filter, after, limit).await?;
            Ok(api::ListActorsResponse {
                actors: views.into_iter().map(convert::actor).collect(),
                next_page_token: token(next),
            })
        })
        .await
    }

    async fn get_actor(&self, request: Request<api::GetActorRequest>) -> Answer<api::Actor> {
        let request = request.into_inner();
        self.run(async move |control| {
            let actor = actor_ref(&request.namespace, &request.name)?;
            Ok(convert::actor(control.actor(&actor).await?))
        })
        .await
    }

    async fn resume_actor(
        &self,
        request: Request<api::ResumeActorRequest>,
    ) -> Answer<api::ResumeActorResponse> {
        let request = request.into_inner();
        self.run(async move |control| {
            let actor = actor_ref(&request.namespace, &request.name)?;
            let options = ResumeOptions {
                node: parsed("node", request.node)?,
                container: parsed("container", request.container)?,
                pod_namespace: parsed("pod namespace", request.pod_namespace)?,
                pod: some(request.pod),
                host: host(request.host, request.host_container)?,
                not_after: time("not_after", request.not_after)?,
                volumes: adopted("volumes", request.volumes)?,
                request: parsed("request id", request.request_id)?,
            };
            let within = within(request.timeout_ms);
            let (view, grant) = control.resume_actor(&actor, options, within).await?;
            let grant = if request.with_contexts {
                grant.with_contexts()
            } else {
                grant.without_contexts()
            };
            let annotations = control.annotations(&grant).await?;
            Ok(api::ResumeActorResponse {
                actor: Some(convert::actor(view)),
                annotations: annotations.into_iter().collect(),
            })
        })
        .await
    }

    async fn suspend_actor(
        &self,
        request: Request<api::SuspendActorRequest>,
    ) -> Answer<api::Actor> {
        let request = request.into_inner();
        self.run(async move |control| {
            let actor = actor_ref(&request.namespace, &request.name)?;
            let id = parsed("request id", request.request_id)?;
            let within = within(request.timeout_ms);
            let done = control.suspend_actor(&actor, id, request.wait, within);
            Ok(convert::actor(done.await?))
        })
        .await
    }

    async fn crash_actor(&self, request: Request<api::CrashActorRequest>) -> Answer<api::Actor> {
        let request = request.into_inner();
        self.run(async move |control| {
            let actor = actor_ref(&request.namespace, &request.name)?;
            let id = parsed("request id", request.request_id)?;
            let within = within(request.timeout_ms);
            let done = control.crash_actor(&actor, id, request.wait, within);
            Ok(convert::actor(done.await?))
        })
        .await
    }

    async fn update_actor(&self, request: Request<api::UpdateActorRequest>) -> Answer<api::Actor> {
        let request = request.into_inner();
        self.run(async move |control| {
            let actor = actor_ref(&request.namespace, &request.name)?;
            let id = parsed("request id", request.request_id)?;
            let wait = request.wait.then(|| within(request.timeout_ms));
            let done = control.update_actor(&actor, request.revision, id, wait);
            Ok(convert::actor(done.await?))
        })
        .await
    }

    async fn delete_actor(
        &self,
        request: Request<api::DeleteActorRequest>,
    ) -> Answer<api::DeleteActorResponse> {
        let request = request.into_inner();
        self.run(async move |control| {
            let actor = actor_ref(&request.namespace, &request.name)?;
            let id = parsed("request id", request.request_id)?;
            let wait = request.wait.then(|| within(request.timeout_ms));
            control.delete_actor(&actor, id, wait).await?;
            Ok(api::DeleteActorResponse {})
        })
        .await
    }

    async fn list_volumes(
        &self,
        request: Request<api::ListVolumesRequest>,
    ) -> Answer<api::ListVolumesResponse> {
        let request = request.into_inner();
        self.run(async move |control| {
            let after = after(&request.page_token)?;
            let limit = limit(request.page_size);
            let filter = volume_filter(request)?;
            let (views, next) = control.volumes(filter, after, limit).await?;
            Ok(api::ListVolumesResponse {
                volumes: views.into_iter().map(convert::volume).collect(),
                next_page_token: token(next),
            })
        })
        .await
    }

    async fn get_volume(&self, request: Request<api::GetVolumeRequest>) -> Answer<api::Volume> {
        let request = request.into_inner();
        self.run(async move |control| {
            let uid: VolumeUid = request.uid.parse()?;
            Ok(convert::volume(control.volume(&uid).await?))
        })
        .await
    }
    async fn expand_volume(
        &self,
        request: Request<api::ExpandVolumeRequest>,
    ) -> Answer<api::Volume> {
        let request = request.into_inner();
        self.run(async move |control| {
            let uid: VolumeUid = request.uid.parse()?;
            let wait = request.wait.then(|| within(request.timeout_ms));
            let bytes = request.capacity_bytes;
            let view = control.expand_volume(&uid, bytes, wait).await?;
            Ok(convert::volume(view))
        })
        .await
    }

    async fn delete_volume(
        &self,
        request: Request<api::DeleteVolumeRequest>,
    ) -> Answer<api::DeleteVolumeResponse> {
        let request = request.into_inner();
        self.run(async move |control| {
            let uid: VolumeUid = request.uid.parse()?;
            let wait = request.wait.then(|| within(request.timeout_ms));
            control.delete_volume(&uid, wait).await?;
            Ok(api::DeleteVolumeResponse {})
        })
        .await
    }

    async fn list_orphans(
        &self,
        request: Request<api::ListOrphansRequest>,
    ) -> Answer<api::ListOrphansResponse> {
        let request = request.into_inner();
        self.run(async move |control| {
            let driver = parsed("driver", request.driver)?;
            let (orphans, notes) = control.orphans(driver.as_ref()).await?;
            Ok(api::ListOrphansResponse {
                orphans: orphans.into_iter().map(convert::orphan).collect(),
                notes,
            })
        })
        .await
    }

    async fn delete_orphans(
        &self,
        request: Request<api::DeleteOrphansRequest>,
    ) -> Answer<api::DeleteOrphansResponse> {
        let request = request.into_inner();
        self.run(async move |control| {
            let driver = parsed("driver", request.driver)?;
            let which = match (request.all, request.volume_ids.is_empty()) {
                (true, true) => Which::All,
                (false, false) => Which::These(request.volume_ids.into_iter().collect()),
                _ => {
                    return Err(Error::invalid(
                        "name the volumes to be deleted, or say that all are: one of the two",
                    ));
                }
            };
            let (orphans, notes) = control.delete_orphans(driver.as_ref(), which).await?;
            Ok(api::DeleteOrphansResponse {
                orphans: orphans.into_iter().map(convert::orphan).collect(),
                notes,
            })
        })
        .await
    }
}

/// A grant for a container that no pod holds.
fn host(host: bool, container: String) -> Result<Option<Option<String>>> {
    match (host, some(container)) {
        (true, container) => Ok(Some(container)),
        (false, None) => Ok(None),
        (false, Some(_)) => Err(Error::invalid(
            "host_container is for a grant of the host, which was not asked for",
        )),
    }
}
