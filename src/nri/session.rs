// SPDX-License-Identifier: Apache-2.0
//! One connection to the runtime after another: connect, register, be
//! configured and synchronized, serve events, and again when it is lost.

mod backoff;
mod connect;
mod service;

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use service::answer_all;

use std::{path::PathBuf, pin::pin, sync::Arc, time::Duration};

use prost::Message as _;
use tokio::{net::UnixStream, sync::watch, time::Instant};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tracing::{debug, info, warn};

use self::{
    backoff::{Backoff, Lived},
    service::{PluginService, Progress},
};
use super::{
    Plugin, RuntimeInfo,
    mux::{Mux, PLUGIN, RUNTIME},
    ttrpc::{Client, serve},
};
use crate::{
    error::{Error, Result},
    proto::nri::RegisterPluginRequest,
};

/// The version of NRI that is spoken here.
const NRI_VERSION: &str = "v0.12.0";
const RUNTIME_SERVICE: &str = "nri.pkg.api.v1alpha1.Runtime";

/// How long the runtime may take to answer RegisterPlugin.
const REGISTRATION_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the answers of calls under way may take to go out at the end.
const CLOSING_TIMEOUT: Duration = Duration::from_secs(1);
/// How long the connection stays open after the last of them, where we hang up.
const LINGER: Duration = Duration::from_millis(100);

/// Where the runtime is, and who we are to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionConfig {
    /// The runtime's NRI socket. It may appear later, and be made anew.
    pub socket: PathBuf,
    /// The plugin's name.
    pub name: String,
    /// The plugin's index, two digits.
    pub index: String,
}

/// How things stand with the runtime.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Status {
    /// There is no connection.
    Disconnected {
        /// Why, and what to do.
        why: String,
    },
    /// There is one, but the runtime has not told its state: no events come.
    Connected,
    /// Events come.
    Synchronized {
        /// The runtime.
        runtime: RuntimeInfo,
    },
}

/// Serves the plugin until `shutdown`, through any number of connections.
///
/// Creations under way at the end of a session are refused, not left to a
/// runtime that would go on without the plugin's answer.
pub async fn run<P: Plugin>(
    config: SessionConfig,
    plugin: Arc<P>,
    shutdown: CancellationToken,
    status: watch::Sender<Status>,
) {
    let mut backoff = Backoff::default();
    let mut told = String::new();
    loop {
        let attempt = tokio::select! {
            biased;
            () = shutdown.cancelled() => Err(shutting_down()),
            attempt = connect::connect(&config.socket) => attempt,
        };
        let (lived, why) = match attempt {
            Ok(io) => session(io, &config, &plugin, &shutdown, &status).await,
            Err(why) => (Lived::NotAtAll, why),
        };
        let why = why.full_message();
        status.send_replace(Status::Disconnected { why: why.clone() });
        if shutdown.is_cancelled() {
            return;
        }
        let delay = backoff.next(lived);
        // A runtime that stays away is worth one line, not one each attempt.
        if lived == Lived::NotAtAll && why == told {
            debug!(%why, ?delay, "still no NRI session");
        } else {
            warn!(%why, ?delay, "no NRI session: trying again");
        }
        told = why;
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = tokio::time::sleep(delay) => {}
        }
    }
}

/// Serves the plugin through the one connection that the runtime itself has made,
/// until its end or `shutdown`. Gives why it ended.
pub async fn serve_one<P: Plugin>(
    io: UnixStream,
    config: SessionConfig,
    plugin: Arc<P>,
    shutdown: CancellationToken,
    status: watch::Sender<Status>,
) -> Error {
    let (_, why) = session(io, &config, &plugin, &shutdown, &status).await;
    status.send_replace(Status::Disconnected {
        why: why.full_message(),
    });
    why
}

fn shutting_down() -> Error {
    Error::unavailable("the plugin is shutting down")
}

/// One session, from the connection to its end.
async fn session<P: Plugin>(
    io: UnixStream,
    config: &SessionConfig,
    plugin: &Arc<P>,
    shutdown: &CancellationToken,
    status: &watch::Sender<Status>,
) -> (Lived, Error) {
    status.send_replace(Status::Connected);
    let (mut mux, [served, called]) = Mux::start(io, [PLUGIN, RUNTIME]);
    let (progress, mut seen) = watch::channel(Progress::New);
    let stop = CancellationToken::new();
    // Serving comes first: Configure may arrive before RegisterPlugin is answered.
    let service = Arc::new(PluginService::new(Arc::clone(plugin), progress));
    let mut server = AbortOnDropHandle::new(tokio::spawn(serve(
        served,
        Arc::clone(&service),
        stop.clone(),
    )));
    let client = Client::start(called);

    let mut since = None;
    let mut hung_up = false;
    let why = {
        let progress = seen.clone();
        let mut registering = pin!(register(&client, config));
        let mut following = pin!(follow(&mut seen, status, &mut since));
        let mut registered = false;
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => break shutting_down(),
                result = &mut registering, if !registered => match result {
                    Ok(()) => registered = true,
                    Err(why) => break why,
                },
                why = mux.ended() => {
                    hung_up = true;
                    // A runtime may refuse and hang up at once: the refusal says more.
                    if !registered && let Err(why) = registering.await {
                        break why;
                    }
                    break describe_end(&progress.borrow(), why);
                }
                why = &mut following => break why,
            }
        }
    };
    stop.cancel();
    // Calls under way are answered, then the connection is closed; after this
    // nothing of the session calls the plugin any more.
    if tokio::time::timeout(CLOSING_TIMEOUT, &mut server)
        .await
        .is_err()
    {
        server.abort();
        let _ = (&mut server).await;
    }
    // A runtime that sees an answer and the end of the connection at once may
    // go by the end, and create the container without us.
    if !hung_up {
        tokio::time::sleep(LINGER).await;
    }
    drop(client);
    mux.close(CLOSING_TIMEOUT).await;
    if service.is_configured() {
        status.send_replace(Status::Disconnected {
            why: why.full_message(),
        });
        plugin.disconnected(&why);
    }
    (Lived::since(since), why)
}

async fn register(client: &Client, config: &SessionConfig) -> Result<()> {
    let request = RegisterPluginRequest {
        plugin_name: config.name.clone(),
        plugin_idx: config.index.clone(),
        nri_version: NRI_VERSION.into(),
    };
    let call = client.call(
        RUNTIME_SERVICE,
        "RegisterPlugin",
        request.encode_to_vec(),
        REGISTRATION_TIMEOUT,
    );
    call.await.map(drop).map_err(|e| {
        e.context(format_args!(
            "cannot register as plugin {}-{} at {}",
            config.index,
            config.name,
            config.socket.display()
        ))
    })
}

/// Turns progress into status; returns only where the session must end.
///
/// There is no deadline for the first Synchronize: a runtime may hold it back
/// for as long as a container takes to stop, and registering again would only
/// add to that. A runtime that began, however, has one request timeout for all
/// parts, and one that gave up half-way may keep the socket open for ever.
async fn follow(
    progress: &mut watch::Receiver<Progress>,
    status: &watch::Sender<Status>,
    since: &mut Option<Instant>,
) -> Error {
    loop {
        let now = progress.borrow_and_update().clone();
        let stalled_at = match now {
            Progress::New | Progress::Configured => None,
            Progress::Synchronizing { give_up } => Some(give_up),
            Progress::Synchronized(runtime) => {
                since.get_or_insert_with(Instant::now);
                info!(runtime = %runtime.name, version = %runtime.version, "synchronized with the runtime");
                status.send_replace(Status::Synchronized { runtime });
                None
            }
            Progress::Failed(why) => return Error::unavailable(why),
        };
        let stalled = async {
            match stalled_at {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            changed = progress.changed() => {
                if changed.is_err() {
                    // The server is gone: the end of the connection says why.
                    std::future::pending::<()>().await;
                }
            }
            () = stalled => return Error::unavailable(
                "the runtime sent a part of its state and then nothing: its log says why",
            ),
        }
    }
}

/// Adds what the runtime does not say when it hangs up on a new plugin.
fn describe_end(progress: &Progress, why: Error) -> Error {
    match progress {
        Progress::New => why.context("before the plugin was configured"),
        Progress::Configured | Progress::Synchronizing { .. } => {
            why.context("before the plugin was synchronized (the runtime's log says why)")
        }
        Progress::Synchronized(_) => why,
        Progress::Failed(reason) => Error::unavailable(reason),
    }
}
