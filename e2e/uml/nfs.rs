// SPDX-License-Identifier: Apache-2.0
//! The NFS driver of Kubernetes CSI, with a real NFS server, in a kernel that has
//! NFS. Started by `e2e/uml/init.sh` in user-mode Linux.

#[path = "../suite/daemon.rs"]
#[allow(dead_code)] // shared: not all of it is needed here
mod daemon;
#[path = "../drivers/house.rs"]
mod house;
mod shares;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use crate::{
    daemon::{until, while_true},
    house::{Driver, House, Pod, SOON, Test, UNAVAILABLE, actor_volumes, note, qualified},
    shares::Shares,
};

/// The kind whose volumes are NFS shares.
const SHARE: &str = "share";
/// The kind whose volumes are on the embedded driver.
const LOCAL: &str = "local";
const LOCAL_DRIVER: &str = "local.actor-volumes.dev";

/// What the NFS server exports.
const EXPORTED: &str = "/run/export";
/// How long the NFS client may take to find its server again.
const RECOVERY: Duration = Duration::from_secs(90);

const TESTS: [Test; 4] = [
    (
        "data_on_nfs_survives_release_and_publish",
        data_on_nfs_survives_release_and_publish,
    ),
    (
        "a_server_that_stops_answering_stalls_nothing_else",
        a_server_that_stops_answering_stalls_nothing_else,
    ),
    (
        "a_volume_whose_server_is_away_is_published_once_it_is_back",
        a_volume_whose_server_is_away_is_published_once_it_is_back,
    ),
    (
        "a_pod_that_ends_while_its_server_is_away_leaves_no_mount",
        a_pod_that_ends_while_its_server_is_away_leaves_no_mount,
    ),
];

fn main() -> ExitCode {
    house::run(&TESTS, start)
}

static HOUSES: AtomicU32 = AtomicU32::new(0);

fn start() -> House {
    server_up();
    let number = HOUSES.fetch_add(1, Ordering::Relaxed);
    let dir = Path::new("/run/av").join(number.to_string());
    let socket = |name: &str| dir.join(format!("{name}.sock"));
    let endpoint = |name: &str| format!("\"unix://{}\"", socket(name).display());
    let drivers = [
        Driver {
            name: shares::NAME,
            table: format!(
                "endpoint = {}\ncontroller_endpoint = {}\ncall_timeout_s = 5\n",
                endpoint("nfs"),
                endpoint("shares")
            ),
        },
        Driver {
            name: LOCAL_DRIVER,
            table: format!("endpoint = {}\n", endpoint("local")),
        },
    ];
    let mut house = House::new(dir.clone(), &drivers);
    let shares = Shares {
        exported: EXPORTED.into(),
    };
    house.tokio.block_on(shares.serve(socket("shares")));
    let plugin = env::var_os("AV_NFSPLUGIN").expect("init.sh says where the NFS driver is");
    let nfs = socket("nfs");
    house.start_driver(
        "nfsplugin",
        Command::new(plugin)
            .args(["--nodeid", "node-a", "--endpoint"])
            .arg(format!("unix://{}", nfs.display())),
        &nfs,
    );
    let local = socket("local");
    house.start_driver(
        "local-driver",
        actor_volumes()
            .args(["local-driver", "--name", LOCAL_DRIVER, "--socket"])
            .arg(&local)
            .arg("--root")
            .arg(dir.join("backend")),
        &local,
    );
    house.start_serve();
    house.kind(SHARE, shares::NAME, "");
    house.kind(LOCAL, LOCAL_DRIVER, "");
    house
}

fn data_on_nfs_survives_release_and_publish(house: &mut House) {
    house.create("a", SHARE);
    let (pod, source) = house.run_agent("a");
    let mounts = house.mounts();
    assert!(
        mounts.len() == 1 && mounts[0].contains(" - nfs4 127.0.0.1:/"),
        "{mounts:?}"
    );
    sh(&source, "echo kept > f && sync f");
    let id = house.volume("a")["volumeId"].clone();
    let share = Path::new(EXPORTED).join(id.as_str().expect("an id is text"));
    assert_eq!(
        fs::read_to_string(share.join("f")).expect("the server has the file"),
        "kept\n"
    );
    house.remove_pod(&pod);
    house.suspend("a");
    assert_eq!(house.mounts(), [""; 0]);

    let (pod, source) = house.run_agent("a");
    assert_eq!(sh(&source, "cat f"), "kept");
    house.remove_pod(&pod);
    house.suspend("a");
    house.delete("a");
    assert!(!share.exists(), "the share is gone with its actor");
}

fn a_server_that_stops_answering_stalls_nothing_else(house: &mut House) {
    house.create("stuck", SHARE);
    let (pod, source) = house.run_agent("stuck");
    sh(&source, "echo kept > f && sync f");
    let usual = cycle(house, "before");

    server_down();
    house.remove_pod(&pod);
    house.must(&["actor", "suspend", &qualified("stuck")]);
    let told = until("volume show names the driver that hangs", SOON, || {
        let volume = house.volume("stuck");
        let told = volume["attachments"][0]["heldBy"].as_str()?.to_owned();
        told.contains(shares::NAME).then_some(told)
    });
    note(format!(
        "what is stuck, in the words of volume show: {told}"
    ));
    let during = keeps_pace(house, "during", usual);
    for verb in [["volume", "ls"], ["actor", "ls"], ["driver", "ls"]] {
        let asked = Instant::now();
        house.must(&verb);
        let answered = asked.elapsed();
        assert!(answered < Duration::from_secs(5), "{verb:?}: {answered:?}");
    }
    let metrics = house.metrics().expect("metrics answer");
    assert!(metrics.contains("# EOF"), "{metrics}");

    house.kill_serve();
    house.start_serve();
    let after = keeps_pace(house, "after-a-restart", usual);
    while_true("the volume counts as held", Duration::from_secs(2), || {
        house.mounts().len() == 1 && house.volume("stuck")["attachments"].get(0).is_some()
    });
    note(format!(
        "a volume of another driver: usually {usual:?}, beside the stuck one {during:?}, after a restart {after:?}"
    ));

    server_up();
    let back = Instant::now();
    house.suspend("stuck");
    assert_eq!(house.mounts(), [""; 0]);
    note(format!(
        "released {:?} after its server was back",
        back.elapsed()
    ));
    let (pod, source) = house.run_agent("stuck");
    assert_eq!(sh(&source, "cat f"), "kept");
    house.remove_pod(&pod);
    house.suspend("stuck");
    house.delete("stuck");
}

fn a_volume_whose_server_is_away_is_published_once_it_is_back(house: &mut House) {
    house.create("waits", SHARE);
    server_down();
    let annotations = house.resume("waits");
    let pod = house.run_pod(&annotations);
    for _ in 0..2 {
        let refusal = house.try_create(&pod).expect_err("the server is away");
        assert_eq!(refusal.code, UNAVAILABLE, "{refusal:?}");
    }
    let usual = cycle(house, "during");
    note(format!("a volume of another driver beside it: {usual:?}"));

    server_up();
    let back = Instant::now();
    let source = house.run_container(&pod, RECOVERY);
    note(format!(
        "published {:?} after its server was back",
        back.elapsed()
    ));
    sh(&source, "echo here > f && cat f");
    house.remove_pod(&pod);
    house.suspend("waits");
    // A mount that the driver had begun may end late: it must not stay.
    while_true("nothing is mounted", Duration::from_secs(3), || {
        house.mounts().is_empty()
    });
    house.delete("waits");
}

/// The driver goes on mounting after we gave up on its call, and keeps no lock:
/// what it mounts in the end must not outlive the release.
fn a_pod_that_ends_while_its_server_is_away_leaves_no_mount(house: &mut House) {
    house.create("gone", SHARE);
    server_down();
    let annotations = house.resume("gone");
    let pod = house.run_pod(&annotations);
    house.try_create(&pod).expect_err("the server is away");
    // Beyond the deadline of the first call.
    std::thread::sleep(Duration::from_secs(7));
    house.remove_pod(&pod);
    house.must(&["actor", "suspend", &qualified("gone")]);
    server_up();
    house.suspend("gone");
    while_true("nothing is mounted", Duration::from_secs(10), || {
        house.mounts().is_empty()
    });
    house.delete("gone");
}

impl House {
    /// Asks for the container as a kubelet does: again while it is refused.
    fn run_container(&self, pod: &Pod, within: Duration) -> PathBuf {
        until("the container is created", within, || {
            match self.try_create(pod) {
                Ok(source) => Some(source),
                Err(refusal) if refusal.code == UNAVAILABLE => {
                    std::thread::sleep(Duration::from_millis(200));
                    None
                }
                Err(refusal) => panic!("the container is refused: {refusal:?}"),
            }
        })
    }

    /// A pod of a resumed actor, and where its volume is on the host.
    fn run_agent(&mut self, actor: &str) -> (Pod, PathBuf) {
        let annotations = self.resume(actor);
        let pod = self.run_pod(&annotations);
        let source = self.run_container(&pod, SOON);
        (pod, source)
    }
}

/// The whole life of a volume on the embedded driver: how long it took.
fn cycle(house: &mut House, actor: &str) -> Duration {
    let start = Instant::now();
    house.create(actor, LOCAL);
    let (pod, source) = house.run_agent(actor);
    sh(&source, "echo here > f && cat f");
    house.remove_pod(&pod);
    house.suspend(actor);
    house.delete(actor);
    start.elapsed()
}

/// A life of an actor at its usual pace. One that waits for the stuck driver does so
/// each time, for its deadline at least; one that a busy machine holds up does not.
fn keeps_pace(house: &mut House, actor: &str, usual: Duration) -> Duration {
    let bound = 2 * usual + Duration::from_secs(2);
    let mut taken = Vec::new();
    while taken.len() < 5 {
        let took = cycle(house, &format!("{actor}-{}", taken.len()));
        if took < bound {
            return took;
        }
        taken.push(took);
    }
    panic!("{actor}: {taken:?}, usually {usual:?}");
}

/// Runs a line of shell in a volume; its output without the last newline.
fn sh(volume: &Path, line: &str) -> String {
    let output = Command::new("timeout")
        .args(["--signal", "KILL", "60", "sh", "-c"])
        .arg(format!("cd \"$0\" && {line}"))
        .arg(volume)
        .output()
        .expect("a shell runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "`{line}`: {}: {errors}",
        output.status
    );
    String::from_utf8_lossy(&output.stdout)
        .trim_end()
        .to_owned()
}

/// Ends the server's threads and sockets: whoever asks waits.
fn server_down() {
    nfsd("threads", "0");
}

/// Starts them, if they are not there.
fn server_up() {
    if nfsd_says("threads") == "0" {
        nfsd("portlist", "tcp 2049");
        nfsd("threads", "4");
        // All clients are here and none has locks: there is nothing to wait for.
        nfsd("v4_end_grace", "Y");
    }
}

fn nfsd_says(file: &str) -> String {
    let path = Path::new("/proc/fs/nfsd").join(file);
    let text = fs::read_to_string(&path);
    let text = text.unwrap_or_else(|e| panic!("cannot read {}: {e}", path.display()));
    text.trim().to_owned()
}

fn nfsd(file: &str, text: &str) {
    let path = Path::new("/proc/fs/nfsd").join(file);
    fs::write(&path, format!("{text}\n"))
        .unwrap_or_else(|e| panic!("cannot write {text:?} to {}: {e}", path.display()));
}
