// SPDX-License-Identifier: Apache-2.0
//! What the suite finds ready: binaries, tools, its base directory. `run.sh`
//! makes it and says it by environment.

use std::{
    env, fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
};

/// Where everything is.
pub(crate) struct Setup {
    /// A directory of the suite's own, short, on a file system of its own.
    pub(crate) base: PathBuf,
    /// Pods of the suite live below this cgroup.
    pub(crate) cgroup: String,
    /// `pause.tar` and `busybox.tar`.
    pub(crate) images: PathBuf,
    /// The containerd versions, those with the whole list first.
    pub(crate) versions: Vec<String>,
    /// The version that gets the whole list.
    pub(crate) main_version: String,
    /// Where logs of failed cases are kept, if anywhere.
    pub(crate) keep_logs: Option<PathBuf>,
    scripts: PathBuf,
    next: AtomicU32,
}

static SETUP: OnceLock<Setup> = OnceLock::new();

/// The one setup; read from the environment at the first call.
pub(crate) fn setup() -> &'static Setup {
    SETUP.get_or_init(|| {
        let needed = |name: &str| {
            env::var(name)
                .unwrap_or_else(|_| panic!("{name} is not set: start the suite with e2e/run.sh"))
        };
        let versions: Vec<String> = needed("AV_E2E_VERSIONS")
            .split_whitespace()
            .map(str::to_owned)
            .collect();
        Setup {
            base: needed("AV_E2E_BASE").into(),
            cgroup: needed("AV_E2E_CGROUP"),
            images: needed("AV_E2E_IMAGES").into(),
            main_version: needed("AV_E2E_MAIN_VERSION"),
            versions,
            keep_logs: env::var_os("AV_E2E_LOGS").map(PathBuf::from),
            scripts: Path::new(env!("CARGO_MANIFEST_DIR")).join("e2e/tools"),
            next: AtomicU32::new(0),
        }
    })
}

impl Setup {
    /// A new directory for one node.
    pub(crate) fn new_dir(&self) -> PathBuf {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let dir = self.base.join(number.to_string());
        fs::create_dir(&dir).unwrap_or_else(|e| panic!("cannot make {}: {e}", dir.display()));
        dir
    }

    /// One of the scripts under `e2e/tools`.
    pub(crate) fn script(&self, name: &str) -> Command {
        Command::new(self.scripts.join(name))
    }

    /// The directory with the binaries of a tool; none when it was skipped.
    pub(crate) fn tool(&self, name: &str) -> Option<PathBuf> {
        let output = self
            .script("setup.sh")
            .args(["--path", name])
            .output()
            .expect("e2e/tools/setup.sh runs");
        if !output.status.success() {
            return None;
        }
        Some(String::from_utf8_lossy(&output.stdout).trim().into())
    }

    /// The program of a tool that is an OCI runtime, for a node in this directory; none
    /// when it was skipped.
    pub(crate) fn runtime(&self, tool: &str, dir: &Path) -> Option<PathBuf> {
        // The tool's name may end with a version.
        let name = tool.split('-').next().unwrap_or(tool);
        let program = self.tool(tool)?.join(name);
        let script = match name {
            // It wants control groups of version 2 alone, with all controllers, and this
            // machine may have both. What is mounted on the host goes on to reach it.
            "crun" => {
                "exec unshare --mount --propagation slave sh -c \
                 'mount -t cgroup2 none /sys/fs/cgroup && exec \"$0\" --cgroup-manager=disabled \"$@\"' \
                 PROGRAM \"$@\""
            }
            // It would move the network's devices into its sandbox.
            "runsc" => "exec PROGRAM --ignore-cgroups --network=none --platform=systrap \"$@\"",
            _ => return Some(program),
        };
        let at = dir.join(name);
        if !at.exists() {
            let script = script.replace("PROGRAM", &program.display().to_string());
            fs::write(&at, format!("#!/bin/sh\n{script}\n")).expect("the node takes files");
            let executable = fs::Permissions::from_mode(0o755);
            fs::set_permissions(&at, executable).expect("it was written");
        }
        Some(at)
    }
}

/// Our binary.
pub(crate) fn actor_volumes() -> Command {
    Command::new(env!("CARGO_BIN_EXE_actor-volumes"))
}

/// The same with the feature `crash-points`: it dies where it is told to.
pub(crate) fn mortal() -> Command {
    let program = env::var_os("AV_E2E_CRASH_PROGRAM");
    Command::new(program.expect("AV_E2E_CRASH_PROGRAM is not set: start the suite with e2e/run.sh"))
}

/// A binary of testkit; cargo puts it beside ours.
pub(crate) fn testkit(name: &str) -> Command {
    Command::new(Path::new(env!("CARGO_BIN_EXE_actor-volumes")).with_file_name(name))
}
