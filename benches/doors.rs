// SPDX-License-Identifier: Apache-2.0
//! What hook and wrapper cost a container that has nothing to do with us: the time of the
//! whole process and its peak memory, beside /bin/true in the same run.
//!
//!     cargo bench --bench doors
//!
//! Memory is measured where e2e/tools/setup.sh has brought busybox-static.

use std::{
    error::Error,
    fs::{self, File},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

/// Each is run so often, one after the other in turn.
const ROUNDS: usize = 1_000;

/// One way to run a program.
struct Run {
    name: &'static str,
    program: PathBuf,
    arguments: Vec<String>,
    stdin: PathBuf,
    config: PathBuf,
    took: Vec<Duration>,
}

impl Run {
    /// Starts it below another program, or alone.
    fn command(&self, below: &[&Path]) -> Result<Command, Box<dyn Error>> {
        let words: Vec<&Path> = below.iter().copied().chain([&*self.program]).collect();
        let mut command = Command::new(words[0]);
        command
            .args(&words[1..])
            .args(&self.arguments)
            .env("ACTOR_VOLUMES_CONFIG", &self.config)
            .stdin(File::open(&self.stdin)?)
            .stdout(Stdio::null());
        Ok(command)
    }

    fn time(&mut self) -> Result<(), Box<dyn Error>> {
        let mut command = self.command(&[])?;
        let start = Instant::now();
        let status = command.status()?;
        self.took.push(start.elapsed());
        match status.success() {
            true => Ok(()),
            false => Err(format!("{}: {status}", self.name).into()),
        }
    }

    fn median(&mut self) -> Duration {
        self.took.sort();
        self.took[self.took.len() / 2]
    }

    /// Its greatest resident set, in KiB. A small program starts it: a process begins
    /// with what its parent had.
    fn memory(&self, busybox: &Path) -> Result<u64, Box<dyn Error>> {
        let time = [busybox, Path::new("time"), Path::new("-v")];
        let output = self.command(&time)?.output()?;
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        let line = text.lines().find(|l| l.contains("Maximum resident set"));
        let number = line.and_then(|l| l.rsplit(' ').next());
        let told: u64 = number.ok_or("busybox time tells no memory")?.parse()?;
        // It takes the kernel's KiB for pages.
        Ok(told / page_kib()?)
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let mut runs = runs(dir.path())?;
    for round in 0..ROUNDS + ROUNDS / 10 {
        for run in &mut runs {
            run.time()?;
            // The first tenth only warms up.
            if round < ROUNDS / 10 {
                run.took.clear();
            }
        }
    }
    let busybox = busybox();
    let of_true = runs[0].median();
    let memory = |run: &Run| busybox.as_deref().map(|b| run.memory(b)).transpose();
    let memory_of_true = memory(&runs[0])?;
    for run in &mut runs {
        let median = run.median();
        print!(
            "{:34} {:6.0} us  {:4.2} x",
            run.name,
            median.as_secs_f64() * 1e6,
            median.as_secs_f64() / of_true.as_secs_f64()
        );
        match (memory(run)?, memory_of_true) {
            (Some(memory), Some(of_true)) => {
                let times = memory as f64 / of_true as f64;
                println!("  {memory:6} KiB  {times:4.2} x");
            }
            _ => println!("  (no busybox-static: memory is not measured)"),
        }
    }
    Ok(())
}

fn runs(dir: &Path) -> Result<Vec<Run>, Box<dyn Error>> {
    let ours = PathBuf::from(env!("CARGO_BIN_EXE_actor-volumes"));
    let wrapper = dir.join("actor-volumes-runtime");
    symlink(&ours, &wrapper)?;
    let bundle = dir.join("bundle");
    fs::create_dir(&bundle)?;
    fs::write(bundle.join("config.json"), SPEC)?;
    fs::write(
        dir.join("config.toml"),
        "[guard]\nruntime = \"/bin/true\"\n",
    )?;
    let state = dir.join("state.json");
    fs::write(&state, STATE)?;
    let config = dir.join("config.toml");
    let words = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>();
    let bundle = bundle.display().to_string();
    let create = words(&["--root", "/run/none", "create", "--bundle", &bundle, "one"]);
    let run = |name, program: &Path, arguments: Vec<String>, stdin: &Path| Run {
        name,
        program: program.to_owned(),
        arguments,
        stdin: stdin.to_owned(),
        config: config.clone(),
        took: Vec::new(),
    };
    let none = Path::new("/dev/null");
    Ok(vec![
        run("/bin/true", Path::new("/bin/true"), create.clone(), none),
        run(
            "hook createRuntime",
            &ours,
            words(&["hook", "createRuntime"]),
            &state,
        ),
        run("hook poststop", &ours, words(&["hook", "poststop"]), &state),
        run("wrapper create, before /bin/true", &wrapper, create, none),
        run(
            "wrapper state, before /bin/true",
            &wrapper,
            words(&["state", "one"]),
            none,
        ),
    ])
}

fn page_kib() -> Result<u64, Box<dyn Error>> {
    let maps = fs::read_to_string("/proc/self/smaps")?;
    let line = maps.lines().find(|l| l.starts_with("KernelPageSize:"));
    let number = line.and_then(|l| l.split_whitespace().nth(1));
    Ok(number.ok_or("the kernel tells no page size")?.parse()?)
}

fn busybox() -> Option<PathBuf> {
    let setup = Path::new(env!("CARGO_MANIFEST_DIR")).join("e2e/tools/setup.sh");
    let output = Command::new(setup)
        .args(["--path", "busybox-static"])
        .output();
    let output = output.ok().filter(|o| o.status.success())?;
    let dir = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    Some(Path::new(&dir).join("busybox"))
}

/// What a runtime tells a hook of a container with some annotations of others.
const STATE: &str = r#"{"ociVersion":"1.2.0","id":"one","status":"creating","pid":1,"bundle":"/none","annotations":{"io.container.manager":"libpod","org.opencontainers.image.stopSignal":"15"}}"#;

/// A bundle with mounts and annotations of others.
const SPEC: &str = r#"{"ociVersion":"1.2.0","process":{"user":{"uid":0,"gid":0},"args":["/bin/sh"],"cwd":"/"},"root":{"path":"rootfs"},"hostname":"h","annotations":{"io.container.manager":"libpod"},"mounts":[{"destination":"/proc","type":"proc","source":"proc"},{"destination":"/dev","type":"tmpfs","source":"tmpfs","options":["nosuid","strictatime","mode=755"]},{"destination":"/sys","type":"sysfs","source":"sysfs","options":["nosuid","noexec","nodev","ro"]}],"linux":{"namespaces":[{"type":"pid"},{"type":"mount"}]}}"#;
