// SPDX-License-Identifier: Apache-2.0
//! The control plane's last word for this node, in memory. It stands while the
//! control plane is away: nothing moves on before this node has durably taken a
//! revoke, so an old word can allow nothing that is over. After a restart there is
//! none until the control plane has spoken.

use std::{
    collections::HashMap,
    path::Path,
    sync::{PoisonError, RwLock, RwLockWriteGuard},
};

use tokio::sync::watch;

use super::confirmed::Confirmed;
use crate::{
    api::grant,
    error::{Error, Result},
    model::{ActorRef, Grant},
    node::Authority,
    proto::api,
};

/// The control plane's last word for this node.
pub struct Word {
    endpoint: String,
    /// None: nothing of it is on disk.
    confirmed: Option<Confirmed>,
    told: RwLock<Told>,
    /// Whether it has spoken since this process began.
    spoken: watch::Sender<bool>,
}

#[derive(Default)]
struct Told {
    /// None: it has not spoken since this process began.
    grants: Option<HashMap<ActorRef, Grant>>,
    /// The whole word, while its parts come in.
    coming: Option<HashMap<ActorRef, Grant>>,
    /// Why no grant is accepted.
    closed: Option<String>,
    /// Whether the line is there, so that what is unknown may still come.
    connected: bool,
    /// Whether the control plane knows that this node has all its records.
    confirmed: bool,
}

impl Word {
    /// No word yet for the node with this state directory. `endpoint` is shown to
    /// people.
    pub fn new(endpoint: impl Into<String>, state_dir: &Path) -> Result<Self> {
        let (confirmed, said) = Confirmed::open(state_dir)?;
        Ok(Self {
            endpoint: endpoint.into(),
            confirmed: Some(confirmed),
            told: RwLock::new(Told {
                confirmed: said,
                ..Told::default()
            }),
            spoken: watch::Sender::new(false),
        })
    }

    /// The same, which keeps nothing on disk.
    pub fn in_memory(endpoint: impl Into<String>) -> Self {
        Self {
            endpoint: endpoint.into(),
            confirmed: None,
            told: RwLock::default(),
            spoken: watch::Sender::new(false),
        }
    }

    fn told(&self) -> RwLockWriteGuard<'_, Told> {
        // Every change is whole.
        self.told.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether grants are accepted from now on, and if not, why. On disk when it
    /// returns: what was closed stays so for a start without the control plane.
    pub fn welcome(&self, welcome: api::Welcome) -> Result<()> {
        let before = {
            let mut told = self.told();
            told.connected = true;
            told.closed = (!welcome.ready).then_some(welcome.message);
            told.confirmed
        };
        if before != welcome.ready {
            if let Some(confirmed) = &self.confirmed {
                confirmed.say(welcome.ready)?;
            }
            self.told().confirmed = welcome.ready;
        }
        Ok(())
    }

    /// Resolves when the control plane has spoken for the first time.
    pub async fn spoken(&self) {
        // The sender lives as long as this.
        let _ = self.spoken.subscribe().wait_for(|spoken| *spoken).await;
    }

    /// The line is gone. The word stands.
    pub fn lost(&self) {
        let mut told = self.told();
        told.connected = false;
        told.coming = None;
    }

    /// A part of the word, or a change of it. What cannot be read is an error: the
    /// two ends are of different versions.
    pub fn take(&self, grants: api::Grants) -> Result<()> {
        let mut put = Vec::new();
        for text in &grants.put {
            put.push(grant::parse(text).map_err(|e| e.context("a grant of the control plane"))?);
        }
        let mut told = self.told();
        if grants.first {
            told.coming = Some(HashMap::new());
        }
        let Told {
            grants: standing,
            coming,
            ..
        } = &mut *told;
        let word = match coming {
            Some(coming) => coming,
            None => standing.get_or_insert_default(),
        };
        for removed in &grants.removed {
            if let Ok(actor) = removed.parse() {
                word.remove(&actor);
            }
        }
        word.extend(put.into_iter().map(|grant| (grant.actor_ref(), grant)));
        if grants.last {
            told.grants = told.coming.take();
            self.spoken.send_replace(true);
        }
        Ok(())
    }
}

impl Authority for Word {
    fn current(&self, presented: &Grant) -> Result<Grant> {
        let actor = presented.actor_ref();
        let told = self.told.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(why) = &told.closed {
            return Err(Error::unavailable(format!("actor {actor}: {why}")));
        }
        let Some(grants) = &told.grants else {
            return Err(Error::unavailable(format!(
                "actor {actor}: this node has had no word of the control plane at {} since it was started: it is asked until it answers, retry",
                self.endpoint
            )));
        };
        let current = grants.get(&actor);
        if let Some(current) = current.filter(|c| presented.same_word(c)) {
            return Ok(current.clone());
        }
        // The pod may be faster than the word: with the generation that comes.
        let newer = current.is_none_or(|c| presented.generation() > c.generation());
        if newer && !told.connected {
            return Err(Error::unavailable(format!(
                "the grant of actor {actor} is newer than the last word of the control plane at {}, which this node does not reach: retry",
                self.endpoint
            )));
        }
        if newer && current.is_some() {
            return Err(Error::unavailable(format!(
                "the grant of actor {actor} is newer than the control plane's word that has come here: retry"
            )));
        }
        let known = current.map_or(
            "none is current here, since the actor is not resumed on this node".into(),
            |c| format!("generation {} is current", c.generation()),
        );
        Err(Error::precondition(format!(
            "the grant of actor {actor} is over, or was changed, or its word has not come yet: generation {} is presented, {known}; resume the actor and use the annotations that this gives",
            presented.generation()
        )))
    }

    fn current_signed(&self, presented: &Grant) -> Result<Grant> {
        let refused = match self.current(presented) {
            Ok(current) => return Ok(current),
            Err(refused) => refused,
        };
        let told = self.told.read().unwrap_or_else(PoisonError::into_inner);
        if told.counts_by_itself(presented) {
            return Ok(presented.clone());
        }
        if presented.self_contained && !told.connected && !told.confirmed {
            return Err(Error::unavailable(format!(
                "actor {}: the control plane at {} has not confirmed this node's state directory, so that no grant counts here by itself: retry when it is reached",
                presented.actor_ref(),
                self.endpoint
            )));
        }
        Err(refused)
    }
}

impl Told {
    /// Whether a grant that is signed and holds its contexts counts by itself. Whether
    /// its generations are over the node's records say: nothing has moved on before
    /// they did. Not of a node that may have lost them.
    fn counts_by_itself(&self, presented: &Grant) -> bool {
        let listed = |grants: &HashMap<ActorRef, Grant>| {
            let current = grants.get(&presented.actor_ref());
            current.is_some_and(|current| !is_newer(presented, current))
        };
        presented.self_contained
            && !self.connected
            && self.confirmed
            && self.closed.is_none()
            && !self.grants.as_ref().is_some_and(listed)
    }
}

/// Whether the grant is of a later resume than the other.
fn is_newer(grant: &Grant, other: &Grant) -> bool {
    grant.volumes.iter().all(|volume| {
        let before = other.volumes.iter().find(|o| o.uid == volume.uid);
        before.is_none_or(|before| volume.generation > before.generation)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    fn word(endpoint: &str) -> (tempfile::TempDir, Word) {
        let dir = tempfile::tempdir().unwrap();
        let word = Word::new(endpoint, dir.path()).unwrap();
        (dir, word)
    }

    fn grant(generation: u64) -> Grant {
        grant::parse(&text(generation)).unwrap()
    }

    fn text(generation: u64) -> String {
        format!(
            r#"{{"version":1,"actor":{{"namespace":"agents","name":"a","uid":"u1"}},"node":"n1","audience":{{"kind":"pod","namespace":"agents"}},"volumes":[{{"name":"v","uid":"v1","generation":{generation},"driver":"d.test","volumeId":"x","accessMode":"SINGLE_NODE_WRITER","publishContext":{{"token":"t{generation}"}}}}],"mounts":[{{"volume":"v","mountPath":"/v"}}]}}"#
        )
    }

    fn whole(generations: &[u64]) -> api::Grants {
        api::Grants {
            first: true,
            last: true,
            put: generations.iter().map(|g| text(*g)).collect(),
            removed: Vec::new(),
        }
    }

    fn ready() -> api::Welcome {
        api::Welcome {
            ready: true,
            message: String::new(),
        }
    }

    #[test]
    fn without_a_word_since_the_start_nothing_is_accepted_and_the_endpoint_is_named() {
        let (_dir, word) = word("tcp://control:7443");
        let refused = word.current(&grant(1)).unwrap_err();
        assert_eq!(refused.kind(), Kind::Unavailable);
        assert!(refused.full_message().contains("tcp://control:7443"));
    }

    #[test]
    fn the_word_gives_the_contexts_and_stands_when_the_line_is_lost() {
        let (_dir, word) = word("x");
        word.welcome(ready()).unwrap();
        word.take(whole(&[3])).unwrap();
        word.lost();
        let current = word.current(&grant(3).without_contexts()).unwrap();
        assert_eq!(current.volumes[0].publish_context["token"], "t3");
        let newer = word.current(&grant(4)).unwrap_err();
        assert_eq!(newer.kind(), Kind::Unavailable);
        let older = word.current(&grant(2)).unwrap_err();
        assert_eq!(older.kind(), Kind::FailedPrecondition);
    }

    #[test]
    fn a_whole_word_replaces_the_last_one_only_when_it_is_complete() {
        let (_dir, word) = word("x");
        word.welcome(ready()).unwrap();
        word.take(whole(&[3])).unwrap();
        let mut part = whole(&[]);
        part.last = false;
        word.take(part).unwrap();
        assert!(word.current(&grant(3)).is_ok());
        let mut part = whole(&[]);
        part.first = false;
        word.take(part).unwrap();
        assert!(word.current(&grant(3)).is_err());
    }

    #[test]
    fn what_is_removed_is_over_and_a_node_that_is_not_welcome_accepts_nothing() {
        let (_dir, word) = word("x");
        word.welcome(ready()).unwrap();
        word.take(whole(&[3])).unwrap();
        word.welcome(api::Welcome {
            ready: false,
            message: "it was fenced".into(),
        })
        .unwrap();
        let refused = word.current(&grant(3)).unwrap_err();
        assert!(refused.full_message().contains("it was fenced"));
        word.welcome(ready()).unwrap();
        word.take(api::Grants {
            removed: vec!["agents/a".into()],
            ..api::Grants::default()
        })
        .unwrap();
        let over = word.current(&grant(3)).unwrap_err();
        assert_eq!(over.kind(), Kind::FailedPrecondition);
    }

    /// The grant of a resume `--with-contexts`.
    fn whole_grant(generation: u64) -> Grant {
        grant(generation).with_contexts()
    }

    #[test]
    fn a_signed_grant_with_its_contexts_counts_by_itself_on_a_node_that_is_cut_off() {
        let (_dir, word) = word("x");
        word.welcome(ready()).unwrap();
        word.take(whole(&[3])).unwrap();
        let there = word.current_signed(&whole_grant(4)).unwrap_err();
        assert_eq!(there.kind(), Kind::Unavailable, "its word may come yet");
        word.lost();
        let taken = word.current_signed(&whole_grant(4)).unwrap();
        assert_eq!(taken.volumes[0].publish_context["token"], "t4");
        assert!(
            word.current(&whole_grant(4)).is_err(),
            "not without a signature"
        );
        assert!(
            word.current_signed(&grant(4)).is_err(),
            "not without its contexts"
        );
        assert!(word.current_signed(&whole_grant(2)).is_err(), "it is over");
        let mut changed = whole_grant(3);
        changed.mounts[0].mount_path = "/elsewhere".into();
        assert!(
            word.current_signed(&changed).is_err(),
            "the word has another"
        );
        // What the last word lacked is for the records to judge.
        word.take(api::Grants {
            removed: vec!["agents/a".into()],
            ..api::Grants::default()
        })
        .unwrap();
        assert!(word.current_signed(&whole_grant(4)).is_ok());
    }

    #[test]
    fn of_a_state_directory_that_is_new_no_grant_counts_until_it_is_confirmed() {
        let (dir, first) = word("tcp://control:7443");
        let refused = first.current_signed(&whole_grant(1)).unwrap_err();
        assert!(
            refused.to_string().contains("has not confirmed"),
            "{refused}"
        );
        first.welcome(ready()).unwrap();
        // After a restart, without a word.
        let again = || Word::new("x", dir.path()).unwrap();
        assert!(again().current_signed(&whole_grant(1)).is_ok());
        // A node that was fenced stays closed also through a restart.
        again()
            .welcome(api::Welcome {
                ready: false,
                message: "it was fenced".into(),
            })
            .unwrap();
        assert!(again().current_signed(&whole_grant(1)).is_err());
        again().welcome(ready()).unwrap();
        assert!(again().current_signed(&whole_grant(1)).is_ok());
        // A wiped directory has another instance, whatever was copied back into it.
        std::fs::remove_file(dir.path().join("instance")).unwrap();
        assert!(again().current_signed(&whole_grant(1)).is_err());
    }
}
