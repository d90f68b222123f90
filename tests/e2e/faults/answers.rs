//! Answers that are refusals, detours or no manifests.

use std::fs;
use std::time::Duration;

use layerstore_testkit::authority::Authority;
use layerstore_testkit::bucket::Bucket;
use layerstore_testkit::fault_proxy::{Fault, FaultProxy, Match};
use layerstore_testkit::image::{Layout, MANIFEST};
use layerstore_testkit::registry::RegistryOptions;
use layerstore_testkit::sandbox::Run;
use layerstore_testkit::tls_front::TlsFront;
use layerstore_testkit::token_server::{TokenOptions, TokenServer};

use super::{RETRY, Setup, assert_says};

#[test]
fn privileged_too_many_requests_are_made_later() {
    let Some(setup) = Setup::new() else { return };
    setup.proxy.on(setup.of_layer(0).first(1), Fault::status_with(429, "Retry-After", "1"));
    let run = setup.pull_with("longest=5s").success();
    assert!(run.time >= Duration::from_secs(1), "{run}");
    assert_eq!(setup.asked(0).len(), 2);
    setup.assert_here();
}

#[test]
fn privileged_nobody_waits_for_an_hour() {
    let Some(setup) = Setup::new() else { return };
    for part in ["/manifests/", "/blobs/"] {
        setup.proxy.heal();
        setup.proxy.on(Match::new("", part), Fault::status_with(429, "Retry-After", "3600"));
        let run = setup.pull_with("longest=60s");
        assert!(run.time < Duration::from_secs(10), "{run}");
        assert_says(&run.failure(8), "too many requests");
        setup.assert_nothing_named();
    }
}

#[test]
fn privileged_an_error_of_the_server_may_pass() {
    let Some(setup) = Setup::new() else { return };
    setup.proxy.on(Match::get("/manifests/").first(2), Fault::status(500));
    setup.proxy.on(setup.of_layer(0).first(2), Fault::status(503));
    setup.pull().success();
    assert_eq!((setup.asked(0).len(), setup.served(0) > setup.layer(0).1), (3, true));
    setup.assert_here();
}

#[test]
fn privileged_an_error_of_the_server_that_stays_is_one() {
    let Some(setup) = Setup::new() else { return };
    setup.proxy.on(setup.of_layer(0), Fault::status(500));
    assert_says(&setup.fails(8), "500");
    assert_eq!(setup.asked(0).len(), 3);
    setup.proxy.on(Match::get("/manifests/"), Fault::status(502));
    assert_says(&setup.fails(8), "502");
}

#[test]
fn privileged_what_the_registry_does_not_have_is_not_found() {
    let Some(setup) = Setup::new() else { return };
    setup.proxy.on(setup.of_layer(0), Fault::status(404));
    assert_says(&setup.fails(3), &setup.layer(0).0);
    assert_eq!(setup.asked(0).len(), 1);
}

#[test]
fn privileged_a_token_that_is_refused_in_the_middle_is_replaced() {
    let tokens = TokenServer::start(TokenOptions::new().anonymous(&[("a", "pull")]));
    let Some(setup) = Setup::with(RegistryOptions::new().tokens(&tokens)) else { return };
    let challenge = format!(
        r#"Bearer realm="{}",service="{}",scope="repository:a:pull",error="invalid_token""#,
        tokens.realm(),
        tokens.service()
    );
    setup.proxy.on(setup.of_layer(0).first(1), Fault::Cut { after: 1000 });
    setup.proxy.on(setup.of_layer(0).nth(2), Fault::status_with(401, "WWW-Authenticate", &challenge));
    setup.pull().success();
    assert_eq!(tokens.requests().len(), 2, "{:?}", tokens.requests());
    assert_eq!((setup.asked(0).len(), setup.served(0) >= setup.layer(0).1), (3, true));
    setup.assert_here();
}

#[test]
fn privileged_a_refusal_that_stays_is_one() {
    let Some(setup) = Setup::new() else { return };
    setup.proxy.on(setup.of_layer(0), Fault::status_with(401, "WWW-Authenticate", r#"Basic realm="x""#));
    assert_says(&setup.fails(7), "unauthorized");
    assert_eq!(setup.asked(0).len(), 1);
}

#[test]
fn privileged_where_a_redirect_leads_nobody_sees_the_credentials() {
    let Some(setup) = Setup::with(RegistryOptions::new().user("anna", "marker")) else { return };
    let bucket = Bucket::start(&Layout::of("localhost/a:1", &setup.image));
    setup.proxy.on(Match::get("/blobs/"), Fault::Redirect { status: 307, to: bucket.url() });
    let (host, url) = (setup.proxy.host(), setup.proxy.url());
    // "anna:marker"
    let auth = format!(r#"{{"auths": {{"{host}": {{"auth": "YW5uYTptYXJrZXI="}}}}}}"#);
    fs::write(setup.store.dir().join("auth.json"), auth).unwrap();
    setup.hosts(&format!("[host.\"{url}\"]\n[host.\"{url}\".header]\nX-Configured = [\"marker\"]\n"));
    setup.pull().success();
    setup.assert_here();
    let manifests = setup.proxy.traffic().of("/manifests/");
    let last = manifests.last().unwrap();
    assert!(last.header("Authorization").is_some() && last.header("X-Configured") == Some("marker"));
    let seen = bucket.traffic().exchanges();
    assert_eq!(bucket.traffic().count("GET", &setup.layer(0).0), 1);
    for exchange in seen {
        assert_eq!((exchange.header("Authorization"), exchange.header("X-Configured")), (None, None));
        assert!(!format!("{exchange:?}").contains("marker"), "{exchange:?}");
    }
}

#[test]
fn privileged_where_a_redirect_leads_nobody_gets_the_credentials_by_asking() {
    let Some(setup) = Setup::with(RegistryOptions::new().user("anna", "marker")) else { return };
    let elsewhere = FaultProxy::start(setup.registry.address());
    elsewhere.on(Match::any(), Fault::status_with(401, "WWW-Authenticate", r#"Basic realm="tests""#));
    setup.proxy.on(setup.of_layer(0), Fault::Redirect { status: 307, to: elsewhere.url() });
    let auth = format!(r#"{{"auths": {{"{}": {{"auth": "YW5uYTptYXJrZXI="}}}}}}"#, setup.proxy.host());
    fs::write(setup.store.dir().join("auth.json"), auth).unwrap();
    setup.fails(7);
    let seen = elsewhere.traffic().exchanges();
    assert!(!seen.is_empty() && seen.iter().all(|exchange| exchange.header("Authorization").is_none()));
}

#[test]
fn privileged_redirects_in_a_circle_end() {
    let Some(setup) = Setup::new() else { return };
    setup.proxy.on(setup.of_layer(0), Fault::Redirect { status: 302, to: setup.proxy.url() });
    assert_says(&setup.fails(8), "too many redirects");
    assert_eq!(setup.asked(0).len(), 11);
}

#[test]
fn privileged_nobody_is_led_from_tls_to_plain_http() {
    let Some(setup) = Setup::with(RegistryOptions::new().relative_urls()) else { return };
    let authority = Authority::new();
    let bucket = Bucket::start(&Layout::of("localhost/a:1", &setup.image));
    let front = TlsFront::start(setup.proxy.address(), &authority);
    let certificates = setup.store.dir().join("hosts").join(front.host());
    fs::create_dir_all(&certificates).unwrap();
    fs::write(certificates.join("ca.crt"), authority.pem()).unwrap();
    setup.proxy.on(Match::get("/blobs/"), Fault::Redirect { status: 307, to: bucket.url() });
    let name = format!("{}/a:1", front.host());
    let pull = || Run::of(&mut setup.command("pull", RETRY, &[&name]), &[]);
    assert_says(&pull().failure(8), "plain HTTP after TLS is not accepted");
    setup.assert_nothing_named();
    assert!(bucket.traffic().requests().is_empty());
    setup.proxy.heal();
    pull().success();
}

#[test]
fn privileged_a_mirror_that_has_it_wrong_does_not_matter() {
    let Some(setup) = Setup::new() else { return };
    let mirror = FaultProxy::start(setup.registry.address());
    mirror.on(setup.of_layer(0), Fault::Flip { at: 1000 });
    setup.hosts(&format!("server = \"{}\"\n[host.\"{}\"]\n", setup.proxy.url(), mirror.url()));
    setup.pull().success();
    setup.assert_here();
    assert_eq!(mirror.traffic().of(&setup.layer(0).0).len(), 1);
    assert_eq!((setup.served(0), setup.served(1)), (setup.layer(0).1, 0));
}

#[test]
fn privileged_a_manifest_that_is_cut_is_asked_for_again() {
    let Some(setup) = Setup::new() else { return };
    setup.proxy.on(Match::get("/manifests/").first(1), Fault::Cut { after: 100 });
    setup.proxy.on(Match::get("/manifests/").nth(2), Fault::Truncate { after: 100 });
    setup.pull().success();
    setup.assert_here();
}

#[test]
fn privileged_a_manifest_that_is_cut_each_time_is_refused() {
    let Some(setup) = Setup::new() else { return };
    let manifests = || Match::get("/manifests/");
    for (fault, code) in [
        (Fault::Cut { after: 100 }, 8),
        (Fault::Truncate { after: 100 }, 5),
        (Fault::WrongLength { by: -100 }, 5),
        (Fault::WrongLength { by: 100 }, 8),
    ] {
        setup.proxy.heal();
        setup.proxy.on(manifests(), fault);
        assert_says(&setup.fails(code), "image `a:1`");
    }
    // No digest came with it that it could be compared with.
    let headers = vec![("Content-Type".to_owned(), MANIFEST.to_owned())];
    let body = setup.image.manifest().to_string().into_bytes()[..100].to_vec();
    setup.proxy.heal();
    setup.proxy.on(manifests(), Fault::Answer { status: 200, headers, body });
    assert_says(&setup.fails(1), "is not a usable manifest or index");
}

#[test]
fn privileged_a_manifest_without_end_is_refused_at_once() {
    let Some(setup) = Setup::new() else { return };
    for length in [None, Some(5 << 30)] {
        setup.proxy.heal();
        setup.proxy.on(Match::get("/manifests/"), Fault::Flood { media_type: MANIFEST.to_owned(), length });
        let run = setup.pull();
        assert!(run.time < Duration::from_secs(3) && run.peak < 100 << 20, "{} {run}", run.peak);
        assert_says(&run.failure(1), "sends more than");
        setup.assert_nothing_named();
    }
}

#[test]
fn privileged_a_config_that_is_damaged_once_is_asked_for_again() {
    let Some(setup) = Setup::new() else { return };
    let config = setup.image.id();
    setup.proxy.on(Match::get(&config), Fault::Flip { at: 20 });
    assert_says(&setup.fails(5), &config);
    assert!(setup.asked(0).is_empty() && setup.asked(1).is_empty());
    setup.proxy.heal();
    setup.proxy.on(Match::get(&config).first(1), Fault::Flip { at: 20 });
    setup.pull().success();
    setup.assert_here();
}

#[test]
fn privileged_another_digest_than_announced_is_refused() {
    let Some(setup) = Setup::new() else { return };
    let digest = |value: Option<&str>| Fault::Header {
        name: "Docker-Content-Digest".to_owned(),
        value: value.map(str::to_owned),
    };
    setup.proxy.on(Match::new("", "/manifests/"), digest(Some(&setup.image.id())));
    setup.fails(5);
    setup.proxy.heal();
    setup.proxy.on(Match::new("", "/manifests/"), digest(None));
    setup.pull().success();
    setup.assert_here();
}

#[test]
fn privileged_what_a_server_says_of_the_type_and_the_coding_does_not_matter() {
    let Some(setup) = Setup::new() else { return };
    let field =
        |name: &str, value: &str| Fault::Header { name: name.to_owned(), value: Some(value.to_owned()) };
    setup.proxy.on(setup.of_layer(0), field("Content-Encoding", "gzip"));
    setup.proxy.on(setup.of_layer(1), field("Content-Encoding", "br"));
    setup.proxy.on(Match::get("/manifests/"), field("Content-Type", "text/html"));
    setup.pull().success();
    setup.assert_here();
}

#[test]
fn privileged_a_registry_that_is_gone_may_be_done_without() {
    let Some(setup) = Setup::new() else { return };
    setup.pull().success();
    setup.proxy.on(Match::any(), Fault::HangUp);
    let name = setup.name();
    let pull = |policy| Run::of(&mut setup.command("pull", RETRY, &["--policy", policy, &name]), &[]);
    assert_says(&pull("always").failure(8), "cannot reach");
    assert_says(&pull("newer").success().stderr, "the image in the store is used");
    setup.proxy.traffic().clear();
    pull("missing").success();
    assert!(setup.proxy.traffic().requests().is_empty());
    setup.assert_here();
}
