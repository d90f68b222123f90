use super::*;
use crate::{Error, Selector};

fn manifest_from(client: &Client, server: &Server) -> Result<Vec<u8>, Error> {
    repository(client, &server.address).manifest(Selector::Tag("1")).map(|manifest| manifest.bytes)
}

fn saw_credentials(server: &Server) -> Vec<bool> {
    server.requests().iter().map(|request| request.contains("authorization:")).collect()
}

/// A registry that wants the user's password, and then does something.
fn asking(then: impl Fn(&str) -> Vec<u8> + Send + 'static) -> Server {
    Server::new(move |request, _| {
        if request.contains(&format!("authorization: Basic {ENCODED}\r\n")) {
            then(request)
        } else {
            answer("401 Unauthorized", BASIC, b"")
        }
    })
}

#[test]
fn another_host_sees_no_credentials() {
    let storage = Server::always(answer("200 OK", "", b"{}"));
    let to = storage.url("/x");
    let registry = asking(move |_| leads_to(&to));
    assert_eq!(manifest_from(&client_for(&registry), &registry).unwrap(), b"{}");
    assert_eq!(saw_credentials(&registry), [false, true]);
    assert_eq!(saw_credentials(&storage), [false]);
}

#[test]
fn another_host_does_not_lead_credentials_back() {
    let back = Arc::new(Mutex::new(String::new()));
    let place = Arc::clone(&back);
    let storage = Server::new(move |_, _| leads_to(&place.lock().unwrap()));
    let to = storage.url("/x");
    let registry = Server::new(move |request, _| {
        if request.starts_with("GET /of-its-choice ") {
            answer("403 Forbidden", "", b"")
        } else if request.contains("authorization:") {
            leads_to(&to)
        } else {
            answer("401 Unauthorized", BASIC, b"")
        }
    });
    *back.lock().unwrap() = registry.url("/of-its-choice");
    assert!(matches!(manifest_from(&client_for(&registry), &registry), Err(Error::Denied { .. })));
    assert_eq!(saw_credentials(&registry), [false, true, false]);
}

#[test]
fn another_host_does_not_choose_the_token_server() {
    let thief = Server::always(answer("200 OK", "", br#"{"token": "t"}"#));
    let challenge = format!("WWW-Authenticate: Bearer realm=\"{}\"\r\n", thief.url("/token"));
    let storage = Server::new(move |_, _| answer("401 Unauthorized", &challenge, b""));
    let to = storage.url("/x");
    let registry = Server::new(move |_, _| leads_to(&to));
    let error = manifest_from(&client_for(&registry), &registry).unwrap_err();
    assert!(matches!(error, Error::Unauthorized { sent: false, .. }), "{error:?}");
    assert_eq!(thief.asked(), 0);
    assert_eq!(saw_credentials(&registry), [false]);
}

#[test]
fn a_circle_is_left() {
    let server = Server::new(|_, _| leads_to("/v2/again"));
    assert!(matches!(manifest_from(&client(options()), &server), Err(Error::Redirect { .. })));
    assert_eq!(server.asked(), 11);
}

#[test]
fn a_redirect_to_nothing_that_is_http_is_refused() {
    for to in ["file:///etc/passwd", "ftp://127.0.0.1/", "//", ""] {
        let server = Server::new(move |_, _| leads_to(to));
        let error = manifest_from(&client(options()), &server).unwrap_err();
        assert!(matches!(error, Error::Redirect { .. }), "{to}: {error:?}");
    }
    let server = Server::always(answer("307 Temporary Redirect", "", b""));
    assert!(matches!(manifest_from(&client(options()), &server), Err(Error::Redirect { .. })));
}

#[test]
fn the_user_that_a_server_writes_into_a_url_is_not_sent() {
    let storage = Server::always(answer("200 OK", "", b"{}"));
    let to = format!("http://them:{MARKER}@{}/x", storage.address);
    let registry = Server::new(move |_, _| leads_to(&to));
    assert_eq!(manifest_from(&client(options()), &registry).unwrap(), b"{}");
    assert_eq!(saw_credentials(&storage), [false]);
}

#[test]
fn what_a_registry_echoes_is_not_repeated() {
    for (status, what) in [
        ("403 Forbidden", MARKER),
        ("400 Bad Request", MARKER),
        ("400 Bad Request", ENCODED),
        ("404 Not Found", ENCODED),
        ("429 Too Many Requests", MARKER),
        ("500 Internal Server Error", ENCODED),
    ] {
        let body = format!(r#"{{"errors": [{{"code": "X", "message": "you sent {what}!"}}]}}"#);
        let registry = asking(move |_| answer(status, "", body.as_bytes()));
        let error = manifest_from(&client_for(&registry), &registry).unwrap_err();
        let shown = format!("{error:?} {}", error.in_full());
        assert!(!shown.contains(what), "{shown}");
    }
}

#[test]
fn a_password_that_is_wrong_is_tried_once() {
    let registry = Server::always(answer("401 Unauthorized", BASIC, b""));
    let client = client_for(&registry);
    assert!(matches!(manifest_from(&client, &registry), Err(Error::Unauthorized { sent: true, .. })));
    assert_eq!(saw_credentials(&registry), [false, true]);
    assert!(manifest_from(&client, &registry).is_err());
    assert_eq!(registry.asked(), 3);
}

#[test]
fn a_scheme_that_has_worked_is_kept() {
    // Without an answer, this could be a server of TLS.
    let registry = Server::new(|_, number| match number {
        0 | 2 => answer("200 OK", "", b"{}"),
        _ => Vec::new(),
    });
    let client = client(options());
    assert_eq!(manifest_from(&client, &registry).unwrap(), b"{}");
    assert_eq!(manifest_from(&client, &registry).unwrap(), b"{}");
    let requests = registry.requests();
    assert!(requests.len() == 3 && requests.iter().all(|request| request.starts_with("GET /v2/")));
}

#[test]
fn the_other_scheme_is_left_again_if_it_is_no_better() {
    let registry = Server::new(|request, number| match number {
        0 => Vec::new(),
        _ if request.starts_with("GET") => answer("200 OK", "", b"{}"),
        _ => b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(),
    });
    assert_eq!(manifest_from(&client(options()), &registry).unwrap(), b"{}");
}
