// SPDX-License-Identifier: Apache-2.0
//! The command line of runc and its like, as far as it matters who is made.
//!
//! A command line that is not understood may make a container all the same, so
//! in doubt it is taken for one that does.

use std::{
    ffi::{OsStr, OsString},
    os::unix::ffi::OsStrExt,
    path::PathBuf,
};

/// What makes a container: its mounts are those of the bundle's config.json.
const MAKES: [&str; 3] = ["create", "run", "restore"];

/// Options before the subcommand that have their value in the next word.
const GLOBAL_VALUES: [&str; 16] = [
    "root",
    "log",
    "log-format",
    "log-level",
    "criu",
    "cgroup-manager",
    // Of runsc.
    "platform",
    "network",
    "debug-log",
    "debug-log-format",
    "panic-log",
    "overlay2",
    "file-access",
    "file-access-mounts",
    "host-uds",
    "host-fifo",
];

/// And those that have none.
const GLOBAL_FLAGS: [&str; 8] = [
    "debug",
    "systemd-cgroup",
    "help",
    "h",
    "version",
    "v",
    // Of runsc.
    "ignore-cgroups",
    "overlay",
];

/// runc has a value in the next word, runsc none.
const ROOTLESS: &str = "rootless";
const ROOTLESS_VALUES: [&str; 3] = ["true", "false", "auto"];

/// Options of `create`, `run` and `restore` with a value in the next word.
const VALUES: [&str; 20] = [
    "bundle",
    "b",
    "console-socket",
    "pid-file",
    "preserve-fds",
    "image-path",
    "work-path",
    "parent-path",
    "manage-cgroups-mode",
    "empty-ns",
    "lsm-profile",
    "lsm-mount-context",
    "status-fd",
    "page-server",
    "config",
    "f",
    "user-log",
    "apparmor-profile",
    "criu-opts",
    "pidfd-socket",
];

/// Takes containers away.
const DELETE: &str = "delete";

/// What of the command line matters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Command {
    /// Where the runtime keeps what it knows of containers; none: at its default.
    pub root: Option<PathBuf>,
    /// gVisor is to keep what is written to mounts for itself.
    pub keeps_writes: bool,
    /// The log file of the runtime.
    pub log: Option<PathBuf>,
    /// Whether its lines are JSON.
    pub log_is_json: bool,
    /// The container to be made; none: nothing is made.
    pub makes: Option<Making>,
    /// The containers to be deleted.
    pub deletes: Vec<String>,
}

/// A container that is to be made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Making {
    /// Its id at the runtime.
    pub id: String,
    /// The directory of its config.json.
    pub bundle: PathBuf,
    /// Another file was named in config.json's place, as crun allows.
    pub config_elsewhere: bool,
}

impl Command {
    /// Reads the arguments, without the program's own name.
    pub fn read(arguments: &[OsString]) -> Self {
        let mut command = Self::default();
        let mut words = Words(arguments.iter());
        let mut certain = true;
        while let Some(word) = words.0.next() {
            let Some((name, value)) = option(word) else {
                if is_one_of(word, &MAKES) {
                    command.makes = Some(making(&mut words));
                } else if word == DELETE {
                    command.deletes = deleted(words);
                } else if !certain && words.0.any(|w| is_one_of(w, &MAKES)) {
                    // This word may have been the value of an option.
                    command.makes = Some(making(&mut words));
                }
                return command;
            };
            let is_rootless = name == ROOTLESS;
            let takes_value = is_one_of(name, &GLOBAL_VALUES)
                || (is_rootless && words.next_is_one_of(&ROOTLESS_VALUES));
            certain &=
                takes_value || value.is_some() || is_rootless || is_one_of(name, &GLOBAL_FLAGS);
            let value = match value {
                None if takes_value => words.0.next().map(OsString::as_os_str),
                value => value,
            };
            match (name.to_str(), value) {
                (Some("overlay"), value) => command.keeps_writes = value.is_none_or(is_true),
                (Some("overlay2"), Some(value)) => {
                    command.keeps_writes = value.as_bytes().starts_with(b"all:");
                }
                (Some("root"), Some(value)) => command.root = Some(value.into()),
                (Some("log"), Some(value)) => command.log = Some(value.into()),
                (Some("log-format"), Some(value)) => command.log_is_json = value == "json",
                _ => {}
            }
        }
        command
    }
}

struct Words<'a>(std::slice::Iter<'a, OsString>);

impl Words<'_> {
    fn next_is_one_of(&self, known: &[&str]) -> bool {
        self.0
            .as_slice()
            .first()
            .is_some_and(|word| is_one_of(word, known))
    }
}

/// No option of `delete` has a value in the next word.
fn deleted(words: Words<'_>) -> Vec<String> {
    words
        .0
        .filter(|word| option(word).is_none())
        .map(|word| word.to_string_lossy().into_owned())
        .collect()
}

fn making(words: &mut Words<'_>) -> Making {
    let mut making = Making {
        bundle: ".".into(),
        ..Making::default()
    };
    let mut all_are_words = false;
    while let Some(word) = words.0.next() {
        let found = if all_are_words { None } else { option(word) };
        let Some((name, value)) = found else {
            making.id = word.to_string_lossy().into_owned();
            continue;
        };
        if name.is_empty() {
            all_are_words = true;
            continue;
        }
        let value = match value {
            None if is_one_of(name, &VALUES) => words.0.next().map(OsString::as_os_str),
            value => value,
        };
        match (name.to_str(), value) {
            (Some("bundle" | "b"), Some(value)) => making.bundle = value.into(),
            (Some("config" | "f"), _) => making.config_elsewhere = true,
            _ => {}
        }
    }
    making
}

/// The option's name without dashes, and the value after `=`. None: no option.
fn option(word: &OsStr) -> Option<(&OsStr, Option<&OsStr>)> {
    let bytes = word.as_bytes();
    let rest = bytes.strip_prefix(b"-")?;
    if rest.is_empty() {
        return None;
    }
    let rest = rest.strip_prefix(b"-").unwrap_or(rest);
    Some(match rest.iter().position(|b| *b == b'=') {
        Some(at) => (
            OsStr::from_bytes(&rest[..at]),
            Some(OsStr::from_bytes(&rest[at + 1..])),
        ),
        None => (OsStr::from_bytes(rest), None),
    })
}

/// As Go reads it.
fn is_true(word: &OsStr) -> bool {
    is_one_of(word, &["1", "t", "T", "true", "TRUE", "True"])
}

fn is_one_of(word: &OsStr, known: &[&str]) -> bool {
    known.iter().any(|k| word == *k)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Command {
        let words: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
        Command::read(&words)
    }

    fn made(line: &str) -> Option<(String, String)> {
        let made = read(line).makes?;
        Some((made.id, made.bundle.display().to_string()))
    }

    #[test]
    fn what_a_shim_says_is_understood() {
        let line = "--root /r --log /b/log.json --log-format json --systemd-cgroup create --bundle /b --pid-file /b/init.pid --console-socket /c c1";
        let command = read(line);
        assert_eq!(command.log, Some("/b/log.json".into()));
        assert!(command.log_is_json);
        assert_eq!(made(line), Some(("c1".into(), "/b".into())));
        let restored = "--root=/r --log=/l restore --image-path /i --bundle=/b --detach c1";
        assert_eq!(made(restored), Some(("c1".into(), "/b".into())));
        assert!(!read(restored).log_is_json);
        for line in [line, restored] {
            assert_eq!(read(line).root, Some("/r".into()));
            assert!(read(line).deletes.is_empty());
        }
    }

    #[test]
    fn every_way_to_name_a_bundle_counts_and_the_last_one_wins() {
        let here = Some(("c1".into(), ".".into()));
        for (line, found) in [
            ("run c1", here.clone()),
            ("run -d c1", here),
            ("create -b /x c1", Some(("c1".into(), "/x".into()))),
            ("create -bundle /x c1", Some(("c1".into(), "/x".into()))),
            (
                "create --bundle /x --bundle=/y c1",
                Some(("c1".into(), "/y".into())),
            ),
            ("create c1 --bundle /x", Some(("c1".into(), "/x".into()))),
            (
                "create --bundle /x -- --c1",
                Some(("--c1".into(), "/x".into())),
            ),
        ] {
            assert_eq!(made(line), found, "{line}");
        }
    }

    #[test]
    fn a_specification_that_is_not_in_the_bundle_is_noticed() {
        for line in ["run -f /x c1", "create --config=/x c1"] {
            assert!(read(line).makes.unwrap().config_elsewhere, "{line}");
        }
        assert!(!read("create -b /x c1").makes.unwrap().config_elsewhere);
    }

    #[test]
    fn other_subcommands_make_nothing() {
        for line in [
            "",
            "--version",
            "-v",
            "--root /r state c1",
            "--root create state c1",
            "--root /r kill c1 9",
            "--root /r --systemd-cgroup delete --force create",
            "--root /r exec --process /p run",
            "--log-format json checkpoint --image-path /i c1",
        ] {
            assert_eq!(made(line), None, "{line}");
        }
    }

    #[test]
    fn the_containers_that_are_deleted_are_named() {
        for (line, named) in [
            ("--root /r --log /l delete --force c1", &["c1"][..]),
            ("delete -force=true c1 c2", &["c1", "c2"]),
            ("delete", &[]),
            ("state delete", &[]),
        ] {
            assert_eq!(read(line).deletes, named, "{line}");
            assert!(read(line).makes.is_none(), "{line}");
        }
    }

    #[test]
    fn a_sandbox_that_keeps_what_is_written_is_noticed() {
        for (line, keeps) in [
            ("--overlay2=all:memory create c1", true),
            ("-overlay2 all:self create c1", true),
            ("--overlay create c1", true),
            ("--overlay=true create c1", true),
            ("--overlay=false create c1", false),
            ("--overlay2=root:self create c1", false),
            ("--overlay2 none create c1", false),
            ("create c1", false),
        ] {
            assert_eq!(read(line).keeps_writes, keeps, "{line}");
            assert!(read(line).makes.is_some(), "{line}");
        }
    }

    #[test]
    fn rootless_has_a_value_of_runc_and_none_of_runsc() {
        let made_c1 = Some(("c1".into(), "/b".into()));
        for line in [
            "--rootless create --bundle /b c1",
            "--rootless --network=none create --bundle /b c1",
            "--rootless=true create --bundle /b c1",
            "--rootless auto create --bundle /b c1",
            "--rootless --overlay2 none run -bundle /b c1",
        ] {
            assert_eq!(made(line), made_c1, "{line}");
        }
    }

    #[test]
    fn after_an_option_that_is_not_known_a_creation_is_not_overlooked() {
        for line in [
            "--new-option value create --bundle /b c1",
            "--new-option create --bundle /b c1",
            "--new=1 --other x create --bundle /b c1",
        ] {
            assert_eq!(made(line), Some(("c1".into(), "/b".into())), "{line}");
        }
        assert_eq!(made("--new-option kill c1 9"), None);
    }
}
