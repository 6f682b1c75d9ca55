// SPDX-License-Identifier: Apache-2.0
//! Volumes that are mounted here and have no record: somebody removed it.
//!
//! A record is on disk before anything is mounted, and goes when all is unmounted.
//! A mount without one is therefore no left-over: pods may use it, and nobody knows
//! which. Such a volume counts as held.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Component, Path},
};

use super::{Layout, records::Found};
use crate::{
    error::{Error, Result},
    host::mountinfo::{self, Mount},
};

/// Volumes without a record, by the hash that would be its file name, with what
/// is to be done.
pub(super) fn find(layout: &Layout, found: &Found) -> Result<BTreeMap<String, Error>> {
    let table = mountinfo::own()
        .map_err(|e| Error::internal("cannot read the mount table").with_source(e))?;
    let mut known: BTreeSet<String> = found.unreadable.keys().cloned().collect();
    known.extend(found.records.iter().map(|r| r.key.hash()));
    // The kernel shows paths without symbolic links.
    let root = layout.mount_root().canonicalize().map_err(|e| {
        Error::internal(format!(
            "cannot resolve the mount root {}",
            layout.mount_root().display()
        ))
        .with_source(e)
    })?;
    Ok(below(&table, &root, &known))
}

fn below(table: &[Mount], root: &Path, known: &BTreeSet<String>) -> BTreeMap<String, Error> {
    let mut lost = BTreeMap::new();
    for mount in table {
        let inner = mount.mount_point.strip_prefix(root);
        let Some(Component::Normal(name)) = inner.ok().and_then(|i| i.components().next()) else {
            continue;
        };
        let name = name.to_string_lossy();
        if is_hash(&name) && !known.contains(&*name) {
            let at = mount.mount_point.display();
            lost.entry(name.into_owned()).or_insert_with(|| {
                Error::internal(format!(
                    "there is none, and yet something is mounted at {at}, so it was removed: put it back, or stop the pods that use the volume, unmount it, and restart the daemon"
                ))
            });
        }
    }
    lost
}

/// Whether a directory of the mount root is one of a volume.
fn is_hash(name: &str) -> bool {
    name.len() == 32 && name.bytes().all(|b| b.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_mounted_below_the_root_and_has_no_record_is_lost() {
        let [kept, lost] = ["a", "b"].map(|c| c.repeat(32));
        let table = mountinfo::parse(
            format!(
                "1 0 8:1 / / rw - ext4 a rw\n\
                 2 1 8:1 /m /m rw - ext4 a rw\n\
                 3 2 8:2 / /m/{kept}/staging rw - ext4 b rw\n\
                 4 2 8:3 / /m/{lost}/staging rw - ext4 b rw\n\
                 5 2 8:3 / /m/{lost}/pub/x rw - ext4 b rw\n\
                 6 2 8:4 / /m/canary rw - ext4 b rw\n\
                 7 1 8:3 / /mm/{lost} rw - ext4 b rw\n"
            )
            .as_bytes(),
        );
        let found = below(&table, Path::new("/m"), &BTreeSet::from([kept]));
        assert_eq!(found.keys().collect::<Vec<_>>(), [&lost]);
        let why = found[&lost].full_message();
        assert!(why.contains(&format!("/m/{lost}/staging")), "{why}");
    }
}
