// SPDX-License-Identifier: Apache-2.0
//! What is refused without an answer of the node agent.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use actor_volumes::api::annotation;
use rustix::process::{Pid, Signal, kill_process_group};

use crate::bundle::{Place, bind, config};

const ATTACHMENTS: &str = r#"{"version":1,"actor":{"namespace":"agents","name":"a","uid":"u1"},"node":"n","audience":{"kind":"pod","namespace":"agents"},"volumes":[{"name":"vol1","uid":"v1","generation":1,"driver":"d.test","volumeId":"x","volumeMode":"Filesystem","accessMode":"SINGLE_NODE_SINGLE_WRITER"}],"mounts":[{"container":"agent","volume":"vol1","mountPath":"/my-data"}]}"#;

fn annotations() -> BTreeMap<String, String> {
    [
        (annotation::ACTOR, "agents/a"),
        (annotation::ATTACHMENTS, ATTACHMENTS),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .into()
}

/// The container `agent` with something at the volume's place.
fn with_a_mount(place: &Place) {
    let mount = bind("/my-data", Path::new("/tmp"), &["rbind", "rw"]);
    place.write_config(&config("s1", "agent", &annotations(), &[mount]));
}

#[test]
fn a_container_without_the_mount_is_refused_and_may_be_retried() {
    let place = Place::new();
    place.write_config(&config("s1", "agent", &annotations(), &[]));
    place
        .create("c1")
        .is_refused("/my-data was not given to it");
    place.create("c1").is_refused("retry");
    assert!(!place.path("bundle/init.pid").exists());
    // A container of the same pod that needs none is none of our business.
    place.write_config(&config("s1", "sidecar", &annotations(), &[]));
    place.create("c2").is_made();
}

#[test]
fn a_mount_at_the_right_place_is_not_enough_while_the_agent_is_away() {
    let place = Place::new();
    with_a_mount(&place);
    place.create("c1").is_refused("none.sock");
    place.create("c1").is_refused("retry");
}

#[test]
fn what_cannot_be_read_is_not_made() {
    let place = Place::new();
    let mut broken = annotations();
    broken.insert(annotation::ATTACHMENTS.into(), "{\"version\":".into());
    place.write_config(&config("s1", "agent", &broken, &[]));
    place.create("c1").is_refused(annotation::ATTACHMENTS);

    let mut other = annotations();
    other.insert("actor-volumes.dev/other".into(), "x".into());
    place.write_config(&config("s1", "agent", &other, &[]));
    place.create("c1").is_refused("actor-volumes.dev/other");

    let huge = fs::File::create(place.path("bundle/config.json")).unwrap();
    huge.set_len(1 << 30).unwrap();
    place.create("c1").is_refused("more than");
    fs::write(place.path("bundle/config.json"), "{").unwrap();
    place.create("c1").is_refused("config.json");
    fs::remove_file(place.path("bundle/config.json")).unwrap();
    place.create("c1").is_refused("config.json");
}

/// A daemon that serves and has no volume.
struct Daemon(Child);

impl Daemon {
    fn start(place: &Place) -> Self {
        let dir = place.dir.path().display();
        let text = format!(
            "[node]\nname = \"n\"\nstate_dir = \"{dir}/av\"\nrun_dir = \"{dir}\"\nmount_root = \"{dir}/m\"\ntrusted_namespaces = [\"agents\"]\n\
             [runtime]\nnri_socket = \"{dir}/nri/nri.sock\"\ncri_socket = \"{dir}/cri.sock\"\n"
        );
        let config = place.path("serve.toml");
        fs::write(&config, text).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_actor-volumes"));
        command.args(["serve", "--config"]).arg(&config);
        let daemon = Self(
            command
                .process_group(0)
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap(),
        );
        let end = Instant::now() + Duration::from_secs(30);
        let socket = place.path("actor-volumes.sock");
        let is_ready = || {
            let mut listing = Command::new(env!("CARGO_BIN_EXE_actor-volumes"));
            listing
                .args(["node", "ls"])
                .env("ACTOR_VOLUMES_SOCKET", &socket);
            let listed = listing.output().unwrap();
            String::from_utf8_lossy(&listed.stdout).contains("Ready")
        };
        while !is_ready() {
            assert!(Instant::now() < end, "the daemon is not ready");
            std::thread::sleep(Duration::from_millis(20));
        }
        daemon
    }

    /// To all its processes.
    fn signal(&self, signal: Signal) {
        kill_process_group(Pid::from_child(&self.0), signal).unwrap();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn an_agent_that_hangs_is_not_waited_for_beyond_the_deadline() {
    let place = Place::new();
    with_a_mount(&place);
    let daemon = Daemon::start(&place);
    // At first it may have had no word of the control plane.
    place.configure(&place.path("agent.sock"), 20_000);
    let started = Instant::now();
    while place.create("c1").stderr().contains("has had no word") {
        assert!(started.elapsed() < Duration::from_secs(20));
    }
    // It answers, and knows of no such grant: also by the control plane's socket, which
    // a configuration may name.
    for socket in ["actor-volumes.sock", "agent.sock"] {
        place.configure(&place.path(socket), 20_000);
        place.create("c1").is_refused("the actor is not resumed");
    }
    daemon.signal(Signal::STOP);
    place.configure(&place.path("agent.sock"), 300);
    place.create("c1").is_refused("did not answer within 300ms");
    place.create("c1").is_refused("retry");
    daemon.signal(Signal::CONT);
    place.configure(&place.path("agent.sock"), 20_000);
    place.create("c1").is_refused("the actor is not resumed");
}
