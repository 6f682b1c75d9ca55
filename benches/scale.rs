// SPDX-License-Identifier: Apache-2.0
//! 100,000 actors with two volumes each, 5,000 of them resumed: what the start
//! takes, what verbs take with 8 callers, and what a page of a list takes; each as
//! a ratio to a floor over the same file in the same run.
//!
//! `cargo bench --bench scale`; `AV_ACTORS` for another number.

#![allow(clippy::unwrap_used)] // a benchmark fails by panicking

#[path = "../tests/store/sample.rs"]
mod sample;

use std::{
    io::Write as _,
    path::Path,
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use actor_volumes::{
    control::{
        ActorFilter, Control, CreateOptions, NodePort, ResumeOptions, Settings,
        store::{self, Reader, RedbStore, Store, Write},
    },
    csi::{DriverConfig, Registry},
    error::Result,
    model::{ActorRef, Generation, NodeName, VolumeKey},
};
use testkit::csi::{Backend, CsiDriver, Options};

const CALLERS: usize = 8;
const EACH: usize = 40;
const WITHIN: Duration = Duration::from_secs(120);

/// A node that holds nothing.
struct Free;

#[tonic::async_trait]
impl NodePort for Free {
    async fn revoke(&self, _: &NodeName, _: &VolumeKey, _: Generation) -> Result<()> {
        Ok(())
    }
    async fn held(&self, _: &NodeName, _: &VolumeKey) -> Result<Option<String>> {
        Ok(None)
    }
    async fn released(&self, _: &NodeName) {
        std::future::pending().await
    }
    async fn forget(&self, _: &NodeName, _: &VolumeKey) -> Result<()> {
        Ok(())
    }
}

fn main() {
    let mut args = std::env::args().skip(1);
    match (args.next().as_deref(), args.next()) {
        // Parts run in processes of their own: memory is measured.
        (Some("scan"), Some(file)) => scan(Path::new(&file)),
        (Some("start"), Some(file)) => on_runtime(start(file)),
        (Some("verbs"), Some(file)) => on_runtime(verbs(file)),
        _ => all(),
    }
}

fn on_runtime(work: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(work);
}

fn all() {
    let actors = std::env::var("AV_ACTORS").map_or(100_000, |n| n.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("control.redb");
    fill(&file, actors);
    let size = file.metadata().unwrap().len() >> 20;
    println!(
        "{actors} actors, {} volumes: a file of {size} MiB",
        2 * actors
    );
    let [floor, floor_memory] = part("scan", &file);
    let [start, start_memory] = part("start", &file);
    println!("bare scan of all records: {floor:.0} ms, {floor_memory:.0} MiB more memory");
    println!(
        "start of the control plane: {start:.0} ms, {:.2} of the floor; {start_memory:.0} MiB more memory, {:.2} of the floor",
        start / floor,
        start_memory / floor_memory
    );
    let [] = part("verbs", &file);
}

/// Runs a part, and reads what it prints on its last line.
fn part<const N: usize>(name: &str, file: &Path) -> [f64; N] {
    let output = Command::new(std::env::current_exe().unwrap())
        .args([name.as_ref(), file.as_os_str()])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name}: {text}{errors}");
    if N == 0 {
        print!("{text}");
        return [0.0; N];
    }
    let last = text.lines().last().unwrap();
    let numbers: Vec<f64> = last.split(' ').map(|n| n.parse().unwrap()).collect();
    numbers.try_into().unwrap()
}

fn fill(file: &Path, actors: usize) {
    let store = RedbStore::open(file).unwrap();
    for first in (0..actors).step_by(500) {
        let names = first..actors.min(first + 500);
        let batch: Vec<_> = names
            .flat_map(|n| sample::actor(&format!("a{n:06}"), "t", 2, n % 20 == 0))
            .collect();
        store.write(&batch).unwrap();
    }
}

/// The memory of this process, in MiB.
fn memory() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|l| l.starts_with("VmRSS:")).unwrap();
    let kib: f64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib / 1024.0
}

fn scan(file: &Path) {
    let (before, begun) = (memory(), Instant::now());
    let store = RedbStore::open(file).unwrap();
    let mut bytes = 0;
    store::each(&*store.snapshot().unwrap(), "", |_, stored| {
        bytes += stored.value.len();
        Ok(())
    })
    .unwrap();
    let took = begun.elapsed();
    assert!(bytes > 0);
    println!("{} {}", took.as_secs_f64() * 1e3, memory() - before);
}

async fn open(store: Arc<RedbStore>, driver: &Path) -> Arc<Control> {
    let config = DriverConfig {
        name: sample::DRIVER.parse().unwrap(),
        endpoint: Some(driver.to_owned()),
        controller: None,
        call_timeout: Duration::from_secs(60),
        max_calls: 64,
        mount_root: None,
    };
    let settings = Settings {
        reconcile_interval: Duration::from_hours(24),
        ..Settings::default()
    };
    let node = sample::NODE.parse().unwrap();
    let drivers = Arc::new(Registry::new(vec![config]));
    Control::open(store, drivers, Arc::new(Free), node, settings)
        .await
        .unwrap()
}

async fn start(file: String) {
    let (before, begun) = (memory(), Instant::now());
    let store = Arc::new(RedbStore::open(Path::new(&file)).unwrap());
    let control = open(store, Path::new("/nonexistent.sock")).await;
    let took = begun.elapsed();
    let counts = control.counts();
    assert_eq!(counts.in_memory, counts.actors["Resumed"]);
    println!("{} {}", took.as_secs_f64() * 1e3, memory() - before);
}

/// So many per second, done by 8 callers at once.
async fn rate<F: Future<Output = ()> + Send + 'static>(
    make: impl Fn(ActorRef) -> F + Clone + Send + 'static,
) -> f64 {
    let begun = Instant::now();
    let callers = (0..CALLERS).map(|caller| {
        let make = make.clone();
        tokio::spawn(async move {
            for n in 0..EACH {
                make(format!("bench/c{caller}-{n}").parse().unwrap()).await;
            }
        })
    });
    for caller in callers.collect::<Vec<_>>() {
        caller.await.unwrap();
    }
    (CALLERS * EACH) as f64 / begun.elapsed().as_secs_f64()
}

/// Commits of one record each per second, by so many callers.
fn commits(store: &RedbStore, callers: usize) -> f64 {
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for caller in 0..callers {
            scope.spawn(move || {
                for n in 0..EACH {
                    let write = Write {
                        key: format!("floor/{callers}-{caller}-{n}"),
                        expect: None,
                        value: Some(b"{}".to_vec()),
                    };
                    store.write(&[write]).unwrap();
                }
            });
        }
    });
    (callers * EACH) as f64 / begun.elapsed().as_secs_f64()
}

/// Synced writes of one page per second: what the disk gives.
fn syncs(dir: &Path) -> f64 {
    let mut file = std::fs::File::create(dir.join("floor")).unwrap();
    let begun = Instant::now();
    for _ in 0..EACH * CALLERS {
        file.write_all(&[1; 4096]).unwrap();
        file.sync_data().unwrap();
    }
    (EACH * CALLERS) as f64 / begun.elapsed().as_secs_f64()
}

async fn verbs(file: String) {
    let file = Path::new(&file);
    let dir = file.parent().unwrap();
    let socket = dir.join("csi.sock");
    let mut options = Options::new(Backend::Memory);
    options.attach = true;
    let _driver = CsiDriver::start_with(&socket, options).await;
    let store = Arc::new(RedbStore::open(file).unwrap());
    let control = open(store.clone(), &socket).await;

    let floor = syncs(dir);
    let (one, many) = (commits(&store, 1), commits(&store, CALLERS));
    println!("synced writes of one page, the floor: {floor:.0} a second");
    println!("commits by 1 caller: {:.2} of the floor", one / floor);
    println!(
        "commits by {CALLERS} callers: {:.2} of the floor, {:.1} times those of 1",
        many / floor,
        many / one
    );

    let class = format!(
        "kind: StorageClass\nmetadata: {{name: bench}}\nprovisioner: {}\n",
        sample::DRIVER
    );
    control.apply_storage_class(&class).await.unwrap();
    let mut template = "kind: ActorTemplate\nmetadata: {name: bench}\nspec:\n  containers:\n  - volumeMounts: [{name: a, mountPath: /a}, {name: b, mountPath: /b}]\n  volumes:\n".to_owned();
    for name in ["a", "b"] {
        template += &format!(
            "  - name: {name}\n    externalVolumeTemplate: {{capacity: 1Mi, storageClassName: bench}}\n"
        );
    }
    control.apply_template(&template).await.unwrap();
    let verb = |what, rate: f64| {
        println!(
            "{what} of actors with two volumes, {CALLERS} callers: {:.2} of the floor ({rate:.0} a second)",
            rate / floor
        );
    };
    let c = control.clone();
    let created = rate(move |actor| {
        let control = c.clone();
        async move {
            let template = "bench".parse().unwrap();
            let options = CreateOptions::default();
            control
                .create_actor(&actor, &template, options, Some(WITHIN))
                .await
                .unwrap();
        }
    });
    verb("create", created.await);
    let c = control.clone();
    let resumed = rate(move |actor| {
        let control = c.clone();
        async move {
            let options = ResumeOptions::default();
            control.resume_actor(&actor, options, WITHIN).await.unwrap();
        }
    });
    verb("resume", resumed.await);
    let c = control.clone();
    let suspended = rate(move |actor| {
        let control = c.clone();
        async move {
            control
                .suspend_actor(&actor, None, true, WITHIN)
                .await
                .unwrap();
        }
    });
    verb("suspend", suspended.await);

    let begun = Instant::now();
    let page = store.list("actor/", None, 500).unwrap();
    assert_eq!(page.items.len(), 500);
    let floor = begun.elapsed();
    for (what, template) in [("", None), (" of a template", Some("t".parse().unwrap()))] {
        let filter = ActorFilter {
            namespace: None,
            template,
        };
        let begun = Instant::now();
        let (page, _) = control.actors(filter, None, 500).await.unwrap();
        assert_eq!(page.len(), 500);
        let took = begun.elapsed();
        println!(
            "a page of 500 actors{what}, with 1000 volumes: {:.1} ms, {:.0} times a bare read of their 500 records",
            took.as_secs_f64() * 1e3,
            took.as_secs_f64() / floor.as_secs_f64()
        );
    }
    println!("{} actors in memory", control.actors_in_memory());
    control.shutdown().await;
}
