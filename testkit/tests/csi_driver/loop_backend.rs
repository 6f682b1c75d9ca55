// SPDX-License-Identifier: Apache-2.0
//! Volumes that are real block devices.

use std::{
    fs,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::Path,
};

use actor_volumes::{
    host::mount::is_mount_point,
    proto::csi::{self as wire, volume_content_source as source},
};
use actor_volumes_testkit::csi::{Backend, Expansion, Fault, Options};
use tonic::Code;

use crate::bench::{Bench, MIB, block};

async fn bench(change: impl FnOnce(&mut Options)) -> Bench {
    Bench::over(
        |root| Backend::Loop { root },
        |o| {
            o.stats = true;
            o.expand_controller = true;
            o.expand_node = true;
            o.node_expansion_required = true;
            o.expansion = Some(Expansion::Online);
            change(o);
        },
    )
    .await
}

fn devices(bench: &Bench) -> usize {
    let listed = std::process::Command::new("losetup").arg("-a").output();
    let listed = String::from_utf8(listed.unwrap().stdout).unwrap();
    let root = bench.caller.path("");
    let root = root.parent().unwrap().to_str().unwrap().to_owned();
    listed.lines().filter(|l| l.contains(&root)).count()
}

/// Whether a mounted ext4 may be resized: CAP_SYS_RESOURCE, which not every root
/// has.
fn may_resize() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let mut lines = status.lines();
    let capabilities = lines.find_map(|l| l.strip_prefix("CapEff:")).unwrap();
    u64::from_str_radix(capabilities.trim(), 16).unwrap() & (1 << 24) != 0
}

#[tokio::test]
#[ignore = "needs root: run by make test"]
async fn a_volume_keeps_its_files_and_grows_while_it_is_used() {
    let bench = bench(|_| {}).await;
    let mut caller = bench.caller.clone();
    caller.up().await;
    let target = caller.path("target");
    assert!(is_mount_point(&target).unwrap());
    fs::write(target.join("f"), "kept").unwrap();
    let total = |stats: wire::NodeGetVolumeStatsResponse| stats.usage[0].total;
    let before = total(caller.stats().await.unwrap());
    assert!(before > 16 * MIB && before < 32 * MIB, "{before}");
    assert!(
        caller
            .expand(128 * MIB)
            .await
            .unwrap()
            .node_expansion_required
    );
    assert_eq!(total(caller.stats().await.unwrap()), before);
    let grown = caller.node_expand(128 * MIB).await;
    if may_resize() {
        grown.unwrap();
        assert!(total(caller.stats().await.unwrap()) > 100 * MIB);
    } else {
        // The kernel does not let us while it is mounted; it grows when it is
        // staged again.
        let refused = grown.err().unwrap();
        assert!(refused.message().contains("resize2fs"), "{refused}");
    }
    for _ in 0..2 {
        caller.unpublish().await.unwrap();
        caller.unstage().await.unwrap();
        assert_eq!(devices(&bench), 0);
        caller.stage().await.unwrap();
        caller.publish().await.unwrap();
        assert_eq!(fs::read_to_string(target.join("f")).unwrap(), "kept");
        assert!(total(caller.stats().await.unwrap()) > 100 * MIB);
        caller.node_expand(128 * MIB).await.unwrap();
    }
    caller.down().await;
    assert_eq!(devices(&bench), 0);
    bench.assert_no_rule_broken();
}

#[tokio::test]
#[ignore = "needs root: run by make test"]
async fn a_volume_in_use_is_not_unmounted() {
    let bench = bench(|_| {}).await;
    let mut caller = bench.caller.clone();
    caller.up().await;
    let user = fs::File::create(caller.path("target/f")).unwrap();
    let busy = caller.unpublish().await.err().unwrap();
    assert!(
        busy.code() == Code::Internal && busy.message().contains("busy"),
        "{busy}"
    );
    drop(user);
    caller.unpublish().await.unwrap();
    let user = fs::File::open(caller.path("staging/f")).unwrap();
    let busy = caller.unstage().await.err().unwrap();
    assert!(
        busy.code() == Code::Internal && busy.message().contains("busy"),
        "{busy}"
    );
    drop(user);
    caller.unstage().await.unwrap();
    caller.delete().await.unwrap();
    bench.assert_no_rule_broken();
}

#[tokio::test]
#[ignore = "needs root: run by make test"]
async fn a_block_volume_is_a_device() {
    let bench = bench(|_| {}).await;
    let mut caller = bench.caller.clone();
    caller.capability = block();
    caller.up().await;
    let target = caller.path("target");
    let found = fs::metadata(&target).unwrap();
    assert!(found.file_type().is_block_device());
    fs::OpenOptions::new().write(true).open(&target).unwrap();
    assert_eq!(caller.stats().await.unwrap().usage[0].total, 32 * MIB);
    caller.expand(64 * MIB).await.unwrap();
    caller.node_expand(64 * MIB).await.unwrap();
    assert_eq!(caller.stats().await.unwrap().usage[0].total, 64 * MIB);
    caller.down().await;
    assert!(!target.exists());
    assert_eq!(devices(&bench), 0);
    bench.assert_no_rule_broken();
}

#[tokio::test]
#[ignore = "needs root: run by make test"]
async fn a_group_gets_the_files_and_lies_leave_the_host_behind_the_target() {
    let bench = bench(|o| o.mount_group = true).await;
    let mut caller = bench.caller.clone();
    let access = caller.capability.access_type.as_mut();
    if let Some(wire::volume_capability::AccessType::Mount(m)) = access {
        m.volume_mount_group = "1234".into();
        m.mount_flags = vec!["noatime".into()];
    }
    caller.create().await.unwrap();
    bench.driver.fault("NodeStageVolume", Fault::lie().times(1));
    caller.stage().await.unwrap();
    let mounted = |path: &Path| is_mount_point(path).unwrap();
    assert!(!mounted(&caller.path("staging")));
    caller.stage().await.unwrap();
    assert!(mounted(&caller.path("staging")));
    caller.publish().await.unwrap();
    let found = fs::metadata(caller.path("target")).unwrap();
    assert_eq!((found.gid(), found.mode() & 0o2070), (1234, 0o2070));
    bench
        .driver
        .fault("NodeUnpublishVolume", Fault::lie().times(1));
    caller.unpublish().await.unwrap();
    assert!(mounted(&caller.path("target")));
    caller.down().await;
    bench.assert_no_rule_broken();
}

#[tokio::test]
#[ignore = "needs root: run by make test"]
async fn a_driver_without_staging_mounts_at_the_target() {
    let bench = bench(|o| {
        o.stage = false;
        o.clone_volume = true;
    })
    .await;
    let mut caller = bench.caller.clone();
    caller.up().await;
    fs::write(caller.path("target/f"), "cloned").unwrap();
    caller.unpublish().await.unwrap();
    assert_eq!(devices(&bench), 0);
    let mut clone = caller.clone();
    let mut request = clone.creation();
    request.name = "av-2".into();
    request.volume_content_source = Some(wire::VolumeContentSource {
        r#type: Some(source::Type::Volume(source::VolumeSource {
            volume_id: caller.id.clone(),
        })),
    });
    clone.create_as(request).await.unwrap();
    clone.publish().await.unwrap();
    let read = fs::read_to_string(clone.path("target/f")).unwrap();
    assert_eq!(read, "cloned");
    clone.down().await;
    caller.delete().await.unwrap();
    bench.assert_no_rule_broken();
}

#[tokio::test]
#[ignore = "needs root: run by make test"]
async fn nothing_is_left_when_a_test_ends_in_the_midst() {
    let bench = bench(|_| {}).await;
    let mut caller = bench.caller.clone();
    caller.up().await;
    let target = caller.path("target");
    let open = fs::File::create(target.join("f")).unwrap();
    let root = target.parent().unwrap().parent().unwrap().to_owned();
    drop(bench);
    drop(open);
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(root.to_str().unwrap()), "{mounts}");
    crate::bench::until("the device is gone", || {
        let listed = std::process::Command::new("losetup").arg("-a").output();
        let listed = String::from_utf8(listed.unwrap().stdout).unwrap();
        !listed.contains(root.to_str().unwrap())
    });
}
