// SPDX-License-Identifier: Apache-2.0
//! One daemon at a time on a directory. The kernel lets go of the lock when the
//! process ends, however it ends.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{self, Read, Seek, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

/// The directory, or the file, is this process's own until it is dropped.
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
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)?;
    match file.try_lock() {
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

    #[test]
    fn a_directory_is_locked_once_and_again_when_it_is_let_go() {
        let dir = tempfile::tempdir().unwrap();
        let Locked::Ours(first) = try_lock(dir.path()).unwrap() else {
            panic!("nobody has it");
        };
        let Locked::Held(holder) = try_lock(dir.path()).unwrap() else {
            panic!("it was locked twice");
        };
        assert_eq!(holder, std::process::id().to_string());
        drop(first);
        let again = try_lock(dir.path()).unwrap();
        assert!(matches!(again, Locked::Ours(_)));
    }

    #[test]
    fn a_directory_that_is_not_there_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        assert!(try_lock(&dir.path().join("none")).is_err());
    }
}
