// SPDX-License-Identifier: Apache-2.0
//! What stands in the place of runc: it gives containers their volumes, and lets
//! everything through but a container that asks for volumes and does not have them.
//!
//! Where nothing is to be done it becomes the real runtime by execve at once:
//! process id, descriptors, signals and exit status are the runtime's own.

use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
    process::ExitCode,
};

use super::{
    door::{self, Container},
    real, wrapper,
};
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
    /// It gives nobody a volume.
    only_checks: bool,
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
            only_checks: false,
            config: config.map_or_else(|| config::DEFAULT_PATH.into(), PathBuf::from),
            runtime: None,
            arguments: env::args_os().skip(1).collect(),
        }
    }

    /// By a command line of ours.
    pub(super) fn of(options: Runtime) -> Self {
        Self {
            only_checks: options.guard,
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
    let (id, error) = stand_in(place, &command, settings);
    let message = oci::refuse(&id, &error);
    eprintln!("{message}");
    oci::write_log(&command, &message, &jiff::Timestamp::now().to_string());
    ExitCode::from(FAILED)
}

/// Who is refused, and why.
type Refused = (String, Error);

/// What it gives is why there is no runtime here.
fn stand_in(place: &Place, command: &Command, settings: Result<GuardSettings>) -> Refused {
    let named = |settings: &GuardSettings| match &place.runtime {
        Some(runtime) => vec![runtime.clone()],
        None => settings.runtime.0.clone(),
    };
    let untold = |e: Error| (String::new(), e);
    // Containers that run must be ended also while the file is broken.
    let found = match &settings {
        Ok(settings) => real::find(&named(settings)),
        Err(_) => real::find(&named(&GuardSettings::default())),
    };
    let mut made = None;
    match (&command.makes, &settings) {
        (Some(making), Ok(settings)) => match make(place, command, making, settings, &found) {
            Ok(done) => made = done,
            Err(refused) => return refused,
        },
        (Some(making), Err(e)) => return (making.id.clone(), copy(e)),
        (None, Ok(settings)) => {
            if let (false, Ok(real)) = (place.only_checks, &found) {
                wrapper::release(settings, command, real);
            }
        }
        (None, Err(_)) => {}
    }
    let error = match found {
        Ok(real) => real::become_it(&real, &place.arguments),
        Err(e) => e,
    };
    if let Some(made) = made {
        made.undo();
    }
    untold(error)
}

fn copy(error: &Error) -> Error {
    Error::new(error.kind(), error.full_message())
}

fn make<'a>(
    place: &Place,
    command: &Command,
    making: &'a Making,
    settings: &'a GuardSettings,
    real: &Result<PathBuf>,
) -> Result<Option<wrapper::Made<'a>>, Refused> {
    let id = making.id.as_str();
    if making.config_elsewhere {
        let error = Error::invalid("its specification is not the bundle's config.json");
        return Err((id.to_owned(), error));
    }
    let spec = oci::read(&making.bundle).map_err(|e| (id.to_owned(), e))?;
    let name = spec.name().unwrap_or(id).to_owned();
    let refused = |e: Error| (name.clone(), e);
    let Some(asked) = oci::question(id, spec).map_err(refused)? else {
        return Ok(None);
    };
    if !place.only_checks && wrapper::gives(settings, asked.pod.as_ref()) {
        let real = real.as_ref().map_err(|e| refused(copy(e)))?;
        return wrapper::give(settings, command, making, real).map_err(refused);
    }
    if let Some(missing) = &asked.missing {
        return Err(refused(Error::unavailable(missing.clone())));
    }
    let bundle = door::absolute(&making.bundle).map_err(refused)?;
    let container = Container {
        root: None,
        bundle: &bundle,
    };
    door::check(settings, &container, asked).map_err(refused)?;
    Ok(None)
}
