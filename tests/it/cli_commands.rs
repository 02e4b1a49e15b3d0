//! The program from outside, where no daemon is needed: exit codes, what goes to which stream, and probes of a stand-in.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread;

fn tenure(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tenure"));
    command.args(arguments).env_clear().env("HOSTNAME", "pod-0").stdin(Stdio::null());
    command
}

fn run(arguments: &[&str]) -> (Option<i32>, String, String) {
    finished(tenure(arguments).output().expect("the program starts"))
}

fn finished(output: Output) -> (Option<i32>, String, String) {
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// Answers every request with the same status and body, and keeps what was asked.
fn stand_in(socket: &Path, status: &'static str, body: &'static str) -> thread::JoinHandle<Vec<String>> {
    let listener = UnixListener::bind(socket).expect("the socket");
    thread::spawn(move || {
        let mut asked = Vec::new();
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            let mut bytes = [0; 4096];
            let mut text = String::new();
            while !text.contains("\r\n\r\n") {
                let n = stream.read(&mut bytes).expect("a request");
                if n == 0 {
                    return asked;
                }
                text.push_str(&String::from_utf8_lossy(&bytes[..n]));
            }
            asked.push(text);
            let length = body.len();
            let answer = format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}");
            stream.write_all(answer.as_bytes()).expect("an answer");
        }
        asked
    })
}

/// A connection without a request ends the stand-in.
fn asked(socket: &Path, stand_in: thread::JoinHandle<Vec<String>>) -> Vec<String> {
    drop(std::os::unix::net::UnixStream::connect(socket).expect("a connection"));
    stand_in.join().expect("the stand-in")
}

#[test]
fn wrong_usage_ends_with_2_and_help_with_0() {
    for wrong in [
        &[][..],
        &["nonsense"],
        &["check"],
        &["verify", "x"],
        &["--output", "xml", "status"],
        &["wait", "--until", "doom"],
    ] {
        let (code, out, err) = run(wrong);
        assert_eq!((code, out.as_str()), (Some(2), ""), "{wrong:?}");
        assert!(!err.is_empty());
    }
    for right in [&["--help"][..], &["status", "--help"], &["--version"]] {
        assert_eq!(run(right).0, Some(0), "{right:?}");
    }
}

#[test]
fn every_error_of_a_broken_config_is_said_and_the_exit_code_is_3() {
    let file = "tests/broken-configs/everything.yaml";
    for command in [
        &["config", "check", file][..],
        &["run", "-c", file],
        &["-c", file],
        &["doctor", "-c", file],
        &["status", "-c", file],
    ] {
        let (code, out, err) = run(command);
        assert_eq!((code, out.as_str()), (Some(3), ""), "{command:?}: {err}");
        assert!(err.lines().filter(|l| l.contains("everything.yaml:")).count() >= 20, "{command:?}: {err}");
        assert!(!err.contains("hunter2"), "{err}");
    }
    let (code, out, _) = run(&["config", "check", file, "--output", "json"]);
    let report: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((code, report["ok"].as_bool()), (Some(3), Some(false)));
    assert_eq!(report["errors"][0]["line"], 2);
}

#[test]
fn a_good_config_shows_the_fail_over_it_implies() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("tenure.yaml");
    fs::write(&file, "elections: [orders]\nsession: {ttl: 2s}\n").expect("the file");
    let file = file.to_str().expect("UTF-8");
    let (code, out, err) = run(&["config", "check", file]);
    assert_eq!(code, Some(0), "{err}");
    assert!(
        out.starts_with("ok: ")
            && out.contains("worst-case fail-over 2500ms")
            && out.contains("guard                1730ms"),
        "{out}"
    );
    assert!(err.contains("warning: ") && err.contains(":2:16: session.ttl: 2s is the least"), "{err}");
    let (_, out, _) = run(&["config", "check", file, "--output", "json"]);
    let document: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((document["worst_failover_ms"].as_u64(), document["guard_ms"].as_u64()), (Some(2500), Some(1730)));
    let (_, out, _) = run(&["config", "check", file, "--output", "yaml"]);
    fs::write(file, &out).expect("the file");
    assert_eq!(run(&["config", "check", file, "--output", "yaml"]).1, out, "what it prints is a configuration");
}

#[test]
fn the_example_is_printed_and_is_right() {
    let (code, out, _) = run(&["config", "example"]);
    assert_eq!((code, out.as_str()), (Some(0), include_str!("../../config.example.yaml")));
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("tenure.yaml");
    fs::write(&file, out).expect("the file");
    assert_eq!(run(&["config", "check", file.to_str().expect("UTF-8")]).0, Some(0));
}

#[test]
fn completions_exist_for_the_usual_shells() {
    for shell in ["bash", "zsh", "fish"] {
        let (code, out, _) = run(&["completions", shell]);
        assert!(
            code == Some(0) && out.contains("tenure") && out.contains("drained") && !out.contains("tether --"),
            "{shell}"
        );
    }
}

#[test]
fn a_reader_that_has_gone_is_no_failure() {
    let mut child =
        tenure(&["config", "example"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    drop(child.stdout.take());
    let (code, _, err) = finished(child.wait_with_output().expect("it ends"));
    assert_eq!((code, err.as_str()), (Some(0), ""));
    let full = fs::File::options().write(true).open("/dev/full").expect("/dev/full");
    let output = tenure(&["config", "example"]).stdout(full).output().expect("it ends");
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn a_daemon_that_is_not_there_is_unavailable() {
    let dir = tempfile::tempdir().expect("a directory");
    let control = format!("unix:{}", dir.path().join("none.sock").display());
    for command in [
        &["status"][..],
        &["token"],
        &["verify", "5"],
        &["resign"],
        &["drain"],
        &["drained"],
        &["history"],
        &["candidates"],
        &["check", "--expect", "live"],
        &["wait", "--until", "leader", "--timeout", "200ms"],
    ] {
        let (code, out, err) = run(&[command, &["--control", &control]].concat());
        assert_eq!((code, out.as_str()), (Some(5), ""), "{command:?}: {err}");
    }
}

#[test]
fn a_probe_says_by_its_exit_code_what_the_daemon_answers() {
    let dir = tempfile::tempdir().expect("a directory");
    for (name, status, code) in [("a", "200 OK", 0), ("b", "503 Service Unavailable", 4), ("c", "404 Not Found", 1)] {
        let socket = dir.path().join(name);
        let daemon = stand_in(&socket, status, "{}");
        let control = format!("unix:{}", socket.display());
        let command = ["check", "--expect", "leader", "-e", "orders", "--control", &control];
        assert_eq!(run(&command).0, Some(code), "{status}");
        assert!(asked(&socket, daemon)[0].starts_with("GET /leader?election=orders HTTP/1.1\r\n"));
    }
}

#[test]
fn a_token_is_a_bare_number_and_its_absence_names_the_leader() {
    let dir = tempfile::tempdir().expect("a directory");
    let socket = dir.path().join("leader.sock");
    let daemon = stand_in(&socket, "200 OK", r#"{"election":"orders","token":42,"valid_for_ms":1000}"#);
    let mut command = tenure(&["token", "-e", "orders"]);
    let output = command.env("TENURE_CONTROL", format!("unix:{}", socket.display())).output().expect("it ends");
    assert_eq!(finished(output), (Some(0), "42\n".to_owned(), String::new()));
    assert!(asked(&socket, daemon)[0].starts_with("GET /v1/elections/orders/token HTTP/1.1\r\n"));

    let socket = dir.path().join("follower.sock");
    let body = r#"{"code":"not_leader","detail":"this daemon does not lead","leader":{"id":"pod-1","generation":7}}"#;
    let daemon = stand_in(&socket, "503 Service Unavailable", body);
    let (code, out, err) = run(&["token", "-e", "orders", "--control", &format!("unix:{}", socket.display())]);
    assert_eq!((code, out.as_str()), (Some(4), ""));
    assert_eq!(err, "tenure: not_leader: this daemon does not lead; pod-1 leads with token 7\n");
    drop(asked(&socket, daemon));
}

#[test]
fn an_answer_that_never_comes_to_a_verb_leaves_the_outcome_unknown() {
    let dir = tempfile::tempdir().expect("a directory");
    let socket = dir.path().join("silent.sock");
    let listener = UnixListener::bind(&socket).expect("the socket");
    let control = format!("unix:{}", socket.display());
    let (code, _, err) = run(&["drain", "--control", &control, "--request-timeout", "200ms"]);
    assert_eq!(code, Some(6), "{err}");
    let (code, _, err) = run(&["status", "--control", &control, "--request-timeout", "200ms"]);
    assert_eq!(code, Some(5), "{err}");
    drop(listener);
}

#[test]
fn the_admin_token_goes_into_the_header_and_into_no_message() {
    let dir = tempfile::tempdir().expect("a directory");
    let (socket, file) = (dir.path().join("s.sock"), dir.path().join("token"));
    fs::write(&file, "s3cret\n").expect("the file");
    let daemon =
        stand_in(&socket, "401 Unauthorized", r#"{"code":"unauthorized","detail":"this call needs the admin token"}"#);
    let file = file.to_str().expect("UTF-8");
    let (code, out, err) =
        run(&["drain", "--control", &format!("unix:{}", socket.display()), "--admin-token-file", file]);
    assert_eq!((code, out.as_str()), (Some(1), ""));
    assert!(!err.contains("s3cret"), "{err}");
    assert!(asked(&socket, daemon)[0].to_lowercase().contains("authorization: bearer s3cret\r\n"));
}

#[test]
fn a_demo_without_etcd_says_how_to_get_one() {
    let output = tenure(&["demo"]).env("PATH", "/nonexistent").output().expect("it ends");
    let (code, _, err) = finished(output);
    assert!(code == Some(1) && err.contains("make demo"), "{code:?} {err}");
}

#[test]
fn the_doctor_of_an_etcd_that_is_not_there_says_so() {
    let (code, out, err) = finished(
        tenure(&["doctor"])
            .env("TENURE_ELECTIONS", "orders")
            .env("TENURE_ETCD__ENDPOINTS", "http://127.0.0.1:1")
            .output()
            .expect("it ends"),
    );
    assert_eq!(code, Some(5), "{err}");
    assert!(out.contains("fail  http://127.0.0.1:1 does not answer"), "{out}");
}
