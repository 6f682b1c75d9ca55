// SPDX-License-Identifier: Apache-2.0
//! Points at which a test lets the process die, to prove that what is on disk
//! is enough to go on from.
//!
//! In a build with the feature `crash-points`, `ACTOR_VOLUMES_CRASH=<name>:<n>`
//! aborts the process when it comes to the point for the n-th time, and
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
    /// A record's new bytes are on disk, under a temporary name.
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

#[cfg(feature = "crash-points")]
mod chosen {
    use std::{
        fs::{File, OpenOptions},
        io::Write,
        sync::{
            LazyLock,
            atomic::{AtomicU32, Ordering},
        },
    };

    use super::CrashPoint;

    struct Chosen {
        point: Option<(String, u32)>,
        seen: AtomicU32,
        log: Option<File>,
    }

    static CHOSEN: LazyLock<Chosen> = LazyLock::new(|| {
        let point = std::env::var("ACTOR_VOLUMES_CRASH").ok().map(|text| {
            let (name, count) = text.split_once(':').unwrap_or((&text, "1"));
            let known = CrashPoint::ALL.iter().any(|p| p.name() == name);
            assert!(known, "ACTOR_VOLUMES_CRASH names no crash point: {name}");
            let count = count.parse().expect("ACTOR_VOLUMES_CRASH ends in a number");
            (name.to_owned(), count)
        });
        let log = std::env::var_os("ACTOR_VOLUMES_CRASH_LOG").map(|path| {
            let opened = OpenOptions::new().create(true).append(true).open(path);
            opened.expect("ACTOR_VOLUMES_CRASH_LOG can be written")
        });
        Chosen {
            point,
            seen: AtomicU32::new(0),
            log,
        }
    });

    pub(super) fn hit(point: CrashPoint) {
        if let Some(mut log) = CHOSEN.log.as_ref() {
            // One write a line, so that lines of two threads do not mix.
            let line = format!("{}\n", point.name());
            log.write_all(line.as_bytes())
                .expect("the log of crash points can be written");
        }
        if let Some((name, count)) = &CHOSEN.point
            && name == point.name()
            && CHOSEN.seen.fetch_add(1, Ordering::Relaxed) + 1 == *count
        {
            std::process::abort();
        }
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
