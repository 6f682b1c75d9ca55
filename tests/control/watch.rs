// SPDX-License-Identifier: Apache-2.0
//! `actor watch`: what is there, then what changes, and an end.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    time::{Duration, Instant},
};

use actor_volumes::control::ActorEvent;
use serde_json::Value;

use crate::{
    bench::Bench,
    cli::out,
    updates::{POOL, apply, bench},
};

/// A watch of the command line, and what it printed.
struct Watching {
    child: Child,
    lines: Receiver<Value>,
}

impl Drop for Watching {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Watching {
    fn start(bench: &Bench, arguments: &str) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_actor-volumes"))
            .env("ACTOR_VOLUMES_SOCKET", bench.socket())
            .args(format!("actor watch {arguments} -o json").split_whitespace())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let stdout = child.stdout.take().unwrap();
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines() {
                let value = serde_json::from_str(&line.unwrap()).unwrap();
                if sender.send(value).is_err() {
                    return;
                }
            }
        });
        Self { child, lines }
    }

    /// The first event for which that holds; those before it are passed over.
    async fn until(&self, what: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        let end = Instant::now() + Duration::from_secs(30);
        let mut seen = Vec::new();
        while Instant::now() < end {
            match self.lines.try_recv() {
                Ok(event) if is_it(&event) => return event,
                Ok(event) => seen.push(event),
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
        panic!("never {what}: {seen:?}");
    }
}

#[tokio::test]
async fn a_watch_tells_what_is_there_then_what_changes_and_ends_with_the_server() {
    let bench = bench().await;
    apply(&bench, &[("a", POOL)]).await;
    out(&bench, "actor create agents/a --template t --wait").await;
    out(&bench, "actor create others/b --template t --wait").await;
    let mut watching = Watching::start(&bench, "-n agents");
    let first = watching.until("first", |_| true).await;
    assert_eq!(
        (&first["kind"], &first["actor"]["name"]),
        (&"present".into(), &"a".into())
    );
    let second = watching.until("second", |_| true).await;
    assert_eq!(second["kind"], "synced");
    out(&bench, "actor resume others/b").await;
    out(&bench, "actor resume agents/a").await;
    let ours = |e: &Value| e["actor"]["namespace"] == "agents";
    let resumed = |e: &Value| {
        assert!(ours(e), "an event of another namespace: {e}");
        e["kind"] == "changed" && e["actor"]["phase"] == "Resumed"
    };
    watching.until("resumed", resumed).await;
    bench.node.hold("pod agents/p");
    out(&bench, "actor suspend agents/a").await;
    let holder = |e: &Value| e["actor"]["message"].to_string().contains("pod agents/p");
    watching.until("held", holder).await;
    bench.node.release();
    out(&bench, "actor suspend agents/a --wait").await;
    out(&bench, "actor delete agents/a --wait").await;
    watching.until("gone", |e| e["kind"] == "gone").await;

    let bench = bench.restart().await;
    let end = Instant::now() + Duration::from_secs(30);
    let status = loop {
        if let Some(status) = watching.child.try_wait().unwrap() {
            break status;
        }
        assert!(Instant::now() < end, "it does not end with the server");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert!(!status.success());
    // A reader that comes later is told of what is there, and of nothing else.
    let watching = Watching::start(&bench, "b -n others");
    let first = watching.until("first", |_| true).await;
    assert_eq!(
        (&first["kind"], &first["actor"]["phase"]),
        (&"present".into(), &"Resumed".into())
    );
}

#[tokio::test]
async fn whoever_does_not_read_gets_the_newest_state() {
    let mut bench = bench().await;
    apply(&bench, &[("a", POOL)]).await;
    out(&bench, "actor create agents/a --template t --wait").await;
    let mut events = bench.control.watch(None, None);
    for _ in 0..5 {
        bench.resume("a").await.unwrap();
        bench.suspend("a", true).await.unwrap();
    }
    bench.resume("a").await.unwrap();
    let newest = |event: ActorEvent| match event {
        ActorEvent::Present(view) | ActorEvent::Changed(view) => (
            view.actor.phase.as_str(),
            view.volumes[0].volume.generation.0,
        ),
        other => panic!("{other:?}"),
    };
    let first = events.next().await.unwrap();
    assert_eq!(newest(first), ("Resumed", 6));
    assert_eq!(events.next().await.unwrap(), ActorEvent::Synced);
    // Dozens of changes since it came are one.
    let changed = events.next().await.unwrap();
    assert_eq!(newest(changed), ("Resumed", 6));
    let more = tokio::time::timeout(Duration::from_millis(200), events.next()).await;
    assert!(more.is_err(), "a queue: {more:?}");
}
