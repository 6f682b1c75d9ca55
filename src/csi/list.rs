// SPDX-License-Identifier: Apache-2.0
//! ListVolumes.

use super::{
    CallError, Capabilities, Condition, Driver, ListedVolume,
    call::{Rpc, sanitise},
};
use crate::{
    error::{Error, Kind},
    proto::csi::{self as wire, controller_client::ControllerClient},
};

const LIST: Rpc = Rpc::plain("ListVolumes");

/// Entries asked for in one page: some hundred bytes each, far below the 4 MiB
/// that a gRPC message may have.
const PAGE: i32 = 500;

/// More pages than this are no listing but a loop.
const MAX_PAGES: usize = 20_000;

/// How often a listing whose token went stale is begun anew.
const STARTS: usize = 3;

impl Driver {
    /// Every volume of the driver, whoever made it.
    ///
    /// A page token that the driver no longer knows (ABORTED) begins the listing
    /// anew (CSI spec, ListVolumes).
    pub async fn list_volumes(&self) -> Result<Vec<ListedVolume>, CallError> {
        for _ in 1..STARTS {
            match self.list_from_the_start().await {
                Err(e) if e.error.kind() == Kind::Aborted => {}
                done => return done,
            }
        }
        self.list_from_the_start().await
    }

    async fn list_from_the_start(&self) -> Result<Vec<ListedVolume>, CallError> {
        let tells_nodes = self.capabilities().await?.list_published_nodes;
        let mut volumes = Vec::new();
        let mut token = String::new();
        for _ in 0..MAX_PAGES {
            let build = |driver: &Capabilities| {
                self.gate(LIST, "LIST_VOLUMES", driver.list_volumes)?;
                Ok(Some(wire::ListVolumesRequest {
                    max_entries: PAGE,
                    starting_token: token.clone(),
                }))
            };
            let answer = self
                .call(LIST, build, |channel, request| async {
                    ControllerClient::new(channel).list_volumes(request).await
                })
                .await?
                .unwrap_or_default();
            volumes.extend(answer.entries.into_iter().map(|e| listed(e, tells_nodes)));
            if answer.next_token.is_empty() {
                return Ok(volumes);
            }
            if answer.next_token == token {
                break;
            }
            token = answer.next_token;
        }
        let e = Error::internal(format!(
            "the listing of CSI driver {} does not come to an end: its page token does not change, or there are more than {MAX_PAGES} pages",
            self.name()
        ));
        Err(CallError::last(LIST.name, e))
    }
}

pub(super) fn listed(entry: wire::list_volumes_response::Entry, tells_nodes: bool) -> ListedVolume {
    let volume = entry.volume.unwrap_or_default();
    let status = entry.status.unwrap_or_default();
    ListedVolume {
        volume_id: volume.volume_id,
        capacity_bytes: u64::try_from(volume.capacity_bytes).unwrap_or_default(),
        // Without the capability the field must not be read (CSI spec).
        published_nodes: tells_nodes.then(|| status.published_node_ids.into_iter().collect()),
        condition: status.volume_condition.map(condition),
    }
}

/// The condition, its message fit for people.
pub(super) fn condition(condition: wire::VolumeCondition) -> Condition {
    Condition {
        abnormal: condition.abnormal,
        message: sanitise(&condition.message),
    }
}
