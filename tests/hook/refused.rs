// SPDX-License-Identifier: Apache-2.0
//! Containers that are not made, and leave nothing.

use std::{
    fs,
    io::Write,
    process::{Command, Stdio},
};

use serde_json::json;
use tonic::Code;

use crate::{
    bundle::{PROGRAM, Place},
    runtimes::{Runtime, all, runc, tool},
};

/// What it says of a hook's failure: crun keeps it to itself.
fn said<'a>(runtime: &Runtime, why: &'a str) -> &'a str {
    if runtime.name == "crun" { "" } else { why }
}

#[test]
#[ignore = "needs root: it runs containers"]
fn an_agent_that_refuses_lies_or_is_away_lets_no_container_be_made() {
    for runtime in all() {
        let mut place = Place::new();
        place.asks(&[("vol1", "/my-data", false)]).does("echo ran");
        place.agent.scene().refuses = Some((Code::FailedPrecondition, "the actor is suspended"));
        place
            .run(runtime)
            .is_refused(said(runtime, "the actor is suspended"));
        // The answer may have been lost: so it is told that nothing came of it.
        assert!(!place.agent.scene().released.is_empty());
        place.agent.scene().refuses = None;

        place.agent.scene().lies = true;
        place
            .run(runtime)
            .is_refused(said(runtime, "does not show the volume"));
        let scene = place.agent.scene();
        let (given, released) = (scene.given.last().unwrap(), &scene.released);
        let back = released
            .iter()
            .find(|r| r.container_id == given.container_id);
        assert!(back.unwrap().after == given.process);
        drop(scene);

        place.agent.scene().lies = false;
        place.agent.scene().waits = std::time::Duration::from_secs(600);
        place.settings("give_deadline_ms = 300\n");
        place.run(runtime).is_refused(said(runtime, "within 300ms"));
        place.settings("");
        place.agent.end();
        place.run(runtime).is_refused(said(runtime, "agent.sock"));
        fs::write(place.path("config.toml"), "broken = [").unwrap();
        place.run(runtime).is_refused(said(runtime, "config.toml"));
        place.is_clean();
        place.until_nobody_has_it();
    }
}

#[test]
#[ignore = "needs root: it runs containers"]
fn mounts_of_the_node_that_do_not_reach_the_runtime_are_told() {
    let mut place = Place::new();
    place.asks(&[("vol1", "/my-data", false)]).does("echo ran");
    place
        .run_where(runc(), "private")
        .is_refused("does not show the volume");
}

#[test]
#[ignore = "needs root: it runs containers"]
fn a_block_device_is_for_other_doors() {
    let mut place = Place::new();
    place.asks(&[("raw1", "/dev/xvda", false)]).does("echo ran");
    let refused = place.run(runc());
    refused.is_refused("block device");
    refused.is_refused("bundle inject");
    assert!(!place.agent.scene().released.is_empty());
}

#[test]
#[ignore = "needs root: it runs containers"]
fn a_container_without_a_mount_namespace_is_refused() {
    let mut place = Place::new();
    place.asks(&[("vol1", "/my-data", false)]).does("echo ran");
    let state = json!({"ociVersion": "1.0.2", "id": "c1", "pid": std::process::id(),
        "bundle": place.path("bundle"), "annotations": place.config["annotations"]});
    place.write();
    let (code, stderr) = hook(&place, "createRuntime", &state.to_string());
    assert_eq!(code, 1);
    assert!(stderr.contains("no mount namespace of its own"), "{stderr}");
    assert!(
        place.agent.scene().given.is_empty(),
        "nothing was published"
    );
}

/// The hook by itself.
fn hook(place: &Place, stage: &str, state: &str) -> (i32, String) {
    let mut child = Command::new(PROGRAM)
        .args(["hook", stage])
        .env("ACTOR_VOLUMES_CONFIG", place.path("config.toml"))
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(state.as_bytes()).unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    (output.status.code().unwrap(), stderr)
}

#[test]
#[ignore = "needs root: it runs containers"]
fn a_poststop_never_fails_the_deletion() {
    let mut place = Place::new();
    place.asks(&[("vol1", "/my-data", false)]);
    let annotations = place.config["annotations"].clone();
    let state = json!({"id": "c1", "bundle": "/gone", "annotations": annotations}).to_string();
    assert_eq!(hook(&place, "poststop", &state), (0, String::new()));
    assert_eq!(place.agent.scene().released[0].bundle, "/gone");
    place.agent.end();
    for state in [state.as_str(), "{", "{}"] {
        let (code, _) = hook(&place, "poststop", state);
        assert_eq!(code, 0, "{state}");
    }
    let (code, stderr) = hook(&place, "createRuntime", "{");
    assert_eq!(code, 1);
    assert!(stderr.contains("not its state"), "{stderr}");
    assert_eq!(stderr.lines().count(), 1);
}

#[test]
#[ignore = "needs root: it becomes another user"]
fn a_user_who_may_not_is_told_so() {
    let mut place = Place::new();
    place.asks(&[("vol1", "/my-data", false)]).does("echo ran");
    place.write();
    let state = json!({"id": "c1", "pid": std::process::id(), "bundle": place.path("bundle"),
        "annotations": place.config["annotations"]});
    // A copy that others may start.
    let program = place.path("program");
    fs::copy(PROGRAM, &program).unwrap();
    for (words, why) in [
        (
            &["setpriv", "--reuid=1000", "--clear-groups"][..],
            "CAP_SYS_ADMIN",
        ),
        (
            &[
                "setpriv",
                "--reuid=1000",
                "--clear-groups",
                "unshare",
                "--user",
                "--map-root-user",
            ][..],
            "rootless",
        ),
    ] {
        let mut child = Command::new(words[0])
            .args(&words[1..])
            .arg(&program)
            .args(["hook", "createRuntime"])
            .env("ACTOR_VOLUMES_CONFIG", place.path("config.toml"))
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(state.to_string().as_bytes()).unwrap();
        drop(stdin);
        let output = child.wait_with_output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert!(stderr.contains(why), "{why} in {stderr}");
    }
    assert!(place.agent.scene().given.is_empty());
}

#[test]
#[ignore = "needs root: it runs a container"]
fn gvisor_is_refused_before_anything_is_published() {
    let Some(runsc) = tool("runsc") else {
        return;
    };
    let mut place = Place::new();
    place.asks(&[("vol1", "/my-data", false)]).does("echo ran");
    place.write();
    let (out, errors) = (place.path("out"), place.path("errors"));
    // Files, for a pipe would stay open in the container.
    let runsc = |words: &[&str]| {
        Command::new("timeout")
            .args(["--signal", "KILL", "60"])
            .arg(runsc.join("runsc"))
            .arg("--root")
            .arg(place.path("state"))
            .args(["--ignore-cgroups", "--network=none", "--platform=systrap"])
            .args(words)
            .stdin(Stdio::null())
            .stdout(fs::File::create(&out).unwrap())
            .stderr(fs::File::create(&errors).unwrap())
            .status()
            .unwrap()
    };
    let bundle = place.path("bundle").display().to_string();
    let create = |name: &str| {
        let id = format!("avh-{name}-{}", std::process::id());
        let made = runsc(&["create", "--bundle", &bundle, &id]).success();
        let said = fs::read_to_string(&errors).unwrap();
        runsc(&["delete", "--force", &id]);
        (made, said)
    };
    let (made, said) = create("ours");
    assert!(!made);
    assert!(said.contains("bundle inject"), "{said}");
    assert!(place.agent.scene().given.is_empty(), "it was refused early");
    // One that is not ours is made, hooks and all.
    let mut config = place.config.clone();
    config["annotations"] = json!({});
    fs::write(place.path("bundle/config.json"), config.to_string()).unwrap();
    let (made, said) = create("foreign");
    assert!(made, "{said}");
    place.is_clean();
    place.until_nobody_has_it();
}
