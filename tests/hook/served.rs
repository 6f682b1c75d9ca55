// SPDX-License-Identifier: Apache-2.0
//! The same with a real node agent and its embedded driver, on a host without NRI and CRI.

use std::{
    collections::BTreeMap,
    fs,
    process::{Child, Command, Stdio},
    thread::sleep,
    time::Duration,
};

use serde_json::{Value, json};

use crate::{
    bundle::{PROGRAM, Place},
    host::{Host, kill, until_true},
    killed::process,
    runtimes::{Runtime, all, runc},
};

/// A bundle of an actor on this host; its hooks ask the host's node agent.
fn place(host: &Host, annotations: &BTreeMap<String, String>) -> Place {
    let mut place = Place::new();
    place.asks(&[]);
    fs::copy(host.path("config.toml"), place.path("config.toml")).unwrap();
    place.config["annotations"] = json!(annotations);
    place
}

fn name_of(runtime: &Runtime) -> String {
    runtime.name.replace('.', "-")
}

/// How many mounts the container's process has at this place.
fn mounts_at(place: &Place, runtime: &Runtime, id: &str, at: &str) -> usize {
    let table = fs::read_to_string(format!("/proc/{}/mountinfo", pid(place, runtime, id)));
    table.unwrap().matches(&format!(" {at} ")).count()
}

fn pid(place: &Place, runtime: &Runtime, id: &str) -> u32 {
    let state = place.runtime(runtime, &["state", id]);
    let state: Value = serde_json::from_slice(&state.stdout).unwrap();
    u32::try_from(state["pid"].as_u64().unwrap()).unwrap()
}

/// The process of the host's node agent.
fn node(host: &Host) -> Option<u32> {
    let config = host.path("config.toml").display().to_string();
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let mut pids = entries.filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok());
    pids.find(|pid| {
        let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let words = String::from_utf8_lossy(&words).into_owned();
        let mut words = words.split('\0').skip(1);
        words.next() == Some("node") && words.any(|word| word == config)
    })
}

fn is_published(host: &Host) -> bool {
    let mut mounts = host.published().into_iter();
    mounts.any(|at| at.parent().is_some_and(|above| above.ends_with("pub")))
}

fn errors(place: &Place) -> String {
    fs::read_to_string(place.path("errors")).unwrap()
}

#[test]
#[ignore = "needs root: it runs containers"]
fn an_actor_runs_is_suspended_and_runs_again_with_its_files() {
    let host = Host::start();
    for runtime in all() {
        let name = format!("a-{}", name_of(runtime));
        let mut place = place(&host, &host.actor(&name, "t"));
        place.does("echo kept > /my-data/f").run(runtime).said("");
        place.does("cat /my-data/f").run(runtime).said("kept");
        host.until_nothing_is_published();
        host.suspend(&name);
        // The grant is over.
        let refused = place.run(runtime);
        let why = if runtime.name == "crun" {
            ""
        } else {
            "is not resumed"
        };
        refused.is_refused(why);
        let said = format!("container {:?}", refused.id).replace('"', "");
        let times = refused
            .stderr
            .replace(['"', '\\'], "")
            .matches(&said)
            .count();
        assert!(times <= 1, "it is told once: {}", refused.stderr);
        place.config["annotations"] = json!(host.resume(&format!("agents/{name}")));
        place.run(runtime).said("kept");
        host.until_nothing_is_published();
        host.suspend(&name);
        place.is_clean();
    }
}

#[test]
#[ignore = "needs root: it runs containers"]
fn volumes_in_one_another_and_parts_of_volumes_are_where_they_belong() {
    let host = Host::start();
    host.apply(
        "template",
        "kind: ActorTemplate\nmetadata: {name: parts}\nspec:\n  containers:\n  - name: agent\n    volumeMounts:\n    \
         - {name: inner, mountPath: /data/in/it}\n    - {name: outer, mountPath: /data}\n    \
         - {name: outer, mountPath: /part, subPath: a/b}\n    - {name: inner, mountPath: /seen, readOnly: true}\n  volumes:\n  \
         - name: inner\n    externalVolumeTemplate: {capacity: 1Mi, storageClassName: fast}\n  \
         - name: outer\n    externalVolumeTemplate: {capacity: 1Mi, storageClassName: fast}\n",
    );
    for runtime in all() {
        let name = format!("p-{}", name_of(runtime));
        let mut place = place(&host, &host.actor(&name, "parts"));
        place.does(
            "echo o > /data/o; echo i > /data/in/it/i; echo p > /part/p; \
             cat /data/a/b/p /seen/i; echo x 2>/dev/null > /seen/x || echo no",
        );
        place.run(runtime).said("p\ni\nno");
        host.until_nothing_is_published();
        host.suspend(&name);
    }
}

#[test]
#[ignore = "needs root: it runs containers"]
fn a_container_keeps_its_volume_and_a_lost_poststop_costs_time_alone() {
    let host = Host::start();
    for runtime in all() {
        let name = format!("l-{}", name_of(runtime));
        let mut place = place(&host, &host.actor(&name, "t"));
        place.does("exec busybox sleep 600");
        place.config["hooks"]["poststop"] = json!([]);
        let (id, mut child) = place.create(runtime);
        assert!(child.wait().unwrap().success(), "{}", errors(&place));
        assert!(is_published(&host));
        // Longer than two sweeps: nothing is lost while it lives, started or not.
        sleep(Duration::from_millis(2500));
        assert!(is_published(&host), "{runtime:?}");
        assert!(place.runtime(runtime, &["start", &id]).status.success());
        place.runtime(runtime, &["delete", "--force", &id]);
        host.until_nothing_is_published();
        host.suspend(&name);
    }
}

#[test]
#[ignore = "needs root: it runs containers"]
fn whatever_is_killed_during_the_creation_nothing_is_left() {
    let host = Host::start();
    // The hook, the runtime, the node agent.
    let victims: [fn(&Host, &Place, &mut Child); 3] = [
        |_, place, _| {
            if let Some(hook) = process(place, "createRuntime") {
                kill(hook.as_raw_nonzero().get().cast_unsigned());
            }
        },
        |_, _, runtime| {
            // It was started by execve alone.
            let _ = runtime.kill();
        },
        |host, _, _| {
            if let Some(node) = node(host) {
                kill(node);
            }
        },
    ];
    for (n, victim) in victims.iter().enumerate() {
        let mut killed = 0;
        let runtime = runc();
        let name = format!("k-{n}");
        let mut place = place(&host, &host.actor(&name, "t"));
        place.does("exec busybox sleep 600");
        for round in 0..12u64 {
            let (id, mut child) = place.create(runtime);
            until_true("the hook runs, or all is over", || {
                process(&place, "createRuntime").is_some() || child.try_wait().unwrap().is_some()
            });
            sleep(Duration::from_millis(round * 2));
            victim(&host, &place, &mut child);
            if child.wait().unwrap().success() {
                assert_eq!(mounts_at(&place, runtime, &id, "/my-data"), 1);
            } else {
                killed += 1;
            }
            until_true("no hook runs", || {
                process(&place, "createRuntime").is_none()
            });
            // Of a runtime that was killed, its container's first process may be left.
            place.end();
            place.runtime(runtime, &["delete", "--force", &id]);
            place.until_nobody_has_it();
            host.until_nothing_is_published();
        }
        assert!(killed > 0, "victim {n} was never hit");
        // Whoever comes next is served, when the agent is there again.
        until_true("it runs again", || {
            let ran = place.does("echo ran").run(runtime);
            ran.output.status.success()
        });
        host.until_nothing_is_published();
        host.suspend(&name);
    }
}

#[test]
#[ignore = "needs root: it runs containers"]
fn a_container_of_a_pool_serves_one_actor_after_another() {
    let host = Host::start();
    for runtime in all() {
        let mut pool = place(&host, &BTreeMap::new());
        pool.does("exec busybox sleep 600");
        let (id, mut child) = pool.create(runtime);
        assert!(child.wait().unwrap().success(), "{}", errors(&pool));
        assert!(pool.runtime(runtime, &["start", &id]).status.success());
        let pid = pid(&pool, runtime, &id).to_string();
        let verb = |verb: &str, more: &[&str]| {
            let mut command = Command::new(PROGRAM);
            command.args([verb, &id, "--pid", &pid, "--bundle"]);
            command.arg(pool.path("bundle")).args(more);
            command.env("ACTOR_VOLUMES_CONFIG", host.path("config.toml"));
            command.stdin(Stdio::null()).output().unwrap()
        };
        for actor in ["x", "y"] {
            let name = format!("{actor}-{}", name_of(runtime));
            let granted = pool.path("granted.json");
            let annotations = host.actor(&name, "t");
            fs::write(&granted, serde_json::to_string(&annotations).unwrap()).unwrap();
            let bound = verb("bind", &["--annotations", granted.to_str().unwrap()]);
            assert!(bound.status.success(), "{bound:?}\n{}", host.log());
            let script = "cat /my-data/f 2>/dev/null; echo mine > /my-data/f; cat /my-data/f";
            let words = ["exec", &id, "/bin/busybox", "sh", "-c", script];
            let said = pool.runtime(runtime, &words);
            assert_eq!(String::from_utf8_lossy(&said.stdout), "mine\n", "{said:?}");
            // Suspended while it is bound: it waits for the container to give it back.
            host.av(&["actor", "suspend", &format!("agents/{name}")]);
            assert_eq!(mounts_at(&pool, runtime, &id, "/my-data"), 1);
            let unbound = verb("unbind", &[]);
            assert!(unbound.status.success(), "{unbound:?}\n{}", host.log());
            host.suspend(&name);
            host.until_nothing_is_published();
        }
        // One that dies with a volume has given it back.
        let name = format!("z-{}", name_of(runtime));
        let granted = pool.path("granted.json");
        let annotations = host.actor(&name, "t");
        fs::write(&granted, serde_json::to_string(&annotations).unwrap()).unwrap();
        assert!(
            verb("bind", &["--annotations", granted.to_str().unwrap()])
                .status
                .success()
        );
        pool.runtime(runtime, &["delete", "--force", &id]);
        host.until_nothing_is_published();
        host.suspend(&name);
    }
}
