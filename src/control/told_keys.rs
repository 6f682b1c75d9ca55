// SPDX-License-Identifier: Apache-2.0
//! Nodes are told the public keys that they are to trust, again at every change.

use std::{sync::Arc, time::Duration};

use super::{Control, cell::blocking};
use crate::{error::Result, keys::KeyDir};

/// How often the keys are looked at.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// The public keys, as nodes are told them.
pub(super) fn pems(keys: &KeyDir) -> Result<Vec<String>> {
    keys.public()?.iter().map(|key| key.to_pem()).collect()
}

impl Control {
    /// Tells nodes of the keys at once and at every change; it does not end.
    pub(super) async fn tell_the_keys(self: Arc<Self>) {
        let Some(keys) = self.settings.keys.clone() else {
            return;
        };
        let mut said = String::new();
        loop {
            let of = keys.clone();
            match blocking(&self.tasks, move || pems(&of)).await {
                Ok(pems) => {
                    self.nodes.keys(&pems);
                    said.clear();
                }
                // Once for each reason.
                Err(error) if error.full_message() != said => {
                    said = error.full_message();
                    tracing::error!(error = said, "nodes are not told of the keys of grants");
                }
                Err(_) => {}
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }
}
