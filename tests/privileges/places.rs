// SPDX-License-Identifier: Apache-2.0
//! What the features are tried on: mounts, devices and processes of other users, which
//! end with their owner.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use actor_volumes::host::mountinfo::{self, Identity};
use tempfile::TempDir;

/// A user that is not root, and a second one.
pub(crate) const SOMEBODY: &str = "65534";
pub(crate) const SOMEBODY_ELSE: &str = "65533";

/// Runs a command to its good end, and gives what it said.
pub(crate) fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {output:?}"
    );
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A small file system of somebody's, which only he may open.
pub(crate) struct Volume {
    dir: TempDir,
}

impl Volume {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let options = format!("uid={SOMEBODY},mode=0700,size=64k");
        let at = dir.path().to_str().unwrap();
        run("mount", &["-t", "tmpfs", "-o", &options, "tmpfs", at]);
        Self { dir }
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// What its mount shows, by the mount table.
    pub(crate) fn identity(&self) -> Identity {
        let table = mountinfo::own().unwrap();
        let mut mounts = table.into_iter();
        let own = mounts.find(|m| m.mount_point == self.path());
        own.unwrap().identity
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        run("umount", &[self.dir.path().to_str().unwrap()]);
    }
}

/// A process of somebody's that waits.
pub(crate) struct Waits(Child);

impl Waits {
    /// Started by a shell, in a mount namespace of its own, once the script has run.
    pub(crate) fn after(script: &str) -> Self {
        Self::as_somebody(script, "")
    }

    /// With a user namespace of its own.
    pub(crate) fn with_users() -> Self {
        let waits = Self::as_somebody(":", "unshare --user");
        for map in ["uid_map", "gid_map"] {
            let map = format!("/proc/{}/{map}", waits.pid());
            std::fs::write(map, "0 100000 65536").unwrap();
        }
        waits
    }

    fn as_somebody(script: &str, by: &str) -> Self {
        let script = format!(
            "{script}; exec setpriv --reuid {SOMEBODY} --regid {SOMEBODY} --clear-groups \
             {by} sh -c 'echo; exec sleep 1000'"
        );
        let mut child = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "sh", "-c", &script])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // Its line says that it is somebody's now.
        let mut line = [0];
        let out = child.stdout.as_mut().unwrap();
        std::io::Read::read_exact(out, &mut line).unwrap();
        Self(child)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Waits {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A loop device.
pub(crate) struct Loop {
    _dir: TempDir,
    pub(crate) device: PathBuf,
}

impl Loop {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, vec![0; 1 << 20]).unwrap();
        let device = run("losetup", &["--find", "--show", file.to_str().unwrap()]);
        Self {
            _dir: dir,
            device: device.into(),
        }
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        run("losetup", &["--detach", self.device.to_str().unwrap()]);
    }
}
