// SPDX-License-Identifier: Apache-2.0
//! A FUSE file system that shows a directory, for as long as its process lives.

use std::{
    collections::HashMap,
    ffi::OsStr,
    fs::{self, File, Metadata, OpenOptions},
    io,
    os::unix::fs::{
        DirBuilderExt, FileExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown,
    },
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use fuser::{
    BsdFileFlags, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags,
    Generation, INodeNo, LockOwner, MountOption, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate,
    ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request,
    SessionACL, TimeOrNow, WriteFlags,
};

/// Nothing is cached: whoever asks needs the server.
const TTL: Duration = Duration::ZERO;

/// Shows `data` at `at` until it is unmounted.
pub fn serve_fuse(data: &Path, at: &Path) -> io::Result<()> {
    let mut config = Config::default();
    config.acl = SessionACL::All;
    config.mount_options = vec![
        MountOption::FSName(data.display().to_string()),
        MountOption::Subtype("testkit".into()),
        MountOption::DefaultPermissions,
    ];
    fuser::mount(Shown::of(data), at, &config)
}

/// The files that were met so far.
#[derive(Default)]
struct Table {
    paths: HashMap<u64, PathBuf>,
    open: HashMap<u64, File>,
    last: u64,
}

struct Shown(Mutex<Table>);

type Done<T> = Result<T, Errno>;

impl Shown {
    fn of(data: &Path) -> Self {
        let mut table = Table::default();
        table.paths.insert(INodeNo::ROOT.0, data.into());
        Self(Mutex::new(table))
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, ino: INodeNo) -> Done<PathBuf> {
        self.table().paths.get(&ino.0).cloned().ok_or(Errno::ENOENT)
    }

    fn child(&self, parent: INodeNo, name: &OsStr) -> Done<PathBuf> {
        Ok(self.path(parent)?.join(name))
    }

    /// What is at the path, which may be met from now on.
    fn entry(&self, path: &Path) -> Done<FileAttr> {
        let found = fs::symlink_metadata(path)?;
        self.table().paths.insert(found.ino(), path.into());
        Ok(attributes(INodeNo(found.ino()), &found))
    }

    fn attributes(&self, ino: INodeNo) -> Done<FileAttr> {
        Ok(attributes(ino, &fs::symlink_metadata(self.path(ino)?)?))
    }

    fn opened(&self, file: File) -> FileHandle {
        let mut table = self.table();
        table.last += 1;
        let number = table.last;
        table.open.insert(number, file);
        FileHandle(number)
    }

    fn file(&self, handle: FileHandle) -> Done<File> {
        let table = self.table();
        let file = table.open.get(&handle.0).ok_or(Errno::EBADF)?;
        Ok(file.try_clone()?)
    }

    fn rename(&self, from: &Path, to: &Path) -> Done<()> {
        fs::rename(from, to)?;
        for path in self.table().paths.values_mut() {
            if let Ok(below) = path.strip_prefix(from) {
                *path = if below.as_os_str().is_empty() {
                    to.into()
                } else {
                    to.join(below)
                };
            }
        }
        Ok(())
    }

    /// What a new file has: the caller's ids.
    fn own(request: &Request, path: &Path) -> Done<()> {
        Ok(chown(path, Some(request.uid()), Some(request.gid()))?)
    }
}

fn attributes(ino: INodeNo, found: &Metadata) -> FileAttr {
    let kind = found.file_type();
    let kind = match kind {
        _ if kind.is_dir() => FileType::Directory,
        _ if kind.is_symlink() => FileType::Symlink,
        _ if kind.is_fifo() => FileType::NamedPipe,
        _ if kind.is_socket() => FileType::Socket,
        _ => FileType::RegularFile,
    };
    let narrow = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
    FileAttr {
        ino,
        size: found.size(),
        blocks: found.blocks(),
        atime: found.accessed().unwrap_or(SystemTime::UNIX_EPOCH),
        mtime: found.modified().unwrap_or(SystemTime::UNIX_EPOCH),
        ctime: found.modified().unwrap_or(SystemTime::UNIX_EPOCH),
        crtime: SystemTime::UNIX_EPOCH,
        kind,
        perm: u16::try_from(found.mode() & 0o7777).expect("four octal digits fit"),
        nlink: narrow(found.nlink()),
        uid: found.uid(),
        gid: found.gid(),
        rdev: 0,
        blksize: narrow(found.blksize()),
        flags: 0,
    }
}

macro_rules! answer {
    ($reply:ident, $result:expr, $done:ident => $say:expr) => {
        let work = || -> Done<_> { $result };
        match work() {
            Ok($done) => $say,
            Err(errno) => $reply.error(errno),
        }
    };
}

impl Filesystem for Shown {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        answer!(reply, self.entry(&self.child(parent, name)?),
            found => reply.entry(&TTL, &found, Generation(0)));
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        answer!(reply, self.attributes(ino), found => reply.attr(&TTL, &found));
    }

    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        _: Option<TimeOrNow>,
        _: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        answer!(reply, {
            let path = self.path(ino)?;
            if let Some(size) = size {
                OpenOptions::new().write(true).open(&path)?.set_len(size)?;
            }
            if uid.is_some() || gid.is_some() {
                chown(&path, uid, gid)?;
            }
            if let Some(mode) = mode {
                fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
            }
            self.attributes(ino)
        }, found => reply.attr(&TTL, &found));
    }

    fn mkdir(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        reply: ReplyEntry,
    ) {
        answer!(reply, {
            let path = self.child(parent, name)?;
            fs::DirBuilder::new().mode(mode & !umask).create(&path)?;
            Self::own(request, &path)?;
            self.entry(&path)
        }, found => reply.entry(&TTL, &found, Generation(0)));
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        answer!(reply, Ok(fs::remove_file(self.child(parent, name)?)?), _done => reply.ok());
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        answer!(reply, Ok(fs::remove_dir(self.child(parent, name)?)?), _done => reply.ok());
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        answer!(reply, {
            if !flags.is_empty() {
                return Err(Errno::EINVAL);
            }
            self.rename(&self.child(parent, name)?, &self.child(new_parent, new_name)?)
        }, _done => reply.ok());
    }

    fn open(&self, _: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        answer!(reply, {
            // O_WRONLY and O_RDWR; the kernel has judged the permissions.
            let write = flags.0 & 3 != 0;
            let file = OpenOptions::new().read(true).write(write).open(self.path(ino)?)?;
            Ok(self.opened(file))
        }, handle => reply.opened(handle, FopenFlags::empty()));
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        _: i32,
        reply: ReplyCreate,
    ) {
        answer!(reply, {
            let path = self.child(parent, name)?;
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true).mode(mode & !umask);
            let file = options.open(&path)?;
            Self::own(request, &path)?;
            let found = self.entry(&path)?;
            Ok((found, self.opened(file)))
        }, made => reply.created(&TTL, &made.0, Generation(0), made.1, FopenFlags::empty()));
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        answer!(reply, {
            let mut buffer = vec![0; usize::try_from(size).unwrap_or(0)];
            let read = self.file(handle)?.read_at(&mut buffer, offset)?;
            buffer.truncate(read);
            Ok(buffer)
        }, buffer => reply.data(&buffer));
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        answer!(reply, {
            self.file(handle)?.write_all_at(data, offset)?;
            u32::try_from(data.len()).map_err(|_| Errno::EINVAL)
        }, written => reply.written(written));
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsync(&self, _: &Request, _: INodeNo, handle: FileHandle, _: bool, reply: ReplyEmpty) {
        answer!(reply, Ok(self.file(handle)?.sync_all()?), _done => reply.ok());
    }

    fn release(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        self.table().open.remove(&handle.0);
        reply.ok();
    }

    fn readdir(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        answer!(reply, {
            let mut names: Vec<_> = fs::read_dir(self.path(ino)?)?
                .map(|e| e.map(|e| e.file_name()))
                .collect::<Result<_, _>>()?;
            names.sort();
            let dots = [".", ".."].map(|d| (ino, FileType::Directory, d.into()));
            let mut all = Vec::from(dots);
            for name in names {
                let found = self.entry(&self.child(ino, &name)?)?;
                all.push((found.ino, found.kind, name));
            }
            Ok(all)
        }, all => {
            let rest = (1_u64..).zip(all).filter(|(next, _)| *next > offset);
            for (next, (ino, kind, name)) in rest {
                if reply.add(ino, next, kind, &name) {
                    break;
                }
            }
            reply.ok();
        });
    }

    fn statfs(&self, _: &Request, ino: INodeNo, reply: ReplyStatfs) {
        answer!(reply, {
            let path = self.path(ino)?;
            rustix::fs::statvfs(&path).map_err(|e| Errno::from(io::Error::from(e)))
        }, found => {
            let narrow = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
            reply.statfs(
                found.f_blocks,
                found.f_bfree,
                found.f_bavail,
                found.f_files,
                found.f_ffree,
                narrow(found.f_bsize),
                narrow(found.f_namemax),
                narrow(found.f_frsize),
            );
        });
    }
}
