//! What a token server answers.

use std::io::{self, Read as _};
use std::time::{Duration, Instant, SystemTime};

use reqwest::blocking::Response;
use reqwest::header::{HeaderMap, RETRY_AFTER};
use serde_json::{Map, Value};

use super::AuthError;
use super::token::Token;
use crate::Secret;

/// Tokens have a few KiB.
const MAX_BYTES: u64 = 1 << 20;
/// What the specification has for an answer that does not say, and the least that Docker's client reckons with.
const SHORTEST: Duration = Duration::from_mins(1);
/// A server that promises more is not believed; a token that has been withdrawn costs one more request.
pub(super) const LONGEST: Duration = Duration::from_hours(24);
/// As much of a server's words as fits in a line.
const MAX_MESSAGE: usize = 200;

/// Reads the body of an answer, of limited length.
pub(super) fn body(server: &str, response: Response) -> Result<Vec<u8>, AuthError> {
    let mut bytes = Vec::new();
    response
        .take(MAX_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| AuthError::Unreachable { server: server.to_owned(), source: without_url(error) })?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(AuthError::Malformed { server: server.to_owned(), reason: "it is longer than 1 MiB" });
    }
    Ok(bytes)
}

/// A failure to read a body comes with the error of the client, which has the URL.
fn without_url(error: io::Error) -> Box<dyn std::error::Error + Send + Sync> {
    let kind = error.kind();
    match error.into_inner().map(<dyn std::error::Error + Send + Sync>::downcast::<reqwest::Error>) {
        Some(Ok(inner)) => Box::new(inner.without_url()),
        Some(Err(_)) | None => Box::new(io::Error::from(kind)),
    }
}

/// The token in an answer of status 2xx. `asked` is when the request was sent: the life of the token began after it.
pub(super) fn token(server: &str, bytes: &[u8], asked: Instant) -> Result<Token, AuthError> {
    let malformed = |reason| AuthError::Malformed { server: server.to_owned(), reason };
    let answer: Map<String, Value> =
        serde_json::from_slice(bytes).map_err(|_| malformed("it is no JSON object"))?;
    let text = |name: &str| answer.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    let secret =
        text("access_token").or_else(|| text("token")).ok_or_else(|| malformed("it holds no token"))?;
    // It goes into a header, as it is.
    if !secret.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(malformed("its token holds characters that no token has"));
    }
    let seconds = match answer.get("expires_in") {
        Some(Value::String(text)) => text.parse().ok(),
        Some(number) => number.as_f64(),
        None => None,
    };
    let life = seconds
        .filter(|seconds: &f64| !seconds.is_nan())
        .and_then(|seconds| Duration::try_from_secs_f64(seconds.min(LONGEST.as_secs_f64())).ok())
        .unwrap_or(SHORTEST)
        .max(SHORTEST);
    Ok(Token {
        secret: secret.into(),
        expires: asked + life,
        refresh: text("refresh_token").map(Secret::from),
    })
}

/// The code that an `OAuth2` server gives for a failure (RFC 6749, section 5.2).
pub(super) fn oauth_error(bytes: &[u8]) -> Option<String> {
    let answer: Map<String, Value> = serde_json::from_slice(bytes).ok()?;
    answer.get("error")?.as_str().map(str::to_owned)
}

/// What a server says about a failure, if it is fit to be shown: short, printable, and without any of the texts that
/// the server was sent in confidence.
pub(super) fn message(bytes: &[u8], secrets: &[Secret]) -> Option<String> {
    let answer: Value = serde_json::from_slice(bytes).ok()?;
    let found = [
        "/details",
        "/errors/0/message",
        "/error_description",
        "/message",
        "/detail",
        "/error",
        "/errors/0/code",
    ]
    .iter()
    .filter_map(|pointer| answer.pointer(pointer)?.as_str())
    .map(str::trim)
    .find(|text| !text.is_empty())?;
    let printable = |c: char| c == ' ' || c.is_ascii_graphic() || c.is_alphanumeric();
    // A URL could carry a user or a query.
    let fit = found.chars().count() <= MAX_MESSAGE && found.chars().all(printable) && !found.contains("://");
    let private = secrets.iter().any(|secret| !secret.reveal().is_empty() && found.contains(secret.reveal()));
    (fit && !private).then(|| found.trim_end_matches('.').to_owned())
}

/// How long a server asks to be left alone: a number of seconds, or a date. No more than a day, so that a caller can
/// reckon with it.
pub(super) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds).min(LONGEST));
    }
    let date = httpdate::parse_http_date(text).ok()?;
    Some(date.duration_since(SystemTime::now()).unwrap_or_default().min(LONGEST))
}
