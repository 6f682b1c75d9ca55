// SPDX-License-Identifier: Apache-2.0
//! `bundle`: what the wrapper does where a container is made, for whoever makes bundles.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    door::{self, Container},
    injection::{Done, Injection},
    real,
};
use crate::{
    cli::bundle::{self, BundleCommand},
    config::GuardSettings,
    error::{Error, Result},
    proto::api::Door,
};

/// The answer has its way, too.
const GRACE: Duration = Duration::from_secs(1);

/// Runs a verb.
pub(super) fn run(command: &BundleCommand) -> Result<()> {
    match command {
        BundleCommand::Inject(options) => inject(options),
        BundleCommand::Release(options) => release(options),
    }
}

/// A bundle as it was named.
struct Named {
    settings: GuardSettings,
    id: String,
    root: Option<PathBuf>,
    bundle: PathBuf,
}

impl Named {
    fn of(which: &bundle::Which) -> Result<Self> {
        let bundle = door::absolute(&which.bundle)?;
        let name = bundle.file_name().and_then(|name| name.to_str());
        let id = which.id.clone().or(name.map(str::to_owned));
        let id = id.filter(|id| !id.is_empty()).ok_or_else(|| {
            Error::invalid(format!(
                "{} does not tell the container's id: say it by --id",
                bundle.display()
            ))
        })?;
        let root = which.root.as_deref().map(door::absolute).transpose()?;
        Ok(Self {
            settings: GuardSettings::load(&which.config)?,
            id,
            root,
            bundle,
        })
    }

    fn container(&self) -> Container<'_> {
        Container {
            root: self.root.as_deref(),
            bundle: &self.bundle,
        }
    }

    fn injection<'a>(&'a self, runtime: Option<&'a Path>) -> Injection<'a> {
        Injection {
            settings: &self.settings,
            id: &self.id,
            container: self.container(),
            door: Door::Bundle,
            process: None,
            runtime,
        }
    }
}

fn inject(options: &bundle::Inject) -> Result<()> {
    let named = Named::of(&options.which)?;
    let runtime = options.runtime.as_ref();
    // Its name says what it is where it is elsewhere, too.
    let runtime =
        runtime.map(|r| real::find(std::slice::from_ref(r)).unwrap_or_else(|_| r.clone()));
    let done = named.injection(runtime.as_deref()).inject()?;
    let id = &named.id;
    bundle::say(&match done {
        Done::NothingAsked => format!("container {id} asks for no volume"),
        Done::WasThere => format!("container {id} has its volumes already"),
        Done::Given => format!("container {id} has its volumes now"),
    })
}

/// First out of the file, so that nobody makes a container with what is gone.
fn release(options: &bundle::Release) -> Result<()> {
    let named = Named::of(&options.which)?;
    named.injection(None).take_out()?;
    let wait = options.wait();
    let settings = GuardSettings {
        give_deadline: wait.saturating_add(GRACE),
        ..named.settings.clone()
    };
    let wait_ms = u32::try_from(wait.as_millis()).unwrap_or(u32::MAX);
    let answer = door::release(&settings, &named.id, &named.container(), None, wait_ms)?;
    let id = &named.id;
    if !answer.released {
        return Err(Error::unavailable(format!(
            "container {id} is not released: {}: end it, and run this again",
            answer.held_by
        )));
    }
    bundle::say(&format!("container {id} is released"))
}
