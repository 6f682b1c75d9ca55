// SPDX-License-Identifier: Apache-2.0
//! A CSI driver that watches its caller and fails on demand.
//!
//! It serves over a real socket, or over one for a controller and one for each
//! of several nodes; it remembers its volumes over a restart, writes down every
//! call, and notes each rule of CSI that the caller breaks: order, identical
//! retries, one call in flight per volume, contexts handed back unchanged, paths,
//! sizes, secrets, capabilities.

mod backend;
mod chaos;
mod control;
mod fault;
mod flight;
mod fuse_fs;
mod hostile;
mod judge;
mod memory;
mod options;
mod road;
mod server;
mod work;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    fs::OpenOptions,
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
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
use tonic::{Status, transport::Server};

pub use backend::Cleanup;
pub use chaos::Chaos;
pub use control::{Control, FuseOrder};
pub use fault::Fault;
use fault::Faults;
use flight::{OpenCall, Place};
pub use fuse_fs::serve_fuse;
pub use hostile::Hostile;
use memory::Memory;
pub use options::{Backend, Expansion, Files, Options, Secrets, Segments};
use server::{Role, Services};

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
    /// The node id of the socket it came to; empty for the Controller service.
    pub node: String,
    /// The mount flags of its capability.
    pub mount_flags: Vec<String>,
    /// The gRPC code of the answer, such as `Unavailable`; none while there is none.
    pub code: Option<String>,
}

/// A driver that serves until it is stopped or dropped.
pub struct CsiDriver {
    sockets: Vec<Socket>,
    shared: Arc<Shared>,
}

struct Socket {
    path: PathBuf,
    role: Role,
    /// One of its own, so that stopping it cuts every connection and call at
    /// once, as the death of a process does.
    runtime: Option<Runtime>,
}

pub(crate) struct Shared {
    options: Mutex<Options>,
    memory: Mutex<Memory>,
    faults: Mutex<Faults>,
    calls: Mutex<Vec<Call>>,
    violations: Mutex<Vec<String>>,
    /// Messages of abnormal volumes, by id.
    abnormal: Mutex<BTreeMap<String, String>>,
    /// Calls whose caller still waits, by volume.
    open: Mutex<HashMap<String, Vec<Arc<OpenCall>>>>,
    /// Volumes that the driver works on, whether anyone waits or not.
    busy: Mutex<HashSet<(String, Option<Place>)>>,
    /// The nodes of a cluster; none for a driver with one socket.
    nodes: BTreeSet<String>,
    /// How often it was stopped.
    generation: AtomicU64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The program that serves FUSE file systems: `testkit-csi`, built with the
/// workspace, beside the program or the test that runs.
pub fn fuse_server() -> PathBuf {
    let mut directory = std::env::current_exe().expect("a process has a program");
    directory.pop();
    if directory.ends_with("deps") {
        directory.pop();
    }
    directory.join("testkit-csi")
}

impl CsiDriver {
    /// Serves on the socket with [`Options::new`].
    pub async fn start(socket: &Path, backend: Backend) -> Self {
        Self::start_with(socket, Options::new(backend)).await
    }

    /// Serves on the socket.
    pub async fn start_with(socket: &Path, options: Options) -> Self {
        Self::serve(vec![(socket.into(), Role::All)], options).await
    }

    /// Serves as a controller and several nodes over one backend, on the sockets
    /// `controller.sock` and `<node>.sock` of the directory.
    pub async fn start_cluster(directory: &Path, options: Options, nodes: &[&str]) -> Self {
        let nodes = nodes.iter().map(|node| {
            let socket = directory.join(format!("{node}.sock"));
            ((*node).to_owned(), socket)
        });
        let controller = directory.join("controller.sock");
        Self::start_cluster_at(&controller, options, nodes.collect()).await
    }

    /// The same, on any sockets: that of the controller, and that of each node id.
    pub async fn start_cluster_at(
        controller: &Path,
        options: Options,
        nodes: Vec<(String, PathBuf)>,
    ) -> Self {
        let mut sockets = vec![(controller.to_owned(), Role::Controller)];
        let nodes = nodes.into_iter();
        sockets.extend(nodes.map(|(node, socket)| (socket, Role::Node(node))));
        Self::serve(sockets, options).await
    }

    async fn serve(sockets: Vec<(PathBuf, Role)>, options: Options) -> Self {
        let nodes = sockets.iter().filter_map(|(_, role)| match role {
            Role::Node(node) => Some(node.clone()),
            Role::All | Role::Controller => None,
        });
        let shared = Shared {
            memory: Mutex::new(Memory::load(&options.backend)),
            faults: Mutex::new(Faults::new(options.files.control.clone())),
            options: Mutex::new(options),
            calls: Mutex::default(),
            violations: Mutex::default(),
            abnormal: Mutex::default(),
            open: Mutex::default(),
            busy: Mutex::default(),
            nodes: nodes.collect(),
            generation: AtomicU64::new(0),
        };
        let sockets = sockets.into_iter().map(|(path, role)| Socket {
            path,
            role,
            runtime: None,
        });
        let mut driver = Self {
            sockets: sockets.collect(),
            shared: Arc::new(shared),
        };
        driver.start_again().await;
        driver
    }

    /// The socket of the controller, or the only one.
    pub fn socket(&self) -> &Path {
        &self.sockets[0].path
    }

    /// The socket of a node of a cluster.
    pub fn node_socket(&self, node: &str) -> &Path {
        &self.sockets[self.at(node)].path
    }

    fn at(&self, node: &str) -> usize {
        let is = |s: &Socket| matches!(&s.role, Role::Node(n) if n == node);
        let index = self.sockets.iter().position(is);
        index.unwrap_or_else(|| panic!("there is no node {node}"))
    }

    /// Serves again after [`CsiDriver::stop`], with the volumes it had.
    pub async fn start_again(&mut self) {
        for socket in &mut self.sockets {
            socket.start(&self.shared).await;
        }
    }

    /// Serves again on the socket of a node.
    pub async fn start_node(&mut self, node: &str) {
        let index = self.at(node);
        self.sockets[index].start(&self.shared).await;
    }

    /// Stops it as a kill does: no call ends, no connection is closed politely,
    /// the socket files stay.
    pub async fn stop(&mut self) {
        self.shared.generation.fetch_add(1, Ordering::Relaxed);
        for socket in &mut self.sockets {
            socket.stop().await;
        }
        lock(&self.shared.open).clear();
        lock(&self.shared.busy).clear();
    }

    /// Stops the driver of one node of a cluster so.
    pub async fn stop_node(&mut self, node: &str) {
        let index = self.at(node);
        self.sockets[index].stop().await;
        // What it worked on is not worked on any more.
        let here = |place: &Option<Place>| {
            let mut place = place.iter();
            place.any(|p| !p.controller && p.node == node)
        };
        lock(&self.shared.busy).retain(|(_, place)| !here(place));
    }

    /// Changes how it presents itself, from the next call on.
    pub fn reconfigure(&self, change: impl FnOnce(&mut Options)) {
        change(&mut lock(&self.shared.options));
    }

    /// Makes calls of this RPC fail; replaces an earlier fault of it.
    pub fn fault(&self, method: &str, fault: Fault) {
        lock(&self.shared.faults).set(method, fault);
    }

    /// Answers with what no driver should, until it is cleared.
    pub fn hostile(&self, hostile: Hostile) {
        lock(&self.shared.faults).hostile = hostile;
    }

    /// Faults at random for all RPCs that no other fault is set for.
    pub fn chaos(&self, chaos: Chaos) {
        lock(&self.shared.faults).chaos = Some(chaos);
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
        let memory = lock(&self.shared.memory);
        memory.truth.volumes.keys().cloned().collect()
    }

    /// The nodes that a volume really is attached to.
    pub fn attached(&self, volume: &str) -> Vec<String> {
        let memory = lock(&self.shared.memory);
        let volume = memory.truth.volumes.get(volume);
        volume.map_or_else(Vec::new, |v| v.attached.keys().cloned().collect())
    }

    /// The capacity that a volume really has.
    pub fn capacity(&self, volume: &str) -> Option<i64> {
        let memory = lock(&self.shared.memory);
        memory.truth.volumes.get(volume).map(|v| v.capacity)
    }

    /// The group that a volume's files were given to (VOLUME_MOUNT_GROUP).
    pub fn mount_group(&self, volume: &str) -> Option<u32> {
        let memory = lock(&self.shared.memory);
        memory.truth.volumes.get(volume).and_then(|v| v.group)
    }

    /// Makes the condition of a volume abnormal, or well again.
    pub fn set_abnormal(&self, volume: &str, message: Option<&str>) {
        let mut abnormal = lock(&self.shared.abnormal);
        match message {
            Some(message) => abnormal.insert(volume.into(), message.into()),
            None => abnormal.remove(volume),
        };
    }

    /// Loses all knowledge of a volume, but not its files and mounts.
    pub fn forget(&self, volume: &str) {
        self.shared.forget(&[volume.into()]);
    }

    /// Loses all knowledge of all volumes.
    pub fn forget_all(&self) {
        self.shared.forget(&["*".into()]);
    }

    /// The node is gone for good: nothing needs to be unmounted there before
    /// its volumes are detached.
    pub fn fence(&self, node: &str) {
        self.shared.fence(node);
    }

    /// Kills, freezes or thaws the FUSE servers of a volume.
    pub fn fuse(&self, volume: &str, order: FuseOrder) -> io::Result<()> {
        self.shared.fuse(volume, order)
    }
}

impl Drop for CsiDriver {
    fn drop(&mut self) {
        self.shared.generation.fetch_add(1, Ordering::Relaxed);
        for socket in &mut self.sockets {
            if let Some(runtime) = socket.runtime.take() {
                runtime.shutdown_background();
            }
        }
    }
}

impl Socket {
    async fn start(&mut self, shared: &Arc<Shared>) {
        assert!(self.runtime.is_none(), "stop the driver first");
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a thread can be started");
        let services = Services {
            shared: shared.clone(),
            role: self.role.clone(),
        };
        let (listening, heard) = oneshot::channel();
        let path = self.path.clone();
        runtime.spawn(async move {
            let incoming = transport::bind(&path).await.expect("the socket is free");
            let _ = listening.send(());
            let mut server = Server::builder();
            let server = server.add_service(IdentityServer::new(services.clone()));
            let server = match &services.role {
                Role::All => server
                    .add_service(ControllerServer::new(services.clone()))
                    .add_service(NodeServer::new(services)),
                Role::Controller => server.add_service(ControllerServer::new(services)),
                Role::Node(_) => server.add_service(NodeServer::new(services)),
            };
            server.serve_with_incoming(incoming).await
        });
        heard.await.expect("the driver listens");
        self.runtime = Some(runtime);
    }

    async fn stop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            let stop = move || runtime.shutdown_timeout(Duration::from_secs(5));
            tokio::task::spawn_blocking(stop)
                .await
                .expect("the runtime stops");
        }
    }
}

impl Shared {
    fn options(&self) -> Options {
        lock(&self.options).clone()
    }

    fn is_cluster(&self) -> bool {
        !self.nodes.is_empty()
    }

    fn knows_node(&self, node: &str) -> bool {
        self.nodes.is_empty() || self.nodes.contains(node)
    }

    fn generation(&self) -> u64 {
        self.generation.load(Ordering::Relaxed)
    }

    /// Does what the control file says, if it has changed.
    fn read_control(&self) -> Result<(), Status> {
        let Some(control) = lock(&self.faults).read_control()? else {
            return Ok(());
        };
        self.forget(&control.forget);
        for node in &control.fence {
            self.fence(node);
        }
        lock(&self.abnormal).clone_from(&control.abnormal);
        for (volume, order) in &control.fuse {
            self.fuse(volume, *order)
                .map_err(|e| Status::internal(format!("cannot order the FUSE servers: {e}")))?;
        }
        Ok(())
    }

    fn fence(&self, node: &str) {
        let mut memory = lock(&self.memory);
        memory.judge.fence(node);
        for volume in memory.truth.volumes.values_mut() {
            volume.used.retain(|(n, _)| n != node);
        }
    }

    fn forget(&self, volumes: &[String]) {
        let forgotten = |id: &String| volumes.iter().any(|v| v == id || v == "*");
        let mut memory = lock(&self.memory);
        memory.truth.volumes.retain(|id, _| !forgotten(id));
        memory.save(&self.options().backend);
    }

    fn fuse(&self, volume: &str, order: FuseOrder) -> io::Result<()> {
        let name = lock(&self.memory)
            .truth
            .volumes
            .get(volume)
            .map(|v| v.name.clone());
        let name = name.ok_or_else(|| io::Error::other(format!("no volume {volume}")))?;
        backend::fuse_order(&self.options().backend, &name, order)
    }

    fn violation(&self, text: String) {
        append(
            &self.options().files.violations,
            &json!({ "violation": text }),
        );
        lock(&self.violations).push(text);
    }

    fn arrived(&self, call: Call) -> u64 {
        let mut calls = lock(&self.calls);
        let seq = calls.len() as u64 + 1;
        let mut line = json!({
            "seq": seq, "method": call.method, "volume": call.volume, "path": call.path,
            "node": call.node,
        });
        if !call.mount_flags.is_empty() {
            line["mountFlags"] = json!(call.mount_flags);
        }
        calls.push(Call { seq, ..call });
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
