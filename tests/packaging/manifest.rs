// SPDX-License-Identifier: Apache-2.0
//! Readers of what packaging/kubernetes has. Only what it uses is known; what is not
//! known is not passed over.

use serde_json::Value;

/// A container of the DaemonSet, with what it mounts.
pub(crate) struct Container {
    pub(crate) name: String,
    pub(crate) command: Vec<String>,
    /// Names and values; what the cluster fills in is `$`, and the path of the field.
    pub(crate) env: Vec<(String, String)>,
    pub(crate) privileged: bool,
    pub(crate) no_new_privileges: bool,
    pub(crate) read_only_root: bool,
    /// Added to none; without meaning for one that is privileged.
    pub(crate) capabilities: Vec<String>,
    pub(crate) seccomp: Option<String>,
    pub(crate) user: u64,
    pub(crate) mounts: Vec<Mount>,
}

/// One volume of a container.
pub(crate) struct Mount {
    pub(crate) source: Source,
    pub(crate) at: String,
    pub(crate) read_only: bool,
    /// As Kubernetes names it.
    pub(crate) propagation: String,
}

/// Where a volume comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    HostPath(String),
    ConfigMap(String),
    Secret(String),
}

/// All documents of the manifest.
pub(crate) fn documents(text: &str) -> Vec<Value> {
    let parts = text.split("\n---\n").skip(1);
    parts
        .map(|part| serde_saphyr::from_str(part).unwrap_or_else(|e| panic!("{e}: {part}")))
        .collect()
}

/// The one of this kind.
pub(crate) fn of_kind<'d>(documents: &'d [Value], kind: &str) -> &'d Value {
    let mut found = documents.iter().filter(|d| d["kind"] == kind);
    let one = found.next().unwrap_or_else(|| panic!("no {kind}"));
    assert!(found.next().is_none(), "more than one {kind}");
    one
}

/// The containers of the DaemonSet.
pub(crate) fn containers(documents: &[Value]) -> Vec<Container> {
    let pod = &of_kind(documents, "DaemonSet")["spec"]["template"]["spec"];
    let sources = list(&pod["volumes"]).iter().map(|v| {
        let of = |kind: &str, key: &str| v[kind][key].as_str().map(str::to_owned);
        let host_path = of("hostPath", "path").map(Source::HostPath);
        let config_map = of("configMap", "name").map(Source::ConfigMap);
        let secret = of("secret", "secretName").map(Source::Secret);
        let source = host_path.or(config_map).or(secret);
        let source = source.unwrap_or_else(|| panic!("a volume of another kind: {v}"));
        (text(&v["name"]), source)
    });
    let sources: Vec<_> = sources.collect();
    let of = |name: String| {
        let found = sources.iter().find(|(n, _)| *n == name);
        found
            .unwrap_or_else(|| panic!("no volume {name}"))
            .1
            .clone()
    };
    let mount = |m: &Value| Mount {
        source: of(text(&m["name"])),
        at: text(&m["mountPath"]),
        read_only: m["readOnly"] == true,
        propagation: m["mountPropagation"].as_str().unwrap_or("None").to_owned(),
    };
    let container = |c: &Value| {
        let security = &c["securityContext"];
        let capabilities = &security["capabilities"];
        let privileged = security["privileged"] == true;
        assert!(
            privileged || capabilities["drop"] == serde_json::json!(["ALL"]),
            "{c}: what is not dropped would be kept"
        );
        Container {
            name: text(&c["name"]),
            command: [texts(&c["command"]), texts(&c["args"])].concat(),
            env: list(&c["env"]).iter().map(variable).collect(),
            privileged,
            no_new_privileges: security["allowPrivilegeEscalation"] == false,
            read_only_root: security["readOnlyRootFilesystem"] == true,
            capabilities: texts(&capabilities["add"]),
            seccomp: security["seccompProfile"]["type"]
                .as_str()
                .map(str::to_owned),
            user: security["runAsUser"].as_u64().expect("a user is named"),
            mounts: list(&c["volumeMounts"]).iter().map(mount).collect(),
        }
    };
    list(&pod["containers"]).iter().map(container).collect()
}

fn variable(v: &Value) -> (String, String) {
    let field = text(&v["valueFrom"]["fieldRef"]["fieldPath"]);
    (text(&v["name"]), format!("${field}"))
}

fn list(value: &Value) -> &[Value] {
    match value {
        Value::Null => &[],
        Value::Array(values) => values,
        other => panic!("no list: {other}"),
    }
}

fn text(value: &Value) -> String {
    let text = value.as_str().unwrap_or_else(|| panic!("no text: {value}"));
    text.to_owned()
}

fn texts(value: &Value) -> Vec<String> {
    list(value).iter().map(text).collect()
}
