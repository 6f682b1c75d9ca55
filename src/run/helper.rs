// SPDX-License-Identifier: Apache-2.0
//! `actor-volumes helper`: the server, and the process of one deed.

use std::{io, path::Path, process::ExitCode};

use tokio::sync::oneshot;

use super::{Threads, parts, runtime};
use crate::{
    cli::Helper,
    config::{Config, Log},
    error::{Error, Result},
    helper::{self, Server},
    telemetry,
};

/// Serves until SIGTERM, SIGINT or, where that was asked for, the end of standard
/// input.
pub(super) fn serve(options: Helper) -> Result<()> {
    let (server, log) = match (options.socket, options.mount_root) {
        (Some(socket), Some(root)) => (Server::new(socket, root), Log::default()),
        _ => {
            let config = Config::load(&options.config)?;
            let server = Server::new(config.helper_socket(), config.node.mount_root);
            (server, config.log)
        }
    };
    telemetry::init(&log)?;
    let until_eof = options.until_eof;
    // One thread, and the first: what it starts ends with it.
    runtime(Threads::One)?.block_on(async {
        let shutdown = parts::shutdown()?;
        let eof = async {
            if until_eof {
                let _ = end_of_input().await;
            } else {
                std::future::pending::<()>().await;
            }
        };
        let ended = async {
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = eof => {}
            }
        };
        helper::serve(server, ended).await
    })
}

/// A thread of its own: nothing else would wait for its end.
fn end_of_input() -> oneshot::Receiver<()> {
    let (tell, told) = oneshot::channel();
    std::thread::spawn(move || {
        let _ = io::copy(&mut io::stdin(), &mut io::sink());
        let _ = tell.send(());
    });
    told
}

/// One deed, one line of JSON, the end.
pub(super) fn deed(mount_root: &Path) -> Result<ExitCode> {
    helper::run_deed(mount_root)
        .map_err(|e| Error::internal("cannot do what the helper was asked").with_source(e))?;
    Ok(ExitCode::SUCCESS)
}
