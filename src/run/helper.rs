// SPDX-License-Identifier: Apache-2.0
//! The helper's side of `node::helper`: one deed, one line of JSON, the end.

use std::{io, process::ExitCode};

use crate::{
    cli::Helper,
    host::{
        enter,
        privileges::{self, Process},
    },
    node::HelperAnswer,
};

pub(super) fn help(what: &Helper) -> ExitCode {
    let done = privileges::limit(Process::Helper, false).and_then(|_| match what {
        Helper::Own { path, mount, gid } => enter::own(path, *mount, *gid),
        Helper::Probe { path } => enter::probe(path).map(|()| false),
    });
    let answer = match done {
        Ok(changed) => HelperAnswer {
            changed,
            ..HelperAnswer::default()
        },
        Err(error) => failed(&error),
    };
    let text = serde_json::to_string(&answer).expect("an answer is made of plain values");
    println!("{text}");
    if answer.failure.is_none() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn failed(error: &io::Error) -> HelperAnswer {
    HelperAnswer {
        changed: false,
        errno: error.raw_os_error(),
        failure: Some(error.to_string()),
    }
}
