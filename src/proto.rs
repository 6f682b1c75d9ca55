// SPDX-License-Identifier: Apache-2.0
//! Generated code of the wire contracts under `proto/`.

#![allow(missing_docs, clippy::all, unreachable_pub, rust_2018_idioms)]

/// Container Storage Interface 1.12.
pub mod csi {
    tonic::include_proto!("csi.v1");
}

/// Node Resource Interface 0.12.
pub mod nri {
    tonic::include_proto!("nri.pkg.api.v1alpha1");
}

/// Container Runtime Interface v1.
pub mod cri {
    tonic::include_proto!("runtime.v1");
}

/// The ttrpc envelopes.
pub mod ttrpc {
    tonic::include_proto!("ttrpc");
}

/// The API of actor-volumes itself.
pub mod api {
    tonic::include_proto!("actorvolumes.v1");
}

/// Plugin registration with a kubelet, v1.
pub mod registration {
    tonic::include_proto!("pluginregistration");
}
