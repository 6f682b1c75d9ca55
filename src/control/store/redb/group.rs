// SPDX-License-Identifier: Apache-2.0
//! Group commit: batches that come while another commit is under way wait for it
//! together, and then share one commit and one sync.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::super::{Revision, Write};
use crate::error::{Error, Result};

/// Batches that wait.
#[derive(Default)]
pub(super) struct Writers {
    queue: Mutex<Vec<Arc<Pending>>>,
    writing: Mutex<()>,
}

/// A batch that waits for its answer.
pub(super) struct Pending {
    pub(super) batch: Vec<Write>,
    answer: Mutex<Option<Result<Revision>>>,
}

/// The lock; what it guards is whole whenever a panic could leave it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Writers {
    /// Hands the batch in. Whoever is first commits for all that wait: `commit`
    /// gives one answer a batch, or one error for all of them.
    pub(super) fn write(
        &self,
        batch: &[Write],
        commit: impl FnOnce(&[Arc<Pending>]) -> Result<Vec<Result<Revision>>>,
    ) -> Result<Revision> {
        let mine = Arc::new(Pending {
            batch: batch.to_vec(),
            answer: Mutex::default(),
        });
        lock(&self.queue).push(mine.clone());
        let _writing = lock(&self.writing);
        if let Some(answer) = lock(&mine.answer).take() {
            return answer;
        }
        let group = std::mem::take(&mut *lock(&self.queue));
        match commit(&group) {
            Ok(answers) => {
                for (pending, answer) in group.iter().zip(answers) {
                    *lock(&pending.answer) = Some(answer);
                }
            }
            Err(error) => {
                for pending in &group {
                    let same = Error::new(error.kind(), error.full_message());
                    *lock(&pending.answer) = Some(Err(same));
                }
            }
        }
        let answer = lock(&mine.answer).take();
        answer.unwrap_or_else(|| {
            Err(Error::internal(
                "a write to the store broke off, it was done or not: try again",
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Barrier, mpsc};

    use super::*;

    #[test]
    fn what_comes_during_a_commit_shares_the_next_one() {
        let writers = Writers::default();
        let (inside, wait) = (Barrier::new(2), Barrier::new(2));
        let (sender, sizes) = mpsc::channel();
        let commit = |group: &[Arc<Pending>]| {
            sender.send(group.len()).unwrap();
            Ok(group.iter().map(|_| Ok(Revision(1))).collect())
        };
        std::thread::scope(|scope| {
            scope.spawn(|| {
                writers.write(&[], |group| {
                    inside.wait();
                    wait.wait();
                    commit(group)
                })
            });
            inside.wait();
            for _ in 0..7 {
                let commit = &commit;
                let writers = &writers;
                scope.spawn(move || writers.write(&[], commit).unwrap());
            }
            while lock(&writers.queue).len() < 7 {
                std::thread::yield_now();
            }
            wait.wait();
        });
        assert_eq!(sizes.try_iter().collect::<Vec<_>>(), [1, 7]);
    }

    #[test]
    fn one_refusal_is_one_caller_s_and_a_failed_commit_is_everyone_s() {
        let writers = Writers::default();
        let refused = writers.write(&[], |_| Ok(vec![Err(Error::aborted("no"))]));
        assert_eq!(refused.unwrap_err().kind(), crate::error::Kind::Aborted);
        let failed = writers.write(&[], |_| Err(Error::internal("broken")));
        assert_eq!(failed.unwrap_err().to_string(), "broken");
        // A commit that forgot somebody is no success.
        assert!(writers.write(&[], |_| Ok(vec![])).is_err());
    }
}
