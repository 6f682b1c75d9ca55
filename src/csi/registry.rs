// SPDX-License-Identifier: Apache-2.0
//! Drivers by name: those of the configuration, and those that were found in a
//! registration directory. A driver that is gone stays known: its volumes wait
//! for it.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
    time::Duration,
};

use super::{Driver, DriverStatus, Observer};
use crate::{
    error::{Error, Result},
    model::DriverName,
    transport::Endpoint,
};

/// Calls in flight at one place of a driver, unless configured.
pub const DEFAULT_MAX_CALLS: usize = 32;

/// One driver of the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DriverConfig {
    /// What GetPluginInfo must answer.
    pub name: DriverName,
    /// The unix socket of the Node service, and of the Controller service where
    /// that has no endpoint of its own.
    pub endpoint: Option<PathBuf>,
    /// Where the Controller service is, if elsewhere.
    pub controller: Option<Endpoint>,
    /// The deadline of each call.
    pub call_timeout: Duration,
    /// Calls in flight at one place; those that take long are not counted.
    pub max_calls: usize,
    /// Our mount root, and the path at which the driver sees it; none: the same.
    pub mount_root: Option<(PathBuf, PathBuf)>,
}

impl DriverConfig {
    /// A driver that serves all behind one unix socket.
    pub fn unix(name: DriverName, endpoint: impl Into<PathBuf>, call_timeout: Duration) -> Self {
        Self {
            name,
            endpoint: Some(endpoint.into()),
            controller: None,
            call_timeout,
            max_calls: DEFAULT_MAX_CALLS,
            mount_root: None,
        }
    }
}

/// The drivers of this host.
pub struct Registry {
    drivers: RwLock<BTreeMap<DriverName, Entry>>,
    observer: Arc<dyn Observer>,
}

struct Entry {
    driver: Arc<Driver>,
    /// None: of the configuration.
    found: Option<Found>,
}

struct Found {
    config: DriverConfig,
    /// Whether it is registered now.
    registered: bool,
}

/// Tells nobody.
struct Silent;

impl Observer for Silent {
    fn called(&self, _: &DriverName, _: &'static str, _: &'static str, _: Duration) {}
}

impl Registry {
    /// Makes the drivers; none is connected to yet.
    pub fn new(configs: Vec<DriverConfig>) -> Self {
        Self::observed(configs, Arc::new(Silent))
    }

    /// The same, with somebody who is told of every call.
    pub fn observed(configs: Vec<DriverConfig>, observer: Arc<dyn Observer>) -> Self {
        let drivers = configs
            .into_iter()
            .map(|config| {
                let name = config.name.clone();
                let driver = Arc::new(Driver::new(config, &observer));
                let found = None;
                (name, Entry { driver, found })
            })
            .collect();
        Self {
            drivers: RwLock::new(drivers),
            observer,
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, BTreeMap<DriverName, Entry>> {
        // Every change is one insert or one flag.
        self.drivers.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, BTreeMap<DriverName, Entry>> {
        self.drivers.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The driver of this name.
    pub fn get(&self, name: &DriverName) -> Result<Arc<Driver>> {
        let found = self.read().get(name).map(|e| Arc::clone(&e.driver));
        found.ok_or_else(|| {
            Error::unavailable(format!(
                "CSI driver {name} is not known here: name it and its socket in a [[driver]] table of the configuration, or start it, if it registers itself"
            ))
        })
    }

    /// All drivers, by name.
    pub fn list(&self) -> Vec<Arc<Driver>> {
        self.read()
            .values()
            .map(|e| Arc::clone(&e.driver))
            .collect()
    }

    /// What is known of each driver; each is asked whether it is ready, all at
    /// the same time.
    pub async fn statuses(&self) -> Vec<DriverStatus> {
        let asked: Vec<_> = self
            .read()
            .values()
            .map(|entry| {
                let driver = Arc::clone(&entry.driver);
                let gone = entry.found.as_ref().is_some_and(|f| !f.registered);
                (gone, tokio::spawn(async move { driver.status().await }))
            })
            .collect();
        let mut statuses = Vec::new();
        for (gone, asked) in asked {
            if let Ok(mut status) = asked.await {
                if gone {
                    status.message = format!("not registered any more; {}", status.message)
                        .trim_end_matches("; ")
                        .to_owned();
                }
                statuses.push(status);
            }
        }
        statuses
    }

    /// A driver registered itself. One of the configuration stays as it is; one
    /// that is known with another endpoint is called there from now on. Gives
    /// whether anything is new.
    pub fn registered(&self, config: DriverConfig) -> bool {
        let mut drivers = self.write();
        match drivers.get_mut(&config.name) {
            Some(Entry { found: None, .. }) => false,
            Some(Entry {
                found: Some(found), ..
            }) if found.config == config => !std::mem::replace(&mut found.registered, true),
            _ => {
                let entry = Entry {
                    driver: Arc::new(Driver::new(config.clone(), &self.observer)),
                    found: Some(Found {
                        config: config.clone(),
                        registered: true,
                    }),
                };
                drivers.insert(config.name, entry);
                true
            }
        }
    }

    /// A driver took its registration back. It stays known, and its volumes
    /// wait for it.
    pub fn unregistered(&self, name: &DriverName) {
        if let Some(Entry {
            found: Some(found), ..
        }) = self.write().get_mut(name)
        {
            found.registered = false;
        }
    }
}
