//! How a client proves itself to a registry: the challenge that the registry answers with, and the token that a token
//! server gives for it (the Docker Registry token authentication and `OAuth2` specifications, which the distribution
//! project keeps under `docs/content/spec/auth`).
//!
//! Nothing here shows a secret: no error, no `Debug`, no event. A URL is shown without its user, query and fragment.

mod answer;
mod challenge;
mod error;
mod scope;
#[cfg(test)]
mod tests;
mod token;

pub(crate) use challenge::{BearerChallenge, Challenge, challenges};
pub use error::AuthError;
pub(crate) use scope::Scope;
pub(crate) use token::{Purpose, Token, fetch_token};

use url::Url;

/// `host` or `host:port` of a URL, for messages.
fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}
