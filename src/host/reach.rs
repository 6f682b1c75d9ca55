// SPDX-License-Identifier: Apache-2.0
//! Whether what one process mounts below a directory appears to another one
//! (mount_namespaces(7), shared subtrees).
//!
//! The kernel tells: the two have one mount namespace, or the mount of the maker is
//! in a peer group that the mount of the viewer is in, or receives from.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
};

use super::mountinfo::{self, Identity, Mount};

/// Why it does not appear there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hidden {
    /// The maker's mount of the directory is in no peer group.
    Private,
    /// The viewer's mount of the directory does not receive from that group.
    Apart,
    /// The two paths do not name the same directory.
    Elsewhere,
}

impl fmt::Display for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Private => "is in a mount namespace of its own, and mounts made there stay there",
            Self::Apart => {
                "is in a mount namespace of its own, and mounts made there do not come out"
            }
            Self::Elsewhere => {
                "is in a mount namespace of its own, and has another directory there"
            }
        })
    }
}

/// A directory, as a process sees it.
#[derive(Debug, Clone)]
pub struct View {
    /// The process.
    pub pid: u32,
    /// The directory's path for it.
    pub directory: PathBuf,
}

/// Whether what the maker mounts below the directory appears to the viewer.
pub fn reaches(maker: &View, viewer: &View) -> io::Result<Result<(), Hidden>> {
    if namespace(maker.pid)? == namespace(viewer.pid)? {
        return Ok(Ok(()));
    }
    let table = |pid: u32| mountinfo::read(Path::new(&format!("/proc/{pid}/mountinfo")));
    Ok(between(
        (&table(maker.pid)?, &maker.directory),
        (&table(viewer.pid)?, &viewer.directory),
    ))
}

fn namespace(pid: u32) -> io::Result<PathBuf> {
    fs::read_link(format!("/proc/{pid}/ns/mnt"))
}

type Seen<'a> = (&'a [Mount], &'a Path);

fn between(maker: Seen<'_>, viewer: Seen<'_>) -> Result<(), Hidden> {
    let home = mountinfo::home(maker.0, maker.1);
    let group = home.and_then(|m| m.shared).ok_or(Hidden::Private)?;
    if shown(maker) != shown(viewer) {
        return Err(Hidden::Elsewhere);
    }
    match mountinfo::home(viewer.0, viewer.1) {
        Some(m) if m.shared == Some(group) || m.masters.contains(&group) => Ok(()),
        _ => Err(Hidden::Apart),
    }
}

/// Which directory of which file system it is.
fn shown((table, directory): Seen<'_>) -> Option<Identity> {
    let home = mountinfo::home(table, directory)?;
    let below = directory.strip_prefix(&home.mount_point).ok()?;
    Some(Identity {
        device: home.identity.device.clone(),
        root: home.identity.root.join(below),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_come_from_a_peer_and_from_a_master_and_from_nobody_else() {
        let table = |at: &str, line: &str| {
            let root = "1 0 8:1 / / rw shared:1 - ext4 a rw\n";
            let inner = format!("9 2 0:9 / {at}/volume rw - tmpfs c rw\n");
            let mount = format!("2 1 8:2 /sub {at} rw {line}- ext4 b rw\n");
            mountinfo::parse(format!("{root}{mount}{inner}").as_bytes())
        };
        for (maker, viewer, found) in [
            ("shared:7 ", "shared:7 ", Ok(())),
            ("shared:7 ", "master:7 ", Ok(())),
            ("shared:7 ", "shared:8 master:7 ", Ok(())),
            ("shared:7 master:1 ", "master:8 propagate_from:7 ", Ok(())),
            ("shared:7 ", "shared:8 ", Err(Hidden::Apart)),
            ("shared:7 ", "master:8 ", Err(Hidden::Apart)),
            ("shared:7 ", "", Err(Hidden::Apart)),
            ("master:7 ", "shared:7 ", Err(Hidden::Private)),
            ("", "", Err(Hidden::Private)),
        ] {
            let (maker, viewer) = (table("/csi", maker), table("/m", viewer));
            let at =
                |from: &str, to: &str| between((&maker, Path::new(from)), (&viewer, Path::new(to)));
            assert_eq!(at("/csi", "/m"), found);
            let below = at("/csi/a", "/m/b");
            assert!(below.is_err(), "another directory");
        }
        assert_eq!(
            between((&[], Path::new("/m")), (&[], Path::new("/m"))),
            Err(Hidden::Private)
        );
    }

    #[test]
    fn a_process_sees_its_own_mounts() {
        let view = |pid| View {
            pid,
            directory: "/".into(),
        };
        let own = std::process::id();
        assert_eq!(reaches(&view(own), &view(own)).unwrap(), Ok(()));
        assert!(reaches(&view(u32::MAX), &view(own)).is_err());
    }
}
