// SPDX-License-Identifier: Apache-2.0
//! NodeGetVolumeStats.

use super::{
    CallError, Capabilities, Driver, NodeStats, Usage, VolumeStats, call::Rpc, list::condition,
};
use crate::proto::csi::{self as wire, node_client::NodeClient, volume_usage::Unit};

const STATS: Rpc = Rpc::node("NodeGetVolumeStats");

impl Driver {
    /// How much of the volume is used, and whether the driver takes it for
    /// damaged. None: the driver does not tell.
    pub async fn node_stats(&self, request: &NodeStats) -> Result<Option<VolumeStats>, CallError> {
        let build = |driver: &Capabilities| {
            if !driver.stats {
                return Ok(None);
            }
            Ok(Some(wire::NodeGetVolumeStatsRequest {
                volume_id: request.volume_id.clone(),
                volume_path: self.path(STATS, &request.volume_path)?,
                staging_target_path: if driver.stage {
                    self.path(STATS, &request.staging_path)?
                } else {
                    String::new()
                },
            }))
        };
        let answer = self
            .call(STATS, build, |channel, request| async {
                NodeClient::new(channel)
                    .node_get_volume_stats(request)
                    .await
            })
            .await?;
        Ok(answer.map(read))
    }
}

pub(super) fn read(answer: wire::NodeGetVolumeStatsResponse) -> VolumeStats {
    let of = |unit: Unit| {
        let usage = answer.usage.iter().find(|u| u.unit() == unit)?;
        let number = |n: i64| u64::try_from(n).unwrap_or_default();
        Some(Usage {
            total: number(usage.total),
            available: number(usage.available),
            used: number(usage.used),
        })
    };
    VolumeStats {
        bytes: of(Unit::Bytes),
        inodes: of(Unit::Inodes),
        condition: answer.volume_condition.map(condition),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_is_told_apart_by_its_unit_and_never_negative() {
        let usage = |unit: Unit, total, used| wire::VolumeUsage {
            unit: unit.into(),
            total,
            used,
            available: -1,
        };
        let stats = read(wire::NodeGetVolumeStatsResponse {
            usage: vec![usage(Unit::Inodes, 7, 1), usage(Unit::Bytes, 100, 40)],
            volume_condition: Some(wire::VolumeCondition {
                abnormal: true,
                message: "disk\nfailing".into(),
            }),
        });
        let bytes = Usage {
            total: 100,
            available: 0,
            used: 40,
        };
        assert_eq!(stats.bytes, Some(bytes));
        assert_eq!(stats.inodes.unwrap().total, 7);
        assert_eq!(stats.condition.unwrap().message, "disk failing");
    }
}
