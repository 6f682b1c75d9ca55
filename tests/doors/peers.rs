// SPDX-License-Identifier: Apache-2.0
//! Whose process may connect.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Output},
};

use actor_volumes::transport::{Limits, Refused, Rules};

use crate::hall::{Hall, container};

const NOBODY: u32 = 65534;

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o777
}

/// A verb of the command line, as another user. The program may lie where that user
/// cannot look.
fn as_user(uid: u32, socket: &Path) -> Output {
    Command::new("sh")
        .arg("-c")
        .arg("exec 3< \"$1\" && exec setpriv --reuid \"$2\" --clear-groups /proc/self/fd/3 --socket \"$3\" actor ls")
        .arg("sh")
        .arg(env!("CARGO_BIN_EXE_actor-volumes"))
        .arg(uid.to_string())
        .arg(socket)
        .output()
        .expect("sh and setpriv are there")
}

/// The directory of a socket, where everybody can look.
fn open_to_all(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_is_for_its_own_user() {
    let hall = Hall::open(Limits::default()).await;
    assert_eq!(mode(&hall.socket), 0o600);
    let mut client = hall.client().await;
    client.check_container(container("")).await.unwrap();
    assert!(hall.counted.refused().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root: becomes another user"]
async fn another_user_is_told_why_it_is_refused_whatever_the_mode_of_the_socket() {
    let hall = Hall::open(Limits::default()).await;
    open_to_all(hall.dir.path(), 0o711);
    let socket = hall.socket.clone();
    let shut = tokio::task::spawn_blocking(move || as_user(NOBODY, &socket));
    let shut = String::from_utf8(shut.await.unwrap().stderr).unwrap();
    assert!(shut.contains("Permission denied"), "{shut}");
    assert!(
        hall.counted.refused().is_empty(),
        "the kernel has refused it"
    );

    // As where somebody meant to help.
    open_to_all(&hall.socket, 0o666);
    let socket = hall.socket.clone();
    let refused = tokio::task::spawn_blocking(move || as_user(NOBODY, &socket));
    let refused = refused.await.unwrap();
    let text = String::from_utf8(refused.stderr).unwrap();
    assert!(text.contains("uid 65534 may not use this socket"), "{text}");
    assert!(text.contains("node.allowed_uids"), "{text}");
    assert_eq!(refused.status.code(), Some(6), "{text}");
    let counted = hall.counted.refused();
    assert!(counted.iter().all(|why| *why == Refused::Peer) && !counted.is_empty());
    let mut client = hall.client().await;
    client.check_container(container("")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root: becomes another user"]
async fn a_user_that_is_named_may_connect_and_no_other() {
    let hall = Hall::with(Rules {
        uids: [NOBODY].into(),
        ..Rules::default()
    })
    .await;
    assert_eq!(mode(&hall.socket), 0o666);
    open_to_all(hall.dir.path(), 0o711);
    let ask = |uid| {
        let socket = hall.socket.clone();
        async move {
            let asked = tokio::task::spawn_blocking(move || as_user(uid, &socket));
            String::from_utf8(asked.await.unwrap().stderr).unwrap()
        }
    };
    // It is let in to a service that has no such verb.
    let named = ask(NOBODY).await;
    assert!(named.contains("does not know this call"), "{named}");
    assert!(hall.counted.refused().is_empty());
    let other = ask(NOBODY - 1).await;
    assert!(other.contains("uid 65533 may not use"), "{other}");
}
