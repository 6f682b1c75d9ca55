// SPDX-License-Identifier: Apache-2.0
//! `template apply`, `rollback`, `ls`, `show`.

use std::{collections::BTreeSet, sync::Arc};

use jiff::Timestamp;

use super::{
    Control,
    cell::blocking,
    record::{self, TemplateRecord, TemplateRevision, key},
    storage_class,
    store::{self, Store, Write},
    view::{Applied, TemplateView},
};
use crate::{
    api::template::{self, Template},
    error::{Error, Result},
    model::DnsLabel,
};

/// How many revisions are kept, besides those that actors are on.
const KEPT: u64 = 10;

impl Control {
    /// Stores a template. The same again changes nothing; another content under
    /// the name becomes the next revision, where the rules of updates allow it.
    pub async fn apply_template(self: &Arc<Self>, text: &str) -> Result<(TemplateView, Applied)> {
        let template = template::parse(text)?;
        let name = template.name.clone();
        self.next_revision(&name, move |store, newest| {
            let Some((_, last)) = newest else {
                let first = TemplateRevision::following(None, template, Timestamp::now());
                return Ok(Some(first));
            };
            if last.template == template {
                return Ok(None);
            }
            let growing = classes_that_may_grow(store, &template)?;
            last.template
                .check_next(&template, |class| growing.contains(class))?;
            let next = TemplateRevision::following(Some(last), template, Timestamp::now());
            Ok(Some(next))
        })
        .await
    }

    /// `template rollback`: a new revision with the content and the volumes of an
    /// older one.
    pub async fn rollback_template(
        self: &Arc<Self>,
        name: &DnsLabel,
        to: u64,
    ) -> Result<(TemplateView, Applied)> {
        let template = name.clone();
        self.next_revision(name, move |store, newest| {
            let Some((head, last)) = newest else {
                return Err(not_there(&template));
            };
            let to = read_revision(store, &template, to)?;
            let next = to.again(last, head, Timestamp::now());
            let same = (&next.template, &next.identities) == (&last.template, &last.identities);
            Ok((!same).then_some(next))
        })
        .await
    }

    /// Records what `make` makes of the newest revision; none: that stays.
    async fn next_revision(
        self: &Arc<Self>,
        name: &DnsLabel,
        make: impl FnOnce(
            &dyn Store,
            Option<(&TemplateRecord, &TemplateRevision)>,
        ) -> Result<Option<TemplateRevision>>
        + Send
        + 'static,
    ) -> Result<(TemplateView, Applied)> {
        let _standing = self.catalog.lock().await;
        let (store, name) = (self.store.clone(), name.clone());
        let in_use = self.rollouts.of(&name).on;
        blocking(&self.tasks, move || {
            let key = key::template(&name);
            let stored = store.get(&key)?;
            let last = match &stored {
                None => None,
                Some(stored) => {
                    let head: TemplateRecord = record::decode(&key, &stored.value)?;
                    let revision = read_revision(&*store, &name, head.revision)?;
                    Some((head, revision))
                }
            };
            let made = make(&*store, last.as_ref().map(|(head, last)| (head, last)))?;
            let (next, applied) = match (made, &last) {
                (None, Some((_, last))) => {
                    return Ok((TemplateView(last.clone()), Applied::Unchanged));
                }
                (None, None) => return Err(not_there(&name)),
                (Some(first), None) => (first, Applied::Created),
                (Some(next), Some(_)) => (next, Applied::Changed),
            };
            let mut head = match last {
                Some((head, _)) => head,
                None => TemplateRecord::new(name.clone(), 0, next.applied_at),
            };
            (head.revision, head.applied_at) = (next.revision, next.applied_at);
            let mut batch = vec![
                Write {
                    key,
                    expect: stored.map(|s| s.revision),
                    value: Some(record::encode(&head)?),
                },
                Write {
                    key: key::template_revision(&name, next.revision),
                    expect: None,
                    value: Some(record::encode(&next)?),
                },
            ];
            batch.extend(surplus(&*store, &name, next.revision, |revision| {
                in_use.contains_key(&revision)
            })?);
            store.write(&batch)?;
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
                return Err(not_there(&name));
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

/// Old revisions that nobody is on.
fn surplus(
    store: &dyn Store,
    name: &DnsLabel,
    newest: u64,
    in_use: impl Fn(u64) -> bool,
) -> Result<Vec<Write>> {
    let mut old = Vec::new();
    for (key, stored) in store::list_all(store, &key::template_revisions(name))? {
        let found: TemplateRevision = record::decode(&key, &stored.value)?;
        if found.revision + KEPT <= newest && !in_use(found.revision) {
            old.push(Write {
                key,
                expect: Some(stored.revision),
                value: None,
            });
        }
    }
    Ok(old)
}

fn classes_that_may_grow(store: &dyn Store, template: &Template) -> Result<BTreeSet<String>> {
    let mut growing = BTreeSet::new();
    for volume in &template.volumes {
        let class = storage_class::find(store, &volume.storage_class)?;
        if class.is_some_and(|c| c.allow_volume_expansion) {
            growing.insert(volume.storage_class.clone());
        }
    }
    Ok(growing)
}

fn not_there(name: &DnsLabel) -> Error {
    Error::not_found(format!(
        "template {name} does not exist: store it with `template apply`"
    ))
}

pub(super) fn read_revision(
    store: &dyn Store,
    name: &DnsLabel,
    revision: u64,
) -> Result<TemplateRevision> {
    let key = key::template_revision(name, revision);
    let stored = store
        .get(&key)?
        .ok_or_else(|| Error::not_found(format!("template {name} has no revision {revision}")))?;
    record::decode(&key, &stored.value)
}
