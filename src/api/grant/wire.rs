// SPDX-License-Identifier: Apache-2.0
//! A grant as JSON, read strictly: nothing unknown, nothing twice, no arrays in
//! the place of objects. No message quotes a context.

use std::{collections::BTreeMap, fmt, marker::PhantomData};

use jiff::Timestamp;
use serde::{
    Deserialize, Deserializer,
    de::{
        DeserializeOwned, Error as _, IntoDeserializer, MapAccess, Visitor,
        value::MapAccessDeserializer,
    },
};

use super::check;
use crate::{
    error::{Error, Result},
    model::{
        AccessMode, ActorUid, Audience, DnsLabel, DriverName, Generation, Grant, GrantActor,
        GrantDevice, GrantMount, GrantVolume, NodeName, SecretRef, SecretRefs, SecretUse, SubPath,
        VolumeMode, VolumeUid,
    },
};

/// Reads and checks a grant.
pub fn parse(json: &str) -> Result<Grant> {
    let wire: Object<WireGrant> = serde_json::from_str(json)
        .map_err(|e| Error::invalid(format!("cannot read it as JSON of a grant: {e}")))?;
    let grant = wire.0.into_grant()?;
    check(&grant)?;
    Ok(grant)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WireGrant {
    version: u32,
    actor: Object<WireActor>,
    node: NodeName,
    audience: Object<WireAudience>,
    not_after: Option<String>,
    #[serde(default)]
    self_contained: bool,
    volumes: Vec<Object<WireVolume>>,
    mounts: Vec<Object<WireMount>>,
    #[serde(default)]
    devices: Vec<Object<WireDevice>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WireActor {
    namespace: DnsLabel,
    name: DnsLabel,
    uid: ActorUid,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WireAudience {
    kind: String,
    namespace: Option<DnsLabel>,
    pod: Option<String>,
    node: Option<NodeName>,
    container: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WireVolume {
    name: DnsLabel,
    uid: VolumeUid,
    generation: u64,
    driver: DriverName,
    volume_id: String,
    #[serde(default, deserialize_with = "word")]
    volume_mode: VolumeMode,
    #[serde(default)]
    fs_type: String,
    #[serde(deserialize_with = "word")]
    access_mode: AccessMode,
    #[serde(default)]
    mount_flags: Vec<Hidden>,
    #[serde(default)]
    mount_group: String,
    #[serde(default)]
    secret_refs: TextMap,
    #[serde(default)]
    volume_context: TextMap,
    #[serde(default)]
    publish_context: TextMap,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WireMount {
    container: Option<DnsLabel>,
    volume: DnsLabel,
    mount_path: String,
    #[serde(default)]
    read_only: bool,
    #[serde(default, deserialize_with = "sub_path")]
    sub_path: Option<SubPath>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WireDevice {
    container: Option<DnsLabel>,
    volume: DnsLabel,
    device_path: String,
}

impl WireGrant {
    fn into_grant(self) -> Result<Grant> {
        let not_after = self.not_after.map(|text| time(&text)).transpose()?;
        let actor = self.actor.0;
        Ok(Grant {
            version: self.version,
            actor: GrantActor {
                namespace: actor.namespace,
                name: actor.name,
                uid: actor.uid,
            },
            node: self.node,
            audience: self.audience.0.into_audience()?,
            not_after,
            self_contained: self.self_contained,
            volumes: self
                .volumes
                .into_iter()
                .enumerate()
                .map(|(index, v)| {
                    v.0.into_volume()
                        .map_err(|e| e.context(format_args!("volumes[{index}]")))
                })
                .collect::<Result<_>>()?,
            mounts: self.mounts.into_iter().map(|m| m.0.into()).collect(),
            devices: self.devices.into_iter().map(|d| d.0.into()).collect(),
        })
    }
}

/// A time as RFC 3339 writes it.
fn time(text: &str) -> Result<Timestamp> {
    text.parse().map_err(|_| {
        Error::invalid(
            "notAfter must be a time as RFC 3339 writes it, such as 2030-01-31T12:00:00Z",
        )
    })
}

impl WireAudience {
    fn into_audience(self) -> Result<Audience> {
        let kind = self.kind.clone();
        match (kind.as_str(), self) {
            (
                "pod",
                Self {
                    namespace: Some(namespace),
                    pod,
                    node: None,
                    container: None,
                    ..
                },
            ) => Ok(Audience::Pod { namespace, pod }),
            (
                "host",
                Self {
                    node: Some(node),
                    container,
                    namespace: None,
                    pod: None,
                    ..
                },
            ) => Ok(Audience::Host { node, container }),
            ("pod", _) => Err(Error::invalid(
                "audience of kind pod has a namespace, maybe a pod, and nothing else",
            )),
            ("host", _) => Err(Error::invalid(
                "audience of kind host has a node, maybe a container, and nothing else",
            )),
            (other, _) => Err(Error::invalid(format!(
                "audience.kind {other:?} is not known: it must be pod or host"
            ))),
        }
    }
}

impl WireVolume {
    fn into_volume(self) -> Result<GrantVolume> {
        let wire = self;
        Ok(GrantVolume {
            name: wire.name,
            uid: wire.uid,
            generation: Generation(wire.generation),
            driver: wire.driver,
            volume_id: wire.volume_id,
            volume_mode: wire.volume_mode,
            fs_type: wire.fs_type,
            access_mode: wire.access_mode,
            mount_flags: wire.mount_flags.into_iter().map(|f| f.0).collect(),
            mount_group: wire.mount_group,
            secret_refs: secret_refs(&wire.secret_refs.0)?,
            volume_context: wire.volume_context.0,
            publish_context: wire.publish_context.0,
        })
    }
}

fn secret_refs(texts: &BTreeMap<String, String>) -> Result<SecretRefs> {
    let mut refs = SecretRefs::new();
    for (key, secret) in texts {
        let known = SecretUse::ALL
            .into_iter()
            .find(|u| u.is_of_node() && u.as_camel_case() == key);
        let Some(use_) = known else {
            return Err(Error::invalid(format!(
                "secretRefs: {key:?} is not known: use nodeStage, nodePublish or nodeExpand"
            )));
        };
        let secret = secret
            .parse::<SecretRef>()
            .map_err(|e| e.context(format_args!("secretRefs.{key}")))?;
        refs.insert(use_, secret);
    }
    Ok(refs)
}

impl From<WireMount> for GrantMount {
    fn from(wire: WireMount) -> Self {
        Self {
            container: wire.container,
            volume: wire.volume,
            mount_path: wire.mount_path,
            read_only: wire.read_only,
            sub_path: wire.sub_path,
        }
    }
}

impl From<WireDevice> for GrantDevice {
    fn from(wire: WireDevice) -> Self {
        Self {
            container: wire.container,
            volume: wire.volume,
            device_path: wire.device_path,
        }
    }
}

/// An object only: a derived struct would take an array of its fields too.
struct Object<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ObjectVisitor<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
            type Value = Object<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Object<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Object)
            }
        }
        deserializer.deserialize_map(ObjectVisitor(PhantomData))
    }
}

/// A map of texts with each key once.
#[derive(Default)]
struct TextMap(BTreeMap<String, String>);

impl<'de> Deserialize<'de> for TextMap {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextMapVisitor;
        impl<'de> Visitor<'de> for TextMapVisitor {
            type Value = TextMap;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of strings")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<TextMap, A::Error> {
                let mut texts = BTreeMap::new();
                while let Some(key) = map.next_key::<String>()? {
                    let value: Hidden = map.next_value()?;
                    if texts.insert(key, value.0).is_some() {
                        return Err(A::Error::custom("a key is there twice in an object"));
                    }
                }
                Ok(TextMap(texts))
            }
        }
        deserializer.deserialize_map(TextMapVisitor)
    }
}

/// Text that may be sensitive: the parser's own message would quote what it
/// found in its place.
struct Hidden(String);

impl<'de> Deserialize<'de> for Hidden {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)
            .map(Hidden)
            .map_err(|_| D::Error::custom("expected a string"))
    }
}

/// No text is the whole volume.
fn sub_path<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SubPath>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let parsed = (!text.is_empty()).then(|| text.parse()).transpose();
    parsed.map_err(|e: Error| D::Error::custom(format_args!("subPath: {e}")))
}

/// A word of an enumeration, as a string and in no other form.
fn word<'de, D: Deserializer<'de>, T: DeserializeOwned>(deserializer: D) -> Result<T, D::Error> {
    let text = String::deserialize(deserializer)?;
    T::deserialize(text.into_deserializer())
}
