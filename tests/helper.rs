// SPDX-License-Identifier: Apache-2.0
//! The helper as a process: it ends with whoever started it, and is replaced.

#![allow(clippy::unwrap_used)] // the whole file is a test

use std::{
    fs,
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use actor_volumes::helper::{Answer, Deed, Request};
use testkit::helper::Helper;

const PROGRAM: &str = env!("CARGO_BIN_EXE_actor-volumes");

fn until(what: &str, is: impl Fn() -> bool) {
    let start = Instant::now();
    while !is() {
        assert!(start.elapsed() < Duration::from_secs(20), "never: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

fn probe(socket: &Path) -> Option<Answer> {
    let place = r#"{"volume":"00000000000000000000000000000000","publication":"0000000000000000"}"#;
    let request = Request {
        place: serde_json::from_str(place).unwrap(),
        deed: Deed::Probe {},
    };
    let mut stream = UnixStream::connect(socket).ok()?;
    stream.write_all(&request.encode()).unwrap();
    let mut line = Vec::new();
    stream.read_to_end(&mut line).unwrap();
    Some(Answer::decode(&line).unwrap())
}

fn is_running(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !stat.is_empty() && !stat.contains(") Z ")
}

fn serve(dir: &Path) -> Child {
    let at = dir.display();
    let config = format!(
        "[node]\nname = \"node-a\"\nstate_dir = \"{at}/state\"\nrun_dir = \"{at}/run\"\nmount_root = \"{at}/m\"\n[runtime]\nnri_socket = \"{at}/nri.sock\"\ncri_socket = \"{at}/cri.sock\"\n"
    );
    fs::write(dir.join("config.toml"), config).unwrap();
    Command::new(PROGRAM)
        .args(["serve", "--config"])
        .arg(dir.join("config.toml"))
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

fn holder(dir: &Path) -> u32 {
    let lock = fs::read_to_string(dir.join("run/helper.lock")).unwrap();
    lock.trim().parse().unwrap()
}

#[test]
fn a_daemon_that_is_killed_leaves_no_helper_and_the_next_one_has_its_own() {
    let dir = tempfile::Builder::new().prefix("av").tempdir().unwrap();
    let socket = dir.path().join("run/helper.sock");
    let answers = || matches!(probe(&socket), Some(Answer::Failed { errno: Some(2), .. }));
    let mut first = serve(dir.path());
    until("the helper of the first answers", answers);
    let helper = holder(dir.path());
    assert!(is_running(helper));
    first.kill().unwrap();
    first.wait().unwrap();
    until("the helper has ended", || !is_running(helper));
    let mut second = serve(dir.path());
    until("the helper of the second answers", answers);
    // One that dies alone is started again.
    let helper = holder(dir.path());
    let killed = Command::new("kill")
        .args(["-9", &helper.to_string()])
        .status();
    assert!(killed.unwrap().success());
    until("another one has its place", || {
        fs::read_to_string(dir.path().join("run/helper.lock"))
            .is_ok_and(|l| l.trim() != helper.to_string())
            && answers()
    });
    let helper = holder(dir.path());
    let term = Command::new("kill").arg(second.id().to_string()).status();
    assert!(term.unwrap().success());
    assert!(second.wait().unwrap().success());
    until("its helper has ended", || !is_running(helper));
    assert!(!socket.exists());
}

#[test]
fn a_helper_that_is_killed_is_replaced_and_its_socket_too() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("helper.sock");
    let mut helper = Helper::start(Path::new(PROGRAM), &socket, &dir.path().join("m"));
    assert!(probe(&socket).is_some());
    helper.restart();
    assert!(probe(&socket).is_some());
}
