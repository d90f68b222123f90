//! `login` and `logout` with real registries: one that wants a password, one that wants tokens.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::{fs, io::Write as _};

use layerstore_testkit::credential_helper::CredentialHelper;
use layerstore_testkit::registry::{Registry, RegistryOptions};
use layerstore_testkit::token_server::{TokenOptions, TokenServer};
use layerstore_testkit::{require, sandbox};

const USER: &str = "anna";
const PASSWORD: &str = "s3cr3t-marker";

/// Runs the command in a home of its own; `input` is what is on standard input, which is no terminal.
fn run(home: &Path, args: &[&str], input: &str) -> Output {
    let path = format!("{}:/usr/bin:/bin", home.display());
    let mut child = Command::new(sandbox::binary())
        .args(args)
        .env_clear()
        .env("HOME", home)
        .env("PATH", path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command that does not read it may have ended.
    drop(child.stdin.take().unwrap().write_all(input.as_bytes()));
    let output = child.wait_with_output().unwrap();
    let shown = [&output.stdout[..], &output.stderr[..]].concat();
    assert!(!String::from_utf8_lossy(&shown).contains(PASSWORD), "{output:?}");
    output
}

fn log_in(home: &Path, server: &str, password: &str) -> Output {
    run(home, &["-vvv", "login", "-u", USER, "--password-stdin", server], &format!("{password}\n"))
}

fn code(output: &Output) -> Option<i32> {
    output.status.code()
}

#[track_caller]
fn says(output: &Output, text: &str) {
    assert_eq!(
        (code(output), String::from_utf8_lossy(&output.stdout).as_ref()),
        (Some(0), text),
        "{output:?}"
    );
}

fn home() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

#[test]
fn a_password_is_checked_kept_and_forgotten() {
    if !require::registry() {
        return;
    }
    let registry = Registry::start(RegistryOptions::new().user(USER, PASSWORD));
    let (home, server) = (home(), registry.host());
    let home = home.path();
    let refused = log_in(home, &server, "wrong");
    assert_eq!(code(&refused), Some(7), "{refused:?}");
    assert!(!home.join(".docker").exists());

    let done = log_in(home, &server, PASSWORD);
    says(&done, "Login Succeeded\n");
    assert!(
        String::from_utf8_lossy(&done.stderr).contains("WARNING! Your credentials are stored unencrypted")
    );
    let file = home.join(".docker/config.json");
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&file), mode(file.parent().unwrap())), (0o600, 0o700));
    let held: serde_json::Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    assert_eq!(held["auths"][&server]["auth"], "YW5uYTpzM2NyM3QtbWFya2Vy");

    let again = run(home, &["login", &format!("http://{server}/v1/")], "");
    says(&again, "Login Succeeded\n");
    assert!(String::from_utf8_lossy(&again.stderr).contains("Authenticating with existing credentials"));

    let other = home.join(".config/containers");
    fs::create_dir_all(&other).unwrap();
    fs::copy(&file, other.join("auth.json")).unwrap();
    let out = run(home, &["logout", &server], "");
    says(&out, &format!("Removing login credentials for {server}\n"));
    assert!(String::from_utf8_lossy(&out.stderr).contains("auth.json still has credentials"), "{out:?}");
    fs::remove_file(other.join("auth.json")).unwrap();
    says(&run(home, &["logout", &server], ""), &format!("Not logged in to {server}\n"));
    let asks = run(home, &["login", &server], "");
    assert_eq!(code(&asks), Some(2), "{asks:?}");
}

#[test]
fn a_token_server_refuses_a_wrong_password() {
    if !require::registry() {
        return;
    }
    let tokens = TokenServer::start(TokenOptions::new().user(USER, PASSWORD, &[]));
    let registry = Registry::start(RegistryOptions::new().tokens(&tokens));
    let (home, server) = (home(), registry.host());
    let home = home.path();
    let refused = log_in(home, &server, "wrong");
    assert_eq!(code(&refused), Some(7), "{refused:?}");
    assert!(!home.join(".docker").exists());
    says(&log_in(home, &server, PASSWORD), "Login Succeeded\n");
    // With what has been kept, an identity token or the password.
    says(&run(home, &["login", &server], ""), "Login Succeeded\n");
}

#[test]
fn a_helper_keeps_what_no_file_does() {
    if !require::registry() {
        return;
    }
    let registry = Registry::start(RegistryOptions::new().user(USER, PASSWORD));
    let (home, server) = (home(), registry.host());
    let home = home.path();
    let file = home.join(".docker/config.json");
    fs::create_dir(home.join(".docker")).unwrap();
    fs::write(&file, r#"{"credsStore": "kept"}"#).unwrap();
    let missing = log_in(home, &server, PASSWORD);
    assert_eq!(code(&missing), Some(1), "{missing:?}");
    assert!(String::from_utf8_lossy(&missing.stderr).contains("docker-credential-kept is not installed"));

    let helper = CredentialHelper::write(home, "kept");
    let done = log_in(home, &server, PASSWORD);
    says(&done, "Login Succeeded\n");
    assert!(!String::from_utf8_lossy(&done.stderr).contains("WARNING"), "{done:?}");
    assert_eq!(helper.kept(&server), Some((USER.to_owned(), PASSWORD.to_owned())));
    assert!(!fs::read_to_string(&file).unwrap().contains("auth\""));
    says(&run(home, &["login", &server], ""), "Login Succeeded\n");
    says(&run(home, &["logout", &server], ""), &format!("Removing login credentials for {server}\n"));
    assert_eq!(helper.kept(&server), None);
}

#[test]
fn nobody_there_is_no_refusal() {
    let home = home();
    assert_eq!(code(&log_in(home.path(), "127.0.0.1:1", PASSWORD)), Some(8));
}
