// SPDX-License-Identifier: Apache-2.0
//! Which events a plugin asks for, and which ones a runtime knows.

use std::ops::{BitAnd, BitOr};

use crate::proto::nri::Event;

/// A set of events, as Configure is answered with: bit `n - 1` for event `n`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EventMask(u32);

impl EventMask {
    /// A sandbox is up, none of its containers is created yet.
    pub const RUN_POD_SANDBOX: Self = Self::of(Event::RunPodSandbox);
    /// A sandbox is stopped.
    pub const STOP_POD_SANDBOX: Self = Self::of(Event::StopPodSandbox);
    /// A sandbox is removed.
    pub const REMOVE_POD_SANDBOX: Self = Self::of(Event::RemovePodSandbox);
    /// A container is about to be created and may be adjusted.
    pub const CREATE_CONTAINER: Self = Self::of(Event::CreateContainer);
    /// A container is created.
    pub const POST_CREATE_CONTAINER: Self = Self::of(Event::PostCreateContainer);
    /// A container is about to start.
    pub const START_CONTAINER: Self = Self::of(Event::StartContainer);
    /// A container has started.
    pub const POST_START_CONTAINER: Self = Self::of(Event::PostStartContainer);
    /// A container is stopped, or exited by itself.
    pub const STOP_CONTAINER: Self = Self::of(Event::StopContainer);
    /// A container is removed.
    pub const REMOVE_CONTAINER: Self = Self::of(Event::RemoveContainer);

    /// What every runtime knows: events 1 to 11.
    const SINCE_0_2: Self = Self(0x07ff);
    /// With the pod updates and the validation of 0.10.
    const SINCE_0_10: Self = Self(0x3fff);

    const fn of(event: Event) -> Self {
        Self(1 << (event as u32 - 1))
    }

    /// The mask on the wire.
    pub const fn bits(self) -> i32 {
        self.0.cast_signed()
    }

    /// Whether no event is in it. On the wire that would mean every event.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether all of `other` is in it.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// What this runtime knows. A bit beyond it fails the registration, so the
    /// smaller mask is taken where the version can not be told.
    pub fn known_by(runtime: &str, runtime_version: &str, nri_version: &str) -> Self {
        let is_new = match major_minor(nri_version) {
            Some(nri) => nri >= (0, 10),
            None => {
                let since = match runtime.to_ascii_lowercase().as_str() {
                    "containerd" => Some((2, 2)),
                    "cri-o" | "crio" => Some((1, 34)),
                    _ => None,
                };
                since.is_some_and(|since| {
                    major_minor(runtime_version).is_some_and(|version| version >= since)
                })
            }
        };
        if is_new {
            Self::SINCE_0_10
        } else {
            Self::SINCE_0_2
        }
    }
}

impl BitOr for EventMask {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitAnd for EventMask {
    type Output = Self;
    fn bitand(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

/// The first two numbers of a version such as `v2.1.5-k3s1` or `1.7.24~ds1`.
fn major_minor(version: &str) -> Option<(u32, u32)> {
    let version = version.strip_prefix('v').unwrap_or(version);
    let (major, rest) = version.split_once('.')?;
    let end = rest.find(|c: char| !c.is_ascii_digit());
    let minor = &rest[..end.unwrap_or(rest.len())];
    Some((major.parse().ok()?, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bits_are_those_of_the_published_numbering() {
        let volume = EventMask::CREATE_CONTAINER
            | EventMask::STOP_CONTAINER
            | EventMask::REMOVE_CONTAINER
            | EventMask::STOP_POD_SANDBOX
            | EventMask::REMOVE_POD_SANDBOX;
        assert_eq!(volume.bits(), 0x60e);
        assert_eq!(EventMask::RUN_POD_SANDBOX.bits(), 1);
        assert!(volume.contains(EventMask::STOP_CONTAINER));
        assert!(!volume.contains(EventMask::RUN_POD_SANDBOX));
    }

    #[test]
    fn the_mask_is_that_of_the_runtime_s_nri_version() {
        let old = EventMask::SINCE_0_2;
        let new = EventMask::SINCE_0_10;
        for (runtime, version, nri, expected) in [
            ("containerd", "v1.7.24~ds1", "", old),
            ("containerd", "1.7.34", "", old),
            ("containerd", "v2.0.5-k3s1", "", old),
            ("containerd", "2.1.4", "", old),
            ("containerd", "v2.2.0", "", new),
            ("containerd", "v2.3.4-1-gabc", "v0.12.0", new),
            ("containerd", "v10.0.0", "", new),
            ("cri-o", "1.33.8", "", old),
            ("CRI-O", "1.34.0", "", new),
            ("somebody", "v9.9.9", "", old),
            ("somebody", "v0.0.1", "v0.9.0", old),
            ("somebody", "v0.0.1", "0.10.0", new),
            ("containerd", "v2.3.0", "(devel)", new),
            ("containerd", "main", "unknown", old),
            ("containerd", "", "", old),
            ("containerd", "v2", "", old),
        ] {
            assert_eq!(
                EventMask::known_by(runtime, version, nri),
                expected,
                "{runtime} {version} {nri}"
            );
        }
    }
}
