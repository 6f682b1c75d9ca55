// SPDX-License-Identifier: Apache-2.0
//! Grants as they are given out: signed, where there is a key.

use std::collections::BTreeMap;

use super::{Control, cell::blocking};
use crate::{api::annotation, error::Result, model::Grant};

impl Control {
    /// The annotations that present this grant. The key is read anew each time, so
    /// that one that was exchanged counts at once.
    pub async fn annotations(&self, grant: &Grant) -> Result<BTreeMap<String, String>> {
        let Some(keys) = self.settings.keys.clone() else {
            return annotation::write(grant);
        };
        let key = blocking(&self.tasks, move || keys.signing()).await;
        let key = key.map_err(|e| {
            e.context("the grant cannot be signed (the resume itself is done, ask again)")
        })?;
        annotation::write_signed(grant, |attachments| key.sign(attachments))
    }
}
