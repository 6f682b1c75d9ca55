// SPDX-License-Identifier: Apache-2.0
//! `bundle`: volumes of OCI bundles, for whoever writes these.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{output, timeout::Timeout};
use crate::{config, error::Result};

/// The verbs of `bundle`.
#[derive(Debug, Subcommand)]
pub enum BundleCommand {
    /// Publish what the grant in its annotations asks for, and write it into config.json.
    ///
    /// Everything else in the file stays as it is. Run again, it changes nothing; after
    /// a failure nothing is changed. A bundle that asks for no volume is left alone.
    ///
    /// Example: actor-volumes bundle inject /run/my-bundles/c1
    Inject(Inject),
    /// Take it out of config.json again, and release it: the container is over, or was
    /// never made.
    ///
    /// Exit status: 7 as long as something still has a volume of it.
    ///
    /// Example: actor-volumes bundle release /run/my-bundles/c1
    Release(Release),
}

/// Which container it is.
#[derive(Debug, Args)]
pub struct Which {
    /// The bundle: the directory with config.json.
    #[arg(value_name = "BUNDLE")]
    pub bundle: PathBuf,
    /// The id that the container will have at the runtime; none: the directory's name.
    #[arg(long)]
    pub id: Option<String>,
    /// The --root of the runtime.
    #[arg(long, value_name = "DIR")]
    pub root: Option<PathBuf>,
    /// The configuration file.
    #[arg(long, value_name = "FILE", env = config::PATH_VARIABLE, default_value = config::DEFAULT_PATH)]
    pub config: PathBuf,
}

/// Options of `bundle inject`.
#[derive(Debug, Args)]
pub struct Inject {
    #[command(flatten)]
    pub which: Which,
    /// The runtime that will make the container, a path or a name: where there is a user
    /// namespace it is asked whether it maps owners, and gVisor (runsc) has no block devices.
    #[arg(long, value_name = "RUNTIME")]
    pub runtime: Option<PathBuf>,
}

/// Options of `bundle release`.
#[derive(Debug, Args)]
pub struct Release {
    #[command(flatten)]
    pub which: Which,
    #[command(flatten)]
    timeout: Timeout,
}

impl Release {
    /// How long the release is waited for.
    pub fn wait(&self) -> std::time::Duration {
        self.timeout.timeout
    }
}

/// Says what was done.
pub fn say(text: &str) -> Result<()> {
    output::print(text)
}
