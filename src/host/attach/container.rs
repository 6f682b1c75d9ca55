// SPDX-License-Identifier: Apache-2.0
//! A container that is entered, and what of it is held before.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    os::fd::{AsFd, OwnedFd},
    path::Path,
    sync::{Mutex, PoisonError},
};

use rustix::{
    fs::{Mode, OFlags, ResolveFlags, StatxAttributes},
    io::Errno,
    thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space},
};

use super::Target;
use crate::{
    error::{Error, Result},
    host::{
        mount::stat_mount,
        mountinfo::{self, Mount},
        process,
    },
};

const DIRECTORY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// By which doors it goes where it does not by this one.
const INSTEAD: &str =
    "use the wrapper (`actor-volumes runtime`) or `actor-volumes bundle inject` for it";

/// What is seen of a container from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    /// It has a user namespace of its own.
    pub maps_users: bool,
}

/// Who makes directories in the container: its root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

/// A container whose processes are in a mount namespace of their own.
pub(super) struct Container {
    pid: u32,
    /// `/proc/<pid>` of this very process: empty when it has ended.
    proc: OwnedFd,
    start_time: u64,
    namespace: OwnedFd,
    /// The root of its file system, in its namespace.
    pub(super) root: OwnedFd,
    /// Its mount table.
    table: Mutex<File>,
    /// Its user namespace, where it has one of its own, and its root there.
    pub(super) users: Option<(OwnedFd, Owner)>,
}

impl Container {
    pub(super) fn open(target: &Target) -> Result<Self> {
        let pid = target.pid;
        let failed = |what: &str, e: io::Error| {
            let text = format!("cannot look at the container's process {pid}: {what}");
            match e.kind() {
                io::ErrorKind::NotFound => ended(pid),
                io::ErrorKind::PermissionDenied => Error::denied(format!(
                    "{text}: it needs the privileges of the host's root; a rootless runtime cannot be served"
                ))
                .with_source(e),
                _ => Error::internal(text).with_source(e),
            }
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let proc = rustix::fs::open(format!("/proc/{pid}"), flags, Mode::empty())
            .map_err(|e| failed("/proc", e.into()))?;
        let read = |name: &str, flags: OFlags| {
            rustix::fs::openat(&proc, name, flags | OFlags::CLOEXEC, Mode::empty())
                .map_err(|e| failed(name, e.into()))
        };
        let namespace = read("ns/mnt", OFlags::RDONLY)?;
        let users = read("ns/user", OFlags::RDONLY)?;
        let table = read("mountinfo", OFlags::RDONLY)?;
        // All of it is of the process that was meant: the directory is of no other one.
        let container = Self {
            pid,
            start_time: target.start_time,
            root: read("root", DIRECTORY)?,
            namespace,
            table: Mutex::new(File::from(table)),
            users: None,
            proc,
        };
        container.still_there()?;
        container.is_no_sandbox()?;
        let own = |name: &str| {
            // Of this thread, which may have moved away from its process.
            let path = format!("/proc/thread-self/ns/{name}");
            rustix::fs::stat(&path).map_err(|e| failed(&path, e.into()))
        };
        let inode = |fd: &OwnedFd| {
            let found = rustix::fs::fstat(fd).map_err(|e| failed("its namespaces", e.into()))?;
            Ok::<_, Error>((found.st_dev, found.st_ino))
        };
        let here = own("mnt")?;
        if inode(&container.namespace)? == (here.st_dev, here.st_ino) {
            return Err(Error::precondition(format!(
                "the container's process {pid} has no mount namespace of its own, so that a volume would be mounted for the whole host: {INSTEAD}"
            )));
        }
        let here = own("user")?;
        let users = match inode(&users)? == (here.st_dev, here.st_ino) {
            true => None,
            false => Some((users, container.owner()?)),
        };
        let root = match &target.rootfs {
            None => None,
            Some(rootfs) => container.root_at(rootfs)?,
        };
        Ok(Self {
            root: root.unwrap_or(container.root),
            users,
            ..container
        })
    }

    pub(super) fn seen(&self) -> Look {
        Look {
            maps_users: self.users.is_some(),
        }
    }

    /// gVisor has the container in a kernel of its own, which never sees what is mounted
    /// after its start.
    fn is_no_sandbox(&self) -> Result<()> {
        let exe = rustix::fs::readlinkat(&self.proc, "exe", Vec::new());
        let name = exe.map(|exe| exe.to_string_lossy().into_owned());
        let name = name.unwrap_or_default();
        let file = Path::new(name.trim_end_matches(" (deleted)")).file_name();
        if !file.is_some_and(|file| file.as_encoded_bytes().starts_with(b"runsc")) {
            return Ok(());
        }
        Err(Error::unimplemented(format!(
            "the container is one of gVisor (process {} is {name}), which shows it nothing that is mounted after its start: {INSTEAD}",
            self.pid
        )))
    }

    /// The root file system in the container's namespace, as this host has it at the path.
    /// None: the root of the process is it already.
    fn root_at(&self, rootfs: &Path) -> Result<Option<OwnedFd>> {
        let shown = rootfs.display();
        let failed = |e: Errno| {
            Error::precondition(format!(
                "cannot open the container's root file system {shown}"
            ))
            .with_source(io::Error::from(e))
        };
        let here = rustix::fs::open(rootfs, DIRECTORY, Mode::empty()).map_err(failed)?;
        let wanted = rustix::fs::fstat(&here).map_err(failed)?;
        let is_it = |fd: &OwnedFd| {
            let found = rustix::fs::fstat(fd).map_err(failed)?;
            Ok::<_, Error>((found.st_dev, found.st_ino) == (wanted.st_dev, wanted.st_ino))
        };
        if is_it(&self.root)? {
            return Ok(None);
        }
        let below = rootfs.strip_prefix("/").unwrap_or(rootfs);
        let found = open_in(&self.root, below, DIRECTORY);
        if let Ok(found) = found
            && is_it(&found)?
        {
            let mount = stat_mount(&found, Path::new("")).map_err(unsupported)?;
            // Before the runtime has made it one, it is the host's directory.
            if mount.stx_attributes.contains(StatxAttributes::MOUNT_ROOT) {
                return Ok(Some(found));
            }
        }
        Err(Error::precondition(format!(
            "process {} does not have the root file system {shown} mounted in its namespace, so that a volume mounted there would not be seen in the container: {INSTEAD}",
            self.pid
        )))
    }

    /// Who is root in the container's user namespace.
    fn owner(&self) -> Result<Owner> {
        let id = |name: &str| {
            let failed = |e: io::Error| {
                Error::internal(format!(
                    "cannot read {name} of the container's process {}",
                    self.pid
                ))
                .with_source(e)
            };
            let file = rustix::fs::openat(
                &self.proc,
                name,
                OFlags::RDONLY | OFlags::CLOEXEC,
                Mode::empty(),
            );
            let mut text = String::new();
            File::from(file.map_err(|e| failed(e.into()))?)
                .read_to_string(&mut text)
                .map_err(failed)?;
            root_of(&text).ok_or_else(|| {
                Error::precondition(format!(
                    "the container's user namespace has no root ({name} of process {} maps none)",
                    self.pid
                ))
            })
        };
        Ok(Owner {
            uid: id("uid_map")?,
            gid: id("gid_map")?,
        })
    }

    /// Whether the process that was meant is there still.
    pub(super) fn still_there(&self) -> Result<()> {
        let mut text = String::new();
        let stat = rustix::fs::openat(
            &self.proc,
            "stat",
            OFlags::RDONLY | OFlags::CLOEXEC,
            Mode::empty(),
        );
        let read = stat
            .map_err(io::Error::from)
            .and_then(|stat| File::from(stat).read_to_string(&mut text));
        match read.map(|_| process::start_in(&text)) {
            Ok(Some(start)) if start == self.start_time => Ok(()),
            _ => Err(ended(self.pid)),
        }
    }

    /// Its mounts, from now.
    pub(super) fn mounts(&self) -> Result<Vec<Mount>> {
        let failed = |e: io::Error| {
            Error::internal("cannot read the container's mount table").with_source(e)
        };
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let mut bytes = Vec::new();
        table.seek(SeekFrom::Start(0)).map_err(failed)?;
        table.read_to_end(&mut bytes).map_err(failed)?;
        Ok(mountinfo::parse(&bytes))
    }

    /// Enters its mount namespace, for good. The file mode mask goes as well.
    #[allow(unsafe_code)]
    pub(super) fn enter(&self) -> Result<()> {
        let failed = |e: Errno| {
            let text = format!(
                "cannot enter the mount namespace of the container's process {}",
                self.pid
            );
            match e {
                Errno::PERM => Error::denied(format!(
                    "{text}: it needs CAP_SYS_ADMIN and CAP_SYS_CHROOT on the host; a rootless runtime cannot be served"
                )),
                e => Error::internal(text).with_source(io::Error::from(e)),
            }
        };
        // SAFETY: it takes nothing but the file system information (root, working
        // directory, file mode mask) from the other threads, which keep theirs.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::FS) }.map_err(failed)?;
        move_into_link_name_space(self.namespace.as_fd(), Some(LinkNameSpaceType::Mount))
            .map_err(failed)?;
        process::take_no_mode_away();
        Ok(())
    }
}

/// Opens what the path leads to from this root, and never out of it.
pub(super) fn open_in(root: &OwnedFd, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let path = match path.as_os_str().is_empty() {
        true => Path::new("."),
        false => path,
    };
    // The kernel asks for another try where something was moved meanwhile.
    loop {
        match rustix::fs::openat2(root, path, flags, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            found => return found,
        }
    }
}

/// An error of `stat_mount`.
pub(super) fn unsupported(e: io::Error) -> Error {
    Error::unimplemented("cannot tell what is mounted").with_source(e)
}

fn ended(pid: u32) -> Error {
    Error::precondition(format!("the container's process {pid} has ended"))
}

/// The id on the host that is 0 in a namespace with this map (user_namespaces(7)).
fn root_of(map: &str) -> Option<u32> {
    map.lines().find_map(|line| {
        let mut fields = line.split_whitespace().map(str::parse::<u32>);
        match (fields.next()?, fields.next()?, fields.next()?) {
            (Ok(0), Ok(outside), Ok(1..)) => Some(outside),
            _ => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_of_a_user_namespace_is_found_in_its_map() {
        assert_eq!(root_of("         0     100000      65536\n"), Some(100_000));
        assert_eq!(root_of("1 5 6\n0 7 1\n"), Some(7));
        assert_eq!(root_of("1 5 6\n"), None);
        assert_eq!(root_of(""), None);
        assert_eq!(root_of("0 7 0\n"), None);
        assert_eq!(root_of("0 x 1\n"), None);
    }

    #[test]
    fn who_has_the_namespaces_of_the_host_or_has_ended_is_refused() {
        let pid = std::process::id();
        let target = |start_time| Target {
            pid,
            start_time,
            rootfs: None,
        };
        let started = process::start_time(pid).unwrap().unwrap();
        let refused = Container::open(&target(started)).err().unwrap();
        assert!(refused.full_message().contains("no mount namespace"));
        let other = Container::open(&target(started + 1)).err().unwrap();
        assert!(other.full_message().contains("has ended"));
    }

    #[test]
    fn no_link_leads_out_of_a_root() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        std::fs::create_dir_all(root.join("etc")).unwrap();
        for (name, to) in [
            ("absolute", "/etc"),
            ("above", "../../../../etc"),
            ("magic", "/proc/self/root/etc"),
        ] {
            std::os::unix::fs::symlink(to, root.join(name)).unwrap();
        }
        let fd = rustix::fs::open(&root, DIRECTORY, Mode::empty()).unwrap();
        let wanted = rustix::fs::stat(root.join("etc")).unwrap();
        for name in ["absolute", "above", "etc", "../../etc"] {
            let found = open_in(&fd, Path::new(name), DIRECTORY).unwrap();
            let found = rustix::fs::fstat(&found).unwrap();
            assert_eq!((found.st_dev, found.st_ino), (wanted.st_dev, wanted.st_ino));
        }
        assert_eq!(
            open_in(&fd, Path::new("magic"), DIRECTORY).unwrap_err(),
            Errno::NOENT
        );
        open_in(&fd, Path::new(""), DIRECTORY).unwrap();
    }
}
