// SPDX-License-Identifier: Apache-2.0
//! What containers have that are made through the wrapper, by each runtime.

use std::{collections::BTreeMap, fs, os::unix::fs::MetadataExt};

use serde_json::json;

use crate::{bundle::Bundle, host::Host, runtime::Runtime};

#[test]
#[ignore = "needs root: run by make test"]
fn a_container_of_every_runtime_has_its_volume_and_gives_it_back() {
    let host = Host::start();
    for runtime in Runtime::all() {
        let name = format!("a-{}", runtime.name.replace([' ', '.'], "-"));
        let annotations = host.actor(&name, "t");
        let bundle = Bundle::new(&host, &name, &annotations);
        let before = bundle.text();
        let wrapped = runtime.wrapped(&host);
        wrapped.start(&bundle, &name);
        let given = bundle.given(&host.path("m"));
        assert_eq!(given.len(), 1, "{runtime:?}: {}", bundle.text());
        assert_eq!(given[0].0, "/my-data");
        let volume = &given[0].1;
        // At once, in both directions.
        wrapped.sh(&name, "echo inside > /my-data/a");
        assert_eq!(fs::read_to_string(volume.join("a")).unwrap(), "inside\n");
        fs::write(volume.join("b"), "outside").unwrap();
        assert_eq!(wrapped.sh(&name, "cat /my-data/b"), "outside");
        fs::write(volume.join("b"), "changed outside").unwrap();
        assert_eq!(wrapped.sh(&name, "cat /my-data/b"), "changed outside");
        wrapped.end(&name);
        host.until_nothing_is_published();
        host.suspend(&name);
        // It runs again in the same bundle, with what was written.
        let annotations = host.resume(&format!("agents/{name}"));
        let mut config = bundle.read();
        config["annotations"] = json!(annotations);
        bundle.write(&config.to_string());
        wrapped.start(&bundle, &name);
        assert_eq!(wrapped.sh(&name, "cat /my-data/a"), "inside");
        wrapped.end(&name);
        host.until_nothing_is_published();
        // Whatever else is in the file is as it was.
        host.av(&["bundle", "release", &bundle.dir.display().to_string()]);
        let mut left = bundle.read();
        let mut before: serde_json::Value = serde_json::from_str(&before).unwrap();
        left["annotations"].take();
        before["annotations"].take();
        assert_eq!(left, before, "{runtime:?}");
    }
}

#[test]
#[ignore = "needs root: run by make test"]
fn a_deletion_through_the_wrapper_is_told() {
    let host = Host::that_is_told();
    for runtime in Runtime::all() {
        let name = format!("d-{}", runtime.name.replace([' ', '.'], "-"));
        let annotations = host.actor(&name, "t");
        let bundle = Bundle::new(&host, &name, &annotations);
        let wrapped = runtime.wrapped(&host);
        wrapped.start(&bundle, &name);
        wrapped.end(&name);
        host.until_nothing_is_published();
        // Without a word of it nobody looks here.
        wrapped.start(&bundle, &name);
        wrapped.bare().end(&name);
        assert!(!host.published().is_empty(), "{runtime:?}");
        let path = bundle.dir.display().to_string();
        host.av(&["bundle", "release", &path, "--id", &name]);
        host.until_nothing_is_published();
    }
}

#[test]
#[ignore = "needs root: run by make test"]
fn volumes_in_one_another_are_both_there() {
    let host = Host::start();
    host.template("nested", &[("inner", "/data/inner"), ("outer", "/data")]);
    for runtime in Runtime::all() {
        let name = format!("n-{}", runtime.name.replace([' ', '.'], "-"));
        let annotations = host.actor(&name, "nested");
        let bundle = Bundle::new(&host, &name, &annotations);
        let wrapped = runtime.wrapped(&host);
        wrapped.start(&bundle, &name);
        let given: BTreeMap<_, _> = bundle.given(&host.path("m")).into_iter().collect();
        wrapped.sh(&name, "echo o > /data/o; echo i > /data/inner/i");
        assert!(given["/data"].join("o").exists(), "{runtime:?}");
        assert!(given["/data/inner"].join("i").exists(), "{runtime:?}");
        wrapped.end(&name);
        host.until_nothing_is_published();
    }
}

#[test]
#[ignore = "needs root: run by make test"]
fn a_mount_point_that_a_read_only_root_lacks_is_made_by_the_runtime() {
    let host = Host::start();
    for runtime in Runtime::all() {
        let name = format!("r-{}", runtime.name.replace([' ', '.'], "-"));
        let annotations = host.actor(&name, "t");
        let bundle = Bundle::with(&host, &name, &annotations, |config| {
            config["root"]["readonly"] = json!(true);
        });
        let wrapped = runtime.wrapped(&host);
        wrapped.start(&bundle, &name);
        wrapped.sh(&name, "echo x > /my-data/x");
        let refused = wrapped.try_sh(&name, "echo x > /x");
        assert!(
            !refused.status.success(),
            "{runtime:?}: its root is read-only"
        );
        wrapped.end(&name);
        host.until_nothing_is_published();
    }
}

#[test]
#[ignore = "needs root: run by make test"]
fn with_a_user_namespace_owners_are_mapped_or_the_container_is_not_made() {
    let host = Host::start();
    let userns = |config: &mut serde_json::Value| {
        let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.push(json!({"type": "user"}));
        let map = json!([{"containerID": 0, "hostID": 100_000, "size": 65_536}]);
        config["linux"]["uidMappings"] = map.clone();
        config["linux"]["gidMappings"] = map;
        // The mapped root makes devices where its root file system lets it.
        config["mounts"]
            .as_array_mut()
            .unwrap()
            .retain(|m| m["destination"] != "/dev");
        // A root file system that the mapped root may enter.
        config["mounts"]
            .as_array_mut()
            .unwrap()
            .retain(|m| m["destination"] != "/dev");
    };
    let runtime = Runtime::runc();
    let annotations = host.actor("u", "t");
    let bundle = Bundle::with(&host, "u", &annotations, userns);
    open_ways(&host, &bundle);
    let wrapped = runtime.wrapped(&host);
    wrapped.start(&bundle, "u");
    wrapped.sh("u", "echo x > /my-data/x");
    assert_eq!(wrapped.sh("u", "stat -c %u /my-data/x"), "0");
    let given = bundle.given(&host.path("m"));
    let on_disk = fs::metadata(given[0].1.join("x")).unwrap();
    assert_eq!(on_disk.uid(), 0, "on the disk it is root's");
    wrapped.end("u");
    host.until_nothing_is_published();

    for name in ["runc 1.1.5", "crun", "runsc"] {
        let Some(runtime) = Runtime::find(name) else {
            continue;
        };
        let before = bundle.text();
        let wrapped = runtime.wrapped(&host);
        let path = bundle.dir.display().to_string();
        let line = ["create", "--bundle", &path, "u"];
        wrapped.is_refused(&line, "does not tell by `features` that it maps the owners");
        assert_eq!(bundle.text(), before);
        host.until_nothing_is_published();
    }
}

/// The mapped root comes through the directories above the bundle, and has its root file
/// system.
fn open_ways(host: &Host, bundle: &Bundle) {
    use std::os::unix::fs::PermissionsExt;
    let root = bundle.dir.join("rootfs");
    fs::create_dir(root.join("my-data")).unwrap();
    for dir in ["", "dev", "proc", "tmp"] {
        std::os::unix::fs::chown(root.join(dir), Some(100_000), Some(100_000)).unwrap();
    }
    let open = fs::Permissions::from_mode(0o755);
    for dir in [host.path(""), bundle.dir.clone(), bundle.dir.join("rootfs")] {
        fs::set_permissions(dir, open.clone()).unwrap();
    }
}
