//! Lists: the tags of a repository, and what refers to a manifest.

use std::collections::HashSet;

use layerstore_oci::{Descriptor, Digest, Document, media_type};
use reqwest::Method;
use reqwest::blocking::Response;
use reqwest::header::{ACCEPT, HeaderMap, HeaderValue, LINK};
use serde::Deserialize;
use url::Url;

use crate::client::{Need, Repository};
use crate::error::{Error, Result};
use crate::host::Host;
use crate::location;
use crate::manifest::Selector;
use crate::request::{Call, Target};

/// Tags that are asked for at once. A registry may give fewer.
const PAGE: &str = "1000";
/// Pages that are read: a million tags.
const MAX_PAGES: usize = 1000;
/// Bytes of all pages of a list.
const MAX_LIST_BYTES: u64 = 64 << 20;
/// Digits of a digest in the tag of what refers to it (OCI distribution spec 1.1, "Referrers Tag Schema").
const TAG_DIGITS: usize = 64;

#[derive(Debug, Deserialize)]
struct Tags {
    // Some registries have `null` for an empty repository.
    #[serde(default)]
    tags: Option<Vec<String>>,
}

impl Repository<'_> {
    /// All tags, in the order in which the registry gives them.
    pub fn tags(&self) -> Result<Vec<String>> {
        let what = format!("the tags of `{}`", self.path);
        self.on_hosts(Need::Resolve, |host, attempts| {
            let mut call = Call::get("tags/list", &what);
            call.query.push(("n", PAGE.to_owned()));
            let mut tags = Vec::new();
            let mut seen = HashSet::new();
            self.pages(host, attempts, call, |bytes| {
                let page: Tags = serde_json::from_slice(bytes).map_err(|error| Error::Protocol {
                    host: host.authority(),
                    what: what.clone(),
                    reason: error.to_string(),
                })?;
                let page = page.tags.unwrap_or_default();
                tags.extend(page.into_iter().filter(|tag| seen.insert(tag.clone())));
                Ok(())
            })?;
            Ok(tags)
        })
    }

    /// The manifests that are about the one with this digest: signatures, attestations and the like; of one artifact
    /// type only, if that is given. From a registry without the referrers API, those that the tag for it lists (OCI
    /// distribution spec 1.1, "Referrers Tag Schema").
    pub fn referrers(&self, digest: &Digest, artifact_type: Option<&str>) -> Result<Vec<Descriptor>> {
        let what = format!("what refers to {digest}");
        let listed = self.on_hosts(Need::Resolve, |host, attempts| {
            let mut call = Call::get(format!("referrers/{digest}"), &what);
            call.headers.insert(ACCEPT, HeaderValue::from_static(media_type::OCI_INDEX));
            call.query.extend(artifact_type.map(|wanted| ("artifactType", wanted.to_owned())));
            let mut found = Vec::new();
            self.pages(host, attempts, call, |bytes| {
                found.extend(index(host, &what, bytes)?);
                Ok(())
            })?;
            Ok(found)
        });
        let mut found = match listed {
            Err(Error::NotFound { .. } | Error::NotARegistry { .. }) => {
                let mut digits = digest.hex();
                digits.truncate(TAG_DIGITS);
                let tag = format!("{}-{digits}", digest.algorithm());
                match self.manifest(Selector::Tag(&tag)) {
                    Ok(fetched) => index(&self.hosts_for(Need::Resolve)?[0], &what, &fetched.bytes)?,
                    Err(Error::NotFound { .. }) => Vec::new(),
                    Err(error) => return Err(error),
                }
            }
            listed => listed?,
        };
        // A registry need not have filtered.
        found.retain(|descriptor| {
            artifact_type.is_none_or(|wanted| descriptor.artifact_type.as_deref() == Some(wanted))
        });
        Ok(found)
    }

    /// Reads a list page by page.
    fn pages(
        &self,
        host: &Host,
        attempts: u32,
        mut call: Call<'_>,
        mut take: impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        let what = call.what.clone();
        let mut total = 0;
        for _ in 0..MAX_PAGES {
            let (bytes, next) = self.patiently(attempts, || {
                let response = self.send(host, &call)?;
                let next = self.next_page(host, &response);
                Ok((self.read_document(host, &what, response)?, next))
            })?;
            total += bytes.len() as u64;
            if total > MAX_LIST_BYTES {
                return Err(Error::TooLarge { host: host.authority(), what, limit: MAX_LIST_BYTES });
            }
            take(&bytes)?;
            match next {
                // What another server says is no part of the list; one's own page again would have no end.
                Some(next) if next.origin() == self.shared.base(host).origin() => {
                    if matches!(&call.target, Target::Url(url) if *url == next) {
                        break;
                    }
                    let headers = call.headers;
                    call = Call::new(Method::GET, Target::Url(next), &what);
                    call.headers = headers;
                }
                _ => return Ok(()),
            }
        }
        let reason = "the list has no end".to_owned();
        Err(Error::Protocol { host: host.authority(), what, reason })
    }

    /// `Link: </v2/a/tags/list?last=x&n=100>; rel="next"` (RFC 8288).
    fn next_page(&self, host: &Host, response: &Response) -> Option<Url> {
        let next = next_link(response.headers())?;
        location::resolve(&self.shared.base(host), response.url(), next).ok()
    }
}

fn index(host: &Host, what: &str, bytes: &[u8]) -> Result<Vec<Descriptor>> {
    let unusable = |reason: String| Error::Protocol { host: host.authority(), what: what.to_owned(), reason };
    match Document::parse(bytes, None) {
        Ok(Document::Index(index)) => Ok(index.manifests),
        Ok(Document::Manifest(_)) => Err(unusable("a manifest, where an index should be".to_owned())),
        Err(error) => Err(unusable(error.to_string())),
    }
}

fn next_link(headers: &HeaderMap) -> Option<&str> {
    headers.get_all(LINK).into_iter().filter_map(|links| links.to_str().ok()).find_map(next_of)
}

/// The target of the first of several links that leads to the next page.
fn next_of(links: &str) -> Option<&str> {
    let mut rest = links;
    while let Some((_, after)) = rest.split_once('<') {
        let (target, after) = after.split_once('>')?;
        let parameters = after.split_once('<').map_or(after, |(parameters, _)| parameters);
        let next = parameters.split([';', ',']).any(|parameter| {
            let (name, value) = parameter.trim().split_once('=').unwrap_or_default();
            name.trim().eq_ignore_ascii_case("rel")
                && value.trim().trim_matches('"').eq_ignore_ascii_case("next")
        });
        if next {
            return Some(target);
        }
        rest = after;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_is_where_the_link_says() {
        let next = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(LINK, text.parse().unwrap());
            next_link(&headers).map(str::to_owned)
        };
        assert_eq!(next("</v2/a/tags/list?n=1>; rel=\"next\""), Some("/v2/a/tags/list?n=1".to_owned()));
        assert_eq!(next("<https://h/x>; a=b; rel=next"), Some("https://h/x".to_owned()));
        let several = "</0>; rel=\"prev\", </2>; rel=\"next\"; title=\"x\"";
        assert_eq!(next(several), Some("/2".to_owned()));
        assert_eq!(next("</x>; rel=\"prev\""), None);
        assert_eq!(next("</x"), None);
        assert_eq!(next("/x; rel=\"next\""), None);
    }
}
