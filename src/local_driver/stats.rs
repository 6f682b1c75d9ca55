// SPDX-License-Identifier: Apache-2.0
//! How much is used: the figures of the file system that all volumes share.

use std::path::Path;

use super::store::Store;
use crate::{
    error::{Error, Result},
    host::mount,
    proto::csi::{VolumeUsage, volume_usage::Unit},
};

/// Usage in bytes and in inodes. The volume must be staged or published at the path.
pub(super) fn usage(store: &Store, id: &str, path: &Path) -> Result<Vec<VolumeUsage>> {
    store.load(id)?;
    let cannot = || format!("cannot tell the usage of volume {id}");
    let shown =
        mount::bindings(&store.data(id)).map_err(|e| Error::internal(cannot()).with_source(e))?;
    if !shown.iter().any(|binding| binding.target == path) {
        return Err(Error::not_found(format!(
            "volume {id} is not mounted at {}",
            path.display()
        )));
    }
    let found = rustix::fs::statvfs(path)
        .map_err(|e| Error::internal(cannot()).with_source(std::io::Error::from(e)))?;
    let bytes = |blocks: u64| number(blocks.saturating_mul(found.f_frsize));
    Ok(vec![
        VolumeUsage {
            unit: Unit::Bytes.into(),
            total: bytes(found.f_blocks),
            available: bytes(found.f_bavail),
            used: bytes(found.f_blocks.saturating_sub(found.f_bfree)),
        },
        VolumeUsage {
            unit: Unit::Inodes.into(),
            total: number(found.f_files),
            available: number(found.f_favail),
            used: number(found.f_files.saturating_sub(found.f_ffree)),
        },
    ])
}

fn number(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}
