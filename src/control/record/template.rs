// SPDX-License-Identifier: Apache-2.0
//! Templates, their revisions, and which volume a name of them stands for.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::volume::first_revision;
use crate::{api::template::Template, model::DnsLabel};

/// The names of a revision's volumes, each with the revision in which it came in.
pub type Identities = BTreeMap<DnsLabel, u64>;

/// A template's name, its newest revision and how far its rollout is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TemplateRecord {
    /// Its name.
    pub name: DnsLabel,
    /// The newest revision; the first is 1.
    pub revision: u64,
    /// When that was applied.
    pub applied_at: Timestamp,
    /// The last revision whose rollout was complete while volumes waited for
    /// that; 0: none.
    #[serde(default)]
    pub complete: u64,
    /// The volumes of that revision.
    #[serde(default)]
    pub survivors: Identities,
}

impl TemplateRecord {
    /// One whose rollout was never complete.
    pub fn new(name: DnsLabel, revision: u64, applied_at: Timestamp) -> Self {
        Self {
            name,
            revision,
            applied_at,
            complete: 0,
            survivors: Identities::new(),
        }
    }

    /// Whether volumes of that identity are over: the rollout of a revision
    /// without them was complete. They come back no more.
    pub fn is_over(&self, name: &DnsLabel, introduced: u64) -> bool {
        introduced <= self.complete && self.survivors.get(name) != Some(&introduced)
    }
}

/// One revision of a template. It never changes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TemplateRevision {
    /// Its number.
    pub revision: u64,
    /// What was applied.
    pub template: Template,
    /// Which volumes its names stand for.
    #[serde(default)]
    pub identities: Identities,
    /// When.
    pub applied_at: Timestamp,
}

impl TemplateRevision {
    /// The revision in which the name came in.
    pub fn introduced(&self, name: &DnsLabel) -> u64 {
        let known = self.identities.get(name).copied();
        known.unwrap_or_else(first_revision)
    }

    /// The first revision, or the one that follows `last` with this content.
    pub fn following(last: Option<&Self>, template: Template, applied_at: Timestamp) -> Self {
        let revision = last.map_or(0, |l| l.revision) + 1;
        let names = template.volumes.iter().map(|v| v.name.clone());
        let identities = names.map(|name| {
            let there = last.filter(|l| l.template.volumes.iter().any(|v| v.name == name));
            let introduced = there.map_or(revision, |l| l.introduced(&name));
            (name, introduced)
        });
        Self {
            revision,
            identities: identities.collect(),
            template,
            applied_at,
        }
    }

    /// The one that follows `newest` and brings the content and the volumes of
    /// this one back. What grew meanwhile stays grown; volumes that are over are
    /// new ones.
    pub fn again(&self, newest: &Self, head: &TemplateRecord, applied_at: Timestamp) -> Self {
        let revision = newest.revision + 1;
        let mut template = self.template.clone();
        let mut identities = Identities::new();
        for volume in &mut template.volumes {
            let mut introduced = self.introduced(&volume.name);
            if head.is_over(&volume.name, introduced) {
                introduced = revision;
            }
            let there = newest.template.volumes.iter();
            let mut same = there.filter(|v| v.name == volume.name);
            if let Some(last) = same.next()
                && newest.introduced(&last.name) == introduced
                && last.capacity.bytes() > volume.capacity.bytes()
            {
                volume.capacity = last.capacity;
            }
            identities.insert(volume.name.clone(), introduced);
        }
        Self {
            revision,
            template,
            identities,
            applied_at,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::template;

    fn content(volumes: &[(&str, &str)]) -> Template {
        let mut text =
            "kind: ActorTemplate\nmetadata: {name: t}\nspec:\n  containers:\n  - volumeMounts:\n"
                .to_owned();
        for (name, _) in volumes {
            text += &format!("    - {{name: {name}, mountPath: /{name}}}\n");
        }
        text += "  volumes:\n";
        for (name, capacity) in volumes {
            text += &format!(
                "  - name: {name}\n    externalVolumeTemplate: {{capacity: {capacity}, storageClassName: pool}}\n"
            );
        }
        template::parse(&text).unwrap()
    }

    fn next(last: &TemplateRevision, volumes: &[(&str, &str)]) -> TemplateRevision {
        TemplateRevision::following(Some(last), content(volumes), Timestamp::UNIX_EPOCH)
    }

    fn introduced(revision: &TemplateRevision) -> Vec<u64> {
        revision.identities.values().copied().collect()
    }

    fn head(complete: &TemplateRevision) -> TemplateRecord {
        TemplateRecord {
            complete: complete.revision,
            survivors: complete.identities.clone(),
            ..TemplateRecord::new(
                "t".parse().unwrap(),
                complete.revision,
                Timestamp::UNIX_EPOCH,
            )
        }
    }

    #[test]
    fn a_name_keeps_its_number_until_it_is_removed() {
        let one = content(&[("a", "1Gi"), ("b", "1Gi")]);
        let one = TemplateRevision::following(None, one, Timestamp::UNIX_EPOCH);
        assert_eq!(introduced(&one), [1, 1]);
        let two = next(&one, &[("a", "1Gi"), ("c", "1Gi")]);
        assert_eq!(introduced(&two), [1, 2]);
        let three = next(&two, &[("a", "1Gi"), ("b", "1Gi")]);
        assert_eq!(introduced(&three), [1, 3]);
    }

    #[test]
    fn rolling_back_brings_the_old_volumes_back_and_shrinks_none() {
        let one = content(&[("a", "1Gi"), ("b", "1Gi")]);
        let one = TemplateRevision::following(None, one, Timestamp::UNIX_EPOCH);
        let two = next(&one, &[("a", "2Gi")]);
        let started = TemplateRecord::new("t".parse().unwrap(), 2, Timestamp::UNIX_EPOCH);
        let back = one.again(&two, &started, Timestamp::UNIX_EPOCH);
        assert_eq!((back.revision, introduced(&back)), (3, vec![1, 1]));
        assert_eq!(back.template.volumes[0].capacity.bytes(), 2 << 30);
        // After the rollout was complete, b is another volume.
        let back = one.again(&two, &head(&two), Timestamp::UNIX_EPOCH);
        assert_eq!(introduced(&back), [1, 3]);
    }

    #[test]
    fn what_came_in_after_a_complete_rollout_is_not_over() {
        let one = content(&[("a", "1Gi")]);
        let one = TemplateRevision::following(None, one, Timestamp::UNIX_EPOCH);
        let two = next(&one, &[("b", "1Gi")]);
        let head = head(&two);
        let a = "a".parse().unwrap();
        assert!(head.is_over(&a, 1));
        assert!(!head.is_over(&a, 3));
    }
}
