// SPDX-License-Identifier: Apache-2.0
//! Real OCI runtimes, with the wrapper before them and without.

use std::{
    fs,
    os::unix::fs::symlink,
    path::PathBuf,
    process::{Command, Output, Stdio},
};

use crate::{
    bundle::Bundle,
    host::{Host, tool, until_true},
};

/// One of the runtimes of e2e/tools.
#[derive(Debug, Clone)]
pub(crate) struct Runtime {
    pub(crate) name: &'static str,
    pub(crate) program: PathBuf,
    flags: &'static [&'static str],
    /// It wants control groups of version 2 alone.
    pure: bool,
}

impl Runtime {
    pub(crate) fn find(name: &'static str) -> Option<Self> {
        let (set_up, program, flags, pure): (_, _, &[_], _) = match name {
            "runc 1.1.5" => ("runc", "runc", &[], false),
            "runc 1.5" => ("runc-1.5", "runc", &[], false),
            "crun" => ("crun", "crun", &["--cgroup-manager=disabled"], true),
            "runsc" => (
                "runsc",
                "runsc",
                &["--ignore-cgroups", "--network=none", "--platform=systrap"],
                false,
            ),
            other => panic!("no such runtime: {other}"),
        };
        Some(Self {
            name,
            program: tool(set_up)?.join(program),
            flags,
            pure,
        })
    }

    pub(crate) fn runc() -> Self {
        Self::find("runc 1.5").expect("e2e/tools/setup.sh runc-1.5 makes it")
    }

    /// Those that this machine has.
    pub(crate) fn all() -> Vec<Self> {
        let found: Vec<_> = ["runc 1.1.5", "runc 1.5", "crun", "runsc"]
            .into_iter()
            .filter_map(Self::find)
            .collect();
        assert!(found.len() >= 2, "e2e/tools/setup.sh makes them: {found:?}");
        found
    }

    /// With the wrapper before it.
    pub(crate) fn wrapped<'h>(&self, host: &'h Host) -> Wrapped<'h> {
        self.wrapped_as(host, &format!("{:?}", self.program.display().to_string()))
    }

    /// With the wrapper before what guard.runtime says.
    pub(crate) fn wrapped_as<'h>(&self, host: &'h Host, named: &str) -> Wrapped<'h> {
        let link = host.path("actor-volumes-runtime");
        if !link.exists() {
            symlink(env!("CARGO_BIN_EXE_actor-volumes"), &link).unwrap();
        }
        let config = host.path(&format!("{}.toml", self.name.replace(' ', "-")));
        let text = fs::read_to_string(host.path("config.toml")).unwrap();
        fs::write(&config, format!("{text}\n[guard]\nruntime = {named}\n")).unwrap();
        Wrapped {
            host,
            runtime: self.clone(),
            program: link,
            config,
            more: Vec::new(),
        }
    }
}

/// A runtime behind the wrapper.
pub(crate) struct Wrapped<'h> {
    pub(crate) host: &'h Host,
    pub(crate) runtime: Runtime,
    program: PathBuf,
    pub(crate) config: PathBuf,
    /// Options before the subcommand.
    pub(crate) more: Vec<&'static str>,
}

impl Wrapped<'_> {
    /// The runtime itself, with the same root.
    pub(crate) fn bare(&self) -> Wrapped<'_> {
        Wrapped {
            host: self.host,
            runtime: self.runtime.clone(),
            program: self.runtime.program.clone(),
            config: self.config.clone(),
            more: self.more.clone(),
        }
    }

    pub(crate) fn root(&self) -> PathBuf {
        let name = self.runtime.name.replace(' ', "-");
        self.host.path(&format!("root-{name}"))
    }

    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut command = if self.runtime.pure {
            // What is published after it is seen there too.
            let mut command = Command::new("unshare");
            command
                .args(["--mount", "--propagation", "slave", "sh", "-c"])
                .arg("mount -t cgroup2 none /sys/fs/cgroup && exec \"$@\"")
                .arg("sh")
                .arg(&self.program);
            command
        } else {
            Command::new(&self.program)
        };
        // By which runc makes checkpoints.
        if let Some(criu) = tool("criu") {
            let path = std::env::var("PATH").unwrap();
            command.env("PATH", format!("{}:{path}", criu.display()));
        }
        command
            .env("ACTOR_VOLUMES_CONFIG", &self.config)
            .arg("--root")
            .arg(self.root())
            .args(self.runtime.flags)
            .args(&self.more)
            .args(words)
            .stdin(Stdio::null());
        command
    }

    /// What becomes of it. Its output is a file, for a pipe would stay open in the
    /// container.
    pub(crate) fn try_run(&self, words: &[&str]) -> Output {
        let file = |name: &str| self.host.path(name);
        let (out, err) = (file("out"), file("err"));
        let status = self
            .command(words)
            .stdout(fs::File::create(&out).unwrap())
            .stderr(fs::File::create(&err).unwrap())
            .status()
            .unwrap();
        Output {
            status,
            stdout: fs::read(out).unwrap(),
            stderr: fs::read(err).unwrap(),
        }
    }

    /// A command that succeeds; what it printed.
    pub(crate) fn run(&self, words: &[&str]) -> String {
        let done = self.try_run(words);
        let error = String::from_utf8_lossy(&done.stderr);
        let name = self.runtime.name;
        assert!(done.status.success(), "{name}: {words:?}: {error}");
        String::from_utf8(done.stdout).unwrap()
    }

    /// One that fails, for a reason with these words.
    pub(crate) fn is_refused(&self, words: &[&str], why: &str) {
        let done = self.try_run(words);
        let error = String::from_utf8_lossy(&done.stderr);
        let name = self.runtime.name;
        assert!(!done.status.success(), "{name}: {words:?} succeeds");
        assert!(error.contains(why), "{name}: {why:?} in {error}");
    }

    pub(crate) fn create(&self, bundle: &Bundle, id: &str) {
        let path = bundle.dir.display().to_string();
        self.run(&["create", "--bundle", &path, id]);
    }

    /// Makes a container of the bundle, and starts it.
    pub(crate) fn start(&self, bundle: &Bundle, id: &str) {
        self.create(bundle, id);
        self.run(&["start", id]);
        until_true("it runs", || {
            self.try_sh(id, "test -e /tmp/ready").status.success()
        });
    }

    pub(crate) fn try_sh(&self, id: &str, script: &str) -> Output {
        self.try_run(&["exec", id, "/bin/busybox", "sh", "-c", script])
    }

    /// Runs a script in the container, which succeeds; what it printed.
    pub(crate) fn sh(&self, id: &str, script: &str) -> String {
        let script = ["exec", id, "/bin/busybox", "sh", "-c", script];
        self.run(&script).trim().to_owned()
    }

    pub(crate) fn state(&self, id: &str) -> serde_json::Value {
        let told = self.run(&["state", id]);
        serde_json::from_str(&told).unwrap()
    }

    pub(crate) fn pid(&self, id: &str) -> u32 {
        let pid = self.state(id)["pid"].as_u64().unwrap();
        u32::try_from(pid).unwrap()
    }

    /// Ends the container and takes it away.
    pub(crate) fn end(&self, id: &str) {
        self.run(&["kill", id, "KILL"]);
        until_true("it is stopped", || self.state(id)["status"] == "stopped");
        self.run(&["delete", id]);
    }
}
