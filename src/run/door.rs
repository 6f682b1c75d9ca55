// SPDX-License-Identifier: Apache-2.0
//! What hook, wrapper, `bundle` and `bind` ask of the node agent.

use std::path::{Path, PathBuf};

use super::{Threads, runtime};
use crate::{
    config::GuardSettings,
    delivery,
    error::{Error, Result},
    host::process,
    oci::Question,
    proto::api::{
        CheckContainerRequest, Door, GiveContainerRequest, GiveContainerResponse, PodOfContainer,
        Process, ReleaseContainerRequest, ReleaseContainerResponse, SpecDevice, SpecMount,
    },
    rpc,
};

/// Where a container is found at its OCI runtime.
#[derive(Debug, Clone, Copy)]
pub(super) struct Container<'a> {
    /// The runtime's `--root`, where it is known.
    pub(super) root: Option<&'a Path>,
    /// Its bundle, absolute.
    pub(super) bundle: &'a Path,
}

/// By what a container comes to its volumes.
#[derive(Clone, Default)]
pub(super) struct Way {
    pub(super) door: Door,
    /// The process that makes it, or that it is; none: this one.
    pub(super) process: Option<Process>,
    /// Whether the runtime is to map the owners, since the container has a user namespace.
    pub(super) map_owners: bool,
    /// A path to that namespace; empty: it is made later.
    pub(super) user_namespace: String,
}

/// What the container must have, once it is published.
pub(super) fn give(
    settings: &GuardSettings,
    container: &Container<'_>,
    way: Way,
    asked: Question,
) -> Result<GiveContainerResponse> {
    let (id, name) = (asked.id.clone(), asked.name.clone());
    let request = GiveContainerRequest {
        door: way.door.into(),
        container_id: asked.id,
        runtime_root: container.root.map(text).transpose()?.unwrap_or_default(),
        bundle: text(container.bundle)?,
        container_name: asked.name,
        annotations: asked.annotations.into_iter().collect(),
        pod: asked.pod.map(|pod| PodOfContainer {
            sandbox_id: pod.sandbox,
            name: pod.name,
            namespace: pod.namespace,
        }),
        process: Some(match way.process {
            Some(process) => process,
            None => process(std::process::id())?,
        }),
        mounts: mounts(asked.spec.mounts)?,
        map_owners: way.map_owners,
        user_namespace: way.user_namespace,
        wait_ms: ms(settings.give_deadline),
    };
    let asking = rpc::give_container(&settings.socket, settings.give_deadline, request);
    let given = runtime(Threads::One)?.block_on(asking);
    given.map_err(|e| unnamed(e, &[&id, &name]))
}

/// The node agent says by itself of whom it speaks, and so does whoever tells it.
fn unnamed(error: Error, names: &[&str]) -> Error {
    let said = error.full_message();
    let prefix = |name: &&str| format!("actor-volumes: container {name:?}: ");
    let mut prefixes = names.iter().map(prefix);
    match prefixes.find_map(|prefix| said.strip_prefix(&prefix)) {
        Some(rest) => Error::new(error.kind(), rest),
        None => error,
    }
}

/// Says that the container is over, or was never made. `after`: it is deleted by that
/// process.
pub(super) fn release(
    settings: &GuardSettings,
    id: &str,
    container: &Container<'_>,
    after: Option<Process>,
    wait_ms: u32,
) -> Result<ReleaseContainerResponse> {
    let request = ReleaseContainerRequest {
        container_id: id.to_owned(),
        runtime_root: container.root.map(text).transpose()?.unwrap_or_default(),
        bundle: text(container.bundle)?,
        after,
        wait_ms,
    };
    let asking = rpc::release_container(&settings.socket, settings.give_deadline, request);
    runtime(Threads::One)?.block_on(asking)
}

/// Whether the container may be made as its spec has it.
pub(super) fn check(
    settings: &GuardSettings,
    container: &Container<'_>,
    asked: Question,
) -> Result<()> {
    let pod = asked.pod;
    let of_pod = |part: fn(&crate::oci::Pod) -> &String| pod.as_ref().map(part).cloned();
    let device = |d: delivery::SpecDevice| SpecDevice {
        path: d.path,
        r#type: d.kind,
        major: d.major,
        minor: d.minor,
    };
    let request = CheckContainerRequest {
        sandbox_id: of_pod(|p| &p.sandbox).unwrap_or_default(),
        pod_name: of_pod(|p| &p.name).unwrap_or_default(),
        pod_namespace: of_pod(|p| &p.namespace).unwrap_or_default(),
        container_id: asked.id,
        container_name: asked.name,
        annotations: asked.annotations.into_iter().collect(),
        mounts: mounts(asked.spec.mounts)?,
        devices: asked.spec.devices.into_iter().map(device).collect(),
        runtime_root: container.root.map(text).transpose()?.unwrap_or_default(),
        bundle: text(container.bundle)?,
    };
    let asking = rpc::check_container(socket_of(settings), settings.deadline, request);
    runtime(Threads::One)?.block_on(asking)
}

/// A process as the node agent takes it.
pub(super) fn process(pid: u32) -> Result<Process> {
    let begun = process::start_time(pid).map_err(|e| {
        Error::internal(format!("cannot look at process {pid} in /proc")).with_source(e)
    })?;
    let start_time =
        begun.ok_or_else(|| Error::precondition(format!("process {pid} has ended")))?;
    Ok(Process { pid, start_time })
}

/// The path, as others see it too. Its links are kept: the runtime's record has them.
pub(super) fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).map_err(|e| {
        Error::internal(format!(
            "cannot tell the absolute path of {}",
            path.display()
        ))
        .with_source(e)
    })
}

/// A daemon of an older version, which may still run, has one socket for everything.
fn socket_of(settings: &GuardSettings) -> &Path {
    match &settings.older_socket {
        Some(older) if !settings.socket.exists() && older.exists() => older,
        _ => &settings.socket,
    }
}

fn mounts(mounts: Vec<delivery::SpecMount>) -> Result<Vec<SpecMount>> {
    let mount = |m: delivery::SpecMount| {
        Ok(SpecMount {
            source: text(&m.source)?,
            destination: m.destination,
            r#type: m.kind,
            options: m.options,
        })
    };
    mounts.into_iter().map(mount).collect()
}

fn text(path: &Path) -> Result<String> {
    let text = path.to_str().map(str::to_owned);
    text.ok_or_else(|| Error::invalid(format!("the path {} is not UTF-8", path.display())))
}

fn ms(time: std::time::Duration) -> u32 {
    u32::try_from(time.as_millis()).unwrap_or(u32::MAX)
}
