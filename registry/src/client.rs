//! The client, and one repository seen through it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use layerstore_oci::Reference;
use url::Url;

use crate::authorize::Authorizer;
use crate::credentials::Credentials;
use crate::error::{Error, Result};
use crate::host::{Capabilities, Host};
use crate::hosts::HostOptions;
use crate::retry::Retry;
use crate::transport::{Proxies, Timeouts, Transport};
use crate::watch::{Notice, Watch};

/// What a client is made from.
#[derive(Debug, Default)]
pub struct Options {
    /// Which hosts serve which registry.
    pub hosts: HostOptions,
    /// Where credentials come from; without it everything is asked for anonymously.
    pub credentials: Option<Arc<dyn Credentials>>,
    /// Proxies.
    pub proxies: Proxies,
    /// When to try again.
    pub retry: Retry,
}

/// A client of registries. Cheap to clone; clones share connections and tokens.
///
/// It must not be used or dropped on a thread that runs asynchronous code (`reqwest::blocking` panics there).
#[derive(Debug, Clone)]
pub struct Client {
    pub(crate) shared: Arc<Shared>,
}

#[derive(Debug)]
pub(crate) struct Shared {
    hosts: HostOptions,
    pub(crate) transport: Transport,
    pub(crate) authorizer: Authorizer,
    pub(crate) retry: Retry,
    /// Where hosts that leave it open have their API. What has once answered there stays: who can cut connections must
    /// not lead us from TLS to plain HTTP later.
    bases: Mutex<HashMap<Url, Url>>,
}

impl Shared {
    /// Where the API of `host` begins, as far as is known.
    pub(crate) fn base(&self, host: &Host) -> Url {
        let bases = self.bases.lock().unwrap_or_else(PoisonError::into_inner);
        bases.get(&host.base).unwrap_or(&host.base).clone()
    }

    /// Where else the API may be, as long as nothing has answered.
    pub(crate) fn other_base<'h>(&self, host: &'h Host) -> Option<&'h Url> {
        let bases = self.bases.lock().unwrap_or_else(PoisonError::into_inner);
        host.alternative.as_ref().filter(|_| !bases.contains_key(&host.base))
    }

    /// The API has answered there.
    pub(crate) fn settle(&self, host: &Host, base: &Url) {
        if host.alternative.is_some() {
            let mut bases = self.bases.lock().unwrap_or_else(PoisonError::into_inner);
            bases.entry(host.base.clone()).or_insert_with(|| base.clone());
        }
    }
}

impl Client {
    /// A client; nothing is connected to yet.
    pub fn new(options: Options) -> Result<Self> {
        let Options { hosts, credentials, proxies, retry } = options;
        let timeouts = Timeouts { stall: retry.stall, ..Timeouts::default() };
        let transport = Transport::new(&proxies, timeouts)?;
        let authorizer = Authorizer::new(credentials);
        let bases = Mutex::default();
        Ok(Self { shared: Arc::new(Shared { hosts, transport, authorizer, retry, bases }) })
    }

    /// The repository that `reference` names; its tag and digest do not matter.
    pub fn repository<'w>(&self, reference: &Reference, watch: &'w dyn Watch) -> Result<Repository<'w>> {
        self.open(reference.domain(), reference.path(), watch)
    }

    pub(crate) fn open<'w>(&self, domain: &str, path: &str, watch: &'w dyn Watch) -> Result<Repository<'w>> {
        let hosts = self.shared.hosts.hosts(domain)?.into_iter().map(Arc::new).collect();
        let (domain, path) = (domain.to_owned(), path.to_owned());
        Ok(Repository { shared: Arc::clone(&self.shared), domain, path, hosts, watch })
    }
}

/// One repository of one registry.
#[derive(Clone)]
pub struct Repository<'w> {
    pub(crate) shared: Arc<Shared>,
    pub(crate) domain: String,
    pub(crate) path: String,
    pub(crate) hosts: Vec<Arc<Host>>,
    pub(crate) watch: &'w dyn Watch,
}

impl std::fmt::Debug for Repository<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Repository").field("domain", &self.domain).field("path", &self.path).finish()
    }
}

/// What a host must be configured for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    Pull,
    Resolve,
    Push,
}

impl Need {
    fn met_by(self, has: Capabilities) -> bool {
        match self {
            Self::Pull => has.pull,
            Self::Resolve => has.resolve,
            Self::Push => has.push,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Pull => "pull",
            Self::Resolve => "resolve",
            Self::Push => "push",
        }
    }
}

impl Repository<'_> {
    /// The registry's domain, as in the reference.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// The repository's path within the registry.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The same, seen by somebody else.
    #[must_use]
    pub fn watched_by<'v>(&self, watch: &'v dyn Watch) -> Repository<'v> {
        let Self { shared, domain, path, hosts, .. } = self.clone();
        Repository { shared, domain, path, hosts, watch }
    }

    /// The same without mirrors: for content that one of them has changed.
    #[must_use]
    pub fn without_mirrors(&self) -> Self {
        let mut alone = self.clone();
        let pulled = alone.hosts.iter().rposition(|host| host.capabilities.pull);
        alone.hosts.drain(..pulled.unwrap_or(0));
        alone
    }

    /// Hosts that may be asked for `need`, in the order in which they are asked.
    pub(crate) fn hosts_for(&self, need: Need) -> Result<Vec<Arc<Host>>> {
        let hosts: Vec<_> =
            self.hosts.iter().filter(|host| need.met_by(host.capabilities)).map(Arc::clone).collect();
        if hosts.is_empty() {
            return Err(Error::NoHost { domain: self.domain.clone(), what: need.as_str() });
        }
        Ok(hosts)
    }

    /// Asks one host after the other. A mirror gets two attempts: another host is a better chance than a third.
    pub(crate) fn on_hosts<T>(
        &self,
        need: Need,
        mut ask: impl FnMut(&Arc<Host>, u32) -> Result<T>,
    ) -> Result<T> {
        const MIRROR_ATTEMPTS: u32 = 2;
        let hosts = self.hosts_for(need)?;
        let attempts = self.shared.retry.attempts;
        for (host, next) in hosts.iter().zip(&hosts[1..]) {
            match ask(host, attempts.min(MIRROR_ATTEMPTS)) {
                Err(Error::Stopped) => return Err(Error::Stopped),
                Err(error) => self.next_host(host, next, &error),
                done => return done,
            }
        }
        match hosts.last() {
            Some(last) => ask(last, attempts),
            None => Err(Error::NoHost { domain: self.domain.clone(), what: need.as_str() }),
        }
    }

    pub(crate) fn next_host(&self, host: &Host, next: &Host, error: &Error) {
        // A mirror that lacks something is how mirrors are.
        if matches!(error, Error::NotFound { .. }) || host.authority() == next.authority() {
            tracing::debug!(host = host.authority(), error = error.in_full(), "the next host is asked");
            return;
        }
        self.watch.notice(Notice::NextHost {
            host: host.authority(),
            reason: error.in_full(),
            next: next.authority(),
        });
    }
}
