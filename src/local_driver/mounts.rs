// SPDX-License-Identifier: Apache-2.0
//! Staging and publishing: what is recorded, joined with what is mounted.
//!
//! The mount table is the truth of whether; the record, written before each
//! mount, tells how. Each step looks first and does only what is missing, so a
//! repeated call never stacks a second mount.

use std::{
    fs, io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use super::store::{Publication, Store};
use crate::{
    error::{Error, Result},
    host::mount::{self, Binding},
    proto::csi::volume_capability::access_mode::Mode,
};

/// A NodePublishVolume request.
pub(super) struct Publish {
    pub(super) staging: PathBuf,
    pub(super) target: PathBuf,
    pub(super) mode: Mode,
    pub(super) read_only: bool,
}

/// Shows the volume at the staging path, a directory of the CO.
pub(super) fn stage(store: &Store, id: &str, staging: &Path, mode: Mode) -> Result<()> {
    store.load(id)?;
    let staging = existing_dir("staging path", staging)?;
    let shown = shown(store, id)?;
    let mut record = store.node_record(id)?;
    if let Some((path, was)) = &record.staged
        && is_at(&shown, path)
    {
        if *path != staging {
            return Err(Error::precondition(format!(
                "volume {id} is staged at {}: unstage it there first",
                path.display()
            )));
        }
        return same_mode(id, path, was, mode);
    }
    refuse_foreign_mount(&staging, &shown)?;
    record.staged = Some((staging.clone(), mode.as_str_name().into()));
    store.keep_node_record(id, &mut record)?;
    if !is_at(&shown, &staging) {
        bind(&store.data(id), &staging, false)?;
    }
    verify(store, id, &staging)
}

/// Takes the volume from the staging path; the directory stays, it is the CO's.
pub(super) fn unstage(store: &Store, id: &str, staging: &Path) -> Result<()> {
    let Some(staging) = resolved(staging)? else {
        return Ok(());
    };
    if !store.exists(id)? {
        return refuse_unknown(id, &staging);
    }
    let places = shown(store, id)?;
    if !is_at(&places, &staging) {
        return refuse_foreign_mount(&staging, &places);
    }
    let mut record = store.node_record(id)?;
    if let Some(target) = record.published.keys().find(|t| is_at(&places, t)) {
        return Err(Error::precondition(format!(
            "volume {id} is still published at {}: unpublish it first",
            target.display()
        )));
    }
    unmount_all(store, id, &staging)?;
    record.staged = None;
    store.keep_node_record(id, &mut record)
}

/// Shows the staged volume at the target path, which this makes.
pub(super) fn publish(store: &Store, id: &str, wanted: &Publish) -> Result<()> {
    store.load(id)?;
    let target = new_path("target path", &wanted.target)?;
    let staging = existing_dir("staging path", &wanted.staging)?;
    let shown = shown(store, id)?;
    let mut record = store.node_record(id)?;
    let publication = Publication {
        access_mode: wanted.mode.as_str_name().into(),
        read_only: wanted.read_only,
    };
    if let Some(found) = shown.iter().find(|b| b.target == target) {
        return published_alike(id, found, record.published.get(&target), &publication);
    }
    if !is_at(&shown, &staging) {
        return Err(Error::precondition(format!(
            "volume {id} is not staged at {}: stage it first",
            staging.display()
        )));
    }
    // The record, not the mount table, says what was published: propagation may
    // show one mount at several places. What is gone from the table is forgotten.
    record.published.retain(|path, _| is_at(&shown, path));
    let shared = Mode::SingleNodeMultiWriter;
    let alone = |(_, p): &(&PathBuf, &Publication)| {
        wanted.mode != shared || p.access_mode != shared.as_str_name()
    };
    if let Some((other, _)) = record.published.iter().find(alone) {
        return Err(Error::precondition(format!(
            "volume {id} is published at {}, and its access mode {} allows one place: unpublish it there first",
            other.display(),
            publication.access_mode
        )));
    }
    record.published.insert(target.clone(), publication);
    store.keep_node_record(id, &mut record)?;
    make_target(&target)?;
    bind(&staging, &target, wanted.read_only)?;
    verify(store, id, &target)
}

/// Takes the volume from the target path and removes the directory.
pub(super) fn unpublish(store: &Store, id: &str, target: &Path) -> Result<()> {
    let Some(target) = resolved(target)? else {
        return Ok(());
    };
    if !store.exists(id)? {
        return refuse_unknown(id, &target);
    }
    let shown = shown(store, id)?;
    if is_at(&shown, &target) {
        unmount_all(store, id, &target)?;
    } else {
        refuse_foreign_mount(&target, &shown)?;
    }
    match fs::remove_dir(&target) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            return Err(cannot("remove", &target, e));
        }
        _ => {}
    }
    let mut record = store.node_record(id)?;
    if record.published.remove(&target).is_some() {
        store.keep_node_record(id, &mut record)?;
    }
    Ok(())
}

fn published_alike(
    id: &str,
    found: &Binding,
    was: Option<&Publication>,
    wanted: &Publication,
) -> Result<()> {
    let mode = was.map_or(&wanted.access_mode, |p| &p.access_mode);
    if found.read_only == wanted.read_only && *mode == wanted.access_mode {
        return Ok(());
    }
    Err(Error::already_exists(format!(
        "volume {id} is published at {} with access mode {mode}, readonly {}; now {}, readonly {} is asked for: unpublish it first",
        found.target.display(),
        found.read_only,
        wanted.access_mode,
        wanted.read_only,
    )))
}

fn same_mode(id: &str, path: &Path, was: &str, wanted: Mode) -> Result<()> {
    if was == wanted.as_str_name() {
        return Ok(());
    }
    Err(Error::already_exists(format!(
        "volume {id} is staged at {} with access mode {was}, now {} is asked for: unstage it first",
        path.display(),
        wanted.as_str_name()
    )))
}

/// Where the volume is mounted.
fn shown(store: &Store, id: &str) -> Result<Vec<Binding>> {
    mount::bindings(&store.data(id)).map_err(|e| {
        Error::internal(format!("cannot tell where volume {id} is mounted")).with_source(e)
    })
}

fn is_at(shown: &[Binding], path: &Path) -> bool {
    shown.iter().any(|b| b.target == path)
}

/// Something else that is mounted there is left alone.
fn refuse_foreign_mount(path: &Path, shown: &[Binding]) -> Result<()> {
    if is_at(shown, path) || !is_mount(path)? {
        return Ok(());
    }
    Err(Error::precondition(format!(
        "something else is mounted at {}: unmount it first",
        path.display()
    )))
}

/// Of a volume that is not here nothing can be mounted by this driver.
fn refuse_unknown(id: &str, path: &Path) -> Result<()> {
    if !is_mount(path)? {
        return Ok(());
    }
    Err(Error::not_found(format!(
        "volume {id} does not exist, but something is mounted at {}: look at the mount and unmount it",
        path.display()
    )))
}

fn is_mount(path: &Path) -> Result<bool> {
    match mount::is_mount_point(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        other => other.map_err(|e| cannot("look at", path, e)),
    }
}

fn bind(source: &Path, target: &Path, read_only: bool) -> Result<()> {
    mount::bind(source, target, read_only).map_err(|e| cannot("mount at", target, e))
}

/// After a mount: it must be there, and show this volume.
fn verify(store: &Store, id: &str, path: &Path) -> Result<()> {
    if is_mount(path)? && is_at(&shown(store, id)?, path) {
        return Ok(());
    }
    Err(Error::internal(format!(
        "volume {id} was mounted at {} but is not seen there",
        path.display()
    )))
}

/// However often it was mounted there, it is not any more.
fn unmount_all(store: &Store, id: &str, path: &Path) -> Result<()> {
    while is_at(&shown(store, id)?, path) {
        mount::unmount(path).map_err(|e| match e.kind() {
            io::ErrorKind::ResourceBusy => Error::precondition(format!(
                "{} is in use: end the processes that have files open in it",
                path.display()
            )),
            _ => cannot("unmount", path, e),
        })?;
    }
    Ok(())
}

fn make_target(target: &Path) -> Result<()> {
    match fs::DirBuilder::new().mode(0o750).create(target) {
        Ok(()) => return Ok(()),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
        Err(e) => return Err(cannot("make", target, e)),
    }
    // Left by a call that ended half-way, or made by a CO: taken if nothing
    // would be hidden.
    existing_dir("target path", target)?;
    if is_mount(target)? {
        return Err(Error::precondition(format!(
            "something else is mounted at {}: unmount it first",
            target.display()
        )));
    }
    let mut entries = fs::read_dir(target).map_err(|e| cannot("read", target, e))?;
    if entries.next().is_some() {
        return Err(Error::precondition(format!(
            "{} has files in it, which a mount would hide: empty it",
            target.display()
        )));
    }
    Ok(())
}

/// The path as the mount table spells it; the last part is not followed.
fn new_path(what: &str, path: &Path) -> Result<PathBuf> {
    resolved(path)?.ok_or_else(|| {
        Error::precondition(format!(
            "the directory that should hold the {what} {} does not exist: make it",
            path.display()
        ))
    })
}

fn existing_dir(what: &str, path: &Path) -> Result<PathBuf> {
    let path = new_path(what, path)?;
    match fs::symlink_metadata(&path) {
        Ok(found) if found.is_dir() => Ok(path),
        Ok(_) => Err(Error::precondition(format!(
            "the {what} {} is not a directory",
            path.display()
        ))),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Err(Error::precondition(format!(
            "the {what} {} does not exist: make the directory",
            path.display()
        ))),
        Err(e) => Err(cannot("look at", &path, e)),
    }
}

/// `None`: not even its parent is there.
fn resolved(path: &Path) -> Result<Option<PathBuf>> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(Error::invalid(format!(
            "{} is no path to mount at",
            path.display()
        )));
    };
    match parent.canonicalize() {
        Ok(parent) => Ok(Some(parent.join(name))),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(cannot("resolve", parent, e)),
    }
}

fn cannot(what: &str, path: &Path, cause: io::Error) -> Error {
    Error::internal(format!("cannot {what} {}", path.display())).with_source(cause)
}
