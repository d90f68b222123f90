//! Which servers a registry's content is had from, and how they are talked to: the configuration of containerd
//! (`hosts.toml`) and of Docker (`certs.d`, insecure registries).
//!
//! Nothing here reads the environment or looks into a well-known place by itself: the caller says which directories
//! there are.

mod containerd;
mod docker;
#[cfg(test)]
mod tests;

use std::io;
use std::path::PathBuf;

use layerstore_oci::ErrorKind;
use reqwest::header::{HeaderName, HeaderValue};
use url::Url;

use crate::network::{self, Network};
use crate::{Capabilities, Host, Tls};

/// What images of Docker's registry are named after, and what it was called before.
const DOCKER: [&str; 2] = ["docker.io", "index.docker.io"];

/// Where Docker's registry really is.
const DOCKER_SERVER: &str = "registry-1.docker.io";

/// Where the configuration of hosts is, and what holds without any.
#[derive(Debug, Clone, Default)]
pub struct HostOptions {
    /// Directories such as `/etc/containerd/certs.d`. The first that has something for a registry, under its name or
    /// as `_default`, is used, and no other.
    pub containerd: Vec<PathBuf>,
    /// Directories such as `/etc/docker/certs.d`. The first that has a directory for a host is used. They are for
    /// hosts for which `hosts.toml` says nothing about certificates.
    pub docker: Vec<PathBuf>,
    /// Hosts whose certificates are not checked, as in Docker's `insecure-registries`: `host`, `host:port` (just as
    /// in the names of images: `host` does not include `host:5000`), or networks such as `10.0.0.0/8`, which hold for
    /// hosts given by address; names are not looked up. Such a registry may also speak plain HTTP.
    pub insecure: Vec<String>,
    /// Whether a registry for which nothing is configured is spoken to over plain HTTP.
    pub plain_http: bool,
}

/// Why there is no way to a registry.
#[derive(Debug, thiserror::Error)]
pub enum HostsError {
    /// A file or directory of the configuration cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A `hosts.toml` is not as it should be. The message has nothing of the text, which may hold secrets.
    #[error("{path}:{line}: {reason}")]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong.
        reason: String,
    },
    /// A client certificate without its key, or the other way round.
    #[error(
        "{path} needs {missing} beside it (certificates of authorities end in .crt, those to show in .cert)"
    )]
    Pair {
        /// The file that is there.
        path: PathBuf,
        /// The name of the file that is not.
        missing: String,
    },
    /// What should be a registry's name is none.
    #[error("{domain:?} is not the name of a registry: expected host or host:port")]
    Domain {
        /// The text.
        domain: String,
    },
    /// An exception for insecure registries is neither a host nor a network.
    #[error("insecure registry {entry:?}: expected host, host:port, or a network such as 10.0.0.0/8")]
    Insecure {
        /// The text.
        entry: String,
    },
}

impl HostsError {
    /// The class of this error.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Read { source, .. } => ErrorKind::of_io(source),
            _ => ErrorKind::InvalidInput,
        }
    }
}

/// A server as a `hosts.toml` or a directory of certificates describes it.
#[derive(Debug)]
struct Entry {
    /// Where its API begins; `None` stands for the registry itself.
    base: Option<Url>,
    /// As in [`Host`].
    alternative: Option<Url>,
    capabilities: Capabilities,
    authorities: Vec<PathBuf>,
    identities: Vec<(PathBuf, Option<PathBuf>)>,
    skip_verify: Option<bool>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Default for Entry {
    fn default() -> Self {
        Self {
            base: None,
            alternative: None,
            capabilities: Capabilities::ALL,
            authorities: Vec::new(),
            identities: Vec::new(),
            skip_verify: None,
            headers: Vec::new(),
        }
    }
}

impl Entry {
    /// Whether the configuration says anything of certificates.
    fn knows_tls(&self) -> bool {
        !self.authorities.is_empty() || !self.identities.is_empty() || self.skip_verify.is_some()
    }
}

impl HostOptions {
    /// The servers for a registry, in the order in which they are to be tried; the registry itself is the last. There
    /// is always one.
    ///
    /// Which scheme is spoken to the registry itself, where no file gives it as a URL; the first line that fits holds:
    ///
    /// | registry | `base` | `alternative` | certificate |
    /// | --- | --- | --- | --- |
    /// | `plain_http`, nothing about certificates, not Docker's | `http` | | |
    /// | on this machine, nothing about certificates, port 80 | `http` | | |
    /// | the same, port 443 | `https` | | any |
    /// | the same, no port | `https` | `http` | any |
    /// | the same, other port | `http` | `https` | any |
    /// | in `insecure`, or on this machine with `skip_verify` | `https` | `http` | any |
    /// | else | `https` | | checked, unless `skip_verify` |
    ///
    /// A URL in `hosts.toml` is taken as it is, but one with `http` for which there is something about certificates is
    /// tried with `https` first, unless the port is 80: that is containerd's rule.
    pub fn hosts(&self, domain: &str) -> Result<Vec<Host>, HostsError> {
        let name = if DOCKER.contains(&domain) { DOCKER[0] } else { domain };
        let registry = registry_url("https", name)?;
        let insecure =
            self.insecure.iter().map(|entry| Insecure::parse(entry)).collect::<Result<Vec<_>, _>>()?;
        let entries = containerd::entries(&self.containerd, name)?.unwrap_or_else(|| vec![Entry::default()]);
        entries.into_iter().map(|entry| self.host(entry, name, &registry, &insecure)).collect()
    }

    fn host(
        &self,
        mut entry: Entry,
        name: &str,
        registry: &Url,
        insecure: &[Insecure],
    ) -> Result<Host, HostsError> {
        let given = entry.base.is_some();
        let base = entry.base.take().unwrap_or_else(|| registry.clone());
        let authority = if given { authority(&base) } else { name.to_owned() };
        if !entry.knows_tls()
            && base.scheme() == "https"
            && let Some((authorities, identities)) = docker::certificates(&self.docker, &authority)?
        {
            entry.authorities = authorities;
            entry.identities = identities;
        }
        let knows_tls = entry.knows_tls();
        let insecure = insecure.iter().any(|exception| exception.fits(&authority, &base));
        let mut host = Host {
            // A mirror is told for which registry it is asked.
            namespace: (!same_server(&base, registry)).then(|| name.to_owned()),
            base,
            alternative: entry.alternative,
            capabilities: entry.capabilities,
            tls: Tls {
                skip_verify: entry.skip_verify.unwrap_or(insecure),
                authorities: entry.authorities,
                identities: entry.identities,
            },
            headers: entry.headers,
        };
        if !given {
            self.choose_scheme(&mut host, name, knows_tls, insecure)?;
        }
        for url in [Some(&mut host.base), host.alternative.as_mut()].into_iter().flatten() {
            // The site at Docker's name does not have the API, whoever wrote it into a file.
            if url.host_str().is_some_and(|host| DOCKER.contains(&host)) {
                let _ = url.set_host(Some(DOCKER_SERVER));
            }
        }
        Ok(host)
    }

    /// The table of [`HostOptions::hosts`].
    fn choose_scheme(
        &self,
        host: &mut Host,
        name: &str,
        knows_tls: bool,
        insecure: bool,
    ) -> Result<(), HostsError> {
        let plain = || registry_url("http", name);
        let loopback = network::is_loopback(&host.base);
        if self.plain_http && !knows_tls && name != DOCKER[0] {
            host.base = plain()?;
        } else if loopback && !knows_tls {
            host.tls.skip_verify = true;
            match port(name) {
                Some(80) => *host = Host { base: plain()?, tls: Tls::default(), ..host.clone() },
                Some(443) => {}
                None => host.alternative = Some(plain()?),
                Some(_) => host.alternative = Some(std::mem::replace(&mut host.base, plain()?)),
            }
        } else if (insecure || loopback) && host.tls.skip_verify {
            host.alternative = Some(plain()?);
        }
        Ok(())
    }
}

/// One of [`HostOptions::insecure`].
enum Insecure {
    Host(String),
    Network(Network),
}

impl Insecure {
    fn parse(entry: &str) -> Result<Self, HostsError> {
        let text = entry.trim().to_ascii_lowercase();
        // Docker takes these off as well.
        let text = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://")).unwrap_or(&text);
        let text = text.strip_suffix('/').unwrap_or(text);
        if let Some(network) = Network::parse(text) {
            Ok(Self::Network(network))
        } else if registry_url("https", text).is_ok() {
            Ok(Self::Host(text.to_owned()))
        } else {
            Err(HostsError::Insecure { entry: entry.to_owned() })
        }
    }

    fn fits(&self, authority: &str, base: &Url) -> bool {
        match self {
            Self::Host(host) => host.eq_ignore_ascii_case(authority),
            Self::Network(network) => network::address(base).is_some_and(|address| network.contains(address)),
        }
    }
}

/// Where the API of a registry is by rule. Its name also becomes part of paths, so nothing but a name will do.
fn registry_url(scheme: &str, name: &str) -> Result<Url, HostsError> {
    let refused = || HostsError::Domain { domain: name.to_owned() };
    let named = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:[]".contains(&byte);
    // `Url` would find the host of "https:///v2/" in its path.
    if name.is_empty() || name.starts_with('.') || !name.bytes().all(named) {
        return Err(refused());
    }
    Url::parse(&format!("{scheme}://{name}/v2/")).map_err(|_| refused())
}

/// The port that a registry's name gives.
fn port(name: &str) -> Option<u16> {
    name.rsplit_once(':')?.1.parse().ok()
}

/// `host` or `host:port` of a URL, as directories are named.
fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

fn same_server(base: &Url, registry: &Url) -> bool {
    let host = |url: &Url| match url.host_str() {
        Some(host) if DOCKER.contains(&host) => Some(DOCKER_SERVER.to_owned()),
        host => host.map(str::to_owned),
    };
    host(base) == host(registry) && base.port_or_known_default() == registry.port_or_known_default()
}
