// SPDX-License-Identifier: Apache-2.0
//! What is asked of a driver before a volume is made or attached, and whether
//! there is room for one more.

use std::sync::Arc;

use super::{Taken, asked, driver, not_sent};
use crate::{
    control::{
        Control,
        cell::{Cell, blocking},
        lifecycle::{Certainty, Outcome, State, Step},
        record::{VolumeRecord, key},
    },
    csi::{Accessibility, Driver, NodeInfo},
    error::{Error, Kind},
    model::{NodeName, Topology, reaches},
};

/// What the driver says of the node: what the node told of it, or, for the node
/// of this process, what it answers here.
async fn node_info(
    control: &Control,
    driver: &Driver,
    node: &NodeName,
) -> Result<NodeInfo, Outcome> {
    match control.nodes.node_info(node, driver.name()).await {
        Ok(Some(told)) => Ok(told),
        Ok(None) => driver.node_info().await.map_err(asked),
        Err(e) => Err(not_sent(&e)),
    }
}

/// Makes the request of CreateVolume whole.
pub(super) async fn prepare(control: &Control, at: &State, volume: &VolumeRecord) -> Taken {
    let (driver, capabilities) = driver(control, volume).await?;
    let placement = at.actor.as_ref().and_then(|a| a.placement.as_ref());
    let node = placement.map(|p| &p.node).or(control.node_here());
    let accessibility = if capabilities.topology {
        match node {
            Some(node) => {
                let here = node_info(control, &driver, node).await?.topology;
                requirement(volume, node, here)?
            }
            // No node is nearer than another.
            None => Accessibility {
                requisite: volume.allowed_topologies.clone(),
                preferred: volume.allowed_topologies.clone(),
            },
        }
    } else if volume.allowed_topologies.is_empty() {
        Accessibility::default()
    } else {
        return Err(refused(format!(
            "storage class {} has allowedTopologies, but CSI driver {} does not advertise VOLUME_ACCESSIBILITY_CONSTRAINTS: use a class without them",
            volume.class, volume.driver
        )));
    };
    Ok(Outcome::Prepared {
        access_mode: capabilities.resolve(volume.wanted_access_mode),
        accessibility,
    })
}

/// From where the new volume must be reachable: from the node that is its first
/// consumer, or else from what the class allows, the node's own place first.
fn requirement(
    volume: &VolumeRecord,
    node: &NodeName,
    here: Topology,
) -> Result<Accessibility, Outcome> {
    let allowed = &volume.allowed_topologies;
    if allowed.is_empty() || volume.first_consumer {
        if !reaches(&here, allowed) {
            return Err(refused(format!(
                "node {node} is at {}, and storage class {} allows volumes at {} alone: resume the actor on another node, or use another class",
                place(&here),
                volume.class,
                places(allowed)
            )));
        }
        let only = if here.is_empty() {
            Vec::new()
        } else {
            vec![here]
        };
        return Ok(Accessibility {
            requisite: only.clone(),
            preferred: only,
        });
    }
    let is_here = |place: &&Topology| reaches(&here, std::slice::from_ref(*place));
    let (near, far): (Vec<_>, Vec<_>) = allowed.iter().partition(is_here);
    Ok(Accessibility {
        requisite: allowed.clone(),
        preferred: near.into_iter().chain(far).cloned().collect(),
    })
}

/// The driver's name of the node, if it attaches; refused where the node does
/// not reach the volume.
pub(super) async fn locate(control: &Control, volume: &VolumeRecord, node: &NodeName) -> Taken {
    let (driver, capabilities) = driver(control, volume).await?;
    let attaches = capabilities.controller_publish;
    if !attaches && volume.accessible_topology.is_empty() {
        return Ok(Outcome::Located(None));
    }
    let info = node_info(control, &driver, node).await?;
    if !reaches(&info.topology, &volume.accessible_topology) {
        return Err(refused(format!(
            "volume {} can be reached at {} alone, and node {node} is at {}: suspend the actor and resume it on a node that reaches it",
            volume.uid,
            places(&volume.accessible_topology),
            place(&info.topology)
        )));
    }
    Ok(Outcome::Located(attaches.then_some(info.node_id)))
}

fn refused(message: String) -> Outcome {
    Outcome::failed(message, Kind::FailedPrecondition, Certainty::Final)
}

fn place(segments: &Topology) -> String {
    if segments.is_empty() {
        return "no place that its driver names".into();
    }
    let parts: Vec<_> = segments.iter().map(|(k, v)| format!("{k}={v}")).collect();
    parts.join(",")
}

fn places(all: &[Topology]) -> String {
    all.iter().map(place).collect::<Vec<_>>().join(" or ")
}

/// Whether the step may begin; its failure if not.
pub(in crate::control) async fn admit(
    control: &Arc<Control>,
    cell: &Cell,
    step: &Step,
) -> Result<(), Outcome> {
    match step {
        Step::Create { volume } => {
            let (store, key) = (control.store.clone(), key::tombstone(volume));
            let found = blocking(&control.tasks, move || store.get(&key)).await;
            match found.map_err(|e| not_sent(&e))? {
                None => Ok(()),
                Some(_) => Err(refused(format!(
                    "volume {volume} was deleted before: it is not created again"
                ))),
            }
        }
        Step::Attach { volume, node } => {
            let record = {
                let inner = cell.lock().await.map_err(|e| not_sent(&e))?;
                inner.state.volumes.get(volume).cloned()
            };
            match record {
                Some(record) => find_room(control, &record, node).await,
                None => Ok(()),
            }
        }
        _ => Ok(()),
    }
}

/// Takes a seat of the node's limit for the volume.
async fn find_room(
    control: &Control,
    volume: &VolumeRecord,
    node: &NodeName,
) -> Result<(), Outcome> {
    let (driver, _) = driver(control, volume).await?;
    let limit = node_info(control, &driver, node).await?.max_volumes;
    let taken = control.limits.take(volume, node, limit);
    taken.map_err(|taken| {
        not_sent(&Error::exhausted(format!(
            "{taken} volumes of CSI driver {} are attached to node {node}, and it allows {limit}: suspend an actor that runs there, this one goes on when a volume is detached",
            volume.driver
        )))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_shown_as_keys_and_values() {
        let one: Topology = [("x/zone".to_owned(), "z1".to_owned())].into();
        let two: Topology = [
            ("x/rack".to_owned(), "r1".to_owned()),
            ("x/zone".to_owned(), "z2".to_owned()),
        ]
        .into();
        assert_eq!(places(&[one, two]), "x/zone=z1 or x/rack=r1,x/zone=z2");
        assert_eq!(place(&Topology::new()), "no place that its driver names");
    }
}
