// SPDX-License-Identifier: Apache-2.0
//! The processes of `serve`.

use std::{fs, path::Path};

use rustix::process::{Pid, Signal, kill_process};

use crate::{
    daemon::{until, until_true},
    node::{Node, SOON},
};

/// The children of a process, with their subcommands.
pub(crate) fn children(pid: u32) -> Vec<(String, u32)> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    let children = children.unwrap_or_default();
    let named = children.split_whitespace().filter_map(|child| {
        let line = fs::read(format!("/proc/{child}/cmdline")).ok()?;
        let word = line.split(|b| *b == 0).nth(1)?;
        let word = String::from_utf8_lossy(word).into_owned();
        Some((word, child.parse().ok()?))
    });
    named.collect()
}

impl Node {
    /// A process of our daemon, by its subcommand.
    pub(crate) fn part(&self, name: &str) -> Option<u32> {
        let mut parts = children(self.serve_pid()).into_iter();
        parts.find(|(part, _)| part == name).map(|(_, pid)| pid)
    }

    /// Sends a signal to that one alone.
    pub(crate) fn signal_part(&self, name: &str, signal: Signal) {
        let pid = self.part(name).expect("it runs");
        kill_process(number(pid), signal).expect("it runs");
    }

    /// Kills that one, does something, and waits until the next one works.
    pub(crate) fn kill_part(&mut self, name: &str, meanwhile: impl FnOnce(&mut Self)) {
        let (before, pid) = (self.connections(), self.part(name).expect("it runs"));
        kill_process(number(pid), Signal::KILL).expect("it runs");
        meanwhile(self);
        until_true(&format!("{name} is started again"), SOON, || {
            self.part(name).is_some_and(|now| now != pid)
        });
        until_true("actor-volumes serve answers", SOON, || {
            self.av(&["actor", "ls"]).is_ok()
        });
        if name == "node" {
            self.wait_for_plugin(before);
        }
    }

    /// Kills the parent alone, and waits until the others are gone.
    pub(crate) fn kill_serve_alone(&mut self) {
        let parts = children(self.serve_pid());
        assert!(!parts.is_empty(), "it has children");
        self.take_serve().kill_alone();
        for (name, pid) in parts {
            let gone = || !Path::new(&format!("/proc/{pid}")).exists();
            until_true(&format!("{name} is gone"), SOON, gone);
        }
    }

    /// What each process of our daemon is, and how much memory it has.
    pub(crate) fn serve_processes(&self) -> Vec<String> {
        let pid = self.serve_pid();
        let mut all = children(pid);
        all.push(("serve".to_owned(), pid));
        let memory = |(name, pid): (String, u32)| {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
            let line = status.lines().find(|l| l.starts_with("VmRSS:"))?;
            Some(format!("{name}: {}", line["VmRSS:".len()..].trim()))
        };
        all.into_iter().filter_map(memory).collect()
    }

    /// All processes of our daemon, once each part runs.
    pub(crate) fn serve_pids(&self) -> Vec<u32> {
        let pid = self.serve_pid();
        let parts = until("all parts run", SOON, || {
            let parts = children(pid);
            let is = |name: &str| parts.iter().any(|(part, _)| part == name);
            (is("control") && is("node") && is("helper")).then_some(parts)
        });
        parts.into_iter().map(|(_, pid)| pid).chain([pid]).collect()
    }
}

fn number(pid: u32) -> Pid {
    Pid::from_raw(pid.cast_signed()).expect("it is a process")
}
