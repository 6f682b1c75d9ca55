// SPDX-License-Identifier: Apache-2.0
//! What a case does on its node: verbs of our command line, faults of the
//! driver, pods and containers.

use std::{fs, path::Path, process::Command, time::Duration};

use testkit::cri::{Annotations, ContainerSpec, Output, Pod, PodSpec};

use crate::{
    canary,
    daemon::until,
    driver,
    node::{NAMESPACE, Node, PATIENCE, SOON, is_retryable},
    setup::actor_volumes,
};

/// Runs `actor-volumes` for the node of this directory.
pub(crate) fn av(dir: &Path, arguments: &[&str]) -> Result<String, String> {
    let output = Command::new("timeout")
        .args(["--signal", "KILL", PATIENCE])
        .arg(actor_volumes().get_program())
        .env("ACTOR_VOLUMES_SOCKET", dir.join("run/actor-volumes.sock"))
        .args(arguments)
        .output()
        .expect("our binary runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let what = arguments.join(" ");
    canary::said(dir, &what, &[&output.stdout[..], &output.stderr].concat());
    if output.status.success() {
        Ok(text(&output.stdout))
    } else {
        Err(format!("{}: {}", output.status, text(&output.stderr)))
    }
}

impl Node {
    // --- our own command line

    /// Runs `actor-volumes` with these arguments: its standard output, or what
    /// it said on standard error.
    pub(crate) fn av(&self, arguments: &[&str]) -> Result<String, String> {
        av(&self.dir, arguments)
    }

    /// The same, where it must succeed.
    pub(crate) fn must(&self, arguments: &[&str]) -> String {
        self.av(arguments)
            .unwrap_or_else(|e| panic!("actor-volumes {}: {e}", arguments.join(" ")))
    }

    /// Applies a manifest, as `storageclass apply` or `template apply` does.
    pub(crate) fn apply(&self, what: &str, manifest: &str) {
        let file = self.dir.join("tmp").join(format!("{what}.yaml"));
        fs::write(&file, manifest).expect("the node's directory takes files");
        self.must(&[what, "apply", "-f", &file.display().to_string()]);
    }

    /// Resumes an actor: the annotations for its pod.
    pub(crate) fn resume(&self, actor: &str) -> Annotations {
        self.resume_with(actor, &[])
    }

    /// Resumes an actor with more arguments.
    pub(crate) fn resume_with(&self, actor: &str, more: &[&str]) -> Annotations {
        let name = format!("{NAMESPACE}/{actor}");
        let text = self.must(&[&["actor", "resume", &name], more].concat());
        serde_json::from_str(&text)
            .unwrap_or_else(|e| panic!("resume must print one JSON object, not {text:?}: {e}"))
    }

    /// Suspends an actor and waits for it.
    pub(crate) fn suspend(&self, actor: &str) {
        self.must(&[
            "actor",
            "suspend",
            &format!("{NAMESPACE}/{actor}"),
            "--wait",
        ]);
    }

    /// Deletes an actor and waits for it.
    pub(crate) fn delete(&self, actor: &str) {
        self.must(&["actor", "delete", &format!("{NAMESPACE}/{actor}"), "--wait"]);
    }

    // --- the driver

    /// What the driver's backend holds, one entry a volume.
    pub(crate) fn backend(&self) -> Vec<String> {
        let driver = self.options.driver;
        driver.map(|d| d.volumes(&self.dir)).unwrap_or_default()
    }

    /// How many calls of this name testkit's driver has had.
    pub(crate) fn driver_calls(&self, method: &str) -> usize {
        driver::calls(&self.dir, method)
    }

    /// Makes testkit's driver answer calls of this name so much later.
    pub(crate) fn driver_delay(&self, method: &str, delay: Duration) {
        driver::set_delay(&self.dir, method, delay);
    }

    /// Makes testkit's driver leave calls of this name without an answer.
    pub(crate) fn driver_hang(&self, method: &str) {
        driver::set_hang(&self.dir, method);
    }

    /// Makes testkit's driver well again.
    pub(crate) fn driver_well(&self) {
        driver::clear_faults(&self.dir);
    }

    // --- pods

    /// A pod of the trusted namespace, with a name not used before.
    pub(crate) fn pod_spec(&mut self, annotations: &Annotations) -> PodSpec {
        self.pods += 1;
        PodSpec::new(NAMESPACE, &format!("pod-{}", self.pods)).annotated(annotations)
    }

    /// Runs a pod with these annotations.
    pub(crate) fn run_pod(&mut self, annotations: &Annotations) -> Pod {
        let spec = self.pod_spec(annotations);
        let run = self.cri.run_pod(&spec);
        run.unwrap_or_else(|e| panic!("the sandbox does not run: {e}"))
    }

    /// Creates a container as a kubelet does: retried while it is refused.
    /// Fails the case when it never comes to be.
    pub(crate) fn create(&self, pod: &Pod, spec: &ContainerSpec) -> String {
        let mut last = None;
        until(
            &format!("container {} is created", spec.name),
            SOON,
            || match self.cri.create_container(pod, spec) {
                Ok(id) => Some(id),
                Err(refusal) if is_retryable(&refusal) => {
                    last = Some(refusal);
                    std::thread::sleep(Duration::from_millis(200));
                    None
                }
                Err(refusal) => panic!("container {} is refused: {refusal}", spec.name),
            },
        )
    }

    /// Creates and starts a container.
    pub(crate) fn run(&self, pod: &Pod, spec: &ContainerSpec) -> String {
        let id = self.create(pod, spec);
        let start = self.cri.start_container(&id);
        start.unwrap_or_else(|e| panic!("container {} does not start: {e}", spec.name));
        id
    }

    /// A pod with one idle container of the template's name.
    pub(crate) fn run_agent(&mut self, annotations: &Annotations) -> (Pod, String) {
        let pod = self.run_pod(annotations);
        let id = self.run(&pod, &ContainerSpec::idle("agent"));
        (pod, id)
    }

    /// Runs a line of shell in a container.
    pub(crate) fn try_sh(&self, container: &str, line: &str) -> Output {
        let run = self
            .cri
            .exec(container, &["/bin/busybox", "sh", "-c", line]);
        run.unwrap_or_else(|e| panic!("`{line}` can not be run: {e}"))
    }

    /// The same, where it must succeed; its output without the last newline.
    pub(crate) fn sh(&self, container: &str, line: &str) -> String {
        let output = self.try_sh(container, line);
        assert_eq!(output.code, 0, "`{line}` failed: {}", output.stderr);
        output.stdout.trim_end().to_owned()
    }

    /// Stops and removes a pod.
    pub(crate) fn remove_pod(&self, pod: &Pod) {
        self.cri.stop_pod(&pod.id).expect("the sandbox stops");
        self.cri
            .remove_pod(&pod.id)
            .expect("the sandbox is removed");
    }
}
