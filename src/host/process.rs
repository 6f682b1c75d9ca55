// SPDX-License-Identifier: Apache-2.0
//! This host and the processes on it.

use std::{io, os::unix::net::UnixStream, path::Path};

/// The host name.
pub fn hostname() -> String {
    rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned()
}

/// The user whose rights this process has.
pub fn uid() -> u32 {
    rustix::process::geteuid().as_raw()
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
