// SPDX-License-Identifier: Apache-2.0
//! A control plane and two nodes of it, each with a containerd of its own, and
//! one driver over one backend: what it has attached to one node, the other does
//! not get.

use std::{fs, net::TcpListener, path::Path, time::Duration};

use crate::{
    authority::Authority,
    canary,
    daemon::{Daemon, until_true},
    driver,
    node::{Node, Options, SOON, guard_table, nri_socket},
    setup::{actor_volumes, testkit},
};

pub(crate) const DRIVER: &str = "testkit.actor-volumes.dev";

/// The name in the control plane's certificate.
pub(crate) const CONTROL: &str = "control.example";

/// The two nodes, `node-a` and `node-b`; the control plane and the driver live
/// in the directory of the first.
pub(crate) struct Site<'n> {
    pub(crate) a: &'n mut Node,
    pub(crate) b: Node,
    agents: [Option<Daemon>; 2],
    control: Daemon,
    driver: Daemon,
    pub(crate) port: u16,
}

impl<'n> Site<'n> {
    /// Over a node where nothing of ours runs yet, and a second one with this
    /// version of containerd.
    pub(crate) fn start(a: &'n mut Node, version: &str) -> Self {
        let b = Node::start(
            version,
            Options {
                driver: None,
                ..a.options
            },
        );
        let dir = a.dir.clone();
        let mut command = testkit("testkit-csi");
        command.args(["--name", DRIVER, "--attach", "--controller"]);
        command.arg(dir.join("csi-controller.sock"));
        for (name, node) in [("node-a", &*a), ("node-b", &b)] {
            let socket = node.dir.join("csi.sock");
            command
                .arg("--node")
                .arg(format!("{name}={}", socket.display()));
        }
        command.arg("--root").arg(dir.join("backend"));
        canary::expected(&mut command);
        let driver = Daemon::start("csi-driver", &mut command, &a.log("csi-driver"));
        until_true("the CSI driver has its sockets", SOON, || {
            dir.join("csi-controller.sock").exists() && b.dir.join("csi.sock").exists()
        });

        let authority = Authority::new();
        for (at, name) in [
            (dir.join("tls-control"), CONTROL),
            (dir.join("tls"), "node-a"),
            (b.dir.join("tls"), "node-b"),
        ] {
            authority.files(&at, name, &authority);
        }
        let port = free_port();
        let at = dir.display();
        let config = format!(
            "{secrets}[log]\nfilter = \"trace\"\n[node]\nname = \"control\"\nstate_dir = \"{at}/control\"\nrun_dir = \"{at}/run\"\n\
             mount_root = \"{at}/no-mounts\"\n\
             [control]\nlisten = \"127.0.0.1:{port}\"\n\
             [control.tls]\nca = \"{at}/tls-control/ca.crt\"\n\
             cert = \"{at}/tls-control/tls.crt\"\nkey = \"{at}/tls-control/tls.key\"\n\
             [[driver]]\nname = \"{DRIVER}\"\n\
             controller_endpoint = \"unix://{at}/csi-controller.sock\"\n",
            secrets = canary::secrets(&dir),
        );
        let file = dir.join("control.toml");
        fs::write(&file, config).expect("the node's directory takes files");
        let mut command = actor_volumes();
        command.args(["control", "--config"]).arg(&file);
        let control = Daemon::start("control", &mut command, &a.log("control"));
        until_true("actor-volumes control answers", SOON, || {
            a.av(&["actor", "ls"]).is_ok()
        });
        let mut site = Self {
            a,
            b,
            agents: [None, None],
            control,
            driver,
            port,
        };
        site.start_agent(0);
        site.start_agent(1);
        for name in ["node-a", "node-b"] {
            site.until_state(name, "Ready");
        }
        site
    }

    fn host(&self, number: usize) -> &Node {
        if number == 0 { self.a } else { &self.b }
    }

    /// Starts the agent of `node-a` (0) or `node-b` (1).
    pub(crate) fn start_agent(&mut self, number: usize) {
        let (host, name) = (self.host(number), ["node-a", "node-b"][number]);
        let (at, port) = (host.dir.display(), self.port);
        let config = format!(
            "{secrets}[node]\nname = \"{name}\"\nstate_dir = \"{at}/av\"\nrun_dir = \"{at}/agent\"\n\
             mount_root = \"{at}/m\"\n\
             member_grace_ms = 1000\nsweep_interval_s = 1\n\
             [node.control]\nendpoint = \"https://127.0.0.1:{port}\"\n\
             [node.control.tls]\nca = \"{at}/tls/ca.crt\"\ncert = \"{at}/tls/tls.crt\"\n\
             key = \"{at}/tls/tls.key\"\nserver_name = \"{CONTROL}\"\n\
             [runtime]\nnri_socket = \"{nri}\"\ncri_socket = \"{at}/c.sock\"\n\
             [log]\nfilter = \"trace\"\n\
             [[driver]]\nname = \"{DRIVER}\"\nendpoint = \"unix://{at}/csi.sock\"\n",
            nri = nri_socket(&host.dir).display(),
            secrets = canary::secrets(&host.dir),
        );
        let file = host.dir.join("agent.toml");
        fs::write(&file, config).expect("the node's directory takes files");
        // Where the guard looks, if the node has one.
        let guard = guard_table(host.options.runc, &host.dir)
            + &format!("socket = \"{at}/agent/actor-volumes.sock\"\n");
        fs::write(host.dir.join("config.toml"), guard).expect("the node's directory takes files");
        let before = host.connections();
        let mut command = actor_volumes();
        command.args(["node", "--config"]).arg(&file);
        let agent = Daemon::start("node", &mut command, &host.log("node"));
        host.wait_for_plugin(before);
        self.agents[number] = Some(agent);
    }

    /// Ends an agent as a crash would: the control plane hears no more of it.
    pub(crate) fn kill_agent(&mut self, number: usize) {
        self.agents[number] = None;
    }

    /// Waits until the control plane says so of a node.
    pub(crate) fn until_state(&self, node: &str, state: &str) {
        until_true(
            &format!("{node} is {state}"),
            Duration::from_secs(60),
            || {
                let shown = self.a.av(&["node", "show", node, "-o", "json"]);
                let shown: serde_json::Value =
                    serde_json::from_str(&shown.unwrap_or_default()).unwrap_or_default();
                shown["state"] == state
            },
        );
    }

    /// Ends everything in order, and says what was left.
    pub(crate) fn finish(self) -> Vec<String> {
        let mut left = driver::violations(&self.a.dir);
        for node in [&*self.a, &self.b] {
            left.extend(node.held());
        }
        left.extend(volumes(&self.a.dir));
        for mut daemon in self.agents.into_iter().flatten().chain([self.control]) {
            if !daemon.terminate(SOON).is_some_and(|s| s.success()) {
                left.push(format!("{} did not end well on SIGTERM", daemon.name));
            }
        }
        drop(self.driver);
        left.extend(self.b.finish());
        left
    }
}

/// What the driver's backend holds.
fn volumes(dir: &Path) -> Vec<String> {
    let volumes = crate::leaks::entries(&dir.join("backend/volumes"));
    let name = |v| format!("in the driver's backend: {v}");
    volumes.into_iter().map(name).collect()
}

/// A port of this host that nobody listens on.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
    listener.local_addr().expect("it is bound").port()
}
