// SPDX-License-Identifier: Apache-2.0
//! One connection after another, until the shutdown.

use std::{path::PathBuf, sync::Arc, time::Duration};

use tokio::{
    sync::{Semaphore, mpsc},
    time::{Instant, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

use super::{Word, answer};
use crate::{
    csi::Registry,
    error::{Error, Result},
    keys,
    model::NodeName,
    node::Agent,
    proto::api::{
        self, from_node::Message, nodes_client::NodesClient, to_node::Message as FromControl,
    },
    rpc::{error_of, line},
    transport::{self, Endpoint},
};

/// How long connecting, and being let in, may take.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);
const WELCOME_WITHIN: Duration = Duration::from_secs(30);

/// The pauses between tries, before the jitter: the first and the longest.
const PAUSES: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(15)];

/// The same to a control plane on this host, which has few nodes to wait for it.
const PAUSES_HERE: [Duration; 2] = [Duration::from_millis(50), Duration::from_millis(500)];

/// How often it is looked whether a driver's word on this node, or a TLS file, has
/// changed.
const LOOK_AGAIN: Duration = Duration::from_secs(20);

/// How long a driver may take to say where this node is.
const INFO_WITHIN: Duration = Duration::from_secs(5);

/// Requests that are worked on at the same time.
const REQUESTS: usize = 256;

/// Who this node is, and where its control plane.
#[derive(Debug, Clone)]
pub struct LinkSettings {
    /// This node.
    pub node: NodeName,
    /// The id of its state directory, see [`super::instance`].
    pub instance: String,
    /// The kernel's id of this boot.
    pub boot_id: String,
    /// Where the control plane listens.
    pub endpoint: Endpoint,
    /// Where the public keys are kept that the control plane tells.
    pub told_keys: PathBuf,
}

struct Link {
    settings: LinkSettings,
    agent: Arc<Agent>,
    drivers: Arc<Registry>,
    word: Arc<Word>,
}

/// Keeps a line to the control plane until the shutdown.
pub async fn run(
    settings: LinkSettings,
    agent: Arc<Agent>,
    drivers: Arc<Registry>,
    word: Arc<Word>,
    shutdown: CancellationToken,
) {
    let link = Link {
        settings,
        agent,
        drivers,
        word,
    };
    shutdown.run_until_cancelled(link.keep()).await;
}

impl Link {
    async fn keep(&self) {
        let endpoint = &self.settings.endpoint;
        let shown = endpoint.to_string();
        let [first, longest] = match endpoint {
            Endpoint::Unix(_) => PAUSES_HERE,
            Endpoint::Tls(_) => PAUSES,
        };
        let mut pause = first;
        loop {
            let mut welcome = false;
            let ended = self.connect(&mut welcome).await;
            self.word.lost();
            if welcome {
                pause = first;
            }
            match ended {
                Ok(why) => tracing::info!(control = shown, why, "the line is opened anew"),
                Err(error) => {
                    tracing::warn!(control = shown, error = %error.full_message(), "no line to the control plane");
                }
            }
            // Many nodes that lost the same control plane do not come at once.
            tokio::time::sleep(pause.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
            pause = (pause * 2).min(longest);
        }
    }

    /// One connection. Gives why it is to be opened anew.
    async fn connect(&self, welcome: &mut bool) -> Result<&'static str> {
        let endpoint = &self.settings.endpoint;
        let (channel, files) = transport::connect_lasting(endpoint, CONNECT_WITHIN).await?;
        let (say, saying) = mpsc::channel(line::QUEUE);
        let mut told = self.told().await;
        // Hints of what is released from here on are not missed.
        let mut releases = self.agent.releases();
        let hello = api::Hello {
            node: self.settings.node.to_string(),
            protocol: line::PROTOCOL,
            instance: self.settings.instance.clone(),
            boot_id: self.settings.boot_id.clone(),
            drivers: told.clone(),
            holdings: self.holdings().await,
        };
        send(&say, Message::Hello(hello)).await?;
        let mut client = NodesClient::new(channel).max_decoding_message_size(line::MAX_MESSAGE);
        let connecting = client.connect(ReceiverStream::new(saying));
        let mut heard = timeout(WELCOME_WITHIN, connecting)
            .await
            .map_err(|_| Error::deadline("the control plane does not answer"))?
            .map_err(|status| error_of(&status))?
            .into_inner();
        let places = Arc::new(Semaphore::new(REQUESTS));
        let mut look = tokio::time::interval_at(Instant::now() + LOOK_AGAIN, LOOK_AGAIN);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                message = heard.message() => {
                    let message = message.map_err(|status| error_of(&status))?;
                    let Some(message) = message else {
                        return Ok("the control plane has ended it");
                    };
                    match message.message {
                        Some(FromControl::Welcome(word)) => {
                            *welcome = true;
                            tracing::info!(ready = word.ready, message = word.message, "the control plane is there");
                            let ready = word.ready;
                            let told = Arc::clone(&self.word);
                            blocking(move || told.welcome(word)).await?;
                            if !ready {
                                // Nothing new is accepted from here on.
                                let holdings = self.holdings().await;
                                send(&say, Message::Holdings(api::Holdings { holdings })).await?;
                            }
                        }
                        Some(FromControl::Keys(told)) => self.keep_keys(told.pem).await,
                        Some(FromControl::Grants(grants)) => self.word.take(grants)?,
                        Some(FromControl::Request(request)) => {
                            self.answer(request, &say, &places).await;
                        }
                        None => {}
                    }
                }
                changed = releases.changed() => {
                    if changed.is_ok() {
                        send(&say, Message::Released(api::Released {})).await?;
                    }
                }
                _ = look.tick() => {
                    let now = self.told().await;
                    if now != told {
                        told.clone_from(&now);
                        send(&say, Message::Drivers(api::Drivers { drivers: now })).await?;
                    }
                    match transport::fingerprint_of(endpoint).await {
                        Ok(now) if now != files => return Ok("the TLS files have changed"),
                        Ok(_) => {}
                        Err(error) => tracing::warn!(error = %error.full_message(), "the TLS files are not renewed"),
                    }
                }
            }
        }
    }

    /// Keeps the keys on disk, for a start without the control plane. Where that
    /// fails, those of before count on.
    async fn keep_keys(&self, pems: Vec<String>) {
        let dir = self.settings.told_keys.clone();
        match blocking(move || keys::write_told(&dir, &pems)).await {
            Ok(()) => self.agent.keys_changed().await,
            Err(error) => {
                tracing::error!(error = %error.full_message(), "the control plane's keys are not kept");
            }
        }
    }

    /// Works on a request in a task of its own. It comes to its end also when the
    /// line is lost: half a change in memory would be worse than an answer that
    /// nobody hears.
    async fn answer(
        &self,
        request: api::Request,
        say: &mpsc::Sender<api::FromNode>,
        places: &Arc<Semaphore>,
    ) {
        let place = Arc::clone(places).acquire_owned().await;
        let (agent, say) = (Arc::clone(&self.agent), say.clone());
        tokio::spawn(async move {
            let answer = answer::answer(&agent, request).await;
            drop(place);
            let _ = send(&say, Message::Answer(answer)).await;
        });
    }

    /// What the drivers say of this node; those that do not answer are left out,
    /// and told of when they do.
    async fn told(&self) -> Vec<api::NodeDriver> {
        let asked: Vec<_> = self
            .drivers
            .list()
            .into_iter()
            .map(|driver| {
                tokio::spawn(async move {
                    let info = timeout(INFO_WITHIN, driver.node_info()).await;
                    let info = info.ok()?.ok()?;
                    Some(api::NodeDriver {
                        name: driver.name().to_string(),
                        node_id: info.node_id,
                        topology: info.topology.into_iter().collect(),
                        max_volumes: info.max_volumes,
                    })
                })
            })
            .collect();
        let mut told = Vec::new();
        for asked in asked {
            told.extend(asked.await.ok().flatten());
        }
        told
    }

    async fn holdings(&self) -> Vec<api::Holding> {
        let held = self.agent.holdings().await.into_iter();
        held.map(|holding| api::Holding {
            driver: holding.key.driver.to_string(),
            volume_id: holding.key.volume_id,
            highest: holding.highest.0,
            revoked: holding.revoked.0,
            held_by: holding.held_by.unwrap_or_default(),
        })
        .collect()
    }
}

/// Runs what writes to disk where that is allowed.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|e| Error::internal("a write did not come to its end").with_source(e))?
}

async fn send(say: &mpsc::Sender<api::FromNode>, message: Message) -> Result<()> {
    let message = api::FromNode {
        message: Some(message),
    };
    let lost = |_| Error::unavailable("the line to the control plane is lost");
    say.send(message).await.map_err(lost)
}
