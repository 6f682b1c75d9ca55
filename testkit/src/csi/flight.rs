// SPDX-License-Identifier: Apache-2.0
//! Calls in flight: those that a caller waits for, and those that are worked on.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use super::{Shared, lock};

/// How long the end of a caller's wait may be on its way to us. Under load, a
/// caller that has given up and called again may be heard in the other order.
pub(super) const LATE: Duration = Duration::from_secs(2);

/// What a call is about, besides its volume.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Place {
    /// The Controller service.
    pub(super) controller: bool,
    /// The node id that it names, or that it came to.
    pub(super) node: String,
}

impl Place {
    /// Whether only one of the two may be in flight for a volume.
    fn excludes(&self, other: &Self, across_nodes: bool) -> bool {
        !across_nodes || (self.controller && other.controller) || self.node == other.node
    }
}

/// One call whose caller still waits.
pub(super) struct Open {
    shared: Arc<Shared>,
    volume: String,
    pub(super) call: Arc<OpenCall>,
}

/// What is known of such a call.
pub(super) struct OpenCall {
    place: Place,
    /// Nobody waits any more.
    gone: AtomicBool,
    /// Calls that should have waited for this one, and when they came.
    joined: Mutex<Vec<(Instant, String)>>,
}

impl OpenCall {
    pub(super) fn is_heard(&self) -> bool {
        !self.gone.load(Ordering::Relaxed)
    }
}

impl Open {
    /// A caller has at most one call in flight for a volume.
    pub(super) fn new(shared: &Arc<Shared>, method: &str, volume: &str, place: Place) -> Self {
        let across_nodes = lock(&shared.options).overlap_across_nodes;
        let call = Arc::new(OpenCall {
            place,
            gone: AtomicBool::new(false),
            joined: Mutex::default(),
        });
        if !volume.is_empty() {
            let mut open = lock(&shared.open);
            let calls = open.entry(volume.into()).or_default();
            for other in calls.iter() {
                if call.place.excludes(&other.place, across_nodes) {
                    let text =
                        format!("{method} {volume} while another call on the volume is in flight");
                    lock(&other.joined).push((Instant::now(), text));
                }
            }
            calls.push(call.clone());
        }
        Self {
            shared: shared.clone(),
            volume: volume.into(),
            call,
        }
    }

    /// The answer is there. If another call came meanwhile, this one's caller may
    /// have given up, and the news of it may be late: then we are dropped here.
    pub(super) async fn close(self) {
        let since = {
            let mut open = lock(&self.shared.open);
            let since = lock(&self.call.joined).first().map(|(at, _)| *at);
            if since.is_none() {
                self.leave(open.get_mut(&self.volume));
            }
            since
        };
        if let Some(since) = since {
            tokio::time::sleep_until((since + LATE).into()).await;
        }
    }

    fn leave(&self, calls: Option<&mut Vec<Arc<OpenCall>>>) {
        if let Some(calls) = calls {
            calls.retain(|c| !Arc::ptr_eq(c, &self.call));
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.leave(lock(&self.shared.open).get_mut(&self.volume));
        self.call.gone.store(true, Ordering::Relaxed);
        for (at, text) in lock(&self.call.joined).drain(..) {
            if at.elapsed() >= LATE {
                self.shared.violation(text);
            }
        }
    }
}

/// One call that is worked on.
pub(super) struct Busy(Arc<Shared>, (String, Option<Place>));

impl Busy {
    /// None if another one is; the processes of a cluster do not know of each
    /// other's.
    pub(super) fn new(shared: &Arc<Shared>, volume: &str, place: &Place) -> Option<Self> {
        let place = shared.is_cluster().then(|| {
            let node = if place.controller { "" } else { &place.node };
            Place {
                node: node.into(),
                ..*place
            }
        });
        let key = (volume.to_owned(), place);
        let free = volume.is_empty() || lock(&shared.busy).insert(key.clone());
        free.then(|| Self(shared.clone(), key))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        lock(&self.0.busy).remove(&self.1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_excludes_whom() {
        let at = |controller, node: &str| Place {
            controller,
            node: node.into(),
        };
        let cases = [
            (at(true, ""), at(true, "a"), true),
            (at(true, "a"), at(false, "a"), true),
            (at(true, "a"), at(false, "b"), false),
            (at(false, "a"), at(false, "a"), true),
            (at(false, "a"), at(false, "b"), false),
        ];
        for (one, other, across) in cases {
            assert!(one.excludes(&other, false), "{one:?} {other:?}");
            assert_eq!(one.excludes(&other, true), across, "{one:?} {other:?}");
        }
    }
}
