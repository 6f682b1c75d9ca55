// SPDX-License-Identifier: Apache-2.0
//! Volumes that drivers have and no record knows: reported, and deleted only
//! when told to.

use std::collections::{BTreeSet, HashMap};

use super::{
    Control,
    cell::blocking,
    record::{self, Tombstone, VolumePhase, VolumeRecord, key},
    store, tombstones,
};
use crate::{
    csi::{DeleteVolume, Driver, ListedVolume},
    error::{Error, Result},
    model::{DriverName, SecretRefs, SecretUse, VolumeUid},
};

/// A volume of ours that no record knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Orphan {
    /// Its driver.
    pub driver: DriverName,
    /// The driver's id.
    pub volume_id: String,
    /// Why it is taken for ours.
    pub why: String,
    /// 0: unknown.
    pub capacity_bytes: u64,
    /// The nodes that it is attached to; none: the driver does not tell.
    pub nodes: Option<BTreeSet<String>>,
    /// Whether it was deleted just now.
    pub deleted: bool,
    /// Why it was not, though it was to be.
    pub message: String,
    secret_refs: SecretRefs,
}

/// Which orphans are to be deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Which {
    /// Those with these ids.
    These(BTreeSet<String>),
    /// All that are attached nowhere.
    All,
}

/// What is known of volumes here.
struct Known {
    /// By the driver's id.
    ids: HashMap<(DriverName, String), VolumeUid>,
    /// By the name that it was created with.
    names: HashMap<(DriverName, String), VolumeUid>,
    /// Drivers of volumes whose ids are not known yet.
    unnamed: BTreeSet<DriverName>,
    tombstones: Buried,
}

/// Tombstones.
struct Buried {
    all: Vec<Tombstone>,
    ids: HashMap<(DriverName, String), usize>,
    names: HashMap<(DriverName, String), usize>,
}

impl Buried {
    fn new(all: Vec<Tombstone>) -> Self {
        let (mut ids, mut names) = (HashMap::new(), HashMap::new());
        for (at, tombstone) in all.iter().enumerate() {
            let driver = &tombstone.driver;
            names.insert((driver.clone(), tombstone.csi_name.clone()), at);
            if !tombstone.volume_id.is_empty() {
                ids.insert((driver.clone(), tombstone.volume_id.clone()), at);
            }
        }
        Self { all, ids, names }
    }
}

impl Control {
    /// The orphans of one driver or of all, and what could not be looked at.
    pub async fn orphans(&self, driver: Option<&DriverName>) -> Result<(Vec<Orphan>, Vec<String>)> {
        let drivers = match driver {
            Some(name) => vec![self.drivers.get(name)?],
            None => self.drivers.list(),
        };
        let (mut orphans, mut notes) = (Vec::new(), Vec::new());
        for asked in drivers {
            match self.orphans_of(&asked, &mut notes).await {
                Ok(found) => orphans.extend(found),
                // Asked for by name, it is an error; else the others go on.
                Err(error) if driver.is_some() => return Err(error),
                Err(error) => notes.push(error.full_message()),
            }
        }
        Ok((orphans, notes))
    }

    async fn orphans_of(&self, driver: &Driver, notes: &mut Vec<String>) -> Result<Vec<Orphan>> {
        let listed = driver.list_volumes().await?;
        // Read after the listing: what was made meanwhile has its record by now.
        let known = self.known().await?;
        let mut unnamed = 0;
        let mut orphans = Vec::new();
        for volume in listed {
            match judge(&known, driver.name(), volume) {
                Judged::Orphan(orphan) => orphans.push(orphan),
                Judged::MayBeNew => unnamed += 1,
                Judged::Known => {}
            }
        }
        if unnamed > 0 {
            notes.push(format!(
                "CSI driver {} has {unnamed} volumes with the ids of deleted ones while volumes are being created, whose ids are not known yet: look again later",
                driver.name()
            ));
        }
        Ok(orphans)
    }

    async fn known(&self) -> Result<Known> {
        let store = self.store.clone();
        blocking(&self.tasks, move || {
            let reader = store.snapshot()?;
            let mut known = Known {
                tombstones: Buried::new(tombstones::all(&*reader)?),
                ids: HashMap::new(),
                names: HashMap::new(),
                unnamed: BTreeSet::new(),
            };
            store::each(&*reader, key::VOLUMES, |key, stored| {
                known.add(record::decode(&key, &stored.value)?);
                Ok(())
            })?;
            Ok(known)
        })
        .await
    }

    /// Deletes orphans; never one that is attached anywhere. Gives every orphan
    /// that was looked at, and what became of it.
    pub async fn delete_orphans(
        &self,
        driver: Option<&DriverName>,
        which: Which,
    ) -> Result<(Vec<Orphan>, Vec<String>)> {
        let (first, _) = self.orphans(driver).await?;
        if let Which::These(ids) = &which {
            let found: BTreeSet<_> = first.iter().map(|o| &o.volume_id).collect();
            let others: Vec<_> = ids.iter().filter(|id| !found.contains(id)).collect();
            if !others.is_empty() {
                return Err(Error::precondition(format!(
                    "not an orphan, so that nothing was deleted: {others:?}; `volume orphans` lists them"
                )));
            }
        }
        let wanted = |orphan: &Orphan| match &which {
            Which::These(ids) => ids.contains(&orphan.volume_id),
            Which::All => true,
        };
        // Looked at once more right before: only what is still one is deleted.
        let (mut orphans, notes) = self.orphans(driver).await?;
        let twice = |o: &Orphan| {
            let same = |f: &Orphan| f.driver == o.driver && f.volume_id == o.volume_id;
            first.iter().any(same)
        };
        for orphan in &mut orphans {
            if wanted(orphan) && twice(orphan) {
                match self.delete_orphan(orphan).await {
                    Ok(()) => orphan.deleted = true,
                    Err(error) => orphan.message = error.full_message(),
                }
            }
        }
        Ok((orphans, notes))
    }

    async fn delete_orphan(&self, orphan: &Orphan) -> Result<()> {
        if let Some(nodes) = orphan.nodes.as_ref().filter(|n| !n.is_empty()) {
            let nodes: Vec<_> = nodes.iter().map(String::as_str).collect();
            return Err(Error::precondition(format!(
                "it is attached to {}: not deleted",
                nodes.join(", ")
            )));
        }
        let known = self.known().await?;
        if let Some(owner) = known.owner(&orphan.driver, &orphan.volume_id) {
            return Err(Error::precondition(format!(
                "volume {} has this id by now: not deleted",
                owner
            )));
        }
        let vault = &self.settings.vault;
        let request = DeleteVolume {
            volume_id: orphan.volume_id.clone(),
            secrets: vault
                .read(&orphan.secret_refs, SecretUse::Provisioner)
                .await?,
        };
        let driver = self.drivers.get(&orphan.driver)?;
        driver.delete_volume(&request).await?;
        tracing::warn!(driver = %orphan.driver, volume_id = orphan.volume_id, why = orphan.why, "deleted a volume that no record knew");
        Ok(())
    }
}

impl Known {
    /// The record that an id belongs to: by the id itself, or by the name in it.
    fn owner(&self, driver: &DriverName, volume_id: &str) -> Option<&VolumeUid> {
        let by_id = self.ids.get(&(driver.clone(), volume_id.to_owned()));
        by_id.or_else(|| self.names.get(&(driver.clone(), name_in(volume_id)?)))
    }

    fn add(&mut self, volume: VolumeRecord) {
        let (uid, driver) = (volume.uid, volume.driver);
        self.names
            .insert((driver.clone(), volume.create.name), uid.clone());
        if !volume.volume_id.is_empty() {
            self.ids.insert((driver, volume.volume_id), uid);
        } else if volume.phase != VolumePhase::Intent {
            self.unnamed.insert(driver);
        }
    }
}

enum Judged {
    /// It has a record, or is none of ours.
    Known,
    Orphan(Orphan),
    /// It has the id of a deleted volume, and may be a new one all the same.
    MayBeNew,
}

fn judge(known: &Known, driver: &DriverName, volume: ListedVolume) -> Judged {
    if known.owner(driver, &volume.volume_id).is_some() {
        return Judged::Known;
    }
    let buried = &known.tombstones;
    let found = |map: &HashMap<_, usize>, text: &str| {
        let at = map.get(&(driver.clone(), text.to_owned()))?;
        buried.all.get(*at)
    };
    let (why, tombstone) = match name_in(&volume.volume_id) {
        Some(name) => (
            format!("its id holds the name {name}, and no volume has that"),
            found(&buried.names, &name),
        ),
        None => {
            let Some(tombstone) = found(&buried.ids, &volume.volume_id) else {
                return Judged::Known;
            };
            if known.unnamed.contains(driver) {
                return Judged::MayBeNew;
            }
            let why = format!(
                "volume {} had this id, and was deleted at {}",
                tombstone.uid, tombstone.deleted_at
            );
            (why, Some(tombstone))
        }
    };
    Judged::Orphan(Orphan {
        driver: driver.clone(),
        why,
        capacity_bytes: volume.capacity_bytes,
        nodes: volume.published_nodes,
        deleted: false,
        message: String::new(),
        secret_refs: tombstone.map(|t| t.secret_refs.clone()).unwrap_or_default(),
        volume_id: volume.volume_id,
    })
}

/// The name `av-<uuid>` in a volume id, as we make it.
fn name_in(volume_id: &str) -> Option<String> {
    const GROUPS: [usize; 5] = [8, 4, 4, 4, 12];
    let is_uuid = |text: &str| {
        let mut groups = text.split('-');
        let fits = GROUPS.iter().all(|len| {
            let hex = |g: &str| g.len() == *len && g.bytes().all(|b| b.is_ascii_hexdigit());
            groups.next().is_some_and(hex)
        });
        fits && groups.next().is_none()
    };
    let lower = volume_id.to_ascii_lowercase();
    lower.match_indices("av-").find_map(|(at, _)| {
        let uuid = lower.get(at + 3..at + 3 + 36)?;
        is_uuid(uuid).then(|| format!("av-{uuid}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_name_is_found_anywhere_in_an_id_and_nothing_else_is_taken_for_it() {
        let uuid = "0190f1c2-7a4b-7c3d-8e5f-0123456789ab";
        let name = format!("av-{uuid}");
        for id in [
            name.clone(),
            format!("pool/{name}"),
            format!("server/share#AV-{}#", uuid.to_uppercase()),
            format!("av-x-{name}"),
        ] {
            assert_eq!(name_in(&id).as_ref(), Some(&name), "{id}");
        }
        for id in ["", "av-", "av-1", uuid, &name[..38], "av-ä190f1c2-7a4b"] {
            assert_eq!(name_in(id), None, "{id}");
        }
    }
}
