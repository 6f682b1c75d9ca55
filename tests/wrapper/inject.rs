// SPDX-License-Identifier: Apache-2.0
//! `bundle inject` and `bundle release`.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
};

use testkit::csi::{Backend, Cleanup, CsiDriver, Options};

use crate::{bundle::Bundle, host::Host, runtime::Runtime};

#[test]
#[ignore = "needs root: run by make test"]
fn a_bundle_is_given_its_volume_once_and_its_runtime_needs_no_wrapper() {
    let host = Host::start();
    for runtime in Runtime::all() {
        let name = format!("b-{}", runtime.name.replace([' ', '.'], "-"));
        let annotations = host.actor(&name, "t");
        let bundle = Bundle::new(&host, &name, &annotations);
        fs::set_permissions(bundle.config(), fs::Permissions::from_mode(0o640)).unwrap();
        let (path, before) = (bundle.dir.display().to_string(), bundle.text());
        let real = runtime.program.display().to_string();
        let inject = ["bundle", "inject", &path, "--runtime", &real];
        assert!(host.av(&inject).contains("has its volumes now"));
        let with = bundle.text();
        assert!(host.av(&inject).contains("already"));
        assert_eq!(bundle.text(), with);
        assert_eq!(bundle.config().metadata().unwrap().mode() & 0o7777, 0o640);
        let given = bundle.given(&host.path("m"));
        assert_eq!(given.len(), 1);

        let wrapped = runtime.wrapped(&host);
        let bare = wrapped.bare();
        bare.start(&bundle, &name);
        bare.sh(&name, "echo x > /my-data/x");
        assert!(given[0].1.join("x").exists());
        // Somebody has it: it is out of the file, and not released.
        let release = ["bundle", "release", &path, "--timeout", "300ms"];
        let held = host.try_av(&release);
        assert_eq!(held.status.code(), Some(7), "{held:?}");
        let said = String::from_utf8_lossy(&held.stderr);
        assert!(said.contains("is not released"), "{said}");
        assert_eq!(bundle.text(), before, "{runtime:?}");
        assert!(!host.published().is_empty());
        bare.end(&name);
        let release = ["bundle", "release", &path];
        assert!(host.av(&release).contains("is released"));
        host.until_nothing_is_published();
        // Once more is harmless, also when the bundle is gone.
        host.av(&release);
        fs::remove_dir_all(&bundle.dir).unwrap();
        host.av(&release);
        host.suspend(&name);
    }
}

#[test]
#[ignore = "needs root: run by make test"]
fn a_bundle_that_asks_for_nothing_or_may_not_have_it_stays_as_it_is() {
    let host = Host::start();
    let foreign = Bundle::new(&host, "foreign", &BTreeMap::new());
    let before = foreign.text();
    let path = foreign.dir.display().to_string();
    assert!(host.av(&["bundle", "inject", &path]).contains("no volume"));
    assert_eq!(foreign.text(), before);

    let annotations = host.actor("a", "t");
    let bundle = Bundle::new(&host, "a", &annotations);
    let path = bundle.dir.display().to_string();
    host.suspend("a");
    let before = bundle.text();
    let refused = host.try_av(&["bundle", "inject", &path]);
    assert!(!refused.status.success());
    assert_eq!(bundle.text(), before);
    host.until_nothing_is_published();
    fs::remove_file(bundle.config()).unwrap();
    let missing = host.try_av(&["bundle", "inject", &path]);
    assert_eq!(missing.status.code(), Some(4), "{missing:?}");
}

#[test]
#[ignore = "needs root: run by make test"]
fn a_bundle_that_is_gone_unreleased_gives_its_volume_back() {
    let host = Host::start();
    let annotations = host.actor("a", "t");
    let bundle = Bundle::new(&host, "a", &annotations);
    host.av(&["bundle", "inject", &bundle.dir.display().to_string()]);
    assert!(!host.published().is_empty());
    fs::remove_dir_all(&bundle.dir).unwrap();
    host.until_nothing_is_published();
    host.suspend("a");
}

const RAW: &str = "\
kind: ActorTemplate
metadata: {name: raw}
spec:
  containers:
  - name: agent
    volumeDevices: [{name: vol1, devicePath: /dev/xvda}]
  volumes:
  - name: vol1
    externalVolumeTemplate: {capacity: 16Mi, storageClassName: raw, volumeMode: Block}
";

#[test]
#[ignore = "needs root: run by make test"]
fn a_raw_volume_is_a_device_of_the_container() {
    let dir = tempfile::Builder::new().prefix("avb").tempdir().unwrap();
    let socket = dir.path().join("csi.sock");
    let at = dir.path().display();
    let driving = tokio::runtime::Runtime::new().unwrap();
    let root = dir.path().join("backend");
    let backend = Backend::Loop { root };
    let _cleanup = Cleanup::new(&backend);
    let options = Options::new(backend);
    let driver = driving.block_on(CsiDriver::start_with(&socket, options));
    let host = Host::start_with(&format!(
        "[[driver]]\nname = \"testkit.actor-volumes.dev\"\nendpoint = \"{at}/csi.sock\"\n"
    ));
    host.apply(
        "storageclass",
        "kind: StorageClass\nmetadata: {name: raw}\nprovisioner: testkit.actor-volumes.dev\n",
    );
    host.apply("template", RAW);
    let annotations = host.actor("raw", "raw");
    for name in ["runc 1.1.5", "runc 1.5"] {
        let Some(runtime) = Runtime::find(name) else {
            continue;
        };
        let bundle = Bundle::new(&host, "raw", &annotations);
        let wrapped = runtime.wrapped(&host);
        wrapped.start(&bundle, "raw");
        let size = wrapped.sh("raw", "blockdev --getsize64 /dev/xvda");
        assert_eq!(size, (16 << 20).to_string());
        wrapped.sh(
            "raw",
            "echo precious | dd of=/dev/xvda bs=512 seek=7 conv=fsync",
        );
        let read = wrapped.sh(
            "raw",
            "dd if=/dev/xvda bs=512 skip=7 count=1 2>/dev/null | head -n 1",
        );
        assert_eq!(read, "precious");
        wrapped.end("raw");
        host.until_nothing_is_published();
        fs::remove_dir_all(&bundle.dir).unwrap();
    }
    if let Some(runtime) = Runtime::find("runsc") {
        let bundle = Bundle::new(&host, "raw", &annotations);
        let before = bundle.text();
        let path = bundle.dir.display().to_string();
        let create = ["create", "--bundle", &path, "raw"];
        runtime
            .wrapped(&host)
            .is_refused(&create, "gVisor has no block devices");
        assert_eq!(bundle.text(), before);
        host.until_nothing_is_published();
    }
    host.suspend("raw");
    drop(host);
    drop(driver);
}
