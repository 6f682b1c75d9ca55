// SPDX-License-Identifier: Apache-2.0
//! One endpoint of a driver: its connection, made when it is first needed, and
//! the road that every call takes: breaker, place, connection, deadline.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant as Clock},
};

use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::{Instant, sleep, timeout},
};
use tonic::{Request, Response, Status};

use super::{
    CallError, Capabilities, Observer, Outcome,
    breaker::{Breaker, Gate},
    call::{Rpc, classify, code_of, is_timeout},
    connection::{Connection, Link, is_spent, probe},
};
use crate::{
    error::{Error, Kind},
    model::DriverName,
    transport::{self, Channel, Endpoint, was_not_sent},
};

/// How long a driver has from the first byte to ready; less where the deadline
/// of its calls is shorter.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);

/// How long a driver that left calls unanswered has to answer Probe.
const PROBE_WITHIN: Duration = Duration::from_secs(3);

/// A call that takes longer gives its place to others: the cap is there for
/// bursts, and a volume that hangs must not hold up the rest.
const SLOW: Duration = Duration::from_secs(2);

/// TLS files are looked at again at most this often.
const LOOK_AT_FILES: Duration = Duration::from_secs(1);

/// One endpoint of a driver.
pub(super) struct Peer {
    pub(super) driver: DriverName,
    pub(super) endpoint: Endpoint,
    call_timeout: Duration,
    current: Mutex<Option<Arc<Connection>>>,
    /// What it was and could do when it was last connected.
    known: Mutex<Option<Known>>,
    /// Held by the one who connects; the number of attempts that have ended,
    /// and how the last one failed.
    connecting: tokio::sync::Mutex<()>,
    last: Mutex<Attempts>,
    places: Semaphore,
    breaker: Mutex<Breaker>,
    looked_at_files: Mutex<Option<Clock>>,
    observer: Arc<dyn Observer>,
}

/// What was learnt over a connection, which it may outlive.
#[derive(Clone)]
pub(super) struct Known {
    pub(super) version: String,
    pub(super) capabilities: Arc<Capabilities>,
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

/// A probe that was begun, and is reported as given up when nobody waits for
/// its end any more.
struct Probing<'a>(&'a Mutex<Breaker>, bool);

impl Drop for Probing<'_> {
    fn drop(&mut self) {
        if !self.1 {
            lock(self.0).probe_given_up();
        }
    }
}

impl Peer {
    pub(super) fn new(
        driver: DriverName,
        endpoint: Endpoint,
        call_timeout: Duration,
        max_calls: usize,
        observer: Arc<dyn Observer>,
    ) -> Self {
        Self {
            driver,
            endpoint,
            call_timeout,
            current: Mutex::default(),
            known: Mutex::default(),
            connecting: tokio::sync::Mutex::default(),
            last: Mutex::default(),
            places: Semaphore::new(max_calls.clamp(1, Semaphore::MAX_PERMITS)),
            breaker: Mutex::default(),
            looked_at_files: Mutex::default(),
            observer,
        }
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
        send: impl Fn(Channel, Request<Q>) -> F,
    ) -> Result<Option<T>, CallError>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let mut fresh = false;
        loop {
            let connection = self.enter(rpc).await?;
            let Some(message) = build(&connection.capabilities)? else {
                return Ok(None);
            };
            let place = self.place(rpc).await?;
            if lock(&self.breaker).is_closed(Clock::now()) {
                return Err(self.not_called(rpc));
            }
            let mut request = Request::new(message);
            request.set_timeout(self.call_timeout);
            let begun = Clock::now();
            let sent = self
                .send_within(place, send(connection.channel.clone(), request))
                .await;
            let code = code_of(sent.as_ref());
            self.observer
                .called(&self.driver, rpc.name, code, begun.elapsed());
            let status = match sent {
                Some(Ok(response)) => {
                    lock(&self.breaker).answered();
                    return Ok(Some(response.into_inner()));
                }
                Some(Err(status)) if !is_timeout(&status) => status,
                Some(Err(_)) | None => {
                    lock(&self.breaker).unanswered();
                    return Err(self.no_answer(rpc));
                }
            };
            if is_spent(&status) {
                self.forget(&connection);
            }
            if was_not_sent(&status) && !fresh {
                fresh = true;
                continue;
            }
            if super::call::is_transport(&status) {
                lock(&self.breaker).unanswered();
            } else {
                lock(&self.breaker).answered();
            }
            return Err(classify(rpc, self.driver.as_str(), &status));
        }
    }

    /// Waits for the answer to the deadline; the place is given back when it
    /// takes long. None: no answer.
    async fn send_within<T>(
        &self,
        place: SemaphorePermit<'_>,
        sent: impl Future<Output = T>,
    ) -> Option<T> {
        let answer = timeout(self.call_timeout, sent);
        tokio::pin!(answer);
        tokio::select! {
            done = &mut answer => return done.ok(),
            () = sleep(SLOW) => drop(place),
        }
        answer.await.ok()
    }

    /// A place among the calls in flight.
    async fn place(&self, rpc: Rpc) -> Result<SemaphorePermit<'_>, CallError> {
        match timeout(self.call_timeout, self.places.acquire()).await {
            Ok(Ok(place)) => Ok(place),
            // The semaphore is never closed; a wait that is too long is told alike.
            Ok(Err(_)) | Err(_) => {
                let error = Error::unavailable(format!(
                    "CSI driver {} has more calls in flight than it answers within {:?}: this one was not sent",
                    self.driver, self.call_timeout
                ));
                Err(CallError::ambiguous(rpc.name, error))
            }
        }
    }

    /// The connection, if the breaker lets a call through. Asked before
    /// connecting: a driver that does not answer would take a deadline for that
    /// alone.
    async fn enter(&self, rpc: Rpc) -> Result<Arc<Connection>, CallError> {
        let gate = lock(&self.breaker).gate(Clock::now());
        if let Gate::Closed(_) = gate {
            return Err(self.not_called(rpc));
        }
        let mut probing = Probing(&self.breaker, gate != Gate::ProbeFirst);
        let connected = self.connect().await.map_err(|e| CallError {
            rpc: rpc.name,
            error: Error::from(e),
            outcome: Outcome::Ambiguous,
        });
        let answered = match &connected {
            _ if gate == Gate::Open => true,
            Ok(connection) => self.probe(connection, PROBE_WITHIN).await.is_ok(),
            // Nobody there, as while it is started again: that shows at once,
            // and needs no breaker.
            Err(e) if e.error.kind() != Kind::DeadlineExceeded => return connected,
            Err(_) => false,
        };
        if gate == Gate::ProbeFirst {
            probing.1 = true;
            lock(&self.breaker).probed(answered, Clock::now());
        } else if let Err(e) = &connected
            && e.error.kind() == Kind::DeadlineExceeded
        {
            lock(&self.breaker).unanswered();
        }
        if answered {
            return connected;
        }
        if let Ok(connection) = &connected {
            // It may be the connection that is dead, and not the driver.
            self.forget(connection);
        }
        Err(self.not_called(rpc))
    }

    fn not_called(&self, rpc: Rpc) -> CallError {
        let error = Error::unavailable(format!(
            "CSI driver {} does not answer at all, not even to Probe: this call was not sent; see its log, and restart it",
            self.driver
        ));
        CallError::ambiguous(rpc.name, error)
    }

    async fn probe(&self, connection: &Connection, within: Duration) -> Result<bool, CallError> {
        let link = Link {
            channel: &connection.channel,
            driver: self.driver.as_str(),
            deadline: Instant::now() + within,
        };
        probe(&link).await
    }

    fn no_answer(&self, rpc: Rpc) -> CallError {
        let error = Error::deadline(format!(
            "CSI driver {} did not answer within {:?}; the call may be done or not",
            self.driver, self.call_timeout
        ));
        CallError::ambiguous(rpc.name, error)
    }

    /// What it could do when it was last connected; connects if it never was.
    pub(super) async fn known(&self) -> Result<Arc<Capabilities>, CallError> {
        let known = lock(&self.known).clone();
        match known {
            Some(known) => Ok(known.capabilities),
            None => Ok(self.connect().await?.capabilities.clone()),
        }
    }

    /// The connection, made if there is none.
    pub(super) async fn connect(&self) -> Result<Arc<Connection>, CallError> {
        let before = lock(&self.last).ended;
        if let Some(connection) = self.current().await {
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
        let opened = Connection::open(&self.driver, &self.endpoint, self.connect_within()).await;
        let mut last = lock(&self.last);
        last.ended += 1;
        match opened {
            Ok(connection) => {
                let connection = Arc::new(connection);
                last.failure = None;
                *lock(&self.known) = Some(Known {
                    version: connection.version.clone(),
                    capabilities: connection.capabilities.clone(),
                });
                *lock(&self.current) = Some(connection.clone());
                Ok(connection)
            }
            Err(e) => {
                last.failure = Some((e.rpc, e.error.kind(), e.error.full_message()));
                Err(e)
            }
        }
    }

    /// The connection that stands, unless its TLS files have changed since.
    async fn current(&self) -> Option<Arc<Connection>> {
        let connection = lock(&self.current).clone()?;
        let (Endpoint::Tls(tls), Some(then)) = (&self.endpoint, &connection.fingerprint) else {
            return Some(connection);
        };
        {
            let mut looked = lock(&self.looked_at_files);
            if looked.is_some_and(|at| at.elapsed() < LOOK_AT_FILES) {
                return Some(connection);
            }
            *looked = Some(Clock::now());
        }
        match transport::fingerprint(&tls.tls).await {
            Ok(now) if now != *then => {
                tracing::info!(driver = %self.driver, "the TLS files have changed: connecting anew");
                self.forget(&connection);
                None
            }
            // Files that cannot be read now are no reason to lose a connection.
            Ok(_) | Err(_) => Some(connection),
        }
    }

    pub(super) fn connect_within(&self) -> Duration {
        CONNECT_WITHIN.min(self.call_timeout)
    }

    /// Drops the connection, unless another has taken its place.
    fn forget(&self, spent: &Arc<Connection>) {
        let mut current = lock(&self.current);
        if current.as_ref().is_some_and(|c| Arc::ptr_eq(c, spent)) {
            *current = None;
        }
    }

    /// What is known of it, and whether it is ready; else why not.
    pub(super) async fn status(&self) -> (Option<Known>, Result<(), String>) {
        let ready = self.ready().await;
        (lock(&self.known).clone(), ready)
    }

    async fn ready(&self) -> Result<(), String> {
        // A connection that has gone stale since the last call shows itself
        // here, and is then made anew.
        for fresh in [false, true] {
            let connection = self.connect().await.map_err(|e| e.to_string())?;
            match self.probe(&connection, self.connect_within()).await {
                Ok(true) => return Ok(()),
                Ok(false) => {
                    return Err("the driver says that it is not ready: see its log".into());
                }
                Err(e) if fresh || e.error.kind() != Kind::Unavailable => {
                    return Err(e.to_string());
                }
                Err(_) => self.forget(&connection),
            }
        }
        Err("the driver hangs up again and again: see its log".into())
    }
}
