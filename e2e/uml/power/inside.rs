// SPDX-License-Identifier: Apache-2.0
//! What runs in the machine: it does what a line of its standard input asks, and
//! answers with a line.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use testkit::cri::{Annotations, ContainerSpec, Cri, Pod, PodSpec, Refusal};

use crate::{ANSWER, NAMESPACE, RUN, SAYS};

/// The gRPC code for what may succeed later.
const UNAVAILABLE: i32 = 14;

type Done = Result<Value, String>;

/// Serves until the line ends.
pub(crate) fn serve() {
    say(ANSWER, &json!({ "ok": "up" }));
    let mut runtime = Runtime::default();
    for line in io::stdin().lock().lines() {
        let line = line.expect("the serial line is text");
        let Ok(asked) = serde_json::from_str::<Value>(&line) else {
            continue;
        };
        let answer = match runtime.answer(&asked) {
            Ok(done) => json!({ "ok": done }),
            Err(why) => json!({ "failed": why }),
        };
        say(ANSWER, &answer);
    }
}

/// One line, whole.
fn say(kind: &str, value: &Value) {
    let line = format!("\n{kind}{value}\n");
    let mut out = io::stdout().lock();
    out.write_all(line.as_bytes())
        .and_then(|()| out.flush())
        .expect("the serial line takes what is said");
}

#[derive(Default)]
struct Runtime {
    cri: Option<Cri>,
    pods: BTreeMap<String, Pod>,
}

impl Runtime {
    fn answer(&mut self, asked: &Value) -> Done {
        let text = |name: &str| asked[name].as_str().unwrap_or_default();
        let seconds = Duration::from_secs(asked["seconds"].as_u64().unwrap_or(60));
        match text("do") {
            "sh" => sh(text("line"), seconds),
            "connect" => self.connect(seconds),
            "pod" => self.pod(text("name"), Path::new(text("annotations"))),
            "container" => self.container(text("pod"), text("line"), seconds),
            "exec" => {
                let line = ["/bin/busybox", "sh", "-c", text("line")];
                let output = self.cri()?.exec(text("container"), &line);
                let output = output.map_err(refusal)?;
                Ok(json!({ "code": output.code, "out": output.stdout + &output.stderr }))
            }
            "remove" => {
                let id = self.pods.remove(text("pod")).map(|pod| pod.id);
                let id = id.unwrap_or_else(|| text("pod").to_owned());
                self.cri()?.stop_pod(&id).map_err(refusal)?;
                self.cri()?.remove_pod(&id).map_err(refusal)?;
                Ok(Value::Null)
            }
            "pods" => Ok(json!(self.cri()?.pods().map_err(refusal)?)),
            other => Err(format!("nobody knows how to {other}")),
        }
    }

    fn cri(&self) -> Result<&Cri, String> {
        self.cri.as_ref().ok_or_else(|| "not connected".to_owned())
    }

    fn connect(&mut self, within: Duration) -> Done {
        let socket = Path::new(RUN).join("c.sock");
        let end = Instant::now() + within;
        while Instant::now() < end {
            if let Ok(cri) = Cri::connect(&socket, &Path::new(RUN).join("pods"))
                && cri.is_ready()
            {
                self.cri = Some(cri);
                return Ok(Value::Null);
            }
            thread::sleep(Duration::from_millis(200));
        }
        Err(format!("containerd is not ready within {within:?}"))
    }

    fn pod(&mut self, name: &str, annotations: &Path) -> Done {
        let text = fs::read(annotations).map_err(|e| format!("{}: {e}", annotations.display()))?;
        let annotations: Annotations = serde_json::from_slice(&text).map_err(|e| e.to_string())?;
        let spec = PodSpec::new(NAMESPACE, name).annotated(&annotations);
        let pod = self.cri()?.run_pod(&spec).map_err(refusal)?;
        let id = pod.id.clone();
        self.pods.insert(name.to_owned(), pod);
        Ok(json!(id))
    }

    /// Creates as a kubelet does, again while it is refused, and starts; what
    /// the container writes is passed on.
    fn container(&self, pod: &str, line: &str, within: Duration) -> Done {
        let cri = self.cri()?;
        let pod = self.pods.get(pod).ok_or("no such pod")?;
        let command = ["/bin/busybox", "sh", "-c", line];
        let spec = ContainerSpec::new("agent", &command);
        let end = Instant::now() + within;
        let id = loop {
            match cri.create_container(pod, &spec) {
                Ok(id) => break id,
                Err(refused) if refused.code == UNAVAILABLE && Instant::now() < end => {
                    thread::sleep(Duration::from_millis(300));
                }
                Err(refused) => return Err(refusal(refused)),
            }
        };
        cri.start_container(&id).map_err(refusal)?;
        follow(Path::new(RUN).join("pods/agent-0.log"));
        Ok(json!(id))
    }
}

fn refusal(refused: Refusal) -> String {
    refused.to_string()
}

fn sh(line: &str, within: Duration) -> Done {
    let output = Command::new("timeout")
        .args(["--signal", "KILL", &within.as_secs().to_string()])
        .args(["bash", "-c", line])
        .output()
        .map_err(|e| e.to_string())?;
    let mut out = String::from_utf8_lossy(&output.stdout).into_owned();
    out.push_str(&String::from_utf8_lossy(&output.stderr));
    Ok(json!({ "code": output.status.code().unwrap_or(-1), "out": out }))
}

/// Passes on what a container writes, as the runtime notes it: time, stream, a
/// mark for whole lines, the line.
fn follow(log: PathBuf) {
    thread::spawn(move || {
        let Ok(file) = fs::File::open(log) else {
            return;
        };
        let mut file = BufReader::new(file);
        let mut line = String::new();
        loop {
            match file.read_line(&mut line) {
                Ok(_) if line.ends_with('\n') => {
                    let said = line.trim_end().splitn(4, ' ').nth(3).unwrap_or_default();
                    say(SAYS, &json!(said));
                    line.clear();
                }
                Ok(_) => thread::sleep(Duration::from_millis(50)),
                Err(_) => return,
            }
        }
    });
}
