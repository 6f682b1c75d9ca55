// SPDX-License-Identifier: Apache-2.0
//! The life of one actor, as its platform leads it.

use std::{
    fs,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use actor_volumes::{
    api::annotation,
    control::{Control, ResumeOptions},
    error::{Error, Kind, Result},
    model::{ActorRef, ContainerView, SandboxView},
};

use crate::{AT_LAST, house::House};

/// How long one verb may wait; it is repeated.
const VERB: Duration = Duration::from_secs(5);

pub(crate) struct Life {
    house: Arc<House>,
    rng: fastrand::Rng,
    name: ActorRef,
    exists: bool,
    /// The resume's annotations, while it is resumed.
    granted: Option<std::collections::BTreeMap<String, String>>,
    sandbox: Option<String>,
    sandboxes: usize,
    /// What is in the volumes; none: they are new.
    written: Option<String>,
}

impl Life {
    pub(crate) fn new(house: Arc<House>, n: usize, seed: u64) -> Self {
        Self {
            house,
            rng: fastrand::Rng::with_seed(seed.wrapping_add(n as u64)),
            name: format!("agents/actor-{n}").parse().unwrap(),
            exists: false,
            granted: None,
            sandbox: None,
            sandboxes: 0,
            written: None,
        }
    }

    pub(crate) async fn run(mut self, operations: usize) -> Self {
        for _ in 0..operations {
            self.step().await;
            if self.rng.u8(0..4) == 0 {
                let pause = Duration::from_millis(self.rng.u64(0..30));
                tokio::time::sleep(pause).await;
            }
        }
        self
    }

    async fn step(&mut self) {
        if !self.exists {
            return self.create().await;
        }
        match (self.granted.is_some(), self.sandbox.is_some()) {
            (false, _) if self.rng.u8(0..6) == 0 => self.delete().await,
            (false, _) => self.resume().await,
            (true, false) if self.rng.u8(0..5) == 0 => self.suspend(true).await,
            (true, false) => self.start().await,
            // Its pod dies, and the platform says so.
            (true, true) if self.rng.u8(0..4) == 0 => {
                self.stop();
                self.crash().await;
            }
            // Asked to suspend while it runs, it is held until the pod has gone.
            (true, true) if self.rng.bool() => {
                self.suspend(false).await;
                self.stop();
                self.suspend(true).await;
            }
            (true, true) => self.stop(),
        }
    }

    /// Repeats the verb until it is answered with success, as a platform does.
    async fn repeat<T: Send + 'static, F>(
        &self,
        what: &str,
        verb: impl Fn(Arc<Control>, ActorRef) -> F,
    ) -> T
    where
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let start = Instant::now();
        loop {
            let name = self.name.clone();
            let error = match self.house.with_control(|c| verb(c, name)).await {
                Some(Ok(answer)) => return answer,
                Some(Err(error)) => error.full_message(),
                None => "the house was killed".to_owned(),
            };
            assert!(start.elapsed() < AT_LAST, "{what} {}: {error}", self.name);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn create(&mut self) {
        self.repeat("create", |control, name| async move {
            control
                .create_actor(&name, &"t".parse().unwrap(), Default::default(), Some(VERB))
                .await
        })
        .await;
        self.exists = true;
        self.written = None;
    }

    async fn resume(&mut self) {
        let grant = self
            .repeat("resume", |control, name| async move {
                let resumed = control.resume_actor(&name, ResumeOptions::default(), VERB);
                Ok(resumed.await?.1)
            })
            .await;
        self.granted = Some(annotation::write(&grant.without_contexts()).unwrap());
    }

    async fn suspend(&mut self, wait: bool) {
        self.repeat("suspend", move |control, name| async move {
            let view = control.suspend_actor(&name, None, wait, VERB).await?;
            let over = view.actor.phase.as_str() == "Suspended";
            if wait && !over {
                return Err(Error::unavailable(format!("not yet: {}", view.message)));
            }
            Ok(())
        })
        .await;
        if wait {
            self.granted = None;
        }
    }

    async fn crash(&mut self) {
        self.repeat("crash", |control, name| async move {
            let view = control.crash_actor(&name, None, true, VERB).await?;
            match view.actor.phase.as_str() {
                "Suspended" => Ok(()),
                _ => Err(Error::unavailable(format!("not yet: {}", view.message))),
            }
        })
        .await;
        self.granted = None;
    }

    async fn delete(&mut self) {
        self.repeat("delete", |control, name| async move {
            match control.delete_actor(&name, None, Some(VERB)).await {
                Err(e) if e.kind() == Kind::NotFound => Ok(()),
                other => other,
            }
        })
        .await;
        self.exists = false;
        self.written = None;
    }

    /// Starts a pod: the data is what was written last, and something new is
    /// written.
    async fn start(&mut self) {
        self.sandboxes += 1;
        let id = format!("{}-{}", self.name.name, self.sandboxes);
        let sandbox = SandboxView {
            id: id.clone(),
            name: id.clone(),
            namespace: "agents".into(),
            uid: id.clone(),
            annotations: self.granted.clone().unwrap(),
            ..SandboxView::default()
        };
        self.house.runtime.set(|lists| {
            lists.sandboxes.insert(id.clone(), true);
        });
        self.sandbox = Some(id);
        let paths = self.container(&sandbox).await;
        assert!(!paths.is_empty(), "{} has no volumes", self.name);
        for path in paths {
            let file = path.join("written");
            let found = fs::read_to_string(&file).ok();
            assert_eq!(found, self.written, "{} at {}", self.name, path.display());
        }
        let next = format!("{} {}", self.name, self.rng.u64(..));
        for path in self.container(&sandbox).await {
            fs::write(path.join("written"), &next).unwrap();
        }
        self.written = Some(next);
    }

    /// A container of the pod; gives where its volumes are on the host.
    async fn container(&mut self, sandbox: &SandboxView) -> Vec<PathBuf> {
        let start = Instant::now();
        let container = ContainerView {
            id: format!("{}-c", sandbox.id),
            sandbox: sandbox.id.clone(),
            name: "agent".into(),
            ..ContainerView::default()
        };
        loop {
            let (sandbox, container) = (sandbox.clone(), container.clone());
            let created = self.house.with_agent(|agent| async move {
                agent.sandbox_started(sandbox.clone());
                let until = Instant::now() + Duration::from_secs(1);
                agent.container_created(&sandbox, &container, until).await
            });
            let error = match created.await {
                Some(Ok(needs)) => return needs.mounts.into_iter().map(|n| n.source).collect(),
                Some(Err(error)) => error.full_message(),
                None => "the house was killed".to_owned(),
            };
            assert!(
                start.elapsed() < AT_LAST,
                "container of {}: {error}",
                self.name
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// The pod ends; whether anybody is told is left to chance.
    fn stop(&mut self) {
        let Some(id) = self.sandbox.take() else {
            return;
        };
        self.house.runtime.set(|lists| {
            lists.sandboxes.remove(&id);
        });
        if self.rng.bool() {
            self.house.tell_of_end(&id);
        }
    }

    /// Brings the actor to its end; gives the names of the volumes that it keeps.
    pub(crate) async fn end(mut self, deleted: bool) -> Vec<String> {
        if !self.exists {
            self.create().await;
        }
        if self.granted.is_none() {
            self.resume().await;
        }
        if self.sandbox.is_none() {
            self.start().await;
        }
        self.stop();
        self.suspend(true).await;
        if deleted {
            self.delete().await;
            return Vec::new();
        }
        self.repeat("show", |control, name| async move {
            let view = control.actor(&name).await?;
            let ids = view.volumes.into_iter().map(|v| v.volume.volume_id);
            Ok(ids.collect())
        })
        .await
    }
}
