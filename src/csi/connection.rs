// SPDX-License-Identifier: Apache-2.0
//! One connection to a driver, and what was learnt over it.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::OnceCell,
    time::{Instant, sleep, timeout_at},
};
use tonic::{Code, Response, Status};

use super::{
    CallError, Capabilities, NodeInfo,
    call::{Rpc, classify, is_timeout, is_transport, sanitise},
};
use crate::{
    error::{Error, Kind},
    model::DriverName,
    proto::csi::{GetPluginInfoRequest, ProbeRequest, identity_client::IdentityClient},
    transport::{self, Channel, Endpoint, Fingerprint},
};

/// A connection over which the driver said who it is and that it is ready.
pub(super) struct Connection {
    pub(super) channel: Channel,
    /// `vendor_version` of GetPluginInfo.
    pub(super) version: String,
    pub(super) capabilities: Arc<Capabilities>,
    /// What the TLS files held when it was made.
    pub(super) fingerprint: Option<Fingerprint>,
    /// NodeGetInfo, once it was asked for.
    pub(super) node_info: OnceCell<NodeInfo>,
}

/// A channel and the time by which its owner must be done with it.
pub(super) struct Link<'a> {
    pub(super) channel: &'a Channel,
    pub(super) driver: &'a str,
    pub(super) deadline: Instant,
}

/// Sends one call, within the deadline of the link.
pub(super) async fn rpc<T, F>(
    link: &Link<'_>,
    rpc: Rpc,
    send: impl FnOnce(Channel) -> F,
) -> Result<T, CallError>
where
    F: Future<Output = Result<Response<T>, Status>>,
{
    match timeout_at(link.deadline, send(link.channel.clone())).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(classify(rpc, link.driver, &status)),
        Err(_) => Err(CallError::ambiguous(
            rpc.name,
            Error::deadline(format!(
                "CSI driver {} did not answer in time: see its log",
                link.driver
            )),
        )),
    }
}

impl Connection {
    /// Connects, and asks in the order of the CSI spec: who are you, what can
    /// you do, are you ready.
    ///
    /// Every failure is ambiguous in class: nothing of the caller's own request
    /// was sent, and what it knew before still holds.
    pub(super) async fn open(
        driver: &DriverName,
        endpoint: &Endpoint,
        within: Duration,
    ) -> Result<Self, CallError> {
        let deadline = Instant::now() + within;
        let open = async {
            let connected = transport::connect_once(endpoint, within);
            let (channel, fingerprint) = timeout_at(deadline, connected)
                .await
                .unwrap_or_else(|_| {
                    Err(Error::unavailable(format!(
                        "cannot connect to {endpoint} within {within:?}: is its server running?"
                    )))
                })
                .map_err(|e| {
                    let e = e.context(format!("CSI driver {driver}"));
                    CallError::ambiguous("GetPluginInfo", e)
                })?;
            let link = Link {
                channel: &channel,
                driver: driver.as_str(),
                deadline,
            };
            let version = check_name(&link, driver, endpoint).await?;
            probe_until_ready(&link).await?;
            let capabilities = Arc::new(Capabilities::read(&link).await?);
            Ok(Self {
                version,
                capabilities,
                fingerprint,
                node_info: OnceCell::new(),
                channel: channel.clone(),
            })
        };
        open.await.map_err(|e: CallError| CallError {
            outcome: super::Outcome::Ambiguous,
            ..e
        })
    }
}

/// Checks that the driver is the one of the configuration; gives its version.
async fn check_name(
    link: &Link<'_>,
    driver: &DriverName,
    endpoint: &Endpoint,
) -> Result<String, CallError> {
    const RPC: Rpc = Rpc::plain("GetPluginInfo");
    let info = rpc(link, RPC, |channel| async {
        IdentityClient::new(channel)
            .get_plugin_info(GetPluginInfoRequest {})
            .await
    })
    .await?;
    if info.name != driver.as_str() {
        let error = Error::precondition(format!(
            "the CSI driver at {endpoint} is named {:?}, but the configuration names it {:?}: correct the name or the endpoint",
            sanitise(&info.name),
            driver.as_str(),
        ));
        return Err(CallError::last(RPC.name, error));
    }
    Ok(sanitise(&info.vendor_version))
}

const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Asks until the driver says that it is ready, with back-off, at most to the
/// deadline of the link.
async fn probe_until_ready(link: &Link<'_>) -> Result<(), CallError> {
    let mut pause = FIRST_PAUSE;
    loop {
        let why = match probe(link).await {
            Ok(true) => return Ok(()),
            Ok(false) => Error::unavailable(format!(
                "CSI driver {} says that it is not ready: see its log",
                link.driver
            )),
            // FAILED_PRECONDITION is how a driver says that something it needs
            // is missing; it may come.
            Err(e) if e.error.kind() == Kind::FailedPrecondition => {
                Error::unavailable(e.error.full_message())
            }
            Err(e) => return Err(e),
        };
        if Instant::now() + pause >= link.deadline {
            return Err(CallError::ambiguous("Probe", why));
        }
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// One Probe. A driver that leaves out `ready` is ready.
pub(super) async fn probe(link: &Link<'_>) -> Result<bool, CallError> {
    let answer = rpc(link, Rpc::plain("Probe"), |channel| async {
        IdentityClient::new(channel).probe(ProbeRequest {}).await
    })
    .await?;
    Ok(answer.ready.unwrap_or(true))
}

/// Whether the connection is of no more use, or what was learnt over it may be
/// out of date.
pub(super) fn is_spent(status: &Status) -> bool {
    matches!(status.code(), Code::Unavailable | Code::Unimplemented)
        || (is_transport(status) && !is_timeout(status))
}
