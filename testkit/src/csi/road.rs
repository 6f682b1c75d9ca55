// SPDX-License-Identifier: Apache-2.0
//! The road of every call: written down, judged, delayed, carried out, answered.

use std::{sync::Arc, time::Duration};

use actor_volumes::proto::csi::{self as wire, volume_capability::AccessType};
use tonic::{Code, Response, Status};

use super::{
    Call, Options, Shared,
    flight::{Busy, Open, OpenCall, Place},
    judge::{At, Broken, End, Judge},
    lock,
    work::{Work, id_of},
};

pub(super) type Answer<T> = Result<Response<T>, Status>;

/// What differs from RPC to RPC.
pub(super) trait Rpc: Send + 'static {
    type Reply: Send + 'static;

    fn method(&self) -> &'static str;

    /// The volume's id; empty for calls about none.
    fn volume(&self, _: &Options) -> String {
        String::new()
    }

    /// The staging or target path, or the node id.
    fn path(&self) -> &str {
        ""
    }

    /// The mount flags of its capability.
    fn mount_flags(&self) -> Vec<String> {
        Vec::new()
    }

    /// Where it belongs; none: to the node of the socket it came to.
    fn place(&self) -> Option<Place> {
        None
    }

    fn judge(&self, _: &mut Judge, _: &At<'_>) -> Result<(), Broken> {
        Ok(())
    }

    fn settle(&self, _: &mut Judge, _: &At<'_>, _: &End<'_, Self::Reply>) {}

    fn act(&self, work: &Work) -> Result<Self::Reply, Status>;
}

/// A call about no volume.
pub(super) struct Ask<F>(pub(super) &'static str, pub(super) F);

impl<T: Send + 'static, F: Fn(&Work) -> Result<T, Status> + Send + 'static> Rpc for Ask<F> {
    type Reply = T;

    fn method(&self) -> &'static str {
        self.0
    }

    fn act(&self, work: &Work) -> Result<T, Status> {
        (self.1)(work)
    }
}

/// One line for each RPC: its request and answer, its volume and path, and who
/// judges, settles and carries it out.
macro_rules! rpc {
    ($($service:ident $method:literal $request:ident -> $reply:ident {
        $(path: $path:ident,)?
        $(capability: $capability:ident,)?
        judge: $judge:ident,
        $(settle: |$judged:ident, $at:ident, $call:ident, $end:ident| $settle:expr,)?
        act: $act:ident,
    })*) => {$(
        impl Rpc for wire::$request {
            type Reply = wire::$reply;

            fn method(&self) -> &'static str {
                $method
            }

            fn volume(&self, _: &Options) -> String {
                self.volume_id.clone()
            }

            $(fn path(&self) -> &str {
                &self.$path
            })?

            $(fn mount_flags(&self) -> Vec<String> {
                flags_of(self.$capability.as_ref())
            })?

            fn place(&self) -> Option<Place> {
                rpc!(@place $service self)
            }

            fn judge(&self, judge: &mut Judge, at: &At<'_>) -> Result<(), Broken> {
                judge.$judge(at, self)
            }

            $(fn settle(&self, $judged: &mut Judge, $at: &At<'_>, $end: &End<'_, Self::Reply>) {
                let $call = self;
                $settle;
            })?

            fn act(&self, work: &Work) -> Result<Self::Reply, Status> {
                work.$act(self)
            }
        }
    )*};
    (@place controller $self:ident) => {
        Some(Place { controller: true, node: String::new() })
    };
    (@place attachment $self:ident) => {
        Some(Place { controller: true, node: $self.node_id.clone() })
    };
    (@place node $self:ident) => { None };
}

rpc! {
    controller "DeleteVolume" DeleteVolumeRequest -> DeleteVolumeResponse {
        judge: delete,
        settle: |judge, _at, call, end| judge.was_deleted(call, end),
        act: delete,
    }
    attachment "ControllerPublishVolume"
    ControllerPublishVolumeRequest -> ControllerPublishVolumeResponse {
        path: node_id,
        judge: attach,
        settle: |judge, _at, call, end| judge.attached(call, end),
        act: attach,
    }
    attachment "ControllerUnpublishVolume"
    ControllerUnpublishVolumeRequest -> ControllerUnpublishVolumeResponse {
        path: node_id,
        judge: detach,
        settle: |judge, _at, call, end| judge.detached(call, end),
        act: detach,
    }
    controller "ValidateVolumeCapabilities"
    ValidateVolumeCapabilitiesRequest -> ValidateVolumeCapabilitiesResponse {
        judge: validate,
        act: validate,
    }
    controller "ControllerExpandVolume"
    ControllerExpandVolumeRequest -> ControllerExpandVolumeResponse {
        judge: expand,
        settle: |judge, _at, call, end| judge.expanded(call, end),
        act: expand,
    }
    node "NodeStageVolume" NodeStageVolumeRequest -> NodeStageVolumeResponse {
        path: staging_target_path,
        capability: volume_capability,
        judge: stage,
        settle: |judge, at, call, end| judge.staged(at, call, end),
        act: stage,
    }
    node "NodeUnstageVolume" NodeUnstageVolumeRequest -> NodeUnstageVolumeResponse {
        path: staging_target_path,
        judge: unstage,
        settle: |judge, at, call, end| judge.unstaged(at, call, end),
        act: unstage,
    }
    node "NodePublishVolume" NodePublishVolumeRequest -> NodePublishVolumeResponse {
        path: target_path,
        capability: volume_capability,
        judge: publish,
        settle: |judge, at, call, end| judge.published(at, call, end),
        act: publish,
    }
    node "NodeUnpublishVolume" NodeUnpublishVolumeRequest -> NodeUnpublishVolumeResponse {
        path: target_path,
        judge: unpublish,
        settle: |judge, at, call, end| judge.unpublished(at, call, end),
        act: unpublish,
    }
    node "NodeGetVolumeStats" NodeGetVolumeStatsRequest -> NodeGetVolumeStatsResponse {
        path: volume_path,
        judge: stats,
        act: stats,
    }
    node "NodeExpandVolume" NodeExpandVolumeRequest -> NodeExpandVolumeResponse {
        path: volume_path,
        judge: node_expand,
        settle: |judge, at, call, end| judge.node_expanded(at, call, end),
        act: node_expand,
    }
}

fn flags_of(capability: Option<&wire::VolumeCapability>) -> Vec<String> {
    match capability.and_then(|c| c.access_type.as_ref()) {
        Some(AccessType::Mount(mount)) => mount.mount_flags.clone(),
        _ => Vec::new(),
    }
}

impl Rpc for wire::CreateVolumeRequest {
    type Reply = wire::CreateVolumeResponse;

    fn method(&self) -> &'static str {
        "CreateVolume"
    }

    fn volume(&self, options: &Options) -> String {
        id_of(options, &self.name)
    }

    fn place(&self) -> Option<Place> {
        rpc!(@place controller self)
    }

    fn judge(&self, judge: &mut Judge, at: &At<'_>) -> Result<(), Broken> {
        judge.create(at, self)
    }

    fn settle(&self, judge: &mut Judge, _: &At<'_>, end: &End<'_, Self::Reply>) {
        judge.created(self, end);
    }

    fn act(&self, work: &Work) -> Result<Self::Reply, Status> {
        work.create(self)
    }
}

impl Rpc for wire::ListVolumesRequest {
    type Reply = wire::ListVolumesResponse;

    fn method(&self) -> &'static str {
        "ListVolumes"
    }

    fn judge(&self, judge: &mut Judge, at: &At<'_>) -> Result<(), Broken> {
        judge.list(at, self)
    }

    fn act(&self, work: &Work) -> Result<Self::Reply, Status> {
        work.list(self)
    }
}

impl Shared {
    /// Like many drivers, it goes on when the caller has stopped to wait.
    pub(super) async fn serve<R: Rpc + Sync>(
        self: &Arc<Self>,
        here: String,
        request: R,
    ) -> Answer<R::Reply> {
        let (method, volume) = (request.method(), request.volume(&self.options()));
        let place = request.place().unwrap_or_else(|| Place {
            controller: false,
            node: here.clone(),
        });
        let seq = self.arrived(Call {
            seq: 0,
            method,
            volume: volume.clone(),
            path: request.path().into(),
            node: here.clone(),
            mount_flags: request.mount_flags(),
            code: None,
        });
        let open = Open::new(self, method, &volume, place.clone());
        let (shared, call) = (self.clone(), open.call.clone());
        let body = tokio::spawn(async move {
            let result = match Busy::new(&shared, &volume, &place) {
                Some(_busy) => shared.carry_out(here, request, &call).await,
                None => Err(Status::aborted("a call on this volume is under way")),
            };
            let code = result.as_ref().err().map_or(Code::Ok, Status::code);
            shared.answered(seq, code);
            result
        });
        let done = body.await.map_err(|e| Status::internal(e.to_string()))?;
        open.close().await;
        done.map(Response::new)
    }

    async fn carry_out<R: Rpc + Sync>(
        self: &Arc<Self>,
        here: String,
        request: R,
        call: &OpenCall,
    ) -> Result<R::Reply, Status> {
        let method = request.method();
        self.read_control()?;
        let options = self.options();
        let judged = {
            let at = At {
                options: &options,
                node: &here,
            };
            request.judge(&mut lock(&self.memory).judge, &at)
        };
        if let Err(broken) = judged {
            self.violation(broken.text.clone());
            return Err(broken.into());
        }
        let fault = lock(&self.faults).take(method);
        tokio::time::sleep(fault.delay).await;
        while fault.hang && lock(&self.faults).hangs(method).0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
            self.read_control()?;
        }
        let (fail, after) = (fault.fail, fault.fail_after);
        let after = after.or(fault.lose_answer.then_some(Code::Unavailable));
        let work = Work {
            shared: self.clone(),
            options: options.clone(),
            node: here.clone(),
            method,
            fault,
            generation: self.generation(),
        };
        // Mounting takes its time, and may never end.
        let act = move || {
            let result = match fail {
                Some(code) => {
                    let message = work.hostile().message;
                    let plain = || "this call fails because it was told to".to_owned();
                    Err(Status::new(code, message.unwrap_or_else(plain)))
                }
                None => request.act(&work),
            };
            (request, result)
        };
        let (request, mut result) = tokio::task::spawn_blocking(act)
            .await
            .map_err(|e| Status::internal(e.to_string()))?;
        if let (Ok(_), Some(code)) = (&result, after) {
            result = Err(Status::new(code, "the answer was lost"));
        }
        let end = match &result {
            Ok(reply) if call.is_heard() => End::Heard(reply),
            Ok(reply) => End::Unheard(reply),
            Err(status) => End::Failed(status.code()),
        };
        let at = At {
            options: &options,
            node: &here,
        };
        let mut memory = lock(&self.memory);
        request.settle(&mut memory.judge, &at, &end);
        if options.persist {
            memory.save(&options.backend);
        }
        drop(memory);
        result
    }
}
