// SPDX-License-Identifier: Apache-2.0
//! Questions that share one look: many volumes that are released at once ask
//! the same of the host and of the runtime.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::oneshot;

use crate::error::{Error, Result};

type Looking<A> = Pin<Box<dyn Future<Output = Result<Vec<A>>> + Send>>;

/// Answers questions together. A look begins after each of its questions was
/// asked, and there is one at a time.
pub(super) struct Together<Q, A>(Arc<Inner<Q, A>>);

struct Inner<Q, A> {
    /// As many answers as questions, in their order.
    look: Box<dyn Fn(Vec<Q>) -> Looking<A> + Send + Sync>,
    asked: Mutex<Asked<Q, A>>,
}

struct Asked<Q, A> {
    waiting: Vec<(Q, oneshot::Sender<Result<A>>)>,
    looking: bool,
}

impl<Q: Send + 'static, A: Send + 'static> Together<Q, A> {
    pub(super) fn new<F>(look: impl Fn(Vec<Q>) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<Vec<A>>> + Send + 'static,
    {
        Self(Arc::new(Inner {
            look: Box::new(move |questions| Box::pin(look(questions))),
            asked: Mutex::new(Asked {
                waiting: Vec::new(),
                looking: false,
            }),
        }))
    }

    /// Asks in the next look.
    pub(super) async fn ask(&self, question: Q) -> Result<A> {
        let (answer, answered) = oneshot::channel();
        {
            let mut asked = self.0.asked();
            asked.waiting.push((question, answer));
            if !std::mem::replace(&mut asked.looking, true) {
                tokio::spawn(look_for_all(Arc::clone(&self.0)));
            }
        }
        answered
            .await
            .unwrap_or_else(|_| Err(Error::internal("the look at the host broke off")))
    }
}

impl<Q, A> Inner<Q, A> {
    fn asked(&self) -> MutexGuard<'_, Asked<Q, A>> {
        // Every change is whole.
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A look that breaks off must not leave the next questions without one.
struct Turn<'a, Q, A>(&'a Inner<Q, A>);

impl<Q, A> Drop for Turn<'_, Q, A> {
    fn drop(&mut self) {
        let mut asked = self.0.asked();
        asked.looking = false;
        asked.waiting.clear();
    }
}

/// Looks until nobody asks any more.
async fn look_for_all<Q, A>(inner: Arc<Inner<Q, A>>) {
    let turn = Turn(&inner);
    loop {
        let waiting = {
            let mut asked = inner.asked();
            if asked.waiting.is_empty() {
                asked.looking = false;
                std::mem::forget(turn);
                return;
            }
            std::mem::take(&mut asked.waiting)
        };
        let (questions, waiting): (Vec<_>, Vec<_>) = waiting.into_iter().unzip();
        // Who asked may have given up meanwhile.
        match (inner.look)(questions).await {
            Ok(answers) => {
                for (waiting, answer) in waiting.into_iter().zip(answers) {
                    let _ = waiting.send(Ok(answer));
                }
            }
            Err(e) => {
                for waiting in waiting {
                    let _ = waiting.send(Err(Error::new(e.kind(), e.full_message())));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicUsize, Ordering},
        time::Duration,
    };

    use super::*;

    #[tokio::test]
    async fn what_is_asked_during_a_look_is_answered_by_the_next_one() {
        let looks = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&looks);
        let together = Together::new(move |questions: Vec<usize>| {
            let look = counted.fetch_add(1, Ordering::SeqCst);
            async move {
                tokio::time::sleep(Duration::from_millis(20)).await;
                Ok(questions.into_iter().map(|q| (q, look)).collect())
            }
        });
        let together = Arc::new(together);
        let first = tokio::spawn({
            let together = Arc::clone(&together);
            async move { together.ask(100).await.unwrap() }
        });
        while looks.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        let mut later = Vec::new();
        for n in 0..10 {
            let together = Arc::clone(&together);
            later.push(tokio::spawn(async move { together.ask(n).await.unwrap() }));
        }
        assert_eq!(first.await.unwrap(), (100, 0));
        for (n, asked) in later.into_iter().enumerate() {
            assert_eq!(asked.await.unwrap(), (n, 1));
        }
        assert_eq!(looks.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn an_error_is_told_to_all_and_a_look_that_breaks_off_stops_nobody_after_it() {
        let together = Together::new(|questions: Vec<u8>| async move {
            match questions[0] {
                0 => panic!("broken"),
                1 => Err(Error::unavailable("not now")),
                _ => Ok(questions),
            }
        });
        let broken = together.ask(0).await.unwrap_err();
        assert!(broken.to_string().contains("broke off"), "{broken}");
        let refused = together.ask(1).await.unwrap_err();
        assert_eq!(refused.to_string(), "not now");
        assert_eq!(together.ask(2).await.unwrap(), 2);
    }
}
