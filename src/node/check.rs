// SPDX-License-Identifier: Apache-2.0
//! Whether a container that is about to be made has exactly what it was given:
//! the question of the guard, which stands where the runtime makes it.
//!
//! A path that looks right is not enough. It counts what this agent has on
//! record as given to this very container, and what is mounted there now.

use std::{collections::BTreeMap, path::Path};

use super::{
    Agent, Publication,
    admit::{self, Admitted},
    volume::Volume,
};
use crate::{
    delivery::{self, Flags, Shown, Spec},
    error::{Error, Result},
    model::{ContainerView, Generation, Scope, VolumeMode},
    model::{GrantVolume, SandboxView},
};

impl Agent {
    /// Whether the container may be made with this spec: an error says why not.
    ///
    /// The annotations are in `sandbox`, also where the container carries them
    /// itself: an OCI spec does not tell which.
    pub async fn check_container(
        &self,
        sandbox: &SandboxView,
        container: &ContainerView,
        spec: &Spec,
    ) -> Result<()> {
        let checked = self.checked(sandbox, container, spec).await;
        self.shared.metrics.guard(checked.is_ok());
        if let Err(error) = &checked {
            tracing::warn!(
                ?sandbox,
                ?container,
                "the guard refuses: {}",
                error.full_message()
            );
        }
        checked
    }

    async fn checked(
        &self,
        sandbox: &SandboxView,
        container: &ContainerView,
        spec: &Spec,
    ) -> Result<()> {
        let admitted = self.admitted(sandbox, None).await?.ok_or_else(|| {
            Error::invalid("the container has no actor-volumes.dev annotations to be checked")
        })?;
        self.allow(&admitted, sandbox).await?;
        let mut published = BTreeMap::new();
        for volume in delivery::volumes_for(&admitted.grant, &container.name) {
            let shown = self
                .given(&admitted, volume, &sandbox.id, &container.id)
                .await
                .map_err(|e| e.context(format_args!("volume {}", volume.name)))?;
            let flags = self.flags(volume);
            published.insert(volume.name.clone(), Shown { flags, ..shown });
        }
        // The container's own mounts are judged by their order in the spec.
        let alone = ContainerView {
            mounts: Vec::new(),
            ..container.clone()
        };
        let needs = delivery::needs(&admitted.grant, &published, &alone)?;
        delivery::check_given(&needs, spec)
    }

    /// The same of a container that no pod holds.
    pub async fn check_container_on_host(
        &self,
        container: &ContainerView,
        place: (Option<&Path>, Option<&Path>),
        spec: &Spec,
    ) -> Result<()> {
        let checked = self.checked_on_host(container, place, spec).await;
        self.shared.metrics.guard(checked.is_ok());
        if let Err(error) = &checked {
            tracing::warn!(?container, "the guard refuses: {}", error.full_message());
        }
        checked
    }

    async fn checked_on_host(
        &self,
        container: &ContainerView,
        (root, bundle): (Option<&Path>, Option<&Path>),
        spec: &Spec,
    ) -> Result<()> {
        let granted = self.granted_on_host(&container.id, &container.annotations);
        let grant = granted.await?;
        let mut published = BTreeMap::new();
        for volume in delivery::volumes_for(&grant, &container.name) {
            let shown = self
                .given_on_host(volume, &container.id, root, bundle)
                .await
                .map_err(|e| e.context(format_args!("volume {}", volume.name)))?;
            let flags = self.flags(volume);
            published.insert(volume.name.clone(), Shown { flags, ..shown });
        }
        let needs = delivery::needs(&grant, &published, container)?;
        delivery::check_given(&needs, spec)
    }

    async fn given_on_host(
        &self,
        volume: &GrantVolume,
        id: &str,
        root: Option<&Path>,
        bundle: Option<&Path>,
    ) -> Result<Shown> {
        let Some(known) = self.known(&volume.key()) else {
            return Err(not_given());
        };
        let is_it = |p: &&Publication| {
            matches!(&p.scope, Scope::Container { container, .. } if container == id)
                && p.anchor.as_ref().is_some_and(|a| a.is_at(root, bundle))
        };
        let found = {
            let record = &known.state.lock().await.record;
            let generation = volume.generation;
            let current = generation > record.revoked && generation >= record.highest;
            let mut live = record.publications.iter().filter(is_it);
            let live = live.find(|p| p.is_live() && p.request.generation == generation);
            live.filter(|_| current).cloned()
        };
        match found {
            Some(publication) => known.shown_now(&publication).await,
            None => Err(not_given()),
        }
    }

    /// What of the volume was given to the container, if it is there now.
    async fn given(
        &self,
        admitted: &Admitted,
        volume: &GrantVolume,
        sandbox: &str,
        container: &str,
    ) -> Result<Shown> {
        let of_container = admit::member_scope(&self.runtime, sandbox, &admitted.grant);
        let Some(known) = self.known(&volume.key()) else {
            return Err(not_given());
        };
        for scope in [&admitted.scope, &of_container] {
            let found = known.given_to(scope, volume.generation, container).await?;
            if let Some(publication) = found {
                return known.shown_now(&publication).await;
            }
        }
        Err(not_given())
    }
}

fn not_given() -> Error {
    Error::unavailable(
        "it was not given to this container: who had to ask for it was not asked, or it was answered too late; retry",
    )
}

impl Volume {
    /// The publication of this scope, where the container was given its mount.
    async fn given_to(
        &self,
        scope: &Scope,
        generation: Generation,
        container: &str,
    ) -> Result<Option<Publication>> {
        let state = self.state.lock().await;
        let record = &state.record;
        let Some(found) = record.publication(scope) else {
            return Ok(None);
        };
        if !found.members.contains(container) {
            return Ok(None);
        }
        if !found.is_live()
            || found.request.generation != generation
            || generation <= record.revoked
            || generation < record.highest
        {
            let why = found
                .ending
                .as_deref()
                .or(found.corrupt.as_deref())
                .unwrap_or("it is being made anew");
            return Err(Error::unavailable(format!(
                "it was given to this container and is not published for {scope} any more ({why}): retry"
            )));
        }
        Ok(Some(found.clone()))
    }

    /// Looks that what is on record is what is there.
    async fn shown_now(&self, publication: &Publication) -> Result<Shown> {
        let path = self.shared.layout.target(&self.key, &publication.scope);
        let seen = self.see(path.clone()).await?;
        let same = match publication.request.volume_mode {
            VolumeMode::Block => seen.device.is_some() && seen.device == publication.device,
            VolumeMode::Filesystem => {
                let now = seen.mount().map(|m| &m.identity);
                now.is_some() && now == publication.identity.as_ref() && !seen.hollow
            }
        };
        if !same {
            return Err(changed(&path));
        }
        if let Some(why) = self.sub_path_fault(publication).await? {
            return Err(changed(&path).context(why));
        }
        Ok(Shown {
            path,
            sub_paths: self.sub_paths(publication),
            device: publication.device.map(|d| (d.major, d.minor)),
            flags: Flags::default(),
        })
    }
}

fn changed(path: &Path) -> Error {
    Error::unavailable(format!(
        "what is at {} is not what was published there: it is looked at anew when the next container is created; retry",
        path.display()
    ))
}
