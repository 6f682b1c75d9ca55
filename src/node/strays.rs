// SPDX-License-Identifier: Apache-2.0
//! What is mounted below the mount root and belongs to no record.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use super::{Agent, Layout, proof};
use crate::{
    error::{Error, Result},
    host::mountinfo::{self, Mount},
};

/// The mount points, for people. Where the mount table cannot be read, that is
/// what is told.
pub(super) async fn find(agent: &Agent) -> Vec<String> {
    let root = agent.settings.layout.mount_root().to_owned();
    let mut known: BTreeSet<String> = agent.unreadable().into_keys().collect();
    known.extend(agent.volumes().iter().map(|v| v.key.hash()));
    let table = proof::look("the mount table", mountinfo::own).await;
    match table {
        Ok(Ok(table)) => {
            let strays = below(&table, &root, &known).into_iter();
            strays.map(|m| m.display().to_string()).collect()
        }
        Ok(Err(e)) => vec![format!("the mount table cannot be read: {e}")],
        Err(e) => vec![e.full_message()],
    }
}

/// The same without a node agent, by the names of the records.
pub fn strays(layout: &Layout) -> Result<Vec<String>> {
    let failed = |what: &Path, e| {
        Error::internal(format!("cannot look at {}", what.display())).with_source(e)
    };
    let mut known = BTreeSet::new();
    for entry in fs::read_dir(layout.records()).map_err(|e| failed(layout.records(), e))? {
        let name = entry.map_err(|e| failed(layout.records(), e))?.file_name();
        let stem = Path::new(&name).file_stem().unwrap_or_default();
        known.insert(stem.to_string_lossy().into_owned());
    }
    let table = mountinfo::own().map_err(|e| failed(Path::new("the mount table"), e))?;
    let strays = below(&table, layout.mount_root(), &known).into_iter();
    Ok(strays.map(|m| m.display().to_string()).collect())
}

/// The mount points below the root whose first part is none of these names.
fn below(table: &[Mount], root: &Path, known: &BTreeSet<String>) -> Vec<PathBuf> {
    let is_stray = |m: &&Mount| {
        let inner = m.mount_point.strip_prefix(root).ok();
        let first = inner.and_then(|inner| inner.components().next());
        first.is_some_and(|first| !known.contains(&*first.as_os_str().to_string_lossy()))
    };
    let strays = table.iter().filter(is_stray);
    strays.map(|m| m.mount_point.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_mounts_below_the_root_that_no_record_names_are_strays() {
        let table = mountinfo::parse(
            b"1 0 8:1 / / rw - ext4 a rw\n\
              2 1 8:1 /m /m rw - ext4 a rw\n\
              3 2 8:2 / /m/aa/pub/x rw - ext4 b rw\n\
              4 2 8:3 / /m/bb/pub/x rw - ext4 b rw\n\
              5 1 8:3 / /mm/bb rw - ext4 b rw\n",
        );
        let known = BTreeSet::from(["aa".to_owned()]);
        let found = below(&table, Path::new("/m"), &known);
        assert_eq!(found, [Path::new("/m/bb/pub/x")]);
    }
}
