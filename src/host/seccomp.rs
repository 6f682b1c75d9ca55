// SPDX-License-Identifier: Apache-2.0
//! The system calls that a process may make. Any other fails with ENOSYS, as on a
//! kernel that does not have it: a newer libc then goes its older way, and a process
//! that is asked for too much gets an error that it can tell, and lives.

mod calls;

use std::io;

use seccompiler::{BpfProgram, TargetArch};
use serde_json::{Value, json};

use super::privileges::Process;

/// What seccompiler names the filter by.
const NAME: &str = "filter";

/// ENOSYS, which is the same number on every architecture of Linux that is known here.
const ENOSYS: u32 = 38;

/// Lets the calling thread, and all that it starts, make the calls of this process
/// alone. Sets no_new_privs. Gives the number of calls.
pub fn install(process: Process) -> io::Result<usize> {
    let arch = arch()?;
    let calls = calls::of(process, arch);
    let filter = compile(&calls, arch)?;
    seccompiler::apply_filter(&filter).map_err(|e| {
        let why = "the kernel takes no filter of system calls (CONFIG_SECCOMP_FILTER)";
        io::Error::other(format!("{why}: {e}"))
    })?;
    Ok(calls.len())
}

/// The calls of this process on this machine.
pub fn calls(process: Process) -> io::Result<Vec<&'static str>> {
    Ok(calls::of(process, arch()?))
}

fn arch() -> io::Result<TargetArch> {
    let machine = std::env::consts::ARCH;
    TargetArch::try_from(machine)
        .map_err(|_| io::Error::other(format!("there is no list of system calls for {machine}")))
}

fn compile(calls: &[&'static str], arch: TargetArch) -> io::Result<BpfProgram> {
    let text = rules(calls).to_string();
    let mut filters =
        seccompiler::compile_from_json(text.as_bytes(), arch).map_err(io::Error::other)?;
    filters
        .remove(NAME)
        .ok_or_else(|| io::Error::other("the filter of system calls was not made"))
}

fn rules(calls: &[&'static str]) -> Value {
    let rules = calls.iter().flat_map(|call| match *call {
        "socket" => calls::SOCKET_FAMILIES
            .iter()
            .map(|family| only_if("socket", &json!("eq"), *family))
            .collect(),
        "clone" => {
            // Threads and processes, and no namespace.
            let masked = json!({ "masked_eq": calls::NEW_NAMESPACES });
            vec![only_if("clone", &masked, 0)]
        }
        call => vec![json!({ "syscall": call })],
    });
    json!({ NAME: {
        "match_action": "allow",
        "mismatch_action": { "errno": ENOSYS },
        "filter": rules.collect::<Vec<_>>(),
    }})
}

/// The call, if its first argument is so.
fn only_if(call: &str, op: &Value, value: u64) -> Value {
    json!({
        "syscall": call,
        "args": [{ "index": 0, "type": "dword", "op": op, "val": value }],
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_list_makes_a_filter_on_both_machines() {
        for arch in [TargetArch::x86_64, TargetArch::aarch64] {
            for process in Process::ALL {
                let calls = calls::of(process, arch);
                let once: HashSet<_> = calls.iter().collect();
                assert_eq!(once.len(), calls.len(), "{process}: a call stands twice");
                let filter =
                    compile(&calls, arch).unwrap_or_else(|e| panic!("{process} on {arch:?}: {e}"));
                // BPF programs have at most 4096 instructions.
                assert!(filter.len() < 4096, "{process}: {}", filter.len());
            }
        }
    }

    #[test]
    fn a_parent_may_make_the_calls_of_all_that_it_starts() {
        for arch in [TargetArch::x86_64, TargetArch::aarch64] {
            for parent in Process::ALL {
                let may = calls::of(parent, arch);
                for child in parent.parts() {
                    let of_child = calls::of(*child, arch).into_iter();
                    let lacking: Vec<_> = of_child.filter(|call| !may.contains(call)).collect();
                    assert!(lacking.is_empty(), "{child} of {parent}: {lacking:?}");
                }
            }
        }
    }

    #[test]
    fn what_takes_a_host_over_is_on_no_list() {
        let never = [
            "bpf",
            "delete_module",
            "finit_module",
            "fsopen",
            "init_module",
            "io_uring_setup",
            "kexec_load",
            "keyctl",
            "mknodat",
            "open_by_handle_at",
            "perf_event_open",
            "pivot_root",
            "process_vm_writev",
            "ptrace",
            "reboot",
            "swapon",
            "unshare",
            "userfaultfd",
            "clone3",
        ];
        for arch in [TargetArch::x86_64, TargetArch::aarch64] {
            for process in Process::ALL {
                let calls = calls::of(process, arch);
                let found: Vec<_> = never.iter().filter(|c| calls.contains(c)).collect();
                assert!(found.is_empty(), "{process}: {found:?}");
            }
        }
        for quiet in [Process::Node, Process::Control] {
            let calls = calls::of(quiet, TargetArch::x86_64);
            for call in ["mount", "move_mount", "umount2", "setns"] {
                assert!(!calls.contains(&call), "{quiet} mounts nothing");
            }
        }
    }

    /// In a thread of its own, which alone is limited.
    #[test]
    fn a_call_that_is_not_on_the_list_fails_and_nothing_dies() {
        std::thread::scope(|s| {
            let limited = s.spawn(|| {
                install(Process::Control).unwrap();
                let away = rustix::process::chroot("/").unwrap_err();
                assert_eq!(away, rustix::io::Errno::NOSYS);
                let raw = rustix::net::socket(
                    rustix::net::AddressFamily::PACKET,
                    rustix::net::SocketType::RAW,
                    None,
                );
                assert_eq!(raw.unwrap_err(), rustix::io::Errno::NOSYS);
                // What is on it goes on, threads and processes among it.
                std::thread::spawn(|| ()).join().unwrap();
                std::fs::read("/proc/self/status").unwrap();
            });
            limited.join().unwrap();
        });
    }
}
