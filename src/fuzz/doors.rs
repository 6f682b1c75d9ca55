// SPDX-License-Identifier: Apache-2.0
//! What comes in by the doors: requests, and the two ends of the line between a node
//! and its control plane.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use prost::Message;
use tonic::{Request, Response, Status};

use super::{block_on, pieces};
use crate::{
    api::grant,
    control::{
        Control, ControlService, NodePort, Settings,
        nodes::{NodeAdminService, NodeWatcher, Nodes},
        store::MemoryStore,
    },
    csi::Registry,
    keys::PublicKey,
    link::Word,
    model::NodeName,
    node::Authority,
    proto::api::{self, control_server::Control as _, node_admin_server::NodeAdmin as _},
    rpc::{error_of, line},
};

/// A verb that waits is not waited for.
const WITHIN: Duration = Duration::from_millis(20);

struct Nobody;

impl NodeWatcher for Nobody {
    fn changed(&self, _: &BTreeMap<&'static str, usize>, _: usize) {}
}

/// Pieces, each a request to a control plane that has nothing yet: its method, and
/// its message.
pub(super) fn requests(bytes: &[u8]) {
    let pieces = pieces(bytes);
    if pieces.is_empty() {
        return;
    }
    block_on(async {
        let store = Arc::new(MemoryStore::new());
        let nodes = Nodes::open(store.clone(), None, Arc::new(Nobody)).await;
        let nodes = nodes.expect("an empty store");
        let drivers = Arc::new(Registry::new(Vec::new()));
        let name: NodeName = "node-a".parse().expect("a name");
        let port = Arc::clone(&nodes) as Arc<dyn NodePort>;
        let control = Control::open(store, drivers, port, name, Settings::default()).await;
        let control = control.expect("an empty store");
        let service = ControlService::new(Arc::clone(&control));
        let admin = NodeAdminService::new(Arc::clone(&control), nodes);
        for (method, message) in pieces {
            one(&service, &admin, method, message).await;
        }
        control.shutdown().await;
    });
}

/// Decodes the message, has it answered, and looks at the answer.
macro_rules! answered {
    ($message:expr, $call:expr) => {{
        if let Ok(message) = Message::decode($message) {
            let answer = tokio::time::timeout(WITHIN, $call(Request::new(message))).await;
            if let Ok(answer) = answer {
                looked_at(answer);
            }
        }
    }};
}

async fn one(service: &ControlService, admin: &NodeAdminService, method: u8, message: &[u8]) {
    match method % 24 {
        0 => answered!(message, |r| service.info(r)),
        1 => answered!(message, |r| service.apply_template(r)),
        2 => answered!(message, |r| service.list_templates(r)),
        3 => answered!(message, |r| service.get_template(r)),
        4 => answered!(message, |r| service.rollback_template(r)),
        5 => answered!(message, |r| service.get_template_status(r)),
        6 => answered!(message, |r| service.apply_storage_class(r)),
        7 => answered!(message, |r| service.list_storage_classes(r)),
        8 => answered!(message, |r| service.list_drivers(r)),
        9 => answered!(message, |r| service.create_actor(r)),
        10 => answered!(message, |r| service.list_actors(r)),
        11 => answered!(message, |r| service.get_actor(r)),
        12 => answered!(message, |r| service.resume_actor(r)),
        13 => answered!(message, |r| service.suspend_actor(r)),
        14 => answered!(message, |r| service.crash_actor(r)),
        15 => answered!(message, |r| service.update_actor(r)),
        16 => answered!(message, |r| service.delete_actor(r)),
        17 => answered!(message, |r| service.list_volumes(r)),
        18 => answered!(message, |r| service.get_volume(r)),
        19 => answered!(message, |r| service.expand_volume(r)),
        20 => answered!(message, |r| service.delete_volume(r)),
        21 => answered!(message, |r| service.list_orphans(r)),
        22 => answered!(message, |r| admin.fence_node(r)),
        _ => answered!(message, |r| admin.get_node(r)),
    }
}

/// An answer fits a message; an error has a text that is fit for people, and is never
/// a defect.
fn looked_at<T: Message>(answer: Result<Response<T>, Status>) {
    match answer {
        Ok(answer) => drop(answer.into_inner().encode_to_vec()),
        Err(status) => {
            assert_ne!(status.code(), tonic::Code::Internal, "{status:?}");
            assert!(!error_of(&status).full_message().is_empty());
        }
    }
}

/// Pieces, each a message of one of the two ends.
pub(super) fn line(bytes: &[u8]) {
    let word = Word::in_memory("tcp://control:7443");
    for (end, message) in pieces(bytes) {
        if end % 2 == 0 {
            if let Ok(said) = api::FromNode::decode(message) {
                from_node(said);
            }
        } else if let Ok(said) = api::ToNode::decode(message) {
            to_node(&word, said);
        }
    }
    word.lost();
}

fn from_node(said: api::FromNode) {
    use api::from_node::Message as Said;
    match said.message {
        Some(Said::Answer(answer)) => drop(line::outcome(answer)),
        Some(Said::Hello(hello)) => {
            let _ = hello.node.parse::<NodeName>();
            held(hello.holdings);
        }
        Some(Said::Holdings(told)) => held(told.holdings),
        Some(Said::Drivers(_) | Said::Released(_)) | None => {}
    }
}

fn held(holdings: Vec<api::Holding>) {
    for holding in holdings {
        let _ = line::volume_key(&holding.driver, &holding.volume_id);
    }
}

fn to_node(word: &Word, said: api::ToNode) {
    use api::to_node::Message as Said;
    match said.message {
        Some(Said::Welcome(welcome)) => {
            word.welcome(welcome).expect("nothing of it is on disk");
        }
        Some(Said::Keys(told)) => {
            for pem in &told.pem {
                let _ = PublicKey::from_pem(pem);
            }
        }
        Some(Said::Grants(grants)) => {
            let presented: Vec<_> = grants.put.iter().map(|text| grant::parse(text)).collect();
            if word.take(grants).is_ok() {
                for grant in presented {
                    let grant = grant.expect("the word was read");
                    let _ = word.current(&grant);
                    let _ = word.current_signed(&grant);
                }
            }
        }
        Some(Said::Request(request)) => {
            let _ = line::volume_key(&request.driver, &request.volume_id);
        }
        None => {}
    }
}
