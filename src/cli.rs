// SPDX-License-Identifier: Apache-2.0
//! The command line, one verb a file.
//!
//! What a script reads goes to stdout, everything else to stderr. The exit
//! status is 0, 2 for a wrong command line, else that of the error's kind.

mod actor;
mod bind;
pub mod bundle;
mod doctor;
mod driver;
mod file;
mod helper;
mod hook;
pub mod key;
mod node;
mod output;
mod request;
mod runtime;
mod storage_class;
pub mod store;
mod template;
mod timeout;
mod volume;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use clap::{Args, Parser, Subcommand};

pub use bind::{At, Bind, Unbind};
pub use doctor::{Doctor, Facts, KeyFacts, Place, RuntimeSettings, judge};
pub use helper::{Deed, Helper};
pub use hook::{Hook, Stage};
pub use node::NodeCommand;
pub use runtime::Runtime;

use crate::{config, error::Error, model::DriverName, rpc::Client};

/// Where the control plane listens unless told otherwise.
pub const DEFAULT_SOCKET: &str = "/run/actor-volumes/actor-volumes.sock";

/// Volumes of their own for suspendable actors, on any containerd-based runtime.
///
/// Exit status: 0 done; 2 wrong command line; 3 wrong input; 4 not found; 5 exists
/// with another content, or the state forbids it; 6 not allowed; 7 not now, try
/// again; 8 not supported; 9 a fault of actor-volumes or of the machine.
#[derive(Debug, Parser)]
#[command(name = "actor-volumes", version, max_term_width = 100)]
pub struct Cli {
    /// The socket of `actor-volumes serve`, for the verbs that talk to it.
    #[arg(long, env = "ACTOR_VOLUMES_SOCKET", default_value = DEFAULT_SOCKET)]
    pub socket: PathBuf,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do: the daemons are started by `run`, the rest talks to one.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the control plane and the node agent of this host, each as a process of its
    /// own, and start again what dies.
    ///
    /// Example: actor-volumes serve --config /etc/actor-volumes/config.toml
    Serve(Serve),
    /// Run the control plane alone, for nodes elsewhere.
    ///
    /// Example: actor-volumes control --config /etc/actor-volumes/config.toml
    Control(ControlCommand),
    /// Run the node agent alone, with its control plane elsewhere; or, with a verb,
    /// look after nodes.
    ///
    /// Example: actor-volumes node --config /etc/actor-volumes/config.toml
    Node(NodeCommand),
    /// Serve the embedded CSI driver: directories of this host as volumes.
    ///
    /// Example: actor-volumes local-driver --socket /run/csi/local.sock --root /srv/volumes
    LocalDriver(LocalDriver),
    /// Look at this node: whether all is as it must be, and what to do where not.
    ///
    /// It changes nothing, and works without the daemon too. Exit status: 0 nothing
    /// has failed, 1 something has.
    ///
    /// Example: actor-volumes doctor
    Doctor(Doctor),
    /// Print or check a configuration file.
    ///
    /// Example: actor-volumes config --check /etc/actor-volumes/config.toml
    Config(Config),
    /// The keys that grants are signed with.
    ///
    /// Grants are signed by the control plane; nodes trust its public keys.
    #[command(subcommand)]
    Key(key::KeyCommand),
    /// Look at a store file: what the control plane remembers.
    #[command(subcommand)]
    Store(store::StoreCommand),
    /// Stand in the place of runc: containers are given their volumes where they are
    /// made, and none is made without those it asks for.
    ///
    /// What NRI serves is only checked, as guard.inject says. containerd's BinaryName takes no arguments: there it is a link to this program
    /// named `actor-volumes-runtime`, which does the same with the [guard] table of
    /// the configuration.
    ///
    /// Example: actor-volumes runtime -- --root /run/runc create --bundle /b c1
    Runtime(Runtime),
    /// Give an OCI bundle its volumes before a runtime makes a container of it.
    #[command(subcommand)]
    Bundle(bundle::BundleCommand),
    /// Enter mounted volumes on behalf of the node agent, behind a socket.
    ///
    /// `serve` and `node` start it by themselves.
    ///
    /// Example: actor-volumes helper --config /etc/actor-volumes/config.toml
    Helper(Helper),
    /// Give a container its volumes while its OCI runtime creates it.
    ///
    /// The runtime starts it as a hook and tells the container's state on standard
    /// input: see hooks.d. A container without our annotations passes at once.
    ///
    /// Example: actor-volumes hook createRuntime
    Hook(Hook),
    /// Give a container that runs already its actor's volumes.
    ///
    /// For warm pools: the container was made before it was known whose it is. The
    /// volumes are mounted into it; no process in it may need them before.
    ///
    /// Example: actor-volumes bind c1 --root /run/runc --annotations granted.json
    Bind(Bind),
    /// Take volumes away from a container that runs on: those that `bind` or a hook has
    /// mounted.
    ///
    /// Example: actor-volumes unbind c1 --root /run/runc
    Unbind(Unbind),
    /// Mount into a container what standard input says.
    #[command(hide = true)]
    Mounter,
    /// A verb of the control plane.
    #[command(flatten)]
    Client(ClientCommand),
}

/// Options of `serve`.
#[derive(Debug, Args)]
pub struct Serve {
    /// The configuration file.
    #[arg(long, value_name = "FILE", default_value = config::DEFAULT_PATH)]
    pub config: PathBuf,
}

/// Options of `control`.
#[derive(Debug, Args)]
pub struct ControlCommand {
    /// The configuration file.
    #[arg(long, value_name = "FILE", default_value = config::DEFAULT_PATH)]
    pub config: PathBuf,
    /// This host has a node agent too, which comes by nodes.sock in node.run_dir.
    #[arg(long)]
    pub with_node: bool,
}

/// Options of `local-driver`.
#[derive(Debug, Args)]
pub struct LocalDriver {
    /// The unix socket to serve on.
    #[arg(long, value_name = "PATH")]
    pub socket: PathBuf,
    /// The directory that holds the volumes.
    #[arg(long, value_name = "DIR")]
    pub root: PathBuf,
    /// The driver's name.
    #[arg(long, value_name = "DRIVER", default_value = "local.actor-volumes.dev")]
    pub name: DriverName,
}

/// Options of `config`.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct Config {
    /// Print a configuration with every key at its default.
    #[arg(long)]
    pub print_default: bool,
    /// Read this file and say whether it can be used.
    #[arg(long, value_name = "FILE")]
    pub check: Option<PathBuf>,
}

/// The verbs that talk to the control plane.
#[derive(Debug, Subcommand)]
pub enum ClientCommand {
    /// Templates: which volumes an actor has and where they are mounted.
    #[command(subcommand)]
    Template(template::Verb),
    /// Storage classes: which CSI driver makes the volumes, and how.
    #[command(subcommand, name = "storageclass")]
    StorageClass(storage_class::Verb),
    /// CSI drivers.
    #[command(subcommand)]
    Driver(driver::Verb),
    /// Actors: create, resume, suspend, delete.
    #[command(subcommand)]
    Actor(actor::Verb),
    /// Volumes.
    #[command(subcommand)]
    Volume(volume::Verb),
}

/// What a verb needs besides its own options.
struct Context<'a> {
    socket: &'a Path,
}

impl Context<'_> {
    /// A client for calls that do not wait.
    async fn client(&self) -> crate::error::Result<Client> {
        self.client_that_waits(Duration::ZERO).await
    }

    /// A client for calls that wait so long at the server.
    async fn client_that_waits(&self, wait: Duration) -> crate::error::Result<Client> {
        Client::connect(self.socket, wait).await
    }
}

/// Runs a verb against the control plane at this socket.
pub async fn run_client(socket: &Path, command: ClientCommand) -> crate::error::Result<ExitCode> {
    let context = Context { socket };
    match command {
        ClientCommand::Template(verb) => verb.run(&context).await,
        ClientCommand::StorageClass(verb) => verb.run(&context).await,
        ClientCommand::Driver(verb) => verb.run(&context).await,
        ClientCommand::Actor(verb) => verb.run(&context).await,
        ClientCommand::Volume(verb) => verb.run(&context).await,
    }?;
    Ok(ExitCode::SUCCESS)
}

/// Says what went wrong on stderr; the exit status is that of the error's kind.
pub fn report(error: &Error) -> ExitCode {
    eprintln!("error: {}", error.full_message());
    ExitCode::from(error.kind().exit_status())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_verb_of_the_contract_is_read() {
        for line in [
            "serve --config /c",
            "local-driver --socket /s.sock --root /r --name d.example",
            "config --print-default",
            "config --check /c",
            "--socket /s template apply -f t.yaml",
            "template ls -o json",
            "template show t -o yaml",
            "storageclass apply -f c.yaml",
            "storageclass ls",
            "driver ls -o yaml",
            "control --config /c",
            "control --with-node",
            "node --launched 3",
            "node --control unix:///r/nodes.sock",
            "node --config /c --control https://h:7443",
            "helper --config /c",
            "helper --socket /s --mount-root /m --until-eof",
            "helper deed --mount-root /m",
            "node --config /c --no-helper --name n",
            "node ls -o json",
            "node show n",
            "node fence n --confirm-off",
            "node fence n",
            "node reset n --confirm-nothing-runs",
            "actor create a/b --template t --wait",
            "actor ls",
            "actor show a/b -o json",
            "actor resume a/b --container c --node n --pod p --pod-namespace q --format kubernetes",
            "actor resume a/b --not-after 2030-01-31T12:00:00Z --with-contexts",
            "key generate --dir /k -o json",
            "key rotate --config /c",
            "key rotate --to 0123456789abcdef",
            "key show-public",
            "key show-public 0123456789abcdef --dir /k",
            "key list -o yaml",
            "key remove 0123456789abcdef",
            "actor suspend a/b --wait --timeout 500ms",
            "actor delete a/b --wait --timeout 30",
            "runtime --guard -- --root /r create --bundle /b c1",
            "runtime --guard --runtime /usr/bin/crun --config /c -- state c1",
            "runtime --runtime /usr/bin/crun -- --root /r run --bundle /b c1",
            "bundle inject /b --id c1 --root /run/runc --runtime runsc",
            "bundle inject /b --config /c",
            "bundle release /b --id c1 --root /run/runc --timeout 5s",
            "doctor --config /c -o json",
            "hook createRuntime",
            "hook prestart --config /c",
            "hook --config /c poststop",
            "mounter",
            "bind c1 --root /run/runc --annotations /f --container agent",
            "bind c1 --runtime /usr/bin/crun --config /c",
            "bind c1 --pid 7 --bundle /b --annotations -",
            "unbind c1 --root /run/runc",
            "unbind c1 --pid 7 --bundle /b",
            "store check /s/control.redb -o json",
            "store check --repair-indexes /s/control.redb",
            "store export /s/control.redb --with-contexts",
            "volume ls",
            "volume ls --actor a/b",
            "volume ls --node n -o json",
            "actor ls --template t -n a",
            "volume show u -o table",
            "volume expand u --capacity 2Gi --wait --timeout 5m",
            "volume orphans",
            "volume orphans --driver d.example -o json",
            "volume orphans --delete a/b c#d",
            "volume orphans --delete-all",
        ] {
            let words = std::iter::once("actor-volumes").chain(line.split(' '));
            if let Err(e) = Cli::try_parse_from(words) {
                panic!("{line}: {e}");
            }
        }
    }

    #[test]
    fn a_wrong_command_line_is_refused() {
        for line in [
            "",
            "config",
            "config --print-default --check /c",
            "actor create a --template t",
            "actor create a/b",
            "actor resume a/b --format xml",
            "actor resume a/b --not-after soon",
            "key",
            "key remove",
            "actor suspend a/b --timeout soon",
            "node fence",
            "hook",
            "hook createContainer",
            "bind",
            "bind c1 --pid 7",
            "bind c1 --pid 7 --bundle /b --root /r",
            "unbind c1 --annotations /f",
            "hook create-runtime",
            "node --config /c ls",
            "helper --socket /s",
            "helper --socket /s --mount-root /m --config /c",
            "volume expand u",
            "volume expand u --capacity 0",
            "volume orphans --delete",
            "volume orphans --delete a --delete-all",
            "volume ls --actor a/b --node n",
            "volume ls --retained --node n",
        ] {
            let words = std::iter::once("actor-volumes").chain(line.split_whitespace());
            assert!(Cli::try_parse_from(words).is_err(), "{line}");
        }
    }
}
