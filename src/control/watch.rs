// SPDX-License-Identifier: Apache-2.0
//! `actor watch`: which actors changed, for whoever reads along.
//!
//! A reader has a set of names, not a queue of events: what changes often while
//! it is slow is told once, as it stands then.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, Weak},
};

use tokio::sync::Notify;

use super::{Control, cell::blocking, record, record::ActorRecord, record::key, view::ActorView};
use crate::{
    error::Result,
    model::{ActorRef, DnsLabel},
};

/// How many changed actors are remembered for a slow reader.
const REMEMBERED: usize = 10_000;

/// How many actors are read at a time.
const PAGE: usize = 256;

/// What a reader is told.
#[derive(Debug, Clone, PartialEq)]
pub enum ActorEvent {
    /// It was there when the reader came, or after a gap.
    Present(Box<ActorView>),
    /// All that is there was told.
    Synced,
    /// It was created or changed.
    Changed(Box<ActorView>),
    /// It is gone.
    Gone(ActorRef),
    /// Too much changed meanwhile: all that is there is told anew.
    Gap,
}

/// Everyone who reads along.
#[derive(Default)]
pub(super) struct Hub {
    readers: Mutex<Vec<Weak<Reader>>>,
}

impl Hub {
    /// Tells that the actor is not what it was.
    pub(super) fn mark(&self, actor: &ActorRef) {
        let mut readers = self.readers.lock().unwrap_or_else(|e| e.into_inner());
        readers.retain(|reader| match reader.upgrade() {
            Some(reader) => {
                reader.mark(actor);
                true
            }
            None => false,
        });
    }

    fn enter(&self, reader: &Arc<Reader>) {
        let mut readers = self.readers.lock().unwrap_or_else(|e| e.into_inner());
        readers.push(Arc::downgrade(reader));
    }
}

struct Reader {
    namespace: Option<DnsLabel>,
    name: Option<DnsLabel>,
    changed: Mutex<Changed>,
    wake: Notify,
}

#[derive(Default)]
struct Changed {
    actors: BTreeSet<ActorRef>,
    gap: bool,
}

impl Reader {
    fn wants(&self, actor: &ActorRef) -> bool {
        let namespace = self.namespace.as_ref();
        namespace.is_none_or(|n| n == &actor.namespace)
            && self.name.as_ref().is_none_or(|n| n == &actor.name)
    }

    fn changed(&self) -> MutexGuard<'_, Changed> {
        // Whatever a panic leaves is a set of names.
        self.changed.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn mark(&self, actor: &ActorRef) {
        if !self.wants(actor) {
            return;
        }
        let mut changed = self.changed();
        if !changed.gap {
            changed.actors.insert(actor.clone());
        }
        if changed.actors.len() > REMEMBERED {
            *changed = Changed {
                gap: true,
                ..Changed::default()
            };
        }
        self.wake.notify_one();
    }
}

/// One who reads along.
pub struct Watch {
    control: Arc<Control>,
    reader: Arc<Reader>,
    /// While what is there is told: a page of it, and where the next one begins.
    listing: Option<Listing>,
}

#[derive(Default)]
struct Listing {
    page: Vec<ActorRef>,
    after: Option<String>,
    over: bool,
}

impl Control {
    /// Reads along from here on: first all that is there, then what changes.
    pub fn watch(self: &Arc<Self>, namespace: Option<DnsLabel>, name: Option<DnsLabel>) -> Watch {
        let reader = Arc::new(Reader {
            namespace,
            name,
            changed: Mutex::default(),
            wake: Notify::new(),
        });
        self.watchers.enter(&reader);
        Watch {
            control: self.clone(),
            reader,
            listing: Some(Listing::default()),
        }
    }
}

impl Watch {
    /// The next event, as soon as there is one.
    pub async fn next(&mut self) -> Result<ActorEvent> {
        loop {
            if self.listing.is_some() {
                if let Some(event) = self.present().await? {
                    return Ok(event);
                }
                continue;
            }
            let next = {
                let mut changed = self.reader.changed();
                if std::mem::take(&mut changed.gap) {
                    self.listing = Some(Listing::default());
                    return Ok(ActorEvent::Gap);
                }
                changed.actors.pop_first()
            };
            let Some(actor) = next else {
                self.reader.wake.notified().await;
                continue;
            };
            return match self.control.actor(&actor).await {
                Ok(view) => Ok(ActorEvent::Changed(Box::new(view))),
                Err(e) if e.kind() == crate::error::Kind::NotFound => Ok(ActorEvent::Gone(actor)),
                Err(e) => Err(e),
            };
        }
    }

    /// Goes on telling what is there.
    async fn present(&mut self) -> Result<Option<ActorEvent>> {
        let Some(listing) = &mut self.listing else {
            return Ok(None);
        };
        if let Some(actor) = listing.page.pop() {
            // One that went meanwhile is told as gone, if it was ever told.
            let view = self.control.actor(&actor).await.ok();
            return Ok(view.map(|view| ActorEvent::Present(Box::new(view))));
        }
        if listing.over {
            self.listing = None;
            return Ok(Some(ActorEvent::Synced));
        }
        let prefix = match &self.reader.namespace {
            Some(namespace) => format!("{}{namespace}/", key::ACTORS),
            None => key::ACTORS.to_owned(),
        };
        let (store, after) = (self.control.store.clone(), listing.after.take());
        let page = blocking(&self.control.tasks, move || {
            store.list(&prefix, after.as_deref(), PAGE)
        })
        .await?;
        listing.over = page.next.is_none();
        listing.after = page.next;
        for (key, stored) in page.items.into_iter().rev() {
            let actor: ActorRecord = record::decode(&key, &stored.value)?;
            if self.reader.wants(&actor.actor) {
                listing.page.push(actor.actor);
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reader(hub: &Hub, namespace: Option<&str>) -> Arc<Reader> {
        let reader = Arc::new(Reader {
            namespace: namespace.map(|n| n.parse().unwrap()),
            name: None,
            changed: Mutex::default(),
            wake: Notify::new(),
        });
        hub.enter(&reader);
        reader
    }

    fn actor(namespace: &str, n: usize) -> ActorRef {
        format!("{namespace}/a{n}").parse().unwrap()
    }

    #[test]
    fn a_slow_reader_remembers_names_and_then_a_gap() {
        let hub = Hub::default();
        let (all, one) = (reader(&hub, None), reader(&hub, Some("one")));
        for _ in 0..3 {
            hub.mark(&actor("one", 1));
        }
        assert_eq!(all.changed().actors.len(), 1);
        for n in 0..=REMEMBERED {
            hub.mark(&actor("two", n));
        }
        assert!(all.changed().gap && all.changed().actors.is_empty());
        assert_eq!(one.changed().actors.len(), 1);
        assert!(!one.changed().gap);
    }

    #[test]
    fn a_reader_that_left_is_forgotten() {
        let hub = Hub::default();
        drop(reader(&hub, None));
        hub.mark(&actor("one", 1));
        assert!(hub.readers.lock().unwrap().is_empty());
    }
}
