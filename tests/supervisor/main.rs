// SPDX-License-Identifier: Apache-2.0
//! `actor-volumes serve` as the parent of its parts, with nothing beside it: who lives,
//! who dies with whom, and who is started again.

#![allow(clippy::unwrap_used)] // the whole file is a test

mod host;

use host::{Host, Serve, until};
use rustix::process::Signal;

const PARTS: [&str; 4] = ["control", "helper", "local-driver", "node"];

#[test]
fn all_parts_run_and_end_together_in_time() {
    let host = Host::new();
    let mut serve = Serve::start(&host);
    let parts = serve.until_up();
    assert_eq!(parts.keys().copied().collect::<Vec<_>>(), PARTS);
    let listed = host.av("driver ls -o json");
    assert!(listed.contains("local.actor-volumes.dev"), "{listed}");
    let ended = serve.end(Signal::TERM);
    assert!(ended.success(), "{ended:?}");
    assert!(parts.values().all(|pid| !host::is_there(*pid)));
    let left = std::fs::read_dir(host.path("run")).unwrap();
    let sockets = left.filter(|e| {
        let name = e.as_ref().unwrap().file_name();
        let name = name.to_string_lossy();
        name.ends_with(".sock") && !name.starts_with("local-driver")
    });
    assert_eq!(sockets.count(), 0, "their sockets are gone");
}

#[test]
fn a_part_that_is_killed_is_started_again_and_the_others_go_on() {
    let host = Host::new();
    let mut serve = Serve::start(&host);
    for name in PARTS {
        let before = serve.until_up();
        host::kill(before[name]);
        let after = until("it is started again", || {
            let now = serve.parts();
            now.get(name)
                .is_some_and(|pid| *pid != before[name])
                .then_some(now)
        });
        for other in PARTS.iter().filter(|other| **other != name) {
            assert_eq!(after[other], before[other], "{other} went on");
        }
        assert!(!host::is_there(before[name]), "it was waited for");
    }
    serve.until_up();
    assert!(serve.end(Signal::INT).success());
    let log = host.log();
    assert!(log.contains("control has ended (signal: 9 (SIGKILL)), and is started again"));
}

#[test]
fn no_part_outlives_a_parent_that_is_killed_and_the_next_one_takes_over() {
    let host = Host::new();
    let mut serve = Serve::start(&host);
    let parts = serve.until_up();
    let mut second = Serve::start(&host);
    until("the second one waits", || {
        host.log().contains("waiting for its end").then_some(())
    });
    assert_eq!(second.parts().len(), 0, "it has started nothing");
    serve.kill();
    until("all are gone", || {
        let gone = |pid: &u32| !host::is_there(*pid);
        parts.values().all(gone).then_some(())
    });
    second.until_up();
    assert!(second.end(Signal::TERM).success());
}

#[test]
fn a_wrong_configuration_is_an_error_at_once() {
    let host = Host::new();
    host.configure("[control]\nlisten = \"0.0.0.0:7443\"\n");
    let mut serve = Serve::start(&host);
    assert_eq!(serve.status().code(), Some(3));
    assert!(
        host.log().contains("plain TCP is refused"),
        "{}",
        host.log()
    );

    // One that only a part finds: it is not tried again and again.
    let long = format!(
        "[local_driver]\nroot = \"/r\"\nsocket = \"/{}\"\n",
        "x".repeat(200)
    );
    host.configure(&long);
    let mut serve = Serve::start(&host);
    assert_eq!(serve.status().code(), Some(3));
    let log = host.log();
    assert!(log.contains("is longer than"), "{log}");
    assert!(
        log.contains("`actor-volumes local-driver` cannot run with this configuration"),
        "{log}"
    );
}

#[test]
fn a_part_that_dies_at_once_is_left_alone_for_longer_each_time() {
    let host = Host::new();
    // What is there is no directory: that may change without a new configuration.
    std::fs::write(host.path("file"), "").unwrap();
    host.configure(&format!(
        "[local_driver]\nroot = \"{}/r\"\n",
        host.path("file").display()
    ));
    let mut serve = Serve::start(&host);
    let says = |pause: &str| host.log().contains(&format!("is started again in {pause}"));
    until("it is left alone for a while", || {
        (says("100ms") && says("800ms")).then_some(())
    });
    let parts = serve.parts();
    assert!(
        parts.contains_key("control") && parts.contains_key("node"),
        "{parts:?}"
    );
    std::fs::remove_file(host.path("file")).unwrap();
    let up = serve.until_up();
    assert_eq!(up["node"], parts["node"], "the others have gone on");
    assert!(serve.end(Signal::TERM).success());
}
