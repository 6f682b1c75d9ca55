// SPDX-License-Identifier: Apache-2.0
//! Containers with users of their own: the owners of a volume's files are mapped, or
//! the container is refused with the reason.

use std::{
    fs,
    process::{Child, Command, Stdio},
};

use actor_volumes::{delivery, error::Kind, model::VolumeMode};

use crate::node::{Node, Over, Setup};

/// A process with a user namespace of its own.
struct Users(Child);

impl Users {
    fn start() -> Self {
        let mut child = Command::new("unshare")
            .args(["--user", "sh", "-c", "echo ready; exec sleep 1000"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut ready = [0; 6];
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut ready).unwrap();
        for map in ["uid_map", "gid_map"] {
            fs::write(format!("/proc/{}/{map}", child.id()), "0 100000 65536").unwrap();
        }
        Self(child)
    }

    fn setup(&self) -> Setup {
        Setup {
            user_namespace: Some(format!("/proc/{}/ns/user", self.0.id())),
            bytes: 16 << 20,
            ..Setup::default()
        }
    }
}

impl Drop for Users {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What is said to a container that cannot have its volume.
async fn refused(node: &Node) -> String {
    let sandbox = node.sandbox("s1", 1);
    let mut said = String::new();
    for try_ in 0..200 {
        let refused = node.create(&sandbox, "c1").await.unwrap_err();
        said = refused.full_message();
        if refused.kind() == Kind::FailedPrecondition {
            return said;
        }
        assert!(try_ < 199, "{said}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    said
}

async fn finish(node: Node) {
    node.end("s1", "c1");
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root: run by make test"]
async fn owners_are_mapped_where_the_runtime_and_the_file_system_can() {
    let users = Users::start();
    let node = Node::over(Over::Loop, users.setup(), |_| ()).await;
    node.runtime
        .set(|lists| lists.handlers.insert(String::new(), true));
    let sandbox = node.sandbox("s1", 1);
    let needs = node.needs(&sandbox, "c1").await;
    let options = delivery::options(&needs.mounts[0]);
    assert!(options.iter().any(|o| o == "ridmap"), "{options:?}");
    finish(node).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root: run by make test"]
async fn a_file_system_that_cannot_is_named() {
    let users = Users::start();
    let node = Node::over(Over::Fuse, users.setup(), |_| ()).await;
    node.runtime
        .set(|lists| lists.handlers.insert(String::new(), true));
    let said = refused(&node).await;
    for part in ["its file system, fuse", "ext4", "hostUsers: true"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    finish(node).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root: run by make test"]
async fn a_runtime_that_cannot_or_does_not_say_is_named() {
    let users = Users::start();
    let node = Node::over(Over::Loop, users.setup(), |_| ()).await;
    let said = refused(&node).await;
    assert!(said.contains("containerd 2.0 or newer"), "{said}");
    node.runtime
        .set(|lists| lists.handlers.insert(String::new(), false));
    let said = refused(&node).await;
    assert!(said.contains("use runc 1.2 or newer"), "{said}");
    finish(node).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root: run by make test"]
async fn a_block_device_cannot_be_made_in_a_user_namespace() {
    let users = Users::start();
    let setup = Setup {
        volume_mode: VolumeMode::Block,
        ..users.setup()
    };
    let node = Node::over(Over::Loop, setup, |_| ()).await;
    node.runtime
        .set(|lists| lists.handlers.insert(String::new(), true));
    let said = refused(&node).await;
    assert!(said.contains("no device node can be made"), "{said}");
    finish(node).await;
}
