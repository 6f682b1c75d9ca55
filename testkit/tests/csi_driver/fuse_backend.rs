// SPDX-License-Identifier: Apache-2.0
//! Volumes whose server dies or freezes.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use actor_volumes_testkit::csi::{Backend, FuseOrder};

use crate::bench::{Bench, until};

async fn bench() -> Bench {
    let server = PathBuf::from(env!("CARGO_BIN_EXE_testkit-csi"));
    Bench::over(|root| Backend::Fuse { root, server }, |o| o.stats = true).await
}

/// Reads in a process of its own: it may hang.
fn reader(file: &Path) -> Child {
    let mut cat = Command::new("cat");
    cat.arg(file).stdout(Stdio::null()).stderr(Stdio::null());
    cat.spawn().unwrap()
}

const ENOTCONN: i32 = 107;

#[tokio::test]
#[ignore = "needs root: run by make test"]
async fn files_are_kept_over_a_dead_server() {
    let bench = bench().await;
    let mut caller = bench.caller.clone();
    caller.up().await;
    let target = caller.path("target");
    fs::create_dir(target.join("d")).unwrap();
    fs::write(target.join("d/f"), "kept").unwrap();
    fs::rename(target.join("d"), target.join("e")).unwrap();
    assert_eq!(fs::read_to_string(target.join("e/f")).unwrap(), "kept");
    assert_eq!(fs::read_dir(&target).unwrap().count(), 1);
    assert!(caller.stats().await.unwrap().usage[0].total > 0);

    bench.driver.fuse(&caller.id, FuseOrder::Kill).unwrap();
    let dead = |result: io::Result<fs::ReadDir>| result.err().and_then(|e| e.raw_os_error());
    assert_eq!(dead(fs::read_dir(&target)), Some(ENOTCONN));
    // Through the driver it comes back to life.
    caller.unpublish().await.unwrap();
    caller.stage().await.unwrap();
    caller.publish().await.unwrap();
    assert_eq!(fs::read_to_string(target.join("e/f")).unwrap(), "kept");
    fs::remove_file(target.join("e/f")).unwrap();
    fs::remove_dir(target.join("e")).unwrap();
    caller.down().await;
    bench.assert_no_rule_broken();
}

#[tokio::test]
#[ignore = "needs root: run by make test"]
async fn a_frozen_server_holds_up_readers_but_no_other_call() {
    let bench = bench().await;
    let mut caller = bench.caller.clone();
    caller.up().await;
    let file = caller.path("target/f");
    fs::write(&file, "x").unwrap();
    bench.driver.fuse(&caller.id, FuseOrder::Freeze).unwrap();
    let mut stuck = reader(&file);
    thread::sleep(Duration::from_millis(300));
    assert!(stuck.try_wait().unwrap().is_none(), "it was answered");
    let mut other = caller.clone();
    let mut request = other.creation();
    request.name = "av-2".into();
    other.create_as(request).await.unwrap();
    other.delete().await.unwrap();
    bench.driver.fuse(&caller.id, FuseOrder::Thaw).unwrap();
    assert!(stuck.wait().unwrap().success());
    // Killed while it is frozen, it lets everyone go.
    bench.driver.fuse(&caller.id, FuseOrder::Freeze).unwrap();
    let mut stuck = reader(&file);
    thread::sleep(Duration::from_millis(100));
    bench.driver.fuse(&caller.id, FuseOrder::Kill).unwrap();
    assert!(!stuck.wait().unwrap().success());
    caller.down().await;
    bench.assert_no_rule_broken();
}

#[tokio::test]
#[ignore = "needs root: run by make test"]
async fn no_server_is_left_when_a_test_ends_in_the_midst() {
    let bench = bench().await;
    let mut caller = bench.caller.clone();
    caller.up().await;
    let target = caller.path("target");
    let root = target.parent().unwrap().parent().unwrap().to_owned();
    let root = root.to_str().unwrap().to_owned();
    bench.driver.fuse(&caller.id, FuseOrder::Freeze).unwrap();
    drop(bench);
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(&root), "{mounts}");
    until("the server is gone", || {
        let processes = fs::read_dir("/proc").unwrap();
        !processes.flatten().any(|p| {
            let line = fs::read(p.path().join("cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).into_owned();
            line.contains("serve-fuse") && line.contains(&root)
        })
    });
}
