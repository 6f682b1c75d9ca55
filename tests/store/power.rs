// SPDX-License-Identifier: Apache-2.0
//! A power cut at every moment: of what was written since the last sync, any part
//! is on the disk, sector by sector. `AV_SEED` repeats a run, `AV_IMAGES` makes
//! it longer.

use std::panic::{AssertUnwindSafe, catch_unwind};

use actor_volumes::control::store::{Reader, Revision};

use crate::disk::{Change, Disk, SECTOR, apply, pair, write_pair};

/// One moment: what is on the disk for sure, and what may be.
struct Moment {
    synced: Vec<u8>,
    since: Vec<Change>,
}

fn env(name: &str, default: impl FnOnce() -> u64) -> u64 {
    let text = std::env::var(name).ok();
    text.map_or_else(default, |t| t.parse().expect("a number"))
}

/// What a cut at that moment may leave.
fn image(moment: &Moment, random: &mut fastrand::Rng) -> Vec<u8> {
    let mut bytes = moment.synced.clone();
    let upto = random.usize(..=moment.since.len());
    // In order up to some point, or any of them; and torn in the midst.
    let in_order = random.bool();
    for (at, change) in moment.since.iter().enumerate() {
        let kept = if in_order { at < upto } else { random.bool() };
        if kept {
            apply(&mut bytes, change);
        } else if let Change::Write(offset, data) = change
            && random.bool()
        {
            for (n, sector) in data.chunks(SECTOR).enumerate() {
                if random.bool() {
                    apply(
                        &mut bytes,
                        &Change::Write(offset + n * SECTOR, sector.to_vec()),
                    );
                }
            }
        }
    }
    bytes
}

#[test]
fn whatever_a_power_cut_leaves_has_every_acknowledged_batch_whole() {
    let seed = env("AV_SEED", || fastrand::u64(..));
    let images = env("AV_IMAGES", || 4000);
    println!("AV_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let (mut tried, mut new, mut old) = (0, 0, 0);
    let mut run = 0;
    while tried < images {
        run += 1;
        // A store gets its name when it is whole: a cut before leaves none.
        let disk = Disk::default();
        drop(disk.open().unwrap());
        let mut acknowledged: Vec<(usize, String, Revision)> = Vec::new();
        for step in 0..8 {
            let n = random.usize(..6);
            let value = format!("{run}-{step}-{}", "x".repeat(random.usize(..6000)));
            // Cuts while it is opened, while it writes, and while it is closed.
            let (opening, store) = record(&disk, || disk.open().unwrap());
            let (writing, revision) = record(&disk, || write_pair(&store, n, &value).unwrap());
            let (closing, ()) = record(&disk, || drop(store));
            let mut after = acknowledged.clone();
            after.retain(|(other, ..)| *other != n);
            after.push((n, value.clone(), revision));
            let phases = [
                (opening, &acknowledged, None),
                (writing, &acknowledged, Some((n, value.as_str()))),
                (closing, &after, None),
            ];
            for (moments, acknowledged, under_way) in phases {
                for moment in &moments {
                    for _ in 0..4 {
                        let bytes = image(moment, &mut random);
                        match check(bytes, acknowledged, under_way) {
                            Ok(true) => new += 1,
                            Ok(false) => old += 1,
                            Err(problem) => {
                                panic!("AV_SEED={seed} run {run} step {step}: {problem}")
                            }
                        }
                        tried += 1;
                    }
                }
            }
            acknowledged = after;
        }
    }
    println!("{tried} images, {new} with the batch under way, {old} without");
    assert!(
        new > 0 && old > 0,
        "cuts before and after the commit were met"
    );
}

/// Every moment of a write: after each change that is not synced yet.
fn record<T>(disk: &Disk, write: impl FnOnce() -> T) -> (Vec<Moment>, T) {
    let before = {
        let content = disk.lock();
        (content.synced.clone(), content.since.clone())
    };
    disk.start();
    let done = write();
    let mut moments = Vec::new();
    let (mut synced, mut since) = before;
    for event in disk.stop() {
        match event {
            Some(change) => since.push(change),
            None => {
                moments.push(Moment {
                    synced: synced.clone(),
                    since: since.clone(),
                });
                for change in since.drain(..) {
                    apply(&mut synced, &change);
                }
            }
        }
    }
    moments.push(Moment { synced, since });
    (moments, done)
}

/// Whether the batch under way is there; an error if anything is not as it must be.
fn check(
    bytes: Vec<u8>,
    acknowledged: &[(usize, String, Revision)],
    under_way: Option<(usize, &str)>,
) -> Result<bool, String> {
    let opened = catch_unwind(AssertUnwindSafe(|| Disk::of(bytes).open()));
    let store = opened
        .map_err(|_| "opening it panicked".to_owned())?
        .map_err(|e| e.full_message())?;
    let value = |key: &str| -> Result<Option<String>, String> {
        let found = store.get(key).map_err(|e| e.full_message())?;
        Ok(found.map(|s| String::from_utf8(s.value).unwrap_or_default()))
    };
    let mut last = Revision(0);
    let mut new = false;
    for n in 0..6 {
        let [left, right] = pair(n);
        let (left, right) = (value(&left)?, value(&right)?);
        if left != right {
            return Err(format!("batch {n} is there by half"));
        }
        let known = acknowledged.iter().find(|(other, ..)| *other == n);
        let is_new = under_way.is_some_and(|(m, v)| m == n && left.as_deref() == Some(v));
        if let Some((_, _, revision)) = known {
            last = last.max(*revision);
        }
        new |= is_new;
        if !is_new && left.as_ref() != known.map(|(_, value, _)| value) {
            return Err(format!("batch {n} is not what was acknowledged"));
        }
    }
    let next = write_pair(&store, 99, "after").map_err(|e| e.full_message())?;
    if next <= last {
        return Err(format!("revision {} after {}", next.0, last.0));
    }
    let listed = store.list("", None, 100).map_err(|e| e.full_message())?;
    if listed.items.len() % 2 != 0 {
        return Err("a key without its other half is listed".into());
    }
    Ok(new)
}
