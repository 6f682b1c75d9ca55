// SPDX-License-Identifier: Apache-2.0
//! Order, retries, and what may follow an answer that nobody heard.

use actor_volumes::proto::csi::volume_capability::access_mode::Mode;
use tonic::Code;

use super::scene::{Ending, Judged, Scene, map, mount, size};
use crate::csi::{Expansion, Options};

fn plain(_: &mut Options) {}

fn growing(options: &mut Options) {
    options.expand_controller = true;
    options.expand_node = true;
    options.expansion = Some(Expansion::Online);
}

#[track_caller]
fn breaks(judged: Judged, says: &str) {
    let broken = judged.expect_err(says);
    assert!(broken.text.contains(says), "{says}: {}", broken.text);
}

#[test]
fn the_whole_chain_there_and_back_breaks_no_rule_even_if_each_call_is_made_twice() {
    let mut s = Scene::new(growing);
    for _ in 0..2 {
        s.create(|_| ()).unwrap();
    }
    for _ in 0..2 {
        s.attach(|_| ()).unwrap();
    }
    for _ in 0..2 {
        s.stage(|_| ()).unwrap();
    }
    for _ in 0..2 {
        s.publish(|_| ()).unwrap();
    }
    for _ in 0..2 {
        s.expand(|_| ()).unwrap();
        s.node_expand(|_| ()).unwrap();
    }
    for _ in 0..2 {
        s.unpublish(|_| ()).unwrap();
    }
    for _ in 0..2 {
        s.unstage(|_| ()).unwrap();
    }
    for _ in 0..2 {
        s.detach(|_| ()).unwrap();
    }
    for _ in 0..2 {
        s.delete(|_| ()).unwrap();
    }
}

#[test]
fn nothing_comes_before_what_it_needs_was_answered_with_ok() {
    for ending in [
        Ending::Unheard,
        Ending::Failed(Code::Unavailable),
        Ending::Failed(Code::Internal),
    ] {
        let mut s = Scene::new(plain);
        s.created().ending(ending).attach(|_| ()).unwrap();
        breaks(s.stage(|_| ()), "not attached");

        let mut s = Scene::new(plain);
        s.attached().ending(ending).stage(|_| ()).unwrap();
        breaks(s.publish(|_| ()), "but it is staged at");
    }
}

#[test]
fn what_may_be_there_must_be_undone_first() {
    for ending in [
        Ending::Heard,
        Ending::Unheard,
        Ending::Failed(Code::Aborted),
    ] {
        let mut s = Scene::new(plain);
        s.staged().ending(ending).publish(|_| ()).unwrap();
        breaks(s.unstage(|_| ()), "while it is published");
        breaks(s.detach(|_| ()), "before it was released");

        let mut s = Scene::new(plain);
        s.attached().ending(ending).stage(|_| ()).unwrap();
        breaks(s.detach(|_| ()), "before it was released");

        let mut s = Scene::new(plain);
        s.created().ending(ending).attach(|_| ()).unwrap();
        breaks(s.delete(|_| ()), "while it is in use");
    }
}

#[test]
fn what_failed_for_good_needs_no_undoing() {
    let mut s = Scene::new(plain);
    let failed = Ending::Failed(Code::InvalidArgument);
    s.staged().ending(failed).publish(|_| ()).unwrap();
    // It may be mended, too.
    s.publish(|r| r.readonly = true).unwrap();
    s.ending(Ending::Heard).unstage(|_| ()).unwrap();
    s.detach(|_| ()).unwrap();
    s.delete(|_| ()).unwrap();
}

#[test]
fn exhausted_means_no_to_the_controller_and_maybe_to_a_node() {
    let exhausted = Ending::Failed(Code::ResourceExhausted);
    let mut s = Scene::new(plain);
    s.ending(exhausted).create(|_| ()).unwrap();
    s.create(|r| r.capacity_range = Some(size(5))).unwrap();

    let mut s = Scene::new(plain);
    s.staged().ending(exhausted).publish(|_| ()).unwrap();
    breaks(s.unstage(|_| ()), "while it is published");
}

#[test]
fn an_undoing_that_nobody_heard_of_is_not_done() {
    for ending in [
        Ending::Unheard,
        Ending::Failed(Code::DeadlineExceeded),
        Ending::Failed(Code::Internal),
    ] {
        let mut s = Scene::new(plain);
        s.published().ending(ending).unpublish(|_| ()).unwrap();
        breaks(s.unstage(|_| ()), "while it is published");
        s.ending(Ending::Heard).unpublish(|_| ()).unwrap();
        s.ending(ending).unstage(|_| ()).unwrap();
        breaks(s.detach(|_| ()), "before it was released");
        breaks(s.publish(|_| ()), "but it is staged at");
        s.ending(Ending::Heard).unstage(|_| ()).unwrap();
        s.ending(ending).detach(|_| ()).unwrap();
        breaks(s.stage(|_| ()), "not attached");
        breaks(s.delete(|_| ()), "while it is in use");
        s.ending(Ending::Heard).detach(|_| ()).unwrap();
        s.delete(|_| ()).unwrap();
    }
}

#[test]
fn a_volume_that_the_driver_can_not_find_is_gone() {
    let mut s = Scene::new(plain);
    s.published().ending(Ending::Failed(Code::NotFound));
    s.unpublish(|_| ()).unwrap();
    s.unstage(|_| ()).unwrap();
    s.detach(|_| ()).unwrap();
    s.delete(|_| ()).unwrap();
}

#[test]
fn nothing_but_another_try_follows_a_delete() {
    let mut s = Scene::new(plain);
    s.created().ending(Ending::Unheard).delete(|_| ()).unwrap();
    breaks(s.attach(|_| ()), "after DeleteVolume was called");
    s.ending(Ending::Heard).delete(|_| ()).unwrap();
    breaks(s.attach(|_| ()), "after it was deleted");
    breaks(s.detach(|_| ()), "after it was deleted");
    breaks(s.create(|_| ()), "after it was deleted");
    s.delete(|_| ()).unwrap();
    // One that was refused changes nothing.
    let mut s = Scene::new(plain);
    let refused = Ending::Failed(Code::FailedPrecondition);
    s.created().ending(refused).delete(|_| ()).unwrap();
    s.ending(Ending::Heard).attach(|_| ()).unwrap();
}

#[test]
fn retries_are_identical() {
    const OTHER: &str = "a retry with other fields: ";
    let unheard = |before: fn(&mut Scene) -> &mut Scene| {
        let mut scene = Scene::new(|o| {
            growing(o);
            o.publish_readonly = true;
            o.topologies
                .insert("node-a".into(), [("z".into(), "1".into())].into());
        });
        before(&mut scene).ending(Ending::Unheard);
        scene
    };
    let other = |field: &str, judged| breaks(judged, &format!("{OTHER}{field}"));
    let block = || {
        let mut capability = mount(Mode::SingleNodeWriter);
        capability.access_type = Some(
            actor_volumes::proto::csi::volume_capability::AccessType::Block(Default::default()),
        );
        capability
    };

    let mut s = unheard(|s| s);
    s.create(|_| ()).unwrap();
    s.create(|_| ()).unwrap();
    other(
        "capacity_range",
        s.create(|r| r.capacity_range = Some(size(5))),
    );
    other("parameters", s.create(|r| r.parameters = map([("k", "v")])));
    other(
        "volume_capabilities",
        s.create(|r| r.volume_capabilities = vec![block()]),
    );
    let required = actor_volumes::proto::csi::TopologyRequirement {
        requisite: vec![actor_volumes::proto::csi::Topology {
            segments: map([("z", "1")]),
        }],
        preferred: Vec::new(),
    };
    other(
        "accessibility_requirements",
        s.create(|r| r.accessibility_requirements = Some(required)),
    );

    let mut s = unheard(Scene::created);
    s.attach(|_| ()).unwrap();
    s.attach(|_| ()).unwrap();
    other("readonly", s.attach(|r| r.readonly = true));
    other(
        "volume_capability",
        s.attach(|r| r.volume_capability = Some(block())),
    );

    let mut s = unheard(Scene::attached);
    s.stage(|_| ()).unwrap();
    s.stage(|_| ()).unwrap();
    other(
        "volume_capability",
        s.stage(|r| r.volume_capability = Some(block())),
    );

    let mut s = unheard(Scene::staged);
    s.publish(|_| ()).unwrap();
    s.publish(|_| ()).unwrap();
    other("readonly", s.publish(|r| r.readonly = true));

    let mut s = unheard(Scene::published);
    s.expand(|_| ()).unwrap();
    s.expand(|_| ()).unwrap();
    other(
        "capacity_range",
        s.expand(|r| r.capacity_range = Some(size(5))),
    );
    s.ending(Ending::Heard).expand(|_| ()).unwrap();
    s.ending(Ending::Unheard).node_expand(|_| ()).unwrap();
    s.node_expand(|_| ()).unwrap();
    other(
        "capacity_range",
        s.node_expand(|r| r.capacity_range = Some(size(5))),
    );
}

#[test]
fn what_was_undone_may_be_done_otherwise() {
    let mut s = Scene::new(growing);
    s.published().unpublish(|_| ()).unwrap();
    s.publish(|r| r.readonly = true).unwrap();
    s.unpublish(|_| ()).unwrap();
    s.unstage(|_| ()).unwrap();
    let many = || Some(mount(Mode::MultiNodeMultiWriter));
    s.stage(|r| r.volume_capability = many()).unwrap();
    s.unstage(|_| ()).unwrap();
    s.detach(|_| ()).unwrap();
    s.attach(|r| r.volume_capability = many()).unwrap();
    s.expand(|_| ()).unwrap();
    s.expand(|r| r.capacity_range = Some(size(5 << 20)))
        .unwrap();
}

#[test]
fn a_volume_is_at_one_node_unless_it_is_for_many() {
    let mut s = Scene::new(plain);
    s.attached().node = "node-b";
    breaks(s.attach(|_| ()), "still attached to");
    s.node = "node-a";
    s.ending(Ending::Unheard).detach(|_| ()).unwrap();
    s.node = "node-b";
    breaks(s.attach(|_| ()), "still attached to");

    let many = || Some(mount(Mode::MultiNodeMultiWriter));
    let mut s = Scene::new(plain);
    s.created();
    s.attach(|r| r.volume_capability = many()).unwrap();
    s.node = "node-b";
    s.attach(|r| r.volume_capability = many()).unwrap();
    // The context of one node is nothing for the other.
    let wrong = map([("token", "node-a")]);
    breaks(
        s.stage(|r| r.publish_context = wrong),
        "another publish_context",
    );
    s.stage(|r| r.volume_capability = many()).unwrap();
}

#[test]
fn a_volume_is_at_one_target_unless_it_is_for_many() {
    for (mode, many) in [
        (Mode::SingleNodeWriter, false),
        (Mode::SingleNodeSingleWriter, false),
        (Mode::SingleNodeMultiWriter, true),
        (Mode::MultiNodeReaderOnly, true),
    ] {
        let mut s = Scene::new(plain);
        s.staged();
        s.publish(|r| r.volume_capability = Some(mount(mode)))
            .unwrap();
        let second = s.publish(|r| {
            r.volume_capability = Some(mount(mode));
            r.target_path += "-2";
        });
        match many {
            true => second.unwrap(),
            false => breaks(second, "still published at"),
        }
    }
}

#[test]
fn what_was_on_a_node_that_is_gone_is_gone() {
    let mut s = Scene::new(plain);
    s.published();
    breaks(s.detach(|_| ()), "before it was released");
    s.fence("node-b");
    breaks(s.detach(|_| ()), "before it was released");
    s.fence("node-a");
    s.detach(|_| ()).unwrap();
    s.node = "node-b";
    s.attach(|_| ()).unwrap();
}
