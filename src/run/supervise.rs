// SPDX-License-Identifier: Apache-2.0
//! The parent of the parts of a host: it starts them, starts again what dies, and ends
//! them in order. It has one thread, since the kernel ends its children with the thread
//! that started them, and nothing of its own that could hang.

mod orphans;
mod pace;
mod part;

use std::{process::ExitStatus, time::Duration};

use tokio::{
    process::Child,
    task::JoinHandle,
    time::{Instant, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;

pub(super) use self::part::Part;
use self::{orphans::Ours, pace::Pace};
use super::parts::END_WITHIN;
use crate::{
    error::{Error, Kind, Result},
    host::crash,
};

/// A part is asked to end when the one before it has, or after this long.
const NEXT_AFTER: Duration = Duration::from_millis(2500);

/// What is left so long before the end is killed.
const KILLED_BEFORE: Duration = Duration::from_secs(1);

/// How long the end of what was killed is waited for: a call on a dead file system may
/// keep even that.
const GONE_WITHIN: Duration = Duration::from_millis(500);

/// The exit status for a command line that is wrong.
const WRONG_COMMAND_LINE: i32 = 2;

/// The parts that run.
pub(super) struct Supervisor {
    shutdown: CancellationToken,
    kill: CancellationToken,
    ours: Ours,
    kept: Vec<Kept>,
}

struct Kept {
    rank: usize,
    end: CancellationToken,
    keeper: JoinHandle<Result<()>>,
}

impl Supervisor {
    pub(super) fn new(shutdown: CancellationToken) -> Result<Self> {
        Ok(Self {
            shutdown,
            kill: CancellationToken::new(),
            ours: Ours::reaping_others()?,
            kept: Vec::new(),
        })
    }

    /// Starts the part, and keeps it running until the shutdown.
    pub(super) fn start(&mut self, part: Part) {
        let (rank, end) = (part.rank(), CancellationToken::new());
        let keeper = Keeper {
            part,
            end: end.clone(),
            kill: self.kill.clone(),
            shutdown: self.shutdown.clone(),
            ours: self.ours.clone(),
        };
        self.kept.push(Kept {
            rank,
            end,
            keeper: tokio::spawn(keeper.keep()),
        });
    }

    /// Until the shutdown, which a part brings about that cannot run; then ends all
    /// within the time that an end may take.
    pub(super) async fn run(mut self) -> Result<()> {
        self.shutdown.cancelled().await;
        let begun = Instant::now();
        let killed_at = begun + END_WITHIN - KILLED_BEFORE;
        self.kept.sort_by_key(|kept| kept.rank);
        let mut done = Ok(());
        let mut left = Vec::new();
        for mut kept in self.kept {
            kept.end.cancel();
            match timeout(NEXT_AFTER, &mut kept.keeper).await {
                Ok(ended) => done = done.and(outcome(ended)),
                Err(_) => left.push(kept.keeper),
            }
        }
        let mut hanging = Vec::new();
        for mut keeper in left {
            match timeout_at(killed_at, &mut keeper).await {
                Ok(ended) => done = done.and(outcome(ended)),
                Err(_) => hanging.push(keeper),
            }
        }
        if !hanging.is_empty() {
            let took = begun.elapsed();
            tracing::warn!("not all that is under way has ended within {took:.0?}: it is left");
        }
        self.kill.cancel();
        for keeper in hanging {
            if let Ok(ended) = timeout(GONE_WITHIN, keeper).await {
                done = done.and(outcome(ended));
            }
        }
        done
    }
}

fn outcome(ended: Result<Result<()>, tokio::task::JoinError>) -> Result<()> {
    ended.unwrap_or_else(|e| Err(Error::internal("a part was lost sight of").with_source(e)))
}

/// Keeps one part running.
struct Keeper {
    part: Part,
    end: CancellationToken,
    kill: CancellationToken,
    shutdown: CancellationToken,
    ours: Ours,
}

impl Keeper {
    async fn keep(mut self) -> Result<()> {
        let name = self.part.name();
        let mut pace = Pace::default();
        loop {
            let begun = Instant::now();
            let ended = match self.part.start() {
                Ok(child) => self.wait(child).await,
                Err(error) => Err(error),
            };
            if self.shutdown.is_cancelled() {
                return Ok(());
            }
            if let Ok(status) = &ended {
                crash::dies_too(*status);
                if self.part.is_once() {
                    self.shutdown.cancel();
                    return Ok(());
                }
                if is_beyond_repair(*status) {
                    self.shutdown.cancel();
                    return Err(Error::invalid(format!(
                        "`actor-volumes {name}` cannot run with this configuration, as it has said: set it right"
                    )));
                }
            }
            let pause = pace.after(begun.elapsed());
            let how = ended.map_or_else(|e| format!("cannot be started: {e}"), |s| s.to_string());
            tracing::error!("{name} has ended ({how}), and is started again in {pause:?}");
            let stopped = self.shutdown.cancelled();
            if timeout(pause, stopped).await.is_ok() {
                return Ok(());
            }
        }
    }

    /// Until it has ended, by itself or as asked.
    async fn wait(&self, mut child: Child) -> std::io::Result<ExitStatus> {
        // It sees by the pipe's end that this process has gone.
        let _pipe = child.stdin.take();
        let Some(pid) = child.id() else {
            return child.wait().await;
        };
        tracing::info!(pid, "{} is started", self.part.name());
        let _ours = self.ours.know(pid);
        tokio::select! {
            ended = child.wait() => return ended,
            () = self.end.cancelled() => {}
        }
        part::ask_to_end(pid);
        tokio::select! {
            ended = child.wait() => return ended,
            () = self.kill.cancelled() => {}
        }
        child.start_kill()?;
        child.wait().await
    }
}

/// Whether a person has to do something before it can run.
fn is_beyond_repair(status: ExitStatus) -> bool {
    let wrong = i32::from(Kind::InvalidInput.exit_status());
    matches!(status.code(), Some(code) if code == wrong || code == WRONG_COMMAND_LINE)
}
