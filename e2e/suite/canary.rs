// SPDX-License-Identifier: Apache-2.0
//! A word that must not come out: the driver's calls carry it as a secret, and every
//! container has it in its environment. When a node ends, it is looked for in all
//! that was written and said there.

use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        OnceLock,
        atomic::{AtomicU16, Ordering},
    },
    time::Duration,
};

use testkit::cri::Cri;

use crate::node::Node;

/// Below the node's directory: what is known to hold the word, and why.
const KNOWN: [&str; 7] = [
    // The secret itself, as an operator writes it.
    "secrets",
    // containerd's own files: a container's specification has its environment.
    "root",
    "state",
    "runc",
    // What the volumes hold is the actor's.
    "m",
    // The driver's own files: it was given the secret.
    "backend",
    "csi-calls.jsonl",
];

/// Logs of programs that are given the word, and are not ours.
const NOT_OURS: [&str; 2] = ["containerd.log", "csi-driver.log"];

/// What our programs have said in this case.
const SAID: &str = "tmp/said";

/// Another one in each run.
pub(crate) fn word() -> &'static str {
    static WORD: OnceLock<String> = OnceLock::new();
    WORD.get_or_init(|| format!("canary{:032x}", fastrand::u128(..)))
}

/// The uses of secrets: as a storage class spells them, and as testkit's driver does.
const USES: [(&str, &str); 6] = [
    ("provisioner", "provisioner"),
    ("controller-publish", "controller_publish"),
    ("node-stage", "node_stage"),
    ("node-publish", "node_publish"),
    ("controller-expand", "controller_expand"),
    ("node-expand", "node_expand"),
];

/// Parameters of a storage class: every call has the secret that may have one.
pub(crate) fn parameters() -> String {
    let mut text = "parameters:\n".to_owned();
    for (of, _) in USES {
        let key = format!("csi.storage.k8s.io/{of}-secret");
        text.push_str(&format!(
            "  {key}-name: creds\n  {key}-namespace: storage\n"
        ));
    }
    text
}

/// What testkit's driver is told: it takes down each call without its secret, and
/// each with one that does not belong there, as a broken rule.
pub(crate) fn expected(command: &mut Command) {
    for (_, of) in USES {
        command.args(["--secret", &format!("{of}:key={}", word())]);
    }
}

/// Writes the secret, and gives the table of a configuration that names it.
pub(crate) fn secrets(dir: &Path) -> String {
    let creds = dir.join("secrets/storage/creds");
    let key = creds.join("key");
    fs::create_dir_all(&creds)
        .and_then(|()| fs::write(&key, word()))
        .and_then(|()| fs::set_permissions(&key, fs::Permissions::from_mode(0o600)))
        .expect("the node's directory takes files");
    format!("[secrets]\ndir = \"{}/secrets\"\n", dir.display())
}

/// A client whose containers all have the word in their environment.
pub(crate) fn in_environment(cri: Cri) -> Cri {
    cri.with_env("AV_CANARY", word())
}

/// Keeps what a program of ours has said.
pub(crate) fn said(dir: &Path, what: &str, text: &[u8]) {
    let mut options = fs::File::options();
    let file = options.create(true).append(true).open(dir.join(SAID));
    // A node that is gone takes none.
    if let Ok(mut file) = file {
        let _ = file.write_all(format!("--- {what}\n").as_bytes());
        let _ = file.write_all(text);
    }
}

/// A port for a node's metrics, and the next for its control plane's, below those that
/// the kernel gives out.
pub(crate) fn metrics_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(21_000);
    loop {
        let port = NEXT.fetch_add(2, Ordering::Relaxed);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// Asks our daemon for all that it tells, while there is something to tell.
pub(crate) fn interview(node: &Node) {
    for verb in [
        &["actor", "ls", "-o", "json"][..],
        &["volume", "ls", "-o", "json"],
        &["template", "ls", "-o", "json"],
        &["storageclass", "ls", "-o", "json"],
        &["driver", "ls", "-o", "json"],
        &["node", "ls", "-o", "json"],
    ] {
        // It may have been ended by its case; what it says is kept.
        let _ = node.av(verb);
    }
    let config = node.dir.join("config.toml").display().to_string();
    let _ = node.av(&["doctor", "--config", &config]);
    said(
        &node.dir,
        "metrics",
        &metrics(node.metrics_port).unwrap_or_default(),
    );
    // Records are gone with their volumes.
    let mut copying = Command::new("cp");
    copying.arg("-r").arg(node.dir.join("av/records"));
    let copied = copying.arg(node.dir.join("tmp/records")).output();
    copied.expect("cp runs");
}

fn metrics(port: u16) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n")?;
    let mut text = Vec::new();
    stream.read_to_end(&mut text)?;
    Ok(text)
}

/// Where the word is that must not be there, by itself or as base64 and hexadecimal
/// digits. The daemon has ended.
pub(crate) fn found(dir: &Path) -> Vec<String> {
    for store in ["av/control.redb", "control/control.redb"] {
        let file = dir.join(store).display().to_string();
        if Path::new(&file).exists() {
            let export = ["store", "export", "--with-contexts", &file];
            let _ = crate::verbs::av(dir, &export);
        }
    }
    // That the search sees what is there is tried each time: in the middle of a file
    // that is no text.
    let planted = dir.join("logs/planted");
    let mut noise: Vec<u8> = (0..100_000_u32).map(|n| (n % 251) as u8).collect();
    noise.splice(70_000..70_000, word().bytes());
    fs::write(&planted, noise).expect("the node's directory takes files");
    let mut files = search(dir);
    let sees = files.contains(&planted);
    files.retain(|file| *file != planted);
    fs::remove_file(&planted).expect("it was written");
    let mut found: Vec<_> = files
        .iter()
        .map(|file| {
            format!(
                "a secret or a variable of a container is in {}",
                file.display()
            )
        })
        .collect();
    if !sees {
        found.push("the search for secrets does not find one that was planted".to_owned());
    }
    found
}

fn search(dir: &Path) -> Vec<PathBuf> {
    let mut grep = Command::new("grep");
    grep.args(["-rlaF", "--devices=skip"]);
    for name in KNOWN {
        grep.arg(format!("--exclude-dir={name}"))
            .arg(format!("--exclude={name}"));
    }
    for name in NOT_OURS {
        grep.arg(format!("--exclude={name}"));
    }
    let hex: String = word().bytes().map(|b| format!("{b:02x}")).collect();
    for form in [word().to_owned(), hex]
        .into_iter()
        .chain(base64(word().as_bytes()))
    {
        grep.args(["-e", &form]);
    }
    let output = grep.arg("--").arg(dir).output().expect("grep runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().map(PathBuf::from).collect()
}

/// What the bytes look like within the base64 of something longer, at each of the
/// three places where they may begin.
fn base64(bytes: &[u8]) -> [String; 3] {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    [0, 1, 2].map(|skip| {
        // Those that share a group with what is before or after are left out.
        let whole = bytes[skip..].chunks_exact(3);
        let letters = whole.flat_map(|group| {
            let bits = u32::from_be_bytes([0, group[0], group[1], group[2]]);
            [18, 12, 6, 0].map(|shift| char::from(LETTERS[(bits >> shift & 63) as usize]))
        });
        letters.collect()
    })
}
