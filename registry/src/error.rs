//! What can go wrong between us and a registry.

use std::io;
use std::time::Duration;

use layerstore_oci::{Digest, ErrorKind};
use reqwest::StatusCode;

use crate::auth::AuthError;
use crate::credentials::CredentialError;
use crate::hosts::HostsError;
use crate::transport::TransportError;

/// What the operations of this crate return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failed request. No text in it holds a credential, a header or a URL's query.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The configuration of hosts.
    #[error(transparent)]
    Hosts(#[from] HostsError),
    /// Where credentials are kept.
    #[error(transparent)]
    Credentials(#[from] CredentialError),
    /// Certificates or proxies.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// No token was given out.
    #[error("cannot log in to {host}")]
    Auth {
        /// The registry.
        host: String,
        /// Why not.
        source: AuthError,
    },
    /// 401: the registry wants credentials, or other ones.
    #[error("{host} refuses access{}{}: unauthorized{}", to(repository), if *sent { " with the credentials given" } else { "" }, detail_of(detail.as_deref()))]
    Unauthorized {
        /// The registry.
        host: String,
        /// The repository; empty for the registry as a whole.
        repository: String,
        /// Whether credentials were sent.
        sent: bool,
        /// What the registry says.
        detail: Option<String>,
    },
    /// 403: the registry knows who asks, and says no.
    #[error("{host} denies access{}{}", to(repository), detail_of(detail.as_deref()))]
    Denied {
        /// The registry.
        host: String,
        /// The repository.
        repository: String,
        /// Whether credentials were sent.
        sent: bool,
        /// What the registry says.
        detail: Option<String>,
    },
    /// 404: the registry has no such thing.
    #[error("{host} has no {what}{}", detail_of(detail.as_deref()))]
    NotFound {
        /// The registry.
        host: String,
        /// The repository.
        repository: String,
        /// What was asked for: `` image `a/b:1` ``, `blob sha256:…`.
        what: String,
        /// What the registry says.
        detail: Option<String>,
    },
    /// Something answers, but it is no registry.
    #[error("{host} does not answer like a registry{}", detail_of(detail.as_deref()))]
    NotARegistry {
        /// The host.
        host: String,
        /// How it answers.
        detail: Option<String>,
    },
    /// Nothing answers, or the connection broke.
    #[error("cannot reach {host}: {problem}{}", detail_of(detail.as_deref()))]
    Unreachable {
        /// The host.
        host: String,
        /// In short, what happened.
        problem: Problem,
        /// Whether the registry may speak the other one of HTTP and HTTPS.
        other_scheme: bool,
        /// More about it, where the words do not say it all.
        detail: Option<String>,
    },
    /// Reading what a server sends.
    #[error("reading {what} from {host}")]
    Read {
        /// The host.
        host: String,
        /// The blob or document.
        what: String,
        /// The reason.
        source: io::Error,
    },
    /// Too few bytes in too long a time.
    #[error("{host} sent less than {rate} bytes a second of {what} for {} seconds", time.as_secs())]
    Stalled {
        /// The host.
        host: String,
        /// The blob or document.
        what: String,
        /// The least rate that is accepted.
        rate: u64,
        /// How long it was watched.
        time: Duration,
    },
    /// The connection ended early.
    #[error("{host} ended {what} after {received} of {expected} bytes")]
    Cut {
        /// The host.
        host: String,
        /// The blob or document.
        what: String,
        /// Bytes received.
        received: u64,
        /// Bytes that it has.
        expected: u64,
    },
    /// 429.
    #[error("{host} says that there are too many requests{}", detail_of(detail.as_deref()))]
    TooManyRequests {
        /// The registry.
        host: String,
        /// The time that it asks to wait.
        wait: Option<Duration>,
        /// What the registry says.
        detail: Option<String>,
    },
    /// Another status than one that is expected.
    #[error("{host} answers {} to a request for {what}{}", status_text(*status), detail_of(detail.as_deref()))]
    Status {
        /// The host.
        host: String,
        /// What was asked for.
        what: String,
        /// The status.
        status: StatusCode,
        /// The time that it asks to wait.
        wait: Option<Duration>,
        /// What the registry says.
        detail: Option<String>,
    },
    /// A redirect that is not followed.
    #[error("{host} sends a request for {what} elsewhere: {reason}")]
    Redirect {
        /// The host.
        host: String,
        /// What was asked for.
        what: String,
        /// Why it is not followed.
        reason: &'static str,
    },
    /// An answer that does not fit the protocol.
    #[error("{host} gives an unusable answer to a request for {what}: {reason}")]
    Protocol {
        /// The host.
        host: String,
        /// What was asked for.
        what: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A document that is larger than any should be.
    #[error("{host} sends more than {limit} bytes for {what}")]
    TooLarge {
        /// The host.
        host: String,
        /// The document.
        what: String,
        /// The limit in bytes.
        limit: u64,
    },
    /// Content that is not what its digest says, twice.
    #[error("{host} sends other content for {what}: its digest is {actual}")]
    DigestMismatch {
        /// The host.
        host: String,
        /// What was asked for.
        what: String,
        /// Of what was sent.
        actual: Digest,
    },
    /// No configured host may be asked for this.
    #[error("no host of {domain} is configured for {what}")]
    NoHost {
        /// The registry.
        domain: String,
        /// `pull`, `resolve` or `push`.
        what: &'static str,
    },
    /// A login at a registry that another server stands for.
    #[error("{domain} is served by {server}, as this machine's configuration has it: log in to {server}")]
    Elsewhere {
        /// The registry.
        domain: String,
        /// The server.
        server: String,
    },
    /// What is to be sent cannot be read.
    #[error("cannot read {what} to send it")]
    Source {
        /// The blob.
        what: String,
        /// The reason.
        source: io::Error,
    },
    /// The caller stopped it.
    #[error("stopped")]
    Stopped,
}

/// What kept a request from being answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Problem {
    /// The name has no address.
    UnknownHost,
    /// Nothing listens there.
    Refused,
    /// The certificate is not trusted, or is for another name.
    Certificate,
    /// Something that is not TLS answers where TLS is expected.
    NotTls,
    /// No answer in time.
    Timeout,
    /// The connection broke.
    Broken,
    /// The proxy does not help.
    Proxy,
    /// Something else.
    Other,
}

impl Problem {
    /// The innermost cause of `error`, where this does not say it all.
    pub(crate) fn detail(self, error: &reqwest::Error) -> Option<String> {
        if !matches!(self, Self::Certificate | Self::NotTls | Self::Proxy | Self::Other) {
            return None;
        }
        let mut cause: &(dyn std::error::Error + 'static) = error;
        while let Some(next) = cause.source() {
            cause = next;
        }
        Some(cause.to_string())
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::UnknownHost => "the host name has no address",
            Self::Refused => "nothing listens there",
            Self::Certificate => "its certificate is not trusted",
            Self::NotTls => "it does not speak TLS",
            Self::Timeout => "no answer in time",
            Self::Broken => "the connection broke",
            Self::Proxy => "the proxy refuses",
            Self::Other => "the request failed",
        })
    }
}

impl Problem {
    /// Looks through the causes of `error`.
    pub(crate) fn of(error: &reqwest::Error) -> Self {
        let mut causes = Vec::new();
        let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
        while let Some(cause) = next {
            if let Some(tls) = cause.downcast_ref::<rustls::Error>() {
                return Self::of_tls(tls);
            }
            if let Some(io) = cause.downcast_ref::<io::Error>() {
                if let Some(tls) = tls_within(io) {
                    return Self::of_tls(tls);
                }
                match io.kind() {
                    io::ErrorKind::ConnectionRefused => return Self::Refused,
                    io::ErrorKind::TimedOut => return Self::Timeout,
                    io::ErrorKind::ConnectionReset
                    | io::ErrorKind::BrokenPipe
                    | io::ErrorKind::ConnectionAborted
                    | io::ErrorKind::UnexpectedEof => return Self::Broken,
                    _ => {}
                }
            }
            causes.push(cause.to_string());
            next = cause.source();
        }
        let says = |text: &str| causes.iter().any(|cause| cause.contains(text));
        // Neither crate has a type for these.
        if says("dns error") || says("failed to lookup address") {
            Self::UnknownHost
        } else if says("tunnel") || says("proxy") {
            Self::Proxy
        } else if error.is_timeout() {
            Self::Timeout
        } else if says("connection closed") || says("incomplete message") || says("IncompleteMessage") {
            Self::Broken
        } else {
            Self::Other
        }
    }

    fn of_tls(error: &rustls::Error) -> Self {
        match error {
            rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented => {
                Self::Certificate
            }
            rustls::Error::InvalidMessage(_) => Self::NotTls,
            _ => Self::Other,
        }
    }
}

/// The error of TLS in an `io::Error`, which hides what it wraps from `source`, and may wrap another.
fn tls_within(error: &io::Error) -> Option<&rustls::Error> {
    let inner = error.get_ref()?;
    inner.downcast_ref::<io::Error>().map_or_else(|| inner.downcast_ref(), tls_within)
}

impl Error {
    /// The class of this error.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Hosts(error) => error.kind(),
            Self::Credentials(error) => error.kind(),
            Self::Transport(error) => error.kind(),
            Self::Auth { source, .. } => source.kind(),
            Self::Unauthorized { .. } | Self::Denied { .. } => ErrorKind::Unauthorized,
            Self::NotFound { .. } => ErrorKind::NotFound,
            Self::NotARegistry { .. }
            | Self::Unreachable { .. }
            | Self::Read { .. }
            | Self::Stalled { .. }
            | Self::Cut { .. }
            | Self::TooManyRequests { .. }
            | Self::Status { .. }
            | Self::Redirect { .. }
            | Self::Protocol { .. }
            | Self::Stopped => ErrorKind::Unavailable,
            Self::DigestMismatch { .. } => ErrorKind::Corrupt,
            Self::TooLarge { .. } | Self::NoHost { .. } | Self::Elsewhere { .. } => ErrorKind::InvalidInput,
            Self::Source { source, .. } => ErrorKind::of_io(source),
        }
    }

    /// Whether another attempt at the same host may succeed.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Self::Auth { source, .. } => source.is_transient(),
            Self::Unreachable { problem, .. } => {
                matches!(problem, Problem::Timeout | Problem::Broken | Problem::Other)
            }
            Self::Read { .. } | Self::Stalled { .. } | Self::Cut { .. } | Self::TooManyRequests { .. } => {
                true
            }
            Self::Status { status, .. } => crate::retry::is_transient(*status),
            _ => false,
        }
    }

    /// The time that the server asks to wait.
    pub(crate) fn wait(&self) -> Option<Duration> {
        match self {
            Self::TooManyRequests { wait, .. } | Self::Status { wait, .. } => *wait,
            Self::Auth { source, .. } => source.retry_after(),
            _ => None,
        }
    }

    /// The error with its causes, in one line.
    pub(crate) fn in_full(&self) -> String {
        let mut text = self.to_string();
        let mut next = std::error::Error::source(self);
        while let Some(cause) = next {
            text.push_str(": ");
            text.push_str(&cause.to_string());
            next = cause.source();
        }
        text
    }
}

fn to(repository: &str) -> String {
    if repository.is_empty() { String::new() } else { format!(" to `{repository}`") }
}

fn detail_of(detail: Option<&str>) -> String {
    detail.map(|detail| format!(": {detail}")).unwrap_or_default()
}

fn status_text(status: StatusCode) -> String {
    match status.canonical_reason() {
        Some(reason) => format!("{} ({reason})", status.as_u16()),
        None => status.as_u16().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tls_is_found_however_deep_it_is_wrapped() {
        let tls = || io::Error::new(io::ErrorKind::InvalidData, rustls::Error::NoCertificatesPresented);
        for error in [tls(), io::Error::other(tls()), io::Error::other(io::Error::other(tls()))] {
            assert_eq!(tls_within(&error).map(Problem::of_tls), Some(Problem::Certificate), "{error:?}");
        }
        assert!(tls_within(&io::Error::other("text")).is_none());
        assert!(tls_within(&io::ErrorKind::NotFound.into()).is_none());
    }
}
