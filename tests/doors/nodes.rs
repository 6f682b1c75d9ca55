// SPDX-License-Identifier: Apache-2.0
//! Which nodes may connect, beside their certificates.

use std::{net::SocketAddr, sync::Arc};

use actor_volumes::{
    proto::api::{agent_client::AgentClient, agent_server::AgentServer},
    transport::{self, Channel, Endpoint, Gate, Limits, Refused, Rules, TlsEndpoint},
};
use tonic::Code;

use crate::{
    authority::Authority,
    hall::{Counted, SOON, Service, container, kinds},
};

/// A door on TCP.
struct Gateway {
    dir: tempfile::TempDir,
    authority: Authority,
    address: SocketAddr,
    counted: Arc<Counted>,
    service: Service,
}

impl Gateway {
    async fn open(names: &[&str], limits: Limits) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::new();
        let counted = Arc::new(Counted::default());
        let service = Service::new();
        let gate = Gate::new(Rules {
            names: names.iter().map(|name| name.parse().unwrap()).collect(),
            limits,
            kinds,
            watcher: counted.clone(),
            ..Rules::default()
        });
        let files = authority.files(&dir.path().join("control"), "control.example", &authority);
        let (address, incoming) = gate
            .listen(([127, 0, 0, 1], 0).into(), files)
            .await
            .unwrap();
        let serving = gate
            .remote_server()
            .add_service(AgentServer::new(service.clone()))
            .serve_with_incoming(incoming);
        tokio::spawn(serving);
        Self {
            dir,
            authority,
            address,
            counted,
            service,
        }
    }

    async fn client(&self, name: &str) -> AgentClient<Channel> {
        let endpoint = Endpoint::Tls(TlsEndpoint {
            host: "127.0.0.1".into(),
            port: self.address.port(),
            tls: self
                .authority
                .files(&self.dir.path().join(name), name, &self.authority),
        });
        let (channel, _) = transport::connect_lasting(&endpoint, SOON).await.unwrap();
        AgentClient::new(channel)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_the_authority_is_not_enough_where_nodes_are_named() {
    let gateway = Gateway::open(&["node-*", "edge.example"], Limits::default()).await;
    for name in ["node-7", "edge.example"] {
        let mut client = gateway.client(name).await;
        client.check_container(container("")).await.unwrap();
    }
    assert!(gateway.counted.refused().is_empty());
    let refused = gateway
        .client("laptop")
        .await
        .check_container(container(""))
        .await;
    let refused = refused.err().unwrap();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused:?}");
    assert!(refused.message().contains("laptop"), "{refused:?}");
    assert!(
        refused.message().contains("control.tls.allowed_names"),
        "{refused:?}"
    );
    assert_eq!(gateway.counted.refused(), [Refused::Peer]);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_names_every_certificate_of_the_authority_may_connect() {
    let gateway = Gateway::open(&[], Limits::default()).await;
    let mut client = gateway.client("anybody").await;
    client.check_container(container("")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn one_node_takes_no_other_nodes_connections() {
    let gateway = Gateway::open(
        &[],
        Limits {
            connections_of_name: 2,
            ..Limits::default()
        },
    )
    .await;
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut client = gateway.client("node-a").await;
        client.check_container(container("")).await.unwrap();
        held.push(client);
    }
    let refused = gateway
        .client("node-a")
        .await
        .check_container(container(""))
        .await;
    let refused = refused.err().unwrap();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused:?}");
    let mut other = gateway.client("node-b").await;
    other.check_container(container("")).await.unwrap();
    gateway.service.have_come(3).await;
    // When one has gone there is room.
    held.pop();
    crate::hall::at_last("one has gone", || gateway.counted.connections() <= 2).await;
    let mut again = gateway.client("node-a").await;
    again.check_container(container("")).await.unwrap();
}
