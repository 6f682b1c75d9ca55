// SPDX-License-Identifier: Apache-2.0
//! `bind` and `unbind`: volumes for a container that runs already.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    process::Command,
};

use super::{
    door::{self, Container, Way},
    hook, mounter, real,
};
use crate::{
    api::annotation,
    cli::{At, Bind, Unbind},
    config::GuardSettings,
    error::{Error, Result},
    host::attach::{self, Taking, Target},
    oci::{self, ContainerSpec, State},
    proto::api::Door,
};

/// How long `unbind` waits for the release.
const RELEASE_MS: u32 = 10_000;

/// A container that runs.
struct Running {
    settings: GuardSettings,
    state: State,
    root: Option<PathBuf>,
    bundle: PathBuf,
    spec: ContainerSpec,
    target: Target,
}

/// Publishes what the grant asks for, and mounts it into the container.
pub(super) fn bind(options: &Bind) -> Result<()> {
    hook::may_mount()?;
    let running = Running::find(&options.at)?;
    let Running {
        settings, state, ..
    } = &running;
    let mut spec = running.spec.clone();
    if let Some(file) = &options.annotations {
        let ours = |key: &String| key.starts_with(annotation::PREFIX);
        spec.annotations.retain(|key, _| !ours(key));
        spec.annotations.extend(read(file)?);
    }
    if let Some(name) = &options.container {
        let key = annotation::CONTAINER.to_owned();
        spec.annotations.insert(key, name.to_string());
    }
    let asked = oci::question(&state.id, spec)?.ok_or_else(|| {
        Error::invalid(format!(
            "no volume is granted to container {:?}: give the annotations that `actor-volumes actor resume --host` prints by --annotations",
            state.id
        ))
    })?;
    let look = attach::look(&running.target)?;
    let process = door::process(running.target.pid)?;
    let way = Way {
        door: Door::Bind,
        process: Some(process),
        map_owners: false,
        user_namespace: hook::user_namespace(&process, look),
    };
    let container = running.container();
    let given = door::give(settings, &container, way, asked)
        .map_err(hook::unreachable)
        .and_then(|given| {
            let order = hook::order(running.target.clone(), given)?;
            let places: Vec<_> = order
                .volumes
                .iter()
                .map(|v| v.destination.clone())
                .collect();
            mounter::attach(order, settings.deadline).map(|()| places)
        });
    match given {
        Ok(places) => {
            eprintln!(
                "container {} has its volumes: {}",
                state.id,
                places.join(", ")
            );
            Ok(())
        }
        Err(error) => {
            // Also where the answer alone was lost. What is not told now, the node agent
            // finds out when the container ends.
            let _ = door::release(settings, &state.id, &container, None, 0);
            Err(error)
        }
    }
}

/// Unmounts what was mounted into the container, and has it released.
pub(super) fn unbind(options: &Unbind) -> Result<()> {
    hook::may_mount()?;
    let running = Running::find(&options.at)?;
    let Running {
        settings, state, ..
    } = &running;
    let spared = running.spec.spec.mounts.iter();
    let taking = Taking {
        target: running.target.clone(),
        mount_root: settings.mount_root.clone(),
        spared: spared.map(|m| m.destination.clone()).collect(),
    };
    let places = mounter::detach(taking, settings.deadline)?;
    for place in &places {
        eprintln!("unmounted in container {}: {}", state.id, place.display());
    }
    let container = running.container();
    let released = door::release(settings, &state.id, &container, None, RELEASE_MS);
    let released = released.map_err(hook::unreachable)?;
    if released.released {
        eprintln!(
            "container {} holds no volume that was bound to it",
            state.id
        );
        return Ok(());
    }
    Err(Error::unavailable(format!(
        "the volumes of container {} are not released yet: {}",
        state.id, released.held_by
    )))
}

impl Running {
    fn find(at: &At) -> Result<Self> {
        let settings = GuardSettings::load(&at.config)?;
        let root = at.root.as_deref().map(door::absolute).transpose()?;
        let state = match (at.pid, &at.bundle) {
            (Some(pid), Some(bundle)) => State {
                id: at.id.clone(),
                pid: pid.into(),
                bundle: door::absolute(bundle)?,
                ..State::default()
            },
            _ => {
                let program = match &at.runtime {
                    Some(named) => real::find(std::slice::from_ref(named))?,
                    None => real::find(&settings.runtime.0)?,
                };
                told(&program, root.as_deref(), &at.id)?
            }
        };
        let bundle = hook::bundle_of(&state)?;
        let spec = oci::read(&bundle)?;
        let process = door::process(state.init()?)?;
        let target = Target {
            pid: process.pid,
            start_time: process.start_time,
            rootfs: Some(hook::rootfs_of(&state, &bundle, &spec.rootfs)?),
        };
        Ok(Self {
            settings,
            state,
            root,
            bundle,
            spec,
            target,
        })
    }

    fn container(&self) -> Container<'_> {
        Container {
            root: self.root.as_deref(),
            bundle: &self.bundle,
        }
    }
}

/// What the runtime tells of the container.
fn told(program: &Path, root: Option<&Path>, id: &str) -> Result<State> {
    let mut command = Command::new(program);
    if let Some(root) = root {
        command.arg("--root").arg(root);
    }
    // It could be taken for an option.
    command.args(["state", "--", id]);
    let shown = program.display();
    let output = command
        .output()
        .map_err(|e| Error::internal(format!("cannot start {shown}")).with_source(e))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let said = said.trim().replace('\n', "; ");
        return Err(Error::not_found(format!(
            "{shown} does not tell the state of container {id:?} ({said}): name its OCI runtime by --runtime, and that one's directory by --root"
        )));
    }
    State::parse(&output.stdout)
}

/// Annotations as `actor resume` prints them.
fn read(file: &Path) -> Result<BTreeMap<String, String>> {
    let shown = file.display();
    let text = match file.as_os_str() == "-" {
        true => io::read_to_string(io::stdin()),
        false => fs::read_to_string(file),
    };
    let text = text.map_err(|e| Error::invalid(format!("cannot read {shown}")).with_source(e))?;
    serde_json::from_str(&text).map_err(|e| {
        Error::invalid(format!(
            "{shown} does not hold annotations, as `actor-volumes actor resume --host` prints them"
        ))
        .with_source(e)
    })
}
