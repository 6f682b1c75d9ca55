// SPDX-License-Identifier: Apache-2.0
//! The fault-injecting CSI driver as a process of its own.

use std::{path::PathBuf, process::ExitCode};

use actor_volumes_testkit::csi::{Backend, CsiDriver, Files, Options};

const USAGE: &str = "usage: testkit-csi --socket PATH --root DIR [--name NAME] [--node-id ID]
         [--no-stage] [--attach] [--no-single-node-modes]
         [--control FILE] [--log FILE] [--violations FILE]
The files are, unless told otherwise, csi-control.json, csi-calls.jsonl and
csi-violations.jsonl beside the root.";

fn read_arguments() -> Result<(PathBuf, Options), String> {
    let mut arguments = std::env::args().skip(1);
    let (mut socket, mut root) = (None, None);
    let mut files = Files::default();
    let mut options = Options::new(Backend::Memory);
    while let Some(flag) = arguments.next() {
        let mut value = || arguments.next().ok_or(format!("{flag} needs a value"));
        match flag.as_str() {
            "--socket" => socket = Some(PathBuf::from(value()?)),
            "--root" => root = Some(PathBuf::from(value()?)),
            "--name" => options.name = value()?,
            "--node-id" => options.node_id = value()?,
            "--no-stage" => options.stage = false,
            "--attach" => options.attach = true,
            "--no-single-node-modes" => {
                options.controller_single_node_modes = false;
                options.node_single_node_modes = false;
            }
            "--control" => files.control = Some(value()?.into()),
            "--log" => files.calls = Some(value()?.into()),
            "--violations" => files.violations = Some(value()?.into()),
            other => return Err(format!("unknown argument {other}")),
        }
    }
    let socket = socket.ok_or("--socket is missing")?;
    let root = root.ok_or("--root is missing")?;
    let beside = |name| root.with_file_name(name);
    options.files = Files {
        control: Some(files.control.unwrap_or_else(|| beside("csi-control.json"))),
        calls: Some(files.calls.unwrap_or_else(|| beside("csi-calls.jsonl"))),
        violations: Some(
            files
                .violations
                .unwrap_or_else(|| beside("csi-violations.jsonl")),
        ),
    };
    options.backend = Backend::Bind { root };
    Ok((socket, options))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let (socket, options) = match read_arguments() {
        Ok(read) => read,
        Err(why) => {
            eprintln!("{why}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let _driver = CsiDriver::start_with(&socket, options).await;
    println!("testkit-csi serves on {}", socket.display());
    // It ends with the signal that ends its process.
    std::future::pending::<()>().await;
    ExitCode::SUCCESS
}
