//! Token servers that answer from a script.

use std::error::Error as StdError;
use std::fmt::{Debug, Write as _};
use std::io::{self, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use layerstore_oci::ErrorKind;
use reqwest::StatusCode;
use reqwest::blocking::Client;
use reqwest::redirect::Policy;

use super::*;
use crate::Credential;

/// What must be seen nowhere.
const MARKER: &str = "s3cr3t-marker";

/// A server that gives one answer to each connection, in order, and keeps what it was asked.
struct TokenServer {
    address: String,
    requests: Arc<Mutex<Vec<String>>>,
}

impl TokenServer {
    fn new(answers: impl IntoIterator<Item = String>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let answers: Vec<_> = answers.into_iter().collect();
        let seen = Arc::clone(&requests);
        thread::spawn(move || {
            for answer in answers {
                let (mut stream, _) = listener.accept().unwrap();
                let request = receive(&mut stream);
                seen.lock().unwrap().push(request);
                // A client that has had enough may have gone.
                drop(stream.write_all(answer.as_bytes()));
            }
        });
        Self { address, requests }
    }

    fn one(answer: String) -> Self {
        Self::new([answer])
    }

    fn challenge(&self) -> BearerChallenge {
        challenge(&format!("http://{}/token", self.address))
    }

    fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }

    fn fetch(&self, credential: Option<&Credential>) -> Result<Token, AuthError> {
        let scopes = [Scope::push("b"), Scope::pull("a/b")];
        fetch_token(&client(), &self.challenge(), &scopes, credential, true, Purpose::Access)
    }
}

fn receive(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let count = stream.read(&mut buffer).unwrap();
        bytes.extend(&buffer[..count]);
        let text = String::from_utf8_lossy(&bytes);
        let length = text
            .to_lowercase()
            .split_once("content-length: ")
            .map_or(0, |(_, rest)| rest.lines().next().unwrap().trim().parse().unwrap());
        if count == 0 || text.split_once("\r\n\r\n").is_some_and(|(_, body)| body.len() >= length) {
            return text.into_owned();
        }
    }
}

fn client() -> Client {
    drop(rustls::crypto::ring::default_provider().install_default());
    Client::builder().redirect(Policy::none()).no_proxy().build().unwrap()
}

fn challenge(realm: &str) -> BearerChallenge {
    BearerChallenge {
        realm: realm.to_owned(),
        service: Some("registry.example".to_owned()),
        scope: Some("repository:wished:pull registry:catalog:*".to_owned()),
        error: None,
    }
}

fn answer(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\n{headers}Connection: close\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

fn ok(body: &str) -> String {
    answer("200 OK", "", body)
}

fn leads_to(status: &str, location: &str) -> String {
    answer(status, &format!("Location: {location}\r\n"), "")
}

fn user() -> Credential {
    Credential::Basic { username: "user".to_owned(), password: MARKER.into() }
}

fn identity() -> Credential {
    Credential::IdentityToken(MARKER.into())
}

/// `user:s3cr3t-marker`.
const ENCODED: &str = "dXNlcjpzM2NyM3QtbWFya2Vy";

#[test]
fn a_login_asks_for_an_identity_token_and_for_no_repository() {
    let server = TokenServer::one(ok(r#"{"token": "t", "refresh_token": "again"}"#));
    let challenge = server.challenge();
    let token = fetch_token(&client(), &challenge, &[], Some(&user()), true, Purpose::Login).unwrap();
    assert_eq!(token.refresh.unwrap().reveal(), "again");
    let request = &server.requests()[0];
    let path = "/token?service=registry.example&offline_token=true&client_id=layerstore&account=user";
    assert!(request.starts_with(&format!("GET {path} HTTP/1.1\r\n")), "{request}");
    assert!(request.contains(&format!("authorization: Basic {ENCODED}\r\n")), "{request}");
}

#[test]
fn a_token_is_had_without_credentials() {
    let server =
        TokenServer::one(ok(r#"{"token": "t", "expires_in": 300, "issued_at": "2001-01-01T00:00:00Z"}"#));
    let token = server.fetch(None).unwrap();
    assert_eq!(token.secret.reveal(), "t");
    assert!(token.is_fresh());
    let left = token.expires - Instant::now();
    assert!(left > Duration::from_secs(250) && left <= Duration::from_mins(5), "{left:?}");
    let request = &server.requests()[0];
    assert!(
        request.starts_with(
            "GET /token?service=registry.example&scope=repository%3Aa%2Fb%3Apull&scope=repository%3Ab%3Apull%2Cpush HTTP"
        ),
        "{request}"
    );
    assert!(!request.to_lowercase().contains("authorization"), "{request}");
}

#[test]
fn without_scopes_the_registry_is_asked_for_its_own() {
    let server = TokenServer::one(ok(r#"{"access_token": "a", "token": "t"}"#));
    let mut challenge = server.challenge();
    challenge.realm.push_str("?keep=1#part");
    let token = fetch_token(&client(), &challenge, &[], None, true, Purpose::Access).unwrap();
    assert_eq!(token.secret.reveal(), "a");
    let request = &server.requests()[0];
    let expected = "GET /token?keep=1&service=registry.example&scope=repository%3Awished%3Apull&scope=registry%3Acatalog%3A* HTTP";
    assert!(request.starts_with(expected), "{request}");
}

#[test]
fn a_password_is_sent_in_the_header_with_the_account() {
    let server = TokenServer::one(ok(r#"{"token": "t", "refresh_token": "again"}"#));
    let token = server.fetch(Some(&user())).unwrap();
    assert_eq!(token.refresh.unwrap().reveal(), "again");
    let request = &server.requests()[0];
    assert!(request.contains("&account=user HTTP"), "{request}");
    assert!(request.contains(&format!("authorization: Basic {ENCODED}\r\n")), "{request}");
}

#[test]
fn an_identity_token_is_exchanged_with_a_form() {
    let server = TokenServer::one(ok(r#"{"access_token": "t"}"#));
    server.fetch(Some(&identity())).unwrap();
    let request = &server.requests()[0];
    assert!(request.starts_with("POST /token HTTP"), "{request}");
    assert!(request.contains("content-type: application/x-www-form-urlencoded\r\n"), "{request}");
    let form = "grant_type=refresh_token&service=registry.example&client_id=layerstore\
                &scope=repository%3Aa%2Fb%3Apull+repository%3Ab%3Apull%2Cpush&refresh_token=s3cr3t-marker";
    assert!(request.ends_with(form), "{request}");
}

#[test]
fn a_server_without_post_gets_the_identity_token_as_a_password() {
    let server = TokenServer::new([answer("404 Not Found", "", ""), ok(r#"{"token": "t"}"#)]);
    server.fetch(Some(&identity())).unwrap();
    let request = &server.requests()[1];
    assert!(request.starts_with("GET /token?") && !request.contains("account="), "{request}");
    assert!(request.contains("authorization: Basic OnMzY3IzdC1tYXJrZXI=\r\n"), "{request}");
    let server = TokenServer::one(answer("405 Method Not Allowed", "", ""));
    assert!(matches!(server.fetch(Some(&identity())), Err(AuthError::Status { .. })));
}

#[test]
fn a_registry_token_is_taken_as_it_is() {
    let server = TokenServer::new([]);
    let token = server.fetch(Some(&Credential::RegistryToken(MARKER.into()))).unwrap();
    assert_eq!(token.secret.reveal(), MARKER);
    assert!(token.is_fresh() && server.requests().is_empty());
}

#[test]
fn the_life_of_a_token_is_kept_within_reason() {
    let day = 24 * 3600;
    for (text, seconds) in [
        ("1", 60),
        ("-5", 60),
        ("\"120\"", 120),
        ("90.5", 90),
        ("1e300", day),
        ("\"NaN\"", 60),
        ("null", 60),
        ("[]", 60),
        ("18446744073709551615", day),
    ] {
        let now = Instant::now();
        let token =
            answer::token("s", format!(r#"{{"token": "t", "expires_in": {text}}}"#).as_bytes(), now).unwrap();
        assert_eq!((token.expires - now).as_secs(), seconds, "{text}");
        assert!(token.is_fresh());
    }
    let old = Instant::now().checked_sub(Duration::from_secs(55)).unwrap();
    assert!(!answer::token("s", b"{\"token\": \"t\"}", old).unwrap().is_fresh(), "five seconds are too few");
}

#[test]
fn wrong_credentials_are_told_apart_from_none() {
    let refusal = || answer("401 Unauthorized", "", r#"{"details": "incorrect username or password."}"#);
    let error = TokenServer::one(refusal()).fetch(Some(&user())).unwrap_err();
    let AuthError::Refused { with_credentials: true, message, .. } = &error else { panic!("{error:?}") };
    assert_eq!(message.as_deref(), Some("incorrect username or password"));
    assert_eq!(error.kind(), ErrorKind::Unauthorized);
    let error = TokenServer::one(refusal()).fetch(None).unwrap_err();
    assert!(matches!(error, AuthError::Refused { with_credentials: false, .. }), "{error:?}");
    let body = r#"{"errors": [{"code": "DENIED", "message": "not for you"}]}"#;
    let error = TokenServer::one(answer("403 Forbidden", "", body)).fetch(Some(&user())).unwrap_err();
    assert!(
        error.to_string().ends_with("refused the credentials: log in again; it says: not for you"),
        "{error}"
    );
    let body = r#"{"error": "invalid_grant"}"#;
    let error = TokenServer::one(answer("400 Bad Request", "", body)).fetch(Some(&identity())).unwrap_err();
    assert!(matches!(error, AuthError::Refused { .. }), "{error:?}");
}

#[test]
fn a_message_that_cannot_be_shown_is_left_out() {
    let secrets = [MARKER.into()];
    let shown = |text: &str| answer::message(format!(r#"{{"message": "{text}"}}"#).as_bytes(), &secrets);
    assert_eq!(shown("plain words, 5 of 6"), Some("plain words, 5 of 6".to_owned()));
    for text in [
        &format!("password {MARKER} is wrong"),
        "\\u001b[2J",
        "a\\u202eb",
        "see https://u:p@h/?q",
        &"x".repeat(201),
        "",
    ] {
        assert_eq!(shown(text), None, "{text}");
    }
    assert_eq!(answer::message(b"<html>", &[]), None);
}

#[test]
fn a_failure_of_the_server_keeps_its_status_and_its_wish() {
    let later = "Retry-After: 7\r\n";
    let error = TokenServer::one(answer("429 Too Many Requests", later, "x")).fetch(None).unwrap_err();
    let AuthError::Status { status, retry_after, .. } = error else { panic!("{error:?}") };
    assert_eq!((status, retry_after), (StatusCode::TOO_MANY_REQUESTS, Some(Duration::from_secs(7))));
    assert!(error.is_transient() && error.kind() == ErrorKind::Unavailable);
    let past = "Retry-After: Wed, 21 Oct 2015 07:28:00 GMT\r\n";
    let error = TokenServer::one(answer("503 Service Unavailable", past, "")).fetch(None).unwrap_err();
    assert!(
        matches!(error, AuthError::Status { retry_after: Some(Duration::ZERO), .. }) && error.is_transient()
    );
    for wish in ["18446744073709551615", "Fri, 31 Dec 9999 23:59:59 GMT"] {
        let reply = answer("503 Service Unavailable", &format!("Retry-After: {wish}\r\n"), "");
        let error = TokenServer::one(reply).fetch(None).unwrap_err();
        assert!(matches!(error, AuthError::Status { retry_after: Some(answer::LONGEST), .. }), "{error:?}");
    }
    let error = TokenServer::one(answer("400 Bad Request", "", "")).fetch(None).unwrap_err();
    assert!(!error.is_transient());
}

#[test]
fn a_server_that_is_not_there_is_unreachable() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let mut realm = challenge(&format!("http://{address}/token?key={MARKER}"));
    realm.service = Some(MARKER.to_owned());
    let error = fetch_token(&client(), &realm, &[], Some(&user()), true, Purpose::Access).unwrap_err();
    assert!(matches!(&error, AuthError::Unreachable { server, .. } if *server == address.to_string()));
    assert!(error.is_transient());
    assert_secret_free(&error);
}

#[test]
fn malformed_answers_are_refused() {
    let long = format!(r#"{{"token": "{}"}}"#, "x".repeat(1 << 20));
    for body in [
        "",
        "[]",
        "{}",
        r#"{"token": ""}"#,
        r#"{"token": 5}"#,
        r#"{"token": "a\r\nb"}"#,
        r#"{"token": "é"}"#,
        &long,
    ] {
        let error = TokenServer::one(ok(body)).fetch(None).unwrap_err();
        assert!(matches!(error, AuthError::Malformed { .. }), "{error:?}");
        assert_eq!(error.kind(), ErrorKind::Unavailable);
    }
}

#[test]
fn an_answer_that_breaks_off_is_unreachable() {
    let broken = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"tok".to_owned();
    let server = TokenServer::one(broken);
    let mut challenge = server.challenge();
    write!(challenge.realm, "?key={MARKER}").unwrap();
    let error = fetch_token(&client(), &challenge, &[], Some(&user()), true, Purpose::Access).unwrap_err();
    assert!(matches!(error, AuthError::Unreachable { .. }), "{error:?}");
    assert_secret_free(&error);
}

#[test]
fn a_realm_that_is_no_safe_url_is_refused() {
    let fetch = |realm: &str, plain| {
        fetch_token(&client(), &challenge(realm), &[], Some(&user()), plain, Purpose::Access).unwrap_err()
    };
    for realm in ["", "/token", "ftp://a.example/", "file:///etc/passwd", "data:x", "https://"] {
        assert!(matches!(fetch(realm, true), AuthError::Realm { .. }), "{realm}");
    }
    let error = fetch(&format!("http://user:{MARKER}@a.example:1/?{MARKER}"), false);
    assert!(matches!(&error, AuthError::PlainHttp { server } if server == "a.example:1"), "{error:?}");
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert_secret_free(&error);
}

#[test]
fn the_user_of_a_realm_is_not_sent() {
    let server = TokenServer::one(ok(r#"{"token": "t"}"#));
    let challenge = challenge(&format!("http://evil:pw@{}/token", server.address));
    fetch_token(&client(), &challenge, &[], None, true, Purpose::Access).unwrap();
    assert!(!server.requests()[0].to_lowercase().contains("authorization"));
}

#[test]
fn credentials_follow_a_redirect_on_the_same_server() {
    let server = TokenServer::new([leads_to("307 Temporary Redirect", "/new?x=1"), ok(r#"{"token": "t"}"#)]);
    server.fetch(Some(&user())).unwrap();
    let request = &server.requests()[1];
    assert!(request.starts_with("GET /new?x=1 HTTP") && request.contains(ENCODED), "{request}");

    let server = TokenServer::new([leads_to("308 Permanent Redirect", "/new"), ok(r#"{"token": "t"}"#)]);
    server.fetch(Some(&identity())).unwrap();
    let request = &server.requests()[1];
    assert!(request.starts_with("POST /new HTTP") && request.contains(MARKER), "{request}");
}

#[test]
fn credentials_stay_off_another_server_and_do_not_return() {
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let elsewhere = format!("http://user:pw@{}/t", other.local_addr().unwrap());
    let server = TokenServer::new([leads_to("302 Found", &elsewhere), ok(r#"{"token": "t"}"#)]);
    let back = leads_to("302 Found", &format!("http://{}/back", server.address));
    let hop = thread::spawn(move || {
        let (mut stream, _) = other.accept().unwrap();
        let request = receive(&mut stream);
        stream.write_all(back.as_bytes()).unwrap();
        request
    });
    server.fetch(Some(&user())).unwrap();
    let requests = server.requests();
    assert!(requests[0].contains(ENCODED));
    for request in [&hop.join().unwrap(), &requests[1]] {
        assert!(!request.to_lowercase().contains("authorization"), "{request}");
    }
}

#[test]
fn redirects_that_make_no_sense_end() {
    let round = || leads_to("302 Found", "/token");
    let server = TokenServer::new([round(), round(), round(), round(), round(), round(), round()]);
    assert!(matches!(server.fetch(None), Err(AuthError::Redirect { .. })));
    assert_eq!(server.requests().len(), 6);
    for location in ["ftp://a.example/", "http://", "data:x"] {
        let server = TokenServer::one(leads_to("302 Found", location));
        assert!(matches!(server.fetch(None), Err(AuthError::Redirect { .. })), "{location}");
    }
    let server = TokenServer::one(leads_to("307 Temporary Redirect", "http://a.example/"));
    assert!(matches!(server.fetch(Some(&identity())), Err(AuthError::Redirect { .. })));
    assert!(matches!(
        TokenServer::one(answer("302 Found", "", "")).fetch(None),
        Err(AuthError::Redirect { .. })
    ));
}

/// Looks at an error with all of its causes.
fn assert_secret_free(error: &AuthError) {
    let mut text = format!("{error} {error:?} {error:#?}");
    let mut source = StdError::source(error);
    while let Some(error) = source {
        write!(text, " {error} {error:?}").unwrap();
        source = error.source();
    }
    assert_hidden(&text);
}

fn assert_hidden(text: &str) {
    for secret in [MARKER, ENCODED, "OnMzY3IzdC1tYXJrZXI"] {
        assert!(!text.contains(secret), "{text}");
    }
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn nothing_shows_a_secret() {
    // With a single subscriber, `tracing` lets the first thread that reaches an event decide whether it is wanted, and
    // other tests have none.
    let _second = tracing::Dispatch::new(tracing_subscriber::registry());
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(move || writer.clone())
        .finish();
    let debug = |value: &dyn Debug| assert_hidden(&format!("{value:?} {value:#?}"));
    let credentials = [user(), identity(), Credential::RegistryToken(MARKER.into())];
    let says = format!(r#"{{"details": "no {MARKER} or {ENCODED}", "token": "\n{MARKER}"}}"#);
    tracing::subscriber::with_default(subscriber, || {
        for credential in &credentials {
            debug(credential);
            for reply in [
                answer("401 Unauthorized", "", &says),
                answer("500 Internal Server Error", "", &says),
                ok(&says),
                ok(&format!(r#"{{"token": "{MARKER}", "refresh_token": "{MARKER}"}}"#)),
                leads_to("302 Found", &format!("ftp://user:{MARKER}@a.example/{MARKER}?{MARKER}")),
                "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{".to_owned(),
                String::new(),
            ] {
                let server = TokenServer::one(reply);
                let realm = format!("http://user:{MARKER}@{}/token?key={MARKER}", server.address);
                let challenge = challenge(&realm);
                debug(&challenge);
                match fetch_token(&client(), &challenge, &[], Some(credential), true, Purpose::Access) {
                    Ok(token) => debug(&token),
                    Err(error) => assert_secret_free(&error),
                }
            }
        }
    });
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(log.contains("asking for a token"), "{log}");
    assert_hidden(&log);
}
