// SPDX-License-Identifier: Apache-2.0
//! Volumes for containers with a user namespace of their own (`hostUsers: false`):
//! their owners are mapped, or the container is refused. Without the mapping every
//! file would belong to nobody, and nothing could be written.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{Agent, volume::Volume};
use crate::{
    delivery::Shown,
    error::{Error, Result},
    helper::{Answer, Place},
    host::idmap::{self, Lacking},
    model::{DnsLabel, GrantVolume, Scope, VolumeMode},
};

/// What all looks together get at least, also when no wait is left.
const WITHIN: Duration = Duration::from_millis(500);

/// How it helps itself who cannot have it.
const INSTEAD: &str = "or run the pod with hostUsers: true";

/// A container with a user namespace.
#[derive(Debug, Clone, Copy)]
pub(super) struct IdMap<'a> {
    /// Where its volumes are published.
    pub(super) scope: &'a Scope,
    /// The runtime's handler that runs it.
    pub(super) handler: &'a str,
    /// The namespace, as the runtime tells it.
    pub(super) space: &'a str,
}

impl Agent {
    /// Notes that the owners of all these are to be mapped, where the runtime, the
    /// kernel and the file system can do that.
    pub(super) async fn map_ids(
        &self,
        asked: IdMap<'_>,
        volumes: &[(&GrantVolume, Arc<Volume>)],
        published: &mut BTreeMap<DnsLabel, Shown>,
        until: Instant,
    ) -> Result<()> {
        let until = until.max(Instant::now() + WITHIN);
        if volumes.is_empty() {
            return Ok(());
        }
        let asks = self.runtime_maps_ids(asked.handler);
        tokio::time::timeout_at(until.into(), asks)
            .await
            .unwrap_or_else(|_| Err(takes_long()))?;
        self.maps_ids_of(asked.scope, asked.space, volumes, published, until)
            .await
    }

    /// The same where the OCI runtime is known to be able to.
    pub(super) async fn maps_ids_of(
        &self,
        scope: &Scope,
        space: &str,
        volumes: &[(&GrantVolume, Arc<Volume>)],
        published: &mut BTreeMap<DnsLabel, Shown>,
        until: Instant,
    ) -> Result<()> {
        let process = process(space)?;
        let looks = async {
            for (grant, volume) in volumes {
                volume
                    .can_map_ids(grant, scope, process)
                    .await
                    .map_err(|e| {
                        e.context(format_args!(
                            "volume {} for a container with a user namespace (hostUsers: false)",
                            grant.name
                        ))
                    })?;
            }
            Ok(())
        };
        tokio::time::timeout_at(until.into(), looks)
            .await
            .unwrap_or_else(|_| Err(takes_long()))?;
        for shown in published.values_mut() {
            shown.flags.id_mapped = true;
        }
        Ok(())
    }

    async fn runtime_maps_ids(&self, handler: &str) -> Result<()> {
        let shown = if handler.is_empty() {
            "the default handler".to_owned()
        } else {
            format!("handler {handler:?}")
        };
        let why = match self.shared.cri.maps_ids(handler).await? {
            Some(true) => return Ok(()),
            Some(false) => {
                "says that its OCI runtime cannot map the owners of mounts: use runc 1.2 or newer"
            }
            None => {
                "does not say whether its OCI runtime can map the owners of mounts: use containerd 2.0 or newer with runc 1.2 or newer"
            }
        };
        Err(Error::precondition(format!(
            "the container has a user namespace (hostUsers: false), and the container runtime, of {shown}, {why}, {INSTEAD}"
        )))
    }
}

fn takes_long() -> Error {
    Error::unavailable(
        "it takes long to find out whether the owners of the volume's files can be mapped: retry",
    )
}

/// The process whose user namespace the runtime tells. No other path is believed.
fn process(told: &str) -> Result<u32> {
    let number = told
        .strip_prefix("/proc/")
        .and_then(|rest| rest.strip_suffix("/ns/user"));
    let digits = number.filter(|pid| pid.bytes().all(|b| b.is_ascii_digit()));
    digits.and_then(|pid| pid.parse().ok()).ok_or_else(|| {
        Error::precondition(format!(
            "the container has a user namespace (hostUsers: false), which the runtime tells as {told:?}, and not as that of a process of its sandbox: use containerd, {INSTEAD}"
        ))
    })
}

impl Volume {
    async fn can_map_ids(&self, grant: &GrantVolume, scope: &Scope, process: u32) -> Result<()> {
        if grant.volume_mode == VolumeMode::Block {
            return Err(Error::precondition(format!(
                "no device node can be made there: use volumeMode Filesystem, {INSTEAD}"
            )));
        }
        let target = self.shared.layout.target(&self.key, scope);
        let seen = self.see(target.clone()).await?;
        let Some(mount) = seen.mount() else {
            return Err(Error::unavailable(format!(
                "nothing is mounted at {} any more: retry",
                target.display()
            )));
        };
        let place = Place::of(&self.key, scope);
        let helpers = &self.shared.helpers;
        let answer = helpers.map_ids(place, &mount.identity, process).await?;
        judge(&answer, &mount.fs_type)
    }
}

fn judge(answer: &Answer, fs_type: &str) -> Result<()> {
    let (errno, why) = match answer {
        Answer::Failed { errno, message } => (errno, message),
        Answer::Hangs { .. } => {
            return Err(Error::unavailable(
                "its file system does not answer: is its server up?",
            ));
        }
        _ => return Ok(()),
    };
    Err(match errno.and_then(idmap::lacking) {
        Some(Lacking::Kernel) => Error::precondition(format!(
            "this kernel cannot map the owners of a mount: use Linux 5.12 or newer, {INSTEAD}"
        )),
        Some(Lacking::FileSystem) => Error::precondition(format!(
            "its file system, {fs_type}, cannot have its owners mapped by this kernel: use a driver with another one, such as ext4 or xfs, {INSTEAD}"
        )),
        Some(Lacking::Privilege) => Error::precondition(format!(
            "the owners of its mount may not be mapped: the driver has mapped them already, or the helper lacks CAP_SYS_ADMIN ({why})"
        )),
        None => Error::unavailable(format!(
            "cannot find out whether its owners can be mapped: {why}; retry"
        )),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    #[test]
    fn only_the_namespace_of_a_process_is_believed() {
        assert_eq!(process("/proc/42/ns/user").unwrap(), 42);
        for bad in [
            "",
            "/proc//ns/user",
            "/proc/self/ns/user",
            "/proc/+1/ns/user",
            "/proc/1/../2/ns/user",
            "/proc/1/ns/user/",
            "/proc/1/ns/mnt",
            "/etc/shadow",
            "/proc/11111111111/ns/user",
        ] {
            let refused = process(bad).unwrap_err();
            assert_eq!(refused.kind(), Kind::FailedPrecondition, "{bad}");
        }
    }

    #[test]
    fn each_failure_says_what_is_lacking_and_what_to_do() {
        let answer = |errno| Answer::Failed {
            errno,
            message: "why".into(),
        };
        for (answer, kind, text) in [
            (answer(Some(38)), Kind::FailedPrecondition, "Linux 5.12"),
            (
                answer(Some(22)),
                Kind::FailedPrecondition,
                "nfs4, cannot have",
            ),
            (
                answer(Some(1)),
                Kind::FailedPrecondition,
                "CAP_SYS_ADMIN (why)",
            ),
            (answer(None), Kind::Unavailable, "why; retry"),
            (
                Answer::Hangs { stuck: false },
                Kind::Unavailable,
                "does not answer",
            ),
        ] {
            let refused = judge(&answer, "nfs4").unwrap_err();
            assert_eq!(refused.kind(), kind, "{answer:?}");
            assert!(refused.to_string().contains(text), "{refused}");
        }
        judge(&Answer::Done { changed: false }, "ext4").unwrap();
    }
}
