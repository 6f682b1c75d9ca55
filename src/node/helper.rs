// SPDX-License-Identifier: Apache-2.0
//! What the node agent asks of the helper: whatever enters a mounted volume.

use std::{
    collections::HashSet,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use crate::{
    error::{Error, Result},
    helper::{Answer, Client, DEADLINE, Deed, Place, Request},
    host::{enter, mountinfo::Identity},
    model::SubPath,
    telemetry::Metrics,
};

/// How often it is looked whether what hangs in the kernel has ended.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// What a probe of a mount found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Probed {
    /// It answers.
    Ok,
    /// The mount is there and its file system is not: the kernel's words.
    Corrupted(String),
    /// It does not answer in time.
    Hangs,
}

/// Asks the helper.
pub(super) struct Helpers {
    client: Client,
    metrics: Arc<Metrics>,
    /// The places at which one hangs in the kernel.
    stuck: Arc<Mutex<HashSet<Place>>>,
}

impl Helpers {
    /// The helper behind this socket.
    pub(super) fn new(socket: &Path, metrics: Arc<Metrics>) -> Self {
        Self {
            client: Client::new(socket),
            metrics,
            stuck: Arc::default(),
        }
    }

    /// Gives the root directory of this mount to the group. Nothing is done if
    /// it has it already.
    pub(super) async fn own(&self, place: Place, shows: &Identity, gid: &str) -> Result<()> {
        let id = gid
            .parse()
            .map_err(|_| Error::invalid(format!("group {gid} is not a number")))?;
        let deed = Deed::Own {
            shows: shows.clone(),
            gid: id,
        };
        match self.ask(place, deed).await? {
            Answer::Failed { message, .. } => Err(Error::internal(format!(
                "cannot give the root directory of the volume to group {gid}: {message}; take fsGroup out of the template if the file system has no groups"
            ))),
            Answer::Hangs { .. } => Err(Error::deadline(format!(
                "the volume did not answer within {DEADLINE:?}, so it cannot be given to group {gid}"
            ))),
            _ => Ok(()),
        }
    }

    /// Shows a directory of the volume that is mounted there.
    pub(super) async fn show(
        &self,
        place: Place,
        shows: &Identity,
        sub_path: &SubPath,
        make: bool,
    ) -> Result<()> {
        let deed = Deed::Show {
            shows: shows.clone(),
            sub_path: sub_path.clone(),
            make,
        };
        match self.ask(place, deed).await? {
            Answer::Failed {
                errno: Some(errno),
                message,
            } if crate::host::sub_path::is_content(errno) => Err(Error::precondition(format!(
                "cannot be mounted: {message}; make it a directory, or change subPath in the template"
            ))),
            Answer::Failed { message, .. } => {
                Err(Error::internal(format!("cannot be mounted: {message}")))
            }
            Answer::Hangs { .. } => Err(Error::deadline(format!(
                "the volume did not answer within {DEADLINE:?}"
            ))),
            _ => Ok(()),
        }
    }

    /// Takes a directory of the volume away from where it is shown.
    pub(super) async fn hide(&self, place: Place, sub_path: &SubPath) -> Result<()> {
        let deed = Deed::Hide {
            sub_path: sub_path.clone(),
        };
        match self.ask(place, deed).await? {
            Answer::Failed { message, .. } => Err(Error::internal(format!(
                "cannot take away the mount of subPath {sub_path}: {message}"
            ))),
            Answer::Hangs { .. } => Err(Error::deadline(format!(
                "the mount of subPath {sub_path} was not taken away within {DEADLINE:?}"
            ))),
            _ => Ok(()),
        }
    }

    /// Whether this mount can be shown with its owners mapped by the user namespace of
    /// a process: what the helper found.
    pub(super) async fn map_ids(
        &self,
        place: Place,
        shows: &Identity,
        process: u32,
    ) -> Result<Answer> {
        let shows = shows.clone();
        self.ask(place, Deed::MapIds { shows, process }).await
    }

    /// Whether the mount at this place answers.
    pub(super) async fn probe(&self, place: Place) -> Result<Probed> {
        Ok(match self.ask(place, Deed::Probe {}).await? {
            Answer::Hangs { .. } => Probed::Hangs,
            Answer::Failed {
                errno: Some(errno),
                message,
            } if enter::is_corrupted(errno) => Probed::Corrupted(message),
            // Another no, such as EACCES, is an answer too.
            Answer::Failed { errno: Some(_), .. } => Probed::Ok,
            Answer::Failed { message, .. } => {
                return Err(Error::unavailable(format!(
                    "the helper could not look into the volume: {message}"
                )));
            }
            _ => Probed::Ok,
        })
    }

    /// Done, failed, or killed: anything else is an error here.
    async fn ask(&self, place: Place, deed: Deed) -> Result<Answer> {
        let request = Request { place, deed };
        match self.client.ask(&request).await? {
            Answer::Busy {} => Err(Error::unavailable(
                "a look into the volume is under way and does not end: its file system does not answer",
            )),
            Answer::Refused { message } => Err(Error::unavailable(format!(
                "the helper took no request: {message}"
            ))),
            answer => {
                if answer == (Answer::Hangs { stuck: true }) {
                    self.count_stuck(request.place);
                }
                Ok(answer)
            }
        }
    }

    /// Counts it until it has ended, or until its helper has.
    fn count_stuck(&self, place: Place) {
        let mut stuck = self.stuck.lock().unwrap_or_else(PoisonError::into_inner);
        if !stuck.insert(place.clone()) {
            return;
        }
        drop(stuck);
        self.metrics.stuck_helpers(1);
        let (client, metrics) = (self.client.clone(), Arc::clone(&self.metrics));
        let stuck = Arc::clone(&self.stuck);
        let deed = Deed::Probe {};
        let request = Request { place, deed };
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(LOOK_AGAIN).await;
                let now = client.ask(&request).await;
                if !matches!(now, Ok(Answer::Busy {} | Answer::Hangs { stuck: true })) {
                    break;
                }
            }
            metrics.stuck_helpers(-1);
            let mut stuck = stuck.lock().unwrap_or_else(PoisonError::into_inner);
            stuck.remove(&request.place);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::UnixListener,
    };

    fn place() -> Place {
        serde_json::from_str(
            r#"{"volume":"00000000000000000000000000000000","publication":"0000000000000000"}"#,
        )
        .unwrap()
    }

    /// A helper that gives this answer to everybody.
    fn answering(dir: &Path, answer: Answer) -> Helpers {
        let socket = dir.join("helper.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut asked = [0; 4096];
                let _ = stream.read(&mut asked).await;
                let _ = stream.write_all(&answer.encode()).await;
            }
        });
        Helpers::new(&socket, Arc::default())
    }

    #[tokio::test]
    async fn a_dead_file_system_and_a_mere_no_are_told_apart() {
        for (errno, found) in [(107, Probed::Corrupted("why".into())), (13, Probed::Ok)] {
            let dir = tempfile::tempdir().unwrap();
            let failed = Answer::Failed {
                errno: Some(errno),
                message: "why".into(),
            };
            let helpers = answering(dir.path(), failed);
            assert_eq!(helpers.probe(place()).await.unwrap(), found);
        }
    }

    #[tokio::test]
    async fn a_helper_that_is_away_or_refuses_or_is_busy_is_unavailable() {
        let dir = tempfile::tempdir().unwrap();
        let away = Helpers::new(&dir.path().join("none.sock"), Arc::default());
        let error = away.probe(place()).await.unwrap_err();
        assert_eq!(error.kind(), crate::error::Kind::Unavailable);
        assert!(
            error.to_string().contains("actor-volumes helper"),
            "{error}"
        );
        for (answer, words) in [
            (Answer::Busy {}, "under way"),
            (
                Answer::Refused {
                    message: "no".into(),
                },
                "took no request: no",
            ),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let helpers = answering(dir.path(), answer);
            let shows = Identity {
                device: "8:1".into(),
                root: "/".into(),
            };
            let error = helpers.own(place(), &shows, "2").await.unwrap_err();
            assert_eq!(error.kind(), crate::error::Kind::Unavailable);
            assert!(error.to_string().contains(words), "{error}");
        }
    }

    #[tokio::test]
    async fn what_hangs_in_the_kernel_is_counted_once() {
        let dir = tempfile::tempdir().unwrap();
        let helpers = answering(dir.path(), Answer::Hangs { stuck: true });
        for _ in 0..2 {
            assert_eq!(helpers.probe(place()).await.unwrap(), Probed::Hangs);
        }
        let text = helpers.metrics.text().unwrap();
        assert!(text.contains("node_stuck_helpers 1\n"), "{text}");
    }
}
