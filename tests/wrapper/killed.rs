// SPDX-License-Identifier: Apache-2.0
//! SIGKILL at every place between the question and the container.

use std::{fs, os::unix::fs::PermissionsExt, process::Stdio};

use crate::{
    bundle::Bundle,
    host::{Host, kill, until, until_true},
    runtime::Runtime,
};

#[test]
#[ignore = "needs root: run by make test"]
fn a_wrapper_that_is_killed_before_or_after_its_edit_leaves_nothing() {
    let host = Host::start();
    let runtime = Runtime::runc();
    let annotations = host.actor("a", "t");
    let bundle = Bundle::new(&host, "a", &annotations);
    let path = bundle.dir.display().to_string();
    // At about the edit: as soon as the volume is published.
    for _ in 0..5 {
        let wrapped = runtime.wrapped(&host);
        let mut child = wrapped
            .command(&["create", "--bundle", &path, "a"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        until_true("it is published, or made", || {
            !host.published().is_empty() || child.try_wait().unwrap().is_some()
        });
        kill(child.id());
        child.wait().unwrap();
        // It is the old or the new one, whole.
        assert!(bundle.given(&host.path("m")).len() < 2);
        assert_eq!(bundle.read()["linux"]["new"]["of"], 1.5);
        wrapped.try_run(&["delete", "--force", "a"]);
        host.until_nothing_is_published();
    }
    // After: the wrapper has become the runtime, which dies at its first step.
    let dying = host.path("dying-runtime");
    fs::write(&dying, "#!/bin/sh\nkill -KILL $$\n").unwrap();
    fs::set_permissions(&dying, fs::Permissions::from_mode(0o700)).unwrap();
    let wrapped = runtime.wrapped_as(&host, &format!("{:?}", dying.display().to_string()));
    let done = wrapped.try_run(&["create", "--bundle", &path, "a"]);
    assert!(!done.status.success());
    assert_eq!(bundle.given(&host.path("m")).len(), 1);
    host.until_nothing_is_published();
    // And the bundle can be used at once.
    let wrapped = runtime.wrapped(&host);
    wrapped.start(&bundle, "a");
    wrapped.sh("a", "echo x > /my-data/x");
    wrapped.end("a");
    host.until_nothing_is_published();
    host.suspend("a");
}

#[test]
#[ignore = "needs root: run by make test"]
fn what_is_made_and_never_started_keeps_its_volume_until_it_is_deleted() {
    let host = Host::start();
    for runtime in Runtime::all() {
        let name = format!("k-{}", runtime.name.replace([' ', '.'], "-"));
        let annotations = host.actor(&name, "t");
        let bundle = Bundle::new(&host, &name, &annotations);
        let wrapped = runtime.wrapped(&host);
        wrapped.create(&bundle, &name);
        let given = bundle.given(&host.path("m"));
        // Longer than two sweeps: the process that made it is gone.
        std::thread::sleep(std::time::Duration::from_millis(2500));
        assert!(host.published().contains(&given[0].1), "{runtime:?}");
        wrapped.run(&["delete", "--force", &name]);
        host.until_nothing_is_published();
    }
}

#[test]
#[ignore = "needs root: run by make test"]
fn a_runtime_that_is_killed_between_create_and_start_leaves_nothing() {
    let host = Host::start();
    let wrapped = Runtime::runc().wrapped(&host);
    let annotations = host.actor("a", "t");
    let bundle = Bundle::new(&host, "a", &annotations);
    wrapped.create(&bundle, "a");
    // Of runc nothing is left by then but the first process of the container.
    kill(wrapped.pid("a"));
    until("it is gone", || {
        (wrapped.state("a")["status"] == "stopped").then_some(())
    });
    host.until_nothing_is_published();
    // Without any deletion the actor can go on elsewhere.
    host.suspend("a");
    wrapped.run(&["delete", "--force", "a"]);
}

#[test]
#[ignore = "needs root: run by make test"]
fn a_runtime_that_refuses_the_container_has_given_it_nothing_for_long() {
    let host = Host::start();
    for runtime in Runtime::all() {
        let name = format!("x-{}", runtime.name.replace([' ', '.'], "-"));
        let annotations = host.actor(&name, "t");
        let bundle = Bundle::with(&host, &name, &annotations, |config| {
            config["root"]["path"] = "no-such-directory".into();
        });
        let wrapped = runtime.wrapped(&host);
        let path = bundle.dir.display().to_string();
        let done = wrapped.try_run(&["create", "--bundle", &path, &name]);
        assert!(!done.status.success(), "{runtime:?}");
        host.until_nothing_is_published();
        host.suspend(&name);
    }
}
