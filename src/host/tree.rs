// SPDX-License-Identifier: Apache-2.0
//! Removing a directory tree that others may have filled.

use std::{
    ffi::{CStr, CString, OsStr},
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, Dir, FileType, Mode, OFlags, RenameFlags, openat, renameat_with, unlinkat},
    io::Errno,
};

use super::mount::stat_mount;

/// Removes the directory `name` of `parent` with everything in it; one that is
/// not there is success.
///
/// Works by descriptors and never follows a symlink. It refuses to touch
/// another mount: the error is EXDEV and names the path. Subdirectories are
/// moved up to the top before they are emptied, so that neither depth nor the
/// number of descriptors grows with the tree. What was removed before an error
/// stays removed.
pub fn remove_tree(parent: impl AsFd, name: &OsStr) -> io::Result<()> {
    let parent = parent.as_fd();
    let home = stat_mount(parent, Path::new(""))?.stx_mnt_id;
    let shown = PathBuf::from(name);
    let top = match open_dir(parent, name) {
        Ok(top) => top,
        Err(Errno::NOENT) => return Ok(()),
        Err(e) => return Err(named(e, &shown)),
    };
    let mut job = Job {
        top,
        home,
        moved: 0,
        waiting: Vec::new(),
    };
    job.same_mount(&job.top, &shown)?;
    job.empty(None, &shown)?;
    while let Some((name, shown)) = job.waiting.pop() {
        let dir = open_dir(&job.top, os(&name)).map_err(|e| named(e, &shown))?;
        job.same_mount(&dir, &shown)?;
        job.empty(Some(&dir), &shown)?;
        drop(dir);
        unlinkat(&job.top, &name, AtFlags::REMOVEDIR).map_err(|e| named(e, &shown))?;
    }
    unlinkat(parent, name, AtFlags::REMOVEDIR).map_err(|e| named(e, &shown))
}

struct Job {
    top: OwnedFd,
    /// The mount that must not be left.
    home: u64,
    /// How many names were given out.
    moved: u64,
    /// Directories of `top` that are to be emptied, and what they were called.
    waiting: Vec<(CString, PathBuf)>,
}

impl Job {
    fn same_mount(&self, dir: &OwnedFd, shown: &Path) -> io::Result<()> {
        if stat_mount(dir, Path::new(""))?.stx_mnt_id == self.home {
            return Ok(());
        }
        Err(named(Errno::XDEV, shown))
    }

    /// Unlinks what is no directory; directories wait. `None`: the top itself.
    fn empty(&mut self, dir: Option<&OwnedFd>, shown: &Path) -> io::Result<()> {
        // All names first: a directory that changes while it is read may skip some.
        let mut entries = Vec::new();
        for entry in Dir::read_from(dir.unwrap_or(&self.top)).map_err(|e| named(e, shown))? {
            let entry = entry.map_err(|e| named(e, shown))?;
            let name = entry.file_name();
            if name != c"." && name != c".." {
                entries.push((name.to_owned(), entry.file_type()));
            }
        }
        for (name, kind) in entries {
            let path = shown.join(os(&name));
            let is_dir = kind == FileType::Directory || {
                let from = dir.unwrap_or(&self.top);
                match unlinkat(from, &name, AtFlags::empty()) {
                    Ok(()) | Err(Errno::NOENT) => false,
                    // Some file systems do not tell the kind of an entry.
                    Err(Errno::ISDIR | Errno::PERM) if is_directory(from, &name)? => true,
                    Err(e) => return Err(named(e, &path)),
                }
            };
            if !is_dir {
                continue;
            }
            let waiting = match dir {
                None => name,
                Some(dir) => self.move_up(dir, &name, &path)?,
            };
            self.waiting.push((waiting, path));
        }
        Ok(())
    }

    /// Moves a directory to the top, under a name that is free there.
    fn move_up(&mut self, dir: &OwnedFd, name: &CStr, shown: &Path) -> io::Result<CString> {
        // A mount point can not be moved, and must be named as what it is.
        let found = stat_mount(dir, Path::new(os(name)))?;
        if found.stx_mnt_id != self.home {
            return Err(named(Errno::XDEV, shown));
        }
        loop {
            self.moved += 1;
            let free = CString::new(format!(".removing-{}", self.moved))?;
            match renameat_with(dir, name, &self.top, &free, RenameFlags::NOREPLACE) {
                Ok(()) => return Ok(free),
                Err(Errno::EXIST) => {}
                Err(e) => return Err(named(e, shown)),
            }
        }
    }
}

fn open_dir(at: impl AsFd, name: &OsStr) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(at, name, flags, Mode::empty())
}

fn is_directory(at: &OwnedFd, name: &CStr) -> io::Result<bool> {
    let found = stat_mount(at, Path::new(os(name)))?;
    Ok(FileType::from_raw_mode(found.stx_mode.into()) == FileType::Directory)
}

fn os(name: &CStr) -> &OsStr {
    OsStr::from_bytes(name.to_bytes())
}

fn named(error: Errno, path: &Path) -> io::Error {
    let kind = io::Error::from(error).kind();
    let why = match error {
        Errno::XDEV => "another file system is mounted here: unmount it first".to_owned(),
        other => other.to_string(),
    };
    io::Error::new(kind, format!("cannot remove {}: {why}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    fn parent(path: &Path) -> fs::File {
        fs::File::open(path).unwrap()
    }

    #[test]
    fn a_tree_goes_with_everything_in_it() {
        let dir = tempfile::tempdir().unwrap();
        let top = dir.path().join("t");
        fs::create_dir_all(top.join("a/b/c")).unwrap();
        fs::create_dir_all(top.join("a/.removing-1")).unwrap();
        fs::create_dir_all(top.join(".removing-1/x")).unwrap();
        for file in ["f", "a/f", "a/b/c/f", ".removing-1/x/f"] {
            fs::write(top.join(file), "x").unwrap();
        }
        remove_tree(parent(dir.path()), OsStr::new("t")).unwrap();
        assert!(!top.exists());
        remove_tree(parent(dir.path()), OsStr::new("t")).unwrap();
    }

    #[test]
    fn symlinks_are_removed_and_never_followed() {
        let dir = tempfile::tempdir().unwrap();
        let kept = dir.path().join("kept");
        fs::create_dir(&kept).unwrap();
        fs::write(kept.join("data"), "x").unwrap();
        fs::create_dir_all(dir.path().join("t/sub")).unwrap();
        symlink(&kept, dir.path().join("t/sub/link")).unwrap();
        symlink(&kept, dir.path().join("top")).unwrap();
        remove_tree(parent(dir.path()), OsStr::new("t")).unwrap();
        assert!(remove_tree(parent(dir.path()), OsStr::new("top")).is_err());
        assert_eq!(fs::read(kept.join("data")).unwrap(), b"x");
        assert!(!dir.path().join("t").exists());
    }

    #[test]
    fn depth_costs_neither_stack_nor_descriptors() {
        let dir = tempfile::tempdir().unwrap();
        let mut at = parent(dir.path());
        // Deeper than any path may be long, and than descriptors last.
        for _ in 0..3000 {
            rustix::fs::mkdirat(&at, "d", Mode::RWXU).unwrap();
            at = open_dir(&at, OsStr::new("d")).unwrap().into();
        }
        drop(at);
        remove_tree(parent(dir.path()), OsStr::new("d")).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
