// SPDX-License-Identifier: Apache-2.0
//! What containers see of their volumes.

use std::{
    fs,
    os::unix::fs::{MetadataExt, chown},
};

use actor_volumes::proto::api::Door;

use crate::{
    bundle::{Place, SHIFT},
    runtimes::all,
};

#[test]
#[ignore = "needs root: it runs containers"]
fn a_volume_keeps_its_files_over_two_containers() {
    for runtime in all() {
        let mut place = Place::new();
        place.asks(&[("vol1", "/my-data", false)]);
        place.does(
            "echo kept > /my-data/f && cat /my-data/f && busybox mount | busybox grep my-data",
        );
        let first = place.run(runtime);
        assert!(first.stdout.starts_with("kept\n"), "{runtime:?}: {first:?}");
        for option in ["rw", "nosuid", "nodev"] {
            assert!(first.stdout.contains(option), "{first:?}");
        }
        let volume = place.agent.volume("vol1");
        assert_eq!(fs::read_to_string(volume.join("f")).unwrap(), "kept\n");
        place.does("cat /my-data/f").run(runtime).said("kept");
        place.is_clean();
        place.until_nobody_has_it();
        let scene = place.agent.scene();
        let given = &scene.given[0];
        assert!(given.door() == Door::Hook);
        assert_eq!(given.container_id, first.id);
        assert_eq!(given.container_name, "agent");
        assert_eq!(given.bundle, place.path("bundle").display().to_string());
        assert!(given.process.unwrap().pid > 1);
        assert!(given.pod.is_none() && given.user_namespace.is_empty());
        assert!(given.mounts.iter().any(|m| m.destination == "/proc"));
        // Each was told to be over.
        let released: Vec<_> = scene.released.iter().map(|r| &r.container_id).collect();
        let created: Vec<_> = scene.given.iter().map(|g| &g.container_id).collect();
        assert_eq!(released, created, "{runtime:?}");
    }
}

#[test]
#[ignore = "needs root: it runs containers"]
fn volumes_are_in_one_another_and_read_only_or_without_programs() {
    for runtime in all() {
        let mut place = Place::new();
        // In no order; the inner one's place is made in the outer volume.
        place.asks(&[
            ("inner", "/data/deep/inner", false),
            ("outer", "/data", false),
            ("fixed", "/fixed", true),
        ]);
        let fixed = place.agent.volume("fixed");
        fs::write(fixed.join("f"), "there").unwrap();
        place.does(
            "echo i > /data/deep/inner/f && echo o > /data/f && cat /fixed/f && \
             ! echo x 2>/dev/null > /fixed/g && busybox cp /bin/busybox /data/busybox && /data/busybox echo ran",
        );
        place.run(runtime).said("thereran");
        let files = |volume: &str| place.agent.volume(volume).join("f");
        assert_eq!(fs::read_to_string(files("inner")).unwrap(), "i\n");
        assert_eq!(fs::read_to_string(files("outer")).unwrap(), "o\n");
        let deep = place.agent.volume("outer").join("deep/inner");
        assert_eq!(fs::read_dir(&deep).unwrap().count(), 0);
        assert_eq!(deep.metadata().unwrap().mode() & 0o7777, 0o755);

        place.agent.scene().no_exec = true;
        place.does("/data/busybox echo ran 2>/dev/null || echo no");
        place.run(runtime).said("no");
        place.is_clean();
    }
}

#[test]
#[ignore = "needs root: it runs containers"]
fn owners_are_those_of_the_containers_user_namespace() {
    for runtime in all() {
        let mut place = Place::new();
        place.maps_users().asks(&[
            ("vol1", "/my-data", false),
            ("vol2", "/my-data/made/here", false),
        ]);
        place.does(
            "echo mine > /my-data/f && busybox chown 5:6 /my-data/f && \
             busybox stat -c '%u:%g' /my-data /my-data/f /my-data/made && echo x > /my-data/made/here/g",
        );
        place.run(runtime).said("0:0\n5:6\n0:0");
        let volume = place.agent.volume("vol1");
        let file = fs::metadata(volume.join("f")).unwrap();
        assert_eq!((file.uid(), file.gid()), (5, 6), "{runtime:?}");
        let made = fs::metadata(volume.join("made")).unwrap();
        assert_eq!((made.uid(), made.gid()), (0, 0));
        assert!(place.agent.volume("vol2").join("g").exists());
        let scene = place.agent.scene();
        let namespace = format!("/proc/{}/ns/user", scene.given[0].process.unwrap().pid);
        assert_eq!(scene.given[0].user_namespace, namespace);
        assert!(!scene.given[0].map_owners, "the hook does it");
        drop(scene);

        // What belongs to another user in the image: its directories are made all the same.
        chown(place.rootfs(), Some(0), Some(0)).unwrap();
        place.asks(&[("vol1", "/other/place", false)]);
        place.does("cat /other/place/f").run(runtime).said("mine");
        assert_eq!(fs::metadata(place.rootfs()).unwrap().uid(), 0);
        assert_ne!(SHIFT, 0);
        place.is_clean();
    }
}

#[test]
#[ignore = "needs root: it runs containers"]
fn a_container_that_is_not_ours_is_let_be() {
    for runtime in all() {
        let mut place = Place::new();
        place.asks(&[]).does("echo ran");
        place.config["annotations"] = serde_json::json!({"other.dev/a": "b"});
        // Neither the file nor the socket is looked at.
        fs::write(place.path("config.toml"), "broken = [").unwrap();
        place.agent.end();
        place.run(runtime).said("ran");
        place.config["annotations"] = serde_json::Value::Null;
        place.run(runtime).said("ran");
    }
}
