// SPDX-License-Identifier: Apache-2.0
//! `template apply`, `ls`, `show`.

use std::sync::Arc;

use jiff::Timestamp;

use super::{
    Control,
    cell::blocking,
    record::{self, TemplateRecord, TemplateRevision, key},
    store::{Store, Write},
    view::{Applied, TemplateView},
};
use crate::{
    api::template,
    error::{Error, Result},
    model::DnsLabel,
};

impl Control {
    /// Stores a template. The same again changes nothing; another content under
    /// the name becomes the next revision.
    pub async fn apply_template(self: &Arc<Self>, text: &str) -> Result<(TemplateView, Applied)> {
        let template = template::parse(text)?;
        let _standing = self.catalog.lock().await;
        let store = self.store.clone();
        blocking(&self.tasks, move || {
            let key = key::template(&template.name);
            let head = store.get(&key)?;
            let last = match &head {
                None => None,
                Some(stored) => {
                    let head: TemplateRecord = record::decode(&key, &stored.value)?;
                    Some(read_revision(&*store, &head.name, head.revision)?)
                }
            };
            if let Some(last) = &last
                && last.template == template
            {
                return Ok((TemplateView(last.clone()), Applied::Unchanged));
            }
            let next = TemplateRevision::following(last.as_ref(), template, Timestamp::now());
            let name = next.template.name.clone();
            let record = TemplateRecord::new(name.clone(), next.revision, next.applied_at);
            store.write(&[
                Write {
                    key,
                    expect: head.map(|s| s.revision),
                    value: Some(record::encode(&record)?),
                },
                Write {
                    key: key::template_revision(&name, next.revision),
                    expect: None,
                    value: Some(record::encode(&next)?),
                },
            ])?;
            let applied = match last {
                None => Applied::Created,
                Some(_) => Applied::Changed,
            };
            Ok((TemplateView(next), applied))
        })
        .await
    }

    /// A template; revision 0 stands for the newest.
    pub async fn template(&self, name: &DnsLabel, revision: u64) -> Result<TemplateView> {
        let (store, name) = (self.store.clone(), name.clone());
        blocking(&self.tasks, move || {
            let key = key::template(&name);
            let Some(stored) = store.get(&key)? else {
                return Err(Error::not_found(format!(
                    "template {name} does not exist: store it with `template apply`"
                )));
            };
            let head: TemplateRecord = record::decode(&key, &stored.value)?;
            let revision = if revision == 0 {
                head.revision
            } else {
                revision
            };
            read_revision(&*store, &name, revision).map(TemplateView)
        })
        .await
    }

    /// A page of templates at their newest revisions.
    pub async fn templates(
        &self,
        after: Option<String>,
        limit: usize,
    ) -> Result<(Vec<TemplateView>, Option<String>)> {
        let store = self.store.clone();
        blocking(&self.tasks, move || {
            let page = store.list(key::TEMPLATES, after.as_deref(), limit)?;
            let mut views = Vec::new();
            for (key, stored) in page.items {
                let head: TemplateRecord = record::decode(&key, &stored.value)?;
                views.push(TemplateView(read_revision(
                    &*store,
                    &head.name,
                    head.revision,
                )?));
            }
            Ok((views, page.next))
        })
        .await
    }
}

fn read_revision(store: &dyn Store, name: &DnsLabel, revision: u64) -> Result<TemplateRevision> {
    let key = key::template_revision(name, revision);
    let stored = store
        .get(&key)?
        .ok_or_else(|| Error::not_found(format!("template {name} has no revision {revision}")))?;
    record::decode(&key, &stored.value)
}
