// SPDX-License-Identifier: Apache-2.0
//! The directories of a daemon: one of its kind has them at a time. A second one, as of
//! a rolling update, waits for the end of the first, whatever it dies of, and goes
//! on from what is on disk.

use std::{path::Path, time::Duration};

use tokio_util::sync::CancellationToken;

use crate::{
    config::Config,
    error::{Error, Result},
    host::{
        durable,
        lock::{self, DirLock, Locked},
    },
};

/// How often it is tried.
const TRY_AGAIN: Duration = Duration::from_millis(100);

/// How often it is said that it waits.
const SAY_AGAIN: Duration = Duration::from_secs(60);

/// The kinds of daemons: each has a lock of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Serve,
    Control,
    Node,
}

impl Role {
    fn name(self) -> &'static str {
        match self {
            Self::Serve => "serve",
            Self::Control => "control",
            Self::Node => "node",
        }
    }
}

/// Makes the directories and waits until they are this daemon's own; says for whom.
/// False: the shutdown came first.
///
/// They stay its own until the process has ended: until then what is still under way
/// may have the store open, also after an error.
pub(super) async fn own(
    role: Role,
    config: &Config,
    shutdown: &CancellationToken,
    waits_for: impl Fn(String),
) -> Result<bool> {
    let mut dirs = vec![&config.node.state_dir, &config.node.run_dir];
    dirs.sort();
    dirs.dedup();
    for dir in dirs {
        durable::make_dir(dir).map_err(|e| {
            Error::internal(format!("cannot make {}", dir.display())).with_source(e)
        })?;
        // One of an older version has the directory as a whole.
        let shared = || lock::try_share(dir);
        let named = || lock::try_lock_as(dir, role.name());
        let locks = async {
            let shared = lock_when_free(dir, &shared, &waits_for).await?;
            let named = lock_when_free(dir, &named, &waits_for).await?;
            Ok::<_, Error>((shared, named))
        };
        match shutdown.run_until_cancelled(locks).await {
            Some(locks) => std::mem::forget(locks?),
            None => return Ok(false),
        }
    }
    Ok(true)
}

async fn lock_when_free(
    dir: &Path,
    try_it: impl Fn() -> std::io::Result<Locked>,
    waits_for: impl Fn(String),
) -> Result<DirLock> {
    let mut said: Option<tokio::time::Instant> = None;
    loop {
        let found = try_it().map_err(|e| {
            Error::internal(format!("cannot lock {}", dir.display())).with_source(e)
        })?;
        let holder = match found {
            Locked::Ours(lock) => {
                if said.is_some() {
                    waits_for(String::new());
                    tracing::info!(dir = %dir.display(), "the other daemon has ended");
                }
                return Ok(lock);
            }
            Locked::Held(holder) => holder,
        };
        if said.is_none_or(|at| at.elapsed() >= SAY_AGAIN) {
            said = Some(tokio::time::Instant::now());
            waits_for(format!(
                "the daemon with process id {holder} has {}, and this one waits for its end",
                dir.display()
            ));
            tracing::warn!(
                dir = %dir.display(),
                pid = holder,
                "another actor-volumes daemon has this directory: waiting for its end"
            );
        }
        tokio::time::sleep(TRY_AGAIN).await;
    }
}
