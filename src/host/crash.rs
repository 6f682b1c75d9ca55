// SPDX-License-Identifier: Apache-2.0
//! Points at which a test lets the process die, to prove that what is on disk
//! is enough to go on from.
//!
//! In a build with the feature `crash-points`, the process aborts when it comes to
//! the point that the file of `ACTOR_VOLUMES_CRASH_AT` names at that moment, or to
//! as many points as the number that it holds, and
//! `ACTOR_VOLUMES_CRASH_LOG=<file>` appends the name of each point that is
//! reached, one a line. In any other build [`hit`] does nothing.

macro_rules! points {
    ($($(#[$doc:meta])* $name:ident => $text:literal,)*) => {
        /// A place between two effects.
        ///
        /// Each step of a volume has three: its intent is durable and the call is
        /// not sent; the call is answered and that is not recorded; it is recorded.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum CrashPoint {
            $($(#[$doc])* $name,)*
        }

        impl CrashPoint {
            /// Every point.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// Its name.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

points! {
    /// CreateVolume
    CreateIntended => "create-intended",
    /// CreateVolume
    CreateAnswered => "create-answered",
    /// CreateVolume
    CreateRecorded => "create-recorded",
    /// ControllerPublishVolume
    ControllerPublishIntended => "controller-publish-intended",
    /// ControllerPublishVolume
    ControllerPublishAnswered => "controller-publish-answered",
    /// ControllerPublishVolume
    ControllerPublishRecorded => "controller-publish-recorded",
    /// NodeStageVolume
    StageIntended => "stage-intended",
    /// NodeStageVolume
    StageAnswered => "stage-answered",
    /// NodeStageVolume
    StageRecorded => "stage-recorded",
    /// NodePublishVolume
    PublishIntended => "publish-intended",
    /// NodePublishVolume
    PublishAnswered => "publish-answered",
    /// NodePublishVolume
    PublishRecorded => "publish-recorded",
    /// The helper shows directories of the volume
    SubPathIntended => "sub-path-intended",
    /// The helper shows directories of the volume
    SubPathAnswered => "sub-path-answered",
    /// They are taken away again, which is begun with the unpublishing
    SubPathHidden => "sub-path-hidden",
    /// NodeUnpublishVolume
    UnpublishIntended => "unpublish-intended",
    /// NodeUnpublishVolume
    UnpublishAnswered => "unpublish-answered",
    /// NodeUnpublishVolume
    UnpublishRecorded => "unpublish-recorded",
    /// NodeUnstageVolume
    UnstageIntended => "unstage-intended",
    /// NodeUnstageVolume
    UnstageAnswered => "unstage-answered",
    /// NodeUnstageVolume
    UnstageRecorded => "unstage-recorded",
    /// The node is told that a generation is over.
    RevokeIntended => "revoke-intended",
    /// The node is told that a generation is over.
    RevokeAnswered => "revoke-answered",
    /// The node is told that a generation is over.
    RevokeRecorded => "revoke-recorded",
    /// ControllerExpandVolume
    ExpandIntended => "expand-intended",
    /// ControllerExpandVolume
    ExpandAnswered => "expand-answered",
    /// ControllerExpandVolume
    ExpandRecorded => "expand-recorded",
    /// NodeExpandVolume
    NodeExpandIntended => "node-expand-intended",
    /// NodeExpandVolume
    NodeExpandAnswered => "node-expand-answered",
    /// NodeExpandVolume
    NodeExpandRecorded => "node-expand-recorded",
    /// ControllerUnpublishVolume
    ControllerUnpublishIntended => "controller-unpublish-intended",
    /// ControllerUnpublishVolume
    ControllerUnpublishAnswered => "controller-unpublish-answered",
    /// ControllerUnpublishVolume
    ControllerUnpublishRecorded => "controller-unpublish-recorded",
    /// DeleteVolume
    DeleteIntended => "delete-intended",
    /// DeleteVolume
    DeleteAnswered => "delete-answered",
    /// DeleteVolume
    DeleteRecorded => "delete-recorded",
    /// The store has checked what is to be written, and not committed it.
    BatchChecked => "batch-checked",
    /// It is committed, and whoever wrote it does not know.
    BatchCommitted => "batch-committed",
    /// A node's record has its new bytes on disk, under a temporary name.
    RecordWritten => "record-written",
    /// They have its name, which may not be on disk.
    RecordRenamed => "record-renamed",
}

/// The process has come to this point.
#[cfg(not(feature = "crash-points"))]
#[inline]
pub fn hit(_: CrashPoint) {}

/// The process has come to this point.
#[cfg(feature = "crash-points")]
pub fn hit(point: CrashPoint) {
    chosen::hit(point);
}

/// A part of this daemon has ended. Where it died at a point the whole dies, as if its
/// machine had; not where `ACTOR_VOLUMES_CRASH_ALONE` is set.
#[cfg(not(feature = "crash-points"))]
#[inline]
pub fn dies_too(_: std::process::ExitStatus) {}

/// A part of this daemon has ended. Where it died at a point the whole dies, as if its
/// machine had; not where `ACTOR_VOLUMES_CRASH_ALONE` is set.
#[cfg(feature = "crash-points")]
pub fn dies_too(status: std::process::ExitStatus) {
    use std::os::unix::process::ExitStatusExt;
    if status.signal() == Some(rustix::process::Signal::ABORT.as_raw()) && !chosen::alone() {
        std::process::abort();
    }
}

#[cfg(feature = "crash-points")]
mod chosen {
    use std::{
        fs::{File, OpenOptions},
        io::Write,
        path::PathBuf,
        sync::{
            LazyLock,
            atomic::{AtomicUsize, Ordering},
        },
    };

    use super::CrashPoint;

    struct Chosen {
        at: Option<PathBuf>,
        log: Option<File>,
    }

    static CHOSEN: LazyLock<Chosen> = LazyLock::new(|| Chosen {
        at: std::env::var_os("ACTOR_VOLUMES_CRASH_AT").map(PathBuf::from),
        log: std::env::var_os("ACTOR_VOLUMES_CRASH_LOG").map(|path| {
            let opened = OpenOptions::new().create(true).append(true).open(path);
            opened.expect("ACTOR_VOLUMES_CRASH_LOG can be written")
        }),
    });

    /// How many points this process has come to.
    static COUNT: AtomicUsize = AtomicUsize::new(0);

    pub(super) fn hit(point: CrashPoint) {
        if let Some(mut log) = CHOSEN.log.as_ref() {
            // One write a line, so that lines of two threads do not mix.
            let line = format!("{}\n", point.name());
            log.write_all(line.as_bytes())
                .expect("the log of crash points can be written");
        }
        let count = COUNT.fetch_add(1, Ordering::Relaxed) + 1;
        // While the file is not there, no point is chosen.
        let chosen = CHOSEN.at.as_ref().map(std::fs::read_to_string);
        if let Some(Ok(name)) = chosen
            && (name == point.name() || name.parse() == Ok(count))
        {
            if alone() {
                // Started again, it goes on.
                let _ = CHOSEN.at.as_ref().map(std::fs::remove_file);
            }
            std::process::abort();
        }
    }

    /// Whether a part dies alone.
    pub(super) fn alone() -> bool {
        std::env::var_os("ACTOR_VOLUMES_CRASH_ALONE").is_some()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_point_has_a_name_of_its_own() {
        let names: BTreeSet<_> = CrashPoint::ALL.iter().map(|p| p.name()).collect();
        assert_eq!(names.len(), CrashPoint::ALL.len());
    }
}
