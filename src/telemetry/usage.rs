// SPDX-License-Identifier: Apache-2.0
//! How full the volumes of actors are, while they are published on this node.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{family::Family, gauge::Gauge},
    registry::Registry,
};

/// Which volume.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OfVolume {
    /// The actor's namespace.
    pub namespace: String,
    /// The actor's name.
    pub actor: String,
    /// The volume's name in the template.
    pub volume: String,
}

/// What a driver tells of a volume; none: it does not tell.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Fullness {
    /// Capacity, used and available, in bytes.
    pub bytes: Option<[u64; 3]>,
    /// The same in inodes.
    pub inodes: Option<[u64; 3]>,
    /// Whether the driver takes the volume for damaged.
    pub abnormal: Option<bool>,
}

const KINDS: [&str; 3] = ["capacity", "used", "available"];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    namespace: String,
    actor: String,
    volume: String,
    kind: &'static str,
}

/// The gauges.
#[derive(Default)]
pub struct Usage {
    bytes: Family<Labels, Gauge>,
    inodes: Family<Labels, Gauge>,
    abnormal: Family<OfVolume, Gauge>,
}

impl Usage {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let usage = Self::default();
        registry.register(
            "volume_bytes",
            "What the driver tells of a published volume, in bytes",
            usage.bytes.clone(),
        );
        registry.register(
            "volume_inodes",
            "What the driver tells of a published volume, in inodes",
            usage.inodes.clone(),
        );
        registry.register(
            "volume_abnormal",
            "Whether the driver takes a published volume for damaged",
            usage.abnormal.clone(),
        );
        usage
    }

    /// The volume is as full as this.
    pub fn set(&self, of: &OfVolume, full: &Fullness) {
        for (family, figures) in [(&self.bytes, full.bytes), (&self.inodes, full.inodes)] {
            for (index, kind) in KINDS.into_iter().enumerate() {
                let labels = of.with(kind);
                match figures {
                    Some(figures) => {
                        let value = i64::try_from(figures[index]).unwrap_or(i64::MAX);
                        family.get_or_create(&labels).set(value);
                    }
                    None => {
                        family.remove(&labels);
                    }
                }
            }
        }
        match full.abnormal {
            Some(abnormal) => {
                self.abnormal.get_or_create(of).set(abnormal.into());
            }
            None => {
                self.abnormal.remove(of);
            }
        }
    }

    /// The volume is not published here any more.
    pub fn forget(&self, of: &OfVolume) {
        self.set(of, &Fullness::default());
    }
}

impl OfVolume {
    fn with(&self, kind: &'static str) -> Labels {
        Labels {
            namespace: self.namespace.clone(),
            actor: self.actor.clone(),
            volume: self.volume.clone(),
            kind,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Metrics;

    #[test]
    fn a_volume_is_told_of_while_it_is_published() {
        let metrics = Metrics::default();
        let of = OfVolume {
            namespace: "agents".into(),
            actor: "a".into(),
            volume: "data".into(),
        };
        metrics.usage().set(
            &of,
            &Fullness {
                bytes: Some([100, 40, 60]),
                inodes: None,
                abnormal: Some(true),
            },
        );
        let text = metrics.text().unwrap();
        for line in [
            "actor_volumes_volume_bytes{namespace=\"agents\",actor=\"a\",volume=\"data\",kind=\"used\"} 40",
            "actor_volumes_volume_abnormal{namespace=\"agents\",actor=\"a\",volume=\"data\"} 1",
        ] {
            assert!(text.contains(line), "{line} in\n{text}");
        }
        assert!(!text.contains("volume_inodes{"), "{text}");
        metrics.usage().forget(&of);
        let text = metrics.text().unwrap();
        assert!(!text.contains("data"), "{text}");
    }
}
