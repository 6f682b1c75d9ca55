// SPDX-License-Identifier: Apache-2.0
//! What is read, as it stood at one moment.

use std::{ops::Bound, sync::Arc};

use redb::{Database, ReadOnlyTable};

use super::failed;
use crate::{
    control::store::{IndexPage, Page, Reader, Revision, Stored},
    error::Result,
};

fn stored((revision, value): (u64, &[u8])) -> Stored {
    Stored {
        revision: Revision(revision),
        value: value.to_vec(),
    }
}

/// What stood there at one moment.
pub(super) struct Snapshot {
    pub(super) records: ReadOnlyTable<&'static str, (u64, &'static [u8])>,
    pub(super) index: ReadOnlyTable<&'static str, &'static str>,
    /// It is not opened again while somebody reads from it.
    pub(super) _open: Arc<Database>,
}

/// Where a page begins.
fn start<'a>(prefix: &'a str, after: Option<&'a str>) -> Bound<&'a str> {
    match after {
        Some(after) if after >= prefix => Bound::Excluded(after),
        _ => Bound::Included(prefix),
    }
}

impl Reader for Snapshot {
    fn get(&self, key: &str) -> Result<Option<Stored>> {
        let found = self.records.get(key).map_err(failed("read"))?;
        Ok(found.map(|v| stored(v.value())))
    }

    fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Page> {
        let mut page = Page::default();
        let range = (start(prefix, after), Bound::Unbounded);
        for entry in self.records.range::<&str>(range).map_err(failed("read"))? {
            let (key, value) = entry.map_err(failed("read"))?;
            if !key.value().starts_with(prefix) {
                break;
            }
            if page.items.len() == limit {
                page.next = page.items.last().map(|(k, _)| k.clone());
                break;
            }
            page.items
                .push((key.value().to_owned(), stored(value.value())));
        }
        Ok(page)
    }

    fn index(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<IndexPage> {
        let mut page = IndexPage::default();
        let range = (start(prefix, after), Bound::Unbounded);
        for entry in self.index.range::<&str>(range).map_err(failed("read"))? {
            let (key, value) = entry.map_err(failed("read"))?;
            if !key.value().starts_with(prefix) {
                break;
            }
            if page.items.len() == limit {
                page.next = page.items.last().map(|(k, _)| k.clone());
                break;
            }
            page.items
                .push((key.value().to_owned(), value.value().to_owned()));
        }
        Ok(page)
    }
}
