// SPDX-License-Identifier: Apache-2.0
//! One actor after another, each with its volume, which has a line for every write
//! that was told to be synced, and nothing else.

use std::{
    fs,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use testkit::cri::{Annotations, ContainerSpec, Pod};

use super::{Shared, client::Client};
use crate::{
    cases::{SHARED, qualified},
    node::Node,
};

const LOG: &str = "/my-data/log";

/// How the main thread sees a worker.
pub(super) struct Worker {
    pub(super) number: usize,
    thread: JoinHandle<Result<(), String>>,
    start: Instant,
    /// When it came further the last time, in milliseconds from the start.
    moved: Arc<AtomicU64>,
    at: Arc<Mutex<String>>,
}

impl Worker {
    pub(super) fn start(node: &Node, number: usize, seed: u64, shared: Arc<Shared>) -> Self {
        let start = Instant::now();
        let moved = Arc::new(AtomicU64::new(0));
        let client = Client::new(node, Arc::clone(&shared));
        let at = Arc::clone(&client.at);
        let mut life = Life {
            random: fastrand::Rng::with_seed(seed.wrapping_add(1 + number as u64)),
            client,
            shared,
            number,
            count: 0,
            start,
            moved: Arc::clone(&moved),
        };
        let thread = thread::spawn(move || {
            let lived = life.live();
            if lived.is_err() {
                life.shared.failed.store(true, Ordering::Relaxed);
            }
            lived
        });
        Self {
            number,
            thread,
            start,
            moved,
            at,
        }
    }

    /// For how long it has come no further.
    pub(super) fn quiet_for(&self) -> Duration {
        if self.thread.is_finished() {
            return Duration::ZERO;
        }
        let moved = Duration::from_millis(self.moved.load(Ordering::Relaxed));
        self.start.elapsed().saturating_sub(moved)
    }

    /// What it tries.
    pub(super) fn at(&self) -> String {
        self.at.lock().unwrap_or_else(|e| e.into_inner()).clone()
    }

    /// Waits for its end: why it failed, if it did.
    pub(super) fn join(self) -> Option<String> {
        let number = self.number;
        match self.thread.join() {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(format!("worker {number}: {error}")),
            Err(_) => Some(format!("worker {number} panicked")),
        }
    }
}

struct Life {
    client: Client,
    shared: Arc<Shared>,
    random: fastrand::Rng,
    number: usize,
    count: u32,
    start: Instant,
    moved: Arc<AtomicU64>,
}

/// An actor, and what its volume must hold.
struct Actor {
    name: String,
    lines: Vec<String>,
    /// Written, maybe: nobody answered.
    maybe: Option<String>,
}

impl Life {
    fn live(&mut self) -> Result<(), String> {
        while Instant::now() < self.shared.end {
            self.count += 1;
            let mut actor = Actor {
                name: qualified(&format!("w{}-{}", self.number, self.count)),
                lines: Vec::new(),
                maybe: None,
            };
            let lived = self.one(&mut actor);
            lived.map_err(|e| format!("actor {}: {e}", actor.name))?;
            self.shared.counts.actors.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    fn moved(&self) {
        let now = self.start.elapsed().as_millis();
        let now = u64::try_from(now).unwrap_or(u64::MAX);
        self.moved.store(now, Ordering::Relaxed);
    }

    /// A verb of an actor, with an id, so that it may be repeated.
    fn verb(&self, actor: &Actor, verb: &str, more: &[&str]) -> Result<String, String> {
        let id = format!("{verb}-{}-{}", self.number, self.start.elapsed().as_nanos());
        let words = [&["actor", verb, &actor.name, "--request-id", &id], more].concat();
        let said = self.client.verb(&words)?;
        self.moved();
        Ok(said)
    }

    fn one(&mut self, actor: &mut Actor) -> Result<(), String> {
        self.verb(actor, "create", &["--template", SHARED, "--wait"])?;
        for _ in 0..self.random.u32(1..4) {
            let text = self.verb(actor, "resume", &[])?;
            let annotations: Annotations =
                serde_json::from_str(&text).map_err(|e| format!("{text}: {e}"))?;
            self.pod(actor, &annotations)?;
            let end = *self.random.choice(&["suspend", "crash"]).expect("two");
            self.verb(actor, end, &["--wait"])?;
        }
        let files = self.files(actor)?;
        if files != [(actor.lines.len(), true)] {
            return Err(format!(
                "in the backend: {files:?}, not {} lines",
                actor.lines.len()
            ));
        }
        self.client
            .verb(&["actor", "delete", &actor.name, "--wait"])?;
        self.moved();
        match self.files(actor)?.as_slice() {
            [] => Ok(()),
            left => Err(format!("it is deleted, and in the backend: {left:?}")),
        }
    }

    /// A pod with a container that is started once or a few times.
    fn pod(&mut self, actor: &mut Actor, annotations: &Annotations) -> Result<(), String> {
        let agent = ContainerSpec::idle("agent");
        // The grant is the pod's, or the container's in a warm sandbox.
        let (of_pod, agent) = match self.random.bool() {
            true => (annotations.clone(), agent),
            false => (Annotations::new(), agent.annotated(annotations)),
        };
        let name = format!("p{}-{}", self.number, self.start.elapsed().as_nanos());
        let pod = self.client.run_pod(&name, &of_pod)?;
        self.shared.counts.pods.fetch_add(1, Ordering::Relaxed);
        self.moved();
        let ran = self.containers(actor, &pod, &agent);
        self.client.remove_pod(&pod)?;
        self.moved();
        ran
    }

    fn containers(
        &mut self,
        actor: &mut Actor,
        pod: &Pod,
        agent: &ContainerSpec,
    ) -> Result<(), String> {
        let mut attempt = 0;
        for restart in 0..self.random.u32(1..3) {
            let id = self.client.run_container(pod, agent, &mut attempt)?;
            self.moved();
            for _ in 0..self.random.u32(1..8) {
                self.write(actor, &id)?;
                thread::sleep(Duration::from_millis(self.random.u64(0..300)));
            }
            if restart == 0 && self.random.bool() {
                self.client.stop_container(&id)?;
            }
        }
        Ok(())
    }

    /// Reads back all that was written, and writes a line.
    fn write(&mut self, actor: &mut Actor, container: &str) -> Result<(), String> {
        let line = format!("cat {LOG} 2> /dev/null || [ ! -e {LOG} ]");
        let text = self.client.until("read", |c| c.shell(container, &line))?;
        let found: Vec<&str> = text.lines().collect();
        let maybe = actor.maybe.take();
        if found.len() == actor.lines.len() + 1 {
            actor.lines.extend(maybe);
        }
        if found != actor.lines {
            return Err(format!("it reads {found:#?}, not {:#?}", actor.lines));
        }
        let counts = &self.shared.counts;
        counts
            .verified
            .fetch_add(found.len() as u64, Ordering::Relaxed);
        let number = actor.lines.len();
        let content: String = (0..48).map(|_| self.random.alphanumeric()).collect();
        let next = format!("{} {number} {content}", actor.name);
        let script = format!(
            "[ \"$(cat {LOG} 2> /dev/null | wc -l)\" -eq {number} ] && echo '{next}' >> {LOG} && sync"
        );
        match self.client.shell(container, &script) {
            Ok(_) => actor.lines.push(next),
            Err(_) => actor.maybe = Some(next),
        }
        counts.lines.fetch_add(1, Ordering::Relaxed);
        self.moved();
        Ok(())
    }

    /// The files in the driver's backend that name this actor: how many lines they
    /// have, and whether these are what was written.
    fn files(&self, actor: &mut Actor) -> Result<Vec<(usize, bool)>, String> {
        let volumes = self.client.dir().join("backend/volumes");
        let mut found = Vec::new();
        for entry in fs::read_dir(volumes).map_err(|e| e.to_string())? {
            let path = entry.map_err(|e| e.to_string())?.path();
            let Ok(text) = fs::read_to_string(path.join("log")) else {
                continue;
            };
            if !text.starts_with(&format!("{} ", actor.name)) {
                continue;
            }
            let lines: Vec<&str> = text.lines().collect();
            let maybe = actor.maybe.take();
            if lines.len() == actor.lines.len() + 1 {
                actor.lines.extend(maybe);
            }
            found.push((lines.len(), lines == actor.lines));
        }
        Ok(found)
    }
}
