// SPDX-License-Identifier: Apache-2.0
//! `actor-volumes hook`: volumes for the containers of an OCI runtime that runs hooks.
//!
//! Most containers have nothing to do with us: those are let through before the command
//! line is parsed, and before anything is opened.

use std::{
    env, io,
    path::{Path, PathBuf},
    process::ExitCode,
};

use super::{
    door::{self, Container, Way},
    mounter,
};
use crate::{
    cli::{Hook, Stage},
    config::GuardSettings,
    error::{Error, Kind, Result},
    host::{
        attach::{self, Order, Target, Wanted},
        caps,
        privileges::CapabilitySet,
    },
    oci::{self, State},
    proto::api::{self, Door, Process},
};

/// How long the end of a container may wait for the release of its volumes: what takes
/// longer goes on without it.
const RELEASE_MS: u32 = 2_000;

/// What the runtime has told, where the program was called as a hook.
pub(super) struct Told(Result<State>);

impl Told {
    /// Reads it, if the command line is the shortest one of a hook that serves.
    pub(super) fn read() -> Option<Self> {
        let mut words = env::args_os().skip(1);
        let is_hook = words.next().is_some_and(|word| word == "hook");
        let stage = words.next().filter(|_| is_hook)?;
        Stage::of(stage.to_str()?)?;
        words
            .next()
            .is_none()
            .then(|| Self(State::read(io::stdin())))
    }

    /// The container has nothing to do with us.
    pub(super) fn is_foreign(&self) -> bool {
        matches!(&self.0, Ok(state) if !state.is_ours())
    }
}

/// Gives or releases; the exit status is for the runtime.
pub(super) fn hook(options: &Hook, told: Option<Told>) -> ExitCode {
    let told = told.map_or_else(|| State::read(io::stdin()), |told| told.0);
    let id = told.as_ref().map(|state| state.id.clone());
    let id = id.unwrap_or_default();
    let foreign = matches!(&told, Ok(state) if !state.is_ours());
    let done = match (foreign, options.stage) {
        (true, _) => Ok(()),
        (false, Stage::CreateRuntime | Stage::Prestart) => {
            told.and_then(|state| create(&state, &options.config))
        }
        (false, Stage::Poststop) => {
            if let Err(e) = told.and_then(|state| release(&state, &options.config)) {
                // A failure would keep the runtime from deleting it, or be of no effect.
                eprintln!(
                    "actor-volumes: the volumes of container {id:?} are released later, by the node agent: {}",
                    e.full_message()
                );
            }
            Ok(())
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("{}", oci::refuse(&id, &e));
            ExitCode::FAILURE
        }
    }
}

fn create(state: &State, config: &Path) -> Result<()> {
    let settings = GuardSettings::load(config)?;
    let bundle = bundle_of(state)?;
    let spec = oci::read(&bundle)?;
    let rootfs = rootfs_of(state, &bundle, &spec.rootfs)?;
    let Some(asked) = oci::question(&state.id, spec)? else {
        return Ok(());
    };
    let container = Container {
        root: None,
        bundle: &bundle,
    };
    // Another door has been before.
    if asked.missing.is_none() {
        return door::check(&settings, &container, asked).map_err(unreachable);
    }
    may_mount()?;
    let process = door::process(state.init()?)?;
    let target = Target {
        pid: process.pid,
        start_time: process.start_time,
        rootfs: Some(rootfs),
    };
    let look = attach::look(&target)?;
    let way = Way {
        door: Door::Hook,
        process: Some(process),
        map_owners: false,
        user_namespace: user_namespace(&process, look),
    };
    let given = door::give(&settings, &container, way, asked)
        .map_err(unreachable)
        .and_then(|given| {
            let order = order(target, given)?;
            mounter::attach(order, settings.deadline)
        });
    given.map_err(|error| {
        // Also where the answer alone was lost. What was given is published until the
        // process has ended, which the runtime sees to.
        let taken_back = door::release(&settings, &state.id, &container, Some(process), 0);
        match taken_back {
            Ok(_) => error,
            Err(e) if e.kind() == Kind::Unavailable => error,
            Err(e) => Error::new(
                error.kind(),
                format!(
                    "{} (and what was published for it is released later: {})",
                    error.full_message(),
                    e.full_message()
                ),
            ),
        }
    })
}

fn release(state: &State, config: &Path) -> Result<()> {
    let settings = GuardSettings::load(config)?;
    let bundle = bundle_of(state)?;
    let container = Container {
        root: None,
        bundle: &bundle,
    };
    let released = door::release(&settings, &state.id, &container, None, RELEASE_MS);
    let released = released.map_err(unreachable)?;
    if !released.released {
        tell_held(&released.held_by);
    }
    Ok(())
}

fn tell_held(held_by: &str) {
    eprintln!("actor-volumes: the volumes are released as soon as nothing has them: {held_by}");
}

/// What the mounter is to do for what was given.
pub(super) fn order(target: Target, given: api::GiveContainerResponse) -> Result<Order> {
    if let Some(device) = given.devices.first() {
        return Err(Error::unimplemented(format!(
            "a block device ({}) cannot be given to a container whose device rules are made already: use the wrapper (`actor-volumes runtime`) or `actor-volumes bundle inject` for it",
            device.path
        )));
    }
    let wanted = |mount: api::GivenMount| Wanted {
        source: mount.source.into(),
        destination: mount.destination,
        device: mount.device,
        read_only: mount.read_only,
        no_exec: mount.no_exec,
    };
    Ok(Order {
        target,
        volumes: given.mounts.into_iter().map(wanted).collect(),
    })
}

/// The path to the container's own user namespace; empty: it has none.
pub(super) fn user_namespace(process: &Process, look: attach::Look) -> String {
    match look.maps_users {
        true => format!("/proc/{}/ns/user", process.pid),
        false => String::new(),
    }
}

pub(super) fn bundle_of(state: &State) -> Result<PathBuf> {
    if !state.bundle.is_absolute() {
        return Err(Error::invalid(format!(
            "the runtime tells no absolute path of the bundle, but {:?}",
            state.bundle
        )));
    }
    Ok(state.bundle.clone())
}

/// Where this host has the root file system. What the runtime tells of it counts.
pub(super) fn rootfs_of(state: &State, bundle: &Path, of_spec: &Path) -> Result<PathBuf> {
    let told = match state.root.as_os_str().is_empty() {
        true => of_spec,
        false => &state.root,
    };
    if told.as_os_str().is_empty() {
        return Err(Error::invalid(format!(
            "{}/config.json names no root file system",
            bundle.display()
        )));
    }
    Ok(bundle.join(told))
}

/// Refuses where nothing could be mounted, before anything is published.
pub(super) fn may_mount() -> Result<()> {
    let needed = CapabilitySet::SYS_ADMIN | CapabilitySet::SYS_CHROOT;
    let has = caps::has(needed)
        .map_err(|e| Error::internal("cannot tell the capabilities").with_source(e))?;
    if has {
        return Ok(());
    }
    Err(Error::denied(
        "it needs CAP_SYS_ADMIN and CAP_SYS_CHROOT on the host to mount a volume into a container, and has not: run the container as root, for a rootless runtime cannot be served",
    ))
}

/// A socket that is there and may not be used is one of a user who may not.
pub(super) fn unreachable(error: Error) -> Error {
    let refused = error.full_message().contains("Permission denied");
    match refused {
        true => Error::denied(format!(
            "{}: only root, and the users of node.allowed_uids, may ask the node agent; a rootless runtime cannot be served",
            error.full_message()
        )),
        false => error,
    }
}
