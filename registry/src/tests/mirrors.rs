use std::fs;

use super::*;
use crate::{AuthFiles, Error, Selector};

const CONTENT: &[u8] = b"{\"some\": \"content\"}";

/// A registry with mirrors before it; `more` is what the configuration has for each.
struct Mirrored {
    options: HostOptions,
    _directory: tempfile::TempDir,
}

impl Mirrored {
    fn new(registry: &Server, mirrors: &[&Server], more: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut text = format!("server = '{}'\n", registry.url(""));
        for mirror in mirrors {
            text.extend(["[host.'", &mirror.url(""), "']\n", more, "\n"]);
        }
        let path = directory.path().join(&registry.address);
        fs::create_dir(&path).unwrap();
        fs::write(path.join("hosts.toml"), text).unwrap();
        let options = HostOptions { containerd: vec![directory.path().to_owned()], ..HostOptions::default() };
        Self { options, _directory: directory }
    }

    fn client(&self, credential_for: &Server) -> Client {
        let fixed = FixedCredential::new(&credential_for.address, user()).unwrap();
        client(Options { hosts: self.options.clone(), credentials: Some(Arc::new(fixed)), ..options() })
    }
}

#[test]
fn content_that_a_mirror_has_changed_comes_from_the_registry() {
    let mirror = Server::always(answer("200 OK", "", &CONTENT.to_ascii_uppercase()));
    let registry = Server::always(answer("200 OK", "", CONTENT));
    let mirrored = Mirrored::new(&registry, &[&mirror], "");
    let client = mirrored.client(&registry);
    let repository = repository(&client, &registry.address);
    let digest = digest(CONTENT);
    assert_eq!(repository.manifest(Selector::Digest(&digest)).unwrap().bytes, CONTENT);
    assert_eq!((mirror.asked(), registry.asked()), (2, 1));
    assert_eq!(repository.small_blob(&digest, CONTENT.len() as u64).unwrap(), CONTENT);
    assert_eq!((mirror.asked(), registry.asked()), (3, 2));
    assert!(mirror.requests()[0].contains(&format!("?ns={}", registry.address.replace(':', "%3A"))));
}

#[test]
fn a_download_goes_on_at_the_next_host() {
    let mirror = Server::new(|_, number| match number {
        0 => claiming("200 OK", "", &CONTENT[..5], CONTENT.len()),
        _ => answer("503 Service Unavailable", "", b""),
    });
    let registry = Server::new(|request, _| {
        let first = range(request).unwrap();
        let header = format!("Content-Range: bytes {first}-{}/{}\r\n", CONTENT.len() - 1, CONTENT.len());
        answer("206 Partial Content", &header, &CONTENT[first..])
    });
    let mirrored = Mirrored::new(&registry, &[&mirror], "");
    let client = mirrored.client(&registry);
    let repository = repository(&client, &registry.address);
    let mut bytes = Vec::new();
    repository.download(&digest(CONTENT), CONTENT.len() as u64, 0).read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes, CONTENT);
    assert_eq!((mirror.asked(), registry.asked()), (2, 1));
}

#[test]
fn a_mirror_does_not_get_the_password_of_the_registry() {
    let mirror = Server::always(answer("401 Unauthorized", BASIC, b""));
    let registry = Server::new(|request, _| {
        if request.contains(ENCODED) {
            answer("200 OK", "", CONTENT)
        } else {
            answer("401 Unauthorized", BASIC, b"")
        }
    });
    let mirrored = Mirrored::new(&registry, &[&mirror], "");
    let client = mirrored.client(&registry);
    let fetched = repository(&client, &registry.address).manifest(Selector::Tag("1")).unwrap();
    assert_eq!(fetched.bytes, CONTENT);
    assert_eq!(mirror.asked(), 1);
    assert!(!mirror.requests()[0].contains("authorization:"));
}

#[test]
fn a_password_takes_the_place_of_a_configured_one() {
    let mirror = Server::always(answer("401 Unauthorized", BASIC, b""));
    let registry = Server::always(answer("404 Not Found", "", b""));
    let configured = format!("[host.'{}'.header]\nauthorization = 'Basic configured'", mirror.url(""));
    let mirrored = Mirrored::new(&registry, &[&mirror], &configured);
    let client = mirrored.client(&mirror);
    assert!(repository(&client, &registry.address).manifest(Selector::Tag("1")).is_err());
    let requests = mirror.requests();
    assert!(requests[0].contains("authorization: Basic configured\r\n"), "{requests:?}");
    assert!(requests[1].contains(ENCODED) && !requests[1].contains("configured"), "{requests:?}");
    assert!(!registry.requests()[0].contains("authorization"));
}

#[test]
fn a_configured_header_that_is_echoed_is_not_repeated() {
    let echo = format!(r#"{{"errors": [{{"code": "X", "message": "no {MARKER}"}}]}}"#);
    let mirror = Server::new(move |_, _| answer("403 Forbidden", "", echo.as_bytes()));
    let configured = format!("[host.'{}'.header]\nx-key = 'Key {MARKER}'", mirror.url(""));
    let mirrored = Mirrored::new(&mirror, &[&mirror], &configured);
    let client = client(Options { hosts: mirrored.options.clone(), ..options() });
    let error = repository(&client, &mirror.address).manifest(Selector::Tag("1")).unwrap_err();
    assert!(!error.in_full().contains(MARKER) || !mirror.requests()[1].contains(MARKER), "{error:?}");
    assert!(mirror.requests()[0].contains(MARKER));
}

/// A client for a registry that may speak TLS or not, and is asked over TLS first.
fn undecided(registry: &Server) -> (Client, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(&registry.address);
    fs::create_dir(&path).unwrap();
    let text = format!("server = '{}'\nskip_verify = true\n", registry.url(""));
    fs::write(path.join("hosts.toml"), text).unwrap();
    let hosts = HostOptions { containerd: vec![directory.path().to_owned()], ..HostOptions::default() };
    (client(Options { hosts, ..options() }), directory)
}

#[test]
fn a_server_that_does_not_speak_tls_is_asked_over_plain_http() {
    let registry = Server::new(|request, number| match number {
        3 => Vec::new(),
        _ if request.starts_with("GET /v2/a/b/") => answer("200 OK", "", CONTENT),
        _ => answer("400 Bad Request", "", b""),
    });
    let (client, _directory) = undecided(&registry);
    let fetch = || repository(&client, &registry.address).manifest(Selector::Tag("1")).unwrap();
    assert_eq!(fetch().bytes, CONTENT);
    assert_eq!(registry.asked(), 2);
    fetch();
    // One is cut off, and the scheme stays.
    fetch();
    let schemes: Vec<_> = registry.requests().iter().map(|request| request.starts_with("GET")).collect();
    assert_eq!(schemes, [false, true, true, true, true]);
}

#[test]
fn a_redirect_to_what_does_not_speak_tls_says_nothing_about_the_registry() {
    let storage = Server::always(answer("400 Bad Request", "", b""));
    let to = format!("https://{}/", storage.address);
    let registry = Server::new(move |request, _| {
        if request.starts_with("GET") { leads_to(&to) } else { answer("400 Bad Request", "", b"") }
    });
    let error = repository(&client(options()), &registry.address).manifest(Selector::Tag("1")).unwrap_err();
    assert!(matches!(error, Error::Unreachable { other_scheme: false, .. }), "{error:?}");
    assert!(registry.requests().iter().all(|request| request.starts_with("GET")));
}

#[test]
fn a_login_is_not_for_a_mirror_to_accept() {
    let mirror = Server::always(answer("200 OK", "", b""));
    let registry = Server::always(answer("401 Unauthorized", BASIC, b""));
    let mirrored = Mirrored::new(&registry, &[&mirror], "");
    let client = mirrored.client(&registry);
    let error = client.log_in(&registry.address, &Unwatched).unwrap_err();
    assert!(matches!(error, Error::Unauthorized { sent: true, .. }), "{error:?}");
    assert!(error.to_string().ends_with("refuses access with the credentials given: unauthorized"));
    assert_eq!((mirror.asked(), registry.asked()), (0, 2));
}

#[test]
fn a_login_where_another_server_stands_in_says_which() {
    let registry = Server::always(answer("200 OK", "", b""));
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir(directory.path().join("r.example")).unwrap();
    let text = format!("server = '{}'\n", registry.url(""));
    fs::write(directory.path().join("r.example/hosts.toml"), text).unwrap();
    let hosts = HostOptions { containerd: vec![directory.path().to_owned()], ..HostOptions::default() };
    let error = client(Options { hosts, ..options() }).log_in("r.example", &Unwatched).unwrap_err();
    assert!(matches!(&error, Error::Elsewhere { server, .. } if *server == registry.address), "{error:?}");
    assert_eq!(registry.asked(), 0);
}

#[test]
fn a_helper_that_is_missing_does_not_keep_anybody_from_public_images() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("config.json");
    fs::write(&file, r#"{"credsStore": "nowhere-to-be-found"}"#).unwrap();
    let files = AuthFiles { files: vec![file], helper_path: Some(directory.path().into()) };
    let credentials = Some(Arc::new(files) as _);
    let challenge = Arc::new(Mutex::new(String::new()));
    let header = Arc::clone(&challenge);
    let registry = Server::new(move |request, _| {
        if request.contains("GET /token") {
            answer("200 OK", "", br#"{"token": "t"}"#)
        } else if request.contains("authorization: Bearer t\r\n") {
            answer("200 OK", "", CONTENT)
        } else {
            answer("401 Unauthorized", &header.lock().unwrap(), b"")
        }
    });
    *challenge.lock().unwrap() = format!("WWW-Authenticate: Bearer realm=\"{}\"\r\n", registry.url("/token"));
    let client = client(Options { credentials, ..options() });
    let fetched = repository(&client, &registry.address).manifest(Selector::Tag("1")).unwrap();
    assert_eq!(fetched.bytes, CONTENT);
}
