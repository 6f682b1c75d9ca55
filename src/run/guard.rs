// SPDX-License-Identifier: Apache-2.0
//! The guard: in the place of runc, it lets everything through but a container
//! that asks for volumes and does not have them.
//!
//! Where nothing is to be checked it becomes the real runtime by execve at once:
//! process id, descriptors, signals and exit status are the runtime's own.

use std::{
    env,
    ffi::OsString,
    fs,
    os::unix::{fs::MetadataExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Command as Process, ExitCode},
};

use super::door::{self, Container};
use crate::{
    cli::Runtime,
    config::{self, GuardSettings},
    error::{Error, Result},
    oci::{self, Command, Making},
};

/// Under this name the program is the guard. containerd's BinaryName takes no
/// arguments.
const NAME: &str = "actor-volumes-runtime";

/// What runc says when it has failed.
const FAILED: u8 = 1;

/// Where the guard stands, and what it was told.
pub(super) struct Place {
    config: PathBuf,
    runtime: Option<PathBuf>,
    arguments: Vec<OsString>,
}

/// Whether the program was called by the guard's name.
pub(super) fn is_called() -> bool {
    let name = env::args_os().next();
    name.is_some_and(|name| Path::new(&name).file_name() == Some(NAME.as_ref()))
}

impl Place {
    /// By name: everything is the real runtime's.
    pub(super) fn by_name() -> Self {
        let config = env::var_os(config::PATH_VARIABLE);
        Self {
            config: config.map_or_else(|| config::DEFAULT_PATH.into(), PathBuf::from),
            runtime: None,
            arguments: env::args_os().skip(1).collect(),
        }
    }

    /// By a command line of ours.
    pub(super) fn of(options: Runtime) -> Self {
        Self {
            config: options.config,
            runtime: options.runtime,
            arguments: options.arguments,
        }
    }
}

/// Whether a BinaryName of containerd is the guard.
pub(super) fn is_guard(binary: &str) -> bool {
    let path = Path::new(binary);
    path.file_name() == Some(NAME.as_ref()) && path.metadata().is_ok_and(|m| m.is_file())
}

/// Becomes the real runtime, or gives the exit status of a refusal.
pub(super) fn guard(place: &Place) -> ExitCode {
    let command = Command::read(&place.arguments);
    let settings = GuardSettings::load(&place.config);
    let checked = match (&command.makes, &settings) {
        (None, _) => Ok(()),
        (Some(making), Ok(settings)) => check(making, settings),
        (Some(making), Err(e)) => Err((making.id.clone(), copy(e))),
    };
    let refused = match checked {
        Ok(()) => {
            // Containers that run must be ended also while the file is broken.
            let named = settings.unwrap_or_default().runtime;
            become_runtime(place.runtime.as_ref().unwrap_or(&named), &place.arguments)
        }
        Err(refused) => refused,
    };
    let message = oci::refuse(&refused.0, &refused.1);
    eprintln!("{message}");
    oci::write_log(&command, &message, &jiff::Timestamp::now().to_string());
    ExitCode::from(FAILED)
}

fn copy(error: &Error) -> Error {
    Error::new(error.kind(), error.full_message())
}

/// Who is refused, and why.
type Refused = (String, Error);

fn check(making: &Making, settings: &GuardSettings) -> Result<(), Refused> {
    let id = making.id.as_str();
    if making.config_elsewhere {
        let error = Error::invalid("its specification is not the bundle's config.json");
        return Err((id.to_owned(), error));
    }
    let spec = oci::read(&making.bundle).map_err(|e| (id.to_owned(), e))?;
    let name = spec.name().unwrap_or(id).to_owned();
    let refused = |e: Error| (name.clone(), e);
    let Some(asked) = oci::question(id, spec).map_err(refused)? else {
        return Ok(());
    };
    if let Some(missing) = &asked.missing {
        return Err(refused(Error::unavailable(missing.clone())));
    }
    let bundle = door::absolute(&making.bundle).map_err(refused)?;
    let container = Container {
        root: None,
        bundle: &bundle,
    };
    door::check(settings, &container, asked).map_err(refused)
}

/// Becomes the real runtime. What it gives is why it did not.
fn become_runtime(named: &Path, arguments: &[OsString]) -> Refused {
    let told = |e: Error| (String::new(), e);
    let real = match find(named) {
        Ok(real) => real,
        Err(e) => return told(e),
    };
    let error = Process::new(&real).args(arguments).exec();
    told(
        Error::internal(format!(
            "cannot start the real runtime {}: set guard.runtime",
            real.display()
        ))
        .with_source(error),
    )
}

/// The real runtime's path. Never the guard itself, which would call itself for
/// ever.
pub(super) fn find(named: &Path) -> Result<PathBuf> {
    let own = fs::metadata("/proc/self/exe")
        .map(|m| (m.dev(), m.ino()))
        .ok();
    let is_other = |path: &PathBuf| {
        fs::metadata(path).is_ok_and(|m| m.is_file() && Some((m.dev(), m.ino())) != own)
    };
    let found = if named.components().count() > 1 {
        Some(named.to_owned()).filter(is_other)
    } else {
        let path = env::var_os("PATH").unwrap_or_default();
        let mut candidates = env::split_paths(&path).map(|dir| dir.join(named));
        candidates.find(is_other)
    };
    found.ok_or_else(|| {
        Error::precondition(format!(
            "the real runtime {} is not there, or is this guard itself: set guard.runtime to its path",
            named.display()
        ))
    })
}
