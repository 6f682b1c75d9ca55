// SPDX-License-Identifier: Apache-2.0
//! Drivers by name.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use super::Driver;
use crate::{
    error::{Error, Result},
    model::DriverName,
};

/// One driver of the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DriverConfig {
    /// What GetPluginInfo must answer.
    pub name: DriverName,
    /// The unix socket.
    pub endpoint: PathBuf,
    /// The deadline of each call.
    pub call_timeout: Duration,
}

/// The drivers of this host.
#[derive(Default)]
pub struct Registry {
    drivers: BTreeMap<DriverName, Arc<Driver>>,
}

impl Registry {
    /// Makes the drivers; none is connected to yet.
    pub fn new(configs: Vec<DriverConfig>) -> Self {
        let drivers = configs
            .into_iter()
            .map(|c| (c.name.clone(), Arc::new(Driver::new(c))))
            .collect();
        Self { drivers }
    }

    /// The driver of this name.
    pub fn get(&self, name: &DriverName) -> Result<Arc<Driver>> {
        self.drivers.get(name).cloned().ok_or_else(|| {
            Error::unavailable(format!(
                "CSI driver {name} is not known here: name it and its socket in a [[driver]] table of the configuration"
            ))
        })
    }

    /// All drivers, by name.
    pub fn list(&self) -> Vec<Arc<Driver>> {
        self.drivers.values().cloned().collect()
    }
}
