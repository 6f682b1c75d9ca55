// SPDX-License-Identifier: Apache-2.0
//! Unix sockets whose file nobody else can open, not even for a moment.

use std::{io, os::unix::net::UnixListener, path::Path};

use rustix::{
    fs::Mode,
    net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType},
};

/// Connections that wait for their turn to be taken.
const BACKLOG: i32 = 512;

/// Listens on a new socket file of this mode.
///
/// The mode is set before the file exists: the kernel gives the file the mode of
/// the socket, less the umask. The umask itself belongs to the whole process, so
/// that it cannot be changed for one file.
pub fn listen(path: &Path, mode: u32) -> io::Result<UnixListener> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::fs::fchmod(&socket, Mode::from_raw_mode(mode))?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    // What the umask has taken away. It widens, if anything.
    rustix::fs::chmod(path, Mode::from_raw_mode(mode))?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(UnixListener::from(socket))
}

/// The user that this process acts as.
pub fn own_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

#[cfg(test)]
mod tests {
    use std::{
        os::unix::{fs::PermissionsExt, net::UnixStream},
        sync::atomic::{AtomicBool, Ordering},
    };

    use super::*;

    fn mode(path: &Path) -> Option<u32> {
        let found = std::fs::symlink_metadata(path).ok()?;
        Some(found.permissions().mode() & 0o777)
    }

    #[test]
    fn a_socket_never_has_another_mode_than_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let over = AtomicBool::new(false);
        let seen = std::thread::scope(|threads| {
            let watching = threads.spawn(|| {
                let mut seen = std::collections::BTreeSet::new();
                while !over.load(Ordering::Relaxed) {
                    seen.extend(mode(&path));
                }
                seen
            });
            for _ in 0..2000 {
                let listener = listen(&path, 0o600).unwrap();
                assert_eq!(mode(&path), Some(0o600));
                drop(listener);
                std::fs::remove_file(&path).unwrap();
            }
            over.store(true, Ordering::Relaxed);
            watching.join().unwrap()
        });
        assert!(seen.iter().all(|mode| *mode == 0o600), "{seen:?}");
        let _listener = listen(&path, 0o600).unwrap();
        UnixStream::connect(&path).unwrap();
        assert!(listen(&path, 0o600).is_err());
        let for_all = dir.path().join("for-all");
        let _listener = listen(&for_all, 0o666).unwrap();
        assert_eq!(mode(&for_all), Some(0o666), "whatever the umask");
    }
}
