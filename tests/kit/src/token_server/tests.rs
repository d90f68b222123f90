//! What the server gives, and that a real registry takes it.

use base64::prelude::BASE64_URL_SAFE_NO_PAD;

use super::*;
use crate::authority::Authority;
use crate::http::{Answer, get, request};
use crate::image::Image;
use crate::layer::LayerBuilder;
use crate::registry::{Registry, RegistryOptions, Tls};
use crate::require;
use crate::tls_front::TlsFront;

fn options() -> TokenOptions {
    TokenOptions::new().user("anna", "pass", &[("a/b", "pull,push")]).anonymous(&[("*", "pull")])
}

fn basic(login: &str) -> String {
    format!("Basic {}", BASE64_STANDARD.encode(login))
}

fn document(answer: &Answer) -> Value {
    assert_eq!(answer.status, 200, "{answer:?}");
    serde_json::from_slice(&answer.body).unwrap()
}

/// What the token in an answer lets its bearer do.
fn access(answer: &Answer) -> Value {
    let token = document(answer)["access_token"].as_str().unwrap().to_owned();
    let claims = BASE64_URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
    serde_json::from_slice::<Value>(&claims).unwrap()["access"].clone()
}

#[test]
fn a_token_has_the_rights_that_were_asked_for_and_are_allowed() {
    let server = TokenServer::start(options());
    let target = "/token?service=x&scope=repository%3Aa%2Fb%3Apull%2Cpush&scope=repository:c:pull,push";
    let named = |name, actions: &[&str]| json!({"type": "repository", "name": name, "actions": actions});
    let answer = get(server.address(), target).unwrap();
    assert_eq!(access(&answer), json!([named("a/b", &["pull"]), named("c", &["pull"])]));
    let login = basic("anna:pass");
    let answer = request(server.address(), "GET", target, &[("Authorization", &login)], b"").unwrap();
    assert_eq!(access(&answer), json!([named("a/b", &["pull", "push"]), named("c", &[])]));
    assert_eq!(document(&answer)["expires_in"], 300);

    let requests = server.requests();
    assert_eq!(requests[0].scopes(), ["repository:a/b:pull,push", "repository:c:pull,push"]);
    assert_eq!((requests[0].user.as_deref(), requests[1].user.as_deref()), (None, Some("anna")));
}

#[test]
fn a_wrong_login_gets_no_token() {
    let server = TokenServer::start(options());
    let login = basic("anna:guess");
    let answer = request(server.address(), "GET", "/token", &[("Authorization", &login)], b"").unwrap();
    assert_eq!((answer.status, server.requests()[0].status), (401, 401));
}

#[test]
fn a_form_gets_a_token_for_a_password_or_a_refresh_token() {
    let server = TokenServer::start(options());
    let post = |form: &str| request(server.address(), "POST", "/token", &[], form.as_bytes()).unwrap();
    let answer = post("grant_type=password&username=anna&password=pass&access_type=offline&client_id=x");
    let refresh = document(&answer)["refresh_token"].as_str().unwrap().to_owned();
    assert_eq!(refresh, server.refresh_token("anna"));
    let scope = "scope=repository:a/b:push+repository:c:pull";
    let answer = post(&format!("grant_type=refresh_token&refresh_token={refresh}&{scope}"));
    assert_eq!(access(&answer)[0]["actions"], json!(["push"]));
    assert_eq!(post("grant_type=refresh_token&refresh_token=guess").status, 401);

    let server = TokenServer::start(options().without_post().without_expiry());
    assert_eq!(request(server.address(), "POST", "/token", &[], b"x=y").unwrap().status, 405);
    assert!(document(&get(server.address(), "/token").unwrap()).get("expires_in").is_none());
}

#[test]
fn a_real_registry_takes_a_token_as_long_as_it_is_good() {
    if !require::registry() {
        return;
    }
    let server = TokenServer::start(options());
    let registry = Registry::start(RegistryOptions::new().tokens(&server));
    registry.push("a/b:1", &Image::new([LayerBuilder::gzip().file("f", "x").finish()]));
    let manifest = "/v2/a/b/manifests/1";
    let answer = get(registry.address(), manifest).unwrap();
    assert_eq!(answer.status, 401);
    let challenge = answer.header("WWW-Authenticate").unwrap();
    assert!(challenge.contains(&server.realm()), "{challenge}");

    let fetch = |token: &str| {
        let bearer = format!("Bearer {token}");
        request(registry.address(), "GET", manifest, &[("Authorization", &bearer)], b"").unwrap().status
    };
    assert_eq!(fetch(&server.token(&[("a/b", "pull")])), 200);
    assert_eq!(fetch(&server.token(&[("a/c", "pull")])), 401);
    let spent = server.shared.signer.token(
        "",
        &[json!({"type": "repository", "name": "a/b", "actions": ["pull"]})],
        Duration::ZERO,
    );
    assert_eq!(fetch(&spent), 401);
}

#[test]
fn a_realm_may_be_one_with_tls() {
    if !require::registry() {
        return;
    }
    let authority = Authority::new();
    let server = TokenServer::start(options());
    let front = TlsFront::start(server.address(), &authority);
    let realm = format!("{}/token", front.url());
    let options = RegistryOptions::new().tokens_from(&server, &realm);
    let plain = Registry::start(options.clone());
    let challenge = get(plain.address(), "/v2/").unwrap();
    assert!(challenge.header("WWW-Authenticate").unwrap().contains(&realm));
    let registry = Registry::start(options.tls_of(&authority, Tls::Server));
    assert_eq!(std::fs::read_to_string(registry.ca()).unwrap(), authority.pem());
}
