// SPDX-License-Identifier: Apache-2.0
//! What each request is to the door that it comes in by.

use crate::transport::Kind;

/// The kind of a request, by its path.
pub fn kind_of(path: &str) -> Kind {
    let Some(path) = path.strip_prefix("/actorvolumes.v1.") else {
        return Kind::Other;
    };
    match path {
        "Nodes/Connect" => Kind::Line,
        "Control/WatchActors" => Kind::Watches,
        "Control/SuspendActor"
        | "Control/CrashActor"
        | "Control/DeleteActor"
        | "NodeAdmin/FenceNode" => Kind::Frees,
        _ if path.starts_with("Agent/") => Kind::Asks,
        _ => Kind::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every path that has a kind of its own is one of the contract.
    #[test]
    fn kinds_are_of_paths_that_exist() {
        let protos = [
            include_str!("../../proto/actorvolumes/v1/actorvolumes.proto"),
            include_str!("../../proto/actorvolumes/v1/agent.proto"),
            include_str!("../../proto/actorvolumes/v1/nodes.proto"),
        ];
        let mut kinds = std::collections::BTreeMap::new();
        for proto in protos {
            let mut service = "";
            for line in proto.lines() {
                let words: Vec<&str> = line.split([' ', '(']).filter(|w| !w.is_empty()).collect();
                match words[..] {
                    ["service", name, ..] => service = name,
                    ["rpc", name, ..] => {
                        let path = format!("/actorvolumes.v1.{service}/{name}");
                        let kind = kind_of(&path);
                        let streams = line.contains("(stream") || line.contains("returns (stream");
                        let of_stream = matches!(kind, Kind::Watches | Kind::Line);
                        assert_eq!(streams, of_stream, "{path}");
                        *kinds.entry(kind).or_insert(0) += 1;
                    }
                    _ => {}
                }
            }
        }
        assert_eq!(kinds[&Kind::Frees], 4);
        assert_eq!(kinds[&Kind::Asks], 5);
        assert_eq!((kinds[&Kind::Watches], kinds[&Kind::Line]), (1, 1));
        assert_eq!(kind_of("/csi.v1.Node/NodeStageVolume"), Kind::Other);
    }
}
