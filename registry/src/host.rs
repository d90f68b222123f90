//! A server that a repository's content may be had from: the registry itself or a mirror.

use std::path::PathBuf;

use reqwest::header::{HeaderName, HeaderValue};
use url::Url;

/// One server, and how to talk to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// Where the API begins: `https://registry-1.docker.io/v2/`. Always ends in a slash.
    pub base: Url,
    /// The same with the other scheme, where the configuration leaves open which one the server speaks. It is for a
    /// server that turns out not to speak the scheme of `base`, and for nothing else: not for one that cannot be
    /// reached, and not for a certificate that does not hold.
    pub alternative: Option<Url>,
    /// What it is asked for.
    pub capabilities: Capabilities,
    /// How its certificate is checked, where `base` or `alternative` is `https`.
    pub tls: Tls,
    /// Headers that every request to this host gets; they may hold secrets.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// For a mirror: the registry that it stands in for, sent as the query parameter `ns`, as containerd does, so
    /// that one mirror can serve several registries.
    pub namespace: Option<String>,
}

impl Host {
    /// `host` or `host:port`, as in the URL: what credentials are looked up by, and what messages name.
    pub fn authority(&self) -> String {
        let host = self.base.host_str().unwrap_or_default();
        match self.base.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        }
    }
}

/// What a host is asked for (`capabilities` of containerd's `hosts.toml`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    /// Content by digest.
    pub pull: bool,
    /// What a tag stands for: needs trust, since nothing verifies the answer.
    pub resolve: bool,
    /// Uploads.
    pub push: bool,
}

impl Capabilities {
    /// All of them.
    pub const ALL: Self = Self { pull: true, resolve: true, push: true };
}

/// How the certificate of a host is checked, and what is shown to it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Tls {
    /// Certificate authorities beside the system's, PEM files.
    pub authorities: Vec<PathBuf>,
    /// Certificates to show, PEM files, each with its key; the key may be in the same file.
    pub identities: Vec<(PathBuf, Option<PathBuf>)>,
    /// Whether any certificate is good enough.
    pub skip_verify: bool,
}
