// SPDX-License-Identifier: Apache-2.0
//! A machine in user-mode Linux with two disk files, and the end of its power.

use std::{
    env,
    fs::{self, File},
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::{
        Arc, Mutex,
        mpsc::{self, Receiver, RecvTimeoutError},
    },
    thread,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::{ANSWER, SAYS};

/// No command takes so long: a machine that hangs fails its test.
const PATIENCE: Duration = Duration::from_secs(120);

/// What outlives a power cut.
pub(crate) struct Disks {
    dir: PathBuf,
}

impl Disks {
    /// Two new file systems: one for everything, a small one for our records.
    pub(crate) fn make(name: &str) -> Self {
        let disks = Self::new(name);
        for (disk, size) in [("d", 768 << 20), ("s", 24 << 20)] {
            let path = disks.dir.join(disk);
            let file = File::create(&path).expect("the disk file is new");
            file.set_len(size).expect("it is sparse");
            let made = Command::new("mkfs.ext4")
                .args(["-q", "-F", "-m", "0", "-E", "lazy_itable_init=1"])
                .arg(&path)
                .status();
            assert!(made.expect("mkfs.ext4 runs").success(), "mkfs.ext4");
        }
        disks
    }

    /// The same bytes once more.
    pub(crate) fn copy(&self, name: &str) -> Self {
        let copy = Self::new(name);
        for disk in ["d", "s"] {
            let copied = Command::new("cp")
                .arg("--sparse=always")
                .args([self.dir.join(disk), copy.dir.join(disk)])
                .status();
            assert!(copied.expect("cp runs").success(), "cp");
        }
        copy
    }

    fn new(name: &str) -> Self {
        let dir = work().join(name);
        fs::create_dir(&dir).expect("the work directory is ours");
        Self { dir }
    }
}

/// A machine that runs.
pub(crate) struct Machine {
    child: Child,
    line: ChildStdin,
    answers: Receiver<Value>,
    said: Arc<Mutex<Vec<String>>>,
}

impl Machine {
    /// Boots on these disks and waits until it takes commands.
    pub(crate) fn boot(disks: &Disks) -> Self {
        let memory = disks.dir.join("memory");
        fs::create_dir_all(&memory).expect("the disks' directory is ours");
        let uml = path("AV_UML");
        let modules = fs::read_dir(uml.join("../lib/uml/modules"))
            .expect("the kernel has modules")
            .next()
            .expect("of one version")
            .expect("that can be read")
            .path();
        let program = env::current_exe().expect("the test program has a path");
        let disk =
            |number: u32, name: &str| format!("ubd{number}={}", disks.dir.join(name).display());
        let log = File::create(disks.dir.join("console")).expect("the disks' directory is ours");
        // A process namespace of its own: when its first process ends, the
        // kernel has ended all others before anybody hears of it.
        let mut child = Command::new("unshare")
            .args(["--pid", "--fork", "--kill-child", "--"])
            .arg(uml.join("linux.uml"))
            .args([
                "mem=640M",
                "rootfstype=hostfs",
                "rootflags=/",
                "ro",
                "quiet",
            ])
            .args(["con=null", "con0=null,fd:2", "ssl=null", "ssl0=fd:0,fd:1"])
            .arg(format!("init={}", path("AV_INIT").display()))
            .args([disk(0, "d"), disk(1, "s")])
            .arg(format!("uml_dir={}/", memory.display()))
            .arg(format!("AV_MODULES={}", modules.display()))
            .arg(format!("AV_BUSYBOX={}", path("AV_BUSYBOX").display()))
            .arg(format!("AV_PROGRAM={}", program.display()))
            .env("TMPDIR", &memory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .expect("user-mode Linux starts");
        let line = child.stdin.take().expect("it is piped");
        let output = child.stdout.take().expect("it is piped");
        let said = Arc::new(Mutex::new(Vec::new()));
        let (tell, answers) = mpsc::channel();
        let heard = Arc::clone(&said);
        thread::spawn(move || {
            for line in BufReader::new(output).split(b'\n') {
                let Ok(line) = line else { return };
                let line = String::from_utf8_lossy(&line);
                let line = line.trim();
                let value = |text: &str| serde_json::from_str::<Value>(text).ok();
                if let Some(answer) = line.strip_prefix(ANSWER).and_then(value) {
                    if tell.send(answer).is_err() {
                        return;
                    }
                } else if let Some(Value::String(word)) = line.strip_prefix(SAYS).and_then(value) {
                    heard.lock().expect("nobody panics with it").push(word);
                }
            }
        });
        let mut machine = Self {
            child,
            line,
            answers,
            said,
        };
        machine.hear().unwrap_or_else(|e| {
            let console = fs::read_to_string(disks.dir.join("console")).unwrap_or_default();
            panic!("the machine does not boot: {e}\n{console}")
        });
        machine
    }

    /// Sends a command without waiting for what comes of it.
    pub(crate) fn tell(&mut self, command: &Value) {
        writeln!(self.line, "{command}").expect("the machine runs");
    }

    /// What the last command came to.
    pub(crate) fn hear(&mut self) -> Result<Value, String> {
        match self.answers.recv_timeout(PATIENCE) {
            Ok(answer) => match answer.get("failed") {
                Some(why) => Err(why.as_str().unwrap_or_default().to_owned()),
                None => Ok(answer["ok"].clone()),
            },
            Err(RecvTimeoutError::Timeout) => panic!("no answer in {PATIENCE:?}"),
            Err(RecvTimeoutError::Disconnected) => Err("the machine is off".to_owned()),
        }
    }

    /// Runs a command.
    pub(crate) fn ask(&mut self, command: &Value) -> Result<Value, String> {
        self.tell(command);
        self.hear()
    }

    /// Runs a line of shell; its exit code and what it wrote.
    pub(crate) fn try_sh(&mut self, line: &str) -> (i64, String) {
        let done = self.ask(&json!({ "do": "sh", "line": line }));
        let done = done.unwrap_or_else(|e| panic!("`{line}`: {e}"));
        let out = done["out"].as_str().unwrap_or_default().trim_end();
        (done["code"].as_i64().unwrap_or(-1), out.to_owned())
    }

    /// The same, where it must succeed.
    pub(crate) fn sh(&mut self, line: &str) -> String {
        let (code, out) = self.try_sh(line);
        assert_eq!(code, 0, "`{line}`: {out}");
        out
    }

    /// What containers have written so far, a line each.
    pub(crate) fn said(&self) -> Vec<String> {
        self.said.lock().expect("nobody panics with it").clone()
    }

    /// Ends the power: what its kernel had not written to the disks is lost.
    pub(crate) fn cut(mut self) {
        self.end();
    }

    /// Shuts it down: everything is on the disks.
    pub(crate) fn shut_down(mut self) {
        // What holds the disks is ended first; then nothing is left to write.
        self.sh("for signal in TERM KILL; do \
                 for p in /proc/[0-9]*; do [ -s $p/cmdline ] && [ ${p#/proc/} -ne 1 ] && \
                 [ ${p#/proc/} -ne $$ ] && [ ${p#/proc/} -ne $PPID ] && \
                 ! grep -qz inside $p/cmdline && kill -$signal ${p#/proc/} 2> /dev/null; done; \
                 sleep 1; done; sync; mount -o remount,ro /s; mount -o remount,ro /d; sync");
        self.end();
    }

    fn end(&mut self) {
        let outer = self.child.id();
        let children = format!("/proc/{outer}/task/{outer}/children");
        let inner = fs::read_to_string(children).unwrap_or_default();
        let inner = inner.split_whitespace().next().and_then(|p| p.parse().ok());
        if let Some(inner) = inner.and_then(Pid::from_raw) {
            // It may have ended by itself.
            let _ = kill_process(inner, Signal::KILL);
        }
        let _ = self.child.wait();
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.end();
    }
}

/// A path that power.sh tells.
pub(crate) fn path(name: &str) -> PathBuf {
    let value = env::var_os(name);
    value
        .unwrap_or_else(|| panic!("{name}: start this with e2e/uml/power.sh"))
        .into()
}

pub(crate) fn work() -> &'static Path {
    static WORK: std::sync::OnceLock<PathBuf> = std::sync::OnceLock::new();
    WORK.get_or_init(|| path("AV_WORK"))
}
