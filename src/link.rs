// SPDX-License-Identifier: Apache-2.0
//! The node's end of its line to the control plane: it dials, says what it holds,
//! answers what it is asked, and keeps the word that it is told.

mod answer;
mod confirmed;
mod session;
mod word;

pub use session::{LinkSettings, run};
pub use word::Word;

use std::path::Path;

use crate::{
    error::{Error, Result},
    host::durable,
};

/// The id of a state directory: made once, gone with it. By it the control plane
/// knows a node that lost its records.
pub fn instance(state_dir: &Path) -> Result<String> {
    let path = state_dir.join("instance");
    let failed = |what: &str, e: std::io::Error| {
        Error::internal(format!("cannot {what} {}", path.display())).with_source(e)
    };
    match std::fs::read_to_string(&path) {
        Ok(text) if !text.trim().is_empty() => Ok(text.trim().to_owned()),
        Ok(_) => Err(Error::internal(format!(
            "{} is empty: restore it; without it the node counts as one that lost its records",
            path.display()
        ))),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            let id = uuid::Uuid::new_v4().to_string();
            durable::write(&path, id.as_bytes()).map_err(|e| failed("write", e))?;
            Ok(id)
        }
        Err(e) => Err(failed("read", e)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_directory_keeps_its_instance_and_a_new_one_has_another() {
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let first = instance(one.path()).unwrap();
        assert_eq!(instance(one.path()).unwrap(), first);
        assert_ne!(instance(other.path()).unwrap(), first);
        std::fs::write(one.path().join("instance"), "").unwrap();
        assert!(instance(one.path()).is_err(), "a torn one is no new one");
    }
}
