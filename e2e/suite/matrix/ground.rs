// SPDX-License-Identifier: Apache-2.0
//! Where a story takes place.

use testkit::cri::Annotations;

use crate::node::Node;

/// Containers of one runtime, made in one place, which come to their volumes in one way.
pub(super) trait Ground {
    /// The annotations for a container of this actor.
    fn resume(&self, node: &Node, actor: &str) -> Annotations;

    /// Makes a container that runs this line of shell and then waits for its end. Why
    /// there is none, as a user is told; nothing is left of it then.
    fn start(
        &mut self,
        node: &mut Node,
        id: &str,
        annotations: &Annotations,
        line: &str,
    ) -> Result<(), String>;

    /// All that it has printed, once it waits for its end.
    fn said(&self, node: &Node, id: &str) -> String;

    /// Kills and removes it.
    fn end(&mut self, node: &Node, id: &str);
}

/// What a container prints when its line is done.
pub(super) const DONE: &str = "that was all";

/// The command of a container.
pub(super) fn command(line: &str) -> [String; 4] {
    let script = format!("{line}\necho {DONE}\nexec /bin/busybox sleep 2147483647");
    ["/bin/busybox", "sh", "-c", &script].map(str::to_owned)
}

/// What was said before a container was done; none: it is not yet.
pub(super) fn all_of(said: &str) -> Option<String> {
    let said = said.strip_suffix('\n')?;
    Some(said.strip_suffix(DONE)?.trim_end().to_owned())
}
