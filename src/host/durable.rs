// SPDX-License-Identifier: Apache-2.0
//! Files and directories that are on disk when the call returns, and removals
//! that can not lose data.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::Path,
};

use super::crash::{self, CrashPoint};

/// Replaces the file's content: after a crash it is the old or the new one, whole.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let parent = parent(path)?;
    let temporary = path.with_extension("tmp");
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    crash::hit(CrashPoint::RecordWritten);
    fs::rename(&temporary, path)?;
    crash::hit(CrashPoint::RecordRenamed);
    sync_dir(parent)
}

/// Removes what a driver may have left at a target path: an empty directory or
/// an empty file, with nothing mounted there. Whatever has content stays, and is
/// an error.
pub fn remove_empty(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_file() && found.len() == 0 => {
            same_file_system(&found, path)?;
            fs::remove_file(path)
        }
        Ok(_) => remove_empty_dir(path),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(e),
    }
}

/// Removes the file; it is no error if there is none.
pub fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Ok(()) => sync_dir(parent(path)?),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(e),
    }
}

/// Makes the directory and its missing parents, mode 0700.
pub fn make_dir(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)?;
    sync_dir(parent(path)?)
}

/// Removes an empty directory that is not a mount point; it is no error if it
/// is not there. Whatever is in it stays, and is an error.
pub fn remove_empty_dir(path: &Path) -> io::Result<()> {
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(e),
    };
    same_file_system(&found, path)?;
    fs::remove_dir(path)
}

fn same_file_system(found: &fs::Metadata, path: &Path) -> io::Result<()> {
    if found.dev() == fs::symlink_metadata(parent(path)?)?.dev() {
        return Ok(());
    }
    Err(io::Error::other("another file system is mounted there"))
}

fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

fn parent(path: &Path) -> io::Result<&Path> {
    path.parent()
        .ok_or_else(|| io::Error::other("a path without a parent"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_leaves_nothing_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.json");
        write(&path, b"one").unwrap();
        write(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        remove(&path).unwrap();
        remove(&path).unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn a_directory_that_is_not_empty_stays_with_what_is_in_it() {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("d");
        make_dir(&inner).unwrap();
        fs::write(inner.join("data"), b"x").unwrap();
        assert!(remove_empty_dir(&inner).is_err());
        assert_eq!(fs::read(inner.join("data")).unwrap(), b"x");
        fs::remove_file(inner.join("data")).unwrap();
        remove_empty_dir(&inner).unwrap();
        remove_empty_dir(&inner).unwrap();
    }

    #[test]
    fn an_empty_file_goes_and_one_with_content_stays() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("f");
        fs::write(&file, b"x").unwrap();
        assert!(remove_empty(&file).is_err());
        assert_eq!(fs::read(&file).unwrap(), b"x");
        fs::write(&file, b"").unwrap();
        remove_empty(&file).unwrap();
        remove_empty(&file).unwrap();
        fs::create_dir(&file).unwrap();
        remove_empty(&file).unwrap();
        assert!(!file.exists());
    }
}
