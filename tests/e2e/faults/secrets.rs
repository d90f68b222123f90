//! What is a secret is nowhere to be read: not in what is printed, nor in the store, nor in the process table.

use std::fs;
use std::path::Path;
use std::process::Stdio;

use layerstore_testkit::fault_proxy::{Fault, Match};
use layerstore_testkit::registry::RegistryOptions;
use layerstore_testkit::sandbox::Run;
use layerstore_testkit::token_server::{TokenOptions, TokenServer};

use super::{RETRY, SIZE, Setup};

const PASSWORD: &str = "s3cr3t-marker";
/// `anna:s3cr3t-marker` and `s3cr3t-marker` in base64.
const ENCODED: [&str; 2] = ["YW5uYTpzM2NyM3QtbWFya2Vy", "czNjcjN0LW1hcmtlcg"];

/// Everything below `dir`, file by file.
fn all_files(dir: &Path, each: &mut dyn FnMut(&Path, &[u8])) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.is_symlink() {
            all_files(&path, each);
        } else if path.is_file() {
            each(&path, &fs::read(&path).unwrap());
        }
    }
}

/// Pulls in good and in bad times as `anna`, and looks for secrets everywhere.
fn look(setup: &Setup) {
    let pair = ENCODED[0];
    let auth = format!(r#"{{"auths": {{"{}": {{"auth": "{pair}"}}}}}}"#, setup.proxy.host());
    fs::write(setup.store.dir().join("auth.json"), auth).unwrap();
    let name = setup.name();
    let secrets = || {
        let sent = setup.proxy.traffic().exchanges();
        let sent = sent.iter().filter_map(|exchange| exchange.header("Authorization"));
        let mut secrets: Vec<String> =
            sent.map(|value| value.rsplit(' ').next().unwrap().to_owned()).collect();
        assert!(!secrets.is_empty());
        secrets.extend([PASSWORD, ENCODED[0], ENCODED[1]].map(str::to_owned));
        secrets
    };
    let clean = |what: &str, bytes: &[u8]| {
        let text = String::from_utf8_lossy(bytes);
        for secret in secrets() {
            assert!(!text.contains(&secret), "a secret is in {what}: {text}");
        }
    };

    // All kinds of failures on the way.
    setup.proxy.on(setup.of_layer(0).first(1), Fault::Cut { after: 1000 });
    setup.proxy.on(setup.of_layer(0).nth(2), Fault::status(500));
    setup.proxy.on(setup.of_layer(0).nth(3), Fault::Stall { after: SIZE as u64 / 2 });
    let mut command =
        setup.command("pull", "attempts=3,wait=5ms,stall=60s", &[&name, "-vvv", "--parallel", "1"]);
    let (out, err) = (setup.store.dir().join("out"), setup.store.dir().join("err"));
    command.stdin(Stdio::null());
    command.stdout(fs::File::create(&out).unwrap()).stderr(fs::File::create(&err).unwrap());
    let mut child = command.spawn().unwrap();
    setup.proxy.traffic().wait_until_served(&setup.layer(0).0, SIZE as u64 / 2 + 1000);
    for file in ["cmdline", "environ"] {
        let bytes = fs::read(format!("/proc/{}/{file}", child.id())).unwrap();
        assert!(file == "environ" || !bytes.is_empty());
        clean(file, &bytes);
    }
    child.kill().unwrap();
    child.wait().unwrap();
    for file in [&out, &err] {
        clean("the output", &fs::read(file).unwrap());
    }
    assert!(!fs::read(&err).unwrap().is_empty());

    let run = |verb: &str, arguments: &[&str]| -> Run {
        let run = Run::of(&mut setup.command(verb, RETRY, arguments), &[]);
        clean(verb, format!("{run}").as_bytes());
        run
    };
    setup.proxy.heal();
    setup.proxy.on(setup.of_layer(0), Fault::status_with(401, "WWW-Authenticate", r#"Basic realm="x""#));
    assert_eq!(run("pull", &[&name, "-vvv"]).code, 7);
    setup.proxy.heal();
    setup.proxy.on(Match::get("/manifests/").first(1), Fault::status(500));
    run("pull", &[&name, "-vvv"]).success();
    run("push", &[&name, "-vvv"]).success();
    for arguments in [&["info", "-vvv"][..], &["inspect", &name], &["history", &name]] {
        clean(arguments[0], setup.store.ok(arguments).as_bytes());
    }
    all_files(setup.store.root(), &mut |path, bytes| clean(&path.display().to_string(), bytes));
}

#[test]
fn privileged_a_password_is_nowhere_to_be_read() {
    let Some(setup) = Setup::with(RegistryOptions::new().user("anna", PASSWORD)) else { return };
    look(&setup);
}

#[test]
fn privileged_a_token_is_nowhere_to_be_read() {
    let tokens = TokenServer::start(TokenOptions::new().user("anna", PASSWORD, &[("a", "pull,push")]));
    let Some(setup) = Setup::with(RegistryOptions::new().tokens(&tokens)) else { return };
    look(&setup);
}
