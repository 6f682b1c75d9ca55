// SPDX-License-Identifier: Apache-2.0
//! Looks regularly whether what is published is of use, and how much of it is
//! used.

use std::{sync::Arc, time::Duration};

use tokio::{sync::Semaphore, task::JoinSet, time::MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::{Agent, Publication, volume::Volume};
use crate::model::Scope;

/// How many volumes are looked at at once: one that hangs keeps its place for
/// seconds.
const AT_ONCE: usize = 8;

/// Runs until the shutdown. An interval of zero: never.
pub(super) async fn run(agent: Arc<Agent>, shutdown: CancellationToken) {
    let (stats, probes) = (agent.settings.stats_interval, agent.settings.probe_interval);
    tokio::join!(
        each(stats, &shutdown, || refresh_stats(&agent)),
        each(probes, &shutdown, || examine_all(&agent)),
    );
}

async fn each<F: Future<Output = ()>>(
    interval: Duration,
    shutdown: &CancellationToken,
    work: impl Fn() -> F,
) {
    if interval.is_zero() {
        return;
    }
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The first tick is now, and there is nothing to look at yet.
    ticks.tick().await;
    loop {
        let tick = async {
            ticks.tick().await;
            work().await;
        };
        if shutdown.run_until_cancelled(tick).await.is_none() {
            return;
        }
    }
}

/// What is live here: each volume with its scopes.
async fn live(agent: &Agent) -> Vec<(Arc<Volume>, Vec<Scope>)> {
    let mut found = Vec::new();
    for volume in agent.volumes() {
        let state = volume.state.lock().await;
        let live = state.record.publications.iter();
        let scopes: Vec<_> = live
            .filter(|p| Publication::is_live(p))
            .map(|p| p.scope.clone())
            .collect();
        drop(state);
        if !scopes.is_empty() {
            found.push((volume, scopes));
        }
    }
    found
}

async fn refresh_stats(agent: &Agent) {
    let asking = live(agent).await.into_iter().map(|(volume, _)| async move {
        if let Err(error) = volume.stats().await {
            tracing::debug!(volume = %volume.key, "{}", error.full_message());
        }
    });
    some_at_once(asking).await;
}

async fn examine_all(agent: &Agent) {
    let examining = live(agent)
        .await
        .into_iter()
        .map(|(volume, scopes)| async move {
            for scope in scopes {
                if let Err(error) = volume.examine(&scope).await {
                    tracing::warn!(volume = %volume.key, "{}", error.full_message());
                }
            }
        });
    some_at_once(examining).await;
}

async fn some_at_once<F>(all: impl Iterator<Item = F>)
where
    F: Future<Output = ()> + Send + 'static,
{
    let places = Arc::new(Semaphore::new(AT_ONCE));
    let mut running = JoinSet::new();
    for one in all {
        let places = Arc::clone(&places);
        running.spawn(async move {
            let _place = places.acquire().await;
            one.await;
        });
    }
    running.join_all().await;
}
