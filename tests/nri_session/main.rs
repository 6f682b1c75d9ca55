// SPDX-License-Identifier: Apache-2.0
//! NRI sessions over real sockets, against a runtime as strict as the real ones.

mod events;
mod recorder;
mod session;

use testkit::nri::Version;

const PLUGIN: &str = "nri.pkg.api.v1alpha1.Plugin";

const ALL_VERSIONS: [Version; 4] = [
    Version::CONTAINERD_1_7,
    Version::CONTAINERD_2_1,
    Version::CONTAINERD_2_2,
    Version::CONTAINERD_2_3,
];
