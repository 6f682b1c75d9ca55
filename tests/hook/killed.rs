// SPDX-License-Identifier: Apache-2.0
//! What dies in the midst leaves no container without its volume, and nothing mounted.

use std::{
    fs,
    path::Path,
    process::Child,
    thread::sleep,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

use crate::{
    bundle::{Place, SOON},
    runtimes::{all, runc},
};

const MOMENT: Duration = Duration::from_millis(2);

fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + SOON;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "{what}");
        sleep(MOMENT);
    }
}

/// The process of this place's hook, or of what it has started.
pub(crate) fn process(place: &Place, word: &str) -> Option<Pid> {
    let config = place.path("config.toml").display().to_string();
    let processes = fs::read_dir("/proc").unwrap();
    let mut pids =
        processes.filter_map(|e| e.unwrap().file_name().into_string().unwrap().parse().ok());
    pids.find_map(|pid: i32| {
        let read = |name: &str| fs::read(Path::new("/proc").join(pid.to_string()).join(name)).ok();
        let words = String::from_utf8_lossy(&read("cmdline")?).into_owned();
        let of_place = String::from_utf8_lossy(&read("environ")?).contains(&config);
        let found = of_place && words.split('\0').any(|w| w == word) && words.contains("hook");
        found.then(|| Pid::from_raw(pid)).flatten()
    })
}

/// The runtime says that there is no such container.
fn is_no_container(place: &Place, runtime: &crate::runtimes::Runtime, id: &str) {
    let state = place.runtime(runtime, &["state", id]);
    assert!(!state.status.success(), "{state:?}");
}

fn asking(script: &str) -> Place {
    let mut place = Place::new();
    place.asks(&[("vol1", "/my-data", false)]).does(script);
    fs::write(place.agent.volume("vol1").join("f"), "volume").unwrap();
    place
}

fn is_given(place: &Place, count: usize) -> Option<()> {
    (place.agent.scene().given.len() >= count).then_some(())
}

fn failed(child: &mut Child) {
    assert!(!child.wait().unwrap().success());
}

#[test]
#[ignore = "needs root: it runs containers"]
fn an_agent_that_dies_while_the_hook_waits_aborts_the_creation() {
    for runtime in all() {
        let mut place = asking("cat /my-data/f");
        place.agent.scene().waits = Duration::from_secs(600);
        let (id, mut child) = place.create(runtime);
        until("it is asked", || is_given(&place, 1));
        place.agent.end();
        failed(&mut child);
        is_no_container(&place, runtime, &id);
        place.until_nobody_has_it();
        place.is_clean();
    }
}

#[test]
#[ignore = "needs root: it runs containers"]
fn a_hook_that_is_killed_at_any_time_lets_no_container_run_without_its_volume() {
    for runtime in all() {
        let place = asking("cat /my-data/f || echo none");
        place.agent.scene().waits = Duration::from_millis(5);
        let (mut made, mut killed) = (0, 0);
        // Later and later, until some were killed and some were not.
        for round in 0..100 {
            if round >= 14 && killed > 0 && made > 0 {
                break;
            }
            let (id, mut child) = place.create(runtime);
            until("it is asked", || is_given(&place, round + 1));
            let hook = process(&place, "createRuntime");
            sleep(Duration::from_millis(
                u64::try_from(round + round * round / 4).unwrap(),
            ));
            if let Some(hook) = hook {
                let _ = kill_process(hook, Signal::KILL);
            }
            let volumes = || {
                let state = place.runtime(runtime, &["state", &id]);
                let state: serde_json::Value = serde_json::from_slice(&state.stdout).unwrap();
                let table = fs::read_to_string(format!("/proc/{}/mountinfo", state["pid"]));
                table.unwrap().matches("/my-data ").count()
            };
            if child.wait().unwrap().success() {
                assert_eq!(volumes(), 1, "{runtime:?}");
                made += 1;
                place.runtime(runtime, &["delete", "--force", &id]);
            } else {
                is_no_container(&place, runtime, &id);
                killed += 1;
            }
            place.until_nobody_has_it();
        }
        assert!(killed > 0 && made > 0, "{runtime:?}: {killed} {made}");
        place.is_clean();
    }
}

#[test]
#[ignore = "needs root: it runs containers"]
fn a_runtime_that_is_killed_during_the_hook_leaves_nothing() {
    for runtime in all() {
        let place = asking("cat /my-data/f");
        place.agent.scene().waits = Duration::from_millis(500);
        let (id, mut child) = place.create(runtime);
        until("it is asked", || is_given(&place, 1));
        // It was started by execve alone.
        child.kill().unwrap();
        child.wait().unwrap();
        let init = place.agent.scene().given[0].process.unwrap().pid;
        let init = Pid::from_raw(init.cast_signed()).unwrap();
        // What the runtime would have done.
        let _ = kill_process(init, Signal::KILL);
        // The hook lives on, finds the container gone, and says so.
        until("it is taken back", || {
            let scene = place.agent.scene();
            let mut told = scene.released.iter();
            told.any(|r| r.container_id == id).then_some(())
        });
        until("the hook ends", || {
            process(&place, "createRuntime").is_none().then_some(())
        });
        place.runtime(runtime, &["delete", "--force", &id]);
        place.until_nobody_has_it();
        place.is_clean();
    }
}

#[test]
#[ignore = "needs root: it runs containers"]
fn a_container_that_dies_before_its_start_is_released_when_it_is_deleted() {
    for runtime in all() {
        let place = asking("cat /my-data/f");
        let (id, mut child) = place.create(runtime);
        assert!(
            child.wait().unwrap().success(),
            "{}",
            fs::read_to_string(place.path("errors")).unwrap()
        );
        let init = place.agent.scene().given[0].process.unwrap().pid;
        kill_process(Pid::from_raw(init.cast_signed()).unwrap(), Signal::KILL).unwrap();
        assert!(place.agent.scene().released.is_empty());
        let deleted = place.runtime(runtime, &["delete", "--force", &id]);
        assert!(deleted.status.success(), "{deleted:?}");
        let scene = place.agent.scene();
        assert!(scene.released.iter().any(|r| r.container_id == id));
        drop(scene);
        place.until_nobody_has_it();
        place.is_clean();
    }
}

#[test]
#[ignore = "needs root: it runs containers"]
fn what_mounts_is_killed_when_it_is_not_done_in_time() {
    let place = asking("cat /my-data/f");
    // As long as it takes to look once: no process is started, enters and ends in that.
    place.settings("deadline_ms = 0\n");
    let refused = place.run(runc());
    refused.is_refused("did not answer within");
    is_no_container(&place, runc(), &refused.id);
    let scene = place.agent.scene();
    assert!(scene.released.iter().any(|r| r.container_id == refused.id));
    drop(scene);
    place.until_nobody_has_it();
}
