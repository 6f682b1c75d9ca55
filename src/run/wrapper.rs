// SPDX-License-Identifier: Apache-2.0
//! The wrapper: in the OCI runtime's place it gives containers their volumes where they
//! are made, and says where they are deleted.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{
    door::{self, Container},
    injection::{Done, Injection, RELEASE_WITHIN},
    real,
};
use crate::{
    api::annotation,
    config::{GuardSettings, Inject},
    error::{Error, Result},
    host::replace::Original,
    oci::{Command, MAX_CONFIG_BYTES, Making, Pod},
    proto::api::Door,
};

/// Files in which runtimes keep a container's state. They have a few, of which some are
/// pipes, and some large.
const STATE_FILES: usize = 8;

/// Whether the wrapper gives this container its volumes, and not NRI.
pub(super) fn gives(settings: &GuardSettings, pod: Option<&Pod>) -> bool {
    match settings.inject {
        Inject::Never => false,
        Inject::Always => true,
        Inject::NoNri => pod.is_none() || !settings.nri,
    }
}

/// What was done for a container, so that it can be taken back.
pub(super) struct Made<'a> {
    settings: &'a GuardSettings,
    id: &'a str,
    root: Option<PathBuf>,
    bundle: PathBuf,
}

impl Made<'_> {
    /// The runtime could not be started.
    pub(super) fn undo(&self) {
        let injection = Injection {
            settings: self.settings,
            id: self.id,
            container: Container {
                root: self.root.as_deref(),
                bundle: &self.bundle,
            },
            door: Door::Runtime,
            process: None,
            runtime: None,
        };
        // There is another failure to be told.
        let _ = injection.take_out();
        let root = self.root.as_deref();
        tell_release(self.settings, self.id, root, &self.bundle, None);
    }
}

/// Gives the container its volumes. This process is to become the runtime.
pub(super) fn give<'a>(
    settings: &'a GuardSettings,
    command: &Command,
    making: &'a Making,
    real: &Path,
) -> Result<Option<Made<'a>>> {
    if command.keeps_writes && real::is_gvisor(real) {
        return Err(Error::precondition(
            "gVisor is started with overlay2 for all mounts, so nothing that is written would reach the volume: start it with --overlay2=root:self, its default, or none",
        ));
    }
    let bundle = door::absolute(&making.bundle)?;
    let root = root(command, real)?;
    let injection = Injection {
        settings,
        id: &making.id,
        container: Container {
            root: root.as_deref(),
            bundle: &bundle,
        },
        door: Door::Runtime,
        process: Some(door::process(std::process::id())?),
        runtime: Some(real),
    };
    let done = injection.inject()?;
    Ok((done == Done::Given).then_some(Made {
        settings,
        id: &making.id,
        root,
        bundle,
    }))
}

/// Says which containers are over once this process has ended, which is about to become
/// the runtime. It is only sooner known so: what goes wrong is passed over.
pub(super) fn release(settings: &GuardSettings, command: &Command, real: &Path) {
    let Ok(Some(root)) = root(command, real) else {
        return;
    };
    for id in command.deletes.iter().filter(|id| has_volumes(&root, id)) {
        let after = door::process(std::process::id()).ok();
        tell_release(settings, id, Some(&root), Path::new(""), after);
    }
}

fn tell_release(
    settings: &GuardSettings,
    id: &str,
    root: Option<&Path>,
    bundle: &Path,
    after: Option<crate::proto::api::Process>,
) {
    let settings = GuardSettings {
        give_deadline: RELEASE_WITHIN,
        ..settings.clone()
    };
    let container = Container { root, bundle };
    let _ = door::release(&settings, id, &container, after, 0);
}

fn root(command: &Command, real: &Path) -> Result<Option<PathBuf>> {
    let told = command.root.clone().or_else(|| real::default_root(real));
    told.map(|root| door::absolute(&root)).transpose()
}

/// Whether the runtime's own record of the container has our annotations in it, in
/// whichever form: nothing is asked about the others.
fn has_volumes(root: &Path, id: &str) -> bool {
    // A directory of its own (runc, crun, youki), or files that begin with its id (runsc).
    if id.is_empty() || id.contains('/') {
        return false;
    }
    let own = fs::read_dir(root.join(id));
    let beside = |entry: &fs::DirEntry| {
        let name = entry.file_name();
        name.to_string_lossy().starts_with(&format!("{id}_"))
    };
    let entries = match own {
        Ok(own) => own,
        Err(_) => match fs::read_dir(root) {
            Ok(all) => {
                let mut files = all.flatten().filter(beside).take(STATE_FILES);
                return files.any(|entry| tells(&entry.path()));
            }
            Err(_) => return false,
        },
    };
    let mut files = entries.flatten().take(STATE_FILES);
    files.any(|entry| tells(&entry.path()))
}

fn tells(path: &Path) -> bool {
    // It waits for nobody at the other end of a pipe.
    let Ok(file) = Original::open(path) else {
        return false;
    };
    let words = annotation::ATTACHMENTS.as_bytes();
    let read = file.read(MAX_CONFIG_BYTES).unwrap_or_default();
    read.windows(words.len()).any(|part| part == words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_are_served_by_nri_where_there_is_one() {
        let pod = Pod {
            sandbox: "s".into(),
            name: "p".into(),
            namespace: "n".into(),
        };
        let settings = |inject, nri| GuardSettings {
            inject,
            nri,
            ..GuardSettings::default()
        };
        for (inject, nri, of_pod, of_none) in [
            (Inject::NoNri, true, false, true),
            (Inject::NoNri, false, true, true),
            (Inject::Never, false, false, false),
            (Inject::Always, true, true, true),
        ] {
            let settings = settings(inject, nri);
            assert_eq!(gives(&settings, Some(&pod)), of_pod, "{inject:?} {nri}");
            assert_eq!(gives(&settings, None), of_none, "{inject:?} {nri}");
        }
    }

    #[test]
    fn the_record_of_a_runtime_tells_who_has_volumes() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        let record = format!("{{\"labels\":[\"{}={{}}\"]}}", annotation::ATTACHMENTS);
        for (path, text) in [
            ("ours/state.json", record.as_str()),
            ("other/state.json", "{}"),
            ("g1_sandbox:g1.state", record.as_str()),
            ("g2_sandbox:g2.state", "{}"),
        ] {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        // runc's way to start a container.
        let pipe = root.join("other/exec.fifo");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status();
        assert!(made.unwrap().success());
        for (id, has) in [
            ("ours", true),
            ("other", false),
            ("g1", true),
            ("g2", false),
            ("g", false),
            ("none", false),
            ("../ours", false),
            ("", false),
        ] {
            assert_eq!(has_volumes(root, id), has, "{id}");
        }
        assert!(!has_volumes(&root.join("nothing"), "ours"));
    }
}
