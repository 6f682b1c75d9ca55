// SPDX-License-Identifier: Apache-2.0
//! Whose turn it is: places for requests under way, some of them kept for those
//! that must not starve, and the pace of each peer.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};

use super::{
    super::limits::{Kind, Limits, Refused},
    peer::Peer,
};

/// Peers whose pace is remembered, before those that are calm are forgotten.
const REMEMBERED: usize = 1024;

/// The turns of one door.
pub(super) struct Turns {
    common: Arc<Semaphore>,
    for_frees: Arc<Semaphore>,
    for_asks: Arc<Semaphore>,
    streams: Arc<Semaphore>,
    lines: Arc<Semaphore>,
    paces: Mutex<HashMap<(Peer, Kind), Pace>>,
    queue: usize,
    wait: Duration,
    per_second: f64,
}

/// What a peer has lately asked for, of one kind.
struct Pace {
    waiting: usize,
    /// When the next request is on time; the past where there is credit.
    next: Instant,
}

/// One that waits. Dropped, it waits no more.
pub(super) struct Waiting {
    turns: Arc<Turns>,
    who: (Peer, Kind),
    /// By then it must have had its turn.
    until: Instant,
    /// Its peer's pace.
    at: Instant,
}

impl Turns {
    pub(super) fn new(limits: &Limits) -> Self {
        // An eighth each is kept; a small number is common to all, and one more kept.
        let kept = (limits.requests / 8).max(1);
        let common = limits.requests.saturating_sub(2 * kept).max(1);
        let places = |n: usize| Arc::new(Semaphore::new(n.min(Semaphore::MAX_PERMITS)));
        Self {
            common: places(common),
            for_frees: places(kept),
            for_asks: places(kept),
            streams: places(limits.requests),
            lines: places(limits.connections),
            paces: Mutex::default(),
            queue: limits.queue,
            wait: limits.queue_wait,
            per_second: f64::from(limits.requests_per_second.max(1)),
        }
    }

    /// Gets in line, or is refused at once where too many of this peer wait.
    pub(super) fn enter(self: &Arc<Self>, peer: Peer, kind: Kind) -> Result<Waiting, Refused> {
        let now = Instant::now();
        let who = (peer, kind);
        let mut paces = self.paces.lock().unwrap_or_else(PoisonError::into_inner);
        if paces.len() >= REMEMBERED {
            paces.retain(|_, pace| pace.waiting > 0 || pace.next > now);
        }
        // A second's credit at most is saved up.
        let credit = now.checked_sub(Duration::from_secs(1)).unwrap_or(now);
        let pace = paces.entry(who.clone()).or_insert(Pace {
            waiting: 0,
            next: credit,
        });
        if pace.waiting >= self.queue {
            return Err(Refused::Queue);
        }
        let at = pace.next.max(credit);
        if at > now + self.wait {
            return Err(Refused::Busy);
        }
        pace.next = at + Duration::from_secs_f64(1.0 / self.per_second);
        pace.waiting += 1;
        drop(paces);
        Ok(Waiting {
            turns: Arc::clone(self),
            who,
            until: now + self.wait,
            at,
        })
    }
}

impl Waiting {
    pub(super) fn until(&self) -> Instant {
        self.until
    }

    /// Waits for the turn.
    pub(super) async fn turn(self) -> Result<OwnedSemaphorePermit, Refused> {
        let turns = &self.turns;
        let place = async {
            tokio::time::sleep_until(self.at).await;
            let common = || Arc::clone(&turns.common).acquire_owned();
            let kept = |places: &Arc<Semaphore>| Arc::clone(places).acquire_owned();
            match self.who.1 {
                Kind::Other => common().await,
                Kind::Frees => tokio::select! { biased;
                    place = common() => place,
                    place = kept(&turns.for_frees) => place,
                },
                Kind::Asks => tokio::select! { biased;
                    place = common() => place,
                    place = kept(&turns.for_asks) => place,
                },
                Kind::Watches => kept(&turns.streams).await,
                Kind::Line => kept(&turns.lines).await,
            }
        };
        match tokio::time::timeout_at(self.until, place).await {
            Ok(Ok(place)) => Ok(place),
            // The semaphores are never closed.
            Ok(Err(_)) | Err(_) => Err(Refused::Busy),
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut paces = self.turns.paces.lock();
        let paces = paces.as_mut().unwrap_or_else(|e| e.get_mut());
        if let Some(pace) = paces.get_mut(&self.who) {
            pace.waiting = pace.waiting.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: Peer = Peer::Uid(0);

    fn turns(limits: &Limits) -> Arc<Turns> {
        Arc::new(Turns::new(limits))
    }

    #[tokio::test]
    async fn a_flood_takes_no_place_that_is_kept() {
        let turns = turns(&Limits {
            queue_wait: Duration::from_millis(50),
            ..Limits::default()
        });
        let turn = |kind| turns.enter(ROOT, kind).map(Waiting::turn);
        let mut held = Vec::new();
        for _ in 0..48 {
            held.push(turn(Kind::Other).unwrap().await.unwrap());
        }
        assert_eq!(turn(Kind::Other).unwrap().await.err(), Some(Refused::Busy));
        for kind in [Kind::Frees, Kind::Asks] {
            for _ in 0..8 {
                held.push(turn(kind).unwrap().await.unwrap());
            }
        }
        assert_eq!(held.len(), 64);
        assert_eq!(turn(Kind::Frees).unwrap().await.err(), Some(Refused::Busy));
        // Streams have places of their own.
        drop(turn(Kind::Watches).unwrap().await.unwrap());
        let next = turn(Kind::Other).unwrap();
        drop(held.remove(0));
        drop(next.await.unwrap());
    }

    #[tokio::test]
    async fn as_many_wait_as_may_and_each_peer_for_itself() {
        let turns = turns(&Limits {
            queue: 2,
            ..Limits::default()
        });
        let first = turns.enter(ROOT, Kind::Other).ok().unwrap();
        let _second = turns.enter(ROOT, Kind::Other).ok().unwrap();
        assert_eq!(turns.enter(ROOT, Kind::Other).err(), Some(Refused::Queue));
        assert!(turns.enter(Peer::Uid(1), Kind::Other).is_ok());
        assert!(turns.enter(ROOT, Kind::Asks).is_ok());
        drop(first);
        assert!(turns.enter(ROOT, Kind::Other).is_ok());
    }

    #[tokio::test]
    async fn who_is_too_fast_is_slowed_down_and_a_flood_is_refused() {
        let turns = turns(&Limits {
            requests_per_second: 10,
            queue: 1000,
            ..Limits::default()
        });
        let first = turns.enter(ROOT, Kind::Other).ok().unwrap().at;
        assert!(first <= Instant::now(), "a second's credit");
        for _ in 0..38 {
            drop(turns.enter(ROOT, Kind::Other).ok().unwrap());
        }
        let late = turns.enter(ROOT, Kind::Other).ok().unwrap().at;
        assert_eq!(late - first, 39 * Duration::from_millis(100));
        let mut waiting = Vec::new();
        let refused = loop {
            match turns.enter(ROOT, Kind::Other) {
                Ok(one) => waiting.push(one),
                Err(why) => break why,
            }
        };
        assert_eq!(refused, Refused::Busy);
        assert!(turns.enter(ROOT, Kind::Asks).is_ok());
    }
}
