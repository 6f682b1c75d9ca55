// SPDX-License-Identifier: Apache-2.0
//! Finds scopes whose end no event told: NRI never relays the end of pods that
//! are older than a restart of the runtime. What is to be believed of what the
//! runtime lists is decided by [`reconcile`](super::reconcile).

use std::{sync::Arc, time::Instant};

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::{
    Agent, Publication,
    give_back::Vanished,
    reconcile::{APART, Reconciler, Verdicts},
    volume::Volume,
};
use crate::cri::Listing;

pub(super) struct Sweep {
    agent: Arc<Agent>,
    reconciler: Reconciler,
    /// Containers that no pod holds.
    vanished: Vanished,
    /// Whether a listing was seen since the start.
    begun: bool,
}

impl Sweep {
    pub(super) fn new(agent: Arc<Agent>) -> Self {
        Self {
            reconciler: Reconciler::new(agent.runtime.clone(), agent.settings.sweep_interval),
            agent,
            vanished: Vanished::default(),
            begun: false,
        }
    }

    pub(super) async fn run(mut self, shutdown: CancellationToken) {
        loop {
            let asked = tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(self.agent.settings.sweep_interval) => false,
                () = self.agent.sweep_now.notified() => true,
            };
            self.once().await;
            if asked && self.reconciler.misses_something() {
                tokio::time::sleep(APART).await;
                self.once().await;
            }
        }
    }

    async fn once(&mut self) {
        self.agent.sweep_hosts(&mut self.vanished).await;
        let mut used = Vec::new();
        let mut publications = Vec::new();
        for volume in self.agent.volumes() {
            let state = volume.state.lock().await;
            let of_pods = state.record.publications.iter();
            let of_pods = of_pods.filter(|p| p.scope.sandbox().is_some());
            let before = publications.len();
            publications.extend(of_pods.cloned());
            if publications.len() > before {
                drop(state);
                used.push(Arc::clone(&volume));
            }
        }
        let listing = if used.is_empty() {
            // Nobody is asked for nothing.
            Some(Listing::default())
        } else {
            let listing = self.agent.shared.cri.list().await;
            listing
                .map_err(|e| tracing::warn!("the sweep sees nothing: {}", e.full_message()))
                .ok()
        };
        let verdicts = self.reconciler.judge(
            &publications,
            listing.as_ref(),
            (Instant::now(), Timestamp::now()),
        );
        if listing.is_some() && !std::mem::replace(&mut self.begun, true) {
            tracing::info!(
                scopes = publications.len(),
                listed = verdicts.listed.len(),
                uncertain = verdicts.uncertain.len(),
                unreadable = self.agent.unreadable().len(),
                "the records are compared with what the runtime lists"
            );
        }
        for volume in &used {
            carry_out(&verdicts, volume).await;
        }
        let uncertain = verdicts.uncertain;
        self.agent.shared.metrics.uncertain(uncertain.len());
        *self.agent.uncertain() = uncertain;
    }
}

async fn carry_out(verdicts: &Verdicts, volume: &Arc<Volume>) {
    volume.listed(&verdicts.listed).await;
    let why = |p: &Publication| verdicts.over.get(&p.scope).map(|why| (*why).to_owned());
    volume.end(why).await;
    let gone = volume
        .members_gone(|_, member| verdicts.gone.contains(member))
        .await;
    if let Err(error) = gone {
        tracing::error!("{}", error.full_message());
    }
}
