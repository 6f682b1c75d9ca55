// SPDX-License-Identifier: Apache-2.0
//! Directories of a volume that are mounted instead of the whole: shown by the
//! helper beside the driver's target, after it and as long as it.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use super::{
    Publication, SubMount, SubShown,
    proof::{self, Seen, look},
    volume::Volume,
};
use crate::{
    error::{Error, Result},
    host::{
        crash::{self, CrashPoint},
        mountinfo::Identity,
        sub_path,
    },
    model::SubPath,
};

impl SubMount {
    /// Nothing is shown yet.
    pub(super) fn of(paths: BTreeSet<SubPath>) -> Vec<Self> {
        let none = |path| Self { path, shown: None };
        paths.into_iter().map(none).collect()
    }
}

impl Publication {
    /// Whether these directories are shown with it, and no others.
    pub(super) fn has_sub_paths(&self, paths: &BTreeSet<SubPath>) -> bool {
        self.sub_paths.iter().map(|s| &s.path).eq(paths)
    }
}

impl Volume {
    /// Where each directory of the publication is shown.
    pub(super) fn sub_paths(&self, publication: &Publication) -> BTreeMap<SubPath, PathBuf> {
        let at = |path: &SubPath| {
            let layout = &self.shared.layout;
            layout.sub_path(&self.key, &publication.scope, path)
        };
        let paths = publication.sub_paths.iter().map(|s| &s.path);
        paths.map(|path| (path.clone(), at(path))).collect()
    }

    /// Shows every directory, and gives by what it is known again. What the driver
    /// has mounted was seen.
    pub(super) async fn show_sub_paths(
        &self,
        publication: &Publication,
        seen: &Seen,
    ) -> Result<Vec<SubMount>> {
        let Some(mount) = seen.mount().filter(|_| !publication.sub_paths.is_empty()) else {
            return Ok(Vec::new());
        };
        let maker = self.shared.helper.clone();
        self.shared.proof.sight_of(Some(maker)).await?;
        crash::hit(CrashPoint::SubPathIntended);
        let mut shown = Vec::new();
        for (path, at) in self.sub_paths(publication) {
            let place = self.shared.layout.place(&self.key, &publication.scope);
            let make = !publication.read_only;
            let volume = &publication.volume;
            self.shared
                .helpers
                .show(place, &mount.identity, &path, make)
                .await
                .map_err(|e| e.context(format_args!("subPath {path} of volume {volume}")))?;
            let now = see(&at).await?.filter(|now| now.is_of(&mount.identity));
            let now = now.ok_or_else(|| {
                Error::internal(format!(
                    "the helper has mounted subPath {path} of volume {volume}, but it is not to be seen at {}: does the node agent see the helper's mounts (propagation)?",
                    at.display()
                ))
            })?;
            shown.push(SubMount {
                path,
                shown: Some(now.shown()),
            });
        }
        crash::hit(CrashPoint::SubPathAnswered);
        Ok(shown)
    }

    /// Takes every directory away, before the volume itself is.
    pub(super) async fn hide_sub_paths(&self, publication: &Publication) -> Result<()> {
        let shown = self.sub_paths(publication);
        if shown.is_empty() {
            return Ok(());
        }
        for (path, at) in shown {
            let place = self.shared.layout.place(&self.key, &publication.scope);
            self.shared.helpers.hide(place, &path).await?;
            if see(&at).await?.is_some() {
                return Err(Error::internal(format!(
                    "the helper has unmounted {}, and it is still there",
                    at.display()
                )));
            }
        }
        crash::hit(CrashPoint::SubPathHidden);
        Ok(())
    }

    /// Why a directory that is shown is of no use any more; none: all are.
    pub(super) async fn sub_path_fault(&self, publication: &Publication) -> Result<Option<String>> {
        let Some(volume) = &publication.identity else {
            return Ok(None);
        };
        for sub in &publication.sub_paths {
            let layout = &self.shared.layout;
            let at = layout.sub_path(&self.key, &publication.scope, &sub.path);
            let why = match see(&at).await? {
                None => "is not mounted any more",
                Some(now) if now.deleted => "was removed by whoever writes to the volume",
                Some(now) if now.is_of(volume) && Some(now.shown()) == sub.shown => continue,
                Some(_) => "is not what was mounted there",
            };
            return Ok(Some(format!("its directory {} {why}", sub.path)));
        }
        Ok(None)
    }
}

/// What is mounted at a place.
struct Now {
    identity: Identity,
    inode: u64,
    /// The directory has no name any more.
    deleted: bool,
}

impl Now {
    fn is_of(&self, volume: &Identity) -> bool {
        volume.contains(&self.identity)
    }

    fn shown(&self) -> SubShown {
        SubShown {
            device: self.identity.device.clone(),
            inode: self.inode,
        }
    }
}

/// None: nothing is.
async fn see(at: &Path) -> Result<Option<Now>> {
    let Some(mount) = proof::mount_at(at.to_owned()).await? else {
        return Ok(None);
    };
    let path = at.to_owned();
    let inode = look("the mount at a path", move || sub_path::inode(&path))
        .await?
        .map_err(|e| {
            Error::unavailable(format!("cannot look at the mount at {}", at.display()))
                .with_source(e)
        })?;
    Ok(Some(Now {
        deleted: mount.is_deleted(),
        identity: mount.identity,
        inode,
    }))
}
