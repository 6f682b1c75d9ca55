// SPDX-License-Identifier: Apache-2.0
//! Files of keys.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Read},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use zeroize::Zeroizing;

use super::{PrivateKey, PublicKey};
use crate::{
    error::{Error, Result},
    host::durable,
};

/// A key in PEM has some hundred bytes.
const MAX_BYTES: u64 = 16 * 1024;

/// So many files of a directory are looked at.
const MAX_FILES: usize = 256;

/// The ending of every file of a key.
const PEM: &str = "pem";

/// What was found at the paths of public keys.
pub(super) type PublicFiles = BTreeMap<PathBuf, Result<PublicKey, String>>;

/// Reads a private key, which nobody but its owner may read.
pub(super) fn read_private(path: &Path) -> Result<PrivateKey> {
    let shown = path.display();
    let failed = |e: io::Error| {
        let text = format!("cannot read the signing key {shown}");
        match e.kind() {
            io::ErrorKind::NotFound => Error::not_found(text),
            _ => Error::precondition(text),
        }
        .with_source(e)
    };
    let (text, mode) = read(path).map_err(failed)?;
    if mode & 0o077 != 0 {
        return Err(Error::precondition(format!(
            "the signing key {shown} has mode {:03o}, so that others can use it: set 0600, and make a new one with `actor-volumes key rotate` if others could log in here",
            mode & 0o777
        )));
    }
    PrivateKey::from_pem(&text).map_err(|e| e.context(format_args!("the signing key {shown}")))
}

/// Puts a private key on disk, mode 0600.
pub(super) fn write_private(path: &Path, key: &PrivateKey) -> Result<()> {
    write(path, key.to_pem()?.as_bytes())
}

/// Puts a public key on disk.
pub(super) fn write_public(path: &Path, key: &PublicKey) -> Result<()> {
    write(path, key.to_pem()?.as_bytes())
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let failed =
        |e| Error::internal(format!("cannot write the key {}", path.display())).with_source(e);
    if let Some(dir) = path.parent() {
        durable::make_dir(dir).map_err(failed)?;
    }
    durable::write(path, bytes).map_err(failed)
}

/// Every public key `*.pem` of a directory; a directory that is not there has none.
/// What cannot be read is told beside the others, and hides none of them.
///
/// Links are followed: Kubernetes shows the files of a Secret or a ConfigMap as links
/// through `..data`, which is itself exchanged for another.
pub(super) fn public_files(dir: &Path) -> io::Result<PublicFiles> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(PublicFiles::new()),
        Err(e) => return Err(e),
    };
    let mut found = PublicFiles::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_none_or(|e| e != PEM) {
            continue;
        }
        if found.len() == MAX_FILES {
            let text = format!(
                "it and what follows is not read: a directory has at most {MAX_FILES} keys"
            );
            found.insert(path, Err(text));
            break;
        }
        let key = read(&path)
            .map_err(|e| format!("it cannot be read: {e}"))
            .and_then(|(text, _)| PublicKey::from_pem(&text).map_err(|e| e.full_message()));
        found.insert(path, key);
    }
    Ok(found)
}

fn read(path: &Path) -> io::Result<(Zeroizing<String>, u32)> {
    // A pipe would be waited for.
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is not a file"));
    }
    let file = fs::File::open(path)?;
    let mode = file.metadata()?.permissions().mode();
    // Room for all of it at once: what is read is not copied about in memory.
    let mut text = Zeroizing::new(String::with_capacity(1024));
    let read = file.take(MAX_BYTES + 1).read_to_string(&mut text)?;
    if read as u64 > MAX_BYTES {
        return Err(io::Error::other("it is too large for a key"));
    }
    Ok((text, mode))
}

/// Makes `dir` hold exactly these public keys, as the control plane told them.
pub fn write_told(dir: &Path, pems: &[String]) -> Result<()> {
    let mut keys = Vec::new();
    for pem in pems {
        keys.push(PublicKey::from_pem(pem).map_err(|e| e.context("a key of the control plane"))?);
    }
    let failed =
        |e| Error::internal(format!("cannot keep the keys in {}", dir.display())).with_source(e);
    let there = public_files(dir).map_err(failed)?;
    // What comes is there before what goes is gone.
    for key in &keys {
        let path = dir.join(format!("{}.{PEM}", key.id()));
        if there.get(&path).and_then(|k| k.as_ref().ok()) != Some(key) {
            write_public(&path, key)?;
        }
    }
    for (path, found) in there {
        if !found.is_ok_and(|found| keys.contains(&found)) {
            durable::remove(&path).map_err(failed)?;
        }
    }
    Ok(())
}
