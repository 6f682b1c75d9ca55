// SPDX-License-Identifier: Apache-2.0
//! `key`: the keys that grants are signed with, without a daemon. One that runs sees
//! what has changed by itself.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde::Serialize;

use super::output::{self, Output};
use crate::{config, error::Result};

/// The verbs of `key`.
#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    /// Make a key that nodes can be given before it signs.
    ///
    /// Example: actor-volumes key generate
    Generate(Generate),
    /// Sign with another key from now on.
    ///
    /// The private half of the key before is gone. Its public half stays, and so what
    /// it has signed counts until `key remove`. Nothing needs to be restarted.
    ///
    /// Example: actor-volumes key rotate
    Rotate(Rotate),
    /// Print a public key as PEM, for the nodes that are to trust it.
    ///
    /// Example: actor-volumes key show-public > /etc/actor-volumes/trusted/control.pem
    ShowPublic(ShowPublic),
    /// List the keys.
    List(List),
    /// Let what a key has signed count no more.
    ///
    /// Grants that it has signed are refused from then on; what is mounted stays.
    ///
    /// Example: actor-volumes key remove 0123456789abcdef
    Remove(Remove),
}

/// Where the keys are.
#[derive(Debug, Args)]
pub struct Place {
    /// The configuration of the control plane, which says where its keys are.
    #[arg(long, value_name = "FILE", env = config::PATH_VARIABLE, default_value = config::DEFAULT_PATH)]
    pub config: PathBuf,
    /// The directory of the keys, whatever a configuration says.
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

/// Options of `key generate`.
#[derive(Debug, Args)]
pub struct Generate {
    #[command(flatten)]
    pub place: Place,
    #[command(flatten)]
    output: Output,
}

/// Options of `key rotate`.
#[derive(Debug, Args)]
pub struct Rotate {
    /// A key that was generated before; a new one unless given.
    #[arg(long, value_name = "ID")]
    pub to: Option<String>,
    #[command(flatten)]
    pub place: Place,
    #[command(flatten)]
    output: Output,
}

/// Options of `key show-public`.
#[derive(Debug, Args)]
pub struct ShowPublic {
    /// The key; the one that signs unless given.
    #[arg(value_name = "ID")]
    pub id: Option<String>,
    #[command(flatten)]
    pub place: Place,
}

/// Options of `key list`.
#[derive(Debug, Args)]
pub struct List {
    #[command(flatten)]
    pub place: Place,
    #[command(flatten)]
    output: Output,
}

/// Options of `key remove`.
#[derive(Debug, Args)]
pub struct Remove {
    /// The key.
    #[arg(value_name = "ID")]
    pub id: String,
    #[command(flatten)]
    pub place: Place,
    #[command(flatten)]
    output: Output,
}

/// A key, for people and programs.
#[derive(Debug, Serialize)]
pub struct Key {
    /// Its id.
    pub id: String,
    /// `signing`, `waiting` or `trusted`.
    pub state: &'static str,
    /// The file of its public half.
    pub public: PathBuf,
}

/// The keys of a directory.
#[derive(Debug, Serialize)]
pub struct Keys {
    /// The directory.
    pub directory: PathBuf,
    /// Its keys.
    pub keys: Vec<Key>,
    /// What cannot be read, with why.
    pub problems: Vec<String>,
}

impl Generate {
    /// Prints the new key.
    pub fn print(&self, key: &Key) -> Result<()> {
        self.output.print(key, || {
            format!(
                "Key {} was made. Give nodes {}, then: actor-volumes key rotate --to {}\n",
                key.id,
                key.public.display(),
                key.id
            )
        })
    }
}

impl Rotate {
    /// Prints the key that signs now.
    pub fn print(&self, key: &Key) -> Result<()> {
        self.output.print(key, || {
            format!("Grants are signed with key {} from now on.\n", key.id)
        })
    }
}

impl ShowPublic {
    /// Prints the key.
    pub fn print(&self, pem: &str) -> Result<()> {
        output::print(pem)
    }
}

impl List {
    /// Prints the keys.
    pub fn print(&self, keys: &Keys) -> Result<()> {
        self.output.print(keys, || {
            let row = |k: &Key| vec![k.id.clone(), k.state.into(), k.public.display().to_string()];
            let rows: Vec<_> = keys.keys.iter().map(row).collect();
            let mut text = output::table(&["KEY", "STATE", "PUBLIC"], &rows);
            for problem in &keys.problems {
                text.push_str(&format!("{problem}\n"));
            }
            text
        })
    }
}

impl Remove {
    /// Says that the key is gone.
    pub fn print(&self, key: &Key) -> Result<()> {
        self.output
            .print(key, || format!("Key {} counts no more.\n", key.id))
    }
}
