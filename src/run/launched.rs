// SPDX-License-Identifier: Apache-2.0
//! The runtime itself has started this program, as one of its plugins: with a
//! connected socket, three variables and no argument, and nobody reads its output.
//!
//! It is the daemon all the same. It lives as long as its connection: the runtime
//! starts it again when it starts itself.

use std::{
    env,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio::{sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use super::{
    node::{Helper, node},
    parts::{Door, shutdown},
    privileges,
    serve::serve,
};
use crate::{
    config::{self, Config},
    error::{Error, Result},
    host::{
        inherited,
        privileges::{Limited, Process},
    },
    nri::{self, SessionConfig, Status},
    nri_plugin::Front,
    telemetry,
};

const SOCKET: &str = "NRI_PLUGIN_SOCKET";
const NAME: &str = "NRI_PLUGIN_NAME";
const INDEX: &str = "NRI_PLUGIN_IDX";

/// The log, where the configuration names none: nobody reads the standard error.
const LOG_FILE: &str = "actor-volumes.log";

/// What the runtime gave.
struct Given {
    name: String,
    index: String,
    stream: UnixStream,
}

/// Whether the runtime has started this process. Those that it starts in turn
/// have the same variables, and arguments.
pub(super) fn is_launched() -> bool {
    env::var_os(SOCKET).is_some() && env::args_os().len() == 1
}

impl Given {
    /// To be called once.
    fn take() -> Result<Self> {
        let variable = |name: &str| {
            env::var(name).map_err(|e| {
                Error::invalid(format!(
                    "the runtime that starts a plugin sets {SOCKET}, {NAME} and {INDEX}, and {name} is not set"
                ))
                .with_source(e)
            })
        };
        let number = variable(SOCKET)?;
        let stream = number
            .parse()
            .map_err(std::io::Error::other)
            .and_then(inherited::take_socket)
            .map_err(|e| {
                Error::invalid(format!(
                    "descriptor {number} of {SOCKET} is not the runtime's connection"
                ))
                .with_source(e)
            })?;
        Ok(Self {
            name: variable(NAME)?,
            index: variable(INDEX)?,
            stream,
        })
    }
}

/// Gives up what no daemon needs. Which one it is to be, and where it listens, the
/// configuration tells only when the runtime has its plugin.
pub(super) fn limit() -> Result<Limited> {
    privileges::limit(Process::Serve, true)
}

/// Runs until the runtime hangs up, or SIGTERM or SIGINT.
///
/// It registers at once, whatever comes of the daemon: there are runtimes that do
/// not start without.
pub(super) async fn run(limited: Limited) -> Result<()> {
    let given = Given::take()?;
    let shutdown = shutdown()?;
    let front = Arc::new(Front::default());
    let session = session(given, Arc::clone(&front), shutdown.clone())?;
    let daemon = daemon(&front, &shutdown, &limited).await;
    if let Err(error) = &daemon {
        tracing::error!("{}", error.full_message());
        front.waits_for(format!(
            "{}; set it right and restart the runtime",
            error.full_message()
        ));
    } else {
        shutdown.cancel();
    }
    let _ = session.await;
    daemon
}

fn session(given: Given, front: Arc<Front>, shutdown: CancellationToken) -> Result<JoinHandle<()>> {
    let io = tokio::net::UnixStream::from_std(given.stream)
        .map_err(|e| Error::internal("cannot use the runtime's connection").with_source(e))?;
    let config = SessionConfig {
        socket: PathBuf::from(format!("(the descriptor of {SOCKET})")),
        name: given.name,
        index: given.index,
    };
    let (status, _) = watch::channel(Status::Connected);
    Ok(tokio::spawn(async move {
        let why = nri::serve_one(io, config, front, shutdown.clone(), status).await;
        if !shutdown.is_cancelled() {
            tracing::warn!(
                "the runtime's connection has ended, and so does this process, which it has started: {}",
                why.full_message()
            );
            shutdown.cancel();
        }
    }))
}

async fn daemon(front: &Arc<Front>, shutdown: &CancellationToken, limited: &Limited) -> Result<()> {
    let config = config()?;
    telemetry::init(&config.log)?;
    privileges::tell(limited);
    let door = Door::Launched(Arc::clone(front));
    match config.node.control {
        Some(_) => node(config, None, shutdown.clone(), door, Helper::Child).await,
        None => serve(config, shutdown.clone(), door).await,
    }
}

/// The configuration: `<path of the plugin>.toml` if there is one, since a plugin is
/// given neither arguments nor variables of ours.
fn config() -> Result<Config> {
    let plugin = env::args_os().next().map(PathBuf::from);
    let beside = plugin.map(|plugin| {
        let mut path = plugin.into_os_string();
        path.push(".toml");
        PathBuf::from(path)
    });
    let path = beside.filter(|path| path.is_file());
    let path = path.unwrap_or_else(|| config::DEFAULT_PATH.into());
    let mut config = Config::load(&path)?;
    if config.log.file.is_none() {
        config.log.file = Some(Path::new(&config.node.run_dir).join(LOG_FILE));
    }
    Ok(config)
}
