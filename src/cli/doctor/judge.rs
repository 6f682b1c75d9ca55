// SPDX-License-Identifier: Apache-2.0
//! What is to be said about what was seen. Pure.

use std::path::PathBuf;

use super::{Facts, Finding, Level, Place, keys};
use crate::{
    error::Result,
    proto::api::{self, AgentStatus},
};

/// Of the runtime's request timeout, what the plugin leaves unused.
const SHARE_OF_TIMEOUT: u64 = 75;

/// File systems that a reboot or a power cut empties.
const FLEETING: [&str; 2] = ["tmpfs", "ramfs"];

/// And those of which it is not known.
const DOUBTFUL: [&str; 4] = ["overlay", "9p", "fuse", "nfs4"];

/// Everything that must be so, in the order in which to mend it.
pub fn judge(facts: &Facts) -> Vec<Finding> {
    let mut findings = vec![daemon(facts)];
    findings.extend(nri(facts));
    findings.push(guard(facts));
    findings.push(validator(facts));
    findings.extend(keys::keys(facts));
    findings.extend(keys::unsigned(facts));
    findings.extend(hooks(facts));
    findings.extend(drivers(facts));
    findings.push(mount_root(facts));
    findings.push(state_dir(facts));
    findings.push(policy(facts));
    findings.push(sight(facts));
    findings.extend(breaches(facts));
    findings.extend(stuck(facts));
    findings.extend(left_overs(facts));
    findings
}

fn found(check: &'static str, level: Level, message: impl Into<String>, fix: &str) -> Finding {
    Finding {
        check,
        level,
        message: message.into(),
        fix: fix.to_owned(),
    }
}

pub(super) fn ok(check: &'static str, message: impl Into<String>) -> Finding {
    found(check, Level::Ok, message, "")
}

pub(super) fn warn(check: &'static str, message: impl Into<String>, fix: &str) -> Finding {
    found(check, Level::Warn, message, fix)
}

pub(super) fn fail(check: &'static str, message: impl Into<String>, fix: &str) -> Finding {
    found(check, Level::Fail, message, fix)
}

/// Definitions of hooks, where there are any.
fn hooks(facts: &Facts) -> Vec<Finding> {
    const CHECK: &str = "hooks";
    let one = |(file, lost): &(PathBuf, Option<PathBuf>)| match lost {
        None => ok(
            CHECK,
            format!("{} calls a program that is there", file.display()),
        ),
        Some(program) => fail(
            CHECK,
            format!(
                "{} calls {}, which is not there: Podman and CRI-O pass over such a file, and containers run without their volumes",
                file.display(),
                program.display()
            ),
            "set hook.path in it to where actor-volumes is",
        ),
    };
    facts.hooks.iter().map(one).collect()
}

/// What the policy lets into a container.
fn policy(facts: &Facts) -> Finding {
    const CHECK: &str = "policy";
    let open = facts.config.policy.rules().paths.opens_the_kernels();
    if open.is_empty() {
        return ok(
            CHECK,
            "no volume is mounted at or below /proc, /sys and /dev",
        );
    }
    warn(
        CHECK,
        format!(
            "volumes may be mounted at or below {}: there a container believes what its actor wrote for the kernel's word",
            open.join(" and ")
        ),
        "take these paths out of policy.allow_mount_paths, and leave them in policy.deny_mount_paths",
    )
}

/// Containers that run without their volumes.
fn breaches(facts: &Facts) -> Vec<Finding> {
    let Some(status) = status(facts) else {
        return Vec::new();
    };
    if status.breaches.is_empty() {
        return vec![ok(
            "containers",
            "no container is known to run without a volume that it asks for",
        )];
    }
    let one = |breach: &api::Breach| {
        fail(
            "containers",
            format!(
                "container {} of pod {} runs without a volume that it asks for, seen since {}: {}",
                breach.container_name, breach.pod, breach.since, breach.message
            ),
            "stop the pod; then see to the guard, which does not let it come to this",
        )
    };
    status.breaches.iter().map(one).collect()
}

/// Volumes that do not get on.
fn stuck(facts: &Facts) -> Vec<Finding> {
    const CHECK: &str = "volumes";
    let Some(status) = status(facts) else {
        return Vec::new();
    };
    if status.stuck.is_empty() {
        return vec![ok(CHECK, "none waits for its driver or for its release")];
    }
    let one = |stuck: &api::StuckVolume| {
        warn(
            CHECK,
            format!(
                "volume {} of {} since {}: {}",
                stuck.volume_id, stuck.driver, stuck.since, stuck.message
            ),
            "see to what is named: the driver, the file system's server, or the process that holds it; the rest follows by itself",
        )
    };
    status.stuck.iter().map(one).collect()
}

fn status(facts: &Facts) -> Option<&AgentStatus> {
    facts.daemon.as_ref().ok()
}

fn daemon(facts: &Facts) -> Finding {
    match &facts.daemon {
        Ok(status) if status.draining => warn(
            "daemon",
            format!(
                "the node {} is being drained: it takes no new pods with volumes",
                status.node
            ),
            "`actor-volumes node uncordon` when it is to take them again",
        ),
        Ok(status) => ok(
            "daemon",
            format!(
                "the node agent of {} answers, version {}; it holds {} volumes",
                status.node, status.version, status.held_volumes
            ),
        ),
        Err(e) => fail(
            "daemon",
            format!(
                "{}: what follows is seen from outside alone",
                e.full_message()
            ),
            "start `actor-volumes serve` or `actor-volumes node`, and look at its log",
        ),
    }
}

fn nri(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    if facts.config.runtime.nri().is_none() {
        return vec![ok(
            "nri",
            "this node has none by its configuration: volumes come by hooks, the wrapper, bundles and bind",
        )];
    }
    if facts.containerd.as_ref().is_ok_and(|c| !c.nri) {
        findings.push(fail(
            "nri",
            "NRI is off in containerd's configuration",
            "set disable = false in [plugins.\"io.containerd.nri.v1.nri\"] and restart containerd",
        ));
        return findings;
    }
    let told = status(facts).and_then(|s| s.nri.as_ref());
    let Some(told) = told else {
        findings.push(match &facts.nri_socket {
            Ok(()) => warn(
                "nri",
                "the socket answers; whether the plugin is connected only the daemon knows",
                "start the daemon",
            ),
            Err(e) => fail("nri", e.full_message(), NRI_SOCKET),
        });
        return findings;
    };
    if !told.connected || !told.synchronized {
        let why = match (&facts.nri_socket, told.lost.as_str()) {
            (Err(e), _) => e.full_message(),
            (Ok(()), _) if told.connected => {
                "the plugin is registered, and the runtime does not tell what it has".to_owned()
            }
            (Ok(()), "") => "the plugin is not registered yet".to_owned(),
            (Ok(()), lost) => format!("the connection was lost: {lost}"),
        };
        let fix = if told.connected {
            NRI_SILENT
        } else {
            NRI_SOCKET
        };
        findings.push(fail("nri", why, fix));
        return findings;
    }
    findings.push(ok(
        "nri",
        format!(
            "connected to {} {} and synchronized",
            told.runtime, told.runtime_version
        ),
    ));
    findings.push(if told.events == 0 {
        warn(
            "events",
            "no event of a pod has come since the daemon was started",
            "start any pod and look again: an event must come, or the daemon talks to another runtime than the pods'",
        )
    } else {
        ok("events", format!("{} events of pods have come", told.events))
    });
    let timeout = told.request_timeout_ms;
    let longest = facts.config.wait.max_ms;
    findings.push(if longest > timeout * SHARE_OF_TIMEOUT / 100 {
        warn(
            "request timeout",
            format!(
                "the runtime waits {timeout} ms for the plugin: of wait.max_ms ({longest}) only {SHARE_OF_TIMEOUT} % of that are used"
            ),
            "raise plugin_request_timeout in containerd's [plugins.\"io.containerd.nri.v1.nri\"], or lower wait.max_ms",
        )
    } else {
        ok(
            "request timeout",
            format!("the runtime waits {timeout} ms for the plugin, which needs at most {longest}"),
        )
    });
    findings
}

const NRI_SOCKET: &str = "see that NRI is on in containerd, and that runtime.nri_socket is its socket_path; the daemon connects by itself";

const NRI_SILENT: &str = "containerd first lets calls end that are under way, such as the stop of a container with a long grace time; if none is, restart containerd: running containers stay";

/// Whether the guard stands before every runtime of runc's kind.
fn guarded(facts: &Facts) -> Option<bool> {
    let settings = facts.containerd.as_ref().ok()?;
    let stands = |r: &super::containerd::RuntimeHandler| {
        facts.guards.contains(&r.binary) && r.passes_annotations
    };
    Some(
        facts.real_runtime.is_ok()
            && !settings.runtimes.is_empty()
            && settings.runtimes.iter().all(stands),
    )
}

const GUARD: &str = "put packaging/containerd/actor-volumes-guard.toml in place (docs/install.md) and restart containerd";

fn guard(facts: &Facts) -> Finding {
    const CHECK: &str = "guard";
    if facts.config.runtime.cri().is_none() {
        return ok(CHECK, "this node has no CRI by its configuration");
    }
    let settings = match &facts.containerd {
        Ok(settings) => settings,
        Err(e) => {
            return warn(
                CHECK,
                format!(
                    "it cannot be told whether it is in place: {}",
                    e.full_message()
                ),
                "look at BinaryName, pod_annotations and container_annotations in containerd's configuration",
            );
        }
    };
    if guarded(facts) == Some(true) {
        let names: Vec<_> = settings.runtimes.iter().map(|r| r.name.as_str()).collect();
        return ok(CHECK, format!("it stands before {}", names.join(", ")));
    }
    let mut without = Vec::new();
    for runtime in &settings.runtimes {
        let name = &runtime.name;
        if !facts.guards.contains(&runtime.binary) {
            let shown = match runtime.binary.as_str() {
                "" => "runc",
                binary => binary,
            };
            without.push(format!("{name} calls {shown} directly"));
        } else if !runtime.passes_annotations {
            without.push(format!(
                "{name} does not pass pod_annotations and container_annotations of actor-volumes.dev/* on, so it sees nobody who asks for volumes"
            ));
        }
    }
    if without.is_empty()
        && let Err(e) = &facts.real_runtime
    {
        return fail(
            CHECK,
            format!("no container can start: {}", e.full_message()),
            "set guard.runtime to the path of the real runtime",
        );
    }
    let message = match without.as_slice() {
        [] => "no runtime of runc's kind is configured".to_owned(),
        some => some.join("; "),
    };
    // With neither of the two, a daemon that is away lets containers start.
    if settings.validator == Some(true) {
        warn(
            CHECK,
            format!("{message}: a plugin that hangs lets a container start without its volume"),
            GUARD,
        )
    } else {
        fail(
            CHECK,
            format!("{message}: while the plugin is away, containers start without their volumes"),
            GUARD,
        )
    }
}

fn validator(facts: &Facts) -> Finding {
    const CHECK: &str = "validator";
    let guarded = guarded(facts) == Some(true);
    let level = if guarded { Level::Ok } else { Level::Warn };
    match facts.containerd.as_ref().map(|c| c.validator) {
        Ok(Some(true)) => ok(CHECK, "NRI's default validator is on"),
        Ok(Some(false)) => found(
            CHECK,
            level,
            "NRI's default validator is off",
            "set enable = true in [plugins.'io.containerd.nri.v1.nri'.default_validator] and restart containerd",
        ),
        Ok(None) => found(
            CHECK,
            level,
            "this containerd has none (2.2 and later do)",
            if guarded { "" } else { GUARD },
        ),
        Err(e) => warn(
            CHECK,
            format!("it cannot be told whether it is on: {}", e.full_message()),
            "look for default_validator in containerd's configuration (2.2 and later)",
        ),
    }
}

fn drivers(facts: &Facts) -> Vec<Finding> {
    const CHECK: &str = "driver";
    const FIX: &str = "start the driver, and see that endpoint in the configuration is its socket";
    let silent = |name: &str, why: &str| fail(CHECK, format!("{name}: {why}"), FIX);
    let Some(status) = status(facts) else {
        let listens = facts.config.driver.len() - facts.silent_drivers.len();
        let mut findings: Vec<_> = facts
            .silent_drivers
            .iter()
            .map(|(name, why)| silent(name, why))
            .collect();
        if listens > 0 {
            findings.push(ok(CHECK, format!("{listens} of the configuration listen")));
        }
        return findings;
    };
    if status.drivers.is_empty() {
        return vec![fail(
            CHECK,
            "the daemon knows none",
            "add a [[driver]] table to the configuration, or set discovery.registration_dir",
        )];
    }
    let each = status.drivers.iter().map(|d| match d.problem.as_str() {
        "" => ok(CHECK, format!("{} answers", d.name)),
        why => silent(&d.name, why),
    });
    each.collect()
}

fn mount_root(facts: &Facts) -> Finding {
    const CHECK: &str = "mount root";
    let root = facts.config.node.mount_root.display();
    match &facts.mount_root {
        Ok(Place {
            propagates: true, ..
        }) => ok(CHECK, format!("mounts below {root} propagate")),
        Ok(_) => warn(
            CHECK,
            format!(
                "{root} lies on a private mount: mounts that a driver in a container makes are not seen here"
            ),
            "mount --make-rshared / on the host, and give the driver's pod Bidirectional propagation there",
        ),
        Err(e) => fail(
            CHECK,
            e.full_message(),
            "make the directory; it belongs to root",
        ),
    }
}

fn state_dir(facts: &Facts) -> Finding {
    const CHECK: &str = "state directory";
    let dir = facts.config.node.state_dir.display();
    let place = match &facts.state_dir {
        Ok(place) => place,
        Err(e) => {
            return fail(
                CHECK,
                e.full_message(),
                "make the directory; it belongs to root",
            );
        }
    };
    let kind = &place.fs_type;
    let fix = "set node.state_dir to a directory on a disk of this machine";
    if FLEETING.contains(&kind.as_str()) {
        let what = format!("{dir} is on {kind}: a reboot loses who holds which volume");
        return fail(CHECK, what, fix);
    }
    if DOUBTFUL.iter().any(|d| kind.starts_with(d)) {
        let what = format!("{dir} is on {kind}, which may not keep what was synced");
        return warn(CHECK, what, fix);
    }
    ok(CHECK, format!("{dir} is on {kind}"))
}

fn sight(facts: &Facts) -> Finding {
    const CHECK: &str = "processes";
    const FIX: &str = "run the daemon in the host's process namespace (hostPID), and let runtime.cri_socket be the runtime's";
    let problem: Result<(), String> = match status(facts) {
        Some(status) if status.no_sight.is_empty() => Ok(()),
        Some(status) => Err(status.no_sight.clone()),
        None if facts.config.runtime.cri().is_none() => Ok(()),
        None => facts.sight.as_ref().copied().map_err(|e| e.full_message()),
    };
    match problem {
        Ok(()) => ok(CHECK, "the runtime's processes are in sight"),
        Err(why) => fail(CHECK, why, FIX),
    }
}

fn left_overs(facts: &Facts) -> Vec<Finding> {
    const CHECK: &str = "left-overs";
    let mut findings = Vec::new();
    for (hash, why) in status(facts).map(|s| &s.unreadable).into_iter().flatten() {
        findings.push(fail(
            CHECK,
            format!("record {hash} cannot be read, so its volume is never released: {why}"),
            "restore the file from a backup; or see by hand that nothing of that volume is mounted or used here, then move it away and restart the daemon",
        ));
    }
    for scope in status(facts).map(|s| &s.uncertain).into_iter().flatten() {
        findings.push(warn(
            CHECK,
            format!("it is not certain whether the runtime still has {scope}"),
            "see that the runtime answers and that runtime.cri_socket names it; what is published there stays until it is certain",
        ));
    }
    let strays = match status(facts) {
        Some(status) => Ok(&status.strays),
        None => facts.strays.as_ref(),
    };
    match strays {
        Err(e) => findings.push(warn(CHECK, e.full_message(), "")),
        Ok(strays) => findings.extend(strays.iter().map(|at| {
            warn(
                CHECK,
                format!("{at} is mounted below the mount root, and no record names it"),
                "see who made it; if nobody uses it, unmount it (umount, never lazily)",
            )
        })),
    }
    if findings.is_empty() {
        findings.push(ok(
            CHECK,
            "none: every mount has a record, and every record can be read",
        ));
    }
    findings
}

#[cfg(test)]
mod tests;
