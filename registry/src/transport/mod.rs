//! The clients of HTTP that requests are sent with: certificates, proxies, timeouts.
//!
//! How time is limited in `reqwest::blocking` (0.13), since its documentation does not say:
//!
//! - the timeout of a client covers a request from its start to the header of the answer, the sending of the body
//!   included; then each single `read` of the answer's body has all of it again (`blocking/response.rs`,
//!   `impl Read`). So it limits how long a download may stand still, and not how long it may take;
//! - the timeout of one request (`RequestBuilder::timeout`) takes its place, but is also handed to the asynchronous
//!   client within, where it ends with the last byte of the answer (`TotalTimeoutBody`). So it must not be set where a
//!   large body comes back, and must be set where one is sent: [`Transport::upload_timeout`];
//! - an upload that stands still is noticed by the kernel, which closes a connection on which nothing sent was
//!   acknowledged for so long (`TCP_USER_TIMEOUT`).

// Its user, the code that makes the requests, is yet to come.

mod proxies;
#[cfg(test)]
mod tests;
mod tls;
mod verify;

use std::collections::HashMap;
use std::error::Error as _;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use layerstore_oci::ErrorKind;
use reqwest::blocking::Client;

use crate::Tls;
pub use proxies::Proxies;
use proxies::Rules;
use verify::SystemRoots;

/// An upload that is slower than this, in bytes per second, is given up.
const SLOWEST_UPLOAD: u64 = 8 << 10;

/// How long the network may keep silent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// For a connection to come about: name, TCP, TLS, and the proxy's answer.
    pub connect: Duration,
    /// For the answer to a request to begin, and for more of it to come.
    pub stall: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        // Registries on object storage take their time to put together a large blob before they answer.
        Self { connect: Duration::from_secs(15), stall: Duration::from_mins(1) }
    }
}

/// Why no request can be sent.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// A file with certificates or a key cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file does not hold the certificates or the key that it should.
    #[error("{path}: {reason}")]
    Content {
        /// Which one.
        path: PathBuf,
        /// What is wrong, and what would be right.
        reason: String,
    },
    /// A setting for proxies cannot be understood.
    #[error("{variable}={value}: {reason}")]
    Proxy {
        /// The environment variable that such a setting comes from.
        variable: &'static str,
        /// The setting, without the user and password in it.
        value: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The client could not be set up: no thread, no sockets.
    #[error("cannot set up a client of HTTP: {reason}")]
    Client {
        /// Why.
        reason: String,
    },
}

impl TransportError {
    /// The class of this error.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Read { source, .. } => ErrorKind::of_io(source),
            Self::Content { .. } | Self::Proxy { .. } => ErrorKind::InvalidInput,
            Self::Client { .. } => ErrorKind::Io,
        }
    }
}

/// Hands out a client for each way of checking certificates. Clients share nothing; each keeps its connections and has
/// a thread of its own.
#[derive(Debug)]
pub(crate) struct Transport {
    rules: Option<Arc<Rules>>,
    timeouts: Timeouts,
    system: Arc<SystemRoots>,
    clients: Mutex<HashMap<Tls, Client>>,
}

impl Transport {
    /// Fails if a setting for proxies cannot be understood: going past a proxy in silence would be worse.
    pub(crate) fn new(proxies: &Proxies, timeouts: Timeouts) -> Result<Self, TransportError> {
        Ok(Self {
            rules: proxies.rules()?.map(Arc::new),
            timeouts,
            system: Arc::default(),
            clients: Mutex::default(),
        })
    }

    /// The client for `tls`. Certificates to show are shown only if `present_identity` is set: not to the hosts that a
    /// registry redirects to or takes its tokens from.
    ///
    /// It follows no redirect, keeps no cookies and decompresses nothing. It also serves `http` URLs, and a client
    /// that never sees another one never loads the system's authorities.
    pub(crate) fn client(&self, tls: &Tls, present_identity: bool) -> Result<Client, TransportError> {
        let mut tls = tls.clone();
        if !present_identity {
            tls.identities.clear();
        }
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(&tls) {
            return Ok(client.clone());
        }
        let client = self.build(&tls)?;
        clients.insert(tls, client.clone());
        Ok(client)
    }

    fn build(&self, tls: &Tls) -> Result<Client, TransportError> {
        let mut builder = Client::builder()
            .tls_backend_preconfigured(tls::config(tls, &self.system)?)
            .user_agent(concat!("layerstore/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .http1_only()
            .connect_timeout(self.timeouts.connect)
            .timeout(self.timeouts.stall)
            .tcp_user_timeout(self.timeouts.stall)
            .tcp_keepalive(Duration::from_secs(15))
            .tcp_nodelay(true)
            // Shorter than servers and what stands before them commonly keep a connection.
            .pool_idle_timeout(Duration::from_secs(30))
            .pool_max_idle_per_host(8)
            // First: it takes away what `reqwest` would read from the environment, and all proxies set before.
            .no_proxy();
        if let Some(rules) = &self.rules {
            let rules = Arc::clone(rules);
            builder = builder.proxy(reqwest::Proxy::custom(move |url| rules.proxy_for(url)));
        }
        builder.build().map_err(|error| {
            let reason = error.source().map_or_else(|| error.to_string(), ToString::to_string);
            TransportError::Client { reason }
        })
    }

    /// What to set as the timeout of a request that sends `length` bytes and gets a short answer.
    pub(crate) fn upload_timeout(&self, length: u64) -> Duration {
        self.timeouts.stall.saturating_add(Duration::from_secs(length / SLOWEST_UPLOAD))
    }
}

/// Whether a request failed since the server does not speak the scheme of the URL, as far as can be told: no TLS was
/// spoken where it should have been, or no HTTP. Certificates that do not hold and servers that cannot be reached do
/// not count.
///
/// Servers of TLS may also answer a request in clear text properly, with status 400.
pub(crate) fn is_other_scheme(error: &reqwest::Error) -> bool {
    let Some(url) = error.url() else { return false };
    if error.is_timeout() {
        return false;
    }
    if url.scheme() == "http" {
        return error.is_request() && !error.is_connect();
    }
    error.is_connect() && std::iter::successors(error.source(), |&cause| cause.source()).any(speaks_no_tls)
}

fn speaks_no_tls(cause: &(dyn std::error::Error + 'static)) -> bool {
    if let Some(error) = cause.downcast_ref::<io::Error>() {
        // An `io::Error` hides what it wraps from `source`, and may wrap another.
        return matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset)
            || error.get_ref().is_some_and(|inner| speaks_no_tls(inner));
    }
    matches!(cause.downcast_ref(), Some(rustls::Error::InvalidMessage(_)))
}
