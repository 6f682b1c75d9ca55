// SPDX-License-Identifier: Apache-2.0
//! Power cuts and reboots of a node, for real: a machine in user-mode Linux with
//! containerd, the embedded driver and our daemon is ended by SIGKILL, and with it
//! every write that its kernel had not brought to its disks. Started by
//! `e2e/uml/power.sh`.

mod inside;
mod machine;
mod node;
mod records;
mod writes;

use std::{process::ExitCode, sync::OnceLock};

use libtest_mimic::{Arguments, Trial};

use crate::machine::Disks;

/// What begins an answer on the serial line.
pub(crate) const ANSWER: &str = "@answer ";
/// What begins a line that a container wrote.
pub(crate) const SAYS: &str = "@says ";
/// The namespace whose unsigned annotations the node believes.
pub(crate) const NAMESPACE: &str = "agents";
/// What does not outlive a boot: sockets, logs, the runtime's state.
pub(crate) const RUN: &str = "/run/n";

type Test = (&'static str, fn(&Disks));

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some("inside") {
        inside::serve();
        return ExitCode::SUCCESS;
    }
    let tests: Vec<Test> = [writes::TESTS, records::TESTS].concat();
    let arguments = Arguments::from_args();
    let trial = |(name, body): Test| {
        Trial::test(name, move || {
            body(&base().copy(name));
            Ok(())
        })
    };
    libtest_mimic::run(&arguments, tests.into_iter().map(trial).collect()).exit_code()
}

/// Disks on which nothing happened yet, made for the first test that asks.
fn base() -> &'static Disks {
    static BASE: OnceLock<Disks> = OnceLock::new();
    BASE.get_or_init(node::base)
}
