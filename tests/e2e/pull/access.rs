//! Registries with TLS, passwords and tokens.

use std::fs;
use std::path::Path;

use layerstore_testkit::authority::Authority;
use layerstore_testkit::credential_helper::CredentialHelper;
use layerstore_testkit::registry::{Registry, RegistryOptions, Tls};
use layerstore_testkit::require;
use layerstore_testkit::sandbox::{Run, Sandbox};
use layerstore_testkit::token_server::{TokenOptions, TokenServer};

use super::two_layers;
use crate::remote::{assert_holds, hosts_dir, pull, remote, write_hosts};

const USER: &str = "anna";
const PASSWORD: &str = "s3cr3t-marker";
/// `anna:s3cr3t-marker` and `anna:wrong`.
const GOOD: &str = "YW5uYTpzM2NyM3QtbWFya2Vy";
const WRONG: &str = "YW5uYTp3cm9uZw==";

/// A store, a registry that has `a:1`, and the reference to that.
#[track_caller]
fn private(options: RegistryOptions) -> Option<(Sandbox, Registry, String)> {
    if !require::registry() {
        return None;
    }
    let store = Sandbox::new()?;
    let registry = Registry::start(options);
    registry.push("a:1", &two_layers("top"));
    let name = registry.reference("a:1");
    Some((store, registry, name))
}

/// Writes a file with one login in Docker's form.
fn write_login(file: &Path, server: &str, auth: &str) {
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(file, format!(r#"{{"auths": {{"{server}": {{"auth": "{auth}"}}}}}}"#)).unwrap();
}

/// A refusal that names what to do, and no secret.
#[track_caller]
fn assert_refused(run: Run, registry: &Registry) {
    assert!(run.stderr.contains(&format!("hint: `layerstore login {}`", registry.host())), "{run}");
    assert!(!run.stderr.contains(PASSWORD) && !run.stderr.contains(GOOD), "{run}");
    run.failure(7);
}

/// Of a registry on this machine any certificate is taken, so it has another name here.
#[test]
fn privileged_an_unknown_authority_is_refused_with_a_hint() {
    let Some((store, registry, _)) = private(RegistryOptions::new().tls(Tls::Server)) else { return };
    write_hosts(&store, "registry.invalid", &format!("server = '{}'\n", registry.url()));
    let run = pull(&store, &["registry.invalid/a:1"]);
    let hint = format!("/etc/docker/certs.d/{}/ca.crt", registry.host());
    assert!(run.stderr.contains(&hint) && run.stderr.contains("--insecure"), "{run}");
    run.failure(8);
    write_hosts(&store, "registry.invalid", &format!("server = '{}'\nskip_verify = true\n", registry.url()));
    pull(&store, &["registry.invalid/a:1"]).success();
    assert_holds(&store, "registry.invalid/a:1", &["base", "top"]);
}

#[test]
fn privileged_a_given_authority_is_the_only_good_one_unless_insecure() {
    let Some((store, registry, name)) = private(RegistryOptions::new().tls(Tls::Server)) else { return };
    let dir = hosts_dir(&store).join(registry.host());
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("ca.crt"), Authority::new().pem()).unwrap();
    pull(&store, &[&name]).failure(8);
    pull(&store, &["--insecure", &name]).success();
    assert_holds(&store, &name, &["base", "top"]);
}

#[test]
fn privileged_an_own_authority_is_in_dockers_directory() {
    let Some((store, registry, name)) = private(RegistryOptions::new().tls(Tls::Server)) else { return };
    let certs = registry.certs_d();
    remote(&store, &["pull", "--hosts-dir", certs.to_str().unwrap()], &[&name]).success();
    assert_holds(&store, &name, &["base", "top"]);
}

#[test]
fn privileged_an_own_authority_is_in_a_hosts_file() {
    let Some((store, registry, name)) = private(RegistryOptions::new().tls(Tls::Server)) else { return };
    let toml = format!("server = '{0}'\n[host.'{0}']\nca = '{1}'\n", registry.url(), registry.ca().display());
    write_hosts(&store, &registry.host(), &toml);
    pull(&store, &[&name]).success();
    assert_holds(&store, &name, &["base", "top"]);
}

#[test]
fn privileged_a_server_without_tls_is_known_as_such() {
    let Some((store, registry, _)) = private(RegistryOptions::new()) else { return };
    write_hosts(&store, "registry.invalid", &format!("server = 'https://{}'\n", registry.host()));
    let run = pull(&store, &["registry.invalid/a:1"]);
    assert!(run.stderr.contains("hint: for plain HTTP give --plain-http"), "{run}");
    run.failure(8);
}

#[test]
fn privileged_on_this_machine_any_certificate_is_good() {
    let Some((store, _registry, name)) = private(RegistryOptions::new().tls(Tls::Server)) else { return };
    pull(&store, &[&name]).success();
    assert_holds(&store, &name, &["base", "top"]);
}

#[test]
fn privileged_a_client_certificate_opens_the_door() {
    let Some((store, registry, name)) = private(RegistryOptions::new().tls(Tls::Mutual)) else { return };
    pull(&store, &["--insecure", &name]).failure(8);
    let certs = registry.certs_d();
    remote(&store, &["pull", "--hosts-dir", certs.to_str().unwrap()], &[&name]).success();
    assert_holds(&store, &name, &["base", "top"]);
}

#[test]
fn privileged_a_password_comes_from_dockers_file() {
    let Some((store, registry, name)) = private(RegistryOptions::new().user(USER, PASSWORD)) else { return };
    let file = store.dir().join(".docker/config.json");
    assert_refused(pull(&store, &[&name]), &registry);
    write_login(&file, &registry.host(), WRONG);
    assert_refused(pull(&store, &[&name]), &registry);
    write_login(&file, &registry.host(), GOOD);
    pull(&store, &[&name]).success();
    assert_holds(&store, &name, &["base", "top"]);
}

#[test]
fn privileged_a_password_comes_from_podmans_files() {
    let Some((store, registry, name)) = private(RegistryOptions::new().user(USER, PASSWORD)) else { return };
    for place in ["run/containers/auth.json", ".config/containers/auth.json"] {
        let file = store.dir().join(place);
        write_login(&file, &registry.host(), GOOD);
        remote(&store, &["manifest", "inspect"], &[&name]).success();
        fs::remove_file(file).unwrap();
    }
    assert_refused(pull(&store, &[&name]), &registry);
}

#[test]
fn privileged_a_named_file_of_logins_is_the_only_one() {
    let Some((store, registry, name)) = private(RegistryOptions::new().user(USER, PASSWORD)) else { return };
    write_login(&store.dir().join(".docker/config.json"), &registry.host(), GOOD);
    let file = store.dir().join("mine.json");
    write_login(&file, "elsewhere.example", GOOD);
    let with_file = || pull(&store, &["--authfile", file.to_str().unwrap(), &name]);
    assert_refused(with_file(), &registry);
    write_login(&file, &registry.host(), GOOD);
    with_file().success();
}

#[test]
fn privileged_a_helper_has_the_password() {
    let Some((store, registry, name)) = private(RegistryOptions::new().user(USER, PASSWORD)) else { return };
    let helper = CredentialHelper::write(store.dir(), "kept");
    helper.keep(&registry.host(), USER, PASSWORD);
    fs::create_dir(store.dir().join(".docker")).unwrap();
    let config = format!(r#"{{"credHelpers": {{"{}": "kept"}}}}"#, registry.host());
    fs::write(store.dir().join(".docker/config.json"), config).unwrap();
    let hosts = hosts_dir(&store);
    let mut command = store.command(["pull", "--hosts-dir", hosts.to_str().unwrap(), &name]);
    command.env("XDG_RUNTIME_DIR", store.dir().join("run"));
    command.env("PATH", format!("{}:/usr/bin:/bin", store.dir().display()));
    Run::of(&mut command, &[]).success();
    assert!(helper.calls().iter().all(|call| call == "get"), "{:?}", helper.calls());
    assert_holds(&store, &name, &["base", "top"]);
}

#[test]
fn privileged_a_token_without_a_name() {
    let tokens = TokenServer::start(TokenOptions::new().anonymous(&[("a", "pull")]));
    let Some((store, registry, name)) = private(RegistryOptions::new().tokens(&tokens)) else { return };
    registry.push("b:1", &two_layers("top"));
    pull(&store, &[&name]).success();
    assert_holds(&store, &name, &["base", "top"]);
    let requests = tokens.requests();
    assert_eq!(requests.len(), 1, "one token is enough: {requests:?}");
    assert_eq!(requests[0].scopes(), ["repository:a:pull"]);
    assert_refused(pull(&store, &[&registry.reference("b:1")]), &registry);
}

#[test]
fn privileged_a_token_for_a_user() {
    let tokens = TokenServer::start(TokenOptions::new().user(USER, PASSWORD, &[("a", "pull")]));
    let Some((store, registry, name)) = private(RegistryOptions::new().tokens(&tokens)) else { return };
    let file = store.dir().join(".docker/config.json");
    assert_refused(pull(&store, &[&name]), &registry);
    write_login(&file, &registry.host(), WRONG);
    let wrong = pull(&store, &[&name]);
    assert!(wrong.stderr.contains("layerstore login"), "{wrong}");
    wrong.failure(7);
    write_login(&file, &registry.host(), GOOD);
    pull(&store, &[&name]).success();
    assert!(tokens.requests().iter().any(|request| request.user.as_deref() == Some(USER)));
    assert_holds(&store, &name, &["base", "top"]);
}
