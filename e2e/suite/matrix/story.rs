// SPDX-License-Identifier: Apache-2.0
//! The story: who asks for nothing gets nothing, who has no right is refused, and an
//! actor finds in its second container what the first has written.

use std::fs;

use testkit::cri::Annotations;

use super::{Cell, Row, ground::Ground};
use crate::{
    cases::{SHARED, create},
    daemon::until_true,
    node::{Node, SOON},
    setup::{actor_volumes, setup},
};

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// All of it came true.
    Works,
    /// Nothing ran without its volume, and this was said.
    Refused(String),
    /// It could not begin, for this reason.
    Impossible(String),
}

/// Writes, and shows how the volume is mounted.
const WRITES: &str = "echo kept > /my-data/f && /bin/busybox cat /my-data/f && \
                      /bin/busybox grep ' /my-data ' /proc/self/mountinfo";

/// Whether a container of this runtime runs here at all, without anything of ours.
pub(super) fn can_be_told(node: &mut Node, row: Row, bare: &mut dyn Ground) -> Result<(), String> {
    bare.start(node, "bare", &Annotations::new(), "echo bare")
        .map_err(|e| {
            format!(
                "it runs nothing here, also without us: {}",
                reason(node, row, &e)
            )
        })?;
    assert_eq!(bare.said(node, "bare"), "bare");
    bare.end(node, "bare");
    Ok(())
}

/// Tells it. Panics where a container runs that should not, or otherwise than it should.
pub(super) fn tell(node: &mut Node, ground: &mut dyn Ground, cell: Cell) -> Outcome {
    let nothing = Annotations::new();
    let looks = "if [ -e /my-data ]; then echo something; else echo nothing; fi";
    let foreign = ground.start(node, "foreign", &nothing, looks);
    foreign.unwrap_or_else(|e| panic!("what asks for nothing is not made: {e}"));
    assert_eq!(ground.said(node, "foreign"), "nothing");
    assert_eq!(node.held_mounts(), [""; 0]);
    ground.end(node, "foreign");

    let actor = format!(
        "by-{}",
        cell.door.to_string().to_lowercase().replace(' ', "-")
    );
    create(node, &actor, SHARED);
    let annotations = ground.resume(node, &actor);
    let forged = ground.start(node, "forged", &forged(&annotations), WRITES);
    let forged = forged.expect_err("a grant that nobody has signed counts");
    released(node, "what was refused");

    if let Err(said) = ground.start(node, "one", &annotations, WRITES) {
        released(node, "what was refused");
        node.suspend(&actor);
        node.delete(&actor);
        let ours = said.contains("actor-volumes");
        assert!(ours, "{cell} fails without a word of ours: {said}");
        return Outcome::Refused(reason(node, cell.row, &said));
    }
    // Not every runtime hands on what a hook has said.
    let log = fs::read_to_string(node.log("serve")).expect("it is text");
    let told = format!("{forged}{log}");
    assert!(
        told.contains("the signature of the grant is refused"),
        "refused for another reason: {forged}"
    );
    let said = ground.said(node, "one");
    let (kept, mount) = said.split_once('\n').unwrap_or_else(|| panic!("{said}"));
    assert_eq!(kept, "kept");
    // In gVisor it is the sandbox's own mount.
    for flag in ["nosuid", "nodev"] {
        assert!(
            cell.row == super::RUNSC || mount.contains(flag),
            "{flag}: {mount}"
        );
    }
    assert_ne!(node.held_mounts(), [""; 0], "its volume is not one of ours");
    ground.end(node, "one");
    released(node, "the first container");

    let two = ground.start(node, "two", &annotations, "/bin/busybox cat /my-data/f");
    two.unwrap_or_else(|e| panic!("the second container is not made: {e}"));
    assert_eq!(ground.said(node, "two"), "kept");
    ground.end(node, "two");
    released(node, "the second container");
    node.suspend(&actor);
    node.delete(&actor);
    assert_eq!(node.held(), [""; 0]);
    Outcome::Works
}

/// A grant for another place than the one that was signed.
fn forged(annotations: &Annotations) -> Annotations {
    let mut forged = annotations.clone();
    let attachments = forged.get_mut("actor-volumes.dev/attachments");
    let attachments = attachments.expect("every grant has them");
    let other = attachments.replace("/my-data", "/my-dat0");
    assert_ne!(*attachments, other);
    *attachments = other;
    forged
}

/// Waits until nothing is mounted for a volume any more.
fn released(node: &Node, what: &str) {
    until_true(&format!("the volume of {what} is released"), SOON, || {
        node.held_mounts().is_empty()
    });
}

/// What was said, without what is different in every run.
fn reason(node: &Node, row: Row, said: &str) -> String {
    // Some runtimes log in JSON, or quote what they hand on.
    let said = said.replace("\\n", "\n").replace("\\\"", "\"");
    let lines = said.lines().map(str::trim).filter(|l| !l.is_empty());
    let ours = lines.clone().find(|l| l.contains("actor-volumes: "));
    let line = ours.or_else(|| lines.clone().next_back());
    let line = line.unwrap_or_default();
    let of_runtime = [
        "OCI runtime create failed: ",
        "OCI runtime start failed: ",
        " msg=",
    ];
    let behind = |word: &&str| line.find(*word).map(|at| at + word.len());
    let from = line
        .find("actor-volumes: ")
        .or_else(|| of_runtime.iter().find_map(behind));
    let line = line[from.unwrap_or_default()..].trim_matches('"');
    let programs = actor_volumes();
    let program = programs.get_program().to_string_lossy();
    let line = line.replace(&*program, "actor-volumes").replace('|', "/");
    let of_tool = setup().tool(row.tool).expect("the case needs it");
    let line = line.replace(&format!("{}/", of_tool.display()), "");
    let mut line = line.replace(&node.dir.display().to_string(), "…");
    if let Some((before, after)) = line.split_once("(process ") {
        let after = after.split_once(')').map_or("", |(_, after)| after);
        line = format!("{}{after}", before.trim_end());
    }
    let line = line.split(" is not made: ").last().unwrap_or(&line);
    let line = without_ids(line.trim_start_matches("actor-volumes: "));
    assert!(line.len() < 700, "too long for a table: {line}");
    line
}

/// Without what is a long hexadecimal number.
fn without_ids(text: &str) -> String {
    let parts = text.split_inclusive(|c: char| !c.is_ascii_hexdigit());
    let shown = |part: &str| {
        let digits = part.trim_end_matches(|c: char| !c.is_ascii_hexdigit());
        match digits.len() {
            0..16 => part.to_owned(),
            _ => part.replace(digits, "…"),
        }
    };
    parts.map(shown).collect()
}
