// SPDX-License-Identifier: Apache-2.0
//! Many pods that wait for a slow driver hold up nobody else.

use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use testkit::cri::{Annotations, ContainerSpec, Cri, Pod};

use super::{SHARED, prepare, qualified};
use crate::{
    Case,
    driver::Driver,
    node::{Node, is_retryable},
    note,
};

/// How many pods wait.
const PODS: usize = 100;

/// How often each of them tries, about; a kubelet tries less often.
const EVERY: Duration = Duration::from_secs(5);

/// How many clients do the trying.
const CLIENTS: usize = 4;

/// How many foreign containers are measured.
const SAMPLES: usize = 60;

/// The median may grow by this factor: the tries themselves cost the runtime
/// something, the waiting must not.
const FACTOR: u32 = 5;

/// A median below this counts as this: a few milliseconds more are the load of
/// the machine. One pod that waits costs its neighbours over a second.
const FLOOR: Duration = Duration::from_millis(20);

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new(
            "foreign_pods_keep_their_pace_while_a_hundred_wait_for_a_slow_driver",
            Driver::Testkit,
            foreign_pods_keep_their_pace_while_a_hundred_wait_for_a_slow_driver,
        )
        .alone(),
    ]
}

fn foreign_pods_keep_their_pace_while_a_hundred_wait_for_a_slow_driver(node: &mut Node) {
    prepare(node);
    node.driver_hang("NodePublishVolume");
    let names: Vec<String> = (0..PODS).map(|i| format!("a{i}")).collect();
    for name in &names {
        node.must(&["actor", "create", &qualified(name), "--template", SHARED]);
    }
    let foreign = node.run_pod(&Annotations::new());
    let usual = sample(&node.cri, &foreign, "before");
    let mut pods = Vec::new();
    for name in &names {
        let annotations = node.resume(name);
        pods.push(node.run_pod(&annotations));
    }

    let refused = AtomicUsize::new(0);
    let done = AtomicBool::new(false);
    let (pressed, waited) = thread::scope(|scope| {
        let clients: Vec<_> = pods
            .chunks(PODS.div_ceil(CLIENTS))
            .map(|share| {
                let (cri, refused, done) = (node.cri.clone(), &refused, &done);
                scope.spawn(move || keep_trying(&cri, share, refused, done))
            })
            .collect();
        let start = Instant::now();
        let pressed = sample(&node.cri, &foreign, "while");
        // At least one whole round of tries lies within the measure.
        while refused.load(Ordering::Relaxed) < PODS && start.elapsed() < 4 * EVERY {
            thread::sleep(Duration::from_millis(20));
        }
        done.store(true, Ordering::Relaxed);
        for client in clients {
            let tried = client.join().expect("it does not panic");
            tried.unwrap_or_else(|e| panic!("a try ended otherwise than promised: {e}"));
        }
        (pressed, start.elapsed())
    });
    node.driver_well();
    let refused = refused.into_inner();
    let slow = pressed
        .iter()
        .filter(|d| **d > Duration::from_millis(500))
        .count();
    note(format!(
        "{refused} tries refused in {:.1} s; foreign creation: median {:?} before, {:?} meanwhile; {slow} of {SAMPLES} over 0.5 s",
        waited.as_secs_f32(),
        median(&usual),
        median(&pressed),
    ));
    assert!(
        refused >= PODS,
        "only {refused} tries were made: the measure says nothing"
    );
    assert!(median(&pressed) < FACTOR * median(&usual).max(FLOOR));
    assert!(
        slow * 4 <= SAMPLES,
        "{slow} of {SAMPLES} foreign creations took over 0.5 s"
    );
}

/// One client: its pods one after another, each about once every [`EVERY`].
/// Every try must be refused retryably: the driver never answers.
fn keep_trying(
    cri: &Cri,
    pods: &[Pod],
    refused: &AtomicUsize,
    done: &AtomicBool,
) -> Result<(), String> {
    let pause = EVERY / u32::try_from(pods.len()).unwrap_or(1);
    let spec = ContainerSpec::idle("agent");
    for pod in pods.iter().cycle() {
        if done.load(Ordering::Relaxed) {
            break;
        }
        match cri.create_container(pod, &spec) {
            Ok(_) => return Err("a container was created without its volume".to_owned()),
            Err(refusal) if is_retryable(&refusal) => {
                refused.fetch_add(1, Ordering::Relaxed);
            }
            Err(refusal) => return Err(refusal.to_string()),
        }
        thread::sleep(pause);
    }
    Ok(())
}

/// How long the creation of containers takes that have nothing to do with us.
fn sample(cri: &Cri, pod: &Pod, prefix: &str) -> Vec<Duration> {
    let one = |i: usize| {
        let spec = ContainerSpec::idle(&format!("{prefix}-{i}"));
        let start = Instant::now();
        let id = cri
            .create_container(pod, &spec)
            .expect("a foreign container is created");
        let took = start.elapsed();
        cri.remove_container(&id).expect("it is removed");
        took
    };
    (0..SAMPLES).map(one).collect()
}

fn median(samples: &[Duration]) -> Duration {
    let mut sorted = samples.to_vec();
    sorted.sort();
    sorted[sorted.len() / 2]
}
