// SPDX-License-Identifier: Apache-2.0
//! The runtime side of NRI over a real unix socket, as strict as the runtimes
//! written in Go. It shares no code with the plugin side: framing and envelopes
//! are written a second time, so that a mistake does not hide itself.

mod plugin;
mod register;
mod wire;

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use actor_volumes::proto::nri::{Container, PodSandbox};
use tokio::{net::UnixListener, sync::mpsc, task::JoinHandle};

pub use plugin::PluginHandle;

/// Which runtime it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Version {
    /// Its name in Configure.
    pub runtime: &'static str,
    /// Its version in Configure.
    pub runtime_version: &'static str,
    /// The NRI version in it.
    pub nri: (u32, u32),
}

impl Version {
    /// containerd 1.7.24, NRI 0.6.
    pub const CONTAINERD_1_7: Self = Self::containerd("v1.7.24", 6);
    /// containerd 2.1.4, NRI 0.8.
    pub const CONTAINERD_2_1: Self = Self::containerd("v2.1.4", 8);
    /// containerd 2.2.1, NRI 0.11.
    pub const CONTAINERD_2_2: Self = Self::containerd("v2.2.1", 11);
    /// containerd 2.3.0, NRI 0.12.
    pub const CONTAINERD_2_3: Self = Self::containerd("v2.3.0", 12);

    const fn containerd(runtime_version: &'static str, nri_minor: u32) -> Self {
        Self {
            runtime: "containerd",
            runtime_version,
            nri: (0, nri_minor),
        }
    }

    /// The events that a plugin may ask for.
    fn valid_events(self) -> u32 {
        if self.nri < (0, 10) { 0x07ff } else { 0x3fff }
    }

    /// Whether notifications have RPCs of their own.
    fn has_rpc_per_event(self) -> bool {
        self.nri >= (0, 12)
    }
}

/// How a plugin is told of what exists.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Sync {
    /// In one message.
    #[default]
    Whole,
    /// In messages of at most so many pods and so many containers.
    Chunks(usize),
    /// Never, with the socket left open.
    Never,
    /// As in chunks of one, but silence after the first, with the socket left open.
    FirstChunkOnly,
}

/// What the runtime holds, and its manners.
#[derive(Clone)]
pub struct Behaviour {
    /// How long a plugin may take for one request.
    pub request_timeout: Duration,
    /// How long a plugin may take to register.
    pub registration_timeout: Duration,
    /// Whether Configure is sent, and answered, before RegisterPlugin is.
    pub configure_first: bool,
    /// How the state is told.
    pub sync: Sync,
    /// The sandboxes that exist when a plugin connects.
    pub pods: Vec<PodSandbox>,
    /// The containers that exist when a plugin connects.
    pub containers: Vec<Container>,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            request_timeout: Duration::from_secs(2),
            registration_timeout: Duration::from_secs(5),
            configure_first: false,
            sync: Sync::Whole,
            pods: Vec::new(),
            containers: Vec::new(),
        }
    }
}

/// A status other than OK that a plugin answered with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// The gRPC code.
    pub code: i32,
    /// The message.
    pub message: String,
}

/// A runtime that listens for plugins. Dropping it is the runtime's death: the
/// connections end, the socket file stays and nobody listens on it.
pub struct Runtime {
    socket: PathBuf,
    outcomes: tokio::sync::Mutex<mpsc::UnboundedReceiver<Result<PluginHandle, String>>>,
    plugins: Plugins,
    accepting: JoinHandle<()>,
}

type Plugins = Arc<Mutex<Vec<PluginHandle>>>;

impl Runtime {
    /// Listens on `nri.sock` in the directory.
    pub fn listen(dir: &Path, version: Version) -> Self {
        Self::listen_with(dir, version, Behaviour::default())
    }

    /// Listens, with these manners.
    pub fn listen_with(dir: &Path, version: Version, behaviour: Behaviour) -> Self {
        let socket = Self::socket_in(dir);
        // As a runtime does at its start: the path is made anew.
        let _ = std::fs::remove_file(&socket);
        let listener = UnixListener::bind(&socket).expect("a socket in a temporary directory");
        let (outcome, outcomes) = mpsc::unbounded_channel();
        let plugins = Plugins::default();
        let accepting = tokio::spawn(accept(
            listener,
            version,
            behaviour,
            Arc::clone(&plugins),
            outcome,
        ));
        Self {
            socket,
            outcomes: tokio::sync::Mutex::new(outcomes),
            plugins,
            accepting,
        }
    }

    /// Where a runtime of this directory listens.
    pub fn socket_in(dir: &Path) -> PathBuf {
        dir.join("nri.sock")
    }

    /// The socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The next plugin that is registered, configured and synchronized.
    pub async fn wait_plugin(&self) -> PluginHandle {
        loop {
            if let Ok(plugin) = self.next_outcome().await {
                return plugin;
            }
        }
    }

    /// What became of the next connection: a plugin, or why it was refused.
    pub async fn next_outcome(&self) -> Result<PluginHandle, String> {
        let mut outcomes = self.outcomes.lock().await;
        outcomes.recv().await.expect("the runtime is listening")
    }

    /// Closes the connection of the newest plugin, as after a request that timed out.
    pub fn drop_plugin(&self) {
        if let Some(plugin) = lock(&self.plugins).last() {
            plugin.close("dropped by the test");
        }
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        self.accepting.abort();
        for plugin in lock(&self.plugins).iter() {
            plugin.close("the runtime is gone");
        }
    }
}

/// One plugin after another, as the runtimes do: the next connection is looked
/// at when the one before is synchronized or refused.
async fn accept(
    listener: UnixListener,
    version: Version,
    behaviour: Behaviour,
    plugins: Plugins,
    outcome: mpsc::UnboundedSender<Result<PluginHandle, String>>,
) {
    while let Ok((socket, _)) = listener.accept().await {
        let (plugin, registrations) = PluginHandle::start(socket, version, behaviour.clone());
        lock(&plugins).push(plugin.clone());
        let ready = register::set_up(&plugin, registrations).await;
        if let Err(why) = &ready {
            plugin.close(why);
        }
        if outcome.send(ready.map(|()| plugin)).is_err() {
            return;
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}
