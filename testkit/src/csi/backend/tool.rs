// SPDX-License-Identifier: Apache-2.0
//! Programs of the system.

use std::{
    ffi::OsStr,
    io::{self, Read},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// No tool takes longer, unless it never ends.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs the program, and gives what it printed.
pub(super) fn tool<A: AsRef<OsStr>>(program: &str, arguments: &[A]) -> io::Result<String> {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| io::Error::new(e.kind(), format!("cannot run {program}: {e}")))?;
    // None of these tools prints more than a pipe holds.
    let until = Instant::now() + PATIENCE;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if Instant::now() > until {
            child.kill()?;
            let text = format!("{program} was killed: it took longer than {PATIENCE:?}");
            return Err(io::Error::new(io::ErrorKind::TimedOut, text));
        }
        thread::sleep(Duration::from_millis(3));
    };
    let read = |pipe: Option<&mut dyn Read>| {
        let mut text = String::new();
        pipe.map_or(Ok(0), |p| p.read_to_string(&mut text))
            .map(|_| text)
    };
    let out = read(child.stdout.as_mut().map(|p| p as &mut dyn Read))?;
    if status.success() {
        return Ok(out);
    }
    let why = read(child.stderr.as_mut().map(|p| p as &mut dyn Read))?;
    let text = format!("{program} failed ({status}): {}", why.trim());
    Err(io::Error::other(text))
}
