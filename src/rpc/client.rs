// SPDX-License-Identifier: Apache-2.0
//! The client of the control plane.

use std::{path::Path, time::Duration};

use tonic::{Request, Response, Status};

use super::status::error_of;
use crate::{
    error::Result,
    proto::api::{self, control_client::ControlClient},
    transport::{self, Channel},
};

/// How long connecting may take.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);

/// What a call may take beyond the wait that its request names: the server is to
/// answer first, with what it waits for.
const GRACE: Duration = Duration::from_secs(10);

/// A client of the control plane.
#[derive(Clone)]
pub struct Client {
    inner: ControlClient<Channel>,
    wait: Duration,
}

macro_rules! calls {
    ($($(#[$doc:meta])* $name:ident: $request:ident => $response:ident),* $(,)?) => {
        impl Client {
            $($(#[$doc])* pub async fn $name(
                &mut self,
                request: api::$request,
            ) -> Result<api::$response> {
                let request = self.request(request);
                answer(self.inner.$name(request).await)
            })*
        }
    };
}

calls! {
    /// The daemon's version and node.
    info: InfoRequest => InfoResponse,
    /// `template apply`
    apply_template: ApplyTemplateRequest => ApplyTemplateResponse,
    /// `template show`
    get_template: GetTemplateRequest => Template,
    /// `template rollback`
    rollback_template: RollbackTemplateRequest => ApplyTemplateResponse,
    /// `template status`
    get_template_status: GetTemplateStatusRequest => TemplateStatus,
    /// `storageclass apply`
    apply_storage_class: ApplyStorageClassRequest => ApplyStorageClassResponse,
    /// `driver ls`
    list_drivers: ListDriversRequest => ListDriversResponse,
    /// `actor create`
    create_actor: CreateActorRequest => Actor,
    /// `actor show`
    get_actor: GetActorRequest => Actor,
    /// `actor resume`
    resume_actor: ResumeActorRequest => ResumeActorResponse,
    /// `actor suspend`
    suspend_actor: SuspendActorRequest => Actor,
    /// `actor crash`
    crash_actor: CrashActorRequest => Actor,
    /// `actor update`
    update_actor: UpdateActorRequest => Actor,
    /// `actor delete`
    delete_actor: DeleteActorRequest => DeleteActorResponse,
    /// `volume show`
    get_volume: GetVolumeRequest => Volume,
    /// `volume expand`
    expand_volume: ExpandVolumeRequest => Volume,
    /// `volume delete`
    delete_volume: DeleteVolumeRequest => DeleteVolumeResponse,
    /// `volume orphans`
    list_orphans: ListOrphansRequest => ListOrphansResponse,
    /// `volume orphans --delete`
    delete_orphans: DeleteOrphansRequest => DeleteOrphansResponse,
}

macro_rules! lists {
    ($($(#[$doc:meta])* $name:ident: $call:ident($request:ident).$field:ident => $item:ident),* $(,)?) => {
        impl Client {
            $($(#[$doc])* pub async fn $name(
                &mut self,
                mut request: api::$request,
            ) -> Result<Vec<api::$item>> {
                let mut all = Vec::new();
                loop {
                    let page = self.request(request.clone());
                    let page = answer(self.inner.$call(page).await)?;
                    all.extend(page.$field);
                    if page.next_page_token.is_empty() {
                        return Ok(all);
                    }
                    request.page_token = page.next_page_token;
                }
            })*
        }
    };
}

lists! {
    /// `template ls`, all pages.
    templates: list_templates(ListTemplatesRequest).templates => Template,
    /// `storageclass ls`, all pages.
    storage_classes: list_storage_classes(ListStorageClassesRequest).storage_classes => StorageClass,
    /// `actor ls`, all pages.
    actors: list_actors(ListActorsRequest).actors => Actor,
    /// `volume ls`, all pages.
    volumes: list_volumes(ListVolumesRequest).volumes => Volume,
}

impl Client {
    /// Connects to the socket. `wait` is the longest wait that its requests name.
    pub async fn connect(socket: &Path, wait: Duration) -> Result<Self> {
        let channel = transport::connect(socket, CONNECT_WITHIN).await?;
        Ok(Self {
            inner: ControlClient::new(channel),
            wait,
        })
    }

    /// `actor watch`: it has no end of its own.
    pub async fn watch_actors(&mut self, request: api::WatchActorsRequest) -> Result<Watch> {
        answer(self.inner.watch_actors(request).await).map(Watch)
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.set_timeout(self.wait + GRACE);
        request
    }
}

/// Events of actors, as they come.
pub struct Watch(tonic::Streaming<api::ActorEvent>);

impl Watch {
    /// The next; none: the server ended.
    pub async fn next(&mut self) -> Result<Option<api::ActorEvent>> {
        self.0.message().await.map_err(|status| error_of(&status))
    }
}

fn answer<T>(answer: Result<Response<T>, Status>) -> Result<T> {
    answer
        .map(Response::into_inner)
        .map_err(|status| error_of(&status))
}
