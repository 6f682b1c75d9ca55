// SPDX-License-Identifier: Apache-2.0
//! Volumes for containers that run already.

use std::{
    fs,
    process::{Command, Output, Stdio},
};

use actor_volumes::proto::api::Door;
use serde_json::Value;

use crate::{
    bundle::{PROGRAM, Place, annotations},
    runtimes::{Runtime, all, runc, tool},
};

/// A container that sleeps, and has nothing of ours.
struct Pool<'a> {
    place: Place,
    runtime: &'a Runtime,
    id: String,
    pid: u64,
}

impl<'a> Pool<'a> {
    fn new(runtime: &'a Runtime, prepare: impl FnOnce(&mut Place)) -> Self {
        let mut place = Place::new();
        place.does("exec busybox sleep 600");
        prepare(&mut place);
        let (id, mut child) = place.create(runtime);
        let said = || fs::read_to_string(place.path("errors")).unwrap();
        assert!(child.wait().unwrap().success(), "{}", said());
        let started = place.runtime(runtime, &["start", &id]);
        assert!(started.status.success(), "{started:?}");
        let state = place.runtime(runtime, &["state", &id]);
        let state: Value = serde_json::from_slice(&state.stdout).unwrap();
        Self {
            pid: state["pid"].as_u64().unwrap(),
            place,
            runtime,
            id,
        }
    }

    fn verb(&self, verb: &str, more: &[&str]) -> Output {
        let mut command = Command::new(PROGRAM);
        command.args([verb, &self.id, "--config"]);
        command.arg(self.place.path("config.toml"));
        // crun wants a namespace of its own; so its process is told.
        if self.runtime.name == "crun" {
            command.args(["--pid", &self.pid.to_string(), "--bundle"]);
            command.arg(self.place.path("bundle"));
        } else {
            command.arg("--runtime").arg(&self.runtime.program);
            command.arg("--root").arg(self.place.path("state"));
        }
        command.args(more).stdin(Stdio::null()).output().unwrap()
    }

    fn bind(&self, mounts: &[(&str, &str, bool)]) -> Output {
        let file = self.place.path("granted.json");
        let granted = serde_json::to_string(&annotations(mounts)).unwrap();
        fs::write(&file, granted).unwrap();
        self.verb("bind", &["--annotations", file.to_str().unwrap()])
    }

    /// What a shell in it prints.
    fn sh(&self, script: &str) -> String {
        let words = ["exec", &self.id, "/bin/busybox", "sh", "-c", script];
        let output = self.place.runtime(self.runtime, &words);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }
}

impl Drop for Pool<'_> {
    fn drop(&mut self) {
        self.place
            .runtime(self.runtime, &["delete", "--force", &self.id]);
    }
}

fn fails(output: &Output, why: &str) {
    assert!(!output.status.success(), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains(why), "{why:?} in {said}");
}

fn done(output: &Output) {
    assert!(output.status.success(), "{output:?}");
}

const TWO: &[(&str, &str, bool)] = &[
    ("vol1", "/my-data", false),
    ("vol2", "/my-data/in/it", true),
];

#[test]
#[ignore = "needs root: it runs containers"]
fn a_container_that_runs_gets_its_volumes_and_gives_them_back() {
    for runtime in all() {
        let pool = Pool::new(runtime, |_| {});
        let place = &pool.place;
        fs::write(place.agent.volume("vol2").join("g"), "there").unwrap();
        done(&pool.bind(TWO));
        assert_eq!(
            pool.sh("echo x > /my-data/f; cat /my-data/in/it/g"),
            "there"
        );
        assert_eq!(
            pool.sh("echo x 2>/dev/null > /my-data/in/it/h || echo no"),
            "no"
        );
        // Once more: it joins, and mounts nothing a second time.
        done(&pool.bind(TWO));
        assert_eq!(pool.sh("busybox mount | busybox grep -c my-data"), "2");
        let scene = place.agent.scene();
        assert!(scene.given.iter().all(|g| g.door() == Door::Bind));
        assert_eq!(u64::from(scene.given[0].process.unwrap().pid), pool.pid);
        assert!(scene.released.is_empty());
        drop(scene);

        // While it is in use nothing changes.
        pool.sh(
            "(cd /my-data; while [ ! -e /stop ]; do busybox sleep 0.02; done) >/dev/null 2>&1 &",
        );
        fails(&pool.verb("unbind", &[]), "in use");
        assert_eq!(pool.sh("cat /my-data/in/it/g /my-data/f"), "therex");
        assert_eq!(
            pool.sh("echo x 2>/dev/null > /my-data/in/it/h || echo no"),
            "no"
        );
        assert!(place.agent.scene().released.is_empty());
        pool.sh("echo > /stop");
        let mut unbound = pool.verb("unbind", &[]);
        while String::from_utf8_lossy(&unbound.stderr).contains("in use") {
            unbound = pool.verb("unbind", &[]);
        }
        done(&unbound);
        assert_eq!(pool.sh("busybox ls /my-data"), "");
        let scene = place.agent.scene();
        assert_eq!(scene.released.last().unwrap().container_id, pool.id);
        drop(scene);
        let volume = place.agent.volume("vol1");
        assert_eq!(fs::read_to_string(volume.join("f")).unwrap(), "x\n");
        // Another actor's turn.
        done(&pool.bind(&[("vol3", "/my-data", false)]));
        assert_eq!(pool.sh("busybox ls /my-data"), "");
        place.is_clean();
    }
}

#[test]
#[ignore = "needs root: it runs containers"]
fn owners_are_mapped_and_what_the_specification_mounts_stays() {
    let pool = Pool::new(runc(), |place| {
        let volume = place.agent.volume("of-spec");
        let at = place.path("m/of-spec");
        fs::create_dir_all(&at).unwrap();
        actor_volumes::host::mount::bind(&volume, &at, false).unwrap();
        let mounts = place.config["mounts"].as_array_mut().unwrap();
        mounts.push(
            serde_json::json!({"destination": "/of-spec", "type": "bind",
            "source": at, "options": ["rbind", "rprivate"]}),
        );
        place.maps_users();
    });
    done(&pool.bind(&[("vol1", "/my-data", false)]));
    assert_eq!(pool.sh("busybox stat -c %u /my-data"), "0");
    done(&pool.verb("unbind", &[]));
    assert_eq!(
        pool.sh("busybox mount | busybox grep -c -e my-data -e of-spec"),
        "1"
    );
    assert!(pool.sh("busybox mount").contains("/of-spec"));
}

#[test]
#[ignore = "needs root: it runs containers"]
fn a_volume_that_cannot_be_bound_leaves_the_container_as_it_was() {
    let pool = Pool::new(runc(), |_| {});
    pool.place.agent.volume("vol1");
    // The second has no place.
    let refused = pool.bind(&[("vol1", "/my-data", false), ("vol2", "/proc/x", false)]);
    fails(&refused, "the kernel's file system proc");
    assert_eq!(
        pool.sh("busybox mount | busybox grep my-data; busybox ls /my-data"),
        ""
    );
    let scene = pool.place.agent.scene();
    assert_eq!(scene.released.last().unwrap().container_id, pool.id);
    drop(scene);
    fails(&pool.verb("bind", &[]), "--annotations");
    fails(&pool.bind(&[("raw1", "/dev/xvda", false)]), "block device");
    let other = Command::new(PROGRAM)
        .args(["bind", "nobody", "--runtime"])
        .arg(&pool.runtime.program)
        .arg("--root")
        .arg(pool.place.path("state"))
        .output()
        .unwrap();
    fails(&other, "does not tell the state");
    // A process that is in no container.
    let own = std::process::id().to_string();
    let other = Command::new(PROGRAM)
        .args(["bind", "c", "--pid", &own, "--annotations"])
        .arg(pool.place.path("granted.json"))
        .arg("--bundle")
        .arg(pool.place.path("bundle"))
        .output()
        .unwrap();
    fails(&other, "no mount namespace of its own");
}

#[test]
#[ignore = "needs root: it runs a container"]
fn gvisor_shows_nothing_that_comes_late_and_is_refused() {
    let Some(runsc) = tool("runsc") else {
        return;
    };
    let mut place = Place::new();
    place.does("exec busybox sleep 600").write();
    let runsc = |words: &[&str]| {
        Command::new("timeout")
            .args(["--signal", "KILL", "60"])
            .arg(runsc.join("runsc"))
            .arg("--root")
            .arg(place.path("state"))
            .args(["--ignore-cgroups", "--network=none", "--platform=systrap"])
            .args(words)
            .stdin(Stdio::null())
            .stdout(fs::File::create(place.path("out")).unwrap())
            .stderr(fs::File::create(place.path("errors")).unwrap())
            .status()
            .unwrap()
            .success()
    };
    let id = format!("avh-late-{}", std::process::id());
    let bundle = place.path("bundle").display().to_string();
    assert!(runsc(&["create", "--bundle", &bundle, &id]));
    assert!(runsc(&["start", &id]) && runsc(&["state", &id]));
    let state: Value = serde_json::from_slice(&fs::read(place.path("out")).unwrap()).unwrap();
    let file = place.path("granted.json");
    let granted = annotations(&[("vol1", "/my-data", false)]);
    fs::write(&file, serde_json::to_string(&granted).unwrap()).unwrap();
    let bound = Command::new(PROGRAM)
        .args([
            "bind",
            &id,
            "--pid",
            &state["pid"].to_string(),
            "--bundle",
            &bundle,
        ])
        .args(["--annotations", file.to_str().unwrap(), "--config"])
        .arg(place.path("config.toml"))
        .output()
        .unwrap();
    runsc(&["delete", "--force", &id]);
    fails(&bound, "gVisor");
    assert!(place.agent.scene().given.is_empty());
}
