// SPDX-License-Identifier: Apache-2.0
//! The end-to-end suite: every promise shown on a real containerd. Started by
//! `e2e/run.sh`, which gives it mount and process namespaces of its own.

#[path = "../../tests/nodes/authority.rs"]
#[allow(clippy::unwrap_used)] // the file of a test
mod authority;
mod bundle;
mod canary;
mod cases;
mod daemon;
mod driver;
mod hooks;
mod kubelet;
mod leaks;
#[path = "../../tests/packaging/manifest.rs"]
mod manifest;
mod matrix;
mod node;
mod options;
mod parts;
mod setup;
mod site;
mod soak;
mod verbs;

use std::{
    cell::RefCell,
    env,
    fs::OpenOptions,
    io::Write,
    panic::{self, AssertUnwindSafe},
    process::ExitCode,
    sync::{Mutex, RwLock},
    time::Instant,
};

use libtest_mimic::{Arguments, Failed, Trial};

use crate::{
    driver::Driver,
    node::{Node, Options, Runtime},
    setup::setup,
};

/// One thing that must be shown.
#[derive(Clone)]
pub(crate) struct Case {
    /// What it shows, as a sentence.
    pub(crate) name: String,
    /// What its node is made of.
    pub(crate) options: Options,
    /// Shown on every containerd version, not only on the main one.
    pub(crate) everywhere: bool,
    /// A tool that it needs besides the driver's.
    pub(crate) tool: Option<&'static str>,
    /// Measures time, so nothing else may run beside it.
    pub(crate) alone: bool,
    /// The steps. Panics where something is not as it must be.
    pub(crate) run: fn(&mut Node),
}

impl Case {
    /// A case for the main version, on a node with this driver.
    pub(crate) fn new(name: &str, driver: Driver, run: fn(&mut Node)) -> Self {
        let options = Options {
            driver: Some(driver),
            guard: false,
            runc: "runc",
            runtime: Runtime::Plugin,
            hooks: false,
        };
        Self {
            name: name.to_owned(),
            options,
            everywhere: false,
            tool: None,
            alone: false,
            run,
        }
    }

    /// The same case, on every version.
    pub(crate) fn everywhere(mut self) -> Self {
        self.everywhere = true;
        self
    }

    /// The same case, skipped where this tool was not set up.
    pub(crate) fn needing(mut self, tool: &'static str) -> Self {
        self.tool = Some(tool);
        self
    }

    /// The same case, with nothing beside it.
    pub(crate) fn alone(mut self) -> Self {
        self.alone = true;
        self
    }

    /// The same case with the guard in runc's place.
    pub(crate) fn guarded(mut self) -> Self {
        self.options.guard = true;
        self
    }

    /// The same case with this tool as runc, skipped where it was not set up.
    pub(crate) fn with_runc(mut self, tool: &'static str) -> Self {
        self.options.runc = tool;
        self.needing(tool)
    }

    /// The same case on a node where no runtime asks our daemon as a plugin.
    pub(crate) fn knowing(mut self, runtime: Runtime) -> Self {
        self.options.runtime = runtime;
        self
    }

    /// The same case on a node whose containers all have our hooks.
    pub(crate) fn hooked(mut self) -> Self {
        self.options.hooks = true;
        self
    }

    /// The same case on a node where nothing of ours runs.
    pub(crate) fn without_us(mut self) -> Self {
        self.options.driver = None;
        self
    }
}

thread_local! {
    /// Where the last panic of this thread was, and what it said.
    static PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Cases that measure time take it for writing, the others for reading.
static QUIET: RwLock<()> = RwLock::new(());

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let loops_before = leaks::loop_devices();
    panic::set_hook(Box::new(|info| {
        PANIC.with_borrow_mut(|p| *p = info.to_string());
    }));
    let all = match soak::Plan::from_environment() {
        Some(_) => soak::cases,
        None => cases::all,
    };
    let tools = [
        "csi-driver-host-path",
        "kubelet",
        "runsc",
        "runc-1.5",
        "runc",
        "crun",
        "crun-1.21",
        "youki",
    ]
    .map(|t| (t, setup().tool(t).is_some()));
    let has = |tool: &str| {
        tools
            .iter()
            .any(|(name, is_there)| *name == tool && *is_there)
    };
    let mut trials = Vec::new();
    for version in &setup().versions {
        for case in all() {
            if !case.everywhere && *version != setup().main_version {
                continue;
            }
            let name = format!("containerd-{version}::{}", case.name);
            let needed = case.options.driver.and_then(Driver::tool);
            let mut needed = needed.into_iter().chain(case.tool);
            let missing = needed.find(|tool| !has(tool));
            let asked = arguments.filter.as_ref().is_none_or(|f| name.contains(f));
            if let Some(tool) = missing.filter(|_| asked && !arguments.list) {
                report_skip(&name, &format!("{tool} was not set up"));
            }
            let version = version.clone();
            let trial = Trial::test(name, move || run(&case, &version));
            trials.push(trial.with_ignored_flag(missing.is_some()));
        }
    }
    if arguments.list {
        libtest_mimic::run(&arguments, trials).exit();
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    matrix::table::write();
    for line in NOTES.lock().unwrap_or_else(|e| e.into_inner()).iter() {
        println!("    {line}");
    }
    let left = leaks::left_by_suite(&setup().base, &loops_before);
    for line in &left {
        eprintln!("left behind by the suite: {line}");
    }
    if conclusion.has_failed() || !left.is_empty() {
        return ExitCode::FAILURE;
    }
    println!("nothing was left behind: no mount, loop device, process or directory");
    ExitCode::SUCCESS
}

/// What is told after the results.
static NOTES: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Keeps a line for the end of the report.
pub(crate) fn note(line: String) {
    NOTES.lock().unwrap_or_else(|e| e.into_inner()).push(line);
}

/// Runs one case on a node of its own and looks at what it left.
fn run(case: &Case, version: &str) -> Result<(), Failed> {
    // A case that panicked holds nothing that the next one could find broken.
    let shared = (!case.alone).then(|| QUIET.read().unwrap_or_else(|e| e.into_inner()));
    let alone = case
        .alone
        .then(|| QUIET.write().unwrap_or_else(|e| e.into_inner()));
    let start = Instant::now();
    let mut node = guard(|| Node::start(version, case.options)).map_err(Failed::from)?;
    let up = start.elapsed();
    if let Err(message) = guard(|| (case.run)(&mut node)) {
        let tails = node.tails();
        return Err(Failed::from(format!("{message}\n{tails}")));
    }
    let shown = start.elapsed();
    let tails = env::var_os("AV_E2E_TAILS").map(|_| node.tails());
    let left = guard(|| node.finish()).map_err(Failed::from)?;
    note(format!(
        "containerd-{version}::{}: up {:.1} s, shown {:.1} s, gone {:.1} s",
        case.name,
        up.as_secs_f32(),
        shown.as_secs_f32(),
        start.elapsed().as_secs_f32()
    ));
    drop((shared, alone));
    if let Some(tails) = tails {
        eprintln!("{tails}");
    }
    if left.is_empty() {
        return Ok(());
    }
    Err(Failed::from(format!("left behind:\n{}", left.join("\n"))))
}

/// Turns a panic into its message.
fn guard<T>(body: impl FnOnce() -> T) -> Result<T, String> {
    panic::catch_unwind(AssertUnwindSafe(body)).map_err(|_| PANIC.with_borrow(String::clone))
}

/// Adds a line to the list of skips that the summary is made from.
fn report_skip(name: &str, reason: &str) {
    let Some(file) = env::var_os("AV_SKIPS") else {
        return;
    };
    let opened = OpenOptions::new().create(true).append(true).open(file);
    if let Ok(mut file) = opened {
        // A missing line shows: the summary counts skips by this file.
        // The name ends at the first colon.
        let _ = writeln!(file, "skip {}: {reason}", name.replace("::", "/"));
    }
}
