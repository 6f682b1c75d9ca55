// SPDX-License-Identifier: Apache-2.0
//! A CSI driver that watches its caller and fails on demand.
//!
//! It serves over a real socket, remembers its volumes over a restart, writes
//! down every call, and notes each rule of CSI that the caller breaks: order,
//! identical retries, one call in flight per volume, contexts handed back
//! unchanged, paths.

mod fault;
mod model;
mod server;

use std::{
    collections::{HashMap, HashSet},
    fs::OpenOptions,
    io::Write,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use actor_volumes::{
    proto::csi::{
        controller_server::ControllerServer, identity_server::IdentityServer,
        node_server::NodeServer,
    },
    transport,
};
use serde_json::{Value, json};
use tokio::{runtime::Runtime, sync::oneshot};
use tonic::transport::Server;

pub use fault::Fault;
use fault::Faults;
use model::Model;
use server::{OpenCall, Services};

/// Where the files of volumes are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Backend {
    /// Nowhere: a publication is an empty directory. Needs no root.
    Memory,
    /// Directories `<root>/volumes/*`, shown by bind mounts. The model is kept
    /// in `<root>/state.json`, so that a killed process goes on where it was.
    Bind {
        /// Of the driver alone.
        root: PathBuf,
    },
}

/// How the driver presents itself.
#[derive(Debug, Clone)]
pub struct Options {
    /// GetPluginInfo
    pub name: String,
    /// GetPluginInfo
    pub version: String,
    /// NodeGetInfo
    pub node_id: String,
    /// Where the files are.
    pub backend: Backend,
    /// STAGE_UNSTAGE_VOLUME
    pub stage: bool,
    /// PUBLISH_UNPUBLISH_VOLUME, with a token in publish_context.
    pub attach: bool,
    /// SINGLE_NODE_MULTI_WRITER of the controller
    pub controller_single_node_modes: bool,
    /// SINGLE_NODE_MULTI_WRITER of the node
    pub node_single_node_modes: bool,
    /// CREATE_DELETE_VOLUME
    pub create: bool,
    /// Whether the Node service answers at all.
    pub node_service: bool,
    /// The capacity of every new volume; none: what was asked for.
    pub capacity: Option<i64>,
    /// Where calls and violations are appended to, one JSON object a line, and
    /// where faults are read from.
    pub files: Files,
}

/// Files for those who drive the driver from another process.
#[derive(Debug, Clone, Default)]
pub struct Files {
    /// `{"seq":1,"method":"CreateVolume","volume":"…","path":"…"}` on arrival,
    /// `{"seq":1,"code":"Ok"}` with the answer.
    pub calls: Option<PathBuf>,
    /// `{"violation":"…"}`
    pub violations: Option<PathBuf>,
    /// See [`Fault`]; read anew at each call.
    pub control: Option<PathBuf>,
}

impl Options {
    /// A driver that stages and knows all access modes, and does not attach.
    pub fn new(backend: Backend) -> Self {
        Self {
            name: "testkit.actor-volumes.dev".into(),
            version: "1".into(),
            node_id: "node-a".into(),
            backend,
            stage: true,
            attach: false,
            controller_single_node_modes: true,
            node_single_node_modes: true,
            create: true,
            node_service: true,
            capacity: None,
            files: Files::default(),
        }
    }
}

/// One call, as it came in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// Counts from 1 in order of arrival.
    pub seq: u64,
    /// The RPC, as CSI spells it.
    pub method: &'static str,
    /// The volume id; empty for calls that have none.
    pub volume: String,
    /// The staging or target path, or the node id.
    pub path: String,
    /// The gRPC code of the answer, such as `Unavailable`; none while there is none.
    pub code: Option<String>,
}

/// A driver that serves until it is stopped or dropped.
pub struct CsiDriver {
    socket: PathBuf,
    shared: Arc<Shared>,
    runtime: Option<Runtime>,
}

pub(crate) struct Shared {
    options: Mutex<Options>,
    model: Mutex<Model>,
    faults: Mutex<Faults>,
    calls: Mutex<Vec<Call>>,
    violations: Mutex<Vec<String>>,
    /// Calls whose caller still waits, by volume.
    open: Mutex<HashMap<String, Vec<Arc<OpenCall>>>>,
    /// Volumes that the driver works on, whether anyone waits or not.
    busy: Mutex<HashSet<String>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl CsiDriver {
    /// Serves on the socket with [`Options::new`].
    pub async fn start(socket: &Path, backend: Backend) -> Self {
        Self::start_with(socket, Options::new(backend)).await
    }

    /// Serves on the socket.
    pub async fn start_with(socket: &Path, options: Options) -> Self {
        let shared = Shared {
            model: Mutex::new(Model::load(&options.backend)),
            faults: Mutex::new(Faults::new(options.files.control.clone())),
            options: Mutex::new(options),
            calls: Mutex::default(),
            violations: Mutex::default(),
            open: Mutex::default(),
            busy: Mutex::default(),
        };
        let mut driver = Self {
            socket: socket.into(),
            shared: Arc::new(shared),
            runtime: None,
        };
        driver.start_again().await;
        driver
    }

    /// Serves again after [`CsiDriver::stop`], with the volumes it had.
    pub async fn start_again(&mut self) {
        assert!(self.runtime.is_none(), "stop the driver first");
        // A runtime of its own, so that stopping it cuts every connection and
        // call at once, as the death of a process does.
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a thread can be started");
        let (socket, services) = (self.socket.clone(), Services(self.shared.clone()));
        let (listening, heard) = oneshot::channel();
        runtime.spawn(async move {
            let incoming = transport::bind(&socket).await.expect("the socket is free");
            let _ = listening.send(());
            Server::builder()
                .add_service(IdentityServer::new(services.clone()))
                .add_service(ControllerServer::new(services.clone()))
                .add_service(NodeServer::new(services))
                .serve_with_incoming(incoming)
                .await
        });
        heard.await.expect("the driver listens");
        self.runtime = Some(runtime);
    }

    /// Stops it as a kill does: no call ends, no connection is closed politely,
    /// the socket file stays.
    pub async fn stop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            let stop = move || runtime.shutdown_timeout(Duration::from_secs(5));
            tokio::task::spawn_blocking(stop)
                .await
                .expect("the runtime stops");
        }
        lock(&self.shared.open).clear();
        lock(&self.shared.busy).clear();
    }

    /// Changes how it presents itself, from the next call on.
    pub fn reconfigure(&self, change: impl FnOnce(&mut Options)) {
        change(&mut lock(&self.shared.options));
    }

    /// Makes calls of this RPC fail; replaces an earlier fault of it.
    pub fn fault(&self, method: &str, fault: Fault) {
        lock(&self.shared.faults).set(method, fault);
    }

    /// All calls work again; those that hang go on.
    pub fn clear_faults(&self) {
        lock(&self.shared.faults).clear();
    }

    /// Whether Probe says that it is ready.
    pub fn set_ready(&self, ready: bool) {
        lock(&self.shared.faults).ready = ready;
    }

    /// Every call so far.
    pub fn calls(&self) -> Vec<Call> {
        lock(&self.shared.calls).clone()
    }

    /// How often this RPC was called.
    pub fn count(&self, method: &str) -> usize {
        let calls = lock(&self.shared.calls);
        calls.iter().filter(|c| c.method == method).count()
    }

    /// The rules of CSI that the caller broke.
    pub fn violations(&self) -> Vec<String> {
        lock(&self.shared.violations).clone()
    }

    /// The ids of the volumes that exist.
    pub fn volumes(&self) -> Vec<String> {
        lock(&self.shared.model).volumes.keys().cloned().collect()
    }
}

impl Drop for CsiDriver {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Shared {
    fn options(&self) -> Options {
        lock(&self.options).clone()
    }

    fn violation(&self, text: String) {
        append(
            &self.options().files.violations,
            &json!({ "violation": text }),
        );
        lock(&self.violations).push(text);
    }

    fn arrived(&self, method: &'static str, volume: &str, path: &str) -> u64 {
        let mut calls = lock(&self.calls);
        let seq = calls.len() as u64 + 1;
        calls.push(Call {
            seq,
            method,
            volume: volume.into(),
            path: path.into(),
            code: None,
        });
        let line = json!({ "seq": seq, "method": method, "volume": volume, "path": path });
        append(&self.options().files.calls, &line);
        seq
    }

    fn answered(&self, seq: u64, code: tonic::Code) {
        let code = format!("{code:?}");
        let index = usize::try_from(seq - 1).expect("it counts calls of this process");
        lock(&self.calls)[index].code = Some(code.clone());
        append(
            &self.options().files.calls,
            &json!({ "seq": seq, "code": code }),
        );
    }
}

fn append(file: &Option<PathBuf>, line: &Value) {
    let Some(path) = file else { return };
    // One write a line: readers never see a half one.
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .and_then(|mut f| f.write_all(format!("{line}\n").as_bytes()))
        .unwrap_or_else(|e| panic!("cannot write {}: {e}", path.display()));
}
