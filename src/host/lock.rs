// SPDX-License-Identifier: Apache-2.0
//! One daemon of a kind at a time on a directory. The kernel lets go of the lock when the
//! process ends, however it ends.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{self, Read, Seek, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

/// What was locked is this process's until it is dropped.
#[derive(Debug)]
pub struct DirLock {
    _file: File,
}

/// Who has it now.
#[derive(Debug)]
pub enum Locked {
    /// This process.
    Ours(DirLock),
    /// Another one: its process id, as it wrote it.
    Held(String),
}

/// Takes the lock of the directory, `<dir>/lock`, if nobody has it.
pub fn try_lock(dir: &Path) -> io::Result<Locked> {
    try_lock_file(&dir.join("lock"))
}

/// Takes the lock of this file, which is made, if nobody has it.
pub fn try_lock_file(path: &Path) -> io::Result<Locked> {
    take(path, |file| file.try_lock())
}

/// Takes the lock of one kind of process on the directory, `<dir>/<role>.lock`, if nobody
/// has it. Other kinds may have the directory at the same time.
pub fn try_lock_as(dir: &Path, role: &str) -> io::Result<Locked> {
    try_lock_file(&dir.join(format!("{role}.lock")))
}

/// Keeps out whoever takes the whole directory by [`try_lock`].
pub fn try_share(dir: &Path) -> io::Result<Locked> {
    take(&dir.join("lock"), |file| file.try_lock_shared())
}

fn take(path: &Path, lock: impl FnOnce(&File) -> Result<(), TryLockError>) -> io::Result<Locked> {
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)?;
    match lock(&file) {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            file.take(32).read_to_string(&mut holder)?;
            return Ok(Locked::Held(holder.trim().to_owned()));
        }
        Err(TryLockError::Error(error)) => return Err(error),
    }
    // For people: the lock does not hang on it.
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())?;
    Ok(Locked::Ours(DirLock { _file: file }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ours(locked: io::Result<Locked>) -> DirLock {
        match locked.unwrap() {
            Locked::Ours(lock) => lock,
            Locked::Held(holder) => panic!("{holder} has it"),
        }
    }

    fn held(locked: io::Result<Locked>) -> String {
        match locked.unwrap() {
            Locked::Ours(_) => panic!("it was locked twice"),
            Locked::Held(holder) => holder,
        }
    }

    #[test]
    fn a_directory_is_locked_once_and_again_when_it_is_let_go() {
        let dir = tempfile::tempdir().unwrap();
        let first = ours(try_lock(dir.path()));
        assert_eq!(held(try_lock(dir.path())), std::process::id().to_string());
        drop(first);
        ours(try_lock(dir.path()));
    }

    #[test]
    fn processes_of_other_kinds_share_a_directory_and_an_older_daemon_has_it_alone() {
        let dir = tempfile::tempdir().unwrap();
        let older = ours(try_lock(dir.path()));
        held(try_share(dir.path()));
        drop(older);
        let shared = (ours(try_share(dir.path())), ours(try_share(dir.path())));
        held(try_lock(dir.path()));
        let control = ours(try_lock_as(dir.path(), "control"));
        held(try_lock_as(dir.path(), "control"));
        ours(try_lock_as(dir.path(), "node"));
        drop((shared, control));
        ours(try_lock(dir.path()));
    }

    #[test]
    fn a_directory_that_is_not_there_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        assert!(try_lock(&dir.path().join("none")).is_err());
        assert!(try_lock_as(&dir.path().join("none"), "node").is_err());
    }
}
