// SPDX-License-Identifier: Apache-2.0
//! The runtime itself has started this program, as one of its plugins: with a
//! connected socket, three variables and no argument, and nobody reads its output.
//!
//! It is `serve` all the same. The node agent's part has the connection and is started
//! first, before anything is read: it registers at once, whatever comes of the rest, for
//! there are runtimes that do not start without. The connection cannot be made anew, so
//! all end with that part: the runtime starts the plugin again when it starts itself.

use std::{
    env,
    fs::File,
    os::{fd::OwnedFd, unix::net::UnixStream},
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio::{sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use super::{
    node::node,
    own::{Role, own},
    parts::{Door, shutdown, signals},
    serve,
    supervise::{Part, Supervisor},
};
use crate::{
    config::{self, Config},
    error::{Error, Result},
    host::inherited,
    nri::{self, SessionConfig, Status},
    nri_plugin::Front,
    telemetry,
};

const SOCKET: &str = "NRI_PLUGIN_SOCKET";
const NAME: &str = "NRI_PLUGIN_NAME";
const INDEX: &str = "NRI_PLUGIN_IDX";

/// The log, where the configuration names none: nobody reads the standard error.
const LOG_FILE: &str = "actor-volumes.log";

/// Whether the runtime has started this process. Those that it starts in turn
/// have the same variables, and arguments.
pub(super) fn is_launched() -> bool {
    env::var_os(SOCKET).is_some() && env::args_os().len() == 1
}

fn variable(name: &str) -> Result<String> {
    env::var(name).map_err(|e| {
        Error::invalid(format!(
            "the runtime that starts a plugin sets {SOCKET}, {NAME} and {INDEX}, and {name} is not set"
        ))
        .with_source(e)
    })
}

/// The runtime's connection. To be called once for each number.
fn take(number: &str) -> Result<UnixStream> {
    let taken = number.parse().map_err(std::io::Error::other);
    taken.and_then(inherited::take_socket).map_err(|e| {
        Error::invalid(format!(
            "descriptor {number} of {SOCKET} is not the runtime's connection"
        ))
        .with_source(e)
    })
}

/// The supervisor, until the runtime hangs up, or SIGTERM or SIGINT.
pub(super) async fn run() -> Result<()> {
    let connection = OwnedFd::from(take(&variable(SOCKET)?)?);
    let shutdown = signals()?;
    let path = config_path();
    let mut supervisor = Supervisor::new(shutdown.clone())?;
    supervisor.start(serve::launched_node(&path, connection));
    let others = others(&path, &shutdown).await;
    let failed = match others {
        Ok(parts) => {
            parts.into_iter().for_each(|part| supervisor.start(part));
            Ok(())
        }
        // The node agent's part has found the same, and tells whoever asks for volumes.
        Err(error) => {
            tracing::error!("{}", error.full_message());
            Err(error)
        }
    };
    supervisor.run().await.and(failed)
}

/// The other parts, once the directories are this daemon's; none: the shutdown came first.
async fn others(path: &Path, shutdown: &CancellationToken) -> Result<Vec<Part>> {
    let printed = Config::load(path)?.log.file.is_none();
    let config = load(path)?;
    telemetry::init(&config.log)?;
    if !own(Role::Serve, &config, shutdown, drop).await? {
        return Ok(Vec::new());
    }
    let parts = serve::parts_but_node(&config, path);
    match &config.log.file {
        Some(file) if printed => {
            let opened = File::options().append(true).open(file);
            let opened = opened.map_err(|e| {
                Error::internal(format!("cannot open the log file {}", file.display()))
                    .with_source(e)
            })?;
            Ok(serve::printing_to(parts, &opened))
        }
        _ => Ok(parts),
    }
}

/// The node agent's part, until the runtime hangs up, or SIGTERM or SIGINT.
pub(super) async fn launched_node(number: i32, path: PathBuf) -> Result<()> {
    let stream = take(&number.to_string())?;
    let shutdown = shutdown()?;
    let front = Arc::new(Front::default());
    let session = session(stream, Arc::clone(&front), shutdown.clone())?;
    let done = behind(&front, &path, &shutdown).await;
    if let Err(error) = &done {
        tracing::error!("{}", error.full_message());
        front.waits_for(format!(
            "{}; set it right and restart the runtime",
            error.full_message()
        ));
    } else {
        shutdown.cancel();
    }
    let _ = session.await;
    done
}

fn session(
    stream: UnixStream,
    front: Arc<Front>,
    shutdown: CancellationToken,
) -> Result<JoinHandle<()>> {
    let io = tokio::net::UnixStream::from_std(stream)
        .map_err(|e| Error::internal("cannot use the runtime's connection").with_source(e))?;
    let config = SessionConfig {
        socket: PathBuf::from(format!("(the descriptor of {SOCKET})")),
        name: variable(NAME)?,
        index: variable(INDEX)?,
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

/// What stands behind the front.
async fn behind(front: &Arc<Front>, path: &Path, shutdown: &CancellationToken) -> Result<()> {
    let config = load(path)?;
    telemetry::init(&config.log)?;
    let here = format!("unix://{}", config.nodes_socket().display());
    let control = config.node.control.is_none().then_some(here);
    let door = Door::Launched(Arc::clone(front));
    node(config, control, shutdown.clone(), door).await
}

/// `<path of the plugin>.toml` if there is one, since a plugin is given neither arguments
/// nor variables of ours.
fn config_path() -> PathBuf {
    let plugin = env::args_os().next().map(PathBuf::from);
    let beside = plugin.map(|plugin| {
        let mut path = plugin.into_os_string();
        path.push(".toml");
        PathBuf::from(path)
    });
    let path = beside.filter(|path| path.is_file());
    path.unwrap_or_else(|| config::DEFAULT_PATH.into())
}

fn load(path: &Path) -> Result<Config> {
    let mut config = Config::load(path)?;
    if config.log.file.is_none() {
        config.log.file = Some(Path::new(&config.node.run_dir).join(LOG_FILE));
    }
    Ok(config)
}
