// SPDX-License-Identifier: Apache-2.0
//! From a fresh connection to a synchronized plugin.

use actor_volumes::proto::nri::{
    ConfigureRequest, ConfigureResponse, Empty, RegisterPluginRequest, SynchronizeRequest,
    SynchronizeResponse, UpdateContainersResponse,
};
use prost::Message;
use tokio::sync::{mpsc, oneshot};

use super::{
    PluginHandle, Status, Sync,
    wire::{CallError, Incoming},
};

/// Registers, configures and synchronizes a plugin, or says why not.
pub(super) async fn set_up(
    plugin: &PluginHandle,
    calls: mpsc::UnboundedReceiver<Incoming>,
) -> Result<(), String> {
    let (registered, registration) = oneshot::channel();
    tokio::spawn(serve(plugin.clone(), calls, registered));
    let timeout = plugin.behaviour().registration_timeout;
    tokio::select! {
        registered = tokio::time::timeout(timeout, registration) => registered
            .map_err(|_| "plugin registration timed out")?
            .map_err(|_| "failed to register plugin, connection closed")?
            .map_err(|why| format!("failed to register plugin: {why}"))?,
        why = plugin.wait_closed() => return Err(why),
    }
    if !plugin.behaviour().configure_first {
        configure(plugin).await?;
    }
    synchronize(plugin).await
}

/// The Runtime service of one connection.
async fn serve(
    plugin: PluginHandle,
    mut calls: mpsc::UnboundedReceiver<Incoming>,
    registered: oneshot::Sender<Result<(), String>>,
) {
    let mut registered = Some(registered);
    while let Some(Incoming { stream, request }) = calls.recv().await {
        let known = request.service == "nri.pkg.api.v1alpha1.Runtime";
        let mut registration = None;
        let answer = match request.method.as_str() {
            "RegisterPlugin" if known => {
                let mut result = register(&plugin, &request.payload);
                if plugin.behaviour().configure_first && result.is_ok() {
                    result = configure(&plugin).await;
                }
                registration = Some(result.clone());
                result
                    .map(|()| Empty {}.encode_to_vec())
                    .map_err(|message| Status { code: 2, message })
            }
            "UpdateContainers" if known => Ok(UpdateContainersResponse::default().encode_to_vec()),
            method => Err(Status {
                code: 12,
                message: format!("{}/{method}", request.service),
            }),
        };
        plugin.wire().answer(stream, answer).await;
        if let Some(result) = registration
            && let Some(registered) = registered.take()
        {
            let _ = registered.send(result);
        }
    }
}

fn register(plugin: &PluginHandle, payload: &[u8]) -> Result<(), String> {
    let request = RegisterPluginRequest::decode(payload).map_err(|e| e.to_string())?;
    let name = request.plugin_name;
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"_.+-".contains(&b);
    if name.is_empty() || !name.bytes().all(plain) {
        return Err(format!("invalid plugin name {name:?}"));
    }
    let index = request.plugin_idx;
    if index.len() != 2 || !index.bytes().all(|b| b.is_ascii_digit()) {
        return Err(format!("invalid plugin index {index:?}"));
    }
    plugin.set_name(format!("{index}-{name}"));
    Ok(())
}

async fn configure(plugin: &PluginHandle) -> Result<(), String> {
    let version = plugin.version();
    let behaviour = plugin.behaviour();
    let millis = |d: std::time::Duration| i64::try_from(d.as_millis()).expect("a short timeout");
    let mut request = ConfigureRequest {
        runtime_name: version.runtime.into(),
        runtime_version: version.runtime_version.into(),
        ..Default::default()
    };
    if version.nri >= (0, 7) {
        request.registration_timeout = millis(behaviour.registration_timeout);
        request.request_timeout = millis(behaviour.request_timeout);
    }
    if version.nri >= (0, 12) {
        request.nri_version = format!("v{}.{}.0", version.nri.0, version.nri.1);
    }
    let answer: ConfigureResponse = plugin
        .request("Configure", &request)
        .await
        .map_err(|e| describe("configure", e))?;
    let events = answer.events.cast_unsigned();
    let valid = version.valid_events();
    if events & !valid != 0 {
        return Err(format!("invalid plugin events: {:#x}", events & !valid));
    }
    plugin.subscribe(if events == 0 { valid } else { events });
    Ok(())
}

async fn synchronize(plugin: &PluginHandle) -> Result<(), String> {
    let behaviour = plugin.behaviour();
    let chunk = match behaviour.sync {
        Sync::Whole => usize::MAX,
        Sync::Chunks(n) => n.max(1),
        Sync::FirstChunkOnly => 1,
        Sync::Never => return Err(silence(plugin).await),
    };
    let exchange = async {
        let (mut pods, mut containers) = (&behaviour.pods[..], &behaviour.containers[..]);
        loop {
            let (some_pods, more_pods) = pods.split_at(pods.len().min(chunk));
            let (some, more_containers) = containers.split_at(containers.len().min(chunk));
            (pods, containers) = (more_pods, more_containers);
            let request = SynchronizeRequest {
                pods: some_pods.to_vec(),
                containers: some.to_vec(),
                more: !pods.is_empty() || !containers.is_empty(),
            };
            let answer: SynchronizeResponse = plugin
                .request("Synchronize", &request)
                .await
                .map_err(|e| describe("synchronize", e))?;
            if !request.more {
                return Ok(());
            }
            if !answer.update.is_empty() || !answer.more {
                return Err("plugin does not handle split sync requests".into());
            }
            if behaviour.sync == Sync::FirstChunkOnly {
                return Err(silence(plugin).await);
            }
        }
    };
    // The whole exchange has the time of one request.
    let silent = matches!(behaviour.sync, Sync::FirstChunkOnly);
    if silent {
        return exchange.await;
    }
    tokio::time::timeout(behaviour.request_timeout, exchange)
        .await
        .unwrap_or_else(|_| Err("failed to synchronize plugin: deadline exceeded".into()))
}

/// Holds the socket open and says nothing, until the plugin has had enough.
async fn silence(plugin: &PluginHandle) -> String {
    plugin.wait_closed().await
}

fn describe(what: &str, error: CallError) -> String {
    match error {
        CallError::Refused(Status { code, message }) => {
            format!("failed to {what} plugin: code {code}: {message}")
        }
        CallError::Closed => format!("failed to {what} plugin: connection closed"),
        CallError::TimedOut => format!("failed to {what} plugin: deadline exceeded"),
    }
}
