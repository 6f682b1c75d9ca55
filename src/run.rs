// SPDX-License-Identifier: Apache-2.0
//! The composition root: the only place that knows all rooms.

mod bind;
mod bundle;
mod control;
mod doctor;
mod door;
mod forward;
mod gates;
mod guard;
mod helped;
mod helper;
mod hook;
mod injection;
mod key;
mod launched;
mod mounter;
mod node;
mod own;
mod parts;
mod ports;
mod privileges;
mod real;
mod serve;
mod store;
mod supervise;
mod wrapper;

use std::process::ExitCode;

use clap::Parser;
use parts::Door;

use crate::{
    cli::{self, Cli, Command},
    config::{Config, Log},
    error::{Error, Result},
    host::{privileges::Process, process},
    local_driver::{self, Options},
};

/// Reads the command line and does what it says.
pub fn run() -> ExitCode {
    // In the OCI runtime's place no argument is ours.
    if guard::is_called() {
        return guard::guard(&guard::Place::by_name());
    }
    let told = hook::Told::read();
    if told.as_ref().is_some_and(hook::Told::is_foreign) {
        return ExitCode::SUCCESS;
    }
    let done = if launched::is_launched() {
        launched::limit()
            .and_then(|limited| supervisor(launched::run(&limited)))
            .map(|()| ExitCode::SUCCESS)
    } else {
        dispatch(Cli::parse(), told)
    };
    done.unwrap_or_else(|error| cli::report(&error))
}

fn dispatch(cli: Cli, told: Option<hook::Told>) -> Result<ExitCode> {
    match cli.command {
        Command::Serve(options) => {
            let config = Config::load(&options.config)?;
            privileges::begin(Process::Serve, &config)?;
            supervisor(async { serve::serve(&config, &options.config, parts::signals()?).await })?;
        }
        Command::Control(options) => {
            let config = Config::load(&options.config)?;
            privileges::begin(Process::Control, &config)?;
            daemon(async {
                let shutdown = parts::shutdown()?;
                control::control(config, options.with_node, shutdown).await
            })?;
        }
        Command::Node(cli::NodeCommand {
            verb: None,
            config,
            launched: Some(connection),
            ..
        }) => {
            let limited = launched::limit_node()?;
            daemon(launched::launched_node(connection, config, &limited))?;
        }
        Command::Node(cli::NodeCommand {
            verb: None,
            config,
            control,
            name,
            no_helper,
            launched: None,
        }) => {
            let mut config = Config::load(&config)?;
            config.node.name = name.or(config.node.name);
            let helper = node::Helper::of(no_helper);
            privileges::begin(helper.process(), &config)?;
            daemon(async {
                let shutdown = parts::shutdown()?;
                node::node(config, control, shutdown, Door::Dial, helper).await
            })?;
        }
        Command::Node(cli::NodeCommand {
            verb: Some(verb), ..
        }) => {
            runtime(Threads::One)?.block_on(verb.run(&cli.socket))?;
        }
        Command::LocalDriver(options) => {
            privileges::begin_with(Process::LocalDriver, &Log::default(), false)?;
            let options = Options {
                socket: options.socket,
                root: options.root,
                name: options.name.to_string(),
                node_id: process::hostname(),
            };
            daemon(async { local_driver::serve(options, parts::shutdown()?).await })?;
        }
        Command::Config(options) => match options.check {
            Some(path) => {
                Config::load(&path)?;
                println!("{} is right", path.display());
            }
            None => print!("{}", Config::print_default()),
        },
        Command::Doctor(options) => {
            return runtime(Threads::One)?.block_on(doctor::doctor(&options));
        }
        Command::Key(command) => key::run(&command)?,
        Command::Store(command) => store::run(&command)?,
        Command::Runtime(options) => return Ok(guard::guard(&guard::Place::of(options))),
        Command::Hook(options) => return Ok(hook::hook(&options, told)),
        Command::Mounter => return mounter::mounter(),
        Command::Bind(options) => bind::bind(&options)?,
        Command::Unbind(options) => bind::unbind(&options)?,
        Command::Bundle(command) => bundle::run(&command)?,
        Command::Helper(cli::Helper {
            verb: Some(cli::Deed::Deed { mount_root }),
            ..
        }) => return helper::deed(&mount_root),
        Command::Helper(options) => helper::serve(options)?,
        Command::Client(command) => {
            return runtime(Threads::One)?.block_on(cli::run_client(&cli.socket, command));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Runs a daemon to its end, which no look at a dead file system holds up, also where
/// the daemon fails.
fn daemon(work: impl Future<Output = Result<()>>) -> Result<()> {
    let runtime = runtime(Threads::Many)?;
    let done = runtime.block_on(work);
    runtime.shutdown_timeout(parts::END_WITHIN);
    done
}

/// Runs the parent of other processes to its end, in one thread.
fn supervisor(work: impl Future<Output = Result<()>>) -> Result<()> {
    runtime(Threads::One)?.block_on(work)
}

enum Threads {
    One,
    Many,
}

fn runtime(threads: Threads) -> Result<tokio::runtime::Runtime> {
    let mut builder = match threads {
        Threads::One => tokio::runtime::Builder::new_current_thread(),
        Threads::Many => tokio::runtime::Builder::new_multi_thread(),
    };
    builder
        .enable_all()
        .build()
        .map_err(|e| Error::internal("cannot start the async runtime").with_source(e))
}
