// SPDX-License-Identifier: Apache-2.0
//! The same against the hostpath driver of Kubernetes CSI, which nobody here wrote.

use super::{data, delete, restart, warm};
use crate::{Case, driver::Driver};

const PREFIX: &str = "host_path::";

pub(crate) fn cases() -> Vec<Case> {
    [
        data::on(Driver::HostPath, PREFIX),
        warm::on(Driver::HostPath, PREFIX),
        restart::on(Driver::HostPath, PREFIX),
        delete::on(Driver::HostPath, PREFIX),
    ]
    .concat()
}
