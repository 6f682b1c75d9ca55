// SPDX-License-Identifier: Apache-2.0
//! What drivers are sent, field by field.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write},
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use actor_volumes::{
    error::Kind,
    model::{AccessMode, SecretUse, VolumeMode},
    proto::csi::{
        controller_service_capability::rpc::Type as ControllerType,
        node_service_capability::rpc::Type as NodeType,
        volume_capability::{AccessType, access_mode::Mode},
    },
};
use tonic::Code;

use crate::{
    bench::{Bench, actor, resume, shown},
    recorder::{Abilities, Recorder},
};

const MOUNTED: &str = "volumeMounts: [{name: vol1, mountPath: /d}]";

fn knows_single_node_modes(abilities: &mut Abilities) {
    let modes = ControllerType::SingleNodeMultiWriter;
    abilities.controller.push(modes);
    abilities.node.push(NodeType::SingleNodeMultiWriter);
}

#[tokio::test]
async fn the_access_mode_is_what_the_driver_knows_of_what_the_template_asks() {
    for (word, knows, mode) in [
        ("ReadWriteOncePod", true, Mode::SingleNodeSingleWriter),
        ("ReadWriteOncePod", false, Mode::SingleNodeWriter),
        ("ReadWriteOnce", true, Mode::SingleNodeMultiWriter),
        ("ReadWriteOnce", false, Mode::SingleNodeWriter),
        ("ReadOnlyMany", true, Mode::MultiNodeReaderOnly),
        ("ReadWriteMany", false, Mode::MultiNodeMultiWriter),
    ] {
        let mut bench = Bench::recorded(|abilities| {
            abilities.controller.push(ControllerType::PublishReadonly);
            if knows {
                knows_single_node_modes(abilities);
            }
        })
        .await;
        bench.class("pool", "").await.unwrap();
        let volume = format!("capacity: 1Mi, accessMode: {word}");
        bench.template_that("t", MOUNTED, &volume).await.unwrap();
        bench.create("a", false).await.unwrap();
        bench.resume("a").await.unwrap();
        let world = bench.driver.world();
        let sent = world.created[0].volume_capabilities[0].access_mode.unwrap();
        assert!(sent.mode() == mode, "{word} {knows}");
        let attached = world.published[0].volume_capability.clone().unwrap();
        assert!(attached.access_mode.unwrap().mode() == mode);
        let nobody_writes = mode == Mode::MultiNodeReaderOnly;
        assert_eq!(world.published[0].readonly, nobody_writes, "{word}");
        drop(world);
        let grant = bench.control.current_grant(&actor("a")).unwrap();
        assert_eq!(grant.volumes[0].access_mode.as_str(), mode.as_str_name());
        assert_eq!(grant.mounts[0].read_only, nobody_writes);
    }
}

#[tokio::test]
async fn a_block_volume_is_created_attached_and_granted_as_a_device() {
    let mut bench = Bench::recorded(|_| {}).await;
    // What the class says of file systems is not for it.
    bench
        .class(
            "pool",
            "mountOptions: [noatime]\nparameters: {csi.storage.k8s.io/fstype: ext4}\n",
        )
        .await
        .unwrap();
    let uses = "volumeDevices: [{name: vol1, devicePath: /dev/xvda}]";
    let volume = "capacity: 1Mi, volumeMode: Block";
    bench.template_that("t", uses, volume).await.unwrap();
    bench.create("a", false).await.unwrap();
    bench.resume("a").await.unwrap();
    let grant = bench.control.current_grant(&actor("a")).unwrap();
    assert_eq!(grant.volumes[0].volume_mode, VolumeMode::Block);
    assert!(grant.volumes[0].mount_flags.is_empty() && grant.mounts.is_empty());
    assert_eq!(grant.devices.len(), 1);
    assert_eq!(grant.devices[0].device_path, "/dev/xvda");
    let world = bench.driver.world();
    let created = &world.created[0].volume_capabilities[0];
    let attached = world.published[0].volume_capability.as_ref().unwrap();
    for capability in [created, attached] {
        assert!(matches!(capability.access_type, Some(AccessType::Block(_))));
    }
}

#[tokio::test]
async fn the_group_goes_to_drivers_that_take_one_and_into_the_grant() {
    for takes in [true, false] {
        let mut bench = Bench::recorded(|abilities| {
            if takes {
                abilities.node.push(NodeType::VolumeMountGroup);
            }
        })
        .await;
        bench.class("pool", "").await.unwrap();
        let volume = "capacity: 1Mi, fsGroup: 1000";
        bench.template_that("t", MOUNTED, volume).await.unwrap();
        bench.create("a", false).await.unwrap();
        bench.resume("a").await.unwrap();
        let grant = bench.control.current_grant(&actor("a")).unwrap();
        assert_eq!(grant.volumes[0].mount_group, "1000");
        let world = bench.driver.world();
        let access = world.created[0].volume_capabilities[0].access_type.clone();
        let Some(AccessType::Mount(mount)) = access else {
            panic!("a file system was asked for");
        };
        assert_eq!(mount.volume_mount_group, if takes { "1000" } else { "" });
    }
}

#[tokio::test]
async fn an_selinux_context_is_a_flag_of_the_grant_and_the_templates_goes_first() {
    let (of_class, of_template) = ("u:r:t:s0", "u:r:t:s0:c1,c2");
    for (more, wanted) in [
        (String::new(), of_class),
        (
            format!(", seLinuxMountContext: '{of_template}'"),
            of_template,
        ),
    ] {
        let mut bench = Bench::recorded(|_| {}).await;
        let class = format!(
            "mountOptions: [noatime]\nparameters: {{actor-volumes.dev/selinux-mount-context: '{of_class}'}}\n"
        );
        bench.class("pool", &class).await.unwrap();
        let volume = format!("capacity: 1Mi{more}");
        bench.template_that("t", MOUNTED, &volume).await.unwrap();
        bench.create("a", false).await.unwrap();
        bench.resume("a").await.unwrap();
        let flags = ["noatime".to_owned(), format!("context=\"{wanted}\"")];
        let grant = bench.control.current_grant(&actor("a")).unwrap();
        assert_eq!(grant.volumes[0].mount_flags, flags);
        let world = bench.driver.world();
        assert!(world.created[0].parameters.is_empty(), "it is not for it");
        let access = world.created[0].volume_capabilities[0].access_type.clone();
        let Some(AccessType::Mount(mount)) = access else {
            panic!("a file system was asked for");
        };
        assert_eq!(mount.mount_flags, flags);
    }
}

/// Puts a secret where the vault looks.
fn write_secret(dir: &Path, name: &str, value: &str) {
    let path = dir.join("secrets/storage").join(name);
    fs::create_dir_all(&path).unwrap();
    fs::write(path.join("key"), value).unwrap();
    fs::set_permissions(path.join("key"), fs::Permissions::from_mode(0o600)).unwrap();
}

/// A class whose calls need a secret each, named after the use.
fn class_with_secrets() -> String {
    let mut text = "allowVolumeExpansion: true\nparameters:\n  tier: a\n".to_owned();
    for use_ in SecretUse::ALL {
        let use_ = use_.as_str();
        text.push_str(&format!(
            "  csi.storage.k8s.io/{use_}-secret-name: {use_}\n"
        ));
        text.push_str(&format!(
            "  csi.storage.k8s.io/{use_}-secret-namespace: storage\n"
        ));
    }
    text
}

/// What this process logs, from when it is first asked for.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    /// Of the whole process: what one thread listens to, another may have
    /// switched off.
    fn begin() -> Self {
        let log = Self::default();
        let written = log.clone();
        tracing_subscriber::fmt()
            .with_max_level(tracing::Level::DEBUG)
            .with_ansi(false)
            .with_writer(move || written.clone())
            .init();
        log
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn secrets_are_read_for_each_call_and_are_in_no_record_grant_or_log() {
    let log = Log::begin();
    let mut bench = Bench::recorded(|abilities| {
        abilities.controller.push(ControllerType::ExpandVolume);
        abilities.online = Some(true);
    })
    .await;
    let dir = bench.dir.path().to_owned();
    for use_ in SecretUse::ALL {
        write_secret(&dir, use_.as_str(), &format!("hush-1-{}", use_.as_str()));
    }
    bench.class("pool", &class_with_secrets()).await.unwrap();
    bench.template("t", "1Mi").await.unwrap();
    // A failure is logged; it must not show what was sent.
    bench
        .driver
        .fault("ControllerPublishVolume", Code::Internal, false);
    bench.create("a", true).await.unwrap();
    bench.resume("a").await.err().unwrap();
    bench.resume("a").await.unwrap();
    let uid = bench.volume().await.uid;
    let request = actor_volumes::proto::api::ExpandVolumeRequest {
        uid,
        capacity_bytes: 2 << 20,
        wait: true,
        timeout_ms: 5000,
    };
    bench.client.expand_volume(request).await.unwrap();
    let grant = bench.control.current_grant(&actor("a")).unwrap();
    let of_node: Vec<_> = grant.volumes[0].secret_refs.keys().copied().collect();
    assert_eq!(
        of_node,
        [
            SecretUse::NodeStage,
            SecretUse::NodePublish,
            SecretUse::NodeExpand
        ]
    );
    // Another value from here on: nobody kept the first.
    for use_ in SecretUse::ALL {
        write_secret(&dir, use_.as_str(), &format!("hush-2-{}", use_.as_str()));
    }
    bench.suspend("a", true).await.unwrap();
    bench.delete("a", true).await.unwrap();

    let key = |value: &str| [("key".to_owned(), value.to_owned())].into();
    {
        let world = bench.driver.world();
        assert_eq!(world.created[0].secrets, key("hush-1-provisioner"));
        assert!(!world.created[0].parameters.keys().any(|k| k.contains('/')));
        assert_eq!(world.published[0].secrets, key("hush-1-controller-publish"));
        assert_eq!(world.expanded[0].secrets, key("hush-1-controller-expand"));
        assert_eq!(
            world.unpublished[0].secrets,
            key("hush-2-controller-publish")
        );
        assert_eq!(world.deleted[0].secrets, key("hush-2-provisioner"));
    }
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(log.contains("a step failed"), "nothing was logged");
    let shows = log.lines().find(|l| l.contains("hush-"));
    assert_eq!(shows, None, "a secret is logged");
    assert!(!format!("{grant:?}").contains("hush-"));
    let store = fs::read(dir.join("control.redb")).unwrap();
    let holds = |what: &[u8]| store.windows(what.len()).any(|w| w == what);
    assert!(holds(b"storage/node-stage"), "the reference is kept");
    assert!(!holds(b"hush-"), "a secret is kept");
}

#[tokio::test]
async fn a_secret_that_is_not_there_yet_is_waited_for_and_leaves_nothing_in_doubt() {
    let mut bench = Bench::recorded(|_| {}).await;
    bench.class("pool", &class_with_secrets()).await.unwrap();
    bench.template("t", "1Mi").await.unwrap();
    bench.create("a", false).await.unwrap();
    let waiting = bench.until_volume("waits", |v| v.trouble.is_some()).await;
    let trouble = waiting.trouble.unwrap();
    assert!(
        trouble.message.contains("storage/provisioner"),
        "{}",
        shown(&trouble)
    );
    assert!(!waiting.uncertain && !trouble.ambiguous);
    assert_eq!(bench.driver.count("CreateVolume"), 0);
    let dir = bench.dir.path().to_owned();
    for use_ in SecretUse::ALL {
        write_secret(&dir, use_.as_str(), "hush");
    }
    bench.until_volume("made", |v| v.phase == "Ready").await;
}

fn zone(name: &str) -> BTreeMap<String, String> {
    [("x/zone".to_owned(), name.to_owned())].into()
}

/// The zones that CreateVolume was asked for: required, preferred.
fn zones(bench: &Bench<Recorder>, n: usize) -> (Vec<String>, Vec<String>) {
    let world = bench.driver.world();
    let asked = world.created[n].accessibility_requirements.clone();
    let asked = asked.unwrap_or_default();
    let zones = |all: &[actor_volumes::proto::csi::Topology]| {
        all.iter().map(|t| t.segments["x/zone"].clone()).collect()
    };
    (zones(&asked.requisite), zones(&asked.preferred))
}

#[tokio::test]
async fn a_volume_is_asked_for_where_the_class_and_the_node_say() {
    const ALLOWED: &str =
        "allowedTopologies: [{matchLabelExpressions: [{key: x/zone, values: [z0, z1, z2]}]}]\n";
    const LATER: &str = "volumeBindingMode: WaitForFirstConsumer\n";
    let both = format!("{ALLOWED}{LATER}");
    for (class, required, preferred) in [
        ("", vec!["z1"], vec!["z1"]),
        (LATER, vec!["z1"], vec!["z1"]),
        (ALLOWED, vec!["z0", "z1", "z2"], vec!["z1", "z0", "z2"]),
        (&both, vec!["z1"], vec!["z1"]),
    ] {
        let mut bench = Bench::recorded(|abilities| abilities.here = zone("z1")).await;
        bench.class("pool", class).await.unwrap();
        bench.template("t", "1Mi").await.unwrap();
        // The answer is lost, and what it was made of changes: the request does not.
        bench
            .driver
            .fault("CreateVolume", Code::DeadlineExceeded, true);
        bench.create("a", false).await.unwrap();
        bench.resume("a").await.unwrap();
        let (asked, better) = zones(&bench, 0);
        assert_eq!(
            (asked, better),
            (
                required.into_iter().map(str::to_owned).collect(),
                preferred.into_iter().map(str::to_owned).collect()
            ),
            "{class}"
        );
        let world = bench.driver.world();
        assert_eq!(world.created.len(), 2);
        assert!(world.created[0] == world.created[1]);
    }
}

#[tokio::test]
async fn a_request_that_was_sent_stays_what_it_was_over_a_restart() {
    let mut bench = Bench::recorded(|abilities| {
        abilities.here = zone("z1");
        knows_single_node_modes(abilities);
    })
    .await;
    bench.catalog().await;
    for _ in 0..3 {
        bench.driver.fault("CreateVolume", Code::Unavailable, true);
    }
    bench.create("a", false).await.unwrap();
    while bench.driver.count("CreateVolume") == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    bench.driver.world().abilities.here = zone("z2");
    let mut bench = bench.restart().await;
    bench.until_volume("made", |v| v.phase == "Ready").await;
    let world = bench.driver.world();
    for later in &world.created[1..] {
        assert!(later == &world.created[0]);
    }
}

#[tokio::test]
async fn a_node_that_does_not_reach_the_volume_is_refused_and_both_are_named() {
    let mut bench = Bench::recorded(|abilities| {
        abilities.here = zone("z1");
        abilities.made_at = vec![zone("z2"), zone("z3")];
    })
    .await;
    bench.catalog().await;
    let made = bench.create("a", true).await.unwrap();
    assert_eq!(
        made.volumes[0].accessible_topology,
        ["x/zone=z2", "x/zone=z3"]
    );
    let error = bench.resume("a").await.err().unwrap();
    assert_eq!(error.kind(), Kind::FailedPrecondition);
    let says = error.full_message();
    assert!(
        says.contains("x/zone=z2 or x/zone=z3") && says.contains("node-a is at x/zone=z1"),
        "{says}"
    );
    assert_eq!(bench.driver.count("ControllerPublishVolume"), 0);
    bench.suspend("a", true).await.unwrap();
    // Nothing was attached, so that nothing is detached.
    assert_eq!(bench.driver.count("ControllerUnpublishVolume"), 0);
    bench.delete("a", true).await.unwrap();
}

#[tokio::test]
async fn a_class_for_other_places_refuses_the_node_before_anything_is_made() {
    let mut bench = Bench::recorded(|abilities| abilities.here = zone("z1")).await;
    let class = "volumeBindingMode: WaitForFirstConsumer\nallowedTopologies: [{matchLabelExpressions: [{key: x/zone, values: [z2]}]}]\n";
    bench.class("pool", class).await.unwrap();
    bench.template("t", "1Mi").await.unwrap();
    bench.create("a", false).await.unwrap();
    let error = bench.resume("a").await.err().unwrap();
    assert_eq!(error.kind(), Kind::FailedPrecondition, "{error:?}");
    assert!(error.full_message().contains("x/zone=z2"), "{error:?}");
    assert_eq!(bench.driver.count("CreateVolume"), 0);
    bench.suspend("a", true).await.unwrap();
    bench.delete("a", true).await.unwrap();
    assert_eq!(bench.driver.count("CreateVolume"), 0);
}

#[tokio::test]
async fn a_node_takes_no_more_volumes_than_it_may_and_the_next_goes_on_when_one_goes() {
    let mut bench = Bench::recorded(|abilities| abilities.max_volumes = 1).await;
    bench.catalog().await;
    for name in ["a", "b"] {
        bench.create(name, true).await.unwrap();
    }
    bench.resume("a").await.unwrap();
    let mut short = resume("b");
    short.timeout_ms = 300;
    let error = bench
        .client
        .resume_actor(short.clone())
        .await
        .err()
        .unwrap();
    assert_eq!(error.kind(), Kind::ResourceExhausted, "{error:?}");
    let says = error.full_message();
    assert!(
        says.contains("1 volumes of CSI driver") && says.contains("allows 1"),
        "{says}"
    );
    assert_eq!(bench.driver.count("ControllerPublishVolume"), 1);
    // What is attached is counted again after a restart, what waits is not.
    let mut bench = bench.restart().await;
    let error = bench.client.resume_actor(short).await.err().unwrap();
    assert_eq!(error.kind(), Kind::ResourceExhausted, "{error:?}");
    assert_eq!(bench.driver.count("ControllerPublishVolume"), 1);
    bench.suspend("a", true).await.unwrap();
    bench.until("b", "Resumed").await;
    assert_eq!(bench.driver.count("ControllerPublishVolume"), 2);
    assert_eq!(
        bench.control.current_grant(&actor("b")).unwrap().volumes[0].access_mode,
        AccessMode::SingleNodeWriter
    );
}

#[tokio::test]
async fn what_is_in_doubt_is_shown_and_undone_in_one_direction() {
    let mut bench = Bench::recorded(|_| {}).await;
    bench.catalog().await;
    bench.create("a", true).await.unwrap();
    for _ in 0..40 {
        bench
            .driver
            .fault("ControllerPublishVolume", Code::Aborted, true);
    }
    let mut short = resume("a");
    short.timeout_ms = 200;
    bench.client.resume_actor(short).await.err().unwrap();
    let volume = bench.volume().await;
    let trouble = volume.attachments[0].trouble.clone().unwrap();
    assert!(volume.uncertain && trouble.ambiguous, "{}", shown(&volume));
    assert_eq!(trouble.in_doubt, "ControllerPublishVolume");
    assert!(trouble.attempts > 0 && !trouble.next_try.is_empty());
    bench.suspend("a", true).await.unwrap();
    let volume = bench.volume().await;
    assert!(!volume.uncertain && volume.attachments.is_empty());
    let world = bench.driver.world();
    let calls: Vec<_> = world
        .calls
        .iter()
        .filter(|c| c.starts_with("Controller"))
        .collect();
    let undo = calls
        .iter()
        .position(|c| **c == "ControllerUnpublishVolume");
    let after = &calls[undo.unwrap()..];
    assert!(!after.contains(&&"ControllerPublishVolume"), "{calls:?}");
    let same = world.published.iter().all(|r| r == &world.published[0]);
    assert!(same, "a retry with other fields");
}
