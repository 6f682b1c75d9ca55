// SPDX-License-Identifier: Apache-2.0
//! `store export`: every record as a line of JSON. What drivers and secrets are
//! told of stays behind, unless it is asked for.

use serde_json::{Value, json};

use super::store::{self, Reader};
use crate::error::{Error, Result};

/// Fields whose values may be sensitive, in small letters alone.
const HIDDEN: [&str; 6] = [
    "volumecontext",
    "publishcontext",
    "parameters",
    "secretrefs",
    "mountflags",
    "mountoptions",
];

/// Gives one line a record, in the order of their keys, until `line` says that
/// nobody reads on.
pub fn export(
    reader: &dyn Reader,
    with_contexts: bool,
    mut line: impl FnMut(&str) -> Result<bool>,
) -> Result<()> {
    let mut reads_on = true;
    store::each(reader, "", |key, stored| {
        if !reads_on {
            return Ok(());
        }
        let mut value: Value = serde_json::from_slice(&stored.value).unwrap_or_default();
        if !with_contexts {
            hide(&mut value);
        }
        let record = json!({"key": key, "revision": stored.revision.0, "value": value});
        let text = serde_json::to_string(&record)
            .map_err(|e| Error::internal(format!("cannot print record {key}")).with_source(e))?;
        reads_on = line(&text)?;
        Ok(())
    })
}

fn hide(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let name = name.replace('_', "").to_ascii_lowercase();
                if HIDDEN.contains(&name.as_str()) {
                    redact(value);
                } else {
                    hide(value);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(hide),
        _ => {}
    }
}

/// Names stay, what they stand for goes.
fn redact(value: &mut Value) {
    match value {
        Value::Object(fields) => fields.values_mut().for_each(redact),
        Value::Array(items) => items.iter_mut().for_each(redact),
        Value::Null => {}
        other => *other = "redacted".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::store::{MemoryStore, Store, Write};

    #[test]
    fn contexts_and_secrets_stay_behind_unless_asked_for() {
        let store = MemoryStore::new();
        let value = br#"{"schema":1,"record":{"phase":"Ready","volume_context":{"server":"hush"},
            "create":{"mount_flags":["hush"],"parameters":{"key":"hush"}},"class":{"mountOptions":["hush"]},
            "secret_refs":{"node":"hush"},"attachment":[{"publish_context":{"lun":"hush"}}]}}"#;
        let write = |key: &str, value: &[u8]| Write {
            key: key.into(),
            expect: None,
            value: Some(value.to_vec()),
        };
        let batch = [write("template/a", value), write("template/b", b"{")];
        store.write(&batch).unwrap();
        let lines = |with| {
            let mut lines = Vec::new();
            let line = |line: &str| {
                lines.push(line.to_owned());
                Ok(true)
            };
            export(&store, with, line).unwrap();
            lines
        };
        let hidden = lines(false);
        assert_eq!(hidden.len(), 2);
        assert!(!hidden[0].contains("hush"), "{}", hidden[0]);
        assert!(hidden[0].contains("\"server\":\"redacted\""));
        assert!(hidden[0].contains("\"revision\":1") && hidden[0].contains("Ready"));
        assert!(hidden[1].contains("\"value\":null"));
        assert_eq!(lines(true)[0].matches("hush").count(), 6);
    }
}
