// SPDX-License-Identifier: Apache-2.0
//! The state of a container as its runtime tells it to hooks, and by its subcommand
//! `state`. Runtimes differ in all but a few fields, so nothing else is looked at.

use std::{collections::BTreeMap, io::Read, path::PathBuf};

use serde::Deserialize;

use super::spec::or_none;
use crate::{
    api::annotation,
    error::{Error, Result},
};

/// It has the annotations, and little else.
pub const MAX_STATE_BYTES: u64 = 16 << 20;

/// What of the state matters. Annotations have no Debug: they may hold contexts.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
pub struct State {
    /// The container's id at the runtime.
    #[serde(default)]
    pub id: String,
    /// Its init. 0 or absent: it has none; negative: gVisor's, which has none to be seen.
    #[serde(default, deserialize_with = "or_none")]
    pub pid: i64,
    /// The directory of its config.json.
    #[serde(default, deserialize_with = "or_none")]
    pub bundle: PathBuf,
    /// Its root file system, in crun's.
    #[serde(default, deserialize_with = "or_none")]
    pub root: PathBuf,
    /// All its annotations.
    #[serde(default, deserialize_with = "or_none")]
    pub annotations: BTreeMap<String, String>,
}

impl State {
    /// Reads it to its end.
    pub fn read(from: impl Read) -> Result<Self> {
        let mut bytes = Vec::new();
        // One byte more tells that there is more.
        from.take(MAX_STATE_BYTES + 1)
            .read_to_end(&mut bytes)
            .map_err(|e| {
                Error::invalid("cannot read the state of the container from standard input")
                    .with_source(e)
            })?;
        if bytes.len() as u64 > MAX_STATE_BYTES {
            return Err(Error::invalid(format!(
                "the state of the container has more than {MAX_STATE_BYTES} bytes"
            )));
        }
        Self::parse(&bytes)
    }

    /// Reads the bytes of it.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let refused = || {
            Error::invalid(
                "what the runtime tells of the container is not its state (JSON of the OCI runtime specification)",
            )
        };
        // A list would be taken for the fields in their order.
        if bytes.trim_ascii_start().first() != Some(&b'{') {
            return Err(refused());
        }
        serde_json::from_slice(bytes).map_err(|e| refused().with_source(e))
    }

    /// Whether an annotation of ours is among its own.
    pub fn is_ours(&self) -> bool {
        let mut keys = self.annotations.keys();
        keys.any(|key| key.starts_with(annotation::PREFIX))
    }

    /// Its init, which is there while it is created and while it runs.
    pub fn init(&self) -> Result<u32> {
        let pid = u32::try_from(self.pid).ok().filter(|pid| *pid > 0);
        pid.ok_or_else(|| {
            Error::precondition(format!(
                "the runtime tells no process of the container {:?} (pid {}): does it run?",
                self.id, self.pid
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_states_of_all_runtimes_are_read() {
        for (runtime, text, pid) in [
            (
                "runc",
                r#"{"ociVersion":"1.0.2-dev","id":"c1","status":"creating","pid":7,"bundle":"/b","annotations":{"a":"b"}}"#,
                Some(7),
            ),
            (
                "crun",
                r#"{"ociVersion":"1.0","id":"c1","pid":7,"root":"rootfs","bundle":"/b","status":"created"}"#,
                Some(7),
            ),
            (
                "crun, stopped",
                r#"{"id":"c1","pid":0,"bundle":"/b","status":"stopped"}"#,
                None,
            ),
            (
                "youki",
                r#"{"id":"c1","status":"stopped","pid":null,"bundle":"/b","annotations":{},"useSystemd":false}"#,
                None,
            ),
            ("runsc", r#"{"id":"c1","pid":-1,"bundle":"/b"}"#, None),
        ] {
            let state = State::read(text.as_bytes()).unwrap();
            assert_eq!((state.id.as_str(), state.bundle), ("c1", "/b".into()));
            let state = State::parse(text.as_bytes()).unwrap();
            assert_eq!(state.init().ok(), pid, "{runtime}");
            assert!(!state.is_ours());
        }
    }

    #[test]
    fn ours_is_who_has_an_annotation_of_ours() {
        let state = |key: &str| format!(r#"{{"id":"c","annotations":{{"{key}":"x"}}}}"#);
        // As some write a slash.
        for (key, ours) in [
            ("actor-volumes.dev/actor", true),
            (r"actor-volumes.dev\/other", true),
            ("not-actor-volumes.dev/actor", false),
            ("actor-volumes.device", false),
        ] {
            let read = State::parse(state(key).as_bytes()).unwrap();
            assert_eq!(read.is_ours(), ours, "{key}");
        }
    }

    #[test]
    fn what_is_no_state_is_refused() {
        for text in ["", "{", r#"{"pid":"7"}"#, r#"{"id":7}"#] {
            assert!(State::parse(text.as_bytes()).is_err(), "{text}");
        }
        let endless = State::read(std::io::repeat(b' ')).err().unwrap();
        assert!(endless.to_string().contains("more than"));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(state) = State::parse(&bytes) {
                let _ = state.init();
            }
        }
    }
}
