// SPDX-License-Identifier: Apache-2.0
//! What a real node agent says of containers that have something at the volume's
//! place.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use actor_volumes::{
    delivery,
    model::{ContainerView, Generation, SandboxView, VolumeMode},
    node::AgentService,
    proto::api::agent_server::AgentServer,
    transport,
};
use serde_json::{Value, json};
use tonic::transport::Server;

use crate::{
    bundle::{Made, Place, bind, config},
    node::{Node, Over, Setup, shell},
};

const RW: [&str; 5] = ["rbind", "rprivate", "rw", "nosuid", "nodev"];

/// A node whose agent is asked by a guard.
struct Guarded {
    node: Node,
    place: Place,
}

impl Guarded {
    async fn start(setup: Setup, over: Over) -> Self {
        let node = Node::over(over, setup, |_| ()).await;
        let place = Place::new();
        let socket = place.path("agent.sock");
        let incoming = transport::bind(&socket).await.unwrap();
        let service = AgentServer::new(AgentService::new(node.agent.clone()));
        let until = node.shutdown.clone().cancelled_owned();
        tokio::spawn(
            Server::builder()
                .add_service(service)
                .serve_with_incoming_shutdown(incoming, until),
        );
        place.configure(&socket, 20_000);
        Self { node, place }
    }

    /// What the guard says to this container with these mounts.
    async fn create(&self, sandbox: &SandboxView, id: &str, mounts: &[Value]) -> Made {
        let config = config(&sandbox.id, "agent", &sandbox.annotations, mounts);
        self.make(config, id).await
    }

    async fn make(&self, config: Value, id: &str) -> Made {
        self.place.write_config(&config);
        // The agent answers from this very process.
        tokio::task::block_in_place(|| self.place.create(id))
    }
}

/// A path of the volume's own directory, such as another scope's target.
fn beside(target: &Path, name: &str) -> PathBuf {
    target.parent().unwrap().join(name)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root: run by make test"]
async fn what_the_plugin_gave_passes_and_nothing_like_it_does() {
    let guarded = Guarded::start(Setup::default(), Over::Bind).await;
    let node = &guarded.node;
    let sandbox = node.sandbox("s1", 1);
    let needs = node.needs(&sandbox, "c1").await;
    let target = needs.mounts[0].source.clone();
    let options = delivery::options(&needs.mounts[0]);
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let right = bind("/my-data", &target, &options);
    guarded
        .create(&sandbox, "c1", std::slice::from_ref(&right))
        .await
        .is_made();

    let copy = guarded.place.path("copy");
    fs::create_dir(&copy).unwrap();
    let tmpfs = json!({"destination": "/my-data", "type": "tmpfs", "source": target});
    let nobody = beside(&target, "0123456789abcdef");
    for (mounts, why) in [
        (vec![], "was not given"),
        (vec![bind("/my-data", &copy, &RW)], "not this volume"),
        (vec![bind("/my-data", &nobody, &RW)], "not this volume"),
        (
            vec![bind("/my-data", &target.join("."), &RW), right.clone()],
            "more than one",
        ),
        (vec![tmpfs], "not this volume"),
        (
            vec![bind("/my-data", &target, &["rbind", "ro"])],
            "must be writable",
        ),
        (
            vec![bind("/my-data", &target, &["rbind", "rw", "nodev"])],
            "must be mounted nosuid",
        ),
        (
            vec![right.clone(), bind("/my-data/sub", &copy, &RW)],
            "/my-data/sub is in its way",
        ),
        (vec![right.clone(), bind("/", &copy, &RW)], "in its way"),
    ] {
        guarded
            .create(&sandbox, "c1", &mounts)
            .await
            .is_refused(why);
    }
    // Nor is a pod of a namespace that is not trusted believed here.
    let mut stranger = config(
        "s1",
        "agent",
        &sandbox.annotations,
        std::slice::from_ref(&right),
    );
    stranger["annotations"]["io.kubernetes.cri.sandbox-namespace"] = json!("strangers");
    let refused = guarded.make(stranger, "c1").await;
    refused.is_refused("node.trusted_namespaces");
    // Another container has not been given it.
    let other = guarded
        .create(&sandbox, "c2", std::slice::from_ref(&right))
        .await;
    other.is_refused("was not given to this container");
    // Nor has one in another sandbox, of the same grant.
    let elsewhere = node.sandbox("s2", 1);
    let other = guarded.create(&elsewhere, "c1", &[right]).await;
    other.is_refused("was not given to this container");
    node.end("s1", "c1");
    guarded.node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root: run by make test"]
async fn a_path_that_looks_right_counts_only_with_what_was_published_there() {
    let guarded = Guarded::start(Setup::default(), Over::Bind).await;
    let node = &guarded.node;
    let sandbox = node.sandbox("s1", 1);
    let target = node.create_until(&sandbox, "c1").await;
    let right = [bind("/my-data", &target, &RW)];
    guarded.create(&sandbox, "c1", &right).await.is_made();

    assert!(shell(&target, "mount -t tmpfs none \"$PWD\""));
    let other = guarded.create(&sandbox, "c1", &right).await;
    other.is_refused("not what was published there");
    assert!(shell(
        Path::new("/"),
        &format!("umount '{}'", target.display())
    ));
    guarded.create(&sandbox, "c1", &right).await.is_made();
    assert!(shell(
        Path::new("/"),
        &format!("umount '{}'", target.display())
    ));
    let nothing = guarded.create(&sandbox, "c1", &right).await;
    nothing.is_refused("not what was published there");

    // The next creation looks, and the volume is published anew.
    node.runs("s1", "c1", false);
    let target = node.create_until(&sandbox, "c2").await;
    let again = [bind("/my-data", &target, &RW)];
    guarded.create(&sandbox, "c2", &again).await.is_made();
    guarded
        .create(&sandbox, "c1", &again)
        .await
        .is_refused("not given");
    node.end("s1", "c2");
    guarded.node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root: run by make test"]
async fn a_grant_that_is_over_between_the_plugin_and_the_runtime_is_refused() {
    let guarded = Guarded::start(Setup::default(), Over::Bind).await;
    let node = &guarded.node;
    let sandbox = node.sandbox("s1", 1);
    let target = node.create_until(&sandbox, "c1").await;
    node.runs("s1", "c1", true);
    let right = [bind("/my-data", &target, &RW)];
    guarded.create(&sandbox, "c1", &right).await.is_made();
    node.agent.revoke(&node.key(), Generation(1)).await.unwrap();
    let over = guarded.create(&sandbox, "c1", &right).await;
    over.is_refused("is not published for");
    node.end("s1", "c1");
    guarded.node.until_released().await;
    // The path is there only while the volume is published.
    assert!(!target.exists());
    let gone = guarded.create(&sandbox, "c1", &right).await;
    gone.is_refused("was not given to this container");
    guarded.node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root: run by make test"]
async fn annotations_that_the_runtime_passes_on_to_containers_are_still_the_pods() {
    let node = Node::start().await;
    let sandbox = node.sandbox("s1", 1);
    let target = node.create_until(&sandbox, "c1").await;
    let create = async |id: &str, annotations: &BTreeMap<String, String>| {
        let container = ContainerView {
            id: id.into(),
            sandbox: "s1".into(),
            name: "agent".into(),
            annotations: annotations.clone(),
            ..ContainerView::default()
        };
        let until = Instant::now() + Duration::from_secs(2);
        let created = node.agent.container_created(&sandbox, &container, until);
        created.await
    };
    let given = create("c2", &sandbox.annotations).await.unwrap();
    assert_eq!(given.mounts[0].source, target, "the scope is the sandbox");
    let others = node.sandbox("s1", 2).annotations;
    let refused = create("c3", &others).await.unwrap_err().full_message();
    assert!(refused.contains("on one of the two"), "{refused}");
    node.runs("s1", "c1", false);
    node.end("s1", "c2");
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root: run by make test"]
async fn a_reader_that_could_write_is_refused() {
    let setup = Setup {
        read_only: true,
        ..Setup::default()
    };
    let guarded = Guarded::start(setup, Over::Bind).await;
    let node = &guarded.node;
    let sandbox = node.sandbox("s1", 1);
    let target = node.create_until(&sandbox, "c1").await;
    for (options, passes) in [
        (&["rbind", "ro", "nosuid", "nodev"][..], true),
        (&["rbind"], false),
        (&RW, false),
    ] {
        let mounts = [bind("/my-data", &target, options)];
        let made = guarded.create(&sandbox, "c1", &mounts).await;
        if passes {
            made.is_made();
        } else {
            made.is_refused("must be read-only");
        }
    }
    node.end("s1", "c1");
    guarded.node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root: run by make test"]
async fn a_block_device_is_compared_by_its_numbers() {
    let setup = Setup {
        volume_mode: VolumeMode::Block,
        bytes: 8 << 20,
        ..Setup::default()
    };
    let guarded = Guarded::start(setup, Over::Loop).await;
    let node = &guarded.node;
    let sandbox = node.sandbox("s1", 1);
    let device = node.needs(&sandbox, "c1").await.devices[0].clone();
    let with = |minor: u32| {
        let mut config = config("s1", "agent", &sandbox.annotations, &[]);
        config["linux"]["devices"] =
            json!([{"path": device.path, "type": "b", "major": device.major, "minor": minor}]);
        config
    };
    guarded.make(with(device.minor), "c1").await.is_made();
    let other = guarded.make(with(device.minor + 1), "c1").await;
    other.is_refused("another device");
    let none = guarded.create(&sandbox, "c1", &[]).await;
    none.is_refused("was not given");
    node.end("s1", "c1");
    guarded.node.finish().await;
}
