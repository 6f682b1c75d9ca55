// SPDX-License-Identifier: Apache-2.0
//! Grants as they are given out: signed, where there is a key.

use std::collections::BTreeMap;

use super::{Control, cell::blocking, told_keys};
use crate::{api::annotation, error::Result, model::Grant};

impl Control {
    /// The annotations that present this grant. The key is read anew each time, so
    /// that one that was exchanged counts at once; nodes are told of it before.
    pub async fn annotations(&self, grant: &Grant) -> Result<BTreeMap<String, String>> {
        let Some(keys) = self.settings.keys.clone() else {
            return annotation::write(grant);
        };
        let read = move || Ok((keys.signing()?, told_keys::pems(&keys)?));
        let read = blocking(&self.tasks, read).await;
        let (key, pems) = read.map_err(|e| {
            e.context("the actor is resumed, but its grant cannot be signed; set the key right and ask again")
        })?;
        self.nodes.keys(&pems);
        annotation::write_signed(grant, |attachments| key.sign(attachments))
    }
}
