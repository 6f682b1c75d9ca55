// SPDX-License-Identifier: Apache-2.0
//! Calls of the Controller service.

use std::collections::BTreeMap;

use super::{
    CallError, Capabilities, CreateVolume, CreatedVolume, DeleteVolume, Driver, Outcome,
    answer::{check_context, check_id, check_places},
    call::Rpc,
};
use crate::{
    error::{Error, Result},
    proto::csi::{self as wire, controller_client::ControllerClient},
};

const CREATE: Rpc = Rpc::plain("CreateVolume");
const DELETE: Rpc = Rpc::plain("DeleteVolume");

/// The longest volume id (CSI spec, size limits).
const MAX_ID: usize = 128;

impl Driver {
    /// Creates the volume, or finds the one of the same name.
    ///
    /// A volume that is not what was asked for is deleted again, so that a
    /// final failure leaves none behind.
    pub async fn create_volume(&self, request: &CreateVolume) -> Result<CreatedVolume, CallError> {
        let build = |driver: &Capabilities| {
            self.gate(CREATE, "CREATE_DELETE_VOLUME", driver.create_delete)?;
            let required_bytes = i64::try_from(request.required_bytes).map_err(|_| {
                let e = Error::invalid("a capacity above 8 EiB cannot be asked for: lower it");
                CallError::last(CREATE.name, e)
            })?;
            Ok(Some(wire::CreateVolumeRequest {
                name: request.name.clone(),
                capacity_range: Some(wire::CapacityRange {
                    required_bytes,
                    limit_bytes: 0,
                }),
                volume_capabilities: vec![
                    request
                        .capability
                        .to_wire(driver)
                        .map_err(|e| CallError::last(CREATE.name, e))?,
                ],
                parameters: request.parameters.clone().into_iter().collect(),
                accessibility_requirements: request.accessibility.to_wire(driver),
                secrets: request.secrets.expose().collect(),
                ..Default::default()
            }))
        };
        let answer = self
            .call(CREATE, build, |channel, request| async {
                ControllerClient::new(channel).create_volume(request).await
            })
            .await?;
        let volume = answer.and_then(|a| a.volume).unwrap_or_default();
        let problem = match checked(&volume, request.required_bytes) {
            Ok(created) => return Ok(created),
            Err(problem) => problem.context(format!("CSI driver {}", self.name())),
        };
        if volume.volume_id.is_empty() {
            return Err(CallError::last(CREATE.name, problem));
        }
        tracing::warn!(driver = %self.name(), volume = %request.name, "deleting a volume that is not what was asked for: {problem}");
        let delete = DeleteVolume {
            volume_id: volume.volume_id.clone(),
            secrets: request.secrets.clone(),
        };
        match self.delete_volume(&delete).await {
            Ok(()) => Err(CallError::last(
                CREATE.name,
                problem.context("the volume was deleted again"),
            )),
            Err(e) => Err(CallError::ambiguous(
                CREATE.name,
                problem.context(format!("the volume could not be deleted again ({e})")),
            )),
        }
    }

    /// Deletes the volume; one that is not there is success (CSI spec).
    pub async fn delete_volume(&self, request: &DeleteVolume) -> Result<(), CallError> {
        let build = |driver: &Capabilities| {
            self.gate(DELETE, "CREATE_DELETE_VOLUME", driver.create_delete)?;
            Ok(Some(wire::DeleteVolumeRequest {
                volume_id: request.volume_id.clone(),
                secrets: request.secrets.expose().collect(),
            }))
        };
        self.call(DELETE, build, |channel, request| async {
            ControllerClient::new(channel).delete_volume(request).await
        })
        .await?;
        Ok(())
    }

    /// Refuses a call that the driver has not advertised, without sending it.
    pub(super) fn gate(
        &self,
        rpc: Rpc,
        capability: &str,
        advertised: bool,
    ) -> Result<(), CallError> {
        if advertised {
            return Ok(());
        }
        Err(CallError {
            rpc: rpc.name,
            outcome: Outcome::Final,
            error: Error::unimplemented(format!(
                "CSI driver {} does not advertise {capability}: use a driver that does",
                self.name()
            )),
        })
    }
}

/// The volume, if it is what was asked for.
fn checked(volume: &wire::Volume, required_bytes: u64) -> Result<CreatedVolume> {
    check_id("volume id", &volume.volume_id, MAX_ID)?;
    let capacity_bytes = u64::try_from(volume.capacity_bytes).unwrap_or_default();
    if volume.capacity_bytes < 0 || (capacity_bytes > 0 && capacity_bytes < required_bytes) {
        return Err(Error::internal(format!(
            "the driver made a volume of {} bytes, but {required_bytes} were asked for",
            volume.capacity_bytes
        )));
    }
    if volume.content_source.is_some() {
        return Err(Error::internal(
            "the driver says that the new volume has a content source, but none was asked for",
        ));
    }
    let volume_context: BTreeMap<_, _> = volume.volume_context.clone().into_iter().collect();
    check_context("volume_context", &volume_context)?;
    let accessible_topology: Vec<_> = volume
        .accessible_topology
        .iter()
        .map(|place| place.segments.clone().into_iter().collect())
        .collect();
    check_places(&accessible_topology)?;
    Ok(CreatedVolume {
        volume_id: volume.volume_id.clone(),
        capacity_bytes,
        volume_context,
        accessible_topology,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volume() -> wire::Volume {
        wire::Volume {
            volume_id: "v".into(),
            capacity_bytes: 100,
            ..Default::default()
        }
    }

    #[test]
    fn a_volume_of_unknown_or_larger_size_is_taken() {
        assert_eq!(checked(&volume(), 100).unwrap().capacity_bytes, 100);
        let unknown = wire::Volume {
            capacity_bytes: 0,
            ..volume()
        };
        assert_eq!(checked(&unknown, 100).unwrap().capacity_bytes, 0);
    }

    #[test]
    fn a_volume_that_is_not_what_was_asked_for_is_refused() {
        let context = |bytes| [("k".to_owned(), "x".repeat(bytes))].into();
        for (bad, why) in [
            (
                wire::Volume {
                    volume_id: String::new(),
                    ..volume()
                },
                "0 bytes",
            ),
            (
                wire::Volume {
                    volume_id: "x".repeat(129),
                    ..volume()
                },
                "129 bytes",
            ),
            (
                wire::Volume {
                    volume_id: "../a\nb".into(),
                    ..volume()
                },
                "control characters",
            ),
            (
                wire::Volume {
                    accessible_topology: vec![wire::Topology {
                        segments: [("a\u{1b}".to_owned(), "b".to_owned())].into(),
                    }],
                    ..volume()
                },
                "topology",
            ),
            (
                wire::Volume {
                    capacity_bytes: 99,
                    ..volume()
                },
                "99 bytes",
            ),
            (
                wire::Volume {
                    capacity_bytes: -1,
                    ..volume()
                },
                "-1 bytes",
            ),
            (
                wire::Volume {
                    content_source: Some(Default::default()),
                    ..volume()
                },
                "content source",
            ),
            (
                wire::Volume {
                    volume_context: context(4096),
                    ..volume()
                },
                "volume_context",
            ),
        ] {
            let error = checked(&bad, 100).err().expect(why);
            assert!(error.full_message().contains(why), "{error:?}");
        }
        let fits = wire::Volume {
            volume_context: context(4095),
            ..volume()
        };
        assert!(checked(&fits, 100).is_ok());
    }
}
