// SPDX-License-Identifier: Apache-2.0
//! What packaging/ has says the same as the table of privileges, everywhere.

#![allow(clippy::unwrap_used)]

mod manifest;
mod unit;

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use actor_volumes::{
    config::Config,
    host::{
        privileges::{Process, names},
        seccomp,
    },
};
use manifest::{Container, Source, containers, documents, of_kind};
use unit::Unit;

const PACKAGING: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/packaging");

/// Each unit, and what it starts.
const UNITS: [(&str, Process); 4] = [
    ("actor-volumes", Process::Serve),
    ("actor-volumes-control", Process::Control),
    ("actor-volumes-node", Process::Node),
    ("actor-volumes-helper", Process::Helper),
];

/// What gives a unit a mount namespace of its own.
const OWN_MOUNTS: [&str; 18] = [
    "BindPaths",
    "BindReadOnlyPaths",
    "InaccessiblePaths",
    "MountAPIVFS",
    "MountFlags",
    "PrivateDevices",
    "PrivateMounts",
    "PrivateTmp",
    "ProtectControlGroups",
    "ProtectHome",
    "ProtectKernelLogs",
    "ProtectKernelModules",
    "ProtectKernelTunables",
    "ProtectProc",
    "ProtectSystem",
    "ReadOnlyPaths",
    "ReadWritePaths",
    "TemporaryFileSystem",
];

fn unit(name: &str) -> Unit {
    Unit::read(&format!("{PACKAGING}/systemd/{name}.service"))
}

fn set<T: Ord>(items: impl IntoIterator<Item = T>) -> BTreeSet<T> {
    items.into_iter().collect()
}

fn of_table(process: Process) -> BTreeSet<String> {
    set(names(process.capabilities(false)))
}

fn yaml() -> String {
    let path = format!("{PACKAGING}/kubernetes/actor-volumes.yaml");
    fs::read_to_string(path).unwrap()
}

/// The container that runs this process.
fn container(process: Process) -> Container {
    let name = process.to_string();
    let mut found = containers(&documents(&yaml())).into_iter();
    found.find(|c| c.name == name).unwrap()
}

#[test]
fn a_unit_gives_its_process_what_the_table_says() {
    for (name, process) in UNITS {
        let unit = unit(name);
        let started = unit.one("ExecStart").unwrap();
        let subcommand = started.split_whitespace().nth(1).unwrap();
        assert_eq!(subcommand, process.to_string(), "{name}");
        let bounding = unit.words("CapabilityBoundingSet").unwrap();
        let bounding = set(bounding.into_iter().map(str::to_owned));
        assert_eq!(bounding, of_table(process), "{name}");
        assert_eq!(unit.one("NoNewPrivileges"), Some("yes"), "{name}");
        assert_eq!(
            unit.one("SystemCallArchitectures"),
            Some("native"),
            "{name}"
        );
        assert_eq!(unit.one("SystemCallErrorNumber"), Some("ENOSYS"), "{name}");
        // Namespaces, and with them all that they open to an attacker.
        assert_eq!(unit.one("RestrictNamespaces"), Some("yes"), "{name}");
    }
}

#[test]
fn who_mounts_for_the_host_stays_in_its_mount_namespace() {
    for (name, process) in UNITS {
        let found = unit(name).has_any(&OWN_MOUNTS);
        let for_the_host = matches!(process, Process::Serve | Process::Helper);
        assert_eq!(found.is_none(), for_the_host, "{name}: {found:?}");
    }
    // It sets the setgid bit of directories.
    for name in ["actor-volumes", "actor-volumes-helper"] {
        assert_eq!(unit(name).has_any(&["RestrictSUIDSGID"]), None, "{name}");
    }
    // The agent has to see all processes, and unmounts as they happen.
    let agent = unit("actor-volumes-node");
    assert_eq!(
        agent.has_any(&["ProtectProc", "ProcSubset", "PrivatePIDs"]),
        None
    );
    assert_eq!(agent.one("MountFlags"), Some("slave"));
}

#[test]
fn a_unit_lets_its_process_make_its_system_calls() {
    if let Some(why) = no_systemd() {
        return skip("systemd units", why);
    }
    for (name, process) in UNITS {
        let unit = unit(name);
        let mut allowed = BTreeSet::new();
        for word in unit.words("SystemCallFilter").unwrap() {
            allow(word, &mut allowed);
        }
        // What runs before our filter does.
        allow("@default", &mut allowed);
        let of_process = seccomp::calls(process).unwrap();
        let refused: Vec<_> = of_process
            .iter()
            .filter(|c| !allowed.contains(**c))
            .collect();
        assert!(refused.is_empty(), "{name} refuses {refused:?}");
    }
}

/// Adds a call, or the calls of a group.
fn allow(word: &str, allowed: &mut BTreeSet<String>) {
    if !word.starts_with('@') {
        allowed.insert(word.into());
        return;
    }
    let output = Command::new("systemd-analyze")
        .args(["syscall-filter", word])
        .output()
        .unwrap();
    assert!(output.status.success(), "{word}: {output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    for line in text.lines().skip(1).map(str::trim) {
        if !line.is_empty() && !line.starts_with('#') {
            allow(line, allowed);
        }
    }
}

#[test]
fn systemd_takes_every_unit() {
    if let Some(why) = no_systemd() {
        return skip("systemd units", why);
    }
    let dir = tempfile::tempdir().unwrap();
    for (name, _) in UNITS {
        let file = format!("{name}.service");
        let text = fs::read_to_string(format!("{PACKAGING}/systemd/{file}")).unwrap();
        // It looks whether the program is there.
        let text = text.replace(
            "/usr/bin/actor-volumes",
            env!("CARGO_BIN_EXE_actor-volumes"),
        );
        fs::write(dir.path().join(file), text).unwrap();
    }
    let files = UNITS.map(|(name, _)| dir.path().join(format!("{name}.service")));
    let output = Command::new("systemd-analyze")
        .arg("verify")
        .args(files)
        .output()
        .unwrap();
    // It tells of keys that it does not know, and ends well.
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{said}");
}

fn no_systemd() -> Option<&'static str> {
    let there = Command::new("systemd-analyze").arg("--version").output();
    there.is_err().then_some("systemd-analyze is not installed")
}

/// As the scripts count skips.
fn skip(name: &str, why: &str) {
    use std::io::Write;
    let file = std::env::var_os("AV_SKIPS").map(|file| {
        let mut options = fs::File::options();
        options.append(true).create(true).open(file).unwrap()
    });
    if let Some(mut file) = file {
        writeln!(file, "skip {name}: {why}").unwrap();
    }
}

#[test]
fn the_daemon_set_gives_the_agent_what_the_unit_gives_it() {
    let agent = container(Process::Node);
    let unit = unit("actor-volumes-node");
    let added = set(agent.capabilities.iter().map(|c| format!("CAP_{c}")));
    assert_eq!(added, of_table(Process::Node));
    assert!(!agent.privileged && agent.no_new_privileges);
    assert_eq!(agent.user, 0);
    assert_eq!(agent.seccomp.as_deref(), Some("RuntimeDefault"));
    // Read-only but for the same three directories.
    assert!(agent.read_only_root);
    assert_eq!(unit.one("ProtectSystem"), Some("strict"));
    let writable = agent.mounts.iter().filter(|m| !m.read_only);
    let in_cluster: Vec<_> = writable.map(|m| m.at.as_str()).collect();
    let config = Config::parse(&config_text()).unwrap();
    let node = &config.node;
    let dirs = [&node.state_dir, &node.run_dir, &node.mount_root];
    assert_eq!(in_cluster, dirs.map(|d| d.to_str().unwrap()));
    let host = Config::default().node;
    let of_unit = |key, parent: &str| {
        let words = unit.words(key).unwrap().into_iter();
        let dirs: Vec<_> = words.map(|d| Path::new(parent).join(d)).collect();
        dirs
    };
    assert_eq!(
        of_unit("StateDirectory", "/var/lib"),
        [host.state_dir, host.mount_root]
    );
    assert_eq!(of_unit("RuntimeDirectory", "/run"), [host.run_dir]);
    // The same command, but for the name, which a host has by itself.
    let words = unit.one("ExecStart").unwrap().split_whitespace();
    let words: Vec<_> = words.skip(1).collect();
    let arguments: Vec<_> = agent.command.iter().skip(1).map(String::as_str).collect();
    let name = arguments.iter().position(|a| *a == "--name").unwrap();
    assert_eq!([&arguments[..name], &arguments[name + 2..]].concat(), words);
    let named = ("NODE_NAME".to_owned(), "$spec.nodeName".to_owned());
    assert!(agent.env.contains(&named) && arguments[name + 1] == "$(NODE_NAME)");
}

#[test]
fn the_daemon_set_gives_the_helper_what_it_says() {
    let helper = container(Process::Helper);
    // Kubernetes takes Bidirectional from nobody else.
    let back = helper
        .mounts
        .iter()
        .filter(|m| m.propagation == "Bidirectional");
    assert_eq!(back.count(), 1);
    assert!(helper.privileged && helper.read_only_root);
    let words = unit("actor-volumes-helper");
    let words = words.one("ExecStart").unwrap().split_whitespace().skip(1);
    assert!(helper.command.iter().skip(1).eq(words));
    for other in containers(&documents(&yaml())) {
        let mounts = other.mounts.iter();
        let back = mounts.filter(|m| m.propagation == "Bidirectional").count();
        assert_eq!(back > 0, other.privileged, "{}", other.name);
        assert_eq!(other.privileged, other.name == "helper");
    }
}

fn config_text() -> String {
    let documents = documents(&yaml());
    let text = &of_kind(&documents, "ConfigMap")["data"]["config.toml"];
    text.as_str().unwrap().to_owned()
}

#[test]
fn every_path_of_the_configuration_is_mounted_where_it_is_on_the_host() {
    let config = Config::parse(&config_text()).unwrap();
    let control = config.node.control.as_ref().unwrap();
    let driver = config.driver[0].socket().unwrap().unwrap();
    let agent = container(Process::Node);
    let mount_of = |path: &Path| {
        let mut mounts = agent.mounts.iter();
        mounts
            .find(|m| path.starts_with(&m.at))
            .unwrap_or_else(|| panic!("{}", path.display()))
    };
    for (path, propagation) in [
        (&config.node.state_dir, "None"),
        (&config.node.run_dir, "None"),
        (&config.node.mount_root, "HostToContainer"),
        (&config.runtime.cri_socket, "HostToContainer"),
        (&config.runtime.nri_socket, "None"),
        (&driver, "None"),
    ] {
        let mount = mount_of(path);
        assert_eq!(mount.source, Source::HostPath(mount.at.clone()));
        assert_eq!(mount.propagation, propagation, "{}", path.display());
    }
    let tls = control.tls.as_ref().unwrap();
    // As a kubelet writes it, in octal; of a file that others may read nothing is taken.
    assert!(yaml().contains("defaultMode: 0400\n"));
    let secrets = config.secrets.dir.unwrap();
    let of_secrets = |m: &&manifest::Mount| matches!(m.source, Source::Secret(_));
    for mount in agent.mounts.iter().filter(of_secrets) {
        // <dir>/<namespace>/<name>
        let below = Path::new(&mount.at).strip_prefix(&secrets).unwrap();
        assert!(mount.read_only && below.components().count() == 2);
    }
    for file in [&tls.ca, &tls.cert, &tls.key] {
        assert!(mount_of(file).read_only);
    }
    let helper = container(Process::Helper);
    for mount in &helper.mounts {
        let mut of_agent = agent.mounts.iter().filter(|m| m.source == mount.source);
        assert_eq!(of_agent.next().map(|m| &m.at), Some(&mount.at));
    }
}

#[test]
fn nothing_of_the_cluster_is_open_to_the_agent() {
    let documents = documents(&yaml());
    let kinds = set(documents.iter().map(|d| d["kind"].as_str().unwrap()));
    let known = ["ConfigMap", "DaemonSet", "Namespace", "ServiceAccount"];
    assert_eq!(kinds, set(known), "no role, and no binding of one");
    let account = of_kind(&documents, "ServiceAccount");
    assert_eq!(account["automountServiceAccountToken"], false);
    let pod = &of_kind(&documents, "DaemonSet")["spec"]["template"]["spec"];
    assert_eq!(pod["automountServiceAccountToken"], false);
    assert_eq!(pod["serviceAccountName"], account["metadata"]["name"]);
    assert_eq!(pod["hostPID"], true);
    assert!(pod["hostNetwork"].is_null() && pod["hostIPC"].is_null());
}
