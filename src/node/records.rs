// SPDX-License-Identifier: Apache-2.0
//! The records on disk: one file a volume, outside every mount.

use std::{collections::BTreeMap, fs, path::PathBuf};

use super::{Layout, VolumeRecord, record::MAX_BYTES};
use crate::{
    error::{Error, Result},
    host::durable,
    model::VolumeKey,
};

/// The records of this node.
#[derive(Debug, Clone)]
pub struct Records {
    layout: Layout,
}

/// What was found at start.
#[derive(Debug, Default)]
pub struct Found {
    /// The records that could be read.
    pub records: Vec<VolumeRecord>,
    /// Those that could not, by the hash in their file name, with the reason.
    pub unreadable: BTreeMap<String, Error>,
}

impl Records {
    /// Makes the directory if it is missing.
    pub fn open(layout: Layout) -> Result<Self> {
        durable::make_dir(layout.records()).map_err(|e| {
            Error::internal(format!(
                "cannot make the record directory {}",
                layout.records().display()
            ))
            .with_source(e)
        })?;
        Ok(Self { layout })
    }

    /// Reads all records. A temporary file is what a crash left of a write that
    /// never counted, and is removed.
    pub fn load(&self) -> Result<Found> {
        let dir = self.layout.records();
        let failed = |e: std::io::Error| {
            Error::internal(format!("cannot read the records in {}", dir.display())).with_source(e)
        };
        let mut found = Found::default();
        for entry in fs::read_dir(dir).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let stem = path.file_stem().unwrap_or_default().to_string_lossy();
            match path.extension().and_then(|e| e.to_str()) {
                Some("tmp") => durable::remove(&path).map_err(failed)?,
                Some("json") => match read(&path) {
                    Ok(record) if record.key.hash() == *stem => found.records.push(record),
                    Ok(record) => {
                        let error = Error::internal(format!(
                            "{} holds the record of {}, whose file has another name",
                            path.display(),
                            record.key
                        ));
                        found.unreadable.insert(stem.into_owned(), error);
                    }
                    Err(error) => {
                        found.unreadable.insert(stem.into_owned(), error);
                    }
                },
                _ => {}
            }
        }
        Ok(found)
    }

    /// Writes the record; it is on disk when this returns.
    pub async fn write(&self, record: &VolumeRecord) -> Result<()> {
        let path = self.layout.record(&record.key);
        let bytes = record.encode();
        self.blocking("write", path, move |path| durable::write(path, &bytes))
            .await
    }

    /// Removes the record of a volume that is deleted.
    pub async fn remove(&self, volume: &VolumeKey) -> Result<()> {
        let path = self.layout.record(volume);
        self.blocking("remove", path, durable::remove).await
    }

    async fn blocking(
        &self,
        verb: &'static str,
        path: PathBuf,
        work: impl FnOnce(&std::path::Path) -> std::io::Result<()> + Send + 'static,
    ) -> Result<()> {
        let shown = path.display().to_string();
        tokio::task::spawn_blocking(move || work(&path))
            .await
            .map_err(std::io::Error::other)
            .and_then(|done| done)
            .map_err(|e| {
                Error::internal(format!(
                    "cannot {verb} the record {shown}: is the disk full or read-only?"
                ))
                .with_source(e)
            })
    }
}

fn read(path: &std::path::Path) -> Result<VolumeRecord> {
    let failed = |e: std::io::Error| {
        Error::internal(format!("cannot read the record {}", path.display())).with_source(e)
    };
    if fs::metadata(path).map_err(failed)?.len() > MAX_BYTES {
        return Err(Error::internal(format!(
            "{} is too large to be a record",
            path.display()
        )));
    }
    let bytes = fs::read(path).map_err(failed)?;
    VolumeRecord::decode(&bytes).map_err(|e| e.context(path.display()))
}

#[cfg(test)]
mod tests {
    use super::{super::record::tests::record, *};

    #[tokio::test]
    async fn records_are_found_again_and_a_torn_one_is_reported() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path(), std::path::Path::new("/m"));
        let records = Records::open(layout.clone()).unwrap();
        let kept = record(vec![]);
        records.write(&kept).await.unwrap();
        fs::write(layout.records().join("00ff.json"), b"{\"ver").unwrap();
        fs::write(layout.records().join("half.tmp"), b"x").unwrap();

        let found = records.load().unwrap();
        assert_eq!(found.records, std::slice::from_ref(&kept));
        assert_eq!(found.unreadable.keys().collect::<Vec<_>>(), ["00ff"]);
        assert!(!layout.records().join("half.tmp").exists());

        records.remove(&kept.key).await.unwrap();
        assert!(records.load().unwrap().records.is_empty());
    }
}
