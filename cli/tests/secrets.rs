//! What a user's password gets into: the requests it is for, the file it is kept in, and nothing else.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails, in helpers as well")]

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Output, Stdio};
use std::thread;

const PASSWORD: &str = "s3cr3t-marker";
/// `user:s3cr3t-marker`.
const ENCODED: &str = "dXNlcjpzM2NyM3QtbWFya2Vy";
const TOKEN: &str = "t0ken-marker";

/// A registry with its token server, for as many requests as there are `answers` to. Returns its address.
fn registry(answers: Vec<String>) -> (String, thread::JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let here = address.clone();
    let thread = thread::spawn(move || {
        let serve = |answer: String| {
            let (mut stream, _) = listener.accept().unwrap();
            let request = receive(&mut stream);
            stream.write_all(answer.replace("HERE", &here).as_bytes()).unwrap();
            request
        };
        answers.into_iter().map(serve).collect()
    });
    (address, thread)
}

fn receive(stream: &mut TcpStream) -> String {
    let (mut bytes, mut buffer) = (Vec::new(), [0; 4096]);
    while !bytes.ends_with(b"\r\n\r\n") {
        let count = stream.read(&mut buffer).unwrap();
        assert!(count > 0);
        bytes.extend(&buffer[..count]);
    }
    String::from_utf8(bytes).unwrap()
}

fn answer(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\n{headers}Connection: close\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

fn challenge() -> String {
    let header = "WWW-Authenticate: Bearer realm=\"http://HERE/token\",service=\"r\"\r\n";
    answer("401 Unauthorized", header, "")
}

fn log_in(home: &std::path::Path, address: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_layerstore"))
        .args(["-vvv", "--log-format", "json", "login", "-u", "user", "--password-stdin", address])
        .env_clear()
        .env("HOME", home)
        .env("RUST_LOG", "trace")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(format!("{PASSWORD}\n").as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

fn shows_no_secret(output: &Output) -> String {
    let text = String::from_utf8([&output.stdout[..], &output.stderr[..]].concat()).unwrap();
    for secret in [PASSWORD, ENCODED, TOKEN] {
        assert!(!text.contains(secret), "{text}");
    }
    text
}

#[test]
fn the_most_verbose_log_of_a_login_shows_none() {
    let token = answer("200 OK", "", &format!(r#"{{"token": "{TOKEN}"}}"#));
    let (address, server) = registry(vec![challenge(), token, answer("200 OK", "", "{}")]);
    let home = tempfile::tempdir().unwrap();
    let output = log_in(home.path(), &address);
    let text = shows_no_secret(&output);
    assert!(output.status.success(), "{text}");
    assert_eq!(output.stdout, b"Login Succeeded\n");
    let targets: Vec<_> =
        text.lines().filter_map(|line| line.split_once("\"target\":\"")?.1.split('"').next()).collect();
    assert!(!targets.is_empty() && targets.iter().all(|target| target.starts_with("layerstore")), "{text}");
    let requests = server.join().unwrap();
    assert!(requests[1].contains(&format!("authorization: Basic {ENCODED}\r\n")), "{requests:?}");
    assert!(requests[2].contains(&format!("authorization: Bearer {TOKEN}\r\n")), "{requests:?}");
    let file = home.path().join(".docker/config.json");
    assert!(std::fs::read_to_string(&file).unwrap().contains(ENCODED));
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn an_identity_token_is_kept_in_place_of_the_password() {
    let body = format!(r#"{{"token": "t", "refresh_token": "{TOKEN}"}}"#);
    let (address, server) =
        registry(vec![challenge(), answer("200 OK", "", &body), answer("200 OK", "", "{}")]);
    let home = tempfile::tempdir().unwrap();
    let output = log_in(home.path(), &address);
    assert!(output.status.success(), "{}", shows_no_secret(&output));
    assert!(server.join().unwrap()[1].starts_with("GET /token?service=r&offline_token=true&client_id="));
    let text = std::fs::read_to_string(home.path().join(".docker/config.json")).unwrap();
    assert!(text.contains(TOKEN) && !text.contains(ENCODED) && !text.contains(PASSWORD), "{text}");
}

#[test]
fn a_refusal_that_echoes_the_password_is_not_repeated() {
    let basic = "WWW-Authenticate: Basic realm=\"r\"\r\n";
    let echo = format!(r#"{{"errors": [{{"code": "UNAUTHORIZED", "message": "not {PASSWORD}"}}]}}"#);
    let (address, server) =
        registry(vec![answer("401 Unauthorized", basic, ""), answer("401 Unauthorized", basic, &echo)]);
    let home = tempfile::tempdir().unwrap();
    let output = log_in(home.path(), &address);
    assert_eq!(output.status.code(), Some(7), "{}", shows_no_secret(&output));
    assert_eq!(server.join().unwrap().len(), 2);
    assert!(!home.path().join(".docker").exists());
}
