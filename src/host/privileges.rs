// SPDX-License-Identifier: Apache-2.0
//! Which process keeps which capability, and for which feature: the one table. The
//! units, the manifests and docs/security.md are compared with it by tests.

use std::{fmt, io};

pub use rustix::thread::CapabilitySet;

use super::{
    caps::{self, Kept},
    seccomp,
};

/// The processes that run for long or with privileges, each a subcommand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Process {
    /// `actor-volumes control`.
    Control,
    /// `actor-volumes node`.
    Node,
    /// The same, which starts its helper by itself.
    NodeAndHelper,
    /// `actor-volumes helper`.
    Helper,
    /// `actor-volumes local-driver`.
    LocalDriver,
    /// `actor-volumes serve`, which starts the others.
    Serve,
}

/// When a capability is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// The feature is always on.
    Always,
    /// The configuration has a port below 1024 to listen on.
    LowPort,
}

/// A line of the table.
#[derive(Debug, Clone, Copy)]
pub struct Need {
    /// Who.
    pub process: Process,
    /// What: one capability.
    pub capability: CapabilitySet,
    /// When.
    pub when: When,
    /// What does not work without it.
    pub feature: &'static str,
}

const fn need(process: Process, capability: CapabilitySet, feature: &'static str) -> Need {
    Need {
        process,
        capability,
        when: When::Always,
        feature,
    }
}

const fn low_port(process: Process, feature: &'static str) -> Need {
    Need {
        process,
        capability: CapabilitySet::NET_BIND_SERVICE,
        when: When::LowPort,
        feature,
    }
}

/// The whole table. `tests/privileges` tries each line: with the process's
/// capabilities the feature works, without this one it does not.
pub const TABLE: &[Need] = &[
    need(
        Process::Node,
        CapabilitySet::SYS_PTRACE,
        "to look at the mount namespaces of all processes: who still holds a volume, and whether mounts reach the runtime",
    ),
    need(
        Process::Node,
        CapabilitySet::DAC_READ_SEARCH,
        "to see which process of another user has a block volume open",
    ),
    low_port(
        Process::Node,
        "`metrics.listen` on a port below 1024, and only then",
    ),
    low_port(
        Process::Control,
        "`control.listen` or `metrics.listen` on a port below 1024, and only then",
    ),
    need(
        Process::Helper,
        CapabilitySet::SYS_ADMIN,
        "`subPath` and user namespaces: to mount a directory of a volume at a place of its own, and to try whether owners can be mapped",
    ),
    need(
        Process::Helper,
        CapabilitySet::SYS_PTRACE,
        "user namespaces: to open that of a pod, whose processes are of other users",
    ),
    need(
        Process::Helper,
        CapabilitySet::DAC_OVERRIDE,
        "`fsGroup` and `subPath`: to open directories of other users, and to make some in them",
    ),
    need(
        Process::Helper,
        CapabilitySet::CHOWN,
        "`fsGroup`: to give a volume's root directory to a group",
    ),
    need(
        Process::Helper,
        CapabilitySet::FOWNER,
        "`fsGroup`: to set the mode of a root directory that belongs to another user",
    ),
    need(
        Process::Helper,
        CapabilitySet::FSETID,
        "`fsGroup`: to leave it the setgid bit, so that new files are the group's",
    ),
    need(
        Process::LocalDriver,
        CapabilitySet::SYS_ADMIN,
        "to mount and unmount volumes",
    ),
    need(
        Process::LocalDriver,
        CapabilitySet::DAC_OVERRIDE,
        "to delete a volume with directories that only their owner may change",
    ),
    need(
        Process::LocalDriver,
        CapabilitySet::FOWNER,
        "to delete a volume with directories of others that have the sticky bit",
    ),
];

impl Process {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Control,
        Self::Node,
        Self::NodeAndHelper,
        Self::Helper,
        Self::LocalDriver,
        Self::Serve,
    ];

    /// Those whose privileges it has: itself, and all that it starts.
    pub fn parts(self) -> &'static [Self] {
        match self {
            Self::Control => &[Self::Control],
            Self::Node => &[Self::Node],
            Self::NodeAndHelper => &[Self::Node, Self::Helper],
            Self::Helper => &[Self::Helper],
            Self::LocalDriver => &[Self::LocalDriver],
            Self::Serve => &[Self::Control, Self::Node, Self::Helper, Self::LocalDriver],
        }
    }

    /// Its lines, and those of what it starts: with no_new_privs a child has at most
    /// what its parent had.
    pub fn needs(self) -> impl Iterator<Item = &'static Need> {
        let of = move |n: &&Need| self.parts().contains(&n.process);
        TABLE.iter().filter(of)
    }

    /// What it keeps.
    pub fn capabilities(self, low_port: bool) -> CapabilitySet {
        self.needs()
            .filter(|n| n.when == When::Always || low_port)
            .fold(CapabilitySet::empty(), |all, n| all | n.capability)
    }
}

impl Process {
    /// What it uses itself: the rest is there to be handed on.
    pub fn used(self, low_port: bool) -> CapabilitySet {
        match self {
            Self::Serve => CapabilitySet::empty(),
            Self::NodeAndHelper => Self::Node.capabilities(low_port),
            other => other.capabilities(low_port),
        }
    }
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Control => "control",
            Self::Node | Self::NodeAndHelper => "node",
            Self::Helper => "helper",
            Self::LocalDriver => "local-driver",
            Self::Serve => "serve",
        })
    }
}

/// The names of capabilities, `CAP_` before each.
pub fn names(capabilities: CapabilitySet) -> Vec<String> {
    let named = capabilities.iter_names();
    let mut names: Vec<_> = named.map(|(name, _)| format!("CAP_{name}")).collect();
    let known = CapabilitySet::from_bits_truncate(known_bits());
    let unnamed = capabilities.difference(known).bits();
    names.extend(
        (0..u64::BITS)
            .filter(|n| unnamed & (1 << n) != 0)
            .map(|n| format!("capability {n}")),
    );
    names
}

fn known_bits() -> u64 {
    use rustix::thread::CapabilitySet as Set;
    // The last that has a name.
    (Set::CHECKPOINT_RESTORE.bits() << 1) - 1
}

/// The table as docs/security.md has it.
pub fn table() -> String {
    let mut text = String::from("| process | capability | for |\n|---|---|---|\n");
    for need in TABLE {
        let names = names(need.capability).join(", ");
        text.push_str(&format!(
            "| `{}` | {names} | {} |\n",
            need.process, need.feature
        ));
    }
    text
}

/// What a process has left.
#[derive(Debug)]
pub struct Limited {
    process: Process,
    kept: Kept,
    calls: usize,
}

/// Takes away all that the process does not need, for good. To be called before it has
/// a second thread.
pub fn limit(process: Process, low_port: bool) -> io::Result<Limited> {
    if std::fs::read_dir("/proc/self/task")?.count() != 1 {
        return Err(io::Error::other(
            "this process has other threads already, which would keep their privileges",
        ));
    }
    let kept = caps::keep(process.capabilities(low_port), process.used(low_port))?;
    let calls = seccomp::install(process)?;
    Ok(Limited {
        process,
        kept,
        calls,
    })
}

impl Limited {
    /// What the process should have, and was not given by who started it; none: it has
    /// all.
    pub fn missing(&self) -> Option<String> {
        let missing = names(self.kept.missing);
        (!missing.is_empty()).then(|| missing.join(", "))
    }
}

impl fmt::Display for Limited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} keeps ", self.process)?;
        let kept = |n: &&Need| self.kept.capabilities.contains(n.capability);
        let mut seen = CapabilitySet::empty();
        for need in self.process.needs().filter(kept) {
            if seen.contains(need.capability) {
                continue;
            }
            let name = names(need.capability).join(", ");
            let separator = if seen.is_empty() { "" } else { "; " };
            write!(f, "{separator}{name} ({})", need.feature)?;
            seen |= need.capability;
        }
        if seen.is_empty() {
            f.write_str("no capability")?;
        }
        if self.kept.bounding_stays {
            f.write_str("; the bounding set stays, for CAP_SETPCAP is not there to change it")?;
        }
        write!(f, "; no_new_privs; {} system calls", self.calls)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_line_is_about_one_capability_and_stands_once() {
        let mut seen = BTreeSet::new();
        for need in TABLE {
            assert_eq!(need.capability.bits().count_ones(), 1, "{}", need.feature);
            assert_eq!(need.process.parts().len(), 1, "{}", need.feature);
            let line = (need.process.to_string(), need.capability.bits());
            assert!(seen.insert(line), "twice: {}", need.feature);
        }
    }

    #[test]
    fn who_starts_the_others_has_what_each_of_them_needs() {
        for low_port in [false, true] {
            for parent in Process::ALL {
                let has = parent.capabilities(low_port);
                for child in parent.parts() {
                    assert!(has.contains(child.capabilities(low_port)), "{child}");
                }
            }
        }
        assert!(Process::Control.capabilities(false).is_empty());
    }

    #[test]
    fn a_capability_without_a_name_is_told_by_its_number() {
        let set = CapabilitySet::CHOWN | CapabilitySet::from_bits_retain(1 << 60);
        assert_eq!(names(set), ["CAP_CHOWN", "capability 60"]);
    }

    #[test]
    fn what_is_kept_is_told_with_its_reason() {
        let limited = Limited {
            process: Process::Node,
            kept: Kept {
                capabilities: CapabilitySet::SYS_PTRACE,
                missing: CapabilitySet::DAC_READ_SEARCH,
                bounding_stays: false,
            },
            calls: 7,
        };
        let text = limited.to_string();
        assert!(
            text.starts_with("node keeps CAP_SYS_PTRACE (to look at"),
            "{text}"
        );
        assert!(text.ends_with("; no_new_privs; 7 system calls"), "{text}");
        assert_eq!(limited.missing().as_deref(), Some("CAP_DAC_READ_SEARCH"));
    }

    #[test]
    fn a_process_with_threads_is_not_limited_by_halves() {
        // The test runner has threads of its own.
        let refused = limit(Process::Control, false).unwrap_err();
        assert!(refused.to_string().contains("other threads"), "{refused}");
    }

    #[test]
    fn the_document_has_the_table() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/security.md");
        let document = std::fs::read_to_string(path).unwrap();
        assert!(
            document.contains(&table()),
            "docs/security.md lacks:\n{}",
            table()
        );
    }
}
