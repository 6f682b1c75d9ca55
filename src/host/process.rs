// SPDX-License-Identifier: Apache-2.0
//! This host and the processes on it.

use std::{io, os::unix::net::UnixStream, path::Path};

use rustix::{
    io::Errno,
    process::{Pid, Signal, WaitOptions, kill_process, waitpid},
};

/// The host name.
pub fn hostname() -> String {
    rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned()
}

/// The user of this process, by which it is judged.
pub fn uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// When the process began, in ticks since the boot. With its id it names it once and for
/// all of this boot. None: there is none, or it has ended and waits for its parent.
pub fn start_time(pid: u32) -> io::Result<Option<u64>> {
    let stat = match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
        Err(e) if super::holders::gone(&e) => return Ok(None),
        read => read?,
    };
    if has_ended(&stat) {
        return Ok(None);
    }
    start_in(&stat).map(Some).ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("/proc/{pid}/stat is not understood"),
        )
    })
}

/// When a process began, by its `/proc/<pid>/stat`. None: it has ended, or that is not
/// understood.
pub(super) fn start_in(stat: &str) -> Option<u64> {
    // Field 22 of proc_pid_stat(5).
    let mut fields = after_name(stat).split(' ');
    fields.nth(19)?.parse().ok().filter(|_| !has_ended(stat))
}

fn has_ended(stat: &str) -> bool {
    matches!(after_name(stat).split(' ').next(), Some("Z" | "X"))
}

/// The fields from the third on: the name in parentheses may hold anything, also a
/// parenthesis.
fn after_name(stat: &str) -> &str {
    stat.rsplit_once(") ").map_or("", |(_, after)| after)
}

/// Asks the process to end, by SIGTERM.
pub fn terminate(pid: u32) -> io::Result<()> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or(io::ErrorKind::InvalidInput)?;
    Ok(kill_process(pid, Signal::TERM)?)
}

/// Takes children that have ended from the process table: those of them that are meant.
/// For a process of one thread: it sees that one's children.
pub fn reap(meant: impl Fn(u32) -> bool) -> io::Result<()> {
    let children = match std::fs::read_to_string("/proc/thread-self/children") {
        // A kernel that does not list them.
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        read => read?,
    };
    for child in children.split_whitespace() {
        let Ok(pid) = child.parse::<u32>() else {
            continue;
        };
        if meant(pid) {
            let number = Pid::from_raw(pid.cast_signed());
            match waitpid(number, WaitOptions::NOHANG) {
                Ok(_) | Err(Errno::CHILD) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }
    Ok(())
}

/// From now on files and directories get the mode that they are made with. Of the
/// whole process.
pub fn take_no_mode_away() {
    rustix::process::umask(rustix::fs::Mode::empty());
}

/// From now on the end of the thread that started this process is its own (SIGKILL).
pub fn end_with_parent() -> io::Result<()> {
    let end = Some(rustix::process::Signal::KILL);
    Ok(rustix::process::set_parent_process_death_signal(end)?)
}

/// The kernel's id of this boot; empty where it does not tell.
pub fn boot_id() -> String {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
    id.unwrap_or_default().trim().to_owned()
}

/// The process that listens on a unix socket; none if this process can not see
/// it, being in another process namespace.
pub fn listener_pid(socket: &Path) -> io::Result<Option<u32>> {
    let stream = UnixStream::connect(socket)?;
    // The kernel gives 0 for a process outside our namespace, which is no Pid.
    match rustix::net::sockopt::socket_peercred(&stream) {
        Ok(peer) => Ok(u32::try_from(peer.pid.as_raw_nonzero().get()).ok()),
        Err(e) => Err(e.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn what_has_ended_is_reaped_where_it_is_meant() {
        let mut kept = Command::new("sleep").arg("600").spawn().unwrap();
        let mut ended = Command::new("true").spawn().unwrap();
        let (kept_pid, ended_pid) = (kept.id(), ended.id());
        let is_there = |pid: u32| Path::new(&format!("/proc/{pid}")).exists();
        reap(|_| false).unwrap();
        assert!(is_there(ended_pid));
        while is_there(ended_pid) {
            reap(|pid| pid == ended_pid).unwrap();
        }
        assert!(ended.try_wait().is_err(), "it was reaped");
        assert!(is_there(kept_pid));
        terminate(kept_pid).unwrap();
        assert!(!kept.wait().unwrap().success());
        assert!(terminate(0).is_err());
    }
}
