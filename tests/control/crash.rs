// SPDX-License-Identifier: Apache-2.0
//! `actor crash`: the grant is over, and what was flushed is there at the next
//! resume.

use std::time::{Duration, Instant};

use testkit::csi::Fault;

use crate::{
    bench::actor,
    cli::{failure, out},
    updates::{POOL, apply, bench, json},
};

#[tokio::test]
async fn a_crash_goes_the_way_of_a_suspend_and_is_remembered() {
    let bench = bench().await;
    apply(&bench, &[("a", POOL)]).await;
    out(&bench, "actor create agents/a --template t --wait").await;
    let (code, says) = failure(&bench, "actor crash agents/a").await;
    assert_eq!(code, 5, "{says}");
    out(&bench, "actor resume agents/a").await;
    let id = bench.control.current_grant(&actor("a")).unwrap().volumes[0]
        .volume_id
        .clone();
    bench.node.hold("pod p");
    let told = out(&bench, "actor crash agents/a").await;
    assert_eq!(told, "actor agents/a has crashed, it is suspending\n");
    assert_eq!(bench.control.current_grant(&actor("a")), None);
    assert_eq!(bench.node.revoked.lock().unwrap()[&id], 1);
    // Release is proven or it is not: a crash proves nothing.
    let line = "actor crash agents/a --wait --timeout 300ms";
    let (_, says) = failure(&bench, line).await;
    assert!(says.contains("pod p"), "{says}");
    assert_eq!(bench.driver.count("ControllerUnpublishVolume"), 0);

    let bench = bench.restart().await;
    bench.node.release();
    out(&bench, "actor crash agents/a --wait").await;
    out(&bench, "actor crash agents/a --wait").await;
    let shown = json(&bench, "actor show agents/a").await;
    assert_eq!(
        (&shown["phase"], &shown["lastEnd"]),
        (&"Suspended".into(), &"Crashed".into())
    );
    assert_ne!(shown["lastEndAt"], "");
    // The very same volume, at the next generation.
    out(&bench, "actor resume agents/a").await;
    let grant = bench.control.current_grant(&actor("a")).unwrap();
    assert_eq!(
        (&grant.volumes[0].volume_id, grant.generation().0),
        (&id, 2)
    );
    out(&bench, "actor suspend agents/a --wait").await;
    let shown = json(&bench, "actor show agents/a").await;
    assert_eq!(shown["lastEnd"], "Suspended");
    bench.kept_the_rules();
}

#[tokio::test]
async fn an_actor_can_crash_while_it_is_being_resumed() {
    let bench = bench().await;
    apply(&bench, &[("a", POOL)]).await;
    out(&bench, "actor create agents/a --template t --wait").await;
    bench.driver.fault(
        "ControllerPublishVolume",
        Fault::fail(tonic::Code::Unavailable),
    );
    failure(&bench, "actor resume agents/a --timeout 300ms").await;
    let (code, says) = failure(&bench, "actor delete agents/a").await;
    assert_eq!(code, 7, "{says}");
    assert!(says.contains("resume"), "{says}");
    out(&bench, "actor crash agents/a --wait").await;
    bench.driver.clear_faults();
    out(&bench, "actor delete agents/a --wait").await;
    bench.is_clean();
}

#[tokio::test]
async fn the_volumes_of_an_actor_go_side_by_side() {
    let bench = bench().await;
    let names = ["a", "b", "c", "d"];
    let volumes = names.map(|name| (name, POOL));
    apply(&bench, &volumes).await;
    // No call is answered: one after the other, only one would be there.
    let open_calls = async |rpc: &str| {
        let end = Instant::now() + Duration::from_secs(30);
        loop {
            let calls = bench.driver.calls();
            let open = calls.iter().filter(|c| c.method == rpc && c.code.is_none());
            if open.count() == 4 {
                return;
            }
            assert!(Instant::now() < end, "{rpc} came one by one");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    bench.driver.fault("CreateVolume", Fault::hang());
    out(&bench, "actor create agents/a --template t").await;
    open_calls("CreateVolume").await;
    bench.driver.clear_faults();
    out(&bench, "actor create agents/a --template t --wait").await;
    bench.driver.fault("ControllerPublishVolume", Fault::hang());
    failure(&bench, "actor resume agents/a --timeout 10ms").await;
    open_calls("ControllerPublishVolume").await;
    bench.driver.clear_faults();
    out(&bench, "actor resume agents/a").await;
}
