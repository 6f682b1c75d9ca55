// SPDX-License-Identifier: Apache-2.0
//! The keys of a control plane: `signing.pem` signs, `<key id>.pem` are private keys
//! that may sign one day, and `public/<key id>.pem` are what nodes are to trust.
//!
//! Every change is one rename, and a public key is there before its private half
//! signs: a daemon that looks in between sees the one or the other.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{KeyId, PrivateKey, PublicKey, file};
use crate::{
    error::{Error, Kind, Result},
    host::durable,
};

/// The private key that signs.
const SIGNING: &str = "signing.pem";

/// The directory of the public keys.
const PUBLIC: &str = "public";

/// The directory of a control plane's keys.
#[derive(Debug, Clone)]
pub struct KeyDir {
    dir: PathBuf,
}

/// What a key is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// Grants are signed with it.
    Signing,
    /// It was made, and may sign one day.
    Waiting,
    /// Only its public half is there: what it has signed still counts.
    Trusted,
}

/// A key of the directory.
#[derive(Debug)]
pub struct Found {
    /// The public half.
    pub key: PublicKey,
    /// What it is for.
    pub state: State,
}

impl KeyDir {
    /// The keys in this directory, which need not be there yet.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// The directory of the public keys.
    pub fn public_dir(&self) -> PathBuf {
        self.dir.join(PUBLIC)
    }

    /// The file of the key that signs.
    pub fn signing_file(&self) -> PathBuf {
        self.dir.join(SIGNING)
    }

    fn private_file(&self, id: &KeyId) -> PathBuf {
        self.dir.join(format!("{id}.pem"))
    }

    /// The file of a public key.
    pub fn public_file(&self, id: &KeyId) -> PathBuf {
        self.public_dir().join(format!("{id}.pem"))
    }

    /// The key that signs. It is read anew each time.
    pub fn signing(&self) -> Result<PrivateKey> {
        file::read_private(&self.signing_file())
    }

    /// The key that signs; where there is none yet, a new one. Its public half is put
    /// beside it where it is missing and the directory can be written to.
    pub fn ensure(&self) -> Result<PrivateKey> {
        match self.signing() {
            Ok(key) => {
                let public = self.public_file(key.public().id());
                if !public.exists()
                    && let Err(error) = file::write_public(&public, key.public())
                {
                    tracing::warn!(
                        "the public half of the signing key is not beside it, give it to nodes by other means: {}",
                        error.full_message()
                    );
                }
                Ok(key)
            }
            Err(e) if e.kind() == Kind::NotFound => {
                let key = PrivateKey::generate()?;
                self.make_signing(&key)?;
                tracing::info!(key = %key.public().id(), file = %self.signing_file().display(), "a key for grants was made");
                Ok(key)
            }
            Err(e) => Err(e),
        }
    }

    fn make_signing(&self, key: &PrivateKey) -> Result<()> {
        file::write_public(&self.public_file(key.public().id()), key.public())?;
        file::write_private(&self.signing_file(), key)
    }

    /// Makes a key that does not sign yet.
    pub fn generate(&self) -> Result<PublicKey> {
        let key = PrivateKey::generate()?;
        let public = key.public().clone();
        file::write_private(&self.private_file(public.id()), &key)?;
        file::write_public(&self.public_file(public.id()), &public)?;
        Ok(public)
    }

    /// Signs with another key from now on: one that was generated before, or a new
    /// one. The private half of the key before is gone; its public half stays.
    pub fn rotate(&self, to: Option<&KeyId>) -> Result<PublicKey> {
        // Without its public half what it has signed would be worth nothing.
        match self.signing() {
            Ok(before) => {
                let public = self.public_file(before.public().id());
                if !public.exists() {
                    file::write_public(&public, before.public())?;
                }
            }
            Err(e) if e.kind() == Kind::NotFound => {}
            Err(e) => return Err(e),
        }
        let Some(id) = to else {
            let key = PrivateKey::generate()?;
            self.make_signing(&key)?;
            return Ok(key.public().clone());
        };
        let from = self.private_file(id);
        let key = file::read_private(&from).map_err(|e| match e.kind() {
            Kind::NotFound => Error::not_found(format!(
                "there is no private key {id} in {} that could sign: see `actor-volumes key list`",
                self.dir.display()
            )),
            _ => e,
        })?;
        if key.public().id() != id {
            return Err(Error::precondition(format!(
                "{} holds key {}: rename it",
                from.display(),
                key.public().id()
            )));
        }
        self.make_signing(&key)?;
        self.removed(&from)?;
        Ok(key.public().clone())
    }

    /// What a key has signed does not count any more. Refused for the one that signs.
    pub fn remove(&self, id: &KeyId) -> Result<()> {
        match self.signing() {
            Ok(key) if key.public().id() == id => {
                return Err(Error::precondition(format!(
                    "grants are signed with key {id}: `actor-volumes key rotate` first"
                )));
            }
            Ok(_) => {}
            Err(e) if e.kind() == Kind::NotFound => {}
            Err(e) => return Err(e),
        }
        let (public, private) = (self.public_file(id), self.private_file(id));
        if !public.exists() && !private.exists() {
            return Err(Error::not_found(format!(
                "there is no key {id} in {}: see `actor-volumes key list`",
                self.dir.display()
            )));
        }
        self.removed(&private)?;
        self.removed(&public)
    }

    fn removed(&self, path: &Path) -> Result<()> {
        durable::remove(path).map_err(|e| {
            Error::internal(format!("cannot remove {}", path.display())).with_source(e)
        })
    }

    /// The public halves that nodes are to trust, the one that signs among them.
    pub fn public(&self) -> Result<Vec<PublicKey>> {
        let signing = self.signing()?.public().clone();
        let mut keys = vec![signing];
        for key in self.public_files()?.into_values().flatten() {
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
        Ok(keys)
    }

    /// All keys, with what cannot be read: the file, and why.
    pub fn list(&self) -> Result<(Vec<Found>, Vec<String>)> {
        let mut found: Vec<Found> = Vec::new();
        let mut problems = Vec::new();
        let mut take = |key: PublicKey, state| {
            if !found.iter().any(|f| f.key == key) {
                found.push(Found { key, state });
            }
        };
        match self.signing() {
            Ok(key) => take(key.public().clone(), State::Signing),
            Err(e) if e.kind() == Kind::NotFound => {}
            Err(e) => problems.push(e.full_message()),
        }
        for path in self.private_files()? {
            match file::read_private(&path) {
                Ok(key) => take(key.public().clone(), State::Waiting),
                Err(e) => problems.push(e.full_message()),
            }
        }
        for (path, key) in self.public_files()? {
            match key {
                Ok(key) => take(key, State::Trusted),
                Err(why) => problems.push(format!("{}: {why}", path.display())),
            }
        }
        found.sort_by(|a, b| (a.state, a.key.id()).cmp(&(b.state, b.key.id())));
        Ok((found, problems))
    }

    fn public_files(&self) -> Result<file::PublicFiles> {
        let dir = self.public_dir();
        file::public_files(&dir).map_err(|e| unreadable(&dir, e))
    }

    fn private_files(&self) -> Result<Vec<PathBuf>> {
        let entries = match fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(unreadable(&self.dir, e)),
        };
        let mut files = Vec::new();
        for entry in entries {
            let path = entry.map_err(|e| unreadable(&self.dir, e))?.path();
            let named_by_id = path
                .file_stem()
                .is_some_and(|s| s.to_string_lossy().parse::<KeyId>().is_ok());
            if named_by_id && path.extension().is_some_and(|e| e == "pem") {
                files.push(path);
            }
        }
        files.sort();
        Ok(files)
    }
}

fn unreadable(dir: &Path, error: io::Error) -> Error {
    Error::precondition(format!("cannot read the keys in {}", dir.display())).with_source(error)
}

#[cfg(test)]
mod tests;
