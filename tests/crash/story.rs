// SPDX-License-Identifier: Apache-2.0
//! Actors and their volumes from the first verb to the last, each verb repeated
//! until it is done, whoever dies meanwhile.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    ops::ControlFlow,
    path::{Path, PathBuf},
    process::ExitStatus,
    time::{Duration, Instant},
};

use actor_volumes::host::{crash::CrashPoint, mountinfo};
use serde_json::Value;
use testkit::csi::{Backend, CsiDriver, Expansion, Options};

use crate::{
    daemon::{DRIVER, Daemon},
    host::{Host, MOMENT, SOON},
    matrix::Verb,
};

/// Its exit status for what does not exist.
const NOT_FOUND: i32 = 4;

/// How long nothing happens before a verb is over, with all that it sets off.
const QUIET: Duration = Duration::from_millis(700);

/// What there is to tell in the end.
pub(crate) struct Told {
    /// How the daemon ended meanwhile.
    pub(crate) exits: Vec<ExitStatus>,
    /// How often it died, or a part of it alone.
    pub(crate) deaths: usize,
    /// The points that each verb came to.
    pub(crate) points: BTreeMap<Verb, Vec<CrashPoint>>,
}

pub(crate) struct Story {
    dir: tempfile::TempDir,
    driver: CsiDriver,
    host: Host,
    daemon: Daemon,
    crash: Option<(Verb, CrashPoint)>,
    /// How often the daemon is to die.
    deaths: usize,
    /// How many points were come to before the verb.
    before: usize,
    points: BTreeMap<Verb, Vec<CrashPoint>>,
}

impl Story {
    /// Tells it, up to the verb in which the daemon dies, and its end. With `again`
    /// it dies a second time, at its so many-th point after the restart.
    pub(crate) async fn tell(crash: Option<(Verb, CrashPoint)>, again: Option<usize>) -> Told {
        Self::tell_of(crash, again, false).await
    }

    /// Tells it with the death of one part alone, which its parent starts again.
    pub(crate) async fn tell_alone(crash: (Verb, CrashPoint)) -> Told {
        Self::tell_of(Some(crash), None, true).await
    }

    async fn tell_of(crash: Option<(Verb, CrashPoint)>, again: Option<usize>, alone: bool) -> Told {
        let dir = tempfile::Builder::new().prefix("av").tempdir().unwrap();
        let options = Options {
            attach: true,
            expand_controller: true,
            expand_node: true,
            expansion: Some(Expansion::Online),
            node_expansion_required: true,
            ..Options::new(Backend::Bind {
                root: dir.path().join("backend"),
            })
        };
        let mut story = Self {
            driver: CsiDriver::start_with(&dir.path().join("csi.sock"), options).await,
            host: Host::start(dir.path()).await,
            daemon: Daemon::start(dir.path(), again, alone),
            dir,
            crash,
            deaths: 1 + usize::from(again.is_some()),
            before: 0,
            points: BTreeMap::new(),
        };
        let _ = story.live().await;
        story.end().await;
        story.nothing_is_left().await;
        Told {
            deaths: story.daemon.deaths(),
            exits: std::mem::take(&mut story.daemon.exits),
            points: story.points,
        }
    }

    async fn live(&mut self) -> ControlFlow<()> {
        let class = format!(
            "kind: StorageClass\nmetadata: {{name: pool}}\nprovisioner: {DRIVER}\nallowVolumeExpansion: true\n"
        );
        self.av("storageclass apply -f -", &class).await;
        self.until_told().await;
        self.begin(Verb::Apply);
        self.template("t", &["work", "gone", "keep"]).await;
        self.done(Verb::Apply, &[]).await?;

        self.begin(Verb::Create);
        self.av(
            "actor create agents/a --template t --wait --request-id create",
            "",
        )
        .await;
        self.done(Verb::Create, &[]).await?;

        self.begin(Verb::Resume);
        let annotations = self.resume("first").await;
        self.done(Verb::Resume, &[]).await?;

        self.begin(Verb::Run);
        let mounts = self.host.run(&mut self.daemon, annotations).await;
        for (path, source) in &mounts {
            fs::write(source.join("file"), path).unwrap();
        }
        let all = ["/gone", "/keep", "/work"];
        self.done(Verb::Run, &all).await?;

        self.begin(Verb::Expand);
        let work = self.volume("work").await;
        self.av(&format!("volume expand {work} --capacity 2Mi --wait"), "")
            .await;
        self.done(Verb::Expand, &all).await?;

        self.begin(Verb::Suspend);
        self.host.end(&mut self.daemon).await;
        self.av("actor suspend agents/a --wait --request-id suspend", "")
            .await;
        self.done(Verb::Suspend, &all).await?;

        let annotations = self.resume("second").await;
        let mounts = self.host.run(&mut self.daemon, annotations).await;
        for (path, source) in &mounts {
            assert_eq!(fs::read_to_string(source.join("file")).unwrap(), *path);
        }
        self.begin(Verb::Crash);
        self.host.end(&mut self.daemon).await;
        self.av("actor crash agents/a --wait --request-id crash", "")
            .await;
        self.done(Verb::Crash, &all).await?;

        self.template("t", &["work", "extra"]).await;
        self.begin(Verb::Rollback);
        self.av("template rollback t --to 1", "").await;
        self.done(Verb::Rollback, &all).await?;

        self.template("t", &["work", "extra"]).await;
        let keep = self.volume("keep").await;
        self.begin(Verb::Update);
        self.av("actor update agents/a --wait --request-id update", "")
            .await;
        self.until_volumes(&["extra Ready", "keep Retained", "work Ready"])
            .await;
        let kept = ["/keep", "/work"];
        self.done(Verb::Update, &kept).await?;

        self.template("u", &["keep"]).await;
        self.begin(Verb::Adopt);
        let adopt = format!(
            "actor create agents/b --template u --adopt keep={keep} --wait --request-id adopt"
        );
        self.av(&adopt, "").await;
        self.until_volumes(&["extra Ready", "keep Ready", "work Ready"])
            .await;
        self.done(Verb::Adopt, &kept).await?;

        self.begin(Verb::Retain);
        self.av("actor delete agents/b --wait --request-id retain", "")
            .await;
        self.until_volumes(&["extra Ready", "keep Retained", "work Ready"])
            .await;
        self.done(Verb::Retain, &kept).await?;

        self.begin(Verb::DeleteVolume);
        self.av(&format!("volume delete {keep} --wait"), "").await;
        self.done(Verb::DeleteVolume, &["/work"]).await?;

        self.begin(Verb::Delete);
        self.av("actor delete agents/a --wait --request-id delete", "")
            .await;
        self.done(Verb::Delete, &[]).await
    }

    /// The verb comes.
    fn begin(&mut self, verb: Verb) {
        self.before = self.daemon.points().len();
        if let Some((fatal, point)) = self.crash
            && fatal == verb
        {
            self.daemon.arm(point);
        }
    }

    /// The verb is done; the volumes with data have these. The story goes on if this
    /// was not the one in which the daemon died.
    async fn done(&mut self, verb: Verb, data: &[&str]) -> ControlFlow<()> {
        match self.crash {
            None => {
                self.until_quiet().await;
                let points = self.daemon.points();
                let came: Vec<_> = points[self.before..].to_vec();
                let all = CrashPoint::ALL.iter().copied();
                self.points
                    .insert(verb, all.filter(|p| came.contains(p)).collect());
            }
            Some((fatal, _)) if fatal != verb => return ControlFlow::Continue(()),
            Some(_) => {
                // What a verb sets off may go on when it is answered.
                let start = Instant::now();
                while self.daemon.deaths() < self.deaths && start.elapsed() < SOON / 4 {
                    self.daemon.revive();
                    tokio::time::sleep(MOMENT).await;
                }
            }
        }
        let start = Instant::now();
        while self.data() != data.iter().copied().map(str::to_owned).collect() {
            assert!(
                start.elapsed() < SOON,
                "after {}: {:?}\n{}",
                verb.name(),
                self.data(),
                self.daemon.log()
            );
            tokio::time::sleep(MOMENT).await;
        }
        match self.crash {
            None => ControlFlow::Continue(()),
            Some(_) => ControlFlow::Break(()),
        }
    }

    /// What the node writes down of its first connection is no verb's.
    async fn until_told(&mut self) {
        let state = self.dir.path().join("state");
        let start = Instant::now();
        while !["told-keys", "confirmed"]
            .iter()
            .all(|f| state.join(f).exists())
        {
            assert!(start.elapsed() < SOON, "{}", self.daemon.log());
            tokio::time::sleep(MOMENT).await;
        }
        if self.crash.is_none() {
            self.until_quiet().await;
        }
    }

    async fn until_quiet(&mut self) {
        let mut count = 0;
        loop {
            let now = self.daemon.points().len();
            if std::mem::replace(&mut count, now) == now {
                return;
            }
            tokio::time::sleep(QUIET).await;
        }
    }

    /// Repeats a verb until it is done; gives what it printed.
    async fn av(&mut self, line: &str, stdin: &str) -> String {
        let deletes = line.contains(" delete ");
        let start = Instant::now();
        loop {
            match self.daemon.av(line, stdin).await {
                Ok(out) => return out,
                Err((NOT_FOUND, _)) if deletes => return String::new(),
                Err((_, said)) => assert!(
                    start.elapsed() < SOON,
                    "{line}: {said}\n{}",
                    self.daemon.log()
                ),
            }
            tokio::time::sleep(MOMENT).await;
        }
    }

    async fn json(&mut self, line: &str) -> Vec<Value> {
        let text = self.av(&format!("{line} -o json"), "").await;
        serde_json::from_str(&text).unwrap()
    }

    async fn template(&mut self, name: &str, volumes: &[&str]) {
        // One is mounted as a whole, and a directory of it besides.
        let mounts = volumes.iter().map(|v| match *v {
            "work" => "{name: work, mountPath: /work}, {name: work, mountPath: /sub, subPath: a/b}"
                .to_owned(),
            v => format!("{{name: {v}, mountPath: /{v}}}"),
        });
        let volumes = volumes.iter().map(|v| {
            let policy = if *v == "keep" { "Retain" } else { "Delete" };
            format!("{{name: {v}, externalVolumeTemplate: {{capacity: 1Mi, storageClassName: pool, reclaimPolicy: {policy}}}}}")
        });
        let text = format!(
            "kind: ActorTemplate\nmetadata: {{name: {name}}}\nspec:\n  containers:\n  - {{name: agent, volumeMounts: [{}]}}\n  volumes: [{}]\n",
            mounts.collect::<Vec<_>>().join(", "),
            volumes.collect::<Vec<_>>().join(", ")
        );
        self.av("template apply -f -", &text).await;
    }

    async fn resume(&mut self, request: &str) -> BTreeMap<String, String> {
        let line = format!("actor resume agents/a --request-id {request}");
        let text = self.av(&line, "").await;
        serde_json::from_str(&text).unwrap()
    }

    /// The uid of a volume.
    async fn volume(&mut self, name: &str) -> String {
        let volumes = self.json("volume ls").await;
        let found = volumes.iter().find(|v| v["name"] == name);
        found.unwrap()["uid"].as_str().unwrap().to_owned()
    }

    /// Waits until these volumes are there, with these phases.
    async fn until_volumes(&mut self, wanted: &[&str]) {
        let start = Instant::now();
        loop {
            let volumes = self.json("volume ls").await;
            let text = |v: &Value| {
                format!(
                    "{} {}",
                    v["name"].as_str().unwrap(),
                    v["phase"].as_str().unwrap()
                )
            };
            let mut found: Vec<_> = volumes.iter().map(text).collect();
            found.sort();
            if found == wanted {
                return;
            }
            assert!(start.elapsed() < SOON, "{found:?}\n{}", self.daemon.log());
            tokio::time::sleep(MOMENT).await;
        }
    }

    /// What is written on the volumes that the driver has.
    fn data(&self) -> BTreeSet<String> {
        let volumes = entries(&self.dir.path().join("backend/volumes"));
        let read = |dir: PathBuf| fs::read_to_string(dir.join("file")).ok();
        volumes.into_iter().filter_map(read).collect()
    }

    /// Everything is deleted that is there.
    async fn end(&mut self) {
        self.host.end(&mut self.daemon).await;
        for actor in self.json("actor ls").await {
            let name = actor["name"].as_str().unwrap();
            self.av(&format!("actor suspend agents/{name} --wait"), "")
                .await;
            self.av(&format!("actor delete agents/{name} --wait"), "")
                .await;
        }
        for volume in self.json("volume ls --retained").await {
            let uid = volume["uid"].as_str().unwrap();
            self.av(&format!("volume delete {uid} --wait"), "").await;
        }
        let left = self.json("volume ls").await;
        assert!(left.is_empty(), "{left:?}");
    }

    async fn nothing_is_left(&mut self) {
        let root = self.dir.path().join("m");
        let start = Instant::now();
        loop {
            self.daemon.revive();
            let mounts: Vec<_> = mountinfo::own()
                .unwrap()
                .into_iter()
                .map(|m| m.mount_point)
                .filter(|path| path.starts_with(&root))
                .collect();
            let left = [
                entries(&root),
                entries(&self.dir.path().join("state/records")),
            ];
            let volumes = self.driver.volumes();
            if mounts.is_empty() && volumes.is_empty() && left.iter().all(Vec::is_empty) {
                break;
            }
            assert!(
                start.elapsed() < SOON,
                "left: mounts {mounts:?}, volumes {volumes:?}, files {left:?}\n{}",
                self.daemon.log()
            );
            tokio::time::sleep(MOMENT).await;
        }
        assert_eq!(self.driver.violations(), Vec::<String>::new());
    }
}

fn entries(dir: &Path) -> Vec<PathBuf> {
    let found = fs::read_dir(dir).into_iter().flatten();
    found.map(|entry| entry.unwrap().path()).collect()
}
