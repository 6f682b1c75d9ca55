// SPDX-License-Identifier: Apache-2.0
//! The daemon aborted at every crash point that a verb comes to, for each verb:
//! started again, with the verb repeated, it goes on from what is on disk, and at
//! the end nothing is lost or left.

#![cfg(feature = "crash-points")]
#![allow(clippy::unwrap_used)] // the whole file is a test

mod daemon;
mod host;
mod matrix;
mod story;

use std::{
    collections::BTreeMap,
    os::unix::process::ExitStatusExt,
    process::ExitStatus,
    sync::{Mutex, atomic::AtomicUsize, atomic::Ordering},
};

use matrix::{Verb, expected};
use story::Story;

const SIGABRT: i32 = 6;

/// How many stories are told at a time: most of one is waiting.
const WORKERS: usize = 4;

/// Does all of it with each of them; the stories' doubles and clients stay in
/// their thread.
fn for_each<T: Send>(work: Vec<T>, each: impl AsyncFn(T) + Sync) {
    let work = Mutex::new(work);
    std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .unwrap();
                loop {
                    let next = work.lock().unwrap().pop();
                    let Some(next) = next else { return };
                    runtime.block_on(each(next));
                }
            });
        }
    });
}

#[test]
#[ignore = "needs root: run by make test"]
fn a_daemon_that_is_killed_at_any_point_of_any_verb_loses_and_leaks_nothing() {
    let pairs: Vec<_> = expected()
        .into_iter()
        .flat_map(|(verb, points)| points.into_iter().map(move |point| (verb, point)))
        .collect();
    let (all, done) = (pairs.len(), AtomicUsize::new(0));
    let never = Mutex::new(Vec::new());
    for_each(pairs, async |(verb, point)| {
        let told = Story::tell(Some((verb, point)), None).await;
        if deaths(&told.exits) != 1 {
            let text = format!("{} at {}: {:?}", verb.name(), point.name(), told.exits);
            never.lock().unwrap().push(text);
        }
        done.fetch_add(1, Ordering::Relaxed);
    });
    let never = never.into_inner().unwrap();
    assert!(never.is_empty(), "the daemon did not die: {never:#?}");
    assert_eq!(done.into_inner(), all);
    println!("{all} deaths survived");
}

/// Of the processes of a daemon one dies and the others go on.
#[test]
#[ignore = "needs root: run by make test"]
fn a_part_that_is_killed_alone_at_any_point_of_any_verb_loses_and_leaks_nothing() {
    let pairs: Vec<_> = expected()
        .into_iter()
        .flat_map(|(verb, points)| points.into_iter().map(move |point| (verb, point)))
        .collect();
    let (all, never) = (pairs.len(), Mutex::new(Vec::new()));
    for_each(pairs, async |(verb, point)| {
        let told = Story::tell_alone((verb, point)).await;
        assert!(told.exits.is_empty(), "the parent lives: {:?}", told.exits);
        if told.deaths != 1 {
            let text = format!("{} at {}", verb.name(), point.name());
            never.lock().unwrap().push(text);
        }
    });
    let never = never.into_inner().unwrap();
    assert!(never.is_empty(), "nothing died: {never:#?}");
    println!("{all} deaths of a part survived");
}

/// What the restarted daemon does first is to reconcile: it dies there, too.
#[test]
#[ignore = "needs root: run by make test"]
fn a_daemon_that_is_killed_again_while_it_reconciles_loses_and_leaks_nothing() {
    let furthest = if std::env::var_os("AV_LONG").is_some() {
        8
    } else {
        3
    };
    let mut stories = Vec::new();
    for verb in [Verb::Run, Verb::Suspend, Verb::Crash] {
        for point in &expected()[&verb] {
            stories.extend((1..=furthest).map(|again| (verb, *point, again)));
        }
    }
    let (all, twice) = (stories.len(), AtomicUsize::new(0));
    for_each(stories, async |(verb, point, again)| {
        let told = Story::tell(Some((verb, point)), Some(again)).await;
        let deaths = deaths(&told.exits);
        assert!(deaths > 0, "{} at {}", verb.name(), point.name());
        twice.fetch_add(deaths - 1, Ordering::Relaxed);
    });
    let twice = twice.into_inner();
    println!("{all} stories, in {twice} of them it died twice");
    assert!(twice > all / 2, "it died twice in {twice} of {all} alone");
}

fn deaths(exits: &[ExitStatus]) -> usize {
    let aborted = |s: &&ExitStatus| s.signal() == Some(SIGABRT);
    exits.iter().filter(aborted).count()
}

#[test]
#[ignore = "needs root: run by make test"]
fn each_verb_comes_to_the_points_of_the_matrix_and_to_no_other() {
    let told = Mutex::new(BTreeMap::new());
    for_each(vec![()], async |()| {
        let story = Story::tell(None, None).await;
        assert!(story.exits.is_empty(), "{:?}", story.exits);
        *told.lock().unwrap() = story.points;
    });
    let told = told.into_inner().unwrap();
    println!("{}", matrix::shown(&told));
    for verb in Verb::ALL {
        let names = |points: &[_]| -> Vec<&str> {
            let points = points.iter();
            points
                .map(|p: &actor_volumes::host::crash::CrashPoint| p.name())
                .collect()
        };
        let (found, wanted) = (&told[verb], &expected()[verb]);
        assert_eq!(names(found), names(wanted), "{}", verb.name());
    }
}
