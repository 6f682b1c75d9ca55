// SPDX-License-Identifier: Apache-2.0
//! `store check`: whether every record can be read, what it says fits what others
//! say, and the index is that of the records. Reads one snapshot, changes nothing.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::{
    index,
    record::{
        self, ActorPhase, ActorRecord, AttachmentPhase, AttachmentRecord, StorageClassRecord,
        TemplateRecord, TemplateRevision, Tombstone, VolumePhase, VolumeRecord, key,
    },
    store::{self, Reader},
};
use crate::{
    error::Result,
    model::{ActorUid, VolumeUid},
};

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The record or index entry.
    pub key: String,
    /// What is wrong with it.
    pub problem: String,
    /// What to do.
    pub remedy: &'static str,
}

/// What was looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Checked {
    /// Records, by the first part of their keys.
    pub records: BTreeMap<String, u64>,
    /// Index entries.
    pub entries: u64,
    /// What is wrong.
    pub findings: Vec<Finding>,
}

const RESTORE: &str = "restore the store from a backup, or ask for help with this key and file";
const REBUILD: &str = "make the index anew: `actor-volumes store check --repair-indexes`";
const REPORT: &str =
    "keep a copy of the file and report it; look at the volume and its node before anything else";

/// How many findings are kept.
const MOST: usize = 1000;

#[derive(Default)]
struct Seen {
    actors: HashMap<ActorUid, (String, ActorPhase)>,
    volumes: HashMap<VolumeUid, Volume>,
    attachments: HashSet<VolumeUid>,
    checked: Checked,
    expected: HashSet<String>,
}

struct Volume {
    owner: Option<ActorUid>,
    phase: VolumePhase,
    generation: u64,
}

impl Seen {
    fn find(&mut self, key: &str, problem: impl Into<String>, remedy: &'static str) {
        if self.checked.findings.len() < MOST {
            self.checked.findings.push(Finding {
                key: key.to_owned(),
                problem: problem.into(),
                remedy,
            });
        }
    }
}

/// Checks everything.
pub fn check(reader: &dyn Reader) -> Result<Checked> {
    let mut seen = Seen::default();
    // Actors come before attachments and volumes after both: what refers to
    // something that was not read yet is looked at in the end.
    let mut owned = Vec::new();
    let mut attached = Vec::new();
    store::each(reader, "", |key, stored| {
        let kind = key.split('/').next().unwrap_or_default().to_owned();
        *seen.checked.records.entry(kind).or_default() += 1;
        match read(&key, &stored.value) {
            Err(error) => seen.find(&key, error.full_message(), RESTORE),
            Ok(Known::Actor(actor)) => take_actor(&mut seen, &key, *actor),
            Ok(Known::Volume(volume)) => {
                take_volume(&mut seen, &key, &volume);
                owned.push((key.clone(), volume.uid));
            }
            Ok(Known::Attachment(attachment)) => {
                if key != key::attachment(&attachment.volume, &attachment.node) {
                    seen.find(&key, "it is another attachment's record", RESTORE);
                }
                seen.attachments.insert(attachment.volume.clone());
                let generation = attachment.generation.0;
                attached.push((key.clone(), attachment.volume, attachment.phase, generation));
            }
            Ok(Known::Other) => {}
            Ok(Known::Unknown) => {
                let problem = "it is of a kind that this version does not know";
                seen.find(&key, problem, "use the version that wrote it");
            }
        }
        if let Ok(entries) = index::of(&key, &stored.value) {
            let entries = entries
                .into_iter()
                .map(|(key, told)| format!("{key}\0{told}"));
            seen.expected.extend(entries);
        }
        Ok(())
    })?;
    refer(&mut seen, owned, attached);
    compare_index(reader, &mut seen)?;
    Ok(seen.checked)
}

enum Known {
    Actor(Box<ActorRecord>),
    Volume(Box<VolumeRecord>),
    Attachment(Box<AttachmentRecord>),
    Other,
    Unknown,
}

/// Reads the record for what its key says.
fn read(key: &str, value: &[u8]) -> Result<Known> {
    let other = |read: Result<()>| read.map(|()| Known::Other);
    let kinds = [
        key::ACTORS,
        key::VOLUMES,
        key::ATTACHMENTS,
        key::TEMPLATES,
        key::TEMPLATE_REVISIONS,
        key::CLASSES,
        key::TOMBSTONES,
        key::NODES,
    ];
    match kinds.into_iter().find(|kind| key.starts_with(kind)) {
        Some(key::ACTORS) => Ok(Known::Actor(Box::new(record::decode(key, value)?))),
        Some(key::VOLUMES) => Ok(Known::Volume(Box::new(record::decode(key, value)?))),
        Some(key::ATTACHMENTS) => Ok(Known::Attachment(Box::new(record::decode(key, value)?))),
        Some(key::TEMPLATES) => other(record::decode::<TemplateRecord>(key, value).map(drop)),
        Some(key::TEMPLATE_REVISIONS) => {
            other(record::decode::<TemplateRevision>(key, value).map(drop))
        }
        Some(key::CLASSES) => other(record::decode::<StorageClassRecord>(key, value).map(drop)),
        Some(key::TOMBSTONES) => other(record::decode::<Tombstone>(key, value).map(drop)),
        Some(key::NODES) => other(record::decode::<super::nodes::NodeRecord>(key, value).map(drop)),
        _ => Ok(Known::Unknown),
    }
}

fn take_actor(seen: &mut Seen, key: &str, actor: ActorRecord) {
    if key != key::actor(&actor.actor) {
        seen.find(key, format!("it is the record of {}", actor.actor), RESTORE);
    }
    let placed = matches!(
        actor.phase,
        ActorPhase::Resuming | ActorPhase::Resumed | ActorPhase::Suspending
    );
    if placed != actor.placement.is_some() {
        let problem = format!(
            "it is {}, and has {} node",
            actor.phase.as_str(),
            if placed { "no" } else { "a" }
        );
        seen.find(key, problem, REPORT);
    }
    let known = (key.to_owned(), actor.phase);
    if let Some((other, _)) = seen.actors.insert(actor.uid, known) {
        seen.find(key, format!("it has the uid of {other}"), REPORT);
    }
}

fn take_volume(seen: &mut Seen, key: &str, volume: &VolumeRecord) {
    if key != key::volume(&volume.uid) {
        seen.find(key, format!("it is the record of {}", volume.uid), RESTORE);
    }
    if volume.revoked > volume.generation {
        let problem = format!(
            "generation {} was revoked, and the last one given out was {}",
            volume.revoked.0, volume.generation.0
        );
        seen.find(key, problem, REPORT);
    }
    let has_id = matches!(volume.phase, VolumePhase::Ready | VolumePhase::Retained);
    if has_id && volume.volume_id.is_empty() {
        let problem = format!("it is {} without an id", volume.phase.as_str());
        seen.find(key, problem, REPORT);
    }
    let owner = (!volume.is_nobodys()).then(|| volume.actor_uid.clone());
    let known = Volume {
        owner,
        phase: volume.phase,
        generation: volume.generation.0,
    };
    seen.volumes.insert(volume.uid.clone(), known);
}

/// What refers to others.
fn refer(
    seen: &mut Seen,
    owned: Vec<(String, VolumeUid)>,
    attached: Vec<(String, VolumeUid, AttachmentPhase, u64)>,
) {
    for (key, uid) in owned {
        let Some(volume) = seen.volumes.get(&uid) else {
            continue;
        };
        let problem = match &volume.owner {
            Some(owner) if !seen.actors.contains_key(owner) => {
                "its actor does not exist, and it is not retained"
            }
            None if seen.attachments.contains(&uid) => "it is nobody's, and attached",
            _ => continue,
        };
        seen.find(&key, problem, REPORT);
    }
    for (key, uid, phase, generation) in attached {
        let problem = match seen.volumes.get(&uid) {
            None => "its volume does not exist".to_owned(),
            Some(volume) if generation > volume.generation => format!(
                "it was made for generation {generation}, and the last one given out was {}",
                volume.generation
            ),
            Some(volume) if phase == AttachmentPhase::Attached => {
                let gone = matches!(
                    volume.phase,
                    VolumePhase::Gone | VolumePhase::Intent | VolumePhase::Retained
                );
                let owner = volume.owner.as_ref().and_then(|o| seen.actors.get(o));
                match owner {
                    _ if gone => format!("it is attached, and {}", volume.phase.as_str()),
                    Some((actor, ActorPhase::Suspended)) => {
                        format!("it is attached, and {actor} is suspended")
                    }
                    _ => continue,
                }
            }
            Some(_) => continue,
        };
        seen.find(&key, problem, REPORT);
    }
}

fn compare_index(reader: &dyn Reader, seen: &mut Seen) -> Result<()> {
    store::each_entry(reader, "", |key, told| {
        seen.checked.entries += 1;
        if !seen.expected.remove(&format!("{key}\0{told}")) {
            seen.find(&key, "no record stands for this index entry", REBUILD);
        }
        Ok(())
    })?;
    let mut missing: Vec<_> = std::mem::take(&mut seen.expected).into_iter().collect();
    missing.sort_unstable();
    for entry in missing {
        let key = entry.split('\0').next().unwrap_or_default();
        seen.find(key, "the index lacks this entry", REBUILD);
    }
    Ok(())
}
