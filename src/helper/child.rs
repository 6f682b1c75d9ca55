// SPDX-License-Identifier: Apache-2.0
//! One deed, one process: started, heard, and seen to its end.

use std::{path::Path, process::Stdio, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::{Child, Command},
};

use super::{Answer, LAST_BREATH, Request, turn::Turn, wire::MAX_LINE};

/// Runs the deed. Whoever waits may go: the process is seen to its end.
pub(super) async fn run(
    program: &Path,
    root: &Path,
    request: &Request,
    within: Duration,
    turn: Turn,
) -> Answer {
    let child = Command::new(program)
        .args(["helper", "deed", "--mount-root"])
        .arg(root)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let child = match child {
        Ok(child) => child,
        Err(e) => return failed(format!("cannot start {}: {e}", program.display())),
    };
    match tokio::spawn(hear(child, request.encode(), within, turn)).await {
        Ok(answer) => answer,
        Err(e) => failed(format!("hearing the process broke off: {e}")),
    }
}

async fn hear(mut child: Child, request: Vec<u8>, within: Duration, turn: Turn) -> Answer {
    let mut line = Vec::new();
    let talk = async {
        if let Some(mut stdin) = child.stdin.take() {
            // One that ended without reading shows below.
            let _ = stdin.write_all(&request).await;
        }
        if let Some(out) = child.stdout.take() {
            out.take(MAX_LINE as u64).read_to_end(&mut line).await?;
        }
        child.wait().await
    };
    match tokio::time::timeout(within, talk).await {
        Ok(Ok(status)) => Answer::decode(&line)
            .unwrap_or_else(|e| failed(format!("the process ended with {status}: {e}"))),
        Ok(Err(e)) => failed(format!("cannot hear the process: {e}")),
        Err(_) => Answer::Hangs {
            stuck: kill(child, turn).await,
        },
    }
}

/// Ends the process. One that hangs in the kernel keeps its turn until it ends:
/// true.
async fn kill(mut child: Child, turn: Turn) -> bool {
    let _ = child.start_kill();
    if tokio::time::timeout(LAST_BREATH, child.wait())
        .await
        .is_ok()
    {
        return false;
    }
    let pid = child.id();
    tracing::error!(
        volume = ?turn.volume,
        pid,
        "a process hangs in the kernel and cannot be killed: the file system of the volume does not answer"
    );
    tokio::spawn(async move {
        let _ = child.wait().await;
        tracing::info!(volume = ?turn.volume, pid, "the process that hung has ended");
        drop(turn);
    });
    true
}

fn failed(message: String) -> Answer {
    Answer::Failed {
        errno: None,
        message,
    }
}
