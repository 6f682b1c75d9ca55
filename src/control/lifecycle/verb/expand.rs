// SPDX-License-Identifier: Apache-2.0
//! `volume expand`: a volume that is to grow.

use super::super::{State, settle};
use crate::{
    control::record::{Expansion, VolumePhase},
    error::{Error, Result},
    model::VolumeUid,
};

/// Lets the volume grow to so many bytes; whether there is anything to do.
pub fn expand(state: &mut State, uid: &VolumeUid, bytes: u64) -> Result<bool> {
    let Some(volume) = state.volumes.get_mut(uid) else {
        return Err(Error::not_found(format!("volume {uid} does not exist")));
    };
    if volume.phase != VolumePhase::Ready {
        return Err(Error::precondition(format!(
            "volume {uid} is {}: only one that is Ready can grow",
            volume.phase.as_str()
        )));
    }
    let has = volume.has_bytes();
    let refused = |e: &Expansion| e.trouble.as_ref().is_some_and(|t| t.next_try.is_none());
    match &mut volume.expansion {
        None if bytes == has => return Ok(false),
        _ if bytes < has => {
            return Err(Error::invalid(format!(
                "volume {uid} has {has} bytes: volumes only grow, ask for more"
            )));
        }
        // What was sent, or is about to be, is sent again as it was.
        Some(under_way)
            if bytes != under_way.wanted_bytes
                && !(refused(under_way) || under_way.controller_done) =>
        {
            return Err(Error::precondition(format!(
                "volume {uid} is growing to {} bytes: wait until it has them",
                under_way.wanted_bytes
            )));
        }
        Some(under_way) => {
            under_way.controller_done &= bytes <= has;
            under_way.wanted_bytes = bytes;
            // The driver may do by now what it did not.
            under_way.offline = false;
            if refused(under_way) {
                under_way.trouble = None;
            }
        }
        None => {
            volume.expansion = Some(Expansion::to(bytes));
        }
    }
    settle(state);
    Ok(true)
}
