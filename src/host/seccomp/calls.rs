// SPDX-License-Identifier: Apache-2.0
//! The lists. They were measured with glibc and musl: docs/security.md says how.

use seccompiler::TargetArch;

use crate::host::privileges::Process;

/// AF_UNIX, AF_INET, AF_INET6, and AF_NETLINK, by which libc asks which addresses this
/// host has when it resolves a name.
pub(super) const SOCKET_FAMILIES: [u64; 4] = [1, 2, 10, 16];

/// CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUTS, CLONE_NEWIPC, CLONE_NEWUSER,
/// CLONE_NEWPID and CLONE_NEWNET. clone3 hands its flags over in memory, where no filter
/// reads: it is on no list, and libc takes clone instead.
pub(super) const NEW_NAMESPACES: u64 = 0x7e02_0000;

/// What every process does: memory, threads, time, signals, and its end.
const RUNS: &[&str] = &[
    "brk",
    "clock_getres",
    "clock_gettime",
    "clock_nanosleep",
    "clone",
    "exit",
    "exit_group",
    "futex",
    "get_robust_list",
    "getegid",
    "geteuid",
    "getgid",
    "getpid",
    "getppid",
    "getrandom",
    "getresgid",
    "getresuid",
    "getrlimit",
    "getrusage",
    "gettid",
    "getuid",
    "madvise",
    "membarrier",
    "mmap",
    "mprotect",
    "mremap",
    "munmap",
    "nanosleep",
    "prctl",
    "prlimit64",
    "restart_syscall",
    "rseq",
    "rt_sigaction",
    "rt_sigprocmask",
    "rt_sigreturn",
    "sched_getaffinity",
    "sched_yield",
    "set_robust_list",
    "set_tid_address",
    "sigaltstack",
    "sysinfo",
    "tgkill",
    "tkill",
    "uname",
];

/// Files and directories.
const FILES: &[&str] = &[
    "chdir",
    "close",
    "close_range",
    "copy_file_range",
    "dup",
    "dup3",
    "faccessat",
    "faccessat2",
    "fallocate",
    "fchdir",
    "fchmod",
    "fchmodat",
    "fcntl",
    "fdatasync",
    "flock",
    "fstat",
    "fstatfs",
    "fsync",
    "ftruncate",
    "getcwd",
    "getdents64",
    "ioctl",
    "linkat",
    "lseek",
    "mkdirat",
    "newfstatat",
    "openat",
    "pread64",
    "preadv",
    "pwrite64",
    "pwritev",
    "read",
    "readlinkat",
    "readv",
    "renameat",
    "renameat2",
    "statfs",
    "statx",
    "umask",
    "unlinkat",
    "write",
    "writev",
];

/// Waiting for what happens, and sockets.
const TALKS: &[&str] = &[
    "accept",
    "accept4",
    "bind",
    "connect",
    "epoll_create1",
    "epoll_ctl",
    "epoll_pwait",
    "epoll_pwait2",
    "eventfd2",
    "getpeername",
    "getsockname",
    "getsockopt",
    "listen",
    "pipe2",
    "ppoll",
    "recvfrom",
    "recvmmsg",
    "recvmsg",
    "sendmmsg",
    "sendmsg",
    "sendto",
    "setsockopt",
    "shutdown",
    "socket",
    "socketpair",
];

/// The same of calls that newer machines have under other names alone.
const OF_X86_64: &[&str] = &[
    "access",
    "arch_prctl",
    "chmod",
    "dup2",
    "epoll_create",
    "epoll_wait",
    "getdents",
    "link",
    "lstat",
    "mkdir",
    "open",
    "pipe",
    "poll",
    "readlink",
    "rename",
    "rmdir",
    "select",
    "stat",
    "time",
    "unlink",
];

/// Starting another of our processes, which then gives up what it does not need.
const STARTS: &[&str] = &[
    "capget",
    "capset",
    "execve",
    "kill",
    "pidfd_open",
    "pidfd_send_signal",
    "seccomp",
    "setpgid",
    "setsid",
    "wait4",
    "waitid",
];

/// The same, under another name.
const STARTS_ON_X86_64: &[&str] = &["fork", "vfork"];

/// Giving a directory to a group.
const GIVES: &[&str] = &["fchown", "fchownat"];

/// Finding a directory without following a link.
const FINDS: &[&str] = &["openat2"];

/// Mapping the owners of a mount.
const MAPS: &[&str] = &["mount_setattr"];

/// Mounting and unmounting.
const MOUNTS: &[&str] = &["mount", "move_mount", "open_tree", "umount2"];

/// The calls of a process on this machine, each once.
pub(super) fn of(process: Process, arch: TargetArch) -> Vec<&'static str> {
    let x86_64 = matches!(arch, TargetArch::x86_64);
    let mut lists = vec![RUNS, FILES, TALKS];
    lists.extend(x86_64.then_some(OF_X86_64));
    let parts = process.parts();
    if parts.contains(&Process::Helper) {
        lists.extend([GIVES, FINDS, MAPS]);
    }
    if parts.contains(&Process::Helper) || parts.contains(&Process::LocalDriver) {
        lists.push(MOUNTS);
    }
    // The helper has a process for each deed.
    if parts.contains(&Process::Helper) {
        lists.push(STARTS);
        lists.extend(x86_64.then_some(STARTS_ON_X86_64));
    }
    lists.concat()
}
