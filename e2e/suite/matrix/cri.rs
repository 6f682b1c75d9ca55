// SPDX-License-Identifier: Apache-2.0
//! Pods of containerd's CRI.

use std::{collections::BTreeMap, fs, time::Instant};

use testkit::cri::{Annotations, ContainerSpec, Pod};

use super::{
    Cell, Door, Place, Row, begin,
    ground::{Ground, all_of, command},
    story::{self, Outcome},
    table,
};
use crate::{
    cases::prepare,
    daemon::until,
    node::{Node, SOON, is_retryable},
};

/// The cell of a runtime and a door, which the node's containerd has.
pub(super) fn cell(node: &mut Node, row: Row, door: Door) {
    prepare(node);
    let place = Place::Cri;
    begin(node, place, row);
    let cell = Cell { place, row, door };
    let outcome = match story::can_be_told(node, row, &mut Pods::default()) {
        Err(why) => Outcome::Impossible(why),
        Ok(()) => story::tell(node, &mut Pods::default(), cell),
    };
    table::cell(cell, outcome);
}

/// A pod for each container.
#[derive(Default)]
struct Pods {
    pods: BTreeMap<String, Pod>,
}

impl Ground for Pods {
    fn resume(&self, node: &Node, actor: &str) -> Annotations {
        node.resume(actor)
    }

    fn start(
        &mut self,
        node: &mut Node,
        id: &str,
        annotations: &Annotations,
        line: &str,
    ) -> Result<(), String> {
        let spec = node.pod_spec(annotations);
        let pod = node.cri.run_pod(&spec).map_err(|e| e.message)?;
        let words = command(line);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let spec = ContainerSpec::new(id, &words);
        // As a kubelet does.
        let end = Instant::now() + SOON;
        let made = loop {
            let made = node.cri.create_container(&pod, &spec);
            match made {
                Err(e) if is_retryable(&e) && Instant::now() < end => {}
                made => break made.and_then(|id| node.cri.start_container(&id)),
            }
            std::thread::sleep(std::time::Duration::from_millis(200));
        };
        if let Err(e) = made {
            node.remove_pod(&pod);
            return Err(e.message);
        }
        self.pods.insert(id.to_owned(), pod);
        Ok(())
    }

    fn said(&self, node: &Node, id: &str) -> String {
        let log = node.dir.join(format!("logs/pods/{id}-0.log"));
        until("the container has done its part", SOON, || {
            // Each line has a time, the stream, and whether it is whole.
            let text = fs::read_to_string(&log).ok()?;
            let words = |line: &str| Some(format!("{}\n", line.splitn(4, ' ').nth(3)?));
            all_of(&text.lines().filter_map(words).collect::<String>())
        })
    }

    fn end(&mut self, node: &Node, id: &str) {
        let pod = self.pods.remove(id).expect("it was started");
        node.remove_pod(&pod);
        // The next one of this name begins anew.
        let _ = fs::remove_file(node.dir.join(format!("logs/pods/{id}-0.log")));
    }
}
