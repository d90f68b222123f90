//! Pushes to registries that want to know who comes.

use std::fs;

use layerstore_testkit::authority::Authority;
use layerstore_testkit::registry::{Registry, RegistryOptions};
use layerstore_testkit::require;
use layerstore_testkit::sandbox::Sandbox;
use layerstore_testkit::tls_front::TlsFront;
use layerstore_testkit::token_server::{TokenOptions, TokenServer};

use super::{load, two_layers};
use crate::remote::{push, write_hosts};

/// `anna:pass` and `ben:pass`.
const ANNA: &str = "YW5uYTpwYXNz";
const BEN: &str = "YmVuOnBhc3M=";

#[track_caller]
fn setting(options: RegistryOptions) -> Option<(Sandbox, Registry, String)> {
    if !require::registry() {
        return None;
    }
    let (store, registry) = (Sandbox::new()?, Registry::start(options));
    let name = registry.reference("a:1");
    load(&store, &name, &two_layers("top"));
    Some((store, registry, name))
}

fn log_in(store: &Sandbox, registry: &Registry, auth: &str) {
    let dir = store.dir().join(".docker");
    fs::create_dir_all(&dir).unwrap();
    let text = format!(r#"{{"auths": {{"{}": {{"auth": "{auth}"}}}}}}"#, registry.host());
    fs::write(dir.join("config.json"), text).unwrap();
}

#[test]
fn privileged_a_password_is_needed() {
    let Some((store, registry, name)) = setting(RegistryOptions::new().user("anna", "pass")) else { return };
    push(&store, &[&name]).failure(7);
    log_in(&store, &registry, BEN);
    push(&store, &[&name]).failure(7);
    assert_eq!(registry.tags("a"), Vec::<String>::new());
    log_in(&store, &registry, ANNA);
    push(&store, &[&name]).success();
    assert_eq!(registry.tags("a"), ["1"]);
}

#[test]
fn privileged_a_token_for_pushing_is_needed() {
    let rights = TokenOptions::new().anonymous(&[("*", "pull")]);
    let rights = rights.user("anna", "pass", &[("a", "pull,push")]).user("ben", "pass", &[("a", "pull")]);
    let tokens = TokenServer::start(rights);
    let Some((store, registry, name)) = setting(RegistryOptions::new().tokens(&tokens)) else { return };
    push(&store, &[&name]).failure(7);
    log_in(&store, &registry, BEN);
    push(&store, &[&name]).failure(7);
    log_in(&store, &registry, ANNA);
    push(&store, &[&name]).success();
    assert_eq!(registry.tags("a"), ["1"]);
}

#[test]
fn privileged_a_mount_asks_for_both_repositories() {
    let tokens = TokenServer::start(TokenOptions::new().user("anna", "pass", &[("*", "pull,push")]));
    let Some((store, registry, name)) = setting(RegistryOptions::new().tokens(&tokens)) else { return };
    log_in(&store, &registry, ANNA);
    push(&store, &[&name]).success();
    let other = registry.reference("b:1");
    load(&store, &other, &two_layers("other"));
    push(&store, &[&other]).success();
    registry.wait_for_log(|log| log.contains("\"PUT /v2/b/manifests/1"));
    assert_eq!(registry.mounts(), 1, "{:?}", tokens.requests());
}

/// Such a registry gives addresses of itself that begin with `http`.
#[test]
fn privileged_a_registry_that_does_not_know_of_its_tls_gets_its_uploads() {
    let options = RegistryOptions::new().user("anna", "pass");
    let Some((store, registry, _)) = setting(options) else { return };
    let front = TlsFront::start(registry.address(), &Authority::new());
    let name = format!("{}/a:1", front.host());
    load(&store, &name, &two_layers("top"));
    let dir = store.dir().join(".docker");
    fs::create_dir_all(&dir).unwrap();
    let login = format!(r#"{{"auths": {{"{}": {{"auth": "{ANNA}"}}}}}}"#, front.host());
    fs::write(dir.join("config.json"), login).unwrap();
    write_hosts(&store, &front.host(), &format!("server = \"{}\"\nskip_verify = true\n", front.url()));
    for (tag, arguments) in [("1", &[][..]), ("2", &["--chunk-size", "1K"])] {
        let to = format!("{}/a:{tag}", front.host());
        push(&store, &[arguments, &[&name, &to]].concat()).success();
        assert!(registry.tags("a").iter().any(|stored| stored == tag));
    }
}
