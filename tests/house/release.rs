// SPDX-License-Identifier: Apache-2.0
//! Many volumes of one driver released at once.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use actor_volumes::{
    api::annotation,
    control::ResumeOptions,
    csi::{
        Accessibility, ControllerPublish, CreateVolume, CreatedVolume, Driver, DriverConfig,
        NodePublish, NodeStage, Registry, VolumeCapability,
    },
    model::{AccessMode, ActorRef, ContainerView, SandboxView, VolumeKey, VolumeMode},
    secret::Secrets,
};
use testkit::csi::Fault;

use crate::{
    AT_LAST,
    house::{DRIVER, House},
};

const VOLUMES: usize = 400;

/// How long the driver takes for each call of a release, as real ones do.
const EACH: Duration = Duration::from_millis(100);

const RELEASE: [&str; 2] = ["NodeUnpublishVolume", "NodeUnstageVolume"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs root: run by make test"]
async fn four_hundred_volumes_released_at_once_take_two_calls_each() {
    let house = Arc::new(House::start(Duration::from_secs(60)).await);
    let bare = bare(&house).await;
    let keys = publish(&house).await;
    slow(&house).await;
    let before = counts(&house).await;

    let start = Instant::now();
    house.runtime.set(|lists| lists.sandboxes.clear());
    for n in 0..VOLUMES {
        house.tell_of_end(&sandbox(n));
    }
    let ours = house
        .with_agent(move |agent| async move {
            let mut released = agent.releases();
            for key in keys {
                while let Some(held) = agent.held(&key).await {
                    assert!(start.elapsed() < AT_LAST, "{held}");
                    let _ = tokio::time::timeout(Duration::from_secs(1), released.changed()).await;
                }
            }
            start.elapsed()
        })
        .await
        .unwrap();

    let after = counts(&house).await;
    for (method, (before, after)) in RELEASE.iter().zip(before.iter().zip(&after)) {
        assert_eq!(after - before, VOLUMES, "{method}");
    }
    println!(
        "{VOLUMES} volumes, {EACH:?} a call: released in {ours:.2?}, {:.2} of the {bare:.2?} of a bare client",
        ours.as_secs_f64() / bare.as_secs_f64()
    );
    assert_eq!(house.driver.lock().await.violations(), Vec::<String>::new());
    house.stop().await;
}

async fn slow(house: &House) {
    let driver = house.driver.lock().await;
    for method in RELEASE {
        driver.fault(method, Fault::delay(EACH));
    }
}

async fn counts(house: &House) -> Vec<usize> {
    let driver = house.driver.lock().await;
    RELEASE.iter().map(|method| driver.count(method)).collect()
}

fn sandbox(n: usize) -> String {
    format!("s-{n}")
}

/// Resumes as many actors, each in a pod of its own.
async fn publish(house: &Arc<House>) -> Vec<VolumeKey> {
    let mut started = Vec::new();
    for n in 0..VOLUMES {
        let house = Arc::clone(house);
        started.push(tokio::spawn(async move {
            let name: ActorRef = format!("agents/a-{n}").parse().unwrap();
            let grant = house
                .with_control(move |control| async move {
                    let template = "small".parse().unwrap();
                    let wait = Some(AT_LAST);
                    control
                        .create_actor(&name, &template, Default::default(), wait)
                        .await
                        .unwrap();
                    let resumed = control.resume_actor(&name, ResumeOptions::default(), AT_LAST);
                    resumed.await.unwrap().1
                })
                .await
                .unwrap();
            run_pod(
                &house,
                n,
                annotation::write(&grant.without_contexts()).unwrap(),
            )
            .await;
            grant.volumes[0].key()
        }));
    }
    let mut keys = Vec::new();
    for started in started {
        keys.push(started.await.unwrap());
    }
    keys
}

async fn run_pod(house: &House, n: usize, annotations: BTreeMap<String, String>) {
    let id = sandbox(n);
    house.runtime.set(|lists| {
        lists.sandboxes.insert(id.clone(), true);
    });
    let view = SandboxView {
        id: id.clone(),
        name: id.clone(),
        namespace: "agents".into(),
        uid: id.clone(),
        annotations,
        ..SandboxView::default()
    };
    let container = ContainerView {
        id: format!("{id}-c"),
        sandbox: id,
        name: "agent".into(),
        ..ContainerView::default()
    };
    let start = Instant::now();
    house
        .with_agent(|agent| async move {
            agent.sandbox_started(view.clone());
            loop {
                let until = Instant::now() + Duration::from_secs(1);
                match agent.container_created(&view, &container, until).await {
                    Ok(_) => return,
                    Err(error) => assert!(start.elapsed() < AT_LAST, "{error:?}"),
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        })
        .await
        .unwrap();
}

fn capability() -> VolumeCapability {
    VolumeCapability {
        access_mode: AccessMode::SingleNodeSingleWriter,
        volume_mode: VolumeMode::Filesystem,
        fs_type: String::new(),
        mount_flags: Vec::new(),
        mount_group: String::new(),
    }
}

/// The time that a client needs which does nothing but the calls.
async fn bare(house: &House) -> Duration {
    let name = DRIVER.parse().unwrap();
    let config = DriverConfig::unix(name, house.path("csi.sock"), Duration::from_secs(60));
    let client = Registry::new(vec![config]).list().remove(0);
    let node_id = client.node_info().await.unwrap().node_id;
    let mut published = Vec::new();
    for n in 0..VOLUMES {
        let dir = house.path("bare").join(n.to_string());
        std::fs::create_dir_all(dir.join("staging")).unwrap();
        let volume = publish_bare(&client, &node_id, &dir, n).await;
        published.push((volume.volume_id, dir));
    }
    slow(house).await;
    let start = Instant::now();
    let mut calls = Vec::new();
    for (id, dir) in published {
        let client = Arc::clone(&client);
        calls.push(tokio::spawn(async move {
            client
                .node_unpublish(&id, &dir.join("target"))
                .await
                .unwrap();
            client
                .node_unstage(&id, &dir.join("staging"))
                .await
                .unwrap();
        }));
    }
    for call in calls {
        call.await.unwrap();
    }
    let took = start.elapsed();
    house.driver.lock().await.clear_faults();
    took
}

async fn publish_bare(client: &Driver, node_id: &str, dir: &Path, n: usize) -> CreatedVolume {
    let volume = client
        .create_volume(&CreateVolume {
            name: format!("bare-{n}"),
            required_bytes: 1 << 20,
            capability: capability(),
            parameters: BTreeMap::new(),
            accessibility: Accessibility::default(),
            secrets: Secrets::default(),
        })
        .await
        .unwrap();
    let publish_context = client
        .controller_publish(&ControllerPublish {
            volume_id: volume.volume_id.clone(),
            node_id: node_id.to_owned(),
            capability: capability(),
            read_only: false,
            volume_context: volume.volume_context.clone(),
            secrets: Secrets::default(),
        })
        .await
        .unwrap();
    client
        .node_stage(&NodeStage {
            volume_id: volume.volume_id.clone(),
            publish_context: publish_context.clone(),
            staging_path: dir.join("staging"),
            capability: capability(),
            volume_context: volume.volume_context.clone(),
            secrets: Secrets::default(),
        })
        .await
        .unwrap();
    client
        .node_publish(&NodePublish {
            volume_id: volume.volume_id.clone(),
            publish_context,
            staging_path: dir.join("staging"),
            target_path: dir.join("target"),
            capability: capability(),
            read_only: false,
            volume_context: volume.volume_context.clone(),
            secrets: Secrets::default(),
        })
        .await
        .unwrap();
    volume
}
