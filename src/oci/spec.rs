// SPDX-License-Identifier: Apache-2.0
//! What of a bundle's config.json has to do with volumes. Whatever else is in it
//! is the runtime's, in whichever version of the specification.

use std::{
    collections::BTreeMap,
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Deserializer};

use crate::{
    delivery::{Spec, SpecDevice, SpecMount},
    error::{Error, Result},
};

/// Of containerd's CRI.
pub(super) const CONTAINER_NAME: &str = "io.kubernetes.cri.container-name";

/// A config.json is some kilobytes, with a large environment some megabytes.
pub const MAX_CONFIG_BYTES: u64 = 16 << 20;

/// A container's config.json. Annotations have no Debug: they may hold contexts.
#[derive(Clone, Default)]
pub struct ContainerSpec {
    /// All annotations.
    pub annotations: BTreeMap<String, String>,
    /// Mounts and devices.
    pub spec: Spec,
    /// The root file system, as it stands there: below the bundle unless it is absolute.
    pub rootfs: PathBuf,
}

impl ContainerSpec {
    /// The container's name in its pod.
    pub fn name(&self) -> Option<&str> {
        self.annotations.get(CONTAINER_NAME).map(String::as_str)
    }
}

/// Reads `<bundle>/config.json`.
pub fn read(bundle: &Path) -> Result<ContainerSpec> {
    let path = bundle.join("config.json");
    let shown = path.display();
    let failed = |e: std::io::Error| Error::invalid(format!("cannot read {shown}")).with_source(e);
    let mut bytes = Vec::new();
    let file = File::open(&path).map_err(failed)?;
    // One byte more tells that there is more.
    file.take(MAX_CONFIG_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() as u64 > MAX_CONFIG_BYTES {
        return Err(Error::invalid(format!(
            "{shown} has more than {MAX_CONFIG_BYTES} bytes: it is not looked through for volumes, so the container is not made"
        )));
    }
    parse(&bytes).map_err(|e| e.context(&shown))
}

/// Reads it out of what a runtime tells of a container through the CRI, when it is
/// asked for all: ContainerStatus, verbose. None: the runtime does not tell it.
pub fn of_status(info: &str) -> Result<Option<ContainerSpec>> {
    #[derive(Deserialize)]
    struct Info {
        #[serde(rename = "runtimeSpec")]
        spec: Option<Raw>,
    }
    let info: Info = serde_json::from_str(info).map_err(|e| {
        Error::invalid("what the runtime tells of the container is not JSON").with_source(e)
    })?;
    Ok(info.spec.map(of_interest))
}

/// Reads the bytes of a config.json.
pub fn parse(bytes: &[u8]) -> Result<ContainerSpec> {
    let raw: Raw = serde_json::from_slice(bytes).map_err(|e| {
        Error::invalid("it is not the JSON of an OCI runtime specification").with_source(e)
    })?;
    Ok(of_interest(raw))
}

fn of_interest(raw: Raw) -> ContainerSpec {
    let linux = raw.linux;
    let mount = |m: RawMount| SpecMount {
        destination: m.destination,
        source: m.source,
        kind: m.kind,
        options: m.options,
    };
    let device = |d: RawDevice| SpecDevice {
        path: d.path,
        kind: d.kind,
        major: d.major,
        minor: d.minor,
    };
    ContainerSpec {
        annotations: raw.annotations,
        spec: Spec {
            mounts: raw.mounts.into_iter().map(mount).collect(),
            devices: linux.devices.into_iter().map(device).collect(),
        },
        rootfs: raw.root.path,
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Raw {
    #[serde(deserialize_with = "or_none")]
    annotations: BTreeMap<String, String>,
    #[serde(deserialize_with = "or_none")]
    mounts: Vec<RawMount>,
    #[serde(deserialize_with = "or_none")]
    linux: RawLinux,
    #[serde(deserialize_with = "or_none")]
    root: RawRoot,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawRoot {
    #[serde(deserialize_with = "or_none")]
    path: PathBuf,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawLinux {
    #[serde(deserialize_with = "or_none")]
    devices: Vec<RawDevice>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawMount {
    destination: String,
    #[serde(deserialize_with = "or_none")]
    source: PathBuf,
    #[serde(rename = "type", deserialize_with = "or_none")]
    kind: String,
    #[serde(deserialize_with = "or_none")]
    options: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawDevice {
    path: String,
    #[serde(rename = "type")]
    kind: String,
    major: i64,
    minor: i64,
}

/// Runtimes take null for nothing there.
pub(super) fn or_none<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_specification_is_found_in_what_a_runtime_tells() {
        let info = r#"{"sandboxID":"s","runtimeSpec":{"mounts":[{"destination":"/d","type":"bind","source":"/s"}],"linux":null}}"#;
        let found = of_status(info).unwrap().unwrap();
        assert_eq!(found.spec.mounts[0].source, Path::new("/s"));
        assert!(of_status("{}").unwrap().is_none());
        assert!(of_status("no JSON").is_err());
    }

    #[test]
    fn mounts_devices_and_annotations_are_read_whatever_stands_beside_them() {
        let text = br#"{"ociVersion":"9.9","root":{"path":"rootfs"},"annotations":{"a":"b"},
            "mounts":[{"destination":"/p","type":"proc","source":"proc","options":null},
                      {"destination":"/v","source":"/m/x","options":["rbind","ro"],"uidMappings":[]}],
            "linux":{"netDevices":{"eth0":{}},"devices":[{"path":"/dev/x","type":"b","major":7,"minor":1}]}}"#;
        let read = parse(text).unwrap();
        assert_eq!(read.annotations["a"], "b");
        assert_eq!(read.rootfs, Path::new("rootfs"));
        assert_eq!(read.spec.mounts.len(), 2);
        assert_eq!(read.spec.mounts[1].options, ["rbind", "ro"]);
        assert_eq!(read.spec.mounts[1].kind, "");
        assert_eq!(read.spec.devices[0].major, 7);
        let bare = parse(br#"{"mounts":null,"linux":null,"annotations":null}"#).unwrap();
        assert_eq!(bare.spec, Spec::default());
    }

    #[test]
    fn what_is_ambiguous_or_no_spec_is_refused() {
        for text in [
            r#"{"annotations":{},"annotations":{"a":"b"}}"#,
            r#"{"mounts":{}}"#,
            "",
        ] {
            assert!(parse(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn a_file_that_is_too_large_is_not_taken_in() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        let file = File::create(&path).unwrap();
        file.set_len(MAX_CONFIG_BYTES + 1).unwrap();
        let error = read(dir.path()).err().unwrap().full_message();
        assert!(error.contains("more than 16777216 bytes"), "{error}");
        std::fs::remove_file(path).unwrap();
        assert!(read(dir.path()).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&bytes);
        }
    }
}
