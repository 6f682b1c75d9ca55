// SPDX-License-Identifier: Apache-2.0
//! Volumes on disk. Everything that was answered with success is on stable
//! storage before the answer.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use sha2::{Digest, Sha256};

use crate::{
    error::{Error, Kind, Result},
    host::{mount, tree},
};

const FORMAT: u32 = 1;
const VOLUME: &str = "volume.json";
const NODE: &str = "node.json";
const ID_PREFIX: &str = "local-";

/// What CreateVolume asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct VolumeRecord {
    pub(super) format: u32,
    pub(super) name: String,
    pub(super) required_bytes: i64,
    pub(super) limit_bytes: i64,
    /// What it was expanded to; 0: never. Kept apart, so that a repeated
    /// CreateVolume still finds the request that it was made with.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(super) expanded_bytes: i64,
}

fn is_zero(bytes: &i64) -> bool {
    *bytes == 0
}

impl VolumeRecord {
    pub(super) fn new(name: &str, (required_bytes, limit_bytes): (i64, i64)) -> Self {
        Self {
            format: FORMAT,
            name: name.into(),
            required_bytes,
            limit_bytes,
            expanded_bytes: 0,
        }
    }

    /// Its size now.
    pub(super) fn capacity_bytes(&self) -> i64 {
        self.required_bytes.max(self.expanded_bytes)
    }
}

/// How a volume was staged and published. The mount table says whether it
/// still is; this says with which capability.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct NodeRecord {
    pub(super) format: u32,
    /// Staging path and access mode.
    pub(super) staged: Option<(PathBuf, String)>,
    /// By target path.
    pub(super) published: BTreeMap<PathBuf, Publication>,
}

/// One NodePublishVolume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Publication {
    pub(super) access_mode: String,
    pub(super) read_only: bool,
}

/// The directory of one driver.
pub(super) struct Store {
    root: PathBuf,
    _lock: File,
}

impl Store {
    /// Makes what is missing, and removes what an earlier driver left in the trash.
    pub(super) fn open(root: &Path) -> Result<Self> {
        let cannot = |what: &str| format!("cannot {what} the root {}", root.display());
        let prepare = || -> io::Result<()> {
            if let Some(parent) = root.parent() {
                fs::create_dir_all(parent)?;
            }
            for dir in [root, &root.join("volumes"), &root.join("trash")] {
                make_dir(dir, 0o700)?;
            }
            sync_dir(root)
        };
        prepare().map_err(|e| internal(cannot("prepare"), e))?;
        let root = root
            .canonicalize()
            .map_err(|e| internal(cannot("resolve"), e))?;
        let lock = File::create(root.join("lock")).map_err(|e| internal(cannot("lock"), e))?;
        rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|_| {
            Error::precondition(format!(
                "another driver serves {}: stop it first",
                root.display()
            ))
        })?;
        let store = Self { root, _lock: lock };
        store
            .empty_trash()
            .map_err(|e| internal(cannot("empty the trash of"), e))?;
        Ok(store)
    }

    /// The id of the volume of this name: the same name always gives the same id.
    pub(super) fn id_of(name: &str) -> String {
        let hash = hex::encode(&Sha256::digest(name)[..16]);
        format!("{ID_PREFIX}{hash}")
    }

    /// The directory of a volume; none for an id that this driver never gives.
    fn dir(&self, id: &str) -> Option<PathBuf> {
        let hash = id.strip_prefix(ID_PREFIX)?;
        let ours = hash.len() == 32
            && hash
                .bytes()
                .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        ours.then(|| self.root.join("volumes").join(id))
    }

    /// The volume; NOT_FOUND where there is none.
    pub(super) fn load(&self, id: &str) -> Result<VolumeRecord> {
        let found = match self.dir(id) {
            Some(dir) => read_json(&dir.join(VOLUME))?,
            None => None,
        };
        found.ok_or_else(|| Error::not_found(format!("volume {id} does not exist")))
    }

    /// Whether the volume is there.
    pub(super) fn exists(&self, id: &str) -> Result<bool> {
        match self.load(id) {
            Ok(_) => Ok(true),
            Err(e) if e.kind() == Kind::NotFound => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Where the files are. The volume is there.
    pub(super) fn data(&self, id: &str) -> PathBuf {
        self.root.join("volumes").join(id).join("data")
    }

    /// Creates the volume, or finds the one that was created with the same request.
    pub(super) fn create(&self, wanted: &VolumeRecord) -> Result<i64> {
        let id = Self::id_of(&wanted.name);
        let volumes = self.root.join("volumes");
        let dir = volumes.join(&id);
        if let Some(found) = read_json::<VolumeRecord>(&dir.join(VOLUME))? {
            same_request(&found, wanted)?;
            return Ok(found.capacity_bytes());
        }
        let make = || -> io::Result<()> {
            make_dir(&dir, 0o700)?;
            make_dir(&dir.join("data"), 0o755)?;
            sync_dir(&dir.join("data"))?;
            write_json(&dir, VOLUME, wanted)?;
            sync_dir(&volumes)
        };
        make().map_err(|e| internal(format!("cannot create volume {id}"), e))?;
        Ok(wanted.capacity_bytes())
    }

    /// Notes a larger size; gives the size now. A volume never shrinks.
    pub(super) fn expand(&self, id: &str, (required, limit): (i64, i64)) -> Result<i64> {
        let mut record = self.load(id)?;
        let now = record.capacity_bytes();
        if limit > 0 && limit < now {
            return Err(Error::new(
                Kind::InvalidInput,
                format!("volume {id} has {now} bytes already, more than limit_bytes {limit}"),
            ));
        }
        if required > now {
            record.expanded_bytes = required;
            let dir = self.root.join("volumes").join(id);
            write_json(&dir, VOLUME, &record)
                .map_err(|e| internal(format!("cannot expand volume {id}"), e))?;
        }
        Ok(record.capacity_bytes())
    }

    /// Removes the volume and its files; one that is not there is success.
    pub(super) fn delete(&self, id: &str) -> Result<()> {
        let Some(dir) = self.dir(id) else {
            return Ok(());
        };
        let cannot = || format!("cannot delete volume {id}");
        let data = dir.join("data");
        let there = |path: &Path| path.try_exists().map_err(|e| internal(cannot(), e));
        if there(&data)? {
            let shown = mount::bindings(&data).map_err(|e| internal(cannot(), e))?;
            if let Some(binding) = shown.first() {
                return Err(Error::precondition(format!(
                    "volume {id} is still mounted at {}: unpublish and unstage it first",
                    binding.target.display()
                )));
            }
        }
        let (volumes, trash) = (self.root.join("volumes"), self.root.join("trash"));
        let remove = || -> io::Result<()> {
            // An earlier try may have ended half-way.
            remove_from(&trash, OsStr::new(id))?;
            match fs::rename(&dir, trash.join(id)) {
                Ok(()) => {}
                Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
                Err(e) => return Err(e),
            }
            sync_dir(&volumes)?;
            sync_dir(&trash)?;
            remove_from(&trash, OsStr::new(id))
        };
        remove().map_err(|e| internal(cannot(), e))
    }

    /// How the volume was staged and published.
    pub(super) fn node_record(&self, id: &str) -> Result<NodeRecord> {
        let dir = self.root.join("volumes").join(id);
        Ok(read_json(&dir.join(NODE))?.unwrap_or_default())
    }

    /// Keeps how it is about to be staged and published.
    pub(super) fn keep_node_record(&self, id: &str, record: &mut NodeRecord) -> Result<()> {
        record.format = FORMAT;
        let dir = self.root.join("volumes").join(id);
        write_json(&dir, NODE, record)
            .map_err(|e| internal(format!("cannot write {NODE} of volume {id}"), e))
    }

    /// Bytes that are free for any user.
    pub(super) fn free_bytes(&self) -> Result<i64> {
        let found = rustix::fs::statvfs(&self.root)
            .map_err(|e| internal("cannot ask for free space".into(), e.into()))?;
        let free = found.f_bavail.saturating_mul(found.f_frsize);
        Ok(i64::try_from(free).unwrap_or(i64::MAX))
    }

    fn empty_trash(&self) -> io::Result<()> {
        let trash = self.root.join("trash");
        for entry in fs::read_dir(&trash)? {
            remove_from(&trash, &entry?.file_name())?;
        }
        Ok(())
    }
}

/// An existing volume of the name, compared with what is asked for now.
fn same_request(found: &VolumeRecord, wanted: &VolumeRecord) -> Result<()> {
    let differs = |what: &str, was: &dyn std::fmt::Display, is: &dyn std::fmt::Display| {
        Err(Error::already_exists(format!(
            "volume {:?} exists with another {what}: {was}, now {is}",
            wanted.name
        )))
    };
    if found.name != wanted.name {
        return differs("name of the same hash", &found.name, &wanted.name);
    }
    if found.required_bytes != wanted.required_bytes {
        let (was, is) = (found.required_bytes, wanted.required_bytes);
        return differs("capacity_range.required_bytes", &was, &is);
    }
    if found.limit_bytes != wanted.limit_bytes {
        let (was, is) = (found.limit_bytes, wanted.limit_bytes);
        return differs("capacity_range.limit_bytes", &was, &is);
    }
    Ok(())
}

fn internal(message: String, cause: io::Error) -> Error {
    Error::internal(message).with_source(cause)
}

fn make_dir(path: &Path, mode: u32) -> io::Result<()> {
    match fs::DirBuilder::new().mode(mode).create(path) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        other => other,
    }
}

fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

fn remove_from(parent: &Path, name: &OsStr) -> io::Result<()> {
    let dir = File::open(parent)?;
    tree::remove_tree(&dir, name)?;
    dir.sync_all()
}

fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    let shown = path.display();
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(internal(format!("cannot read {shown}"), e)),
    };
    serde_json::from_slice(&bytes).map(Some).map_err(|e| {
        Error::internal(format!(
            "{shown} is damaged: restore it, or remove the volume's directory if its data is not needed"
        ))
        .with_source(e)
    })
}

/// Replaces the file at once and for good: after a crash it is the old or the new one.
fn write_json(dir: &Path, name: &str, content: &impl Serialize) -> io::Result<()> {
    let next = dir.join(format!("{name}.new"));
    let mut file = File::create(&next)?;
    file.write_all(&serde_json::to_vec(content)?)?;
    file.sync_all()?;
    fs::rename(&next, dir.join(name))?;
    sync_dir(dir)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    fn store() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("root")).unwrap();
        (dir, store)
    }

    fn record(name: &str) -> VolumeRecord {
        VolumeRecord::new(name, (1, 0))
    }

    #[test]
    fn a_volume_is_found_again_by_name_and_other_arguments_are_named() {
        let (_dir, store) = store();
        store.create(&record("a")).unwrap();
        store.create(&record("a")).unwrap();
        let other = VolumeRecord::new("a", (2, 0));
        let error = store.create(&other).unwrap_err();
        assert_eq!(error.kind(), Kind::AlreadyExists);
        assert!(error.full_message().contains("required_bytes: 1, now 2"));
        assert_eq!(store.load(&Store::id_of("a")).unwrap(), record("a"));
    }

    #[test]
    fn a_half_made_volume_is_not_there_and_can_be_created_or_deleted() {
        let (dir, store) = store();
        let id = Store::id_of("a");
        let half = dir.path().join("root/volumes").join(&id);
        fs::create_dir_all(half.join("data")).unwrap();
        assert!(!store.exists(&id).unwrap());
        store.create(&record("a")).unwrap();
        assert!(store.exists(&id).unwrap());
        fs::remove_file(half.join(VOLUME)).unwrap();
        store.delete(&id).unwrap();
        assert!(!half.exists());
    }

    #[test]
    fn delete_takes_the_volume_and_nothing_else() {
        let (dir, store) = store();
        for name in ["a", "b"] {
            store.create(&record(name)).unwrap();
            fs::write(store.data(&Store::id_of(name)).join("f"), name).unwrap();
        }
        let (a, b) = (Store::id_of("a"), Store::id_of("b"));
        for _ in 0..2 {
            store.delete(&a).unwrap();
        }
        assert!(!store.exists(&a).unwrap());
        assert_eq!(fs::read(store.data(&b).join("f")).unwrap(), b"b");
        let trash = dir.path().join("root/trash");
        assert_eq!(fs::read_dir(trash).unwrap().count(), 0);
    }

    #[test]
    fn an_id_that_was_never_given_touches_nothing() {
        let (dir, store) = store();
        let outside = dir.path().join("root/x");
        fs::create_dir(&outside).unwrap();
        let escapes = format!("local-{:.<32}", "/../../x");
        for id in ["", "x", "../x", "local-../../x", &escapes] {
            store.delete(id).unwrap();
            assert_eq!(store.load(id).unwrap_err().kind(), Kind::NotFound);
        }
        assert!(outside.exists());
    }

    #[test]
    fn a_root_has_one_driver_and_its_trash_is_emptied() {
        let (dir, store) = store();
        let root = dir.path().join("root");
        let second = Store::open(&root).err().expect("locked");
        assert_eq!(second.kind(), Kind::FailedPrecondition);
        fs::create_dir_all(root.join("trash/left/over")).unwrap();
        drop(store);
        Store::open(&root).unwrap();
        assert_eq!(fs::read_dir(root.join("trash")).unwrap().count(), 0);
    }
}
