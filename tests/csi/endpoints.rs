// SPDX-License-Identifier: Apache-2.0
//! Where drivers are: TCP with mutual TLS, and drivers that register themselves.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use actor_volumes::{
    csi::{DriverConfig, DriverStatus, Registry, discovery::Discovery},
    model::DriverName,
    proto::registration::{
        InfoRequest, PluginInfo, RegistrationStatus, RegistrationStatusResponse,
        registration_server::{Registration, RegistrationServer},
    },
    transport::{self, Endpoint, TlsEndpoint, TlsFiles},
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use testkit::csi::{Backend, CsiDriver};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, UnixStream},
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        RootCertStore, ServerConfig,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
        server::WebPkiClientVerifier,
    },
};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, transport::Server};

const NAME: &str = "testkit.actor-volumes.dev";

fn name() -> DriverName {
    NAME.parse().unwrap()
}

/// An authority and what it has signed.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate for this name, and its key.
    fn issue(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new([name.to_owned()]).unwrap();
        let cert = params.signed_by(&key, &self.0).unwrap();
        (cert.pem(), key.serialize_pem())
    }
}

/// TLS before the driver's unix socket: who comes in must have a certificate of
/// the authority.
struct Front {
    port: u16,
    connections: Arc<AtomicUsize>,
}

impl Front {
    async fn start(authority: &Authority, server_name: &str, socket: PathBuf) -> Self {
        let mut roots = RootCertStore::empty();
        let ca = CertificateDer::from_pem_slice(authority.pem().as_bytes()).unwrap();
        roots.add(ca).unwrap();
        let (cert, key) = authority.issue(server_name);
        let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
        let clients =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
                .build()
                .unwrap();
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(clients)
            .with_single_cert(
                vec![CertificateDer::from_pem_slice(cert.as_bytes()).unwrap()],
                PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
            )
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = connections.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, socket) = (acceptor.clone(), socket.clone());
                let counted = counted.clone();
                tokio::spawn(async move {
                    let Ok(mut stream) = acceptor.accept(stream).await else {
                        return;
                    };
                    counted.fetch_add(1, Ordering::Relaxed);
                    let mut driver = UnixStream::connect(socket).await.unwrap();
                    let _ = copy_bidirectional(&mut stream, &mut driver).await;
                });
            }
        });
        Self { port, connections }
    }
}

/// Writes the client's files.
fn files(dir: &Path, trusted: &Authority, own: &Authority) -> TlsFiles {
    let (cert, key) = own.issue("actor-volumes");
    let write = |file: &str, text: String| {
        let path = dir.join(file);
        fs::write(&path, text).unwrap();
        path
    };
    TlsFiles {
        ca: write("ca.crt", trusted.pem()),
        cert: write("tls.crt", cert),
        key: write("tls.key", key),
        server_name: Some("csi.example".into()),
    }
}

fn registry(port: u16, tls: TlsFiles) -> Registry {
    Registry::new(vec![DriverConfig {
        endpoint: None,
        controller: Some(Endpoint::Tls(TlsEndpoint {
            host: "127.0.0.1".into(),
            port,
            tls,
        })),
        ..DriverConfig::unix(name(), "/none", Duration::from_secs(3))
    }])
}

async fn status(registry: &Registry) -> DriverStatus {
    registry.get(&name()).unwrap().status().await
}

#[tokio::test]
async fn a_controller_elsewhere_is_reached_with_mutual_tls_and_no_other_way() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("csi.sock");
    let _driver = CsiDriver::start(&socket, Backend::Memory).await;
    let (ours, theirs) = (Authority::new(), Authority::new());
    let front = Front::start(&ours, "csi.example", socket.clone()).await;

    let trusted = files(dir.path(), &ours, &ours);
    let found = status(&registry(front.port, trusted.clone())).await;
    assert!(found.ready, "{}", found.message);

    // A client that the server does not trust.
    let stranger = tempfile::tempdir().unwrap();
    let found = status(&registry(
        front.port,
        files(stranger.path(), &ours, &theirs),
    ))
    .await;
    assert!(!found.ready);
    // A server that the client does not trust.
    let found = status(&registry(
        front.port,
        files(stranger.path(), &theirs, &ours),
    ))
    .await;
    assert!(
        !found.ready && found.message.contains("mutual TLS"),
        "{}",
        found.message
    );
    // A server of another name.
    let other = TlsFiles {
        server_name: Some("other.example".into()),
        ..trusted.clone()
    };
    assert!(!status(&registry(front.port, other)).await.ready);
    // Files that are not there.
    let missing = TlsFiles {
        key: dir.path().join("none"),
        ..trusted
    };
    let found = status(&registry(front.port, missing)).await;
    assert!(!found.ready && found.message.contains("cannot read the TLS file"));
}

#[tokio::test]
async fn certificates_that_were_renewed_are_used_for_the_next_call() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("csi.sock");
    let _driver = CsiDriver::start(&socket, Backend::Memory).await;
    let authority = Authority::new();
    let front = Front::start(&authority, "csi.example", socket).await;
    let registry = registry(front.port, files(dir.path(), &authority, &authority));
    assert!(status(&registry).await.ready);
    assert!(status(&registry).await.ready);
    assert_eq!(front.connections.load(Ordering::Relaxed), 1);
    // What was refused may be renewed to something good as well.
    files(dir.path(), &authority, &authority);
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert!(status(&registry).await.ready);
    assert_eq!(front.connections.load(Ordering::Relaxed), 2);
}

/// A registrar as it stands beside a driver.
struct Registrar(PluginInfo);

#[tonic::async_trait]
impl Registration for Registrar {
    async fn get_info(&self, _: Request<InfoRequest>) -> Result<Response<PluginInfo>, Status> {
        Ok(Response::new(self.0.clone()))
    }

    async fn notify_registration_status(
        &self,
        _: Request<RegistrationStatus>,
    ) -> Result<Response<RegistrationStatusResponse>, Status> {
        panic!("that is the kubelet's word");
    }
}

async fn register(socket: &Path, endpoint: &Path, kind: &str, versions: &[&str]) {
    let info = PluginInfo {
        r#type: kind.into(),
        name: NAME.into(),
        endpoint: endpoint.to_str().unwrap().into(),
        supported_versions: versions.iter().map(|v| (*v).into()).collect(),
    };
    let incoming = transport::bind(socket).await.unwrap();
    tokio::spawn(async move {
        Server::builder()
            .add_service(RegistrationServer::new(Registrar(info)))
            .serve_with_incoming(incoming)
            .await
    });
}

/// Waits at most a few readings of the directory.
async fn until(what: &str, mut check: impl AsyncFnMut() -> bool) {
    for _ in 0..300 {
        if check().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("not seen in time: {what}");
}

#[tokio::test]
async fn a_driver_that_registers_itself_is_found_and_stays_known_when_it_goes() {
    let dir = tempfile::tempdir().unwrap();
    let (socket, registrations) = (dir.path().join("csi.sock"), dir.path().join("registry"));
    let _driver = CsiDriver::start(&socket, Backend::Memory).await;
    let registry = Arc::new(Registry::new(Vec::new()));
    let stop = CancellationToken::new();
    let discovery = Discovery {
        // It appears later.
        dir: registrations.clone(),
        call_timeout: Duration::from_secs(3),
    };
    tokio::spawn(discovery.run(registry.clone(), stop.clone()));
    let error = registry.get(&name()).err().unwrap();
    assert!(error.to_string().contains("not known here"), "{error}");

    fs::create_dir(&registrations).unwrap();
    register(
        &registrations.join("other-reg.sock"),
        &socket,
        "DevicePlugin",
        &["v1"],
    )
    .await;
    register(
        &registrations.join("old-reg.sock"),
        &socket,
        "CSIPlugin",
        &["0.3.0"],
    )
    .await;
    let own = registrations.join("driver-reg.sock");
    register(&own, &socket, "CSIPlugin", &["1.0.0"]).await;
    until("the driver", async || registry.get(&name()).is_ok()).await;
    assert!(status(&registry).await.ready);
    assert_eq!(registry.list().len(), 1);

    // Its pod is replaced: the same driver at another socket.
    let moved = dir.path().join("moved.sock");
    let _moved = CsiDriver::start(&moved, Backend::Memory).await;
    fs::remove_file(&own).unwrap();
    register(&own, &moved, "CSIPlugin", &["1.0.0"]).await;
    until("its new endpoint", async || {
        status(&registry).await.endpoint.ends_with("moved.sock")
    })
    .await;

    // It is removed: its volumes wait, so it is never forgotten.
    fs::remove_file(&own).unwrap();
    until("that it is gone", async || {
        let all = registry.statuses().await;
        all[0].message.starts_with("not registered any more")
    })
    .await;
    assert!(registry.get(&name()).is_ok());
    stop.cancel();
}

#[tokio::test]
async fn a_driver_of_the_configuration_stays_where_the_configuration_says() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("csi.sock");
    let configured = DriverConfig::unix(name(), &socket, Duration::from_secs(3));
    let registry = Registry::new(vec![configured]);
    let elsewhere = DriverConfig::unix(name(), "/elsewhere.sock", Duration::from_secs(3));
    assert!(!registry.registered(elsewhere));
    registry.unregistered(&name());
    let status = status(&registry).await;
    assert!(status.endpoint.ends_with("csi.sock"));
    assert!(!status.message.contains("not registered"));
}
