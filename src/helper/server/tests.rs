// SPDX-License-Identifier: Apache-2.0
use std::{fs, os::unix::fs::PermissionsExt, path::Path};
use tokio::net::UnixStream;

use tokio::{sync::oneshot, task::JoinHandle};

use super::{
    super::{Client, Deed, Place, wire::tests::place},
    *,
};

/// A helper whose deeds are this script, until it is dropped.
struct Running {
    client: Client,
    socket: PathBuf,
    end: Option<oneshot::Sender<()>>,
    serving: JoinHandle<Result<()>>,
}

impl Running {
    async fn start(dir: &Path, script: &str) -> Self {
        let running = Self::begin(dir, script);
        while !running.socket.exists() {
            tokio::task::yield_now().await;
        }
        running
    }

    fn begin(dir: &Path, script: &str) -> Self {
        let program = dir.join("program");
        fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o700)).unwrap();
        let socket = dir.join("helper.sock");
        let server = Server {
            program,
            deadline: Duration::from_millis(500),
            ..Server::new(socket.clone(), dir.join("m"))
        };
        let (end, ended) = oneshot::channel::<()>();
        let serving = tokio::spawn(serve(server, async {
            let _ = ended.await;
        }));
        Self {
            client: Client::new(&socket),
            socket,
            end: Some(end),
            serving,
        }
    }

    async fn probe(&self) -> Answer {
        self.ask(place()).await
    }

    async fn ask(&self, place: Place) -> Answer {
        let deed = Deed::Probe {};
        self.client.ask(&Request { place, deed }).await.unwrap()
    }

    /// What is said to these bytes.
    async fn say(&self, bytes: &[u8]) -> Vec<u8> {
        let mut stream = UnixStream::connect(&self.socket).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut said = Vec::new();
        stream.read_to_end(&mut said).await.unwrap();
        said
    }

    async fn end(mut self) {
        drop(self.end.take());
        self.serving.await.unwrap().unwrap();
    }
}

const DONE: &str = r#"cat >/dev/null; echo '{"done":{"changed":true}}'"#;

#[tokio::test]
async fn a_deed_gets_the_request_and_nothing_of_our_environment() {
    let dir = tempfile::tempdir().unwrap();
    let (asked, environment) = (dir.path().join("asked"), dir.path().join("env"));
    let script = format!(
        "/bin/cat > {}; /usr/bin/env > {}; echo '{{\"done\":{{\"changed\":true}}}}'",
        asked.display(),
        environment.display()
    );
    let helper = Running::start(dir.path(), &script).await;
    let mode = fs::metadata(&helper.socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(helper.probe().await, Answer::Done { changed: true });
    let asked = Request::decode(&fs::read(asked).unwrap()).unwrap();
    assert_eq!(asked.place, place());
    let environment = fs::read_to_string(environment).unwrap();
    assert!(!environment.contains("HOME="), "{environment}");
    helper.end().await;
}

#[tokio::test]
async fn a_deed_that_hangs_is_killed_and_the_next_may_begin() {
    let dir = tempfile::tempdir().unwrap();
    let helper = Running::start(dir.path(), "exec sleep 1000").await;
    let mut other = place();
    other.volume = "0c".repeat(16).try_into().unwrap();
    let (first, second, third) = tokio::join!(helper.probe(), helper.probe(), helper.ask(other));
    // While the first lived there was no second at its volume, and another one
    // went its way.
    assert_eq!(first, Answer::Hangs { stuck: false });
    assert_eq!(second, Answer::Busy {});
    assert_eq!(third, Answer::Hangs { stuck: false });
    assert_eq!(helper.probe().await, Answer::Hangs { stuck: false });
    helper.end().await;
}

#[tokio::test]
async fn what_is_no_request_is_refused_and_no_process_started() {
    let dir = tempfile::tempdir().unwrap();
    let started = dir.path().join("started");
    let helper = Running::start(dir.path(), &format!("touch {}", started.display())).await;
    let long = vec![b' '; MAX_LINE + 1];
    let good = Request {
        place: place(),
        deed: Deed::Probe {},
    };
    let twice = [good.encode(), good.encode()].concat();
    for bytes in [
        &b"\n"[..],
        b"{}\n",
        b"GET / HTTP/1.1\r\n\r\n",
        &long,
        &twice,
    ] {
        let said = helper.say(bytes).await;
        let answer = Answer::decode(&said).unwrap();
        assert!(matches!(answer, Answer::Refused { .. }), "{answer:?}");
    }
    assert!(!started.exists());
    helper.end().await;
}

#[tokio::test]
async fn a_deed_that_ends_without_an_answer_has_failed() {
    let dir = tempfile::tempdir().unwrap();
    for script in ["exit 3", "echo what", "kill -9 $$"] {
        let helper = Running::start(dir.path(), script).await;
        let answer = helper.probe().await;
        let Answer::Failed { errno: None, .. } = answer else {
            panic!("{script}: {answer:?}");
        };
        helper.end().await;
    }
}

#[tokio::test]
async fn a_second_helper_waits_for_the_first_and_replaces_what_a_dead_one_left() {
    let dir = tempfile::tempdir().unwrap();
    let first = Running::start(dir.path(), DONE).await;
    let second = Running::begin(dir.path(), DONE);
    assert_eq!(second.probe().await, Answer::Done { changed: true });
    // Killed: it cannot take its socket away.
    first.serving.abort();
    let _ = first.serving.await;
    assert!(second.socket.exists());
    loop {
        let request = Request {
            place: place(),
            deed: Deed::Probe {},
        };
        if second.client.ask(&request).await.is_ok() {
            break;
        }
        tokio::task::yield_now().await;
    }
    let socket = second.socket.clone();
    second.end().await;
    assert!(!socket.exists());
}
