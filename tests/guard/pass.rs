// SPDX-License-Identifier: Apache-2.0
//! What is not to be checked becomes the real runtime, exactly.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs,
    io::Write,
    os::unix::{ffi::OsStrExt, process::ExitStatusExt},
    process::{Command, Stdio},
};

use serde_json::json;

use crate::bundle::{Place, config};

/// Everything that a process is given, but for its number.
const TELL: &str = r#"
    cat "/proc/$$/cmdline"; echo; cat "/proc/$$/environ"; echo
    pwd; umask; ls "/proc/$$/fd"; grep -E "^Sig(Blk|Ign)" /proc/self/status; cat "/proc/$$/limits"
    cat <&3; echo out >&4; cat; echo err >&2
"#;

/// Runs it with descriptors of its own, signals ignored, a limit, and stdin.
fn run(place: &Place, program: &str) -> (Vec<u8>, Vec<u8>, Vec<u8>) {
    fs::write(place.path("three"), "three\n").unwrap();
    fs::write(place.path("four"), "").unwrap();
    let mut command = Command::new("sh");
    command
        .args([
            "-c",
            "trap '' HUP USR1; ulimit -n 200; umask 027; exec \"$@\" 3<three 4>>four 7</dev/null",
            "sh",
        ])
        .arg(place.path(program))
        .args(["--log", "", "exec", "two words", "\nline", "--", "-x"])
        .arg(OsStr::from_bytes(b"\xff\xfe"))
        .env("ACTOR_VOLUMES_CONFIG", place.path("config.toml"))
        .env("NOTIFY_SOCKET", "/n")
        .current_dir(place.dir.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"typed\n").unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    let four = fs::read(place.path("four")).unwrap();
    (output.stdout, output.stderr, four)
}

#[test]
fn the_real_runtime_is_given_exactly_what_the_guard_was_given() {
    let place = Place::new();
    place.runtime(TELL);
    let direct = run(&place, "runc");
    let guarded = run(&place, "actor-volumes-runtime");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert_eq!(text(&guarded.0), text(&direct.0));
    assert_eq!(guarded, direct);
    let told = text(&direct.0);
    for part in ["three", "typed", "two words", "NOTIFY_SOCKET"] {
        assert!(told.contains(part), "{part} in {told}");
    }
    assert_eq!(direct.2, b"out\n");
}

#[test]
fn it_is_the_same_process_and_ends_as_the_runtime_ends() {
    let place = Place::new();
    place.runtime("echo $$; exit 130");
    let child = place
        .guard()
        .args(["delete", "c1"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let pid = child.id();
    let output = child.wait_with_output().unwrap();
    assert_eq!(
        String::from_utf8(output.stdout).unwrap().trim(),
        pid.to_string()
    );
    assert_eq!(output.status.code(), Some(130));

    place.runtime("kill -KILL $$");
    let status = place.guard().args(["kill", "c1", "9"]).status().unwrap();
    assert_eq!(status.signal(), Some(9), "a shell would say 137");

    // A signal from outside meets the runtime itself.
    place.runtime("trap 'exit 42' TERM; echo ready; while :; do sleep 0.1; done");
    let mut child = place
        .guard()
        .args(["events", "c1"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut ready = [0; 6];
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut ready).unwrap();
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(42));
}

#[test]
fn a_container_of_others_and_the_pause_container_pass_while_no_agent_is_there() {
    let place = Place::new();
    place.write_config(&config("s1", "main", &BTreeMap::new(), &[]));
    place.create("c1").is_made();
    place.write_config(&json!({"ociVersion": "1.0.0"}));
    place.create("c1").is_made();
    let ours = BTreeMap::from([("actor-volumes.dev/actor".to_owned(), "agents/a".to_owned())]);
    let mut pause = config("s1", "", &ours, &[]);
    pause["annotations"]["io.kubernetes.cri.container-type"] = json!("sandbox");
    place.write_config(&pause);
    place.create("s1").is_made();
    // What claims to be one and is not is looked at.
    place.create("c1").is_refused("actor-volumes.dev");
}

#[test]
fn containers_end_also_while_the_configuration_is_broken() {
    let place = Place::new();
    fs::write(place.path("config.toml"), "[guard").unwrap();
    place.runtime("echo \"$@\"");
    let path = std::env::var("PATH").unwrap();
    let output = place
        .guard()
        .env("PATH", format!("{}:{path}", place.dir.path().display()))
        .args(["kill", "c1", "9"])
        .output()
        .unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "kill c1 9\n");
    place.write_config(&config("s1", "main", &BTreeMap::new(), &[]));
    place.create("c1").is_refused("config.toml");
}

#[test]
fn the_long_command_line_does_the_same_as_the_name() {
    let place = Place::new();
    place.runtime("printf '%s|' \"$@\"; exit 3");
    let output = Command::new(env!("CARGO_BIN_EXE_actor-volumes"))
        .args([
            "runtime",
            "--guard",
            "--config",
            "/nothing/here",
            "--runtime",
        ])
        .arg(place.path("runc"))
        .args(["--", "--root", "/r", "state", "c1"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(3));
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        "--root|/r|state|c1|"
    );
}

#[test]
fn a_guard_that_would_call_itself_says_so() {
    let place = Place::new();
    fs::remove_file(place.path("runc")).unwrap();
    std::os::unix::fs::symlink(place.path("actor-volumes-runtime"), place.path("runc")).unwrap();
    let output = place.guard().args(["state", "c1"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("guard.runtime"), "{text}");
}
