// SPDX-License-Identifier: Apache-2.0
//! The real helper, beside a node agent that lives in the test's own process.

use std::{
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// `actor-volumes helper`; it ends when this is dropped, or with the test.
pub struct Helper {
    program: PathBuf,
    socket: PathBuf,
    mount_root: PathBuf,
    child: Child,
}

impl Helper {
    /// Starts it and waits until it listens.
    pub fn start(program: &Path, socket: &Path, mount_root: &Path) -> Self {
        let helper = Self {
            child: spawn(program, socket, mount_root),
            program: program.into(),
            socket: socket.into(),
            mount_root: mount_root.into(),
        };
        helper.listens();
        helper
    }

    fn listens(&self) {
        let start = Instant::now();
        while UnixStream::connect(&self.socket).is_err() {
            assert!(start.elapsed() < Duration::from_secs(20), "no helper");
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Kills it.
    pub fn kill(&mut self) {
        // Only fails where it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Kills it and starts it again.
    pub fn restart(&mut self) {
        self.kill();
        self.child = spawn(&self.program, &self.socket, &self.mount_root);
        self.listens();
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        self.kill();
    }
}

fn spawn(program: &Path, socket: &Path, mount_root: &Path) -> Child {
    Command::new(program)
        .args(["helper", "--until-eof", "--socket"])
        .arg(socket)
        .arg("--mount-root")
        .arg(mount_root)
        .stdin(Stdio::piped())
        .spawn()
        .expect("the program was built")
}
