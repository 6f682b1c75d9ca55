// SPDX-License-Identifier: Apache-2.0
//! The fault-injecting CSI driver as a process of its own.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::ExitCode,
    str::FromStr,
};

use actor_volumes_testkit::csi::{
    Backend, Chaos, Cleanup, CsiDriver, Expansion, Files, Options, serve_fuse,
};
use tokio::signal::unix::{SignalKind, signal};

const USAGE: &str = "\
usage: testkit-csi --root DIR (--socket PATH | --controller PATH --node ID=PATH…) [OPTION…]
       testkit-csi serve-fuse DIR MOUNTPOINT     show DIR there until it is unmounted

  --socket PATH             one socket for all three services
  --controller PATH         a controller's socket, and one for each …
  --node ID=PATH            … node, over one backend; may be repeated
  --root DIR                the files of volumes, and what the driver knows
  --backend KIND            bind (default), loop, fuse, or memory, which needs no --root

  --name NAME               of GetPluginInfo
  --node-id ID              of NodeGetInfo, with --socket (default: node-a)
  --no-stage                without STAGE_UNSTAGE_VOLUME
  --attach                  PUBLISH_UNPUBLISH_VOLUME
  --no-single-node-modes    without SINGLE_NODE_MULTI_WRITER
  --publish-readonly        PUBLISH_READONLY
  --expand online|offline   EXPAND_VOLUME of both services
  --no-node-expand          … of the controller alone
  --stats                   GET_VOLUME_STATS
  --condition               VOLUME_CONDITION
  --mount-group             VOLUME_MOUNT_GROUP
  --list                    LIST_VOLUMES
  --list-nodes              LIST_VOLUMES_PUBLISHED_NODES, and --list
  --clone                   CLONE_VOLUME
  --topology ID:KEY=VALUE   VOLUME_ACCESSIBILITY_CONSTRAINTS: a segment of that node
  --max-volumes N           max_volumes_per_node
  --secret KIND:KEY=VALUE   what calls of that kind must carry: provisioner,
                            controller_publish, node_stage, node_publish,
                            controller_expand, node_expand
  --overlap-across-nodes    calls on one volume may be in flight at several nodes

  --capacity BYTES          of every new volume, whatever was asked for
  --ignore-content-source   clones are empty, and CreateVolume does not say so
  --wrong-topology KEY=VALUE  CreateVolume answers it, whatever was required
  --publish-context-bytes N more in publish_context
  --id-bytes N              the least length of volume ids
  --chaos SEED:PERCENT      faults at random in so many of a hundred calls

  --control FILE            faults, see testkit's csi::Control; read at each call
  --log FILE                every call, one JSON object a line
  --violations FILE         every rule that the caller broke, likewise
  --cleanup                 at SIGTERM and SIGINT, take away all mounts, loop
                            devices and FUSE servers; otherwise they stay
The files are, unless told otherwise, csi-control.json, csi-calls.jsonl and
csi-violations.jsonl beside the root.";

/// What the command line asks for.
struct Arguments {
    /// The only socket, or the controller's.
    socket: PathBuf,
    nodes: Vec<(String, PathBuf)>,
    options: Options,
    chaos: Option<Chaos>,
    cleanup: bool,
}

fn pair(text: &str, by: char) -> Result<(String, String), String> {
    let (left, right) = text
        .split_once(by)
        .ok_or_else(|| format!("{text:?} has no {by:?}"))?;
    Ok((left.into(), right.into()))
}

fn number<T: FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("{text:?} is no number"))
}

fn read(mut words: impl Iterator<Item = String>) -> Result<Arguments, String> {
    let (mut socket, mut controller, mut nodes) = (None, None, Vec::new());
    let (mut root, mut backend) = (None, "bind".to_owned());
    let (mut chaos, mut cleanup) = (None, false);
    let mut files = Files::default();
    let mut options = Options::new(Backend::Memory);
    while let Some(flag) = words.next() {
        let mut value = || words.next().ok_or(format!("{flag} needs a value"));
        match flag.as_str() {
            "--socket" => socket = Some(PathBuf::from(value()?)),
            "--controller" => controller = Some(PathBuf::from(value()?)),
            "--node" => {
                let (node, path) = pair(&value()?, '=')?;
                nodes.push((node, path.into()));
            }
            "--root" => root = Some(PathBuf::from(value()?)),
            "--backend" => backend = value()?,
            "--name" => options.name = value()?,
            "--node-id" => options.node_id = value()?,
            "--no-stage" => options.stage = false,
            "--attach" => options.attach = true,
            "--no-single-node-modes" => {
                options.controller_single_node_modes = false;
                options.node_single_node_modes = false;
            }
            "--publish-readonly" => options.publish_readonly = true,
            "--expand" => {
                options.expand_controller = true;
                options.expand_node = true;
                options.expansion = Some(match value()?.as_str() {
                    "online" => Expansion::Online,
                    "offline" => Expansion::Offline,
                    other => return Err(format!("{other:?} is neither online nor offline")),
                });
            }
            "--no-node-expand" => options.expand_node = false,
            "--stats" => options.stats = true,
            "--condition" => options.condition = true,
            "--mount-group" => options.mount_group = true,
            "--list" => options.list = true,
            "--list-nodes" => (options.list, options.list_nodes) = (true, true),
            "--clone" => options.clone_volume = true,
            "--topology" => {
                let (node, segment) = pair(&value()?, ':')?;
                let (key, value) = pair(&segment, '=')?;
                let segments = options.topologies.entry(node).or_default();
                segments.insert(key, value);
            }
            "--max-volumes" => options.max_volumes_per_node = number(&value()?)?,
            "--secret" => {
                let (kind, secret) = pair(&value()?, ':')?;
                let (key, value) = pair(&secret, '=')?;
                secrets(&mut options, &kind)?.insert(key, value);
            }
            "--overlap-across-nodes" => options.overlap_across_nodes = true,
            "--capacity" => options.capacity = Some(number(&value()?)?),
            "--ignore-content-source" => options.ignore_content_source = true,
            "--wrong-topology" => {
                let segment = pair(&value()?, '=')?;
                options.wrong_topology = Some([segment].into());
            }
            "--publish-context-bytes" => options.publish_context_bytes = number(&value()?)?,
            "--id-bytes" => options.id_bytes = number(&value()?)?,
            "--chaos" => {
                let (seed, percent) = pair(&value()?, ':')?;
                chaos = Some(Chaos {
                    seed: number(&seed)?,
                    percent: number(&percent)?,
                });
            }
            "--control" => files.control = Some(value()?.into()),
            "--log" => files.calls = Some(value()?.into()),
            "--violations" => files.violations = Some(value()?.into()),
            "--cleanup" => cleanup = true,
            other => return Err(format!("unknown argument {other}")),
        }
    }
    let socket = match (socket, controller) {
        (Some(socket), None) if nodes.is_empty() => socket,
        (None, Some(controller)) if !nodes.is_empty() => controller,
        _ => return Err("it takes either --socket, or --controller and --node".into()),
    };
    let beside = |name| root.as_ref().map(|root| root.with_file_name(name));
    options.files = Files {
        control: files.control.or_else(|| beside("csi-control.json")),
        calls: files.calls.or_else(|| beside("csi-calls.jsonl")),
        violations: files.violations.or_else(|| beside("csi-violations.jsonl")),
    };
    options.node_expansion_required = options.expand_node;
    options.backend = self::backend(&backend, root)?;
    Ok(Arguments {
        socket,
        nodes,
        options,
        chaos,
        cleanup,
    })
}

fn backend(kind: &str, root: Option<PathBuf>) -> Result<Backend, String> {
    if kind == "memory" {
        return Ok(Backend::Memory);
    }
    let root = root.ok_or("--root is missing")?;
    match kind {
        "bind" => Ok(Backend::Bind { root }),
        "loop" => Ok(Backend::Loop { root }),
        "fuse" => Ok(Backend::Fuse {
            root,
            server: std::env::current_exe().map_err(|e| e.to_string())?,
        }),
        other => Err(format!("there is no backend {other}")),
    }
}

fn secrets<'a>(
    options: &'a mut Options,
    kind: &str,
) -> Result<&'a mut BTreeMap<String, String>, String> {
    let secrets = &mut options.secrets;
    Ok(match kind {
        "provisioner" => &mut secrets.provisioner,
        "controller_publish" => &mut secrets.controller_publish,
        "node_stage" => &mut secrets.node_stage,
        "node_publish" => &mut secrets.node_publish,
        "controller_expand" => &mut secrets.controller_expand,
        "node_expand" => &mut secrets.node_expand,
        other => return Err(format!("no call carries secrets of {other}")),
    })
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let plain: Vec<&str> = words.iter().map(String::as_str).collect();
    match plain[..] {
        ["--help" | "-h"] => {
            println!("{USAGE}");
            ExitCode::SUCCESS
        }
        ["serve-fuse", data, at] => match serve_fuse(Path::new(data), Path::new(at)) {
            Ok(()) => ExitCode::SUCCESS,
            Err(e) => {
                eprintln!("cannot show {data} at {at}: {e}");
                ExitCode::FAILURE
            }
        },
        _ => match read(words.into_iter()) {
            Ok(arguments) => serve(arguments),
            Err(why) => {
                eprintln!("{why}\n{USAGE}");
                ExitCode::from(2)
            }
        },
    }
}

#[tokio::main(flavor = "current_thread")]
async fn serve(arguments: Arguments) -> ExitCode {
    let Arguments {
        socket,
        nodes,
        options,
        chaos,
        cleanup,
    } = arguments;
    let backend = options.backend.clone();
    let mut driver = if nodes.is_empty() {
        CsiDriver::start_with(&socket, options).await
    } else {
        CsiDriver::start_cluster_at(&socket, options, nodes).await
    };
    if let Some(chaos) = chaos {
        driver.chaos(chaos);
    }
    let mut terminate = signal(SignalKind::terminate()).expect("signals can be heard");
    let mut interrupt = signal(SignalKind::interrupt()).expect("signals can be heard");
    println!("testkit-csi serves on {}", socket.display());
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    driver.stop().await;
    if cleanup && let Err(e) = Cleanup::new(&backend).now() {
        eprintln!("cannot clean up: {e}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
