// SPDX-License-Identifier: Apache-2.0
//! Images on loop devices, with ext4.

use std::{
    ffi::OsStr,
    fs::{self, File, OpenOptions},
    io::{self, Seek, SeekFrom},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use super::{mounted, tool};

/// Where ext4 has its superblock.
const SUPERBLOCK: u64 = 1024;

/// The image has at least this size; it is made if it is not there.
pub(super) fn grow(image: &Path, size: u64) -> io::Result<()> {
    if let Some(parent) = image.parent() {
        fs::create_dir_all(parent)?;
    }
    let file = OpenOptions::new().append(true).create(true).open(image)?;
    if file.metadata()?.len() < size {
        file.set_len(size)?;
    }
    Ok(())
}

/// The device of the image, if it has one.
pub(super) fn find(image: &Path) -> io::Result<Option<PathBuf>> {
    if !image.exists() {
        return Ok(None);
    }
    let found = tool("losetup", &[OsStr::new("-j"), image.as_os_str()])?;
    let device = found.lines().next().and_then(|l| l.split(':').next());
    Ok(device.map(PathBuf::from))
}

/// The device of the image, a new one if need be.
pub(super) fn of(image: &Path) -> io::Result<PathBuf> {
    if let Some(device) = find(image)? {
        return Ok(device);
    }
    let arguments = [
        OsStr::new("--find"),
        OsStr::new("--show"),
        image.as_os_str(),
    ];
    Ok(tool("losetup", &arguments)?.trim().into())
}

/// Takes the device away; the kernel waits with it for the last mount.
pub(super) fn release(image: &Path) -> io::Result<()> {
    match find(image)? {
        Some(device) => tool("losetup", &[OsStr::new("-d"), device.as_os_str()]).map(drop),
        None => Ok(()),
    }
}

/// Mounts the file system of the image, which is made at the first time.
pub(super) fn mount(
    image: &Path,
    at: &Path,
    (fs_type, flags): (&str, &[String]),
    midway: &dyn Fn() -> io::Result<()>,
) -> io::Result<()> {
    if !matches!(fs_type, "" | "ext4") {
        let text = format!("fs_type {fs_type}: there is only ext4");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    let device = of(image)?;
    match size_of_fs(image)? {
        None => tool(
            "mkfs.ext4",
            &[OsStr::new("-q"), OsStr::new("-F"), device.as_os_str()],
        ),
        // It grew while nobody had it: this needs no right to resize.
        Some((size, block)) if size + block <= fs::metadata(image)?.len() && !mounted(at)? => {
            tool("losetup", &[OsStr::new("-c"), device.as_os_str()])?;
            tool("resize2fs", &[OsStr::new("-f"), device.as_os_str()])
        }
        Some(_) => Ok(String::new()),
    }?;
    midway()?;
    if mounted(at)? {
        return Ok(());
    }
    let flags = [&["rw".to_owned()], flags].concat().join(",");
    let arguments = ["-n", "-t", "ext4", "-o", &flags].map(OsStr::new);
    tool(
        "mount",
        &[&arguments[..], &[device.as_os_str(), at.as_os_str()]].concat(),
    )
    .map(drop)
}

/// The size of the image's file system and of its blocks, if it has one.
fn size_of_fs(image: &Path) -> io::Result<Option<(u64, u64)>> {
    let mut block = [0; 64];
    File::open(image)?.read_exact_at(&mut block, SUPERBLOCK)?;
    if block[56..58] != [0x53, 0xef] {
        return Ok(None);
    }
    let number = |at: usize| {
        let bytes = block[at..at + 4].try_into().expect("four bytes are four");
        u64::from(u32::from_le_bytes(bytes))
    };
    let size = 1024 << number(24);
    Ok(Some((number(4) * size, size)))
}

/// Shows the device itself at the file.
pub(super) fn show(image: &Path, at: &Path, read_only: bool) -> io::Result<()> {
    let device = of(image)?;
    let mode = if read_only { "--setro" } else { "--setrw" };
    tool("blockdev", &[OsStr::new(mode), device.as_os_str()])?;
    if mounted(at)? {
        return Ok(());
    }
    Ok(rustix::mount::mount_bind(&device, at)?)
}

/// The device, and the file system if it is mounted, take the image's new size.
pub(super) fn grow_seen(
    image: &Path,
    at: &Path,
    midway: &dyn Fn() -> io::Result<()>,
) -> io::Result<()> {
    let device = of(image)?;
    tool("losetup", &[OsStr::new("-c"), device.as_os_str()])?;
    midway()?;
    if at.is_dir() {
        tool("resize2fs", &[device.as_os_str()])?;
    }
    Ok(())
}

/// How large a device is.
pub(super) fn size(device: &Path) -> io::Result<u64> {
    File::open(device)?.seek(SeekFrom::End(0))
}
