// SPDX-License-Identifier: Apache-2.0
//! Whom the wrapper leaves alone, and what it finds.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    process::Command,
};

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

/// What a process is given, but for its number and what the command line says of it.
const TELL: &str = "#!/bin/sh
pwd; umask; ls \"/proc/$$/fd\"; grep -E '^Sig(Blk|Ign)' /proc/self/status; cat \"/proc/$$/limits\"
tr '\\0' ' ' < \"/proc/$$/cmdline\" | cut -d ' ' -f 3-; cat <&3
";

#[test]
#[ignore = "needs root: run by make test"]
fn a_runtime_sees_nothing_of_what_was_done_before_it() {
    let host = Host::start();
    let annotations = host.actor("a", "t");
    let bundle = Bundle::new(&host, "a", &annotations);
    let mut runtime = Runtime::runc();
    runtime.program = host.path("tell");
    fs::write(&runtime.program, TELL).unwrap();
    fs::set_permissions(&runtime.program, fs::Permissions::from_mode(0o700)).unwrap();
    fs::write(host.path("three"), "three\n").unwrap();
    let wrapped = runtime.wrapped(&host);
    let told = |by: &crate::runtime::Wrapped<'_>| {
        let path = bundle.dir.display().to_string();
        let command = by.command(&["create", "--bundle", &path, "a"]);
        let output = Command::new("sh")
            .args([
                "-c",
                "trap '' HUP USR1; ulimit -n 200; umask 027; exec \"$@\" 3<three",
                "sh",
            ])
            .arg(command.get_program())
            .args(command.get_args())
            .env("ACTOR_VOLUMES_CONFIG", &wrapped.config)
            .current_dir(host.path(""))
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let before = told(&wrapped.bare());
    assert!(bundle.given(&host.path("m")).is_empty());
    assert_eq!(told(&wrapped), before);
    assert!(
        before.contains("three") && before.contains("create --bundle"),
        "{before}"
    );
    assert_eq!(bundle.given(&host.path("m")).len(), 1);
    host.until_nothing_is_published();
}
