// SPDX-License-Identifier: Apache-2.0
//! The helper as a child of the daemon, started again whenever it has ended.

use std::{process::Stdio, time::Duration};

use tokio::{
    process::{Child, Command},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use crate::config::Config;

/// How long after its end it is started again.
const AGAIN: Duration = Duration::from_millis(500);

/// How long it may take to end by itself.
const END_WITHIN: Duration = Duration::from_secs(1);

/// Runs the helper until the shutdown. It ends when this process does, whatever it
/// dies of: its standard input has an end then.
pub(super) fn start(config: &Config, shutdown: CancellationToken) -> JoinHandle<()> {
    let (socket, root) = (config.helper_socket(), config.node.mount_root.clone());
    let start = move || {
        // Also when the file was replaced by a newer one meanwhile.
        Command::new("/proc/self/exe")
            .args(["helper", "--until-eof", "--socket"])
            .arg(&socket)
            .arg("--mount-root")
            .arg(&root)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
    };
    tokio::spawn(async move {
        while !shutdown.is_cancelled() {
            match start() {
                Ok(child) => watch(child, &shutdown).await,
                Err(error) => tracing::error!(%error, "cannot start the helper"),
            }
            shutdown
                .run_until_cancelled(tokio::time::sleep(AGAIN))
                .await;
        }
    })
}

async fn watch(mut child: Child, shutdown: &CancellationToken) {
    // Held open as long as it is to live: wait() would close it.
    let lifeline = child.stdin.take();
    if let Some(ended) = shutdown.run_until_cancelled(child.wait()).await {
        tracing::error!(?ended, "the helper has ended: it is started again");
        return;
    }
    drop(lifeline);
    if tokio::time::timeout(END_WITHIN, child.wait())
        .await
        .is_err()
    {
        let _ = child.kill().await;
    }
}
