// SPDX-License-Identifier: Apache-2.0
//! `actor resume`

use std::collections::BTreeMap;

use clap::{Args, ValueEnum};
use jiff::Timestamp;

use crate::{
    cli::{
        Context, output,
        request::{NamedVolume, RequestId, by_name, named_volume},
        timeout::Timeout,
    },
    error::Result,
    model::{ActorRef, DnsLabel, NodeName},
    proto::api,
};

/// Options of `actor resume`.
#[derive(Debug, Args)]
pub struct Resume {
    /// The actor: namespace/name.
    #[arg(value_name = "NAMESPACE/NAME")]
    actor: ActorRef,
    /// The container that the template's mounts without a container name are for.
    #[arg(long, value_name = "NAME")]
    container: Option<DnsLabel>,
    /// The node; the server's own unless given.
    #[arg(long, value_name = "NAME")]
    node: Option<NodeName>,
    /// The only pod that may use the volumes.
    #[arg(long, value_name = "NAME")]
    pod: Option<String>,
    /// The namespace of the pod; the actor's unless given.
    #[arg(long, value_name = "NAME")]
    pod_namespace: Option<DnsLabel>,
    /// For a container that no pod holds: of plain runc, Podman, nerdctl and the like.
    #[arg(long, conflicts_with_all = ["pod", "pod_namespace"])]
    host: bool,
    /// The id of the only container that may use the volumes, as its OCI runtime has it.
    #[arg(long, value_name = "ID", requires = "host")]
    host_container: Option<String>,
    /// When a pod may begin to use the volumes at the latest, such as
    /// 2030-01-31T12:00:00Z. What has begun goes on, restarts of its containers included.
    #[arg(long, value_name = "TIME")]
    not_after: Option<Timestamp>,
    /// Put what drivers have told of the volumes into the annotations, so that they count
    /// on a node that does not reach the control plane.
    ///
    /// It may be sensitive, and whoever may see the pod sees it.
    #[arg(long)]
    with_contexts: bool,
    /// A retained volume for one of the template's that was never made; may be repeated.
    #[arg(long, value_name = "NAME=UID", value_parser = named_volume)]
    volume: Vec<NamedVolume>,
    /// How to print the annotations.
    #[arg(long, value_enum, default_value_t = Format::Json)]
    format: Format,
    #[command(flatten)]
    request: RequestId,
    #[command(flatten)]
    timeout: Timeout,
}

/// How to print the annotations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// One JSON object of annotations.
    Json,
    /// A fragment of a CRI pod or container configuration, JSON.
    Cri,
    /// A fragment of a Kubernetes manifest, YAML.
    Kubernetes,
}

impl Resume {
    pub(super) async fn run(self, context: &Context<'_>) -> Result<()> {
        let mut client = context.client_that_waits(self.timeout.timeout).await?;
        let request = api::ResumeActorRequest {
            namespace: self.actor.namespace.to_string(),
            name: self.actor.name.to_string(),
            node: self.node.map(String::from).unwrap_or_default(),
            container: self.container.map(String::from).unwrap_or_default(),
            pod_namespace: self.pod_namespace.map(String::from).unwrap_or_default(),
            pod: self.pod.unwrap_or_default(),
            not_after: self.not_after.map(|t| t.to_string()).unwrap_or_default(),
            with_contexts: self.with_contexts,
            timeout_ms: self.timeout.as_ms(),
            host: self.host,
            host_container: self.host_container.unwrap_or_default(),
            request_id: self.request.request_id,
            volumes: by_name(self.volume),
        };
        let answer = client.resume_actor(request).await?;
        let actor = answer.actor.unwrap_or_default();
        eprintln!("actor {} is resumed on node {}", self.actor, actor.node);
        let annotations = answer.annotations.into_iter().collect();
        output::print(&render(self.format, &annotations)?)
    }
}

fn render(format: Format, annotations: &BTreeMap<String, String>) -> Result<String> {
    match format {
        Format::Json => output::pretty(annotations),
        Format::Cri => output::pretty(&BTreeMap::from([("annotations", annotations)])),
        Format::Kubernetes => {
            let mut text = "metadata:\n  annotations:\n".to_owned();
            for (key, value) in annotations {
                // Single quotes: the value is JSON on one line, and in them
                // nothing but the quote itself means anything.
                let quoted = value.replace('\'', "''");
                text.push_str(&format!("    {key}: '{quoted}'\n"));
            }
            Ok(text)
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn every_format_holds_the_same_annotations() {
        let annotations = BTreeMap::from([
            ("a.dev/b".to_owned(), r#"{"it":"'s # \" : x"}"#.to_owned()),
            ("c.dev/d".to_owned(), "n/m".to_owned()),
        ]);
        let wanted = serde_json::to_value(&annotations).unwrap();
        let read = |format| render(format, &annotations).unwrap();
        let json: Value = serde_json::from_str(&read(Format::Json)).unwrap();
        assert_eq!(json, wanted);
        let cri: Value = serde_json::from_str(&read(Format::Cri)).unwrap();
        assert_eq!(cri["annotations"], wanted);
        let manifest: Value = serde_saphyr::from_str(&read(Format::Kubernetes)).unwrap();
        assert_eq!(manifest["metadata"]["annotations"], wanted);
    }
}
