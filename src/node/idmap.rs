// SPDX-License-Identifier: Apache-2.0
//! Volumes for containers with a user namespace of their own (`hostUsers: false`):
//! their owners are mapped, or the container is refused. Without the mapping every
//! file would belong to nobody, and nothing could be written.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use super::{Agent, helper::HelperAnswer, volume::Volume};
use crate::{
    delivery::Shown,
    error::{Error, Result},
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
        let looks = async {
            if volumes.is_empty() {
                return Ok(());
            }
            let namespace = namespace(asked.space)?;
            self.runtime_maps_ids(asked.handler).await?;
            for (grant, volume) in volumes {
                volume
                    .can_map_ids(grant, asked.scope, &namespace)
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
            .unwrap_or_else(|_| {
                Err(Error::unavailable(
                    "it takes long to find out whether the owners of the volume's files can be mapped: retry",
                ))
            })?;
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

/// The user namespace of a process, which a runtime tells. No other path is opened.
fn namespace(told: &str) -> Result<PathBuf> {
    let process = told
        .strip_prefix("/proc/")
        .and_then(|rest| rest.strip_suffix("/ns/user"));
    let is_number = |pid: &str| {
        !pid.is_empty() && pid.len() <= 10 && pid.bytes().all(|b| b.is_ascii_digit())
    };
    if process.is_some_and(is_number) {
        return Ok(told.into());
    }
    Err(Error::precondition(format!(
        "the container has a user namespace (hostUsers: false), which the runtime tells as {told:?}, and not as that of a process of its sandbox: use containerd, {INSTEAD}"
    )))
}

impl Volume {
    async fn can_map_ids(
        &self,
        grant: &GrantVolume,
        scope: &Scope,
        namespace: &Path,
    ) -> Result<()> {
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
        let answer = self
            .shared
            .helpers
            .map_ids(&self.key, &target, mount.id, namespace)
            .await?;
        match answer {
            None => Err(Error::unavailable(
                "its file system does not answer: is its server up?",
            )),
            Some(answer) => judge(&answer, &mount.fs_type),
        }
    }
}

fn judge(answer: &HelperAnswer, fs_type: &str) -> Result<()> {
    let Some(failure) = &answer.failure else {
        return Ok(());
    };
    Err(match answer.errno.and_then(idmap::lacking) {
        Some(Lacking::Kernel) => Error::precondition(format!(
            "this kernel cannot map the owners of a mount: use Linux 5.12 or newer, {INSTEAD}"
        )),
        Some(Lacking::FileSystem) => Error::precondition(format!(
            "its file system, {fs_type}, cannot have its owners mapped by this kernel: use a driver with another one, such as ext4 or xfs, {INSTEAD}"
        )),
        Some(Lacking::Privilege) => Error::precondition(format!(
            "the owners of its mount may not be mapped: the driver has mapped them already, or the helper lacks CAP_SYS_ADMIN ({failure})"
        )),
        None => Error::unavailable(format!(
            "cannot find out whether its owners can be mapped: {failure}; retry"
        )),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    #[test]
    fn only_the_namespace_of_a_process_is_opened() {
        assert_eq!(namespace("/proc/42/ns/user").unwrap(), Path::new("/proc/42/ns/user"));
        for bad in [
            "",
            "/proc//ns/user",
            "/proc/self/ns/user",
            "/proc/1/../2/ns/user",
            "/proc/1/ns/user/",
            "/proc/1/ns/mnt",
            "/etc/shadow",
            "/proc/11111111111/ns/user",
        ] {
            let refused = namespace(bad).unwrap_err();
            assert_eq!(refused.kind(), Kind::FailedPrecondition, "{bad}");
        }
    }

    #[test]
    fn each_failure_says_what_is_lacking_and_what_to_do() {
        let answer = |errno| HelperAnswer {
            errno,
            failure: Some("why".into()),
            ..HelperAnswer::default()
        };
        for (errno, kind, text) in [
            (Some(38), Kind::FailedPrecondition, "Linux 5.12"),
            (Some(22), Kind::FailedPrecondition, "nfs4, cannot have"),
            (Some(1), Kind::FailedPrecondition, "CAP_SYS_ADMIN (why)"),
            (None, Kind::Unavailable, "why; retry"),
        ] {
            let refused = judge(&answer(errno), "nfs4").unwrap_err();
            assert_eq!(refused.kind(), kind, "{errno:?}");
            assert!(refused.to_string().contains(text), "{refused}");
        }
        judge(&HelperAnswer::default(), "ext4").unwrap();
    }
}
