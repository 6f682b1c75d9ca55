// SPDX-License-Identifier: Apache-2.0
//! The configuration file: TOML, unknown keys are errors.

mod control;
mod driver;
mod guard;
mod keys;
mod limits;
mod parts;
mod policy;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::{
    error::{Error, Result},
    model::{DnsLabel, NodeName},
};

pub use control::{Control, NodeControl, ServerTls};
pub use driver::{Driver, Tls};
pub use guard::{Guard, GuardSettings, Inject, RealRuntimes};
pub use keys::Keys;
pub use limits::Limits;
pub use parts::LocalDriver;
pub use policy::{Listed, Policy};

/// Where the configuration is read from unless told otherwise.
pub const DEFAULT_PATH: &str = "/etc/actor-volumes/config.toml";

/// Names the configuration where no option can: for the guard.
pub const PATH_VARIABLE: &str = "ACTOR_VOLUMES_CONFIG";

/// A path handed to a CSI driver may have at most this many bytes
/// (CSI spec, size limits: a plugin must accept 128).
pub const MAX_CSI_PATH: usize = 128;

/// `/<32 hex>/pub/<16 hex>`, the longest path below the mount root.
const BELOW_MOUNT_ROOT: usize = 1 + 32 + 5 + 16;

/// The control plane's socket in `node.run_dir`.
const SOCKET: &str = "actor-volumes.sock";

/// The node agent's socket there.
const AGENT_SOCKET: &str = "agent.sock";

/// The helper's socket in `node.run_dir`.
const HELPER_SOCKET: &str = "helper.sock";

/// The whole configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// This node.
    pub node: Node,
    /// The control plane, for nodes elsewhere.
    pub control: Control,
    /// The container runtime.
    pub runtime: Runtime,
    /// How long a container's creation may wait.
    pub wait: Wait,
    /// What stands in the OCI runtime's place.
    pub guard: Guard,
    /// What pods may have of volumes.
    pub policy: Policy,
    /// The keys of grants.
    pub keys: Keys,
    /// The CSI drivers.
    pub driver: Vec<Driver>,
    /// The embedded CSI driver as a part of `serve`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub local_driver: Option<LocalDriver>,
    /// Drivers that register themselves.
    pub discovery: Discovery,
    /// Secrets of CSI calls.
    pub secrets: Secrets,
    /// What comes in at most.
    pub limits: Limits,
    /// Logs.
    pub log: Log,
    /// Metrics.
    pub metrics: Metrics,
}

/// This node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Node {
    /// Its name in grants; none: the host name.
    pub name: Option<NodeName>,
    /// Records and the control plane's store.
    pub state_dir: PathBuf,
    /// Sockets.
    pub run_dir: PathBuf,
    /// Where volumes are staged and published; outside `state_dir`.
    pub mount_root: PathBuf,
    /// Users that may use the daemon's socket, beside root and the daemon's own.
    pub allowed_uids: Vec<u32>,
    /// Pod namespaces whose unsigned annotations are believed.
    pub trusted_namespaces: Vec<DnsLabel>,
    /// How long a container scope outlives its last member, in milliseconds.
    pub member_grace_ms: u64,
    /// How often the sweep looks for scopes that ended unseen, in seconds.
    pub sweep_interval_s: u64,
    /// How often containers are looked for that run without their volumes, in seconds.
    pub breach_interval_s: u64,
    /// What becomes of their sandboxes.
    pub on_breach: OnBreach,
    /// Where the control plane of `actor-volumes node` is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub control: Option<NodeControl>,
}

/// What becomes of a sandbox with a container that runs without its volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnBreach {
    /// It is told.
    Report,
    /// It is told, and the sandbox is stopped through the CRI.
    StopSandbox,
}

/// The container runtime.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Runtime {
    /// The NRI socket; its directory may appear later. Empty: this node has no NRI.
    pub nri_socket: PathBuf,
    /// The CRI socket: to list what there is, and to stop a sandbox where
    /// `node.on_breach` says so. Empty: this node has no CRI.
    pub cri_socket: PathBuf,
    /// The plugin's name at the runtime.
    pub plugin_name: String,
    /// The plugin's index at the runtime: two digits, low ones are called first.
    pub plugin_index: String,
}

/// How long a container's creation may wait for its volumes. The runtime holds
/// a node-wide lock meanwhile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Wait {
    /// The longest wait of one creation, in milliseconds; never more than 75 %
    /// of the runtime's request timeout.
    pub max_ms: u64,
    /// The share of any 10 seconds that all waits together may take, in percent.
    pub budget_percent: u8,
}

/// Drivers that register themselves, as they do with a kubelet.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Discovery {
    /// The registration directory, such as `/var/lib/kubelet/plugins_registry`;
    /// none: drivers are those of the configuration alone.
    pub registration_dir: Option<PathBuf>,
}

/// Secrets of CSI calls.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Secrets {
    /// A secret `namespace/name` is the directory `<dir>/<namespace>/<name>`, one
    /// file a key; none: classes that name secrets do not work.
    pub dir: Option<PathBuf>,
}

/// Logs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// A level or a filter in the syntax of `tracing`, such as `info`.
    pub filter: String,
    /// One JSON object a line instead of text.
    pub json: bool,
    /// The file to which lines are added; none: standard error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
}

/// Metrics.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Metrics {
    /// Where OpenMetrics text is served over HTTP, such as `127.0.0.1:9810`; none: nowhere.
    /// In `serve` it is the node agent's.
    pub listen: Option<std::net::SocketAddr>,
    /// The same of the control plane in `serve`; none: the port after that of `listen`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub control_listen: Option<std::net::SocketAddr>,
}

impl Default for Node {
    fn default() -> Self {
        Self {
            name: None,
            state_dir: "/var/lib/actor-volumes".into(),
            run_dir: "/run/actor-volumes".into(),
            mount_root: "/var/lib/actor-volumes-mounts".into(),
            allowed_uids: Vec::new(),
            trusted_namespaces: Vec::new(),
            member_grace_ms: 30_000,
            sweep_interval_s: 10,
            breach_interval_s: 60,
            on_breach: OnBreach::Report,
            control: None,
        }
    }
}

impl Default for Runtime {
    fn default() -> Self {
        Self {
            nri_socket: "/var/run/nri/nri.sock".into(),
            cri_socket: "/run/containerd/containerd.sock".into(),
            plugin_name: "actor-volumes".into(),
            plugin_index: "10".into(),
        }
    }
}

impl Default for Wait {
    fn default() -> Self {
        Self {
            max_ms: 1_500,
            budget_percent: 20,
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self {
            filter: "info".into(),
            json: false,
            file: None,
        }
    }
}

impl Runtime {
    /// The NRI socket, where there is NRI.
    pub fn nri(&self) -> Option<&Path> {
        Some(self.nri_socket.as_path()).filter(|p| !p.as_os_str().is_empty())
    }

    /// The CRI socket, where there is a CRI.
    pub fn cri(&self) -> Option<&Path> {
        Some(self.cri_socket.as_path()).filter(|p| !p.as_os_str().is_empty())
    }
}

impl Config {
    /// Reads the file. A missing file is an error: say `config --print-default` to make one.
    pub fn load(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|e| {
            Error::invalid(format!(
                "cannot read the configuration {}: `actor-volumes config --print-default` prints one to start from",
                path.display()
            ))
            .with_source(e)
        })?;
        Self::parse(&text).map_err(|e| e.context(format!("configuration {}", path.display())))
    }

    /// Reads the text of a configuration and checks it.
    pub fn parse(text: &str) -> Result<Self> {
        let config: Self = toml::from_str(text)
            .map_err(|e| Error::invalid(e.to_string().trim_end().to_owned()))?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<()> {
        for (key, path) in [
            ("node.state_dir", &self.node.state_dir),
            ("node.run_dir", &self.node.run_dir),
            ("node.mount_root", &self.node.mount_root),
            ("runtime.nri_socket", &self.runtime.nri_socket),
            ("runtime.cri_socket", &self.runtime.cri_socket),
        ]
        .into_iter()
        .chain(self.secrets.dir.as_ref().map(|dir| ("secrets.dir", dir)))
        .chain(
            self.discovery
                .registration_dir
                .as_ref()
                .map(|dir| ("discovery.registration_dir", dir)),
        ) {
            let none = key.starts_with("runtime.") && path.as_os_str().is_empty();
            if !path.is_absolute() && !none {
                return Err(Error::invalid(format!(
                    "{key} must be an absolute path, not {}",
                    path.display()
                )));
            }
        }
        let root = &self.node.mount_root;
        if root.starts_with(&self.node.state_dir) || self.node.state_dir.starts_with(root) {
            return Err(Error::invalid(
                "node.mount_root and node.state_dir must not lie one within the other: records stay outside every mount",
            ));
        }
        let longest = root.as_os_str().len() + BELOW_MOUNT_ROOT;
        if longest > MAX_CSI_PATH {
            return Err(Error::invalid(format!(
                "node.mount_root gives target paths of {longest} bytes, CSI allows {MAX_CSI_PATH}: choose a shorter one"
            )));
        }
        let index = &self.runtime.plugin_index;
        if index.len() != 2 || !index.bytes().all(|b| b.is_ascii_digit()) {
            return Err(Error::invalid(format!(
                "runtime.plugin_index must be two digits, not {index:?}"
            )));
        }
        let name = &self.runtime.plugin_name;
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"_.+-".contains(&b);
        if name.is_empty() || !name.bytes().all(plain) {
            return Err(Error::invalid(format!(
                "runtime.plugin_name must be of letters, digits and _.+-, not {name:?}"
            )));
        }
        if self.wait.budget_percent > 100 {
            return Err(Error::invalid("wait.budget_percent must be 0 to 100"));
        }
        for (name, interval) in [
            ("sweep_interval_s", self.node.sweep_interval_s),
            ("breach_interval_s", self.node.breach_interval_s),
        ] {
            if interval == 0 {
                return Err(Error::invalid(format!("node.{name} must be at least 1")));
            }
        }
        self.control.check()?;
        self.keys.check()?;
        self.guard.check()?;
        self.policy.check()?;
        self.limits.check()?;
        if let Some(control) = &self.node.control {
            control.endpoint()?;
        }
        let mut names = std::collections::BTreeSet::new();
        self.check_parts()?;
        for driver in &self.driver {
            if !names.insert(&driver.name) {
                return Err(Error::invalid(format!(
                    "driver {} is configured twice",
                    driver.name
                )));
            }
            driver.check()?;
        }
        Ok(())
    }

    /// A file with every key at its default.
    pub fn print_default() -> String {
        let text = toml::to_string_pretty(&Self::default())
            .expect("the default configuration is made of plain tables");
        format!(
            "# actor-volumes, every key at its default. See docs/configuration.md.\n\n{text}\n\
             # One table a CSI driver:\n\
             # [[driver]]\n\
             # name = \"hostpath.csi.k8s.io\"\n\
             # endpoint = \"unix:///run/csi/hostpath.sock\"\n\
             # call_timeout_s = {}\n\
             # max_calls = {}\n\
             # controller_endpoint = \"tcp://csi.example:9000\"   # with a table [driver.tls]: ca, cert, key\n\
             # mount_root = \"/csi\"   # where the driver sees node.mount_root\n",
            driver::default_call_timeout_s(),
            driver::default_max_calls(),
        )
    }
}

#[cfg(test)]
mod tests;
