//! Docker Hub's search (version 1 of its API), which some other registries have, too.

use reqwest::Method;
use serde::Deserialize;
use url::Url;

use crate::client::Client;
use crate::error::{Error, Result};
use crate::request::{Call, Target};
use crate::watch::Watch;

/// Where Docker Hub has its search.
const HUB: &str = "https://index.docker.io/v1/search";

/// What Docker Hub is called in the names of images.
const HUB_NAMES: [&str; 2] = ["docker.io", "index.docker.io"];
/// Docker Hub gives no more at once.
const MAX_FOUND: u32 = 100;

/// A repository that was found.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Found {
    /// Its name.
    pub name: String,
    /// What it is about.
    #[serde(default)]
    pub description: Option<String>,
    /// How many people like it.
    #[serde(default)]
    pub star_count: u64,
    /// Whether it is one of Docker's own.
    #[serde(default)]
    pub is_official: bool,
    /// Whether it is built by Docker Hub.
    #[serde(default)]
    pub is_automated: bool,
}

#[derive(Debug, Deserialize)]
struct Page {
    // Some registries have `null` for none.
    #[serde(default)]
    results: Option<Vec<Found>>,
}

impl Client {
    /// Looks for repositories on the registry `domain`, `docker.io` for Docker Hub. At most `limit` are found, and at
    /// most a hundred.
    pub fn search(&self, domain: &str, term: &str, limit: u32, watch: &dyn Watch) -> Result<Vec<Found>> {
        let is_hub = HUB_NAMES.contains(&domain);
        // Docker Hub knows its own images by their short names.
        let term = term.strip_prefix("library/").filter(|_| is_hub).unwrap_or(term);
        let limit = limit.clamp(1, MAX_FOUND);
        let repository = self.open(domain, "", watch)?;
        // The registry itself: a mirror has a part of it.
        let none = || Error::NoHost { domain: domain.to_owned(), what: "search" };
        let host = repository.hosts.last().cloned().ok_or_else(none)?;
        let what = format!("repositories called `{term}`");
        let protocol =
            |reason: String| Error::Protocol { host: host.authority(), what: what.clone(), reason };
        let ask = |base: &Url| {
            let url = if is_hub { Url::parse(HUB) } else { base.join("/v1/search") };
            let mut url = url.map_err(|error| protocol(error.to_string()))?;
            url.query_pairs_mut().append_pair("q", term).append_pair("n", &limit.to_string());
            let call = Call::new(Method::GET, Target::Url(url), &what);
            repository.patiently(self.shared.retry.attempts, || {
                let response = repository.send(&host, &call)?;
                repository.read_document(&host, &what, response)
            })
        };
        let base = self.shared.base(&host);
        // The address is a whole one, so nothing else turns it to the other scheme.
        let bytes = match ask(&base) {
            Err(Error::Unreachable { other_scheme: true, .. } | Error::Status { .. })
                if !is_hub && self.shared.base(&host) != base =>
            {
                ask(&self.shared.base(&host))?
            }
            Err(error @ Error::Unreachable { other_scheme: true, .. }) if !is_hub => {
                match self.shared.other_base(&host) {
                    Some(other) => ask(other)?,
                    None => return Err(error),
                }
            }
            done => done?,
        };
        let page: Page = serde_json::from_slice(&bytes).map_err(|error| protocol(error.to_string()))?;
        let mut found = page.results.unwrap_or_default();
        found.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
        Ok(found)
    }
}
