// SPDX-License-Identifier: Apache-2.0
//! What verbs of actors have in common: the request's name, and volumes by name.

use std::collections::HashMap;

use clap::Args;

use crate::model::{DnsLabel, VolumeUid};

/// The option of verbs that change an actor.
#[derive(Debug, Args)]
pub(super) struct RequestId {
    /// A name of your choice for this request: repeated with it, nothing is done twice.
    #[arg(
        long = "request-id",
        value_name = "ID",
        default_value = "",
        hide_default_value = true
    )]
    pub(super) request_id: String,
}

/// A retained volume, and the volume of the template that it is to be.
#[derive(Debug, Clone)]
pub(super) struct NamedVolume {
    name: DnsLabel,
    uid: VolumeUid,
}

/// Reads `name=uid`.
pub(super) fn named_volume(text: &str) -> Result<NamedVolume, String> {
    let Some((name, uid)) = text.split_once('=') else {
        return Err("write the name in the template, = and the volume's uid".to_owned());
    };
    Ok(NamedVolume {
        name: name
            .parse()
            .map_err(|e: crate::error::Error| e.full_message())?,
        uid: uid
            .parse()
            .map_err(|e: crate::error::Error| e.full_message())?,
    })
}

/// The volumes as requests name them.
pub(super) fn by_name(volumes: Vec<NamedVolume>) -> HashMap<String, String> {
    let volumes = volumes.into_iter();
    volumes
        .map(|v| (v.name.to_string(), v.uid.to_string()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_named_volume_has_a_name_and_a_uid() {
        let uid = "0190f1c2-7a4b-7c3d-8e5f-0123456789ab";
        let read = named_volume(&format!("vol1={uid}")).unwrap();
        assert_eq!(by_name(vec![read])["vol1"], uid);
        for bad in ["vol1", "=", "Vol 1=x", "vol1="] {
            assert!(named_volume(bad).is_err(), "{bad}");
        }
    }
}
