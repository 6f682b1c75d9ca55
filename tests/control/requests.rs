// SPDX-License-Identifier: Apache-2.0
//! Requests that name themselves, and verbs that come while another is under way.

use std::time::Duration;

use crate::{
    bench::{Bench, actor},
    cli::{failure, out},
    updates::{POOL, apply, bench, json},
};

async fn resumed() -> Bench {
    let bench = bench().await;
    apply(&bench, &[("a", POOL)]).await;
    out(
        &bench,
        "actor create agents/a --template t --wait --request-id c1",
    )
    .await;
    out(&bench, "actor resume agents/a --request-id r1").await;
    bench
}

fn generation(bench: &Bench) -> Option<u64> {
    let grant = bench.control.current_grant(&actor("a"))?;
    Some(grant.generation().0)
}

#[tokio::test]
async fn a_request_that_comes_twice_is_carried_out_once_also_after_a_restart() {
    let bench = resumed().await;
    let first = out(&bench, "actor resume agents/a --request-id r1").await;
    let bench = bench.restart().await;
    assert_eq!(
        out(&bench, "actor resume agents/a --request-id r1").await,
        first
    );
    let suspend = "actor suspend agents/a --wait --request-id s1";
    out(&bench, suspend).await;
    // The late copy of the resume resumes nothing.
    let late = "actor resume agents/a --request-id r1";
    let (code, says) = failure(&bench, late).await;
    assert_eq!(code, 7, "{says}");
    assert_eq!(generation(&bench), None);
    out(&bench, "actor resume agents/a --request-id r2").await;
    assert_eq!(generation(&bench), Some(2));
    // Nor does the late copy of the suspend end what came after it.
    let bench = bench.restart().await;
    out(&bench, suspend).await;
    assert_eq!(generation(&bench), Some(2));
    let (code, _) = failure(&bench, late).await;
    assert_eq!(code, 7);
    out(&bench, "actor create agents/a --template t --request-id c1").await;
}

#[tokio::test]
async fn an_id_stands_for_one_verb_with_one_set_of_arguments() {
    let bench = resumed().await;
    for line in [
        "actor suspend agents/a --request-id r1",
        "actor resume agents/a --container agent --request-id r1",
        "actor delete agents/a --request-id c1",
        "actor crash agents/a --request-id r1",
        "actor update agents/a --request-id r1",
    ] {
        let (code, says) = failure(&bench, line).await;
        assert_eq!(code, 3, "{line}: {says}");
        assert!(says.contains("request id"), "{line}: {says}");
    }
    assert_eq!(generation(&bench), Some(1));
    let long = "x".repeat(65);
    let (code, _) = failure(
        &bench,
        &format!("actor suspend agents/a --request-id {long}"),
    )
    .await;
    assert_eq!(code, 3);
}

#[tokio::test]
async fn a_resume_waits_for_a_suspend_and_says_what_that_waits_for() {
    let bench = resumed().await;
    bench.node.hold("pod agents/p");
    out(&bench, "actor suspend agents/a --request-id s1").await;
    let (code, says) = failure(&bench, "actor resume agents/a --timeout 500ms").await;
    assert_eq!(code, 7, "{says}");
    for part in [
        "suspend (request s1)",
        "volume a",
        "node node-a",
        "pod agents/p",
    ] {
        assert!(says.contains(part), "{part}: {says}");
    }
    let (resumed, ()) = tokio::join!(out(&bench, "actor resume agents/a"), async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        bench.node.release();
    });
    assert!(resumed.contains("\"actor-volumes.dev/actor\""), "{resumed}");
    assert_eq!(generation(&bench), Some(2));
}

#[tokio::test]
async fn nothing_hangs_on_the_connection_of_the_caller() {
    let bench = resumed().await;
    bench.node.hold("pod agents/p");
    // The caller waits, and is gone before the end.
    let (_, says) = failure(&bench, "actor suspend agents/a --wait --timeout 200ms").await;
    assert!(says.contains("in the background"), "{says}");
    out(&bench, "actor delete agents/a").await;
    let shown = json(&bench, "actor show agents/a").await;
    assert_eq!(shown["deleting"], true);
    let (code, says) = failure(&bench, "actor resume agents/a").await;
    assert_eq!(code, 7);
    assert!(says.contains("delete"), "{says}");
    bench.node.release();
    while !bench.driver.volumes().is_empty() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    bench.is_clean();
}
