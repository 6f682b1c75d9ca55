// SPDX-License-Identifier: Apache-2.0
//! What kind of file system a directory lies on, and whether mounts made there
//! reach other mount namespaces.

use std::{io, path::Path};

/// What the mount below a directory is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The type of its file system, such as `ext4`.
    pub fs_type: String,
    /// It is shared, or the slave of a shared one.
    pub propagates: bool,
}

/// The place of a directory, which must be there. The path must have no symlink in
/// it.
pub fn of(directory: &Path) -> io::Result<Place> {
    directory.metadata()?;
    let table = std::fs::read_to_string("/proc/self/mountinfo")?;
    find(&table, directory)
        .ok_or_else(|| io::Error::other("/proc/self/mountinfo names no mount of this directory"))
}

/// Of mounts at one path the last is on top.
fn find(table: &str, directory: &Path) -> Option<Place> {
    let home = table
        .lines()
        .filter_map(|line| {
            let point = line.split(' ').nth(4)?;
            directory.starts_with(point).then_some((point.len(), line))
        })
        .max_by_key(|(length, _)| *length)?
        .1;
    let (mount, file_system) = home.split_once(" - ")?;
    let optional = mount.split(' ').skip(6);
    Some(Place {
        fs_type: file_system.split(' ').next()?.to_owned(),
        propagates: optional
            .into_iter()
            .any(|f| f.starts_with("shared:") || f.starts_with("master:")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_mount_on_top_tells() {
        let table = "1 0 8:1 / / rw,noatime shared:1 - ext4 /dev/a rw\n\
                     2 1 8:2 / /m rw - xfs /dev/b rw\n\
                     3 2 0:9 / /m rw master:4 propagate_from:2 - tmpfs none rw\n\
                     4 1 8:3 / /p rw - btrfs /dev/c rw\n";
        for (at, fs_type, propagates) in [
            ("/x", "ext4", true),
            ("/mm", "ext4", true),
            ("/m/y", "tmpfs", true),
            ("/p", "btrfs", false),
        ] {
            let found = find(table, Path::new(at)).unwrap();
            assert_eq!(
                (found.fs_type.as_str(), found.propagates),
                (fs_type, propagates)
            );
        }
        assert!(!of(Path::new("/proc")).unwrap().fs_type.is_empty());
        assert!(of(Path::new("/nothing/is/here")).is_err());
    }
}
