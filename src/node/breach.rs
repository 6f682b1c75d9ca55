// SPDX-License-Identifier: Apache-2.0
//! Finds containers that run without a volume that their annotations ask for: a
//! runtime that dropped the plugin, or never asked it, starts them so where no
//! guard stands (I7).
//!
//! What counts is the specification that the runtime made the container by, not
//! what is on record here: it tells the truth also after the records were lost.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, MutexGuard, PoisonError},
};

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::{Agent, Layout, admit};
use crate::{
    api::annotation,
    cri::{self, Listing},
    delivery::{self, Spec},
    error::Result,
    model::{GrantVolume, RuntimeId, Scope, SubPath},
};

/// A container that runs without a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Breach {
    /// Its id.
    pub container: String,
    /// Its name in the pod.
    pub name: String,
    /// The sandbox's id.
    pub sandbox: String,
    /// `namespace/name` of the pod.
    pub pod: String,
    /// What is wrong.
    pub why: String,
    /// When it was found.
    pub since: Timestamp,
}

/// What the looks so far found.
#[derive(Debug, Default)]
pub(super) struct Found {
    breaches: BTreeMap<String, Breach>,
    /// Containers with all their volumes: a specification does not change.
    sound: BTreeSet<String>,
}

impl Agent {
    /// The containers that run without a volume that they ask for.
    pub fn breaches(&self) -> Vec<Breach> {
        self.lock_found().breaches.values().cloned().collect()
    }

    fn lock_found(&self) -> MutexGuard<'_, Found> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// These containers are gone.
    pub(super) fn breaches_over(&self, over: impl Fn(&Breach) -> bool) {
        let mut found = self.lock_found();
        let before = found.breaches.len();
        found.breaches.retain(|_, breach| !over(breach));
        if found.breaches.len() < before {
            self.shared.metrics.breaches(found.breaches.len());
        }
    }

    /// Looks from time to time, and at once when the runtime has told what it has.
    pub(super) async fn look_for_breaches(self: Arc<Self>, shutdown: CancellationToken) {
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(self.settings.breach_interval) => {}
                () = self.look_now.notified() => {}
            }
            if let Err(error) = self.look().await {
                tracing::warn!(
                    "it is not known whether containers run without their volumes: {}",
                    error.full_message()
                );
            }
        }
    }

    async fn look(&self) -> Result<()> {
        let listing = self.shared.cri.list().await?;
        let live = |id: &String| listing.containers.get(id).is_some_and(is_live);
        let suspects: Vec<_> = {
            let mut found = self.lock_found();
            found.sound.retain(live);
            found.breaches.retain(|id, _| live(id));
            let known =
                |id: &&String| found.sound.contains(*id) || found.breaches.contains_key(*id);
            let suspects = listing.containers.keys();
            let suspects = suspects.filter(|id| live(id) && !known(id));
            suspects.cloned().collect()
        };
        for id in suspects {
            let (sandbox, container) = of(&listing, &id);
            if !asks(sandbox, container) {
                continue;
            }
            // A container that is gone meanwhile, or of a runtime that does not tell.
            let Some(known) = self.shared.cri.spec(&id).await? else {
                continue;
            };
            let lacks = lacks(
                &self.settings.layout,
                &self.runtime,
                (sandbox, container),
                &known.spec,
            );
            match lacks {
                None => {
                    self.lock_found().sound.insert(id);
                }
                Some(why) => self.breach(&id, sandbox, container, why).await,
            }
        }
        let count = self.lock_found().breaches.len();
        self.shared.metrics.breaches(count);
        Ok(())
    }

    async fn breach(
        &self,
        id: &str,
        sandbox: &cri::Sandbox,
        container: &cri::Container,
        why: String,
    ) {
        let breach = Breach {
            container: id.to_owned(),
            name: container.name.clone(),
            sandbox: container.sandbox.clone(),
            pod: format!("{}/{}", sandbox.namespace, sandbox.name),
            why,
            since: Timestamp::now(),
        };
        tracing::error!(
            pod = breach.pod,
            container = breach.name,
            id,
            "a container runs without a volume that it asks for: {}",
            breach.why
        );
        let sandbox = breach.sandbox.clone();
        self.shared.metrics.breach();
        self.lock_found().breaches.insert(id.to_owned(), breach);
        if !self.settings.stop_breaches {
            return;
        }
        match self.shared.cri.stop_sandbox(&sandbox).await {
            Ok(()) => tracing::warn!(sandbox, "its sandbox was stopped"),
            Err(error) => {
                tracing::error!(
                    sandbox,
                    "its sandbox is not stopped: {}",
                    error.full_message()
                );
                // It is found again at the next look.
                self.lock_found().breaches.remove(id);
            }
        }
    }
}

/// One that was created and not started will run with what it has.
fn is_live(container: &cri::Container) -> bool {
    container.running || container.created
}

fn asks(sandbox: &cri::Sandbox, container: &cri::Container) -> bool {
    admit::has_ours(&sandbox.annotations) || admit::has_ours(&container.annotations)
}

/// Why the container is not what its annotations ask for; none: it is, or asks for
/// nothing.
fn lacks(
    layout: &Layout,
    runtime: &RuntimeId,
    (sandbox, container): (&cri::Sandbox, &cri::Container),
    spec: &Spec,
) -> Option<String> {
    let of_pod = annotation::read(&sandbox.annotations);
    let of_container = annotation::read(&container.annotations);
    let presented = match (of_pod, of_container) {
        (Err(error), _) | (_, Err(error)) => {
            return Some(format!(
                "its annotations cannot be read, so it was to be refused: {}",
                error.full_message()
            ));
        }
        (Ok(None), Ok(None)) => return None,
        (Ok(Some(presented)), _) | (Ok(None), Ok(Some(presented))) => presented,
    };
    let grant = presented.grant;
    if delivery::volumes_for(&grant, &container.name).is_empty() {
        return None;
    }
    let whole = Scope::Sandbox {
        runtime: runtime.clone(),
        sandbox: container.sandbox.clone(),
    };
    let member = admit::member_scope(runtime, &container.sandbox, &grant);
    let shown = |scope: &Scope| {
        let at = |volume: &GrantVolume, sub_path: Option<&SubPath>| match sub_path {
            Some(path) => layout.sub_path(&volume.key(), scope, path),
            None => layout.target(&volume.key(), scope),
        };
        delivery::check_shown(&grant, &container.name, at, spec)
    };
    let lacks = shown(&whole).err()?;
    shown(&member).err()?;
    Some(lacks.full_message())
}

fn of<'l>(listing: &'l Listing, id: &str) -> (&'l cri::Sandbox, &'l cri::Container) {
    static GONE: std::sync::LazyLock<cri::Sandbox> = std::sync::LazyLock::new(Default::default);
    let container = &listing.containers[id];
    let sandbox = listing.sandboxes.get(&container.sandbox);
    (sandbox.unwrap_or(&GONE), container)
}
