//! Why there is no token.

use std::error::Error as StdError;
use std::time::Duration;

use layerstore_oci::ErrorKind;
use reqwest::StatusCode;

/// A token that could not be had. No message holds a secret, a header, or more of a URL than its host.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuthError {
    /// The registry names no token server that can be asked.
    #[error("the registry names no usable token server: {reason}")]
    Realm {
        /// What is wrong with the realm.
        reason: &'static str,
    },
    /// What the registry names, or a token server leads to, would send secrets in the clear.
    #[error(
        "refusing to ask the token server {server} over plain HTTP: credentials and tokens could be read on the way"
    )]
    PlainHttp {
        /// The token server.
        server: String,
    },
    /// The token server leads somewhere that cannot be followed.
    #[error("the token server {server} redirects to where it cannot be followed: {reason}")]
    Redirect {
        /// The token server.
        server: String,
        /// Why not.
        reason: &'static str,
    },
    /// The token server does not accept the credentials, or gives no token without any.
    #[error("the token server {server} {}{}", if *with_credentials { "refused the credentials: log in again" } else { "gives no token without credentials: log in" }, told(message.as_deref()))]
    Refused {
        /// The token server.
        server: String,
        /// Whether it was sent any credentials.
        with_credentials: bool,
        /// What it says, if that is short and printable.
        message: Option<String>,
    },
    /// The token server could not be reached, or its answer broke off.
    #[error("cannot get an answer from the token server {server}")]
    Unreachable {
        /// The token server.
        server: String,
        /// The reason; it names no URL.
        source: Box<dyn StdError + Send + Sync>,
    },
    /// The token server reports a failure.
    #[error("the token server {server} failed with status {status}{}", told(message.as_deref()))]
    Status {
        /// The token server.
        server: String,
        /// The status. 429 and those from 500 may be another one next time.
        status: StatusCode,
        /// How long it asks to be left alone (`Retry-After`).
        retry_after: Option<Duration>,
        /// What it says, if that is short and printable.
        message: Option<String>,
    },
    /// The answer of the token server is not what the specification asks for.
    #[error("the answer of the token server {server} is malformed: {reason}")]
    Malformed {
        /// The token server.
        server: String,
        /// What is wrong with it.
        reason: &'static str,
    },
}

impl AuthError {
    /// The class of the failure.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Realm { .. } | Self::PlainHttp { .. } | Self::Redirect { .. } => ErrorKind::InvalidInput,
            Self::Refused { .. } => ErrorKind::Unauthorized,
            Self::Unreachable { .. } | Self::Status { .. } | Self::Malformed { .. } => ErrorKind::Unavailable,
        }
    }

    /// Whether the same request may have another outcome later.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Status { status, .. } => {
                status.is_server_error()
                    || matches!(*status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT)
            }
            _ => false,
        }
    }
}

impl AuthError {
    /// How long the token server asks to be left alone.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

fn told(message: Option<&str>) -> String {
    message.map(|message| format!("; it says: {message}")).unwrap_or_default()
}
