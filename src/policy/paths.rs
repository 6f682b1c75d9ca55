// SPDX-License-Identifier: Apache-2.0
//! Where in a container a volume may be.
//!
//! Paths are compared part by part, without empty, `.` and `..` parts. Links in the
//! image are not known here: a runtime resolves them inside the container's root.

use std::path::{Path, PathBuf};

use crate::model::clean_path;

/// Denied unless configured otherwise: what the kernel, the runtime or the image's own
/// programs live in. Data lives elsewhere, as in `/var/lib`, `/srv`, `/data`, `/home`.
pub const DENIED: [&str; 22] = [
    "/proc",
    "/sys",
    "/dev",
    "/run",
    "/var/run",
    "/etc",
    "/boot",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/usr/bin",
    "/usr/sbin",
    "/usr/lib",
    "/usr/lib32",
    "/usr/lib64",
    "/usr/libexec",
    "/usr/local/bin",
    "/usr/local/sbin",
    "/usr/local/lib",
];

/// What a runtime makes in `/dev` itself.
const RUNTIME_NODES: [&str; 17] = [
    "console", "core", "fd", "full", "kmsg", "mem", "mqueue", "null", "ptmx", "pts", "random",
    "shm", "stderr", "stdin", "stdout", "tty", "urandom",
];

/// Where devices belong.
const DEV: &str = "/dev";

/// Denied places, and the exceptions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathRules {
    denied: Vec<PathBuf>,
    allowed: Vec<PathBuf>,
}

impl Default for PathRules {
    fn default() -> Self {
        Self::new(DENIED, [""; 0])
    }
}

impl PathRules {
    /// Nothing at, below or above a denied path, but at or below an allowed one. Of
    /// two that hold for a path the longer one counts.
    pub fn new<S: AsRef<str>, T: AsRef<str>>(
        denied: impl IntoIterator<Item = S>,
        allowed: impl IntoIterator<Item = T>,
    ) -> Self {
        Self {
            denied: denied.into_iter().map(|p| clean_path(p.as_ref())).collect(),
            allowed: allowed
                .into_iter()
                .map(|p| clean_path(p.as_ref()))
                .collect(),
        }
    }

    /// Whether a volume may be mounted there; an error is why not.
    pub fn check(&self, path: &str) -> Result<(), String> {
        let path = clean_path(path);
        let allowed = longest(&self.allowed, &path);
        if let Some(denied) = longest(&self.denied, &path)
            && allowed.is_none_or(|allowed| parts(allowed) < parts(denied))
        {
            return Err(if path == *denied {
                "a place of the system's own".to_owned()
            } else {
                format!("which is below {}", denied.display())
            });
        }
        if allowed.is_some() {
            return Ok(());
        }
        match self.denied.iter().find(|denied| denied.starts_with(&path)) {
            Some(hidden) => Err(format!("which would hide {}", hidden.display())),
            None => Ok(()),
        }
    }

    /// Whether a block device may be shown there. `/dev` is where devices belong, but
    /// for the nodes that a runtime makes.
    pub fn check_device(&self, path: &str) -> Result<(), String> {
        let device = clean_path(path);
        let Ok(below) = device.strip_prefix(DEV) else {
            return self.check(path);
        };
        let Some(first) = below.iter().next() else {
            return Err("where the runtime makes its own devices".to_owned());
        };
        match RUNTIME_NODES.iter().find(|node| first == **node) {
            Some(node) => Err(format!("where the runtime makes its own {node}")),
            None => Ok(()),
        }
    }

    /// The allowed paths at which, or above which, the kernel's own files are: with
    /// them a volume may take their place.
    pub fn opens_the_kernels(&self) -> Vec<&'static str> {
        let open = |place: &&str| {
            let inside = |allowed: &&PathBuf| allowed.starts_with(place);
            self.check(place).is_ok() || self.allowed.iter().any(|a| inside(&a))
        };
        ["/proc", "/sys", DEV].into_iter().filter(open).collect()
    }
}

/// The longest of these that the path is, or is below of.
fn longest<'r>(of: &'r [PathBuf], path: &Path) -> Option<&'r PathBuf> {
    of.iter()
        .filter(|prefix| path.starts_with(prefix))
        .max_by_key(|prefix| parts(prefix))
}

fn parts(path: &Path) -> usize {
    path.components().count()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_places_of_the_system_are_denied_and_those_of_data_are_not() {
        let rules = PathRules::default();
        for good in [
            "/var/lib/x",
            "/data",
            "/home/agent",
            "/srv",
            "/opt/app/data",
            "/tmp",
            "/mnt/etc",
            "/etcetera",
            "/process",
            "/usr/share/elasticsearch/data",
            "/usr/src/app",
            "/var/lib/postgresql/data",
            "/root/.cache",
        ] {
            assert_eq!(rules.check(good), Ok(()), "{good}");
        }
        for (bad, why) in [
            ("/proc", "system's own"),
            ("/proc/1/root", "below /proc"),
            ("//proc", "system's own"),
            ("/proc/", "system's own"),
            ("/proc/../proc", "system's own"),
            ("/data/../etc/x", "below /etc"),
            ("/./sys/fs/cgroup", "below /sys"),
            ("/etc/my-app", "below /etc"),
            ("/usr", "hide /usr/bin"),
            ("/usr/local", "hide /usr/local/bin"),
            ("/var", "hide /var/run"),
            ("/", "hide /proc"),
            ("/..", "hide /proc"),
            ("/dev/shm", "below /dev"),
            ("/run/secrets", "below /run"),
            ("/lib/modules", "below /lib"),
        ] {
            let found = rules.check(bad).expect_err(bad);
            assert!(found.contains(why), "{bad}: {found}");
        }
    }

    #[test]
    fn the_longer_of_two_rules_counts() {
        let rules = PathRules::new(DENIED, ["/etc/my-app/", "/var", "/"]);
        for good in ["/etc/my-app", "/etc/my-app/x", "/var", "/"] {
            assert_eq!(rules.check(good), Ok(()), "{good}");
        }
        for bad in [
            "/etc",
            "/etc/my-app2",
            "/etc/my-app/../x",
            "/var/run/x",
            "/proc",
        ] {
            assert!(rules.check(bad).is_err(), "{bad}");
        }
        let closed = PathRules::new(["/data/private"], ["/data"]);
        assert!(closed.check("/data/private/x").is_err());
        assert_eq!(closed.check("/data"), Ok(()));
    }

    #[test]
    fn a_device_is_in_dev_and_takes_no_place_of_the_runtimes() {
        let rules = PathRules::default();
        for good in ["/dev/xvda", "/dev/disk/one", "/devices/x", "/dev/nullable"] {
            assert_eq!(rules.check_device(good), Ok(()), "{good}");
        }
        for bad in [
            "/dev",
            "/dev/.",
            "/dev/null",
            "//dev//null",
            "/dev/pts/0",
            "/dev/x/../shm/y",
            "/etc/disk",
            "/proc/x",
        ] {
            assert!(rules.check_device(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_opens_the_kernels_files_is_told() {
        assert_eq!(PathRules::default().opens_the_kernels(), [""; 0]);
        let of = |allowed: &str| PathRules::new(DENIED, [allowed]).opens_the_kernels();
        assert_eq!(of("/proc"), ["/proc"]);
        assert_eq!(of("/sys/fs/cgroup"), ["/sys"]);
        assert_eq!(of("/"), [""; 0]);
        let none = PathRules::new([""; 0], [""; 0]);
        assert_eq!(none.opens_the_kernels(), ["/proc", "/sys", "/dev"]);
    }

    /// Another way to write the same path.
    fn disguised(path: &str) -> impl Strategy<Value = String> {
        let parts: Vec<String> = path.split('/').skip(1).map(str::to_owned).collect();
        let before = prop_oneof![
            Just("/".to_owned()),
            Just("//".to_owned()),
            Just("/./".to_owned()),
            "/[a-z]{1,3}/\\.\\./",
        ];
        let after = prop_oneof![Just(""), Just("/"), Just("/."), Just("//")];
        (proptest::collection::vec(before, parts.len()), after).prop_map(move |(before, after)| {
            let joined: String = before
                .iter()
                .zip(&parts)
                .map(|(b, p)| b.clone() + p)
                .collect();
            joined + after
        })
    }

    proptest! {
        #[test]
        fn no_spelling_of_a_denied_path_is_allowed(
            path in proptest::sample::select(DENIED.as_slice()).prop_flat_map(disguised),
            below in "(/[a-z.]{1,3}x){0,2}",
        ) {
            let rules = PathRules::default();
            prop_assert!(rules.check(&path).is_err(), "{}", path);
            let below = path + &below;
            prop_assert!(rules.check(&below).is_err(), "{}", below);
        }

        #[test]
        fn what_is_allowed_hides_and_enters_nothing_that_is_denied(path in "(/[a-z.]{0,4}){1,4}") {
            if PathRules::default().check(&path).is_ok() {
                let clean = clean_path(&path);
                for denied in DENIED.map(Path::new) {
                    prop_assert!(!clean.starts_with(denied) && !denied.starts_with(&clean));
                }
            }
        }
    }
}
