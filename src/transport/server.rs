// SPDX-License-Identifier: Apache-2.0
//! A gRPC server over TCP with mutual TLS. Its files are read again when they
//! change; the names of a peer come from its certificate alone.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc},
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        RootCertStore, ServerConfig,
        crypto::ring::default_provider,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
        server::WebPkiClientVerifier,
    },
    server::TlsStream,
};
use tokio_stream::wrappers::ReceiverStream;

use super::{
    TlsFiles,
    gate::{Gate, Held, Incoming, Peer},
    tls::{Fingerprint, Pem},
};
use crate::error::{Error, Result};

/// How long a peer may take to prove itself.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(10);

/// Peers that prove themselves at the same time.
const HANDSHAKES: usize = 256;

/// Listens for a door.
pub(super) async fn listen(
    address: SocketAddr,
    files: TlsFiles,
    gate: Gate,
) -> Result<(SocketAddr, Incoming)> {
    let (fingerprint, config) = read(&files).await?;
    let failed = |e| Error::internal(format!("cannot listen on {address}")).with_source(e);
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    let (proven, incoming) = mpsc::channel(16);
    let server = Listening {
        listener,
        files,
        fingerprint,
        config,
        gate,
        proven,
    };
    tokio::spawn(server.accept_all());
    Ok((bound, ReceiverStream::new(incoming)))
}

/// The names that a certificate was issued for, of the kind DNS name. A wildcard
/// is given as it stands: it is nobody's name.
pub fn names_of(certificate: &[u8]) -> Vec<String> {
    let der = CertificateDer::from(certificate);
    match webpki::EndEntityCert::try_from(&der) {
        Ok(certificate) => certificate.valid_dns_names().map(str::to_owned).collect(),
        Err(_) => Vec::new(),
    }
}

struct Listening {
    listener: TcpListener,
    files: TlsFiles,
    fingerprint: Fingerprint,
    config: Arc<ServerConfig>,
    gate: Gate,
    proven: mpsc::Sender<io::Result<Held<TlsStream<TcpStream>>>>,
}

impl Listening {
    /// Until nobody takes connections any more.
    async fn accept_all(mut self) {
        let places = Arc::new(Semaphore::new(HANDSHAKES));
        loop {
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                () = self.proven.closed() => return,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            self.renew().await;
            let acceptor = TlsAcceptor::from(Arc::clone(&self.config));
            let (proven, gate) = (self.proven.clone(), self.gate.clone());
            // Before the task: a flood waits in the kernel, whose queue has a bound.
            let Ok(place) = Arc::clone(&places).acquire_owned().await else {
                return;
            };
            tokio::spawn(async move {
                let _place = place;
                let _ = stream.set_nodelay(true);
                match tokio::time::timeout(HANDSHAKE_WITHIN, acceptor.accept(stream)).await {
                    Ok(Ok(stream)) => {
                        let peer = Peer::of(stream.get_ref().1.peer_certificates());
                        if let Some(held) = gate.hold(stream, peer) {
                            let _ = proven.send(Ok(held)).await;
                        }
                    }
                    Ok(Err(error)) => tracing::warn!(%peer, %error, "a peer was refused"),
                    Err(_) => tracing::warn!(%peer, "a peer did not prove itself in time"),
                }
            });
        }
    }

    /// Takes changed files; those that cannot be used leave the old ones in use.
    async fn renew(&mut self) {
        match super::fingerprint(&self.files).await {
            Ok(now) if now == self.fingerprint => return,
            Ok(_) => {}
            Err(error) => return complain(&error),
        }
        match read(&self.files).await {
            Ok((fingerprint, config)) => {
                tracing::info!("the TLS files have changed and are in use");
                self.fingerprint = fingerprint;
                self.config = config;
            }
            Err(error) => complain(&error),
        }
    }
}

fn complain(error: &Error) {
    tracing::warn!(error = %error.full_message(), "the TLS files are not renewed");
}

async fn read(files: &TlsFiles) -> Result<(Fingerprint, Arc<ServerConfig>)> {
    let pem = Pem::read(files).await?;
    let unusable = |what: &str, path: &std::path::Path| {
        Error::precondition(format!("cannot use the {what} in {}", path.display()))
    };
    let certificates = |pem: &[u8], what: &str, path: &std::path::Path| {
        CertificateDer::pem_slice_iter(pem)
            .collect::<Result<Vec<_>, _>>()
            .ok()
            .filter(|all| !all.is_empty())
            .ok_or_else(|| unusable(what, path))
    };
    let mut roots = RootCertStore::empty();
    for authority in certificates(&pem.ca, "authorities", &files.ca)? {
        roots
            .add(authority)
            .map_err(|e| unusable("authorities", &files.ca).with_source(e))?;
    }
    let chain = certificates(&pem.cert, "certificate", &files.cert)?;
    let key =
        PrivateKeyDer::from_pem_slice(&pem.key).map_err(|_| unusable("private key", &files.key))?;
    let provider = Arc::new(default_provider());
    let peers = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .build()
        .map_err(|e| unusable("authorities", &files.ca).with_source(e))?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| Error::internal("cannot set up TLS").with_source(e))?
        .with_client_cert_verifier(peers)
        .with_single_cert(chain, key)
        .map_err(|e| unusable("certificate with its key", &files.cert).with_source(e))?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok((pem.fingerprint(), Arc::new(config)))
}
