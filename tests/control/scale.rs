// SPDX-License-Identifier: Apache-2.0
//! What is in memory, what is counted, and lists by what they are asked for.

use std::collections::BTreeMap;

use actor_volumes::{error::Kind, proto::api};

use crate::bench::{Bench, actor};

/// Without phases that nothing is in.
fn some(counts: BTreeMap<String, u64>) -> BTreeMap<String, u64> {
    counts.into_iter().filter(|(_, n)| *n > 0).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn actors_at_rest_are_read_when_they_are_asked_for() {
    let mut bench = Bench::new().await;
    bench.catalog().await;
    for name in ["a", "b", "c"] {
        bench.create(name, true).await.unwrap();
    }
    let resumed = bench.resume("b").await.unwrap();
    let mut bench = bench.restart().await;
    assert_eq!(bench.control.actors_in_memory(), 1);
    let grant = bench.control.current_grant(&actor("b"));
    assert!(grant.is_some(), "a grant is there after a restart");

    // Who only looks leaves nothing in memory.
    assert_eq!(bench.show("a").await.unwrap().volumes.len(), 1);
    assert_eq!(bench.volumes().await.len(), 3);
    let all = bench.client.actors(api::ListActorsRequest::default()).await;
    assert_eq!(all.unwrap().len(), 3);
    assert_eq!(bench.show("x").await.err().unwrap().kind(), Kind::NotFound);
    assert_eq!(bench.control.actors_in_memory(), 1);

    // Verbs go on where the records stand.
    let again = bench.resume("b").await.unwrap();
    assert_eq!(again.annotations, resumed.annotations);
    bench.resume("a").await.unwrap();
    for name in ["a", "b"] {
        bench.suspend(name, true).await.unwrap();
    }
    assert_eq!(
        bench.resume("x").await.err().unwrap().kind(),
        Kind::NotFound
    );
    for name in ["a", "b", "c"] {
        bench.delete(name, true).await.unwrap();
    }
    bench.create("a", true).await.unwrap();
    bench.delete("a", true).await.unwrap();
    bench.is_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn actors_and_volumes_are_counted_as_they_change_and_after_a_restart() {
    let mut bench = Bench::new().await;
    bench.catalog().await;
    bench.class("keep", "reclaimPolicy: Retain").await.unwrap();
    for name in ["a", "b", "c"] {
        bench.create(name, true).await.unwrap();
    }
    let retained = bench.template_that(
        "t",
        "volumeMounts: [{name: vol1, mountPath: /my-data}]",
        "capacity: 1Mi, reclaimPolicy: Retain",
    );
    retained.await.unwrap();
    bench.create("d", true).await.unwrap();
    bench.delete("d", true).await.unwrap();
    bench.resume("b").await.unwrap();
    bench.delete("c", true).await.unwrap();
    let count = |of: &Bench| {
        let counts = of.control.counts();
        (some(counts.actors), some(counts.volumes))
    };
    let numbers = |all: &[(&str, u64)]| {
        let all = all.iter().map(|(phase, n)| ((*phase).to_owned(), *n));
        all.collect::<BTreeMap<_, _>>()
    };
    let expected = (
        numbers(&[("Resumed", 1), ("Suspended", 1)]),
        numbers(&[("Ready", 2), ("Retained", 1)]),
    );
    assert_eq!(count(&bench), expected);
    let bench = bench.restart().await;
    assert_eq!(count(&bench), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_are_by_namespace_template_actor_and_node_and_in_pages() {
    let mut bench = Bench::new().await;
    bench.catalog().await;
    bench.template("u", "1Mi").await.unwrap();
    for (name, template) in [("a", "t"), ("b", "u"), ("c", "t"), ("d", "t")] {
        let request = api::CreateActorRequest {
            namespace: "agents".into(),
            name: name.into(),
            template: template.into(),
            wait: true,
            timeout_ms: 10_000,
            ..Default::default()
        };
        bench.client.create_actor(request).await.unwrap();
    }
    bench.resume("c").await.unwrap();
    let names = |actors: Vec<api::Actor>| actors.into_iter().map(|a| a.name).collect::<Vec<_>>();
    for (namespace, template, expected) in [
        ("", "t", vec!["a", "c", "d"]),
        ("agents", "t", vec!["a", "c", "d"]),
        ("agents", "", vec!["a", "b", "c", "d"]),
        ("agent", "", vec![]),
        ("other", "t", vec![]),
        ("", "u", vec!["b"]),
    ] {
        let request = api::ListActorsRequest {
            namespace: namespace.into(),
            template: template.into(),
            page_size: 2,
            ..Default::default()
        };
        let found = names(bench.client.actors(request).await.unwrap());
        assert_eq!(found, expected, "{namespace} {template}");
    }
    let owners = async |bench: &mut Bench, actor: &str, node: &str| {
        let request = api::ListVolumesRequest {
            actor: actor.into(),
            node: node.into(),
            page_size: 1,
            ..Default::default()
        };
        let volumes = bench.client.volumes(request).await;
        volumes.map(|v| v.into_iter().map(|v| v.actor).collect::<Vec<_>>())
    };
    assert_eq!(
        owners(&mut bench, "agents/b", "").await.unwrap(),
        ["agents/b"]
    );
    let node = bench.control.node().to_string();
    assert_eq!(owners(&mut bench, "", &node).await.unwrap(), ["agents/c"]);
    assert!(owners(&mut bench, "", "nowhere").await.unwrap().is_empty());
    let missing = owners(&mut bench, "agents/x", "").await.unwrap_err();
    assert_eq!(missing.kind(), Kind::NotFound);
    let both = owners(&mut bench, "agents/b", &node).await.unwrap_err();
    assert_eq!(both.kind(), Kind::InvalidInput);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_token_goes_on_with_its_own_listing_alone() {
    let mut bench = Bench::new().await;
    bench.catalog().await;
    for name in ["a", "b"] {
        bench.create(name, true).await.unwrap();
    }
    let control = &bench.control;
    let (page, next) = control.actors(Default::default(), None, 1).await.unwrap();
    assert_eq!(page.len(), 1);
    let of_template = actor_volumes::control::ActorFilter {
        template: Some("t".parse().unwrap()),
        ..Default::default()
    };
    let refused = control.actors(of_template, next.clone(), 1).await;
    assert_eq!(refused.unwrap_err().kind(), Kind::InvalidInput);
    // What went meanwhile does not disturb those that follow.
    let (page, last) = control.actors(Default::default(), next, 1).await.unwrap();
    assert_eq!((page[0].actor.actor.clone(), last), (actor("b"), None));
    let request = api::ListActorsRequest {
        page_token: "no token".into(),
        ..Default::default()
    };
    let garbled = bench.client.actors(request).await.err().unwrap();
    assert_eq!(garbled.kind(), Kind::InvalidInput);
}
