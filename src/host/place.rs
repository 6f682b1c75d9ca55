// SPDX-License-Identifier: Apache-2.0
//! What kind of file system a directory lies on, and whether mounts made there
//! reach other mount namespaces.

use std::{io, path::Path};

use super::mountinfo::{self, Mount};

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
    find(&mountinfo::own()?, directory)
        .ok_or_else(|| io::Error::other("/proc/self/mountinfo names no mount of this directory"))
}

fn find(table: &[Mount], directory: &Path) -> Option<Place> {
    let home = mountinfo::home(table, directory)?;
    Some(Place {
        fs_type: home.fs_type.clone(),
        propagates: home.shared.is_some() || !home.masters.is_empty(),
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
            let found = find(&mountinfo::parse(table.as_bytes()), Path::new(at)).unwrap();
            assert_eq!(
                (found.fs_type.as_str(), found.propagates),
                (fs_type, propagates)
            );
        }
        assert!(!of(Path::new("/proc")).unwrap().fs_type.is_empty());
        assert!(of(Path::new("/nothing/is/here")).is_err());
    }
}
