// SPDX-License-Identifier: Apache-2.0
//! The helper is a process of its own: where it is away, what needs it waits, and
//! nothing else does.

use crate::node::{Node, Over, Setup};

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root: run by make test"]
async fn what_needs_a_helper_that_is_away_says_so_and_is_done_when_it_is_back() {
    let setup = Setup {
        mount_group: "4242".into(),
        ..Setup::default()
    };
    let node = Node::over(Over::Bind, setup, |_| ()).await;
    node.helper.lock().unwrap().kill();
    let sandbox = node.sandbox("s1", 1);
    node.until("it is said", async || {
        let error = node.create(&sandbox, "c1").await.unwrap_err();
        assert_eq!(error.kind(), actor_volumes::error::Kind::Unavailable);
        error
            .full_message()
            .contains("is `actor-volumes helper` running?")
    })
    .await;
    node.helper.lock().unwrap().restart();
    node.create_until(&sandbox, "c1").await;
    // The way back needs none.
    node.helper.lock().unwrap().kill();
    node.end("s1", "c1");
    node.finish().await;
}
