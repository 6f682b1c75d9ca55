// SPDX-License-Identifier: Apache-2.0
//! What is to be believed of scopes and their containers that the runtime does not
//! show any more. Pure: records and listings in, verdicts out.
//!
//! At the start everything is uncertain, and it stays so while the runtime that the
//! record names is silent. A scope is over when that runtime had it, and two of its
//! listings in a row do not show it. That releases nothing by itself: the proof that
//! nobody holds the volume comes after it.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::{Duration, Instant},
};

use jiff::Timestamp;

use super::Publication;
use crate::{
    cri::Listing,
    model::{RuntimeId, Scope},
};

/// The listings that agree are at least this far apart.
pub(super) const APART: Duration = Duration::from_millis(500);

/// A runtime tells of a sandbox or a container while it makes it, and lists it a
/// moment later: one that it never listed may be missing for so long.
pub(super) const UNLISTED: Duration = Duration::from_secs(30);

/// What a look came to.
#[derive(Debug, Default)]
pub(super) struct Verdicts {
    /// Scopes that are over, and why.
    pub(super) over: HashMap<Scope, &'static str>,
    /// Containers that are gone.
    pub(super) gone: HashSet<String>,
    /// Scopes that the listing shows.
    pub(super) listed: HashSet<Scope>,
    /// Scopes of which nothing is certain, and why.
    pub(super) uncertain: BTreeMap<Scope, String>,
}

/// What earlier listings showed.
#[derive(Debug)]
pub(super) struct Reconciler {
    runtime: RuntimeId,
    /// How far two listings are apart at least.
    apart: Duration,
    /// Scopes that the last listing did not show, since when.
    missing: HashMap<Scope, Instant>,
    /// The same of containers.
    missing_members: HashMap<String, Instant>,
    /// Containers that a listing showed, or that were there before this process: what
    /// was being made then is made by now, or never will be.
    seen_members: HashSet<String>,
    begun: bool,
}

impl Reconciler {
    /// It asks this runtime, and again after `interval`.
    pub(super) fn new(runtime: RuntimeId, interval: Duration) -> Self {
        Self {
            runtime,
            apart: interval.min(APART),
            missing: HashMap::new(),
            missing_members: HashMap::new(),
            seen_members: HashSet::new(),
            begun: false,
        }
    }

    /// Whether a second look is due, `APART` from this one.
    pub(super) fn misses_something(&self) -> bool {
        !self.missing.is_empty() || !self.missing_members.is_empty()
    }

    /// Judges these publications. No listing: the runtime gave none.
    pub(super) fn judge(
        &mut self,
        publications: &[Publication],
        listing: Option<&Listing>,
        (now, today): (Instant, Timestamp),
    ) -> Verdicts {
        let mut verdicts = Verdicts::default();
        if !std::mem::replace(&mut self.begun, true) {
            let known = publications.iter().flat_map(|p| &p.members);
            self.seen_members.extend(known.cloned());
        }
        let missing = std::mem::take(&mut self.missing);
        let missing_members = std::mem::take(&mut self.missing_members);
        let Some(listing) = listing else {
            // What was missing before counts no more.
            for publication in publications.iter().filter(|p| p.ending.is_none()) {
                verdicts.uncertain.insert(
                    publication.scope.clone(),
                    format!("the runtime {} gives no listing", self.runtime),
                );
            }
            return verdicts;
        };
        for publication in publications {
            let scope = &publication.scope;
            if scope.sandbox().is_none() {
                // No CRI knows it.
                continue;
            }
            if scope.runtime() != &self.runtime {
                let why = format!("it is of the runtime {}", scope.runtime());
                verdicts.uncertain.insert(scope.clone(), why);
                continue;
            }
            self.members(publication, listing, &missing_members, now, &mut verdicts);
            if publication.ending.is_some() {
                continue;
            }
            let Some(why) = absence(scope, listing) else {
                verdicts.listed.insert(scope.clone());
                continue;
            };
            let since = *missing.get(scope).unwrap_or(&now);
            self.missing.insert(scope.clone(), since);
            if now.duration_since(since) >= self.apart && !may_be_made(publication, today) {
                verdicts.over.insert(scope.clone(), why);
            } else {
                let text = format!("{why}; it is looked at again");
                verdicts.uncertain.insert(scope.clone(), text);
            }
        }
        let used: HashSet<&String> = publications.iter().flat_map(|p| &p.members).collect();
        self.seen_members.retain(|member| used.contains(member));
        verdicts
    }

    /// Members of a container scope whose stop no event told.
    fn members(
        &mut self,
        publication: &Publication,
        listing: &Listing,
        missing: &HashMap<String, Instant>,
        now: Instant,
        verdicts: &mut Verdicts,
    ) {
        if !publication.scope.has_members() {
            return;
        }
        for member in &publication.members {
            let found = listing.containers.get(member);
            if found.is_some() {
                self.seen_members.insert(member.clone());
            }
            if found.is_some_and(|c| c.running || c.created) {
                continue;
            }
            let since = *missing.get(member).unwrap_or(&now);
            self.missing_members.insert(member.clone(), since);
            let seen = self.seen_members.contains(member);
            if now.duration_since(since) >= if seen { self.apart } else { UNLISTED } {
                verdicts.gone.insert(member.clone());
            }
        }
    }
}

/// Whether the runtime may still be about to list its sandbox. By the clock, so that a
/// restart does not begin it anew; if the clock is wrong a scope ends early or late, and
/// its release waits for its proof all the same.
fn may_be_made(publication: &Publication, today: Timestamp) -> bool {
    let age = publication.asked_at.map(|at| today.duration_since(at));
    !publication.listed
        && age.is_some_and(|age| !age.is_negative() && age.unsigned_abs() < UNLISTED)
}

/// Why the listing shows no living sandbox for this scope.
fn absence(scope: &Scope, listing: &Listing) -> Option<&'static str> {
    let sandbox = scope.sandbox()?;
    match listing.sandboxes.get(sandbox) {
        Some(found) if found.ready => None,
        Some(_) if listing.runs_in(sandbox) => None,
        Some(_) => Some("the runtime lists its sandbox as not ready, with no running container"),
        None => Some("the runtime does not list its sandbox"),
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{Phase, record::tests::publication},
        *,
    };
    use crate::cri::{Container, Sandbox};

    /// With a sandbox `s1` and a container `c1` of it.
    fn listing(ready: bool, running: bool) -> Listing {
        let mut listing = Listing::default();
        let sandbox = Sandbox {
            ready,
            ..Sandbox::default()
        };
        listing.sandboxes.insert("s1".into(), sandbox);
        let container = Container {
            sandbox: "s1".into(),
            running,
            ..Container::default()
        };
        listing.containers.insert("c1".into(), container);
        listing
    }

    fn published(listed: bool) -> Publication {
        let mut published = publication("s1", 1, Phase::Done);
        published.asked_at = Some(TODAY);
        published.listed = listed;
        published
    }

    const TODAY: Timestamp = Timestamp::UNIX_EPOCH;

    struct Looks {
        reconciler: Reconciler,
        now: Instant,
        today: Timestamp,
    }

    impl Looks {
        fn new() -> Self {
            let runtime = published(true).scope.runtime().clone();
            Self {
                reconciler: Reconciler::new(runtime, UNLISTED),
                now: Instant::now(),
                today: TODAY,
            }
        }

        fn look(&mut self, of: &Publication, listing: Option<&Listing>) -> Verdicts {
            self.reconciler
                .judge(std::slice::from_ref(of), listing, (self.now, self.today))
        }

        /// A look after this long, in which the scope is over or not.
        fn over(&mut self, of: &Publication, listing: Option<&Listing>, after: Duration) -> bool {
            self.now += after;
            self.today += after;
            let verdicts = self.look(of, listing);
            let (over, uncertain) = (verdicts.over.len(), verdicts.uncertain.len());
            let lives = usize::from(verdicts.listed.contains(&of.scope));
            assert_eq!(over + uncertain + lives, 1, "one verdict");
            over == 1
        }
    }

    const NOW: Duration = Duration::ZERO;

    #[test]
    fn a_ready_sandbox_or_a_running_container_keeps_the_scope() {
        for (ready, running) in [(true, false), (false, true), (true, true)] {
            let mut looks = Looks::new();
            for _ in 0..3 {
                assert!(!looks.over(&published(true), Some(&listing(ready, running)), UNLISTED));
            }
        }
        for absent in [listing(false, false), Listing::default()] {
            let mut looks = Looks::new();
            assert!(!looks.over(&published(true), Some(&absent), NOW));
            assert!(looks.over(&published(true), Some(&absent), APART));
        }
    }

    #[test]
    fn only_two_listings_in_a_row_that_are_apart_end_a_scope() {
        let (gone, there) = (Listing::default(), listing(true, true));
        let one = published(true);
        let mut looks = Looks::new();
        assert!(!looks.over(&one, Some(&gone), NOW));
        assert!(!looks.over(&one, Some(&gone), APART / 2));
        assert!(!looks.over(&one, Some(&there), APART));
        assert!(!looks.over(&one, Some(&gone), APART));
        // A runtime that gives no listing starts it anew.
        assert!(!looks.over(&one, None, UNLISTED));
        assert!(!looks.over(&one, Some(&gone), UNLISTED));
        assert!(looks.over(&one, Some(&gone), APART));
    }

    #[test]
    fn a_sandbox_that_was_never_listed_may_still_be_made() {
        let gone = Listing::default();
        let mut looks = Looks::new();
        assert!(!looks.over(&published(false), Some(&gone), NOW));
        assert!(!looks.over(&published(false), Some(&gone), UNLISTED - APART));
        assert!(looks.over(&published(false), Some(&gone), APART));
        // A restart does not begin it anew.
        let mut again = Looks::new();
        again.today = looks.today;
        assert!(!again.over(&published(false), Some(&gone), NOW));
        assert!(again.over(&published(false), Some(&gone), APART));
    }

    #[test]
    fn a_runtime_that_is_not_the_recorded_one_ends_nothing() {
        let mut looks = Looks::new();
        looks.reconciler.runtime = RuntimeId::new("cri:/another.sock").unwrap();
        for _ in 0..3 {
            assert!(!looks.over(&published(true), Some(&Listing::default()), UNLISTED));
        }
    }

    #[test]
    fn what_is_being_released_is_judged_no_more() {
        let mut ending = published(true);
        ending.ending = Some("stopped".into());
        for listing in [None, Some(&Listing::default())] {
            let verdicts = Looks::new().look(&ending, listing);
            assert!(verdicts.uncertain.is_empty() && verdicts.over.is_empty());
        }
    }

    #[test]
    fn a_container_that_is_being_made_stays_a_member() {
        let mut one = published(true);
        one.scope = Scope::Member {
            runtime: one.scope.runtime().clone(),
            sandbox: "s1".into(),
            actor: one.actor_uid.clone(),
            generation: one.request.generation,
        };
        one.members = ["c2".to_owned()].into();
        let mut looks = Looks::new();
        looks.look(&published(true), Some(&listing(true, true)));
        let without = listing(true, true);
        let mut gone = |after, listing: &Listing| {
            looks.now += after;
            !looks.look(&one, Some(listing)).gone.is_empty()
        };
        assert!(!gone(NOW, &without));
        assert!(!gone(APART, &without));
        // Once it was listed, two listings without it are enough.
        let mut with = listing(true, true);
        let there = with.containers["c1"].clone();
        with.containers.insert("c2".into(), there);
        assert!(!gone(APART, &with));
        assert!(!gone(NOW, &without));
        assert!(gone(APART, &without));
        let mut again = Looks::new();
        for (after, is) in [(NOW, false), (APART, true)] {
            again.now += after;
            let verdicts = again.look(&one, Some(&without));
            assert_eq!(
                verdicts.gone.len() == 1,
                is,
                "it was there before the start"
            );
        }
        // One that exited is listed as such.
        with.containers.get_mut("c2").unwrap().running = false;
        assert!(gone(APART, &with));
    }
}
