// SPDX-License-Identifier: Apache-2.0
//! Two hundred pods are created at once and killed at once: each has its volume,
//! foreign pods keep their pace, and nothing is left.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use testkit::cri::{Annotations, ContainerSpec, Cri, Pod, PodSpec};

use super::{SHARED, prepare, qualified};
use crate::{
    Case,
    daemon::until_true,
    driver::Driver,
    leaks,
    node::{Node, is_retryable},
    note,
};

/// How many pods there are at once.
const PODS: usize = 200;

/// Every so many pods, one is killed while its container is being created.
const HASTY: usize = 4;

/// Long enough for all of them on a small machine.
const PATIENCE: Duration = Duration::from_secs(240);

/// Against the same storm of pods without volumes, the median of a foreign
/// creation may grow by this factor.
const FACTOR: u32 = 5;

/// A median below this counts as this.
const FLOOR: Duration = Duration::from_millis(50);

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new(
            "two_hundred_pods_at_once_have_their_volumes_and_foreign_pods_keep_their_pace",
            Driver::Testkit,
            two_hundred_pods_at_once_have_their_volumes_and_foreign_pods_keep_their_pace,
        )
        .alone(),
    ]
}

/// What a storm was like.
struct Storm {
    /// How long foreign creations took while pods were created, and killed.
    foreign: Vec<Duration>,
    created: Duration,
    killed: Duration,
    /// Creations that were tried again.
    retries: usize,
}

fn two_hundred_pods_at_once_have_their_volumes_and_foreign_pods_keep_their_pace(node: &mut Node) {
    prepare(node);
    let names: Vec<String> = (0..PODS).map(|i| format!("a{i}")).collect();
    let mut annotations = Vec::new();
    for name in &names {
        node.must(&["actor", "create", &qualified(name), "--template", SHARED]);
    }
    for name in &names {
        annotations.push(node.resume(name));
    }
    let foreign = node.run_pod(&Annotations::new());
    let plain = storm(
        node,
        &foreign,
        "plain",
        &vec![Annotations::new(); PODS],
        |_| (),
    );
    let ours = storm(node, &foreign, "ours", &annotations, |node| {
        until_true("each container wrote to its volume", PATIENCE, || {
            written(node) >= PODS - PODS / HASTY
        });
    });
    node.remove_pod(&foreign);

    let retries = ours.retries;
    let (before, meanwhile) = (median(&plain.foreign), median(&ours.foreign));
    note(format!(
        "{PODS} pods at once: without volumes created in {:.1} s, killed in {:.1} s; with volumes {:.1} s and {:.1} s, {retries} tries again",
        plain.created.as_secs_f32(),
        plain.killed.as_secs_f32(),
        ours.created.as_secs_f32(),
        ours.killed.as_secs_f32(),
    ));
    note(format!(
        "foreign creations meanwhile: median {before:?} ({}) without volumes, {meanwhile:?} ({}) with: {:.2} times",
        plain.foreign.len(),
        ours.foreign.len(),
        meanwhile.as_secs_f64() / before.as_secs_f64(),
    ));
    assert!(meanwhile < FACTOR * before.max(FLOOR));
    // By themselves: nobody has suspended an actor.
    until_true("all volumes are released", PATIENCE, || {
        node.held_mounts().is_empty()
    });
}

/// How many volumes somebody has written to.
fn written(node: &Node) -> usize {
    let volumes = node.dir.join("backend/volumes");
    let names = leaks::entries(&volumes).into_iter();
    names
        .filter(|v| volumes.join(v).join("here").exists())
        .count()
}

/// A pod for each of the annotations, all at once; then `look`; then all are
/// killed at once.
fn storm(
    node: &mut Node,
    foreign: &Pod,
    prefix: &str,
    annotations: &[Annotations],
    look: impl Fn(&Node),
) -> Storm {
    let specs: Vec<PodSpec> = annotations.iter().map(|a| node.pod_spec(a)).collect();
    let cri = &node.cri;
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let sampling = scope.spawn(|| {
            let mut taken = Vec::new();
            while !over.load(Ordering::Relaxed) {
                taken.push(sample(cri, foreign, &format!("{prefix}-{}", taken.len())));
            }
            taken
        });
        let start = Instant::now();
        let made = all_at_once(specs.iter().enumerate(), |(i, spec)| {
            if i % HASTY == 0 {
                hasty(cri, spec);
                return None;
            }
            let pod = cri.run_pod(spec).expect("the sandbox runs");
            let retries = run(cri, &pod);
            Some((pod, retries))
        });
        let created = start.elapsed();
        look(node);
        let start = Instant::now();
        all_at_once(made.iter().flatten(), |(pod, _)| kill(cri, pod));
        let killed = start.elapsed();
        over.store(true, Ordering::Relaxed);
        Storm {
            foreign: sampling.join().expect("foreign pods are not disturbed"),
            created,
            killed,
            retries: made.iter().flatten().map(|(_, retries)| retries).sum(),
        }
    })
}

fn all_at_once<T: Send, R: Send>(
    each: impl Iterator<Item = T>,
    work: impl Fn(T) -> R + Sync,
) -> Vec<R> {
    let work = &work;
    thread::scope(|scope| {
        let running: Vec<_> = each.map(|one| scope.spawn(move || work(one))).collect();
        let done = running.into_iter().map(|one| one.join());
        done.map(|r| r.expect("it does not panic")).collect()
    })
}

/// The container writes to its volume, if it has one, and stays.
fn agent() -> ContainerSpec {
    let line = "echo > /my-data/here; exec /bin/busybox sleep 2147483647";
    ContainerSpec::new("agent", &["/bin/busybox", "sh", "-c", line])
}

/// Creates and starts the container as a kubelet does; gives how often it had to
/// try again.
fn run(cri: &Cri, pod: &Pod) -> usize {
    let end = Instant::now() + PATIENCE;
    let mut retries = 0;
    loop {
        match cri.create_container(pod, &agent()) {
            Ok(id) => {
                cri.start_container(&id).expect("the container starts");
                return retries;
            }
            Err(refusal) if is_retryable(&refusal) && Instant::now() < end => retries += 1,
            Err(refusal) => panic!("the container is refused: {refusal}"),
        }
        thread::sleep(Duration::from_millis(500));
    }
}

/// A pod that is killed while its container is being created.
fn hasty(cri: &Cri, spec: &PodSpec) {
    let pod = cri.run_pod(spec).expect("the sandbox runs");
    thread::scope(|scope| {
        // Whether it comes to be is left open.
        scope.spawn(|| cri.create_container(&pod, &agent()));
        kill(cri, &pod);
    });
    // The runtime may have made the container after it had looked for what there is.
    kill(cri, &pod);
}

fn kill(cri: &Cri, pod: &Pod) {
    cri.stop_pod(&pod.id).expect("the sandbox stops");
    cri.remove_pod(&pod.id).expect("the sandbox is removed");
}

/// How long the creation of a container takes that has nothing to do with us.
fn sample(cri: &Cri, pod: &Pod, name: &str) -> Duration {
    let spec = ContainerSpec::idle(name);
    let start = Instant::now();
    let id = cri.create_container(pod, &spec);
    let took = start.elapsed();
    let id = id.expect("a foreign container is created");
    cri.remove_container(&id).expect("it is removed");
    took
}

fn median(samples: &[Duration]) -> Duration {
    let mut sorted = samples.to_vec();
    sorted.sort();
    sorted[sorted.len() / 2]
}
