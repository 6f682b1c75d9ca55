// SPDX-License-Identifier: Apache-2.0
//! One driver: its connection, made when it is first needed, and the road that
//! every call takes.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, timeout};
use tonic::{Request, Response, Status};

use super::{
    CallError, Capabilities, DriverConfig,
    call::{Rpc, classify, is_timeout},
    connection::{Connection, Link, is_spent, probe},
};
use crate::{
    error::{Error, Kind},
    model::DriverName,
    transport::{UnixChannel, was_not_sent},
};

/// How long a driver has from the first byte to ready; less where the deadline
/// of its calls is shorter.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);

/// What is known of a driver, for people.
#[derive(Debug, Clone)]
pub struct DriverStatus {
    /// The name in the configuration.
    pub name: DriverName,
    /// The socket.
    pub endpoint: PathBuf,
    /// Whether it answered and said that it is ready.
    pub ready: bool,
    /// `vendor_version`, where known.
    pub version: String,
    /// Advertised capabilities, where known.
    pub capabilities: Vec<String>,
    /// Why it is not ready.
    pub message: String,
}

/// One driver.
pub struct Driver {
    pub(super) config: DriverConfig,
    current: Mutex<Option<Arc<Connection>>>,
    /// Held by the one who connects; the number of attempts that have ended,
    /// and how the last one failed.
    connecting: tokio::sync::Mutex<()>,
    last: Mutex<Attempts>,
}

#[derive(Default)]
struct Attempts {
    ended: u64,
    failure: Option<(&'static str, Kind, String)>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing behind these locks can be left half-changed by a panic.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Driver {
    pub(super) fn new(config: DriverConfig) -> Self {
        Self {
            config,
            current: Mutex::default(),
            connecting: tokio::sync::Mutex::default(),
            last: Mutex::default(),
        }
    }

    /// Its socket.
    pub fn endpoint(&self) -> &std::path::Path {
        &self.config.endpoint
    }

    /// Its name in the configuration, which it must answer to.
    pub fn name(&self) -> &DriverName {
        &self.config.name
    }

    /// What is known of it; asks it whether it is ready.
    pub async fn status(&self) -> DriverStatus {
        let mut status = DriverStatus {
            name: self.config.name.clone(),
            endpoint: self.config.endpoint.clone(),
            ready: false,
            version: String::new(),
            capabilities: Vec::new(),
            message: String::new(),
        };
        // A connection that has gone stale since the last call shows itself
        // here, and is then made anew.
        for fresh in [false, true] {
            let connection = match self.connect().await {
                Ok(connection) => connection,
                Err(e) => {
                    status.message = e.to_string();
                    return status;
                }
            };
            status.version = connection.version.clone();
            status.capabilities = connection.capabilities.names.clone();
            let link = Link {
                channel: &connection.channel,
                driver: self.config.name.as_str(),
                deadline: Instant::now() + self.connect_within(),
            };
            match probe(&link).await {
                Ok(true) => {
                    status.ready = true;
                    return status;
                }
                Ok(false) => {
                    status.message = "the driver says that it is not ready: see its log".into();
                    return status;
                }
                Err(e) => {
                    let gone = e.error.kind() == Kind::Unavailable;
                    status.message = e.to_string();
                    if !gone || fresh {
                        return status;
                    }
                    self.forget(&connection);
                }
            }
        }
        status
    }

    /// What it can do. Connects if needed; waits for readiness within the
    /// connect deadline.
    pub async fn capabilities(&self) -> Result<Capabilities, CallError> {
        Ok(self.connect().await?.capabilities.clone())
    }

    /// Sends one call: `build` makes the request from the capabilities, or says
    /// that there is nothing to do; `send` sends it.
    ///
    /// A driver that was started again between two calls is read anew and the
    /// request is built again; a request that may have reached a driver is
    /// never sent twice.
    pub(super) async fn call<Q, T, F>(
        &self,
        rpc: Rpc,
        build: impl Fn(&Capabilities) -> Result<Option<Q>, CallError>,
        send: impl Fn(UnixChannel, Request<Q>) -> F,
    ) -> Result<Option<T>, CallError>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let mut fresh = false;
        loop {
            let connection = self.connect().await.map_err(|e| CallError {
                rpc: rpc.name,
                error: Error::from(e),
                outcome: super::Outcome::Ambiguous,
            })?;
            let Some(message) = build(&connection.capabilities)? else {
                return Ok(None);
            };
            let mut request = Request::new(message);
            request.set_timeout(self.config.call_timeout);
            let sent = timeout(
                self.config.call_timeout,
                send(connection.channel.clone(), request),
            );
            let status = match sent.await {
                Ok(Ok(response)) => return Ok(Some(response.into_inner())),
                Ok(Err(status)) if !is_timeout(&status) => status,
                Ok(Err(_)) | Err(_) => return Err(self.no_answer(rpc)),
            };
            if is_spent(&status) {
                self.forget(&connection);
            }
            if was_not_sent(&status) && !fresh {
                fresh = true;
                continue;
            }
            return Err(classify(rpc, self.config.name.as_str(), &status));
        }
    }

    fn no_answer(&self, rpc: Rpc) -> CallError {
        let error = Error::deadline(format!(
            "CSI driver {} did not answer within {:?}; the call may be done or not",
            self.config.name, self.config.call_timeout
        ));
        CallError::ambiguous(rpc.name, error)
    }

    /// The connection, made if there is none.
    pub(super) async fn connect(&self) -> Result<Arc<Connection>, CallError> {
        let before = lock(&self.last).ended;
        if let Some(connection) = lock(&self.current).clone() {
            return Ok(connection);
        }
        let _turn = self.connecting.lock().await;
        if let Some(connection) = lock(&self.current).clone() {
            return Ok(connection);
        }
        // Whoever waited while another attempt failed shares its failure: a
        // queue of callers must not wait for one deadline each.
        {
            let last = lock(&self.last);
            if last.ended != before
                && let Some((rpc, kind, message)) = &last.failure
            {
                return Err(CallError::ambiguous(rpc, Error::new(*kind, message)));
            }
        }
        let opened = Connection::open(&self.config, self.connect_within()).await;
        let mut last = lock(&self.last);
        last.ended += 1;
        match opened {
            Ok(connection) => {
                let connection = Arc::new(connection);
                last.failure = None;
                *lock(&self.current) = Some(connection.clone());
                Ok(connection)
            }
            Err(e) => {
                last.failure = Some((e.rpc, e.error.kind(), e.error.full_message()));
                Err(e)
            }
        }
    }

    fn connect_within(&self) -> Duration {
        CONNECT_WITHIN.min(self.config.call_timeout)
    }

    /// Drops the connection, unless another has taken its place.
    fn forget(&self, spent: &Arc<Connection>) {
        let mut current = lock(&self.current);
        if current.as_ref().is_some_and(|c| Arc::ptr_eq(c, spent)) {
            *current = None;
        }
    }
}
