// SPDX-License-Identifier: Apache-2.0
//! Whom the wrapper leaves alone, and what it finds.

use std::{collections::BTreeMap, fs, os::unix::fs::MetadataExt};

use serde_json::json;

use crate::{bundle::Bundle, host::Host, runtime::Runtime};

#[test]
#[ignore = "needs root: run by make test"]
fn a_container_of_others_keeps_every_byte_also_while_nobody_answers() {
    let host = Host::start();
    let foreign = BTreeMap::from([("example.com/x".to_owned(), "y".to_owned())]);
    for runtime in Runtime::all() {
        let name = format!("f-{}", runtime.name.replace([' ', '.'], "-"));
        let bundle = Bundle::new(&host, &name, &foreign);
        let (text, inode) = (bundle.text(), bundle.config().metadata().unwrap().ino());
        let wrapped = runtime.wrapped(&host);
        // Nothing is asked.
        let config = fs::read_to_string(&wrapped.config).unwrap();
        fs::write(
            &wrapped.config,
            format!("{config}socket = \"/nothing/here\"\n"),
        )
        .unwrap();
        wrapped.start(&bundle, &name);
        wrapped.sh(&name, "test ! -e /my-data");
        wrapped.end(&name);
        assert_eq!(bundle.text(), text);
        assert_eq!(bundle.config().metadata().unwrap().ino(), inode);
    }
}

#[test]
#[ignore = "needs root: run by make test"]
fn the_first_runtime_that_is_there_is_taken_and_never_the_wrapper_itself() {
    let host = Host::start();
    let runtime = Runtime::runc();
    let own = env!("CARGO_BIN_EXE_actor-volumes");
    let real = runtime.program.display();
    let named = format!("[\"nothing-of-this-name\", \"{own}\", \"{real}\"]");
    let wrapped = runtime.wrapped_as(&host, &named);
    let told = wrapped.run(&["--version"]);
    assert!(told.contains("runc version"), "{told}");
    let wrapped = runtime.wrapped_as(&host, &format!("[\"{own}\"]"));
    wrapped.is_refused(&["--version"], "guard.runtime");
}

#[test]
#[ignore = "needs root: run by make test"]
fn what_keeps_a_container_from_its_volume_is_told_and_nothing_is_changed() {
    let host = Host::start();
    let wrapped = Runtime::runc().wrapped(&host);
    let annotations = host.actor("a", "t");
    let with = |change: fn(&mut serde_json::Value)| Bundle::with(&host, "b", &annotations, change);
    let refused = |bundle: &Bundle, why: &str| {
        let before = bundle.text();
        let path = bundle.dir.display().to_string();
        let log = host.path("runtime.log").display().to_string();
        let line = ["--log", &log, "create", "--bundle", &path, "b"];
        wrapped.is_refused(&line, why);
        assert!(fs::read_to_string(&log).unwrap().contains(why));
        assert_eq!(bundle.text(), before);
        host.until_nothing_is_published();
        fs::remove_dir_all(&bundle.dir).unwrap();
    };
    refused(
        &with(|config| {
            let mounts = config["mounts"].as_array_mut().unwrap();
            mounts.push(json!({"destination": "/my-data/x", "type": "bind", "source": "/tmp", "options": ["bind"]}));
        }),
        "it would hide the container's own mount at /my-data/x",
    );
    refused(
        &with(|config| {
            let mounts = config["mounts"].as_array_mut().unwrap();
            mounts.push(json!({"destination": "/my-data", "type": "bind", "source": "/tmp", "options": ["bind"]}));
        }),
        "it was not given to this container",
    );
    refused(
        &with(|config| {
            config["annotations"]["actor-volumes.dev/signature"] = json!("x");
        }),
        "signature",
    );
    // A link in its place is not written through.
    let bundle = with(|_| ());
    fs::rename(bundle.config(), bundle.dir.join("elsewhere")).unwrap();
    std::os::unix::fs::symlink("elsewhere", bundle.config()).unwrap();
    refused(&bundle, "symbolic link");
    // Before all of it, the first one still has it.
    let bundle = with(|_| ());
    wrapped.start(&bundle, "b");
    wrapped.end("b");
    host.until_nothing_is_published();
}

#[test]
#[ignore = "needs root: run by make test"]
fn the_wrapper_that_only_checks_gives_nobody_a_volume() {
    let host = Host::start();
    let wrapped = Runtime::runc().wrapped(&host);
    let annotations = host.actor("a", "t");
    let bundle = Bundle::new(&host, "a", &annotations);
    let path = bundle.dir.display().to_string();
    let text = fs::read_to_string(&wrapped.config).unwrap();
    fs::write(&wrapped.config, format!("{text}inject = \"never\"\n")).unwrap();
    let create = ["create", "--bundle", &path, "a"];
    wrapped.is_refused(&create, "was not given to it");
    fs::write(&wrapped.config, &text).unwrap();
    // What bundle inject has given it takes.
    host.av(&["bundle", "inject", &path]);
    fs::write(&wrapped.config, format!("{text}inject = \"never\"\n")).unwrap();
    wrapped.start(&bundle, "a");
    wrapped.end("a");
    host.av(&["bundle", "release", &path]);
}
