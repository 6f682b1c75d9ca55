// SPDX-License-Identifier: Apache-2.0
//! Every way to a volume, with every OCI runtime, in every place where containers are
//! made: one story for all. What comes of it is what docs/compatibility.md says.

mod bundle;
mod cri;
mod ctr;
mod ground;
mod story;
pub(crate) mod table;

use std::{fmt, process::Command};

use crate::{
    Case,
    driver::Driver,
    node::{Node, Runtime},
    setup::setup,
};
use story::Outcome;

/// An OCI runtime: the tool, and what it is called in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Row {
    tool: &'static str,
    name: &'static str,
}

const RUNC: Row = Row {
    tool: "runc",
    name: "runc 1.1",
};
const RUNC_1_5: Row = Row {
    tool: "runc-1.5",
    name: "runc 1.5",
};
const CRUN: Row = Row {
    tool: "crun",
    name: "crun 1.8",
};
const CRUN_1_21: Row = Row {
    tool: "crun-1.21",
    name: "crun 1.21",
};
const YOUKI: Row = Row {
    tool: "youki",
    name: "youki",
};
const RUNSC: Row = Row {
    tool: "runsc",
    name: "runsc",
};

/// How a container comes to its volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Door {
    Nri,
    Hook,
    Wrapper,
    Inject,
}

impl Door {
    const ALL: [Self; 4] = [Self::Nri, Self::Hook, Self::Wrapper, Self::Inject];
}

impl fmt::Display for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nri => "NRI",
            Self::Hook => "hook",
            Self::Wrapper => "wrapper",
            Self::Inject => "bundle inject",
        })
    }
}

/// Who makes the bundle and starts the runtime.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    Cri,
    Ctr,
    Bundle,
    /// The container has users of its own.
    Users,
    /// The runtime itself has a user namespace of its own, as without root.
    Rootless,
}

impl Place {
    const ALL: [Self; 5] = [
        Self::Cri,
        Self::Ctr,
        Self::Bundle,
        Self::Users,
        Self::Rootless,
    ];
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cri => "containerd, CRI",
            Self::Ctr => "containerd, `ctr run`",
            Self::Bundle => "plain bundle",
            Self::Users => "plain bundle with a user namespace",
            Self::Rootless => "plain bundle, the runtime in a user namespace of root",
        })
    }
}

/// One square of the table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cell {
    place: Place,
    row: Row,
    door: Door,
}

/// All runtimes, in the table's order.
const ROWS: [Row; 6] = [RUNC, RUNC_1_5, CRUN, CRUN_1_21, YOUKI, RUNSC];

/// Why there is no such way in a place.
fn no_way(place: Place, row: Row, door: Door) -> Option<&'static str> {
    match (place, door) {
        (Place::Cri | Place::Ctr, Door::Inject) => {
            Some("containerd makes the bundle and starts the runtime in it at once")
        }
        // Which nothing ends, so it is not tried in every run.
        (Place::Cri, _) if row == RUNSC => {
            Some("by containerd's own shim its start hangs; gVisor's shim was not tried")
        }
        (Place::Ctr, Door::Nri) => Some("containerd asks NRI about containers of its CRI alone"),
        (Place::Bundle | Place::Users | Place::Rootless, Door::Nri) => Some("nobody asks NRI"),
        _ => None,
    }
}

pub(crate) fn cases() -> Vec<Case> {
    let case = |name: &str, row: Row, run: fn(&mut Node)| {
        Case::new(&format!("matrix::{name}"), Driver::Local, run).needing(row.tool)
    };
    let on_bundles =
        |name: &str, row, run: fn(&mut Node)| case(name, row, run).knowing(Runtime::Unknown);
    let by_ctr = |name: &str, row: Row, run: fn(&mut Node)| {
        on_bundles(name, row, run).with_runc(row.tool).guarded()
    };
    // A story's steps are a function without surroundings.
    macro_rules! bundles {
        ($name:literal, $row:ident) => {
            [
                on_bundles(concat!("bundle_", $name), $row, |n| {
                    bundle::cells(n, $row, Place::Bundle)
                }),
                by_ctr(concat!("ctr_", $name), $row, |n| ctr::cells(n, $row)),
            ]
        };
    }
    // A node's containerd has one runtime, and one way to it.
    macro_rules! pods {
        ($name:literal, $row:ident) => {{
            let case = |door: &str, run: fn(&mut Node)| {
                case(&format!("cri_{}_{door}", $name), $row, run).with_runc($row.tool)
            };
            [
                case("nri", |n| cri::cell(n, $row, Door::Nri)),
                case("hook", |n| cri::cell(n, $row, Door::Hook))
                    .knowing(Runtime::Cri)
                    .hooked(),
                case("wrapper", |n| cri::cell(n, $row, Door::Wrapper))
                    .knowing(Runtime::Cri)
                    .guarded(),
            ]
        }};
    }
    let mut all = [
        bundles!("runc", RUNC),
        bundles!("runc_1_5", RUNC_1_5),
        bundles!("crun", CRUN),
        bundles!("crun_1_21", CRUN_1_21),
        bundles!("youki", YOUKI),
        bundles!("runsc", RUNSC),
    ]
    .concat();
    all.extend(pods!("runc", RUNC));
    all.extend(pods!("runc_1_5", RUNC_1_5));
    all.extend(pods!("crun", CRUN));
    all.extend(pods!("crun_1_21", CRUN_1_21));
    all.extend(pods!("youki", YOUKI));
    let users = |name: &str, row, run| on_bundles(&format!("users_{name}"), row, run);
    all.extend([
        users("runc", RUNC, |n| bundle::cells(n, RUNC, Place::Users)),
        users("runc_1_5", RUNC_1_5, |n| {
            bundle::cells(n, RUNC_1_5, Place::Users)
        }),
        users("crun_1_21", CRUN_1_21, |n| {
            bundle::cells(n, CRUN_1_21, Place::Users)
        }),
        users("youki", YOUKI, |n| bundle::cells(n, YOUKI, Place::Users)),
        on_bundles("rootless_runc_1_5", RUNC_1_5, |n| {
            bundle::cells(n, RUNC_1_5, Place::Rootless);
        }),
    ]);
    all
}

/// Keeps what runs here, and the cells of a place that have no story.
fn begin(node: &Node, place: Place, row: Row) {
    table::versions(row, version(row, node), node.version());
    // It has no case of its own.
    if (place, row) == (Place::Ctr, RUNSC) {
        begin(node, Place::Cri, row);
    }
    for door in Door::ALL {
        if let Some(why) = no_way(place, row, door) {
            let cell = Cell { place, row, door };
            table::cell(cell, Outcome::Impossible(why.to_owned()));
        }
    }
}

/// What the runtime says of its version.
fn version(row: Row, node: &Node) -> String {
    let program = setup().runtime(row.tool, &node.dir);
    let program = program.expect("the case needs it");
    let output = Command::new(program).arg("--version").output();
    let text = output.map(|o| o.stdout).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let first = text.lines().next().unwrap_or_default();
    first.replace(" version", "").replace(':', "")
}
