// SPDX-License-Identifier: Apache-2.0
//! Containers that come by a door which is not NRI: what they are given, and when it is
//! taken back.

use super::Agent;
use crate::{
    error::{Error, Result},
    proto::api,
};

impl Agent {
    /// Publishes what the container's grant asks for.
    pub async fn give_container(
        &self,
        _asked: api::GiveContainerRequest,
    ) -> Result<api::GiveContainerResponse> {
        Err(Error::internal("not yet"))
    }

    /// The container is over, or was never made.
    pub async fn release_container(
        &self,
        _asked: api::ReleaseContainerRequest,
    ) -> Result<api::ReleaseContainerResponse> {
        Err(Error::internal("not yet"))
    }
}
