// SPDX-License-Identifier: Apache-2.0
//! See the library for the map, and `run` for what happens here.

fn main() -> std::process::ExitCode {
    actor_volumes::run::run()
}
