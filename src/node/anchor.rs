// SPDX-License-Identifier: Apache-2.0
//! By what a container that no pod holds is seen to live: no runtime can be asked for
//! all that it has.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{Publication, proof, volume::Volume};
use crate::{
    csi::Driver,
    error::{Error, Result},
    host::process,
    model::{Door, Scope},
};

/// By what a container is seen to live.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Anchor {
    /// The boot in which it came.
    pub boot: String,
    /// The process namespace in which its process was seen: whoever looks from another
    /// one sees nothing, which proves nothing.
    pub process_namespace: String,
    /// The process that makes it, or that it is. None: nothing is made yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<Born>,
    /// The OCI runtime's root, where it was told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<PathBuf>,
    /// Its bundle, where it was told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bundle: Option<Bundle>,
}

/// A process, told from any other of this boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Born {
    /// Its id.
    pub pid: u32,
    /// When it began, in ticks since the boot.
    pub start_time: u64,
}

/// The bundle of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Bundle {
    /// Its path, as it was told.
    pub path: PathBuf,
    /// The directory itself; none: it is not to be seen from here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen: Option<Directory>,
}

/// A directory, told from any that comes to its path later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Directory {
    /// The device of its file system.
    pub device: u64,
    /// Its inode.
    pub inode: u64,
}

/// The process namespace of this process.
pub(super) fn process_namespace() -> Result<String> {
    let link = fs::read_link("/proc/self/ns/pid").map_err(|e| {
        Error::internal("cannot look at the process namespace of the node agent").with_source(e)
    })?;
    Ok(link.to_string_lossy().into_owned())
}

impl Born {
    /// Whether it lives.
    pub(super) fn lives(self) -> io::Result<bool> {
        Ok(process::start_time(self.pid)? == Some(self.start_time))
    }
}

impl Directory {
    /// What is at the path now.
    pub(super) fn at(path: &Path) -> io::Result<Self> {
        let seen = fs::symlink_metadata(path)?;
        if !seen.is_dir() {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        Ok(Self {
            device: seen.dev(),
            inode: seen.ino(),
        })
    }
}

impl Bundle {
    /// Whether it is still there. What may not be looked at is.
    fn is_there(&self) -> bool {
        let Some(seen) = self.seen else {
            return true;
        };
        match Directory::at(&self.path) {
            Ok(now) => now == seen,
            Err(e) => !matches!(
                e.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ),
        }
    }
}

impl Anchor {
    /// Whether it is this boot's.
    fn is_of_this_boot(&self) -> bool {
        self.boot == process::boot_id()
    }

    /// Whether it was seen from where this process looks.
    pub(super) fn is_in_sight(&self) -> bool {
        self.is_of_this_boot() && process_namespace().is_ok_and(|own| own == self.process_namespace)
    }

    /// Whether this container is meant by what a door tells.
    pub(super) fn is_at(&self, root: Option<&Path>, bundle: Option<&Path>) -> bool {
        let same_root = root.is_some() && root == self.root.as_deref();
        let own = self.bundle.as_ref().map(|b| b.path.as_path());
        same_root || (bundle.is_some() && bundle == own)
    }

    /// What of it lives by itself, for people; none: nothing does.
    fn alive(&self, door: Door) -> io::Result<Option<String>> {
        if let Some(born) = self.process
            && self.is_of_this_boot()
            && born.lives()?
        {
            return Ok(Some(format!("its process {} lives", born.pid)));
        }
        match &self.bundle {
            // Nobody has to run what was written into it.
            Some(bundle) if door == Door::Bundle && bundle.is_there() => Ok(Some(format!(
                "its bundle {} has it: `actor-volumes bundle release` takes it back",
                bundle.path.display()
            ))),
            _ => Ok(None),
        }
    }
}

impl Volume {
    /// Why a container that no pod holds lives, or may be made any moment; none: it is
    /// gone. The publication is of one.
    pub(super) async fn lives(
        &self,
        driver: &Driver,
        publication: &Publication,
    ) -> Result<Option<String>> {
        let (Scope::Container { door, .. }, Some(anchor)) =
            (&publication.scope, publication.anchor.clone())
        else {
            return Ok(Some("it is not known by what it lives".into()));
        };
        let door = *door;
        let alive = proof::look("the processes of containers", move || anchor.alive(door)).await?;
        if let Some(alive) = alive.map_err(|e| unseen(&e))? {
            return Ok(Some(alive));
        }
        self.user_of(driver, publication).await
    }

    /// The process that makes the container, as long as it may give it what is published
    /// (I11). A container that runs already, and what is only written down, does not.
    pub(super) async fn still_made(&self, publication: &Publication) -> Result<Option<String>> {
        let Scope::Container { door, .. } = &publication.scope else {
            return Ok(None);
        };
        let Some(anchor) = publication.anchor.clone() else {
            return Ok(None);
        };
        if *door == Door::Bind || !anchor.is_of_this_boot() {
            return Ok(None);
        }
        let Some(born) = anchor.process else {
            return Ok(None);
        };
        let lives = proof::look("the processes of containers", move || born.lives()).await?;
        Ok(lives
            .map_err(|e| unseen(&e))?
            .then(|| format!("process {} of its container lives", born.pid)))
    }
}

fn unseen(cause: &io::Error) -> Error {
    Error::internal(format!(
        "cannot look at a process of a container in /proc: {cause}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn anchor(process: Option<Born>, bundle: Option<Bundle>) -> Anchor {
        Anchor {
            boot: process::boot_id(),
            process_namespace: process_namespace().unwrap(),
            process,
            root: Some("/run/runc".into()),
            bundle,
        }
    }

    fn bundle(path: &Path) -> Bundle {
        Bundle {
            path: path.into(),
            seen: Some(Directory::at(path).unwrap()),
        }
    }

    fn own() -> Born {
        let pid = std::process::id();
        Born {
            pid,
            start_time: process::start_time(pid).unwrap().unwrap(),
        }
    }

    #[test]
    fn a_process_lives_by_its_id_and_its_start_in_this_boot() {
        let alive = |a: &Anchor| a.alive(Door::Hook).unwrap().is_some();
        assert!(alive(&anchor(Some(own()), None)));
        let other = Born {
            start_time: own().start_time + 1,
            ..own()
        };
        assert!(!alive(&anchor(Some(other), None)));
        let mut before = anchor(Some(own()), None);
        before.boot = "another".into();
        assert!(!alive(&before) && !before.is_in_sight());
        assert!(!alive(&anchor(None, None)));
    }

    #[test]
    fn one_that_has_ended_and_waits_for_its_parent_does_not_live() {
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let pid = child.id();
        let start_time = process::start_time(pid).unwrap().unwrap();
        child.kill().unwrap();
        while (Born { pid, start_time }).lives().unwrap() {
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        child.wait().unwrap();
        assert_eq!(process::start_time(pid).unwrap(), None);
    }

    #[test]
    fn a_bundle_counts_as_long_as_it_is_the_same_directory() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("b");
        fs::create_dir(&path).unwrap();
        let written = anchor(None, Some(bundle(&path)));
        assert!(written.alive(Door::Bundle).unwrap().is_some());
        assert!(written.alive(Door::Runtime).unwrap().is_none());
        let aside = dir.path().join("aside");
        fs::rename(&path, &aside).unwrap();
        assert!(written.alive(Door::Bundle).unwrap().is_none());
        fs::create_dir(&path).unwrap();
        assert!(written.alive(Door::Bundle).unwrap().is_none());
        fs::rename(&aside, dir.path().join("b2")).unwrap();
        std::os::unix::fs::symlink(dir.path().join("b2"), dir.path().join("l")).unwrap();
        assert!(Directory::at(&dir.path().join("l")).is_err());
    }

    #[test]
    fn a_door_means_it_by_its_root_or_its_bundle() {
        let dir = tempfile::tempdir().unwrap();
        let one = anchor(None, Some(bundle(dir.path())));
        let (root, bundle) = (Some(Path::new("/run/runc")), Some(dir.path()));
        assert!(one.is_at(root, None) && one.is_at(None, bundle) && one.is_at(root, bundle));
        let other = Some(Path::new("/other"));
        assert!(one.is_at(other, bundle));
        assert!(!one.is_at(other, None) && !one.is_at(None, other) && !one.is_at(None, None));
    }
}
