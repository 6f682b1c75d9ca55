// SPDX-License-Identifier: Apache-2.0
//! The public keys that a node trusts, kept up with the directories that hold them.
//!
//! Signatures are verified from memory alone, since the runtime waits meanwhile. One
//! task reads the directories, again and again, so that a directory that hangs holds
//! up nothing but what would be read from it.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::{
    KeySet,
    file::{self, PublicFiles},
};
use crate::error::Result;

/// How often the directories are read.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// A look that somebody asks for comes not more often than this, and he waits for it
/// not longer than that.
const NOT_OFTENER: Duration = Duration::from_secs(1);
const WAIT: Duration = Duration::from_millis(100);

/// The public keys that a node trusts.
pub struct TrustedKeys {
    dirs: Vec<PathBuf>,
    seen: Mutex<Seen>,
    /// Asks for a look before its time.
    ask: Notify,
    /// Counts the looks.
    looks: watch::Sender<u64>,
}

#[derive(Default)]
struct Seen {
    /// By the directory's place in the list.
    files: BTreeMap<usize, PublicFiles>,
    set: Arc<KeySet>,
    /// What cannot be read, with why.
    problems: BTreeMap<PathBuf, String>,
    asked: Option<Instant>,
}

impl TrustedKeys {
    /// Reads the directories once. They need not be there yet.
    pub fn open(dirs: Vec<PathBuf>) -> Self {
        let trusted = Self {
            dirs,
            seen: Mutex::default(),
            ask: Notify::new(),
            looks: watch::Sender::default(),
        };
        trusted.take(trusted.read());
        trusted
    }

    /// Reads the directories again and again, until the shutdown.
    pub async fn keep(self: Arc<Self>, shutdown: CancellationToken) {
        let look_again = async {
            loop {
                tokio::select! {
                    () = tokio::time::sleep(LOOK_AGAIN) => {}
                    () = self.ask.notified() => {}
                }
                let reader = Arc::clone(&self);
                // One that hangs is waited for: there is never a second.
                if let Ok(read) = tokio::task::spawn_blocking(move || reader.read()).await {
                    self.take(read);
                }
                self.looks.send_modify(|n| *n = n.wrapping_add(1));
            }
        };
        shutdown.run_until_cancelled(look_again).await;
    }

    /// Looks before its time, where that was not done a moment ago.
    pub async fn look(&self) {
        {
            let mut seen = self.seen();
            if seen.asked.is_some_and(|at| at.elapsed() < NOT_OFTENER) {
                return;
            }
            seen.asked = Some(Instant::now());
        }
        let mut looks = self.looks.subscribe();
        self.ask.notify_one();
        let _ = tokio::time::timeout(WAIT, looks.changed()).await;
    }

    /// An error unless a trusted key has made this signature over these attachments.
    pub fn verify(&self, attachments: &str, signature: &str) -> Result<()> {
        self.set().verify(attachments, signature)
    }

    /// The keys that are trusted now.
    pub fn set(&self) -> Arc<KeySet> {
        Arc::clone(&self.seen().set)
    }

    /// What cannot be read, with why.
    pub fn problems(&self) -> Vec<String> {
        let seen = self.seen();
        let text = |(path, why): (&PathBuf, &String)| format!("{}: {why}", path.display());
        seen.problems.iter().map(text).collect()
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        // Every change is whole.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self) -> Vec<std::io::Result<PublicFiles>> {
        self.dirs
            .iter()
            .map(|dir| file::public_files(dir))
            .collect()
    }

    fn take(&self, read: Vec<std::io::Result<PublicFiles>>) {
        let mut seen = self.seen();
        let mut problems = BTreeMap::new();
        for (at, read) in read.into_iter().enumerate() {
            match read {
                Ok(files) => {
                    seen.files.insert(at, files);
                }
                // What was known of it counts on: nobody has taken it back.
                Err(e) => {
                    problems.insert(self.dirs[at].clone(), format!("it cannot be read: {e}"));
                }
            }
        }
        let mut keys = Vec::new();
        for (path, key) in seen.files.values().flatten() {
            match key {
                Ok(key) => keys.push(key.clone()),
                Err(why) => {
                    problems.insert(path.clone(), why.clone());
                }
            }
        }
        for (path, why) in &problems {
            if seen.problems.get(path) != Some(why) {
                tracing::error!(file = %path.display(), "a public key is not used: {why}");
            }
        }
        seen.problems = problems;
        let set: KeySet = keys.into_iter().collect();
        if *seen.set != set {
            let ids: Vec<_> = set.ids().map(ToString::to_string).collect();
            tracing::info!(
                keys = ids.join(", "),
                "the keys that are trusted have changed"
            );
            seen.set = Arc::new(set);
        }
    }
}

#[cfg(test)]
mod tests;
