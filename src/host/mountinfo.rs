// SPDX-License-Identifier: Apache-2.0
//! The mount table as `/proc/<pid>/mountinfo` shows it (proc(5)).

use std::{
    ffi::OsString,
    io,
    os::unix::ffi::OsStringExt,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

/// What a mount shows: the device and the directory of its file system.
/// Every bind of one volume has the same.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Identity {
    /// `major:minor` of the file system.
    pub device: String,
    /// The directory of that file system that is the mount's root.
    pub root: PathBuf,
}

/// One line of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Its id, of which a new mount is no copy.
    pub id: u64,
    /// What it shows.
    pub identity: Identity,
    /// Where, seen from the root of the process.
    pub mount_point: PathBuf,
    /// The type of its file system, such as `ext4`.
    pub fs_type: String,
    /// The peer group that it is in: what is mounted below one peer is mounted
    /// below all (mount_namespaces(7)).
    pub shared: Option<u64>,
    /// The peer groups whose mounts it receives: its master, and the nearest one
    /// that this process can see.
    pub masters: Vec<u64>,
}

impl Mount {
    /// Whether the directory that it shows was removed since.
    pub fn is_deleted(&self) -> bool {
        let root = self.identity.root.as_os_str();
        root.as_encoded_bytes().ends_with(b"//deleted")
    }
}

impl Identity {
    /// Whether a mount of `other` shows the same files or a part of them.
    pub fn contains(&self, other: &Self) -> bool {
        self.device == other.device && other.root.starts_with(&self.root)
    }
}

/// Reads the table of this process.
pub fn own() -> io::Result<Vec<Mount>> {
    read(Path::new("/proc/self/mountinfo"))
}

/// Reads a mountinfo file. The kernel hands it out consistently when it is read
/// through one open file.
pub fn read(path: &Path) -> io::Result<Vec<Mount>> {
    Ok(parse(&std::fs::read(path)?))
}

/// The mount that a path is on: the topmost one at it or above. None: the table
/// has no root.
pub fn home<'t>(table: &'t [Mount], path: &Path) -> Option<&'t Mount> {
    let above = table.iter().filter(|m| path.starts_with(&m.mount_point));
    // Of mounts at one path the last is on top.
    above.max_by_key(|m| m.mount_point.as_os_str().len())
}

/// What the directory itself shows, apart from anything mounted at it: the
/// identity that a bind of it would have. None: the table has no root.
pub fn place(table: &[Mount], directory: &Path) -> Option<Identity> {
    let above = table
        .iter()
        .filter(|m| m.mount_point != directory && directory.starts_with(&m.mount_point));
    // Of mounts at one path the last is on top.
    let home = above.max_by_key(|m| m.mount_point.as_os_str().len())?;
    let below = directory.strip_prefix(&home.mount_point).ok()?;
    Some(Identity {
        device: home.identity.device.clone(),
        root: home.identity.root.join(below),
    })
}

/// Parses the table; a line that is not understood is passed over, since the
/// format may grow.
pub fn parse(table: &[u8]) -> Vec<Mount> {
    table.split(|b| *b == b'\n').filter_map(line).collect()
}

fn line(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|b| *b == b' ');
    let text = |field: &[u8]| String::from_utf8(field.to_vec()).ok();
    let id = text(fields.next()?)?.parse().ok()?;
    let device = text(fields.nth(1)?)?;
    let root = unescape(fields.next()?);
    let mount_point = unescape(fields.next()?);
    if root.as_os_str().is_empty() || mount_point.as_os_str().is_empty() {
        return None;
    }
    let (mut shared, mut masters) = (None, Vec::new());
    // Optional fields, after the options, end with a dash.
    for field in fields.by_ref().skip(1) {
        if field == b"-" {
            break;
        }
        let field = text(field)?;
        match field.split_once(':') {
            Some(("shared", group)) => shared = group.parse().ok(),
            Some(("master" | "propagate_from", group)) => masters.extend(group.parse::<u64>()),
            _ => {}
        }
    }
    Some(Mount {
        id,
        identity: Identity { device, root },
        mount_point,
        fs_type: text(fields.next()?)?,
        shared,
        masters,
    })
}

/// Space, tab, newline and backslash stand as `\ooo`.
fn unescape(field: &[u8]) -> PathBuf {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, tail)) = rest.split_first() {
        if first == b'\\'
            && let Some(octal) = tail.get(..3)
            && let Ok(text) = std::str::from_utf8(octal)
            && let Ok(byte) = u8::from_str_radix(text, 8)
        {
            out.push(byte);
            rest = &tail[3..];
        } else {
            out.push(first);
            rest = tail;
        }
    }
    PathBuf::from(OsString::from_vec(out))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_line_gives_device_root_and_mount_point() {
        let table = b"36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw\n\
                      37 35 0:5 / /a\\040b rw - tmpfs tmpfs rw\n";
        let mounts = parse(table);
        assert_eq!(mounts.len(), 2);
        assert_eq!(mounts[0].identity.device, "98:0");
        assert_eq!(mounts[0].identity.root, Path::new("/mnt1"));
        assert_eq!(mounts[0].id, 36);
        assert_eq!(mounts[0].fs_type, "ext3");
        assert_eq!(mounts[1].mount_point, Path::new("/a b"));
        let removed = parse(b"1 0 8:1 /v/a//deleted /m rw - ext4 a rw\n");
        assert!(removed[0].is_deleted() && !mounts[0].is_deleted());
        let groups = |m: &Mount| (m.shared, m.masters.clone());
        assert_eq!(groups(&mounts[0]), (None, vec![1]));
        assert_eq!(groups(&mounts[1]), (None, vec![]));
        let both =
            parse(b"1 0 8:1 / / rw shared:7 master:8 propagate_from:9 unbindable - ext4 a rw\n");
        assert_eq!(groups(&both[0]), (Some(7), vec![8, 9]));
    }

    #[test]
    fn a_directory_is_placed_in_the_mount_above_it_and_not_in_the_one_at_it() {
        let table = parse(
            b"1 0 8:1 / / rw - ext4 a rw\n\
              2 1 8:2 /sub /m rw - ext4 b rw\n\
              3 2 8:3 / /m/v/staging rw - ext4 c rw\n",
        );
        let placed = place(&table, Path::new("/m/v/staging")).unwrap();
        assert_eq!(placed.device, "8:2");
        assert_eq!(placed.root, Path::new("/sub/v/staging"));
        let beside = place(&table, Path::new("/mm")).unwrap();
        assert_eq!((beside.device.as_str(), beside.root), ("8:1", "/mm".into()));
        assert_eq!(place(&[], Path::new("/mm")), None);
    }

    #[test]
    fn a_directory_below_the_root_is_a_part_and_a_neighbour_is_not() {
        let id = |device: &str, root: &str| Identity {
            device: device.into(),
            root: root.into(),
        };
        let volume = id("8:1", "/v/a");
        assert!(volume.contains(&id("8:1", "/v/a")));
        assert!(volume.contains(&id("8:1", "/v/a/sub")));
        assert!(!volume.contains(&id("8:1", "/v/ab")));
        assert!(!volume.contains(&id("8:2", "/v/a")));
        assert!(!volume.contains(&id("8:1", "/v")));
    }

    #[test]
    fn the_own_table_has_a_root() {
        let own = own().unwrap();
        assert!(own.iter().any(|m| m.mount_point == Path::new("/")));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            parse(&bytes);
        }
    }
}
