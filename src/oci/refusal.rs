// SPDX-License-Identifier: Apache-2.0
//! A refusal, told as the runtime itself would tell it: whoever started it reads
//! the reason from its log file.

use std::{fs::OpenOptions, io::Write};

use super::Command;
use crate::error::{Error, Retry};

/// What is said about a container that is not made.
pub fn refuse(container: &str, error: &Error) -> String {
    let why = error.full_message();
    let said = why.contains("retry");
    let hint = match error.kind().retry() {
        Retry::Later if !said => "; retry",
        _ => "",
    };
    format!("actor-volumes: container {container:?} is not made: {why}{hint}")
}

/// Adds the message to the runtime's log file, if the command line names one. It
/// is on stderr too, so a log that cannot be written is passed over.
pub fn write_log(command: &Command, message: &str, now: &str) {
    let Some(path) = &command.log else {
        return;
    };
    let line = if command.log_is_json {
        serde_json::json!({"level": "error", "msg": message, "time": now}).to_string()
    } else {
        format!("time=\"{now}\" level=error msg={message:?}")
    };
    let opened = OpenOptions::new().create(true).append(true).open(path);
    if let Ok(mut file) = opened {
        let _ = writeln!(file, "{line}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_has_one_line_in_the_format_that_was_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command {
            log: Some(dir.path().join("log")),
            log_is_json: true,
            ..Command::default()
        };
        let text = refuse("agent", &Error::unavailable("the \"agent\" is away"));
        write_log(&command, &text, "2026-01-02T03:04:05Z");
        let written = std::fs::read_to_string(dir.path().join("log")).unwrap();
        let line: serde_json::Value = serde_json::from_str(&written).unwrap();
        assert_eq!(line["level"], "error");
        assert_eq!(line["time"], "2026-01-02T03:04:05Z");
        let said = line["msg"].as_str().unwrap();
        assert!(said.contains("the \"agent\" is away; retry"));

        command.log_is_json = false;
        write_log(&command, "no", "2026-01-02T03:04:05Z");
        let written = std::fs::read_to_string(dir.path().join("log")).unwrap();
        let last = "time=\"2026-01-02T03:04:05Z\" level=error msg=\"no\"";
        assert_eq!(written.lines().last(), Some(last));
        command.log = Some(dir.path().join("not/there"));
        write_log(&command, "no", "2026-01-02T03:04:05Z");
    }
}
