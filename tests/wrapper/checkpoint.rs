// SPDX-License-Identifier: Apache-2.0
//! Checkpoint and restore through the wrapper: the volume is released between the two, and
//! its data goes on.

use std::{fs, process::Command};

use serde_json::json;

use crate::{
    bundle::Bundle,
    host::{Host, tool, until, until_true},
    runtime::Runtime,
};

#[test]
#[ignore = "needs root: run by make test"]
fn a_checkpoint_of_gvisor_has_no_volume_in_it_and_its_restore_has_the_newest() {
    if let Some(runtime) = Runtime::find("runsc") {
        story(&runtime);
    }
}

#[test]
#[ignore = "needs root: run by make test"]
fn a_checkpoint_of_runc_has_no_volume_in_it_and_its_restore_has_the_newest() {
    // A machine that cannot have CRIU has no such case; setup.sh names the skip.
    if tool("criu").is_some() {
        story(&Runtime::runc());
    }
}

fn story(runtime: &Runtime) {
    let host = Host::start();
    let annotations = host.actor("a", "t");
    let script = "exec </dev/null >/dev/null 2>&1; : PLANTEDINMEMORY; : > /tmp/ready; n=0; while :; do n=$((n+1)); echo $n > /tmp/count; sleep 0.1; done";
    let make = |name: &str, annotations| {
        Bundle::with(&host, name, annotations, |config| {
            config["process"]["args"] = json!(["/bin/busybox", "sh", "-c", script]);
            // CRIU locks a network of its own by programs that this machine may lack.
            let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
            namespaces.retain(|n| runtime.name == "runsc" || n["type"] != "network");
        })
    };
    let first = make("first", &annotations);
    let wrapped = runtime.wrapped(&host);
    wrapped.start(&first, "c1");
    wrapped.sh(
        "c1",
        "echo before > /my-data/data; echo SECRETOFTHEVOLUME > /my-data/large",
    );
    // It is empty for a moment, whenever it is written.
    let count =
        |id: &str| -> u32 { until("a count", || wrapped.sh(id, "cat /tmp/count").parse().ok()) };
    until_true("it counts", || count("c1") > 3);
    let image = host.path("image");
    fs::create_dir(&image).unwrap();
    let image_path = format!("--image-path={}", image.display());
    let mut checkpoint = vec!["checkpoint", &image_path];
    if runtime.name == "runsc" {
        // So that it can be searched.
        checkpoint.push("--compression=none");
    }
    checkpoint.push("c1");
    wrapped.run(&checkpoint);
    until_true("it is over", || {
        let state = wrapped.try_run(&["state", "c1"]);
        !state.status.success() || String::from_utf8_lossy(&state.stdout).contains("stopped")
    });
    wrapped.try_run(&["delete", "--force", "c1"]);
    host.until_nothing_is_published();
    let is_in_image = |word: &str| {
        let grep = Command::new("grep")
            .args(["-r", "-q", word])
            .arg(&image)
            .status();
        grep.unwrap().code() == Some(0)
    };
    assert!(is_in_image("PLANTEDINMEMORY"), "the image can be searched");
    assert!(!is_in_image("SECRETOFTHEVOLUME"), "the volume is in it");
    let mounts = |bundle: &Bundle| -> Vec<(String, serde_json::Value)> {
        let config = bundle.read();
        let mounts = config["mounts"].as_array().unwrap().clone();
        mounts
            .iter()
            .map(|m| (m["destination"].to_string(), m["options"].clone()))
            .collect()
    };
    let before = mounts(&first);
    host.suspend("a");

    // Meanwhile the actor is elsewhere, and its data goes on.
    let annotations = host.resume("agents/a");
    let between = Bundle::new(&host, "between", &annotations);
    wrapped.start(&between, "between");
    wrapped.sh("between", "echo after > /my-data/data");
    wrapped.end("between");
    host.until_nothing_is_published();
    host.suspend("a");

    let annotations = host.resume("agents/a");
    let second = make("second", &annotations);
    let path = format!("--bundle={}", second.dir.display());
    wrapped.run(&["restore", &path, "--detach", &image_path, "c1"]);
    assert_eq!(mounts(&second), before, "the same plan");
    let at_restore = count("c1");
    assert!(at_restore > 3, "its memory goes on");
    assert_eq!(wrapped.sh("c1", "cat /my-data/data"), "after");
    wrapped.sh("c1", "echo restored > /my-data/data");
    let volume = second.given(&host.path("m"))[0].1.clone();
    assert_eq!(
        fs::read_to_string(volume.join("data")).unwrap(),
        "restored\n"
    );
    until_true("it counts on", || count("c1") > at_restore);
    wrapped.end("c1");
    host.until_nothing_is_published();
    host.suspend("a");
}
