//! Docker Hub's search (version 1 of its API), which some other registries have, too.

use reqwest::Method;
use serde::Deserialize;
use url::Url;

use crate::client::{Client, Need};
use crate::error::{Error, Result};
use crate::request::{Call, Target};
use crate::watch::Watch;

/// Where Docker Hub has its search.
const HUB: &str = "https://index.docker.io/v1/search";

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
    #[serde(default)]
    results: Vec<Found>,
}

impl Client {
    /// Looks for repositories on the registry `domain`, `docker.io` for Docker Hub. At most `limit` are found.
    pub fn search(&self, domain: &str, term: &str, limit: u32, watch: &dyn Watch) -> Result<Vec<Found>> {
        let repository = self.open(domain, "", watch)?;
        repository.on_hosts(Need::Resolve, |host, attempts| {
            let hub = (domain == "docker.io").then(|| Url::parse(HUB).ok()).flatten();
            let base = repository.shared.base(host);
            let found = hub.or_else(|| base.join("/v1/search").ok());
            let mut url = found.ok_or_else(|| Error::Protocol {
                host: host.authority(),
                what: "the search".to_owned(),
                reason: "it has no address".to_owned(),
            })?;
            url.query_pairs_mut().append_pair("q", term).append_pair("n", &limit.to_string());
            let what = format!("repositories called `{term}`");
            let call = Call::new(Method::GET, Target::Url(url), &what);
            let bytes = repository.patiently(attempts, || {
                let response = repository.send(host, &call)?;
                repository.read_document(host, &what, response)
            })?;
            let page: Page = serde_json::from_slice(&bytes).map_err(|error| Error::Protocol {
                host: host.authority(),
                what: what.clone(),
                reason: error.to_string(),
            })?;
            Ok(page.results)
        })
    }
}
