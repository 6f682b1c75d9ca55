// SPDX-License-Identifier: Apache-2.0
//! Compiles the wire contracts under `proto/` with a protobuf compiler written
//! in Rust, so that no `protoc` is needed on the machine.

use std::error::Error;

const PROTOS: &[&str] = &[
    "proto/csi/v1/csi.proto",
    "proto/nri/v1alpha1/nri.proto",
    "proto/cri/v1/cri.proto",
    "proto/pluginregistration/v1.proto",
    "proto/ttrpc/ttrpc.proto",
    "proto/actorvolumes/v1/actorvolumes.proto",
    "proto/actorvolumes/v1/nodes.proto",
    "proto/actorvolumes/v1/agent.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let set = protox::compile(PROTOS, ["proto"])?;
    tonic_prost_build::configure()
        // Requests of these packages carry secrets, contexts and annotations:
        // without Debug they can not reach a log by accident.
        .skip_debug([
            ".csi.v1",
            ".nri.pkg.api.v1alpha1",
            ".runtime.v1",
            ".ttrpc",
            ".actorvolumes.v1",
        ])
        // The CLI prints what it is answered as JSON and YAML.
        .type_attribute(
            ".actorvolumes.v1",
            "#[derive(serde::Serialize)] #[serde(rename_all = \"camelCase\")]",
        )
        .compile_fds(set)?;
    Ok(())
}
