// SPDX-License-Identifier: Apache-2.0
//! Another content for a file that is somebody else's: it keeps its owner, mode and
//! label, and is the old or the new one, whole, at any moment.

use std::{
    ffi::OsString,
    fs::File,
    io::{self, Read, Write},
    os::fd::OwnedFd,
    path::Path,
};

use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags, Stat, XattrFlags},
    io::Errno,
};

const LABEL: &str = "security.selinux";

/// A file that may be replaced.
pub struct Original {
    directory: OwnedFd,
    name: OsString,
    file: File,
    found: Stat,
}

impl Original {
    /// Opens the file, which must be a regular one and no symbolic link.
    pub fn open(path: &Path) -> io::Result<Self> {
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let parent = match path.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(parent, flags, Mode::empty())?;
        // What is no file is not waited for, nor set going.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match rustix::fs::openat(&directory, name, flags, Mode::empty()) {
            Err(Errno::LOOP) => return Err(io::Error::other("it is a symbolic link")),
            opened => opened?,
        };
        let found = rustix::fs::fstat(&file)?;
        if FileType::from_raw_mode(found.st_mode) != FileType::RegularFile {
            return Err(io::Error::other("it is no regular file"));
        }
        Ok(Self {
            directory,
            name: name.to_owned(),
            file: file.into(),
            found,
        })
    }

    /// Its content, if that has no more bytes.
    pub fn read(&self, at_most: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        // One byte more tells that there is more.
        (&self.file).take(at_most + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > at_most {
            return Err(io::Error::other(format!(
                "it has more than {at_most} bytes"
            )));
        }
        Ok(bytes)
    }

    /// Puts these bytes in its place; they are on disk when the call returns.
    pub fn replace(self, bytes: &[u8]) -> io::Result<()> {
        let mut temporary = OsString::from(".");
        temporary.push(&self.name);
        temporary.push(".actor-volumes");
        match rustix::fs::unlinkat(&self.directory, &temporary, AtFlags::empty()) {
            // Somebody who was killed has left it.
            Ok(()) | Err(Errno::NOENT) => {}
            Err(e) => return Err(e.into()),
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let new = rustix::fs::openat(&self.directory, &temporary, flags, Mode::RUSR | Mode::WUSR)?;
        let done = self.fill(new.into(), bytes).and_then(|()| {
            let now = rustix::fs::statat(&self.directory, &self.name, AtFlags::SYMLINK_NOFOLLOW)?;
            if (now.st_dev, now.st_ino) != (self.found.st_dev, self.found.st_ino) {
                return Err(io::Error::other("somebody else has replaced it meanwhile"));
            }
            let to = &self.directory;
            rustix::fs::renameat(to, &temporary, to, &self.name)?;
            Ok(rustix::fs::fsync(to)?)
        });
        if done.is_err() {
            // The failure is what matters; whoever comes next takes it away.
            let _ = rustix::fs::unlinkat(&self.directory, &temporary, AtFlags::empty());
        }
        done
    }

    fn fill(&self, mut new: File, bytes: &[u8]) -> io::Result<()> {
        use std::os::unix::fs::fchown;
        fchown(&new, Some(self.found.st_uid), Some(self.found.st_gid))?;
        rustix::fs::fchmod(&new, Mode::from_raw_mode(self.found.st_mode))?;
        let mut label = vec![0; 4096];
        match rustix::fs::fgetxattr(&self.file, LABEL, &mut label) {
            Ok(length) => {
                let label = &label[..length];
                rustix::fs::fsetxattr(&new, LABEL, label, XattrFlags::empty())?;
            }
            // No label, or no labels at all.
            Err(Errno::NODATA | Errno::OPNOTSUPP) => {}
            Err(e) => return Err(e.into()),
        }
        new.write_all(bytes)?;
        new.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{self, Permissions},
        os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    };

    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_keeps_its_mode() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        fs::write(&path, "old").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        // Of somebody who was killed.
        fs::write(dir.path().join(".config.json.actor-volumes"), "half").unwrap();
        let original = Original::open(&path).unwrap();
        assert_eq!(original.read(3).unwrap(), b"old");
        original.replace(b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o640);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        let error = Original::open(&path).unwrap().read(2).unwrap_err();
        assert!(error.to_string().contains("more than 2 bytes"), "{error}");
    }

    #[test]
    fn what_is_not_the_file_itself_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        fs::write(dir.path().join("elsewhere"), "x").unwrap();
        symlink("elsewhere", &path).unwrap();
        let refused = |why: &str| {
            let error = Original::open(&path).err().unwrap().to_string();
            assert!(error.contains(why), "{error}");
        };
        refused("symbolic link");
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        refused("no regular file");
        fs::remove_dir(&path).unwrap();
        refused("No such file");

        fs::write(&path, "one").unwrap();
        let original = Original::open(&path).unwrap();
        fs::write(dir.path().join("two"), "two").unwrap();
        fs::rename(dir.path().join("two"), &path).unwrap();
        let error = original.replace(b"new").unwrap_err();
        assert!(error.to_string().contains("meanwhile"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }
}
