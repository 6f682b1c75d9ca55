// SPDX-License-Identifier: Apache-2.0
//! Containers that containerd makes without its CRI, by `ctr run`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::json;
use testkit::cri::Annotations;

use super::{
    Cell, Door, Place, Row, begin,
    bundle::{config, hooked, root},
    ground::{Ground, all_of},
    story::{self, Outcome},
    table,
};
use crate::{
    cases::prepare,
    daemon::until,
    node::{GUARD, Node, PATIENCE, SOON},
    setup::setup,
};

/// The cells of a runtime with `ctr run`.
pub(super) fn cells(node: &mut Node, row: Row) {
    prepare(node);
    let place = Place::Ctr;
    begin(node, place, row);
    let possible = story::can_be_told(node, row, &mut Ctr::new(node, row, None));
    for door in [Door::Hook, Door::Wrapper] {
        let cell = Cell { place, row, door };
        let outcome = match &possible {
            Err(why) => Outcome::Impossible(why.clone()),
            Ok(()) => {
                let mut containers = Ctr::new(node, row, Some(door));
                story::tell(node, &mut containers, cell)
            }
        };
        table::cell(cell, outcome);
    }
}

/// Containers of one runtime.
struct Ctr {
    row: Row,
    door: Option<Door>,
    dir: PathBuf,
    program: PathBuf,
    prefix: String,
}

impl Ctr {
    fn new(node: &Node, row: Row, door: Option<Door>) -> Self {
        let prefix = door.map_or("bare".to_owned(), |d| d.to_string());
        let dir = node.dir.join("ctr").join(&prefix);
        root(&dir.join("rootfs"), None);
        let real = setup().runtime(row.tool, &node.dir);
        let program = match door {
            Some(Door::Wrapper) => node.dir.join(GUARD),
            _ => real.expect("the case needs it"),
        };
        Self {
            row,
            door,
            dir,
            program,
            prefix,
        }
    }

    fn name(&self, id: &str) -> String {
        format!("{}-{id}", self.prefix)
    }

    fn out(&self, id: &str) -> PathBuf {
        self.dir.join(format!("{id}.out"))
    }

    fn hook_errors(&self) -> PathBuf {
        self.dir.join("hook-errors")
    }

    fn ctr(&self, node: &Node, arguments: &[&str]) -> Result<String, String> {
        let bin = setup().tool(&format!("containerd-{}", node.version));
        let output = Command::new("timeout")
            .args(["--signal", "KILL", PATIENCE])
            .arg(bin.expect("the node runs it").join("ctr"))
            .arg("--address")
            .arg(node.dir.join("c.sock"))
            .args(["--namespace", "plain"])
            .args(arguments)
            .output()
            .expect("timeout runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() {
            return Ok(text(&output.stdout));
        }
        Err(format!("{}: {}", output.status, text(&output.stderr)))
    }

    fn remove(&self, node: &Node, name: &str) {
        // What was not made has no task.
        let _ = self.ctr(node, &["task", "rm", "--force", name]);
        let _ = self.ctr(node, &["container", "rm", name]);
    }
}

impl Ground for Ctr {
    fn resume(&self, node: &Node, actor: &str) -> Annotations {
        node.resume_with(actor, &["--host"])
    }

    fn start(
        &mut self,
        node: &mut Node,
        id: &str,
        annotations: &Annotations,
        line: &str,
    ) -> Result<(), String> {
        let name = self.name(id);
        let mut config = config(annotations, line, &format!("{}/{name}", node.cgroup_parent));
        config["root"] = json!({"path": self.dir.join("rootfs")});
        if self.door == Some(Door::Hook) {
            let settings = node.dir.join("config.toml");
            hooked(&mut config, self.row, &settings, &self.hook_errors());
        }
        let file = self.dir.join("config.json");
        fs::write(&file, config.to_string()).expect("it takes files");
        let out = self.out(id);
        fs::write(&out, "").expect("it takes files");
        let text = |path: &Path| path.display().to_string();
        let made = self.ctr(
            node,
            &[
                "run",
                "--detach",
                "--log-uri",
                &format!("file://{}", out.display()),
                "--runc-binary",
                &text(&self.program),
                "--runc-root",
                &text(&node.dir.join("runc")),
                "--config",
                &text(&file),
                &name,
            ],
        );
        if made.is_err() {
            self.remove(node, &name);
        }
        let of_hook = fs::read_to_string(self.hook_errors()).unwrap_or_default();
        made.map(drop).map_err(|e| e + &of_hook)
    }

    fn said(&self, _: &Node, id: &str) -> String {
        let out = self.out(id);
        until("the container has done its part", SOON, || {
            all_of(&fs::read_to_string(&out).ok()?)
        })
    }

    fn end(&mut self, node: &Node, id: &str) {
        let name = self.name(id);
        let must = |arguments: &[&str]| {
            let run = self.ctr(node, arguments);
            run.unwrap_or_else(|e| panic!("ctr {arguments:?}: {e}"))
        };
        must(&["task", "kill", "--signal", "SIGKILL", &name]);
        until("the container has ended", SOON, || {
            let tasks = must(&["task", "ls"]);
            let line = tasks.lines().find(|l| l.contains(&name))?;
            line.contains("STOPPED").then_some(())
        });
        must(&["task", "rm", &name]);
        must(&["container", "rm", &name]);
    }
}
