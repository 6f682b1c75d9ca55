// SPDX-License-Identifier: Apache-2.0
//! Where in its root file system a container's volume comes to be.

use std::{fs, os::unix::fs::symlink, process::Command};

use crate::{
    bundle::Place,
    runtimes::{all, runc},
};

fn sh(script: &str) {
    let status = Command::new("sh").args(["-c", script]).status().unwrap();
    assert!(status.success(), "{script}");
}

#[test]
#[ignore = "needs root: it runs containers"]
fn no_link_leads_out_of_the_root_file_system() {
    for runtime in all() {
        let mut place = Place::new();
        for (name, to) in [
            ("lnk", "/etc"),
            ("up", "../../../../../../../../etc"),
            ("proc-root", "/proc/self/root/etc"),
            ("into-proc", "/proc/1"),
            ("root", "../../../.."),
            ("dangling", "/not/there"),
            ("file", "/bin/busybox"),
        ] {
            symlink(to, place.rootfs().join(name)).unwrap();
        }
        // In the container: what is covered is the image's own directory.
        for path in ["/lnk/x", "/up/x", "/lnk"] {
            place.asks(&[("vol1", path, false)]);
            place.does(&format!("echo x > {path}/f && busybox find /etc -name f"));
            let at = if path == "/lnk" { "/etc/f" } else { "/etc/x/f" };
            place.run(runtime).said(at);
        }
        assert!(place.rootfs().join("etc/x").exists());
        assert!(!std::path::Path::new("/etc/x").exists());
        for (path, why) in [
            ("/proc-root", "leads nowhere, or out of"),
            ("/into-proc", "the kernel's file system proc"),
            ("/proc/new", "the kernel's file system proc"),
            ("/root", "the root of the container's file system"),
            ("/dangling", "leads nowhere, or out of"),
            ("/dangling/deeper", "leads nowhere, or out of"),
            ("/file", "no directory"),
            ("/bin/busybox/x", "no directory"),
        ] {
            place.asks(&[("vol1", path, false)]).does("echo ran");
            // crun keeps to itself what hooks say.
            let why = if runtime.name == "crun" { "" } else { why };
            place.run(runtime).is_refused(why);
        }
        assert!(!place.rootfs().join("not").exists());
        place.is_clean();
        place.until_nobody_has_it();
    }
}

#[test]
#[ignore = "needs root: it runs containers"]
fn a_missing_directory_is_made_unless_the_root_file_system_is_read_only() {
    let runtime = runc();
    let mut place = Place::new();
    place
        .asks(&[("vol1", "/not/there", false)])
        .does("echo x > /not/there/f");
    // The runtime makes it read-only in the end.
    place.config["root"]["readonly"] = true.into();
    place.run(runtime).said("");
    assert!(place.rootfs().join("not/there").exists());
    fs::remove_dir(place.rootfs().join("not/there")).unwrap();
    fs::remove_dir(place.rootfs().join("not")).unwrap();
    let rootfs = place.rootfs().display().to_string();
    sh(&format!(
        "mount --bind {rootfs} {rootfs} && mount -o remount,bind,ro {rootfs}"
    ));
    let refused = place.run(runtime);
    refused.is_refused("read-only");
    refused.is_refused("make it in the image, or use the wrapper");
    sh(&format!("umount {rootfs}"));
    assert!(!place.rootfs().join("not").exists());
    fs::create_dir_all(place.rootfs().join("not/there")).unwrap();
    sh(&format!(
        "mount --bind {rootfs} {rootfs} && mount -o remount,bind,ro {rootfs}"
    ));
    place.does("cat /not/there/f").run(runtime).said("x");
    sh(&format!("umount {rootfs}"));
    place.is_clean();
}

#[test]
#[ignore = "needs root: it runs containers"]
fn what_the_container_has_there_already_is_not_covered() {
    let mut place = Place::new();
    place.asks(&[("vol1", "/my-data", false), ("vol2", "/dev/shm", false)]);
    let mounts = place.config["mounts"].as_array_mut().unwrap();
    mounts.push(serde_json::json!({"destination": "/dev/shm", "type": "tmpfs", "source": "shm"}));
    place.does("echo ran");
    for runtime in all() {
        let why = if runtime.name == "crun" {
            ""
        } else {
            "something else is mounted"
        };
        place.run(runtime).is_refused(why);
        place.until_nobody_has_it();
    }
    // With something at every place of the grant another door has been before.
    let mounts = place.config["mounts"].as_array_mut().unwrap();
    mounts.push(serde_json::json!({"destination": "/my-data", "type": "tmpfs", "source": "x"}));
    let before = place.agent.scene().given.len();
    place.run(runc()).said("ran");
    let scene = place.agent.scene();
    assert_eq!((scene.given.len(), scene.checked.len()), (before, 1));
    drop(scene);
    place.is_clean();
}

#[test]
#[ignore = "needs root: it runs containers"]
fn hooks_that_run_twice_mount_once() {
    for runtime in all() {
        let mut place = Place::new();
        place.asks(&[("vol1", "/my-data", false)]);
        let hooks = &mut place.config["hooks"];
        hooks["prestart"] = hooks["createRuntime"].clone();
        hooks["prestart"][0]["args"][2] = "prestart".into();
        place.does("busybox mount | busybox grep -c /my-data");
        place.run(runtime).said("1");
        assert_eq!(place.agent.scene().given.len(), 2);
    }
}

#[test]
#[ignore = "needs root: it runs containers"]
fn a_mount_that_would_be_seen_outside_is_refused() {
    let runtime = runc();
    let mut place = Place::new();
    place.asks(&[("vol1", "/my-data", false)]).does("echo ran");
    place.config["linux"]["rootfsPropagation"] = "shared".into();
    let ran = place.run(runtime);
    // A runtime that makes it shared after the hooks shows the volume.
    if !ran.output.status.success() {
        ran.is_refused("rootfsPropagation");
    }
    place.is_clean();
}
