// SPDX-License-Identifier: Apache-2.0
//! Whole lives against a driver that fails at random and judges what it is sent.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    time::{Duration, Instant},
};

use actor_volumes::proto::api;
use testkit::csi::{Chaos, Expansion, Secrets};

use crate::bench::Bench;

const USES: [&str; 3] = ["provisioner", "controller-publish", "controller-expand"];

#[tokio::test]
async fn lives_under_random_faults_break_no_rule_and_leave_nothing() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let key = |use_: &str| [("key".to_owned(), format!("hush-{use_}"))].into();
    let mut bench = Bench::hostile(|options| {
        options.attach = true;
        options.list = true;
        options.list_nodes = true;
        options.expand_controller = true;
        options.expansion = Some(Expansion::Online);
        options.max_volumes_per_node = 3;
        let here = [("x/zone".to_owned(), "z1".to_owned())].into();
        options.topologies = [("node-a".to_owned(), here)].into();
        options.secrets = Secrets {
            provisioner: key(USES[0]),
            controller_publish: key(USES[1]),
            controller_expand: key(USES[2]),
            ..Secrets::default()
        };
    })
    .await;
    let mut class = "allowVolumeExpansion: true\nparameters:\n".to_owned();
    for use_ in USES {
        let dir = bench.dir.path().join("secrets/storage").join(use_);
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("key"), format!("hush-{use_}")).unwrap();
        fs::set_permissions(dir.join("key"), fs::Permissions::from_mode(0o600)).unwrap();
        class.push_str(&format!(
            "  csi.storage.k8s.io/{use_}-secret-name: {use_}\n  csi.storage.k8s.io/{use_}-secret-namespace: storage\n"
        ));
    }
    bench.class("pool", &class).await.unwrap();
    bench.template("t", "1Mi").await.unwrap();
    bench.driver.chaos(Chaos { seed, percent: 20 });
    let names = ["a", "b", "c", "d"];
    for name in names {
        bench.create(name, false).await.unwrap();
        let mut request = crate::bench::resume(name);
        request.timeout_ms = 1;
        // It goes on without us; one finds no room at first.
        let _ = bench.client.resume_actor(request).await;
    }
    let mut bench = bench.restart().await;
    let mut left = names.to_vec();
    let end = Instant::now() + Duration::from_secs(60);
    while !left.is_empty() {
        assert!(Instant::now() < end, "{left:?} never had their turn");
        tokio::time::sleep(Duration::from_millis(20)).await;
        let mut waiting = Vec::new();
        for name in left {
            let mut shown = bench.show(name).await.unwrap();
            if shown.phase != "Resumed" {
                waiting.push(name);
                continue;
            }
            let request = api::ExpandVolumeRequest {
                uid: shown.volumes.remove(0).uid,
                capacity_bytes: 2 << 20,
                wait: true,
                timeout_ms: 10_000,
            };
            let grown = bench.client.expand_volume(request).await.unwrap();
            assert_eq!(grown.capacity_bytes, 2 << 20);
            bench.suspend(name, true).await.unwrap();
        }
        left = waiting;
    }
    for name in names {
        bench.delete(name, true).await.unwrap();
    }
    bench.is_clean();
}
