// SPDX-License-Identifier: Apache-2.0
//! What deleted volumes leave, what drivers have too much, and attachments that
//! drivers list otherwise than they are recorded.

use actor_volumes::{
    control::{
        record::{self, Tombstone, VolumeRecord, key},
        store::{Reader, Store, Write},
    },
    error::Kind,
    model::VolumeUid,
    proto::{api, csi::controller_service_capability::rpc::Type as ControllerType},
};
use tonic::Code;

use crate::{
    bench::{Bench, actor, shown, until},
    recorder::{Abilities, Recorder, Volume},
};

fn lists(abilities: &mut Abilities) {
    let list = [
        ControllerType::ListVolumes,
        ControllerType::ListVolumesPublishedNodes,
    ];
    abilities.controller.extend(list);
}

#[tokio::test]
async fn a_deleted_volume_leaves_a_tombstone_and_is_not_made_again() {
    let mut bench = Bench::recorded(|_| {}).await;
    bench.catalog().await;
    let made = bench.create("a", true).await.unwrap();
    let uid: VolumeUid = made.volumes[0].uid.parse().unwrap();
    bench.delete("a", true).await.unwrap();
    let found = bench.store.get(&key::tombstone(&uid)).unwrap().unwrap();
    let tombstone: Tombstone = record::decode("tombstone", &found.value).unwrap();
    assert_eq!(tombstone.volume_id, made.volumes[0].volume_id);
    assert_eq!(tombstone.csi_name, format!("av-{uid}"));
    assert!(bench.store.get(&key::volume(&uid)).unwrap().is_none());

    // A record that comes back, from a backup or by a mistake of ours.
    bench.driver.fault("CreateVolume", Code::OutOfRange, false);
    bench.create("b", true).await.err().unwrap();
    let uid: VolumeUid = bench.volumes().await[0].uid.parse().unwrap();
    let tombstone = Tombstone { uid, ..tombstone };
    bench
        .store
        .write(&[Write {
            key: key::tombstone(&tombstone.uid),
            expect: None,
            value: Some(record::encode(&tombstone).unwrap()),
        }])
        .unwrap();
    let sent = bench.driver.count("CreateVolume");
    let error = bench.create("b", true).await.err().unwrap();
    assert!(
        error.full_message().contains("was deleted before"),
        "{error:?}"
    );
    assert_eq!(bench.driver.count("CreateVolume"), sent);
}

#[tokio::test]
async fn a_volume_whose_id_was_never_learnt_is_made_again_to_be_deleted() {
    let mut bench = Bench::recorded(|_| {}).await;
    bench.catalog().await;
    bench
        .driver
        .fault("CreateVolume", Code::DeadlineExceeded, true);
    // The next one does not arrive, so that the id is not known at the delete.
    for _ in 0..3 {
        bench.driver.fault("CreateVolume", Code::Unavailable, false);
    }
    bench.create("a", false).await.unwrap();
    let shown = bench.until_volume("in doubt", |v| v.uncertain).await;
    assert_eq!(shown.volume_id, "");
    assert_eq!(shown.trouble.unwrap().in_doubt, "CreateVolume");
    bench.delete("a", true).await.unwrap();
    assert!(bench.driver.world().volumes.is_empty());
    assert_eq!(bench.driver.count("DeleteVolume"), 1);
}

/// An id that holds a name like ours.
fn stray(n: u32) -> String {
    format!("pool/av-0190f1c2-7a4b-7c3d-8e5f-{n:012}")
}

fn put(bench: &Bench<Recorder>, id: &str, node: Option<&str>) {
    let volume = Volume {
        capacity: 5,
        nodes: node.into_iter().map(str::to_owned).collect(),
    };
    bench.driver.world().volumes.insert(id.to_owned(), volume);
}

async fn orphans(bench: &mut Bench<Recorder>) -> Vec<api::Orphan> {
    let request = api::ListOrphansRequest::default();
    bench.client.list_orphans(request).await.unwrap().orphans
}

#[tokio::test]
async fn orphans_are_reported_and_only_those_named_are_deleted() {
    let mut bench = Bench::recorded(lists).await;
    bench.catalog().await;
    bench.create("a", true).await.unwrap();
    bench.resume("a").await.unwrap();
    let ours = bench.volumes().await[0].volume_id.clone();
    put(&bench, "somebody-else", None);
    for n in 1..=3 {
        put(&bench, &stray(n), (n == 3).then_some("id-z"));
    }
    let found = orphans(&mut bench).await;
    let ids: Vec<_> = found.iter().map(|o| o.volume_id.clone()).collect();
    assert_eq!(ids, [stray(1), stray(2), stray(3)]);
    assert!(found[0].why.contains("holds the name"), "{}", shown(&found));
    assert_eq!(found[2].nodes, ["id-z"]);
    assert_eq!(bench.driver.count("DeleteVolume"), 0);

    let delete = |ids: Vec<String>, all| api::DeleteOrphansRequest {
        driver: String::new(),
        volume_ids: ids,
        all,
    };
    // One that is none stops it all.
    for no_orphan in [ours.clone(), "somebody-else".into()] {
        let request = delete(vec![stray(1), no_orphan], false);
        let error = bench.client.delete_orphans(request).await.err().unwrap();
        assert_eq!(error.kind(), Kind::FailedPrecondition, "{error:?}");
        assert_eq!(bench.driver.count("DeleteVolume"), 0);
    }
    for request in [delete(vec![], false), delete(vec![stray(1)], true)] {
        let error = bench.client.delete_orphans(request).await.err().unwrap();
        assert_eq!(error.kind(), Kind::InvalidInput, "{error:?}");
    }
    let request = delete(vec![stray(1)], false);
    let answer = bench.client.delete_orphans(request).await.unwrap();
    assert!(answer.orphans[0].deleted && !answer.orphans[1].deleted);
    // Of all that are left, the one that is attached stays.
    let answer = bench.client.delete_orphans(delete(vec![], true)).await;
    let answer = answer.unwrap().orphans;
    assert!(answer[0].deleted && !answer[1].deleted);
    assert!(
        answer[1].message.contains("attached to id-z"),
        "{}",
        shown(&answer)
    );
    let left: Vec<_> = bench.driver.world().volumes.keys().cloned().collect();
    let mut wanted = vec![ours, stray(3), "somebody-else".into()];
    wanted.sort();
    assert_eq!(left, wanted);
}

#[tokio::test]
async fn a_volume_that_is_being_created_is_no_orphan() {
    let mut bench = Bench::recorded(lists).await;
    bench.catalog().await;
    for _ in 0..100 {
        bench
            .driver
            .fault("CreateVolume", Code::DeadlineExceeded, true);
    }
    bench.create("a", false).await.unwrap();
    bench.until_volume("in doubt", |v| v.uncertain).await;
    assert_eq!(bench.driver.world().volumes.len(), 1);
    assert!(orphans(&mut bench).await.is_empty());
}

#[tokio::test]
async fn a_deleted_volume_that_the_driver_still_has_is_an_orphan_unless_its_id_may_be_taken() {
    let mut bench = Bench::recorded(|abilities| {
        lists(abilities);
        abilities.plain_ids = true;
    })
    .await;
    bench.catalog().await;
    bench.create("a", true).await.unwrap();
    let id = bench.volumes().await[0].volume_id.clone();
    bench.delete("a", true).await.unwrap();
    assert!(orphans(&mut bench).await.is_empty());
    // The driver said that it is gone, and lists it.
    put(&bench, &id, None);
    let found = orphans(&mut bench).await;
    assert_eq!(found.len(), 1);
    assert!(
        found[0].why.contains("had this id, and was deleted"),
        "{}",
        shown(&found)
    );
    // While a volume is made whose id is not known, it may be that one.
    for _ in 0..1000 {
        bench.driver.fault("CreateVolume", Code::Aborted, false);
    }
    bench.create("b", false).await.unwrap();
    bench.until_volume("in doubt", |v| v.uncertain).await;
    let request = api::DeleteOrphansRequest {
        all: true,
        ..Default::default()
    };
    let answer = bench.client.delete_orphans(request).await.unwrap();
    assert!(answer.orphans.is_empty());
    assert!(
        answer.notes[0].contains("look again later"),
        "{}",
        shown(&answer)
    );
    assert!(bench.driver.world().volumes.contains_key(&id));
}

#[tokio::test]
async fn a_driver_that_does_not_list_says_so() {
    let mut bench = Bench::recorded(|_| {}).await;
    let answer = bench
        .client
        .list_orphans(api::ListOrphansRequest::default())
        .await
        .unwrap();
    assert!(answer.orphans.is_empty());
    assert!(
        answer.notes[0].contains("LIST_VOLUMES"),
        "{}",
        shown(&answer)
    );
}

#[tokio::test]
async fn an_attachment_that_the_driver_lost_is_made_again_and_its_context_renewed() {
    let mut bench = Bench::recorded(lists).await;
    bench.catalog().await;
    bench.create("a", true).await.unwrap();
    bench.resume("a").await.unwrap();
    let turn = |bench: &Bench<Recorder>| {
        let grant = bench.control.current_grant(&actor("a")).unwrap();
        grant.volumes[0].publish_context["turn"].clone()
    };
    assert_eq!(turn(&bench), "1");
    // As long as the driver lists it, nothing is done.
    let listed = bench.driver.count("ListVolumes");
    until("listed", || bench.driver.count("ListVolumes") > listed + 3).await;
    assert_eq!(bench.driver.count("ControllerPublishVolume"), 1);
    let lose = |bench: &Bench<Recorder>| {
        let mut world = bench.driver.world();
        world.volumes.values_mut().next().unwrap().nodes.clear();
    };
    lose(&bench);
    until("attached again", || turn(&bench) == "2").await;
    assert_eq!(bench.show("a").await.unwrap().phase, "Resumed");
    assert_eq!(bench.control.repairs().attached_again, 1);
    {
        let world = bench.driver.world();
        assert!(world.published[0] == world.published[1]);
    }
    // One listing alone proves nothing.
    bench.driver.fault("ListVolumes", Code::Unavailable, false);
    bench.suspend("a", true).await.unwrap();
    assert_eq!(bench.driver.count("ControllerUnpublishVolume"), 1);
}

#[tokio::test]
async fn a_node_from_which_a_volume_was_detached_is_detached_again_and_no_other() {
    let mut bench = Bench::recorded(lists).await;
    bench.catalog().await;
    bench.create("a", true).await.unwrap();
    bench.resume("a").await.unwrap();
    bench.suspend("a", true).await.unwrap();
    assert_eq!(bench.driver.count("ControllerUnpublishVolume"), 1);
    let attach = |bench: &Bench<Recorder>, node: &str| {
        let mut world = bench.driver.world();
        let volume = world.volumes.values_mut().next().unwrap();
        volume.nodes.insert(node.to_owned());
    };
    attach(&bench, "id-of-somebody");
    attach(&bench, "id-a");
    until("detached again", || {
        bench.driver.count("ControllerUnpublishVolume") == 2
    })
    .await;
    until("counted", || bench.control.repairs().detached_again == 1).await;
    let listed = bench.driver.count("ListVolumes");
    until("listed", || bench.driver.count("ListVolumes") > listed + 3).await;
    let world = bench.driver.world();
    assert!(world.unpublished[0] == world.unpublished[1]);
    assert_eq!(world.unpublished.len(), 2);
    let volume = world.volumes.values().next().unwrap();
    assert!(volume.nodes.contains("id-of-somebody"));
}

#[tokio::test]
async fn a_detach_that_was_begun_again_comes_to_its_end_before_a_resume_attaches() {
    let mut bench = Bench::recorded(lists).await;
    bench.catalog().await;
    bench.create("a", true).await.unwrap();
    bench.resume("a").await.unwrap();
    bench.suspend("a", true).await.unwrap();
    for _ in 0..5 {
        bench
            .driver
            .fault("ControllerUnpublishVolume", Code::Unavailable, true);
    }
    {
        let mut world = bench.driver.world();
        let volume = world.volumes.values_mut().next().unwrap();
        volume.nodes.insert("id-a".to_owned());
    }
    bench.until_volume("in doubt", |v| v.uncertain).await;
    let mut bench = bench.restart().await;
    bench.resume("a").await.unwrap();
    let world = bench.driver.world();
    let last: Vec<_> = world
        .calls
        .iter()
        .filter(|c| c.ends_with("publishVolume") || c.ends_with("PublishVolume"))
        .collect();
    assert_eq!(*last[last.len() - 1], "ControllerPublishVolume", "{last:?}");
    assert_eq!(
        world.unpublished.len(),
        7,
        "every try, and the one that was answered"
    );
}

#[tokio::test]
async fn what_a_record_keeps_reads_back() {
    let mut bench = Bench::recorded(lists).await;
    bench.catalog().await;
    let made = bench.create("a", true).await.unwrap();
    let uid: VolumeUid = made.volumes[0].uid.parse().unwrap();
    let stored = bench.store.get(&key::volume(&uid)).unwrap().unwrap();
    let volume: VolumeRecord = record::decode("volume", &stored.value).unwrap();
    let again = record::encode(&volume).unwrap();
    assert_eq!(again, stored.value);
    assert!(volume.prepared);
}

#[tokio::test]
async fn a_deletion_does_not_wait_for_a_node_that_is_away_and_it_forgets_the_volume_later() {
    let mut bench = Bench::recorded(|_| {}).await;
    bench.catalog().await;
    let made = bench.create("a", true).await.unwrap();
    let volume = &made.volumes[0];
    bench.resume("a").await.unwrap();
    bench.suspend("a", true).await.unwrap();
    *bench.node.out_of_order.lock().unwrap() = true;
    bench.delete("a", true).await.unwrap();
    let stored = bench.store.get(&format!("tombstone/{}", volume.uid));
    let tombstone: Tombstone =
        record::decode("tombstone", &stored.unwrap().unwrap().value).unwrap();
    let untold: Vec<_> = tombstone.untold.iter().map(|n| n.as_str()).collect();
    assert_eq!(untold, [bench.control.node().as_str()]);
    assert_eq!(*bench.node.forgotten.lock().unwrap(), [] as [String; 0]);

    // A restart of the control plane forgets no node, and asks at once.
    *bench.node.out_of_order.lock().unwrap() = false;
    let bench = bench.restart().await;
    let untold = || bench.store.index("untold/", None, 1).unwrap().items;
    until("all nodes are told", || untold().is_empty()).await;
    let forgotten = bench.node.forgotten.lock().unwrap().clone();
    assert_eq!(forgotten, std::slice::from_ref(&volume.volume_id));
}
