// SPDX-License-Identifier: Apache-2.0
//! What a container is given, written into its config.json, and taken out again. Pure.
//!
//! Whatever else is in the file keeps its bytes: it is the runtime's, in whichever
//! version of the specification.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use serde::Deserialize;
use serde_json::{Value, json};

use super::json::{Object, elements, insert, remove};
use crate::{
    api::annotation,
    error::{Error, Result},
    model::clean_path,
};

/// What a container is given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Given {
    /// Parents before what is below them.
    pub mounts: Vec<GivenMount>,
    /// Block devices.
    pub devices: Vec<GivenDevice>,
    /// Below it lies everything that is given to anyone.
    pub mount_root: PathBuf,
}

/// A bind mount. gVisor is told nothing of it by annotations (`dev.gvisor.spec.mount`): a
/// bind mount that it is told of becomes an overlay of the sandbox's own, whatever they
/// say of sharing, and nothing that is written reaches the volume.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GivenMount {
    /// The path in the container.
    pub destination: String,
    /// The path on the host.
    pub source: String,
    /// Its options, in their order.
    pub options: Vec<String>,
    /// The volume's name in the template.
    pub volume: String,
}

/// A block device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GivenDevice {
    /// The path in the container.
    pub path: String,
    /// The device's numbers.
    pub major: u32,
    /// The device's numbers.
    pub minor: u32,
    /// Whether writes are refused.
    pub read_only: bool,
}

/// The config.json with what is given, in the place of what was given before. The same
/// given again gives the same bytes.
pub fn inject(config: &[u8], given: &Given) -> Result<Vec<u8>> {
    let bare = release(config, &given.mount_root)?;
    let spec = Object::read(text(&bare)?)?;
    let mut values = Vec::new();
    if !given.mounts.is_empty() {
        let mut mounts = spec.get("mounts")?.map(str::to_owned);
        for mount in &given.mounts {
            let at = place(mount, mounts.as_deref())?;
            mounts = Some(insert(mounts.as_deref(), at, &mount.written())?);
        }
        values.extend(mounts.map(|mounts| ("mounts", mounts)));
    }
    if !given.devices.is_empty() {
        let linux = linux_with(spec.get("linux")?.unwrap_or("{}"), &given.devices)?;
        values.push(("linux", linux));
    }
    Ok(spec.with(&values)?.into_bytes())
}

/// The config.json without what was given.
pub fn release(config: &[u8], mount_root: &Path) -> Result<Vec<u8>> {
    let spec = Object::read(text(config)?)?;
    let mut values = Vec::new();
    if let Some(array) = spec.get("mounts")? {
        let all = elements(Some(array))?;
        let is_ours = |mount: &&str| Ok(is_below(&read::<Mount>(mount)?.source(), mount_root));
        let ours = all.iter().map(is_ours).collect::<Result<Vec<bool>>>()?;
        if ours.contains(&true) {
            values.push(("mounts", remove(array, &ours)?));
        }
    }
    if let Some(linux) = spec.get("linux")? {
        let annotations = spec.get("annotations")?.map(Object::read).transpose()?;
        let places = annotations.as_ref().map(device_places).unwrap_or_default();
        values.extend(linux_without(linux, &places)?.map(|linux| ("linux", linux)));
    }
    Ok(spec.with(&values)?.into_bytes())
}

/// The user namespace that the container is to have, where that is not the host's: a path,
/// empty for one of its own.
pub fn user_namespace(config: &[u8]) -> Result<Option<String>> {
    #[derive(Deserialize)]
    struct Namespace {
        #[serde(rename = "type")]
        kind: String,
        path: Option<String>,
    }
    let spec = Object::read(text(config)?)?;
    let Some(linux) = spec.get("linux")? else {
        return Ok(None);
    };
    for namespace in elements(Object::read(linux)?.get("namespaces")?)? {
        let namespace: Namespace = read(namespace)?;
        if namespace.kind == "user" {
            return Ok(Some(namespace.path.unwrap_or_default()));
        }
    }
    Ok(None)
}

#[derive(Deserialize)]
struct Mount {
    destination: String,
    source: Option<String>,
}

impl Mount {
    fn source(&self) -> PathBuf {
        clean_path(self.source.as_deref().unwrap_or_default())
    }
}

impl GivenMount {
    fn written(&self) -> String {
        json!({
            "destination": self.destination,
            "type": "bind",
            "source": self.source,
            "options": self.options,
        })
        .to_string()
    }
}

/// Strictly below.
fn is_below(path: &Path, root: &Path) -> bool {
    path != root && path.starts_with(root)
}

/// Before the first mount that lies below ours, else after all: no later mount hides it,
/// also by a path with a symlink in it.
fn place(ours: &GivenMount, mounts: Option<&str>) -> Result<usize> {
    let path = clean_path(&ours.destination);
    let mut at = None;
    let all = elements(mounts)?;
    for (index, mount) in all.iter().enumerate() {
        let mount: Mount = read(mount)?;
        let there = clean_path(&mount.destination);
        let taken = there == path || (at.is_some() && path.starts_with(&there));
        if taken {
            return Err(Error::invalid(format!(
                "cannot mount volume {} at {}: the container's own mount at {} is in its way: choose another mountPath in the template",
                ours.volume, ours.destination, mount.destination
            )));
        }
        if at.is_none() && there.starts_with(&path) {
            at = Some(index);
        }
    }
    Ok(at.unwrap_or(all.len()))
}

impl GivenDevice {
    fn written(&self) -> Value {
        json!({
            "path": self.path,
            "type": "b",
            "major": self.major,
            "minor": self.minor,
            "fileMode": if self.read_only { 0o440 } else { 0o660 },
        })
    }

    /// The runtime makes nodes by itself: their makers need no right to.
    fn rule(&self) -> Value {
        json!({
            "allow": true,
            "type": "b",
            "major": self.major,
            "minor": self.minor,
            "access": if self.read_only { "r" } else { "rw" },
        })
    }

    /// The device, where it is written as one that was given.
    fn of(device: &Value) -> Option<Self> {
        let number = |key: &str| u32::try_from(device[key].as_u64()?).ok();
        let read = Self {
            path: device["path"].as_str()?.to_owned(),
            major: number("major")?,
            minor: number("minor")?,
            read_only: device["fileMode"] == 0o440,
        };
        (read.written() == *device).then_some(read)
    }
}

fn linux_with(linux: &str, devices: &[GivenDevice]) -> Result<String> {
    let linux = Object::read(linux)?;
    let resources = Object::read(linux.get("resources")?.unwrap_or("{}"))?;
    let mut nodes = linux.get("devices")?.map(str::to_owned);
    let mut rules = resources.get("devices")?.map(str::to_owned);
    for device in devices {
        let path = clean_path(&device.path);
        for node in elements(nodes.as_deref())? {
            let node: Value = read(node)?;
            if node["path"].as_str().map(clean_path) == Some(path.clone()) {
                return Err(Error::invalid(format!(
                    "cannot show a volume at {}: the container's own device is there: choose another devicePath in the template",
                    device.path
                )));
            }
        }
        let end = |array: &Option<String>| Ok::<_, Error>(elements(array.as_deref())?.len());
        let at = end(&nodes)?;
        nodes = Some(insert(nodes.as_deref(), at, &device.written().to_string())?);
        // The last rule counts.
        let at = end(&rules)?;
        rules = Some(insert(rules.as_deref(), at, &device.rule().to_string())?);
    }
    let rules = rules.map(|rules| ("devices", rules));
    let resources = resources.with(rules.as_slice())?;
    let nodes = nodes.map(|nodes| ("devices", nodes));
    let values: Vec<_> = nodes
        .into_iter()
        .chain([("resources", resources)])
        .collect();
    linux.with(&values)
}

/// None: nothing of ours is in it. Ours is a device at a place of the grant that is
/// written as ours are, and has its rule.
fn linux_without(text: &str, places: &BTreeSet<PathBuf>) -> Result<Option<String>> {
    let linux = Object::read(text)?;
    let (Some(nodes), Some(resources)) = (linux.get("devices")?, linux.get("resources")?) else {
        return Ok(None);
    };
    let resources = Object::read(resources)?;
    let Some(rules) = resources.get("devices")? else {
        return Ok(None);
    };
    let values = |array: &str| -> Result<Vec<Value>> {
        elements(Some(array))?.into_iter().map(read).collect()
    };
    let written = values(rules)?;
    let mut rules_go = vec![false; written.len()];
    let mut nodes_go = Vec::new();
    for node in values(nodes)? {
        let ours = GivenDevice::of(&node).filter(|d| places.contains(&clean_path(&d.path)));
        let rule = ours.and_then(|ours| {
            let rule = ours.rule();
            (0..written.len()).rfind(|i| written[*i] == rule && !rules_go[*i])
        });
        nodes_go.push(rule.is_some());
        if let Some(rule) = rule {
            rules_go[rule] = true;
        }
    }
    if !nodes_go.contains(&true) {
        return Ok(None);
    }
    let resources = resources.with(&[("devices", remove(rules, &rules_go)?)])?;
    let devices = remove(nodes, &nodes_go)?;
    linux
        .with(&[("devices", devices), ("resources", resources)])
        .map(Some)
}

/// Where the grant that the container presents has devices.
fn device_places(annotations: &Object<'_>) -> BTreeSet<PathBuf> {
    let value = |key: &str| {
        let text = annotations.get(key).ok().flatten()?;
        Some((key.to_owned(), serde_json::from_str(text).ok()?))
    };
    let ours = annotations
        .keys()
        .filter(|k| k.starts_with(annotation::PREFIX));
    let ours: BTreeMap<String, String> = ours.filter_map(value).collect();
    // What cannot be read was never given.
    let grant = annotation::read(&ours).ok().flatten().map(|p| p.grant);
    let devices = grant.map(|grant| grant.devices).unwrap_or_default();
    devices.iter().map(|d| clean_path(&d.device_path)).collect()
}

fn text(config: &[u8]) -> Result<&str> {
    std::str::from_utf8(config).map_err(|e| {
        Error::invalid("it is not the JSON of an OCI runtime specification").with_source(e)
    })
}

fn read<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T> {
    serde_json::from_str(text).map_err(|e| {
        Error::invalid("it is not the JSON of an OCI runtime specification").with_source(e)
    })
}

#[cfg(test)]
mod tests;
