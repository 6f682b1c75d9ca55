// SPDX-License-Identifier: Apache-2.0
//! What a container is given that comes by a door which is not NRI.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;

use super::{
    Agent,
    admit::{self, Admitted},
    anchor::{self, Anchor, Born, Bundle, Directory},
    proof,
    volume::{Volume, Want},
};
use crate::{
    api::grant,
    delivery::{self, MountNeed, Needs, Shown},
    error::{Error, Result},
    host::process,
    model::{
        ContainerView, DnsLabel, Door, Grant, GrantVolume, RuntimeId, SandboxView, Scope,
        ViewMount, VolumeMode,
    },
    proto::api,
};

/// Nobody waits longer, whatever is asked for.
const LONGEST_WAIT: Duration = Duration::from_secs(120);

/// A container that no pod holds, as a door tells it.
pub(super) struct HostContainer {
    pub(super) door: Door,
    pub(super) id: String,
    pub(super) name: String,
    pub(super) annotations: BTreeMap<String, String>,
    pub(super) mounts: Vec<ViewMount>,
    pub(super) anchor: Anchor,
    /// A process that is there now, by which it is shown that such ones are in sight.
    pub(super) shows: Option<Born>,
}

impl Agent {
    /// Publishes what the container's grant asks for, and gives what it must have.
    pub async fn give_container(
        self: &Arc<Self>,
        asked: api::GiveContainerRequest,
    ) -> Result<api::GiveContainerResponse> {
        let id = asked.container_id.clone();
        let given = self.given_to_container(asked).await;
        given.map_err(|e| {
            let error = e.context(format!("actor-volumes: container {id:?}"));
            tracing::warn!(container = id, "{}", error.full_message());
            error
        })
    }

    async fn given_to_container(
        self: &Arc<Self>,
        asked: api::GiveContainerRequest,
    ) -> Result<api::GiveContainerResponse> {
        let wait = Duration::from_millis(asked.wait_ms.into()).min(LONGEST_WAIT);
        let until = Instant::now() + wait;
        let needs = if asked.pod.is_some() {
            self.give_in_pod(asked, until).await?
        } else {
            let maps = asked.map_owners.then(|| asked.user_namespace.clone());
            // The bundle may lie on a file system that does not answer.
            let read = move || HostContainer::told(asked);
            let container = proof::look("the bundle of a container", read).await??;
            let given = self.give_on_host(&container, maps, until).await;
            self.shared.metrics.container(given.is_ok());
            given?
        };
        self.answer(needs).await
    }

    /// A container of a pod, where its runtime does not ask by NRI: what NRI would have
    /// given it.
    async fn give_in_pod(
        self: &Arc<Self>,
        asked: api::GiveContainerRequest,
        until: Instant,
    ) -> Result<Needs> {
        let pod = asked.pod.unwrap_or_default();
        let listing = self.shared.proof.listing().await?;
        let listed = listing.sandboxes.get(&pod.sandbox_id).ok_or_else(|| {
            Error::precondition(format!(
                "the container says that it is of the sandbox {}, which the runtime at runtime.cri_socket does not list",
                pod.sandbox_id
            ))
        })?;
        // The specification does not tell whose annotations they are; the runtime does.
        let sandbox = SandboxView {
            id: pod.sandbox_id.clone(),
            name: listed.name.clone(),
            namespace: listed.namespace.clone(),
            annotations: listed.annotations.clone(),
            ..SandboxView::default()
        };
        let of_pod = admit::has_ours(&sandbox.annotations);
        let bound = asked.door == i32::from(api::Door::Bind);
        let container = ContainerView {
            id: asked.container_id,
            sandbox: pod.sandbox_id,
            name: asked.container_name,
            annotations: match of_pod && !bound {
                true => BTreeMap::new(),
                false => asked.annotations.into_iter().collect(),
            },
            mounts: asked.mounts.into_iter().map(view_mount).collect(),
            user_namespace: asked.map_owners.then_some(asked.user_namespace),
        };
        self.container_created_in_peace(&sandbox, &container, until)
            .await
    }

    async fn give_on_host(
        self: &Arc<Self>,
        container: &HostContainer,
        maps: Option<String>,
        until: Instant,
    ) -> Result<Needs> {
        self.look_that_it_is_seen(container).await?;
        let admitted = Admitted {
            grant: self
                .granted_on_host(&container.id, &container.annotations)
                .await?,
            scope: container.scope()?,
        };
        grant::check_time(&admitted.grant, Timestamp::now())?;
        let sandbox = seen_as_pod(&admitted, container);
        self.allow(&admitted, &sandbox).await?;
        let needed = delivery::volumes_for(&admitted.grant, &container.name);
        let mut new = Vec::new();
        let given = async {
            let mut volumes = Vec::new();
            for grant in needed {
                let volume = self.volume(&grant.key())?;
                self.end_gone(&volume).await;
                if !volume.has_scope(&admitted.scope).await {
                    new.push(Arc::clone(&volume));
                }
                self.want_on_host(&admitted, grant, container, &volume)
                    .await?;
                volumes.push((grant, volume));
            }
            let mut published = self.join_all(&admitted.scope, &volumes, until).await?;
            if let Some(space) = maps {
                let asked = (admitted.scope.clone(), space);
                self.map_on_host(asked, &volumes, &mut published, until)
                    .await?;
            }
            let view = ContainerView {
                id: container.id.clone(),
                name: container.name.clone(),
                mounts: container.mounts.clone(),
                ..ContainerView::default()
            };
            delivery::needs(&admitted.grant, &published, &view)
        }
        .await;
        if given.is_err() {
            // It is not made, and what it asked for first is for nobody.
            for volume in new {
                let over = |p: &super::Publication| {
                    (p.scope == admitted.scope).then(|| "its container was refused".to_owned())
                };
                volume.end(over).await;
            }
        }
        given
    }

    /// The owners are mapped by the OCI runtime, which can. Of a namespace that is made
    /// later nothing can be tried: the runtime fails then.
    async fn map_on_host(
        &self,
        (scope, space): (Scope, String),
        volumes: &[(&GrantVolume, Arc<Volume>)],
        published: &mut BTreeMap<DnsLabel, Shown>,
        until: Instant,
    ) -> Result<()> {
        if !space.is_empty() {
            return self
                .maps_ids_of(&scope, &space, volumes, published, until)
                .await;
        }
        if let Some((grant, _)) = volumes
            .iter()
            .find(|(g, _)| g.volume_mode == VolumeMode::Block)
        {
            return Err(Error::precondition(format!(
                "volume {} is a block device, and the container has a user namespace, in which no device node can be made: use volumeMode Filesystem, or no user namespace",
                grant.name
            )));
        }
        for shown in published.values_mut() {
            shown.flags.id_mapped = true;
        }
        Ok(())
    }

    pub(super) async fn join_all(
        &self,
        scope: &Scope,
        volumes: &[(&GrantVolume, Arc<Volume>)],
        until: Instant,
    ) -> Result<BTreeMap<DnsLabel, Shown>> {
        let mut published = BTreeMap::new();
        for (grant, volume) in volumes {
            let shown = volume.join(grant.name.as_str(), scope, until).await?;
            let flags = self.flags(grant);
            published.insert(grant.name.clone(), Shown { flags, ..shown });
        }
        Ok(published)
    }

    async fn want_on_host(
        &self,
        admitted: &Admitted,
        grant: &GrantVolume,
        container: &HostContainer,
        volume: &Arc<Volume>,
    ) -> Result<()> {
        self.check_drain(&volume.key, &admitted.scope).await?;
        volume
            .want(Want {
                anchor: Some(container.anchor.clone()),
                ..admitted.want(grant)
            })
            .await
    }

    /// What a container that no pod holds presents, if it is believed.
    pub(super) async fn granted_on_host(
        &self,
        id: &str,
        annotations: &BTreeMap<String, String>,
    ) -> Result<Grant> {
        self.look_at_keys(annotations).await;
        let (keys, authority) = (self.trusted_keys(), self.authority());
        admit::admit_on_host(&self.settings, &keys, authority, id, annotations)
    }

    /// Whoever makes the container is a process that is seen here: only then the end of
    /// its processes can be.
    async fn look_that_it_is_seen(&self, container: &HostContainer) -> Result<()> {
        let Some(seen) = container.shows else {
            return Ok(());
        };
        let lives = proof::look("the process that asks", move || seen.lives()).await?;
        match lives {
            Ok(true) => {
                self.shared.proof.seen();
                Ok(())
            }
            _ => Err(Error::precondition(format!(
                "process {} of the container is not seen by the node agent, or has ended: run the node agent in the host's process namespace (hostPID)",
                seen.pid
            ))),
        }
    }

    /// What is mounted at each source is told too: who asks looks that it sees the same.
    async fn answer(&self, needs: Needs) -> Result<api::GiveContainerResponse> {
        let mut mounts = Vec::new();
        for need in needs.mounts {
            let found = proof::mount_at(need.source.clone()).await?;
            let found = found.ok_or_else(|| {
                Error::unavailable(format!(
                    "nothing is mounted at {} any more: retry",
                    need.source.display()
                ))
            })?;
            mounts.push(given_mount(need, found.identity.device)?);
        }
        Ok(api::GiveContainerResponse {
            mounts,
            devices: needs.devices.into_iter().map(given_device).collect(),
            mount_root: path_text(self.settings.layout.mount_root())?,
        })
    }
}

impl HostContainer {
    /// Reads what a door tells.
    fn told(asked: api::GiveContainerRequest) -> Result<Self> {
        let door = match asked.door() {
            api::Door::Hook => Door::Hook,
            api::Door::Runtime => Door::Runtime,
            api::Door::Bundle => Door::Bundle,
            api::Door::Bind => Door::Bind,
            api::Door::Unspecified => return Err(Error::invalid("door must be told")),
        };
        if asked.container_id.is_empty() {
            return Err(Error::invalid("container_id must not be empty"));
        }
        let process = asked.process.map(|p| Born {
            pid: p.pid,
            start_time: p.start_time,
        });
        if process.is_none() && door != Door::Bundle {
            return Err(Error::invalid(
                "process must be told: by it the container is seen to live",
            ));
        }
        let path = |key: &str, text: String| match text.is_empty() {
            true => Ok(None),
            false if Path::new(&text).is_absolute() => Ok(Some(PathBuf::from(text))),
            false => Err(Error::invalid(format!("{key} must be an absolute path"))),
        };
        let bundle = path("bundle", asked.bundle)?.map(|path| {
            let seen = Directory::at(&path);
            (path, seen)
        });
        let bundle = match (door, bundle) {
            // Only what is written into a bundle lives as long as the bundle.
            (Door::Bundle, None) => {
                return Err(Error::invalid(
                    "bundle must be told for what is written into it",
                ));
            }
            (Door::Bundle, Some((path, Err(e)))) => {
                return Err(Error::precondition(format!(
                    "the node agent cannot look at the bundle {}: it needs the host's file system for that; else use the wrapper or a hook",
                    path.display()
                ))
                .with_source(e));
            }
            (_, bundle) => bundle.map(|(path, seen)| Bundle {
                path,
                seen: seen.ok(),
            }),
        };
        Ok(Self {
            door,
            id: asked.container_id,
            name: asked.container_name,
            annotations: asked.annotations.into_iter().collect(),
            mounts: asked.mounts.into_iter().map(view_mount).collect(),
            shows: process,
            anchor: Anchor {
                boot: process::boot_id(),
                process_namespace: anchor::process_namespace()?,
                // Of a bundle it is whoever writes into it.
                process: process.filter(|_| door != Door::Bundle),
                root: path("runtime_root", asked.runtime_root)?,
                bundle,
            },
        })
    }

    /// What is published for it lives as long as this.
    pub(super) fn scope(&self) -> Result<Scope> {
        let anchor = &self.anchor;
        let runtime = match (&anchor.root, &anchor.bundle) {
            (Some(root), _) => format!("oci:{}", root.display()),
            (None, Some(bundle)) => format!("oci:{}", bundle.path.display()),
            (None, None) => "oci:unknown".to_owned(),
        };
        let birth = match (&anchor.process, &anchor.bundle) {
            (Some(born), _) => format!("{}-{}", born.pid, born.start_time),
            (None, Some(Bundle { seen: Some(s), .. })) => format!("{}:{}", s.device, s.inode),
            (None, _) => String::new(),
        };
        Ok(Scope::Container {
            door: self.door,
            runtime: RuntimeId::new(runtime)?,
            container: self.id.clone(),
            birth,
        })
    }
}

/// What the policy judges: such a container counts as of its actor's namespace.
pub(super) fn seen_as_pod(admitted: &Admitted, container: &HostContainer) -> SandboxView {
    SandboxView {
        id: admitted.scope.home().into_owned(),
        name: container.id.clone(),
        namespace: admitted.grant.actor.namespace.to_string(),
        ..SandboxView::default()
    }
}

fn view_mount(mount: api::SpecMount) -> ViewMount {
    ViewMount {
        destination: mount.destination,
        source: mount.source,
    }
}

fn given_mount(need: MountNeed, device: String) -> Result<api::GivenMount> {
    Ok(api::GivenMount {
        options: delivery::options(&need),
        destination: need.destination,
        source: path_text(&need.source)?,
        read_only: need.read_only,
        no_exec: need.flags.no_exec,
        device,
        volume: need.volume,
    })
}

fn given_device(need: delivery::DeviceNeed) -> api::GivenDevice {
    api::GivenDevice {
        path: need.path,
        major: need.major,
        minor: need.minor,
        read_only: need.read_only,
    }
}

fn path_text(path: &Path) -> Result<String> {
    let text = path.to_str().map(str::to_owned);
    text.ok_or_else(|| Error::internal(format!("the path {} is not UTF-8", path.display())))
}
