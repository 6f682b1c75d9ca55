// SPDX-License-Identifier: Apache-2.0
//! Where things lie on the host. Pure.

use std::path::{Path, PathBuf};

use crate::{
    helper::Place,
    model::{Scope, SubPath, VolumeKey},
};

/// Where things lie on the host.
#[derive(Debug, Clone)]
pub struct Layout {
    state_dir: PathBuf,
    records: PathBuf,
    mount_root: PathBuf,
}

impl Layout {
    /// `<state>/records` and the mount root, which is outside the state.
    pub fn new(state_dir: &Path, mount_root: &Path) -> Self {
        Self {
            state_dir: state_dir.into(),
            records: state_dir.join("records"),
            mount_root: mount_root.into(),
        }
    }

    /// What is kept of this node.
    pub fn state_dir(&self) -> &Path {
        &self.state_dir
    }

    /// The directory of the records.
    pub fn records(&self) -> &Path {
        &self.records
    }

    /// The directory below which volumes are staged and published.
    pub fn mount_root(&self) -> &Path {
        &self.mount_root
    }

    /// `<state>/records/<32 hex>.json`
    pub fn record(&self, volume: &VolumeKey) -> PathBuf {
        self.records.join(format!("{}.json", volume.hash()))
    }

    /// `<mount root>/<32 hex>`
    pub fn volume_dir(&self, volume: &VolumeKey) -> PathBuf {
        self.mount_root.join(volume.hash())
    }

    /// `<mount root>/<32 hex>/staging`
    pub fn staging(&self, volume: &VolumeKey) -> PathBuf {
        self.volume_dir(volume).join("staging")
    }

    /// `<mount root>/<32 hex>/pub`, the parent of the target paths.
    pub fn publications(&self, volume: &VolumeKey) -> PathBuf {
        self.volume_dir(volume).join("pub")
    }

    /// `<mount root>/<32 hex>/pub/<16 hex>`
    pub fn target(&self, volume: &VolumeKey, scope: &Scope) -> PathBuf {
        self.place(volume, scope).target(&self.mount_root)
    }

    /// `<mount root>/<32 hex>/pub/<16 hex>.sub/<16 hex>`: not told to any driver.
    pub fn sub_path(&self, volume: &VolumeKey, scope: &Scope, sub_path: &SubPath) -> PathBuf {
        self.place(volume, scope)
            .sub_path(&self.mount_root, sub_path)
    }

    /// The target path as the helper is told of it.
    pub fn place(&self, volume: &VolumeKey, scope: &Scope) -> Place {
        Place::of(volume, scope)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config, model::RuntimeId};

    #[test]
    fn the_longest_path_fits_what_csi_promises_to_take() {
        let root = Path::new("/var/lib/kubelet/plugins/actor-volumes.dev/mounts");
        let layout = Layout::new(Path::new("/s"), root);
        let volume = VolumeKey {
            driver: "d".parse().unwrap(),
            volume_id: "../../etc/passwd\n#".into(),
        };
        let scope = Scope::Sandbox {
            runtime: RuntimeId::new("cri:/x").unwrap(),
            sandbox: "f".repeat(64),
        };
        let target = layout.target(&volume, &scope);
        assert!(target.as_os_str().len() <= config::MAX_CSI_PATH);
        assert!(target.starts_with(root));
        assert!(!target.to_string_lossy().contains(".."));
        let sub_path: SubPath = "x".repeat(255).parse().unwrap();
        let beside = layout.sub_path(&volume, &scope, &sub_path);
        assert!(!beside.starts_with(&target) && beside.starts_with(layout.publications(&volume)));
        assert!(!beside.to_string_lossy().contains('x'));
    }
}
