// SPDX-License-Identifier: Apache-2.0
//! The driver's volumes, and the rules that a caller must keep.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ffi::OsStr,
    fs, io,
    path::{Path, PathBuf},
};

use actor_volumes::{
    host::{mount, tree},
    proto::csi::{self as wire, volume_capability::access_mode::Mode},
};
use prost::Message;
use serde::{Deserialize, Serialize};
use tonic::{Code, Status};

use super::{Backend, Options};

/// All volumes.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Model {
    pub(super) volumes: BTreeMap<String, Volume>,
    /// Names of volumes that were deleted: they must not come back.
    deleted: BTreeSet<String>,
    /// The fields of calls that were tried and not yet negated, by what they
    /// are about. A retry must have the same.
    tried: BTreeMap<String, String>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Volume {
    name: String,
    context: BTreeMap<String, String>,
    attached: BTreeSet<String>,
    staged: Option<String>,
    published: BTreeSet<String>,
}

/// A refused call: a rule that was broken, or the driver's own trouble.
pub(super) enum Refused {
    Rule(String),
    Trouble(Status),
}

impl From<io::Error> for Refused {
    fn from(error: io::Error) -> Self {
        Self::Trouble(Status::internal(error.to_string()))
    }
}

type Done<T = ()> = Result<T, Refused>;

fn rule(kept: bool, text: impl FnOnce() -> String) -> Done {
    if kept {
        Ok(())
    } else {
        Err(Refused::Rule(text()))
    }
}

/// The id of the volume of this name; its characters make it unfit for a path.
pub(super) fn id_of(name: &str) -> String {
    format!("../{name}#1")
}

fn token(id: &str, node: &str) -> HashMap<String, String> {
    [("token".into(), format!("{id} on {node}"))].into()
}

impl Model {
    /// What an earlier process left.
    pub(super) fn load(backend: &Backend) -> Self {
        let Backend::Bind { root } = backend else {
            return Self::default();
        };
        fs::create_dir_all(root.join("volumes")).expect("the root can be made");
        match fs::read(root.join("state.json")) {
            Ok(bytes) => serde_json::from_slice(&bytes).expect("state.json is ours"),
            Err(_) => Self::default(),
        }
    }

    /// Keeps the model for the next process.
    pub(super) fn save(&self, backend: &Backend) {
        let Backend::Bind { root } = backend else {
            return;
        };
        let bytes = serde_json::to_vec(self).expect("the model is plain data");
        let next = root.join("state.json.new");
        fs::write(&next, bytes)
            .and_then(|()| fs::rename(&next, root.join("state.json")))
            .expect("the root can be written");
    }

    fn volume(&mut self, id: &str) -> Done<&mut Volume> {
        let missing = || Refused::Trouble(Status::not_found(format!("no volume {id}")));
        self.volumes.get_mut(id).ok_or_else(missing)
    }

    /// A retry has the fields of the first try.
    fn same_fields(&mut self, about: String, fields: String) -> Done {
        let first = self.tried.entry(about.clone()).or_insert(fields.clone());
        rule(*first == fields, || {
            format!("{about}: a retry with other fields: first {first}, now {fields}")
        })
    }

    pub(super) fn create(
        &mut self,
        options: &Options,
        request: &wire::CreateVolumeRequest,
    ) -> Done<wire::Volume> {
        let name = &request.name;
        rule(!self.deleted.contains(name), || {
            format!("CreateVolume {name} after it was deleted")
        })?;
        let range = request.capacity_range.unwrap_or_default();
        let capabilities = request.volume_capabilities.iter();
        let fields = format!(
            "{range:?} {:?} {}",
            sorted(&request.parameters),
            capabilities.map(hex).collect::<Vec<_>>().join(","),
            range = (range.required_bytes, range.limit_bytes),
        );
        self.same_fields(format!("CreateVolume {name}"), fields)?;
        for capability in &request.volume_capabilities {
            known_mode(options, Some(capability))?;
        }
        let id = id_of(name);
        let volume = self.volumes.entry(id.clone()).or_insert_with(|| Volume {
            name: name.clone(),
            context: [("volume".into(), name.clone())].into(),
            ..Volume::default()
        });
        if let Some(data) = data(options, &volume.name) {
            fs::create_dir_all(data)?;
        }
        Ok(wire::Volume {
            volume_id: id,
            capacity_bytes: options.capacity.unwrap_or(range.required_bytes),
            volume_context: volume.context.clone().into_iter().collect(),
            ..Default::default()
        })
    }

    pub(super) fn delete(&mut self, options: &Options, id: &str) -> Done {
        let Some(volume) = self.volumes.get(id) else {
            return Ok(());
        };
        let unused =
            volume.attached.is_empty() && volume.staged.is_none() && volume.published.is_empty();
        rule(unused, || {
            format!("DeleteVolume {id} while it is in use: {volume:?}")
        })?;
        if let Some(data) = data(options, &volume.name)
            && let Some((parent, name)) = data.parent().zip(data.file_name())
        {
            tree::remove_tree(fs::File::open(parent)?, OsStr::new(name))?;
        }
        self.deleted.insert(volume.name.clone());
        self.volumes.remove(id);
        Ok(())
    }

    pub(super) fn attach(
        &mut self,
        options: &Options,
        request: &wire::ControllerPublishVolumeRequest,
    ) -> Done<HashMap<String, String>> {
        let (id, node) = (&request.volume_id, &request.node_id);
        known_mode(options, request.volume_capability.as_ref())?;
        let fields = format!(
            "{} {:?}",
            request
                .volume_capability
                .as_ref()
                .map(hex)
                .unwrap_or_default(),
            sorted(&request.volume_context)
        );
        let volume = self.volume(id)?;
        rule(
            sorted(&request.volume_context) == sorted(&volume.context),
            || format!("ControllerPublishVolume {id}: another volume_context"),
        )?;
        let other = volume.attached.iter().find(|n| *n != node);
        rule(other.is_none(), || {
            format!("ControllerPublishVolume {id} on {node}, still attached to {other:?}")
        })?;
        volume.attached.insert(node.clone());
        self.same_fields(format!("ControllerPublishVolume {id} {node}"), fields)?;
        Ok(token(id, node))
    }

    pub(super) fn detach(&mut self, id: &str, node: &str) -> Done {
        let Some(volume) = self.volumes.get_mut(id) else {
            return Ok(());
        };
        let released = volume.staged.is_none() && volume.published.is_empty();
        rule(released, || {
            format!("ControllerUnpublishVolume {id} before it was released: {volume:?}")
        })?;
        volume.attached.remove(node);
        self.tried
            .remove(&format!("ControllerPublishVolume {id} {node}"));
        Ok(())
    }

    pub(super) fn stage(
        &mut self,
        options: &Options,
        request: &wire::NodeStageVolumeRequest,
    ) -> Done {
        let (id, path) = (&request.volume_id, &request.staging_target_path);
        let about = format!("NodeStageVolume {id} {path}");
        short_path(path)?;
        rule(options.stage, || format!("{about}: not advertised"))?;
        rule(Path::new(path).is_dir(), || {
            format!("{about}: the directory does not exist")
        })?;
        known_mode(options, request.volume_capability.as_ref())?;
        let contexts = (&request.volume_context, &request.publish_context);
        self.check_contexts(options, &about, id, contexts)?;
        let fields = fields(request.volume_capability.as_ref(), contexts, "");
        self.same_fields(about.clone(), fields)?;
        let volume = self.volume(id)?;
        let elsewhere = volume.staged.as_ref().filter(|p| *p != path);
        rule(elsewhere.is_none(), || {
            format!("{about}: staged at {elsewhere:?}")
        })?;
        if let Some(data) = data(options, &volume.name)
            && !mount::is_mount_point(Path::new(path))?
        {
            mount::bind(&data, Path::new(path), false)?;
        }
        volume.staged = Some(path.clone());
        Ok(())
    }

    pub(super) fn unstage(&mut self, options: &Options, id: &str, path: &str) -> Done {
        short_path(path)?;
        let Some(volume) = self.volumes.get_mut(id) else {
            return Ok(());
        };
        rule(volume.published.is_empty(), || {
            format!(
                "NodeUnstageVolume {id} while it is published at {:?}",
                volume.published
            )
        })?;
        if data(options, &volume.name).is_some() {
            unmount(Path::new(path))?;
        }
        volume.staged = None;
        self.tried.remove(&format!("NodeStageVolume {id} {path}"));
        Ok(())
    }

    pub(super) fn publish(
        &mut self,
        options: &Options,
        request: &wire::NodePublishVolumeRequest,
    ) -> Done {
        let (id, path) = (&request.volume_id, &request.target_path);
        let target = Path::new(path);
        let about = format!("NodePublishVolume {id} {path}");
        short_path(path)?;
        short_path(&request.staging_target_path)?;
        let parent = target.parent().is_some_and(Path::is_dir);
        rule(parent, || {
            format!("{about}: the parent directory does not exist")
        })?;
        let mode = known_mode(options, request.volume_capability.as_ref())?;
        let contexts = (&request.volume_context, &request.publish_context);
        self.check_contexts(options, &about, id, contexts)?;
        let more = format!("{} {}", request.staging_target_path, request.readonly);
        let fields = fields(request.volume_capability.as_ref(), contexts, &more);
        self.same_fields(about.clone(), fields)?;
        let volume = self.volume(id)?;
        let staged = volume.staged.as_deref().unwrap_or_default();
        rule(staged == request.staging_target_path, || {
            format!(
                "{about}: staging path {:?}, but it is staged at {staged:?}",
                request.staging_target_path
            )
        })?;
        let stays_staged = !options.stage || volume.staged.is_some();
        rule(stays_staged, || format!("{about}: not staged"))?;
        let other = volume.published.iter().find(|p| *p != path);
        rule(
            other.is_none() || mode == Mode::SingleNodeMultiWriter,
            || format!("{about}: still published at {other:?}"),
        )?;
        match fs::create_dir(target) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e.into()),
            _ => {}
        }
        if let Some(data) = data(options, &volume.name)
            && !mount::is_mount_point(target)?
        {
            mount::bind(&data, target, request.readonly)?;
        }
        volume.published.insert(path.clone());
        Ok(())
    }

    pub(super) fn unpublish(&mut self, options: &Options, id: &str, path: &str) -> Done {
        short_path(path)?;
        let Some(volume) = self.volumes.get_mut(id) else {
            return Ok(());
        };
        let target = Path::new(path);
        if data(options, &volume.name).is_some() {
            unmount(target)?;
        }
        match fs::remove_dir(target) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e.into()),
            _ => {}
        }
        volume.published.remove(path);
        self.tried.remove(&format!("NodePublishVolume {id} {path}"));
        Ok(())
    }

    /// volume_context as it was given; publish_context as attaching gave it.
    fn check_contexts(
        &mut self,
        options: &Options,
        about: &str,
        id: &str,
        (volume_context, publish_context): (&HashMap<String, String>, &HashMap<String, String>),
    ) -> Done {
        let volume = self.volume(id)?;
        let same = sorted(volume_context) == sorted(&volume.context);
        rule(same, || format!("{about}: another volume_context"))?;
        if !options.attach {
            return rule(publish_context.is_empty(), || {
                format!("{about}: a publish_context that was never given")
            });
        }
        let attached = volume.attached.contains(&options.node_id);
        rule(attached, || format!("{about}: not attached to this node"))?;
        let same = *publish_context == token(id, &options.node_id);
        rule(same, || format!("{about}: another publish_context"))
    }
}

/// Where the files of a volume are, if there are any.
fn data(options: &Options, name: &str) -> Option<PathBuf> {
    match &options.backend {
        Backend::Memory => None,
        Backend::Bind { root } => Some(root.join("volumes").join(name.replace('/', "_"))),
    }
}

fn unmount(path: &Path) -> Done {
    loop {
        match mount::is_mount_point(path) {
            Ok(true) => mount::unmount(path)?,
            Ok(false) => return Ok(()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(e.into()),
        }
    }
}

/// CSI promises 128 bytes, not more.
fn short_path(path: &str) -> Done {
    rule(path.len() <= 128, || {
        format!("a path of {} bytes: {path}", path.len())
    })
}

/// A mode that the driver has said it knows.
fn known_mode(options: &Options, capability: Option<&wire::VolumeCapability>) -> Done<Mode> {
    let mode = capability.and_then(|c| c.access_mode.as_ref());
    let mode = mode.map_or(Mode::Unknown, |m| m.mode());
    let both = options.controller_single_node_modes && options.node_single_node_modes;
    let known = match mode {
        Mode::Unknown => false,
        Mode::SingleNodeSingleWriter | Mode::SingleNodeMultiWriter => both,
        _ => true,
    };
    rule(known, || {
        format!("access mode {} was not advertised", mode.as_str_name())
    })?;
    Ok(mode)
}

fn fields(
    capability: Option<&wire::VolumeCapability>,
    (volume_context, publish_context): (&HashMap<String, String>, &HashMap<String, String>),
    more: &str,
) -> String {
    format!(
        "{} {:?} {:?} {more}",
        capability.map(hex).unwrap_or_default(),
        sorted(volume_context),
        sorted(publish_context),
    )
}

fn sorted<'a>(
    map: impl IntoIterator<Item = (&'a String, &'a String)>,
) -> BTreeMap<&'a String, &'a String> {
    map.into_iter().collect()
}

/// A capability has no maps, so its bytes are always the same.
fn hex(capability: &wire::VolumeCapability) -> String {
    let bytes = capability.encode_to_vec();
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

impl Refused {
    pub(super) fn into_status(self, note: impl FnOnce(String)) -> Status {
        match self {
            Self::Rule(text) => {
                note(text.clone());
                Status::new(Code::FailedPrecondition, text)
            }
            Self::Trouble(status) => status,
        }
    }
}
