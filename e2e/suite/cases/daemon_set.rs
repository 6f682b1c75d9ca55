// SPDX-License-Identifier: Apache-2.0
//! The node agent and its helper in the containers of the DaemonSet: no privilege but
//! those of the manifest, a root file system with the static program alone.

use std::{
    collections::BTreeMap,
    fs::{self, DirBuilder},
    os::unix::fs::DirBuilderExt,
    path::Path,
};

use actor_volumes::host::privileges::Process;
use testkit::cri::ContainerSpec;

use super::{DATA, create};
use crate::{
    Case,
    bundle::{self, Here},
    canary,
    daemon::{Daemon, until_true},
    driver::Driver,
    leaks,
    manifest::{containers, documents, of_kind},
    node::{Node, SOON},
    site::{DRIVER, Site},
};

const GROUP: i64 = 4242;

pub(crate) fn cases() -> Vec<Case> {
    let name = "the_agent_works_in_the_containers_of_the_daemon_set";
    vec![Case::new(name, Driver::Testkit, works_in_its_containers).without_us()]
}

fn works_in_its_containers(node: &mut Node) {
    let version = node.version.clone();
    let mut site = Site::start(node, &version);
    // In its place, with what it has on disk.
    site.kill_agent(0);
    site.until_state("node-a", "Away");
    let (here, manifest) = arrange(site.a, site.port);
    let run = |node: &Node, process: Process| {
        let name = process.to_string();
        let found = manifest.iter().find(|c| c.name == name);
        bundle::run(node, found.expect("the manifest has it"), &here)
    };
    let helper = run(site.a, Process::Helper);
    let before = site.a.connections();
    let agent = run(site.a, Process::Node);
    site.a.wait_for_plugin(before);
    site.until_state("node-a", "Ready");
    for (daemon, process) in [(&agent, Process::Node), (&helper, Process::Helper)] {
        keeps_its_lines_of_the_table(site.a, daemon, process);
    }

    main_job(&mut site);

    for mut daemon in [agent, helper] {
        let status = daemon.terminate(SOON);
        let name = daemon.name;
        assert!(status.is_some_and(|s| s.success()), "{name}: {status:?}");
        bundle::remove(site.a, &daemon);
    }
    let left = site.finish();
    assert!(left.is_empty(), "left: {left:?}");
}

/// What stands for the paths of the manifest on this node, and its containers.
fn arrange(node: &Node, port: u16) -> (Here, Vec<crate::manifest::Container>) {
    let dir = &node.dir;
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/packaging/kubernetes/actor-volumes.yaml"
    );
    let text = fs::read_to_string(path).expect("the manifest is there");
    let documents = documents(&text);
    let config = &of_kind(&documents, "ConfigMap")["data"]["config.toml"];
    let root = "/var/lib/kubelet/plugins/actor-volumes.dev";
    let own_root = dir.join("m");
    let mut config = config.as_str().expect("it is a text").to_owned();
    for (from, to) in [
        (format!("\"{root}\""), format!("\"{}\"", own_root.display())),
        (
            "actor-volumes.example.com:7443".into(),
            format!("127.0.0.1:{port}"),
        ),
        (
            "[node.control.tls]\n".into(),
            format!(
                "[node.control.tls]\nserver_name = \"{}\"\n",
                crate::site::CONTROL
            ),
        ),
        (
            "name = \"csi.example.com\"".into(),
            format!("name = \"{DRIVER}\""),
        ),
        ("[node]\n".into(), format!("[node]\n{SUITE}")),
    ] {
        assert!(config.contains(&from), "{from} is not in the ConfigMap");
        config = config.replace(&from, &to);
    }
    let config_dir = dir.join("config-map");
    DirBuilder::new().create(&config_dir).expect("it is new");
    fs::write(config_dir.join("config.toml"), config).expect("it takes files");

    // Sockets by the names that they have in the manifest.
    let nri = crate::node::nri_socket(dir);
    let links = [
        ("containerd", "containerd.sock", dir.join("c.sock")),
        ("nri", "nri.sock", nri),
        ("driver", "csi.sock", dir.join("csi.sock")),
    ];
    let sockets = dir.join("sockets");
    for (name, file, socket) in links {
        let at = sockets.join(name);
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&at)
            .expect("it is new");
        fs::hard_link(&socket, at.join(file)).expect("a socket can have two names");
    }
    let paths = [
        ("/etc/actor-volumes/tls", dir.join("tls")),
        ("/var/lib/actor-volumes", dir.join("av")),
        ("/run/actor-volumes", dir.join("agent")),
        (root, own_root.clone()),
        ("/run/containerd", sockets.join("containerd")),
        ("/var/run/nri", sockets.join("nri")),
        (
            "/var/lib/kubelet/plugins/csi.example.com",
            sockets.join("driver"),
        ),
    ];
    let here = Here {
        paths: paths.map(|(theirs, ours)| (theirs.to_owned(), ours)).into(),
        objects: BTreeMap::from([
            ("actor-volumes-node".to_owned(), config_dir),
            (
                "actor-volumes-storage-creds".to_owned(),
                dir.join("secrets/storage/creds"),
            ),
        ]),
        fields: BTreeMap::from([("$spec.nodeName".to_owned(), "node-a".to_owned())]),
        mount_root: (root.to_owned(), own_root),
    };
    (here, containers(&documents))
}

/// What every node of the suite has.
const SUITE: &str =
    "trusted_namespaces = [\"agents\"]\nmember_grace_ms = 1000\nsweep_interval_s = 1\n";

/// Also where the container is privileged.
fn keeps_its_lines_of_the_table(node: &Node, daemon: &Daemon, process: Process) {
    let status = format!("/proc/{}/status", bundle::pid(node, daemon));
    let kept = format!("{:016x}", process.capabilities(false).bits());
    let shows = |name: &str, value: &str| {
        let text = fs::read_to_string(&status).unwrap_or_default();
        text.lines().any(|l| l == format!("{name}:\t{value}"))
    };
    until_true(&format!("{process} has its filter"), SOON, || {
        shows("Seccomp", "2")
    });
    for name in ["CapPrm", "CapEff", "CapBnd"] {
        assert!(shows(name, &kept), "{process}: {name} is not {kept}");
    }
    assert!(shows("NoNewPrivs", "1"), "{process}");
    let root = Path::new(&status).with_file_name("root");
    let files = fs::read_dir(root)
        .expect("its root can be listed")
        .flatten();
    let files = files.filter(|f| f.file_type().is_ok_and(|t| t.is_file()));
    assert_eq!(files.count(), 1, "the program alone");
}

/// An actor has its volume, its data outlasts a suspend, and nothing is left.
fn main_job(site: &mut Site<'_>) {
    site.a.apply(
        "storageclass",
        &format!(
            "apiVersion: storage.k8s.io/v1\nkind: StorageClass\nmetadata:\n  name: fast\n\
             provisioner: {DRIVER}\n{}",
            canary::parameters()
        ),
    );
    // With a group, so that the helper has something to do.
    site.a.apply(
        "template",
        &format!(
            "kind: ActorTemplate\nmetadata:\n  name: group\nspec:\n  containers:\n  \
             - name: agent\n    volumeMounts:\n    - name: vol1\n      mountPath: {DATA}\n  \
             volumes:\n  - name: vol1\n    externalVolumeTemplate:\n      capacity: 64Mi\n      \
             storageClassName: fast\n      fsGroup: {GROUP}\n"
        ),
    );
    create(site.a, "a", "group");
    for (write, read) in [
        ("echo 1 > /my-data/f", "1"),
        ("echo 2 >> /my-data/f", "1\n2"),
    ] {
        let annotations = site.a.resume_with("a", &["--node", "node-a"]);
        let pod = site.a.run_pod(&annotations);
        let spec = ContainerSpec::idle("agent").as_user(1000, GROUP);
        let agent = site.a.run(&pod, &spec);
        site.a.sh(&agent, write);
        assert_eq!(site.a.sh(&agent, "cat /my-data/f"), read);
        site.a.remove_pod(&pod);
        site.a.suspend("a");
        assert_eq!(site.a.held_mounts(), [""; 0]);
    }
    site.a.delete("a");
    // No deletion waits for a node: it is told to forget afterwards.
    let records = site.a.dir.join("av/records");
    until_true("the node has forgotten the volume", SOON, || {
        leaks::entries(&records).is_empty()
    });
}
