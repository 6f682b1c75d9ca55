// SPDX-License-Identifier: Apache-2.0
//! `storageclass apply`, `ls`.

use std::sync::Arc;

use jiff::Timestamp;

use super::{
    Control,
    cell::blocking,
    record::{self, StorageClassRecord, VolumeRecord, key},
    store::{self, Store, Write},
    view::Applied,
};
use crate::{
    api::storage_class::{self, StorageClass},
    error::{Error, Result},
};

impl Control {
    /// Stores a class. Volumes keep what they were created with; still, the
    /// provisioner and the parameters of a class in use do not change under them.
    pub async fn apply_storage_class(
        self: &Arc<Self>,
        text: &str,
    ) -> Result<(StorageClassRecord, Applied)> {
        let class = storage_class::parse(text)?;
        let _standing = self.catalog.lock().await;
        let store = self.store.clone();
        blocking(&self.tasks, move || {
            let key = key::class(&class.name.to_string());
            let stored = store.get(&key)?;
            let applied = match &stored {
                None => Applied::Created,
                Some(stored) => {
                    let last: StorageClassRecord = record::decode(&key, &stored.value)?;
                    if last.class == class {
                        return Ok((last, Applied::Unchanged));
                    }
                    check_change(&*store, &last.class, &class)?;
                    Applied::Changed
                }
            };
            let record = StorageClassRecord {
                class,
                applied_at: Timestamp::now(),
            };
            store.write(&[Write {
                key,
                expect: stored.map(|s| s.revision),
                value: Some(record::encode(&record)?),
            }])?;
            Ok((record, applied))
        })
        .await
    }

    /// A page of classes.
    pub async fn storage_classes(
        &self,
        after: Option<String>,
        limit: usize,
    ) -> Result<(Vec<StorageClassRecord>, Option<String>)> {
        let store = self.store.clone();
        blocking(&self.tasks, move || {
            let page = store.list(key::CLASSES, after.as_deref(), limit)?;
            let classes = page.items.iter();
            let classes = classes.map(|(key, stored)| record::decode(key, &stored.value));
            Ok((classes.collect::<Result<_>>()?, page.next))
        })
        .await
    }
}

fn check_change(store: &dyn Store, last: &StorageClass, next: &StorageClass) -> Result<()> {
    let field = if last.provisioner != next.provisioner {
        "provisioner"
    } else if (&last.parameters, &last.fs_type, &last.secret_refs)
        != (&next.parameters, &next.fs_type, &next.secret_refs)
    {
        // File system type and secrets are parameters where people write them.
        "parameters"
    } else {
        return Ok(());
    };
    let name = last.name.to_string();
    store::each(store, key::VOLUMES, |key, stored| {
        let volume: VolumeRecord = record::decode(&key, &stored.value)?;
        if volume.class == name {
            return Err(Error::precondition(format!(
                "{field} of storage class {name} cannot be changed while volumes use it (such as {} of actor {}): apply a class of another name",
                volume.uid, volume.actor
            )));
        }
        Ok(())
    })
}

/// The class of this name.
pub(super) fn find(store: &dyn Store, name: &str) -> Result<Option<StorageClass>> {
    let key = key::class(name);
    let Some(stored) = store.get(&key)? else {
        return Ok(None);
    };
    let record: StorageClassRecord = record::decode(&key, &stored.value)?;
    Ok(Some(record.class))
}
