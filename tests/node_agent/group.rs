// SPDX-License-Identifier: Apache-2.0
//! fsGroup: the root directory, and nothing else, belongs to the group.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
};

use crate::node::{Node, Over, Setup, shell};

const GROUP: &str = "4242";

fn setup() -> Setup {
    Setup {
        mount_group: GROUP.into(),
        ..Setup::default()
    }
}

/// Makes the file as uid 1000 with this supplementary group.
fn touch(directory: &Path, group: &str, file: &str) -> bool {
    let who = format!("setpriv --reuid 1000 --regid 1000 --groups {group}");
    shell(directory, &format!("{who} touch {file}"))
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root: run by make test"]
async fn an_unprivileged_process_of_the_group_writes_on_a_fresh_volume() {
    let node = Node::over(Over::Bind, setup(), |_| ()).await;
    let sandbox = node.sandbox("s1", 1);
    let target = node.create_until(&sandbox, "c1").await;
    assert!(touch(&target, GROUP, "f"), "the group may not write");
    assert!(!touch(&target, "4243", "g"), "anybody may write");
    // New files are of the group too.
    assert_eq!(fs::metadata(target.join("f")).unwrap().gid(), 4242);
    node.end("s1", "c1");
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root: run by make test"]
async fn what_an_actor_made_of_it_stays_as_long_as_the_group_has_its_root() {
    let node = Node::over(Over::Bind, setup(), |_| ()).await;
    let sandbox = node.sandbox("s1", 1);
    let target = node.create_until(&sandbox, "c1").await;
    let inner = target.join("private");
    fs::create_dir(&inner).unwrap();
    std::os::unix::fs::chown(&inner, Some(7), Some(7)).unwrap();
    fs::set_permissions(&inner, fs::Permissions::from_mode(0o700)).unwrap();
    fs::set_permissions(&target, fs::Permissions::from_mode(0o3777)).unwrap();
    let changed = fs::metadata(&target).unwrap().ctime_nsec();
    node.end("s1", "c1");
    node.until_released().await;

    let next = node.sandbox("s2", 2);
    let target = node.create_until(&next, "c2").await;
    let root = fs::metadata(&target).unwrap();
    assert_eq!((root.mode() & 0o7777, root.ctime_nsec()), (0o3777, changed));
    let inner = fs::metadata(target.join("private")).unwrap();
    assert_eq!((inner.gid(), inner.mode() & 0o7777), (7, 0o700));
    node.end("s2", "c2");
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root: run by make test"]
async fn a_driver_that_sees_to_the_group_is_asked_and_one_that_shows_it_read_only_is_left_alone() {
    let node = Node::over(Over::Bind, setup(), |o| o.mount_group = true).await;
    let sandbox = node.sandbox("s1", 1);
    node.create_until(&sandbox, "c1").await;
    assert_eq!(node.driver.mount_group(&node.volume.volume_id), Some(4242));
    node.end("s1", "c1");
    node.finish().await;

    let read_only = Setup {
        read_only: true,
        ..setup()
    };
    let node = Node::over(Over::Bind, read_only, |_| ()).await;
    let sandbox = node.sandbox("s1", 1);
    let target = node.create_until(&sandbox, "c1").await;
    assert_ne!(fs::metadata(&target).unwrap().gid(), 4242);
    node.end("s1", "c1");
    node.finish().await;
}
