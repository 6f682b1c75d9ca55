// SPDX-License-Identifier: Apache-2.0
//! Processes that live no longer than the one that starts them, whatever ends it.

use std::{
    io,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::process::CommandExt,
    },
    process::Command,
};

use rustix::{
    io::{FdFlags, fcntl_setfd},
    process::{Pid, Signal, getppid, set_parent_process_death_signal},
};

/// What starts this program as a part of itself leaves its process id here.
const PARENT: &str = "ACTOR_VOLUMES_PARENT";

/// The kernel kills what the command starts when the thread that starts it ends: it must
/// be one that lives as long as its process, such as the only one.
///
/// The child learns by its standard input as well, which is to be a pipe that nothing is
/// ever written to: see [`parent`].
#[allow(unsafe_code)]
pub fn tie(command: &mut Command) {
    let parent = rustix::process::getpid();
    command.env(PARENT, parent.as_raw_nonzero().to_string());
    let tied = move || {
        set_parent_process_death_signal(Some(Signal::KILL))?;
        // It may have ended before: then no signal comes.
        match getppid() {
            Some(now) if now == parent => Ok(()),
            _ => Err(io::ErrorKind::BrokenPipe.into()),
        }
    };
    // SAFETY: it makes system calls alone, allocates nothing and takes no lock.
    unsafe { command.pre_exec(tied) };
}

/// What the command starts has the descriptor too, by the same number. It is closed here
/// when the command is dropped.
#[allow(unsafe_code)]
pub fn hand_on(command: &mut Command, descriptor: OwnedFd) {
    let kept = move || Ok(fcntl_setfd(descriptor.as_fd(), FdFlags::empty())?);
    // SAFETY: as above; the descriptor is open as long as the command has it.
    unsafe { command.pre_exec(kept) };
}

/// Whether what started this process has tied it to itself.
pub fn is_tied() -> bool {
    parent().is_some()
}

/// The end of a pipe that ends with the process that started this one, where it was
/// [tied](tie) to it.
pub fn parent() -> Option<OwnedFd> {
    let named = std::env::var(PARENT).ok()?.parse().ok();
    // What this process starts in turn has the variable too, and another parent.
    if named.and_then(Pid::from_raw) != getppid() {
        return None;
    }
    io::stdin().as_fd().try_clone_to_owned().ok()
}

/// The number by which a child is told of a descriptor.
pub fn number(descriptor: &OwnedFd) -> i32 {
    descriptor.as_raw_fd()
}

#[cfg(test)]
mod tests {
    use std::{io::Read, os::unix::net::UnixStream, process::Stdio};

    use super::*;

    #[test]
    fn a_child_gets_the_descriptor_that_is_handed_on_and_no_other() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let descriptor = OwnedFd::from(theirs);
        let name = |n: i32| std::fs::read_link(format!("/proc/self/fd/{n}")).unwrap();
        let (handed_on, kept) = (name(number(&descriptor)), name(ours.as_raw_fd()));
        // Not by the shell: it may know numbers of one digit alone.
        let mut command = Command::new("ls");
        let number = number(&descriptor);
        command.args(["-l", "/proc/self/fd"]).stdout(Stdio::piped());
        tie(&mut command);
        hand_on(&mut command, descriptor);
        let mut child = command.spawn().unwrap();
        drop(command);
        assert!(child.wait().unwrap().success());
        let mut listed = String::new();
        child.stdout.unwrap().read_to_string(&mut listed).unwrap();
        // By name: other tests of this process may leave something to their children.
        let handed_on = format!(" {number} -> {}\n", handed_on.display());
        assert!(listed.contains(&handed_on), "{listed}");
        assert!(!listed.contains(kept.to_str().unwrap()), "{listed}");
        // The copy here went with the command.
        assert_eq!((&ours).read(&mut [0]).unwrap(), 0);
    }

    #[test]
    fn what_was_started_by_others_has_no_parent_to_live_with() {
        assert!(parent().is_none());
    }
}
