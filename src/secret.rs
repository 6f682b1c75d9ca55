// SPDX-License-Identifier: Apache-2.0
//! Secrets by reference: read at the moment of the call that needs them, never
//! kept, never written, never shown.
//!
//! A secret `namespace/name` is the directory `<dir>/<namespace>/<name>`, one
//! file a key: the shape in which Kubernetes mounts a Secret, and that any other
//! tool can write.

mod carried;

use std::{
    collections::BTreeMap,
    fmt, fs,
    io::{self, Read},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use carried::Values;
pub use carried::blotted;

use crate::{
    error::{Error, Result},
    model::{SecretRef, SecretRefs, SecretUse},
};

/// What all keys and values together may hold (CSI spec, size limits).
const MAX_BYTES: usize = 4096;

/// The directory may lie on something slow; no call hangs with it.
const READ_WITHIN: Duration = Duration::from_secs(5);

/// The `secrets` of a CSI request.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secrets(Arc<Values>);

impl Secrets {
    /// The values, for the request alone.
    pub fn expose(&self) -> impl Iterator<Item = (String, String)> {
        self.0.all().clone().into_iter()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.all().is_empty()
    }
}

impl FromIterator<(String, String)> for Secrets {
    fn from_iter<T: IntoIterator<Item = (String, String)>>(values: T) -> Self {
        Self(Arc::new(Values::new(values.into_iter().collect())))
    }
}

// Not even the keys: their number is all that a log needs.
impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secrets({})", self.0.all().len())
    }
}

/// Where secrets are read from.
#[derive(Debug, Clone, Default)]
pub struct Vault {
    dir: Option<PathBuf>,
}

impl Vault {
    /// None: every reference is refused.
    pub fn new(dir: Option<PathBuf>) -> Self {
        Self { dir }
    }

    /// The secrets of one call; none where the volume has no reference for it.
    pub async fn read(&self, refs: &SecretRefs, use_: SecretUse) -> Result<Secrets> {
        let Some(secret) = refs.get(&use_) else {
            return Ok(Secrets::default());
        };
        let Some(dir) = &self.dir else {
            return Err(Error::precondition(format!(
                "secret {secret} is needed, but no directory of secrets is configured: set secrets.dir"
            )));
        };
        let path = dir.join(secret.namespace.as_str()).join(&secret.name);
        let what = secret.clone();
        let reading = tokio::task::spawn_blocking(move || read_dir(&path, &what));
        match tokio::time::timeout(READ_WITHIN, reading).await {
            Ok(Ok(secrets)) => secrets,
            Ok(Err(e)) => {
                Err(Error::internal(format!("reading secret {secret} broke off")).with_source(e))
            }
            Err(_) => Err(Error::unavailable(format!(
                "secret {secret} could not be read within {READ_WITHIN:?}: is {} on something slow?",
                dir.display()
            ))),
        }
    }
}

fn read_dir(path: &Path, secret: &SecretRef) -> Result<Secrets> {
    let failed = |e: io::Error| {
        let text = format!("cannot read secret {secret} at {}", path.display());
        match e.kind() {
            // It may come: whoever writes secrets may be later than we are.
            io::ErrorKind::NotFound => Error::unavailable(text),
            _ => Error::precondition(text),
        }
        .with_source(e)
    };
    let mut values = BTreeMap::new();
    let mut bytes = 0;
    for entry in fs::read_dir(path).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        // Kubernetes keeps `..data` and its versions beside the keys.
        let Some(key) = entry.file_name().to_str().map(str::to_owned) else {
            return Err(Error::precondition(format!(
                "secret {secret} has a key that is not UTF-8: rename it"
            )));
        };
        if key.starts_with("..") {
            continue;
        }
        let value = read_value(&entry.path(), secret, &key, failed)?;
        bytes += key.len() + value.len();
        if bytes > MAX_BYTES {
            return Err(Error::precondition(format!(
                "secret {secret} has more than {MAX_BYTES} bytes, CSI allows no more: make it smaller"
            )));
        }
        values.insert(key, value);
    }
    if values.is_empty() {
        return Err(Error::unavailable(format!(
            "secret {secret} at {} has no keys yet",
            path.display()
        )));
    }
    Ok(values.into_iter().collect())
}

fn read_value(
    path: &Path,
    secret: &SecretRef,
    key: &str,
    failed: impl Fn(io::Error) -> Error,
) -> Result<String> {
    let file = fs::File::open(path).map_err(&failed)?;
    let meta = file.metadata().map_err(&failed)?;
    if !meta.is_file() {
        return Err(Error::precondition(format!(
            "key {key:?} of secret {secret} is not a file"
        )));
    }
    let mode = meta.permissions().mode();
    if mode & 0o027 != 0 {
        return Err(Error::precondition(format!(
            "key {key:?} of secret {secret} has mode {:03o}: others must not read it, nor the group write it; set 0600 or 0440",
            mode & 0o777
        )));
    }
    let mut bytes = Vec::new();
    let limit = u64::try_from(MAX_BYTES).unwrap_or(u64::MAX) + 1;
    file.take(limit).read_to_end(&mut bytes).map_err(&failed)?;
    String::from_utf8(bytes).map_err(|_| {
        Error::precondition(format!(
            "key {key:?} of secret {secret} is not UTF-8: encode it as the driver expects, often base64"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vault(keys: &[(&str, &[u8], u32)]) -> (tempfile::TempDir, Vault) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("storage/creds");
        fs::create_dir_all(&path).unwrap();
        for (key, value, mode) in keys {
            let file = path.join(key);
            fs::write(&file, value).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(*mode)).unwrap();
        }
        let vault = Vault::new(Some(dir.path().into()));
        (dir, vault)
    }

    fn refs() -> SecretRefs {
        [(SecretUse::NodeStage, "storage/creds".parse().unwrap())].into()
    }

    async fn refused(vault: &Vault) -> String {
        let error = vault.read(&refs(), SecretUse::NodeStage).await.unwrap_err();
        error.full_message()
    }

    #[tokio::test]
    async fn a_secret_is_read_for_its_own_use_alone_and_anew_each_time() {
        let (dir, vault) = vault(&[("user", b"u", 0o600), ("..data", b"x", 0o600)]);
        let read = vault.read(&refs(), SecretUse::NodeStage).await.unwrap();
        assert_eq!(
            read.expose().collect::<Vec<_>>(),
            [("user".into(), "u".into())]
        );
        assert_eq!(format!("{read:?}"), "Secrets(1)");
        let other = vault.read(&refs(), SecretUse::NodePublish).await.unwrap();
        assert!(other.is_empty());
        fs::write(dir.path().join("storage/creds/user"), "v").unwrap();
        let read = vault.read(&refs(), SecretUse::NodeStage).await.unwrap();
        assert_eq!(
            read.expose().collect::<Vec<_>>(),
            [("user".into(), "v".into())]
        );
    }

    #[tokio::test]
    async fn a_secret_that_others_can_read_or_that_csi_would_refuse_is_refused() {
        assert!(
            refused(&vault(&[("k", b"hush", 0o644)]).1)
                .await
                .contains("mode 644")
        );
        let large = vec![b'x'; MAX_BYTES + 1];
        let text = refused(&vault(&[("k", &large, 0o600)]).1).await;
        assert!(text.contains("4096 bytes"), "{text}");
        let text = refused(&vault(&[("k", b"\xff\xfe", 0o600)]).1).await;
        assert!(text.contains("not UTF-8"), "{text}");
        assert!(refused(&Vault::new(None)).await.contains("secrets.dir"));
        let (_dir, empty) = vault(&[]);
        assert!(refused(&empty).await.contains("no keys"));
    }
}
