// SPDX-License-Identifier: Apache-2.0
//! Drives a container runtime through the CRI from a shell, where `crictl` is
//! not at hand. One verb a call; results on stdout, errors on stderr.

use std::{path::Path, process::ExitCode};

use actor_volumes_testkit::cri::{Annotations, ContainerSpec, Cri, PodSpec, Refusal};

const USAGE: &str = "\
usage: testkit-cri SOCKET [--cgroup-parent PATH] VERB …
  version                                    print the runtime's version
  run-pod NAMESPACE NAME [FILE]              run a sandbox, print its id; FILE has its annotations, a JSON object
  run POD NAME [COMMAND…]                    create and start a container, print its id; it waits for ever by default
  exec CONTAINER COMMAND…                    run a command in it; the exit status is the command's
  stop CONTAINER | rm CONTAINER              stop, remove a container
  stop-pod POD | rm-pod POD                  stop, remove a sandbox with its containers
  pods                                       print the ids of all sandboxes";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match run(&words) {
        Ok(code) => code,
        Err(message) => {
            eprintln!("testkit-cri: {message}");
            ExitCode::FAILURE
        }
    }
}

fn run(words: &[&str]) -> Result<ExitCode, String> {
    let [socket, verb @ ..] = words else {
        return Err(USAGE.to_owned());
    };
    let logs = std::env::temp_dir();
    let mut cri = Cri::connect(Path::new(socket), &logs).map_err(refused)?;
    let verb = match verb {
        ["--cgroup-parent", parent, verb @ ..] => {
            cri = cri.with_cgroup_parent(parent);
            verb
        }
        verb => verb,
    };
    match verb {
        ["version"] => println!("{}", cri.version().map_err(refused)?),
        ["run-pod", namespace, name] => run_pod(&cri, namespace, name, "{}")?,
        ["run-pod", namespace, name, file] => {
            let json = std::fs::read_to_string(file).map_err(|e| format!("{file}: {e}"))?;
            run_pod(&cri, namespace, name, &json)?;
        }
        ["run", pod, name, command @ ..] => {
            let spec = match command {
                [] => ContainerSpec::idle(name),
                command => ContainerSpec::new(name, command),
            };
            let pod = cri.pod(pod).map_err(refused)?;
            let id = cri.create_container(&pod, &spec).map_err(refused)?;
            cri.start_container(&id).map_err(refused)?;
            println!("{id}");
        }
        ["exec", container, command @ ..] if !command.is_empty() => {
            let output = cri.exec(container, command).map_err(refused)?;
            print!("{}", output.stdout);
            eprint!("{}", output.stderr);
            return Ok(ExitCode::from(u8::try_from(output.code).unwrap_or(255)));
        }
        ["stop", container] => cri.stop_container(container).map_err(refused)?,
        ["rm", container] => cri.remove_container(container).map_err(refused)?,
        ["stop-pod", pod] => cri.stop_pod(pod).map_err(refused)?,
        ["rm-pod", pod] => cri.remove_pod(pod).map_err(refused)?,
        ["pods"] => {
            for id in cri.pods().map_err(refused)? {
                println!("{id}");
            }
        }
        _ => return Err(USAGE.to_owned()),
    }
    Ok(ExitCode::SUCCESS)
}

fn run_pod(cri: &Cri, namespace: &str, name: &str, json: &str) -> Result<(), String> {
    let annotations: Annotations = serde_json::from_str(json)
        .map_err(|e| format!("annotations must be a JSON object of strings: {e}"))?;
    let spec = PodSpec::new(namespace, name).annotated(&annotations);
    println!("{}", cri.run_pod(&spec).map_err(refused)?.id);
    Ok(())
}

fn refused(refusal: Refusal) -> String {
    refusal.message
}
