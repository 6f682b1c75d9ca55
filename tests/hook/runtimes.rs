// SPDX-License-Identifier: Apache-2.0
//! The real runtimes.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

/// A runtime that runs hooks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Runtime {
    pub(crate) name: &'static str,
    pub(crate) program: PathBuf,
}

/// The directory of a tool, which is set up where it is not there.
pub(crate) fn tool(name: &str) -> Option<PathBuf> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("e2e/tools/setup.sh");
    let path = || {
        let found = Command::new(&script).args(["--path", name]).output();
        let found = found.unwrap();
        let path = String::from_utf8(found.stdout).unwrap();
        found.status.success().then(|| path.trim().into())
    };
    path().or_else(|| {
        Command::new(&script).arg(name).status().unwrap();
        path()
    })
}

/// Those that this machine has.
pub(crate) fn all() -> &'static [Runtime] {
    static ALL: OnceLock<Vec<Runtime>> = OnceLock::new();
    ALL.get_or_init(|| {
        let named = [("runc", "runc"), ("runc-1.5", "runc"), ("crun", "crun")];
        let found = named.into_iter().filter_map(|(name, program)| {
            let program = tool(name)?.join(program);
            Some(Runtime { name, program })
        });
        let found: Vec<_> = found.collect();
        assert!(found.len() > 1, "the tools are not set up");
        found
    })
}

/// The newest of runc.
pub(crate) fn runc() -> &'static Runtime {
    all().iter().find(|r| r.name == "runc-1.5").unwrap()
}

impl Runtime {
    /// With its state in this directory.
    pub(crate) fn command(&self, root: &Path) -> Command {
        self.command_where(root, "slave")
    }

    /// In a mount namespace that mounts of the host reach so, where it needs one of its
    /// own: crun wants control groups of version 2 alone.
    pub(crate) fn command_where(&self, root: &Path, propagation: &str) -> Command {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", propagation, "sh", "-c"]);
        let first = match self.name {
            "crun" => "mount -t cgroup2 none /sys/fs/cgroup && ",
            _ => "",
        };
        command.arg(format!("{first}exec \"$@\"")).arg("sh");
        command.arg(&self.program).arg("--root").arg(root);
        if self.name == "crun" {
            command.arg("--cgroup-manager=disabled");
        }
        command
    }
}
