// SPDX-License-Identifier: Apache-2.0
//! `actor-volumes doctor`: looks at everything that the doctor judges. It changes
//! nothing.

use std::{
    ffi::OsString,
    fs,
    os::unix::{ffi::OsStringExt, net::UnixStream},
    path::{Path, PathBuf},
    process::{ExitCode, Stdio},
    time::{Duration, SystemTime},
};

use tokio::process::Command;

use super::{guard, real};
use crate::{
    cli::{Doctor, Facts, KeyFacts, Place, RuntimeSettings, judge},
    config::Config,
    error::{Error, Result},
    host::{place, process},
    keys::{KeyDir, TrustedKeys},
    node, rpc,
};

/// The daemon asks its drivers before it answers.
const DAEMON_WITHIN: Duration = Duration::from_secs(15);

/// `containerd config dump` reads a few files.
const DUMP_WITHIN: Duration = Duration::from_secs(15);

/// Where Podman and CRI-O look for hooks unless they are told otherwise, and where they
/// are told to look most.
const HOOK_DIRS: [&str; 2] = [
    "/usr/share/containers/oci/hooks.d",
    "/etc/containers/oci/hooks.d",
];

/// The exit status where something has failed.
const FAILED: u8 = 1;

/// Looks, judges, prints.
pub(super) async fn doctor(options: &Doctor) -> Result<ExitCode> {
    let config = Config::load(&options.config)?;
    let findings = judge(&look(config).await);
    Ok(if options.print(&findings)? {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(FAILED)
    })
}

async fn look(config: Config) -> Facts {
    let containerd = containerd(&config.runtime.cri_socket).await;
    let runtimes = containerd.as_ref().map(|c| c.runtimes.as_slice());
    let binaries = runtimes.unwrap_or_default().iter().map(|r| &r.binary);
    let layout = node::Layout::new(&config.node.state_dir, &config.node.mount_root);
    let silent_drivers = config.driver.iter().filter_map(|driver| {
        let why = match driver.socket() {
            // Its node service is elsewhere, or nowhere.
            Ok(None) => return None,
            Ok(Some(socket)) => listens(&socket).err()?,
            Err(e) => e,
        };
        Some((driver.name.to_string(), why.full_message()))
    });
    Facts {
        daemon: rpc::agent_status(&agent_socket(&config), DAEMON_WITHIN).await,
        nri_socket: listens(&config.runtime.nri_socket),
        keys: keys(&config),
        guards: binaries.filter(|b| guard::is_guard(b)).cloned().collect(),
        containerd,
        real_runtime: real::find(&config.guard.runtime.0),
        mount_root: place_of(&config.node.mount_root),
        state_dir: place_of(&config.node.state_dir),
        strays: node::strays(&layout),
        sight: sight(&config.runtime.cri_socket),
        hooks: hooks(&HOOK_DIRS),
        silent_drivers: silent_drivers.collect(),
        config,
    }
}

/// The definitions that call a program of ours, with the program if it is not there.
fn hooks(dirs: &[&str]) -> Vec<(PathBuf, Option<PathBuf>)> {
    let entries = dirs.iter().filter_map(|dir| fs::read_dir(dir).ok());
    let files = entries.flatten().filter_map(|e| Some(e.ok()?.path()));
    let mut found: Vec<_> = files.filter_map(hook).collect();
    found.sort();
    found
}

fn hook(file: PathBuf) -> Option<(PathBuf, Option<PathBuf>)> {
    let text = fs::read(&file).ok().filter(|_| {
        let extension = file.extension();
        extension.is_some_and(|extension| extension == "json")
    })?;
    let read: serde_json::Value = serde_json::from_slice(&text).ok()?;
    let hook = &read["hook"];
    let words = hook["args"].as_array().into_iter().flatten();
    let mut words = words.chain([&hook["path"]]).filter_map(|w| w.as_str());
    let is_ours = words.any(|word| Path::new(word).file_name() == Some("actor-volumes".as_ref()));
    let program = PathBuf::from(hook["path"].as_str()?);
    is_ours.then(|| (file, Some(program).filter(|program| !program.exists())))
}

fn keys(config: &Config) -> KeyFacts {
    let own = KeyDir::new(config.key_dir());
    let elsewhere = config.node.control.is_some();
    let mut dirs = vec![config.told_key_dir()];
    dirs.extend(config.keys.trusted.iter().cloned());
    let trusted = TrustedKeys::open(dirs);
    let days = |since: SystemTime| since.elapsed().map_or(0, |age| age.as_secs() / 86_400);
    let signing = || match own.signing() {
        Ok(_) => {
            let made = fs::metadata(own.signing_file()).and_then(|m| m.modified());
            made.map(days).map_err(|e| e.to_string())
        }
        Err(e) => Err(e.full_message()),
    };
    KeyFacts {
        trusted: trusted.set().ids().map(ToString::to_string).collect(),
        problems: trusted.problems(),
        signing: (!elsewhere).then(signing),
    }
}

/// A daemon of an older version, which may still run, has one socket for everything.
fn agent_socket(config: &Config) -> PathBuf {
    Some(config.agent_socket())
        .filter(|socket| socket.exists())
        .unwrap_or_else(|| config.socket())
}

fn listens(socket: &Path) -> Result<()> {
    UnixStream::connect(socket).map(drop).map_err(|e| {
        Error::unavailable(format!("nobody listens on {}", socket.display())).with_source(e)
    })
}

fn place_of(directory: &Path) -> Result<Place> {
    let seen = fs::canonicalize(directory).and_then(|real| place::of(&real));
    let seen = seen.map_err(|e| {
        Error::not_found(format!("cannot look at {}", directory.display())).with_source(e)
    })?;
    Ok(Place {
        fs_type: seen.fs_type,
        propagates: seen.propagates,
    })
}

fn sight(cri_socket: &Path) -> Result<()> {
    pid_of(cri_socket).map(drop)
}

fn pid_of(socket: &Path) -> Result<u32> {
    let shown = socket.display();
    process::listener_pid(socket)
        .map_err(|e| {
            Error::unavailable(format!("the runtime at {shown} does not answer")).with_source(e)
        })?
        .ok_or_else(|| {
            Error::precondition(format!(
                "the process that listens on {shown} is in another process namespace"
            ))
        })
}

/// The configuration of the containerd that listens there.
async fn containerd(cri_socket: &Path) -> Result<RuntimeSettings> {
    let pid = pid_of(cri_socket)?;
    let proc = PathBuf::from(format!("/proc/{pid}"));
    let unseen =
        |e| Error::internal(format!("cannot look at process {pid} of the runtime")).with_source(e);
    let program = fs::read_link(proc.join("exe")).map_err(unseen)?;
    let words = fs::read(proc.join("cmdline")).map_err(unseen)?;
    if program.file_name() != Some("containerd".as_ref()) {
        return Err(Error::unimplemented(format!(
            "the runtime at {} is {}, and not containerd",
            cri_socket.display(),
            program.display()
        )));
    }
    let mut command = Command::new(&program);
    if let Some(config) = config_option(&words) {
        // A path in its command line is seen from where it was started.
        let at = fs::read_link(proc.join("cwd")).map_err(unseen)?;
        command.arg("--config").arg(at.join(config));
    }
    command
        .args(["config", "dump"])
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let failed = |why: &str| Error::internal(format!("`{} config dump` {why}", program.display()));
    let output = tokio::time::timeout(DUMP_WITHIN, command.output())
        .await
        .map_err(|_| failed("takes too long"))?
        .map_err(|e| failed("cannot be started").with_source(e))?;
    if !output.status.success() {
        return Err(failed("failed"));
    }
    RuntimeSettings::parse(&String::from_utf8_lossy(&output.stdout))
}

/// The value of `--config` or `-c` in a command line of NUL-ended words.
fn config_option(words: &[u8]) -> Option<PathBuf> {
    let mut words = words.split(|b| *b == 0);
    let path = |bytes: &[u8]| PathBuf::from(OsString::from_vec(bytes.to_vec()));
    while let Some(word) = words.next() {
        for name in ["--config", "-config", "-c", "--c"] {
            let rest = word.strip_prefix(name.as_bytes());
            match rest {
                Some([]) => return words.next().map(path),
                Some([b'=', value @ ..]) => return Some(path(value)),
                _ => {}
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_that_containerd_was_started_with_is_found() {
        for (line, found) in [
            ("containerd", None),
            ("containerd --log-level info", None),
            ("containerd --config /c", Some("/c")),
            ("containerd -l x -c /c", Some("/c")),
            ("containerd --config=/c --root /r", Some("/c")),
        ] {
            let words = line.replace(' ', "\0");
            let expected = found.map(PathBuf::from);
            assert_eq!(config_option(words.as_bytes()), expected, "{line}");
        }
    }

    #[test]
    fn hooks_of_ours_are_found_and_whether_their_program_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
        let hook = |path: &str, word: &str| {
            format!(r#"{{"hook":{{"path":"{path}","args":["{word}","hook","poststop"]}}}}"#)
        };
        write("a.json", &hook("/proc/self/exe", "actor-volumes"));
        write("b.json", &hook("/not/there/actor-volumes", "x"));
        write("c.json", &hook("/not/there/other", "other"));
        write("d.json", "{");
        write("e.txt", &hook("/not/there/actor-volumes", "x"));
        let found = hooks(&[dir.path().to_str().unwrap(), "/nothing/is/here"]);
        let lost = PathBuf::from("/not/there/actor-volumes");
        let at = |name: &str| dir.path().join(name);
        assert_eq!(found, [(at("a.json"), None), (at("b.json"), Some(lost))]);
    }
}
