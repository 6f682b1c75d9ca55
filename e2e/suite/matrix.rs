// SPDX-License-Identifier: Apache-2.0
//! Every way to a volume, with every OCI runtime, in every place where containers are
//! made: one story for all. What comes of it is what docs/compatibility.md says.

mod bundle;
mod cri;
mod ctr;
mod ground;
mod story;
pub(crate) mod table;
mod users;

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
    name: "crun",
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
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cri => "containerd, CRI",
            Self::Ctr => "containerd, `ctr run`",
            Self::Bundle => "plain bundle",
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
const ROWS: [Row; 5] = [RUNC, RUNC_1_5, CRUN, YOUKI, RUNSC];

/// Why there is no such way in a place, whatever the runtime.
fn no_way(place: Place, door: Door) -> Option<&'static str> {
    match (place, door) {
        (Place::Cri | Place::Ctr, Door::Inject) => {
            Some("containerd makes the bundle and starts the runtime in it at once")
        }
        (Place::Ctr, Door::Nri) => Some("containerd asks NRI about containers of its CRI alone"),
        (Place::Bundle, Door::Nri) => Some("nobody asks NRI"),
        _ => None,
    }
}

pub(crate) fn cases() -> Vec<Case> {
    let case = |name: &str, row: Row, run| {
        Case::new(&format!("matrix::{name}"), Driver::Local, run).needing(row.tool)
    };
    let on_bundles = |name, row, run| case(name, row, run).knowing(Runtime::Unknown);
    let by_ctr = |name, row: Row, run| on_bundles(name, row, run).with_runc(row.tool);
    let mut all = vec![
        on_bundles("bundle_runc", RUNC, |n| bundle::cells(n, RUNC)),
        on_bundles("bundle_runc_1_5", RUNC_1_5, |n| bundle::cells(n, RUNC_1_5)),
        on_bundles("bundle_crun", CRUN, |n| bundle::cells(n, CRUN)),
        on_bundles("bundle_youki", YOUKI, |n| bundle::cells(n, YOUKI)),
        on_bundles("bundle_runsc", RUNSC, |n| bundle::cells(n, RUNSC)),
        by_ctr("ctr_runc", RUNC, |n| ctr::cells(n, RUNC)).guarded(),
        by_ctr("ctr_runc_1_5", RUNC_1_5, |n| ctr::cells(n, RUNC_1_5)).guarded(),
        by_ctr("ctr_crun", CRUN, |n| ctr::cells(n, CRUN)).guarded(),
        by_ctr("ctr_youki", YOUKI, |n| ctr::cells(n, YOUKI)).guarded(),
        by_ctr("ctr_runsc", RUNSC, |n| ctr::cells(n, RUNSC)).guarded(),
    ];
    // A node's containerd has one runtime and one way to it.
    type Run = fn(&mut Node);
    let pods: [(&str, Row, [Run; 3]); 5] = [
        (
            "runc",
            RUNC,
            [
                |n| cri::cell(n, RUNC, Door::Nri),
                |n| cri::cell(n, RUNC, Door::Hook),
                |n| cri::cell(n, RUNC, Door::Wrapper),
            ],
        ),
        (
            "runc_1_5",
            RUNC_1_5,
            [
                |n| cri::cell(n, RUNC_1_5, Door::Nri),
                |n| cri::cell(n, RUNC_1_5, Door::Hook),
                |n| cri::cell(n, RUNC_1_5, Door::Wrapper),
            ],
        ),
        (
            "crun",
            CRUN,
            [
                |n| cri::cell(n, CRUN, Door::Nri),
                |n| cri::cell(n, CRUN, Door::Hook),
                |n| cri::cell(n, CRUN, Door::Wrapper),
            ],
        ),
        (
            "youki",
            YOUKI,
            [
                |n| cri::cell(n, YOUKI, Door::Nri),
                |n| cri::cell(n, YOUKI, Door::Hook),
                |n| cri::cell(n, YOUKI, Door::Wrapper),
            ],
        ),
        (
            "runsc",
            RUNSC,
            [
                |n| cri::cell(n, RUNSC, Door::Nri),
                |n| cri::cell(n, RUNSC, Door::Hook),
                |n| cri::cell(n, RUNSC, Door::Wrapper),
            ],
        ),
    ];
    for (name, row, [nri, hook, wrapper]) in pods {
        let case =
            |door: &str, run| case(&format!("cri_{name}_{door}"), row, run).with_runc(row.tool);
        all.push(case("nri", nri));
        all.push(case("hook", hook).knowing(Runtime::Cri).hooked());
        all.push(case("wrapper", wrapper).knowing(Runtime::Cri).guarded());
    }
    all.extend(users::cases());
    all
}

/// Keeps what runs here, and the cells of a place that have no story.
fn begin(node: &Node, place: Place, row: Row) {
    table::versions(row, version(row, node), node.version());
    for door in Door::ALL {
        if let Some(why) = no_way(place, door) {
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
