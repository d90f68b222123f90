//! Manifests and indexes: what a tag stands for, and documents by digest.

use std::io::Read as _;

use layerstore_oci::{Digest, Hasher, MAX_DOCUMENT_BYTES, media_type};
use reqwest::Method;
use reqwest::blocking::Response;
use reqwest::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue};

use crate::client::{Need, Repository};
use crate::error::{Error, Result};
use crate::host::Host;
use crate::request::{Call, Target};

/// The header in which registries say what digest a manifest has.
const DIGEST_HEADER: &str = "docker-content-digest";

/// A manifest or index, as a registry sent it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchedManifest {
    /// Computed from the bytes.
    pub digest: Digest,
    /// What the registry says that it is, without parameters; empty if it does not.
    pub media_type: String,
    /// The exact bytes.
    pub bytes: Vec<u8>,
}

/// What names a manifest in a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Selector<'a> {
    /// Its tag.
    Tag(&'a str),
    /// Its digest.
    Digest(&'a Digest),
}

impl std::fmt::Display for Selector<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tag(tag) => f.write_str(tag),
            Self::Digest(digest) => digest.fmt(f),
        }
    }
}

impl Repository<'_> {
    /// The digest of what `tag` stands for now, in one small request. `None` if the registry does not tell.
    pub fn resolve(&self, tag: &str) -> Result<Option<Digest>> {
        let call = self.manifest_call(Method::HEAD, Selector::Tag(tag));
        let answer =
            self.on_hosts(Need::Resolve, |host, attempts| self.send_patiently(host, &call, attempts));
        match answer {
            Ok(response) => Ok(announced(response.headers())),
            // Some registries do not have HEAD, and no answer to it says why there is none.
            Err(Error::NotFound { .. } | Error::Status { .. } | Error::NotARegistry { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Fetches a manifest or index. By digest, its content is verified; by tag, against the digest that the
    /// registry announces.
    pub fn manifest(&self, selector: Selector<'_>) -> Result<FetchedManifest> {
        if let Selector::Tag(tag) = selector
            && self.hosts_for(Need::Resolve)?.first() != self.hosts_for(Need::Pull)?.first()
        {
            // A mirror that may not say what a tag stands for may still have it.
            if let Some(digest) = self.resolve(tag)? {
                return self.manifest(Selector::Digest(&digest));
            }
        }
        let need = match selector {
            Selector::Tag(_) => Need::Resolve,
            Selector::Digest(_) => Need::Pull,
        };
        let call = self.manifest_call(Method::GET, selector);
        self.on_hosts(need, |host, attempts| {
            let fetch = || {
                self.patiently(attempts, || {
                    let response = self.send(host, &call)?;
                    self.read_manifest(host, &call.what, response)
                })
            };
            let wanted = match selector {
                Selector::Tag(_) => None,
                Selector::Digest(digest) => Some(digest),
            };
            // Wrong content is asked for once more: what lies between may have damaged it.
            let first = fetch()?;
            match verified(host, &call.what, first, wanted) {
                Err(Error::DigestMismatch { .. }) => verified(host, &call.what, fetch()?, wanted),
                done => done,
            }
        })
    }

    /// Fetches a small blob, such as a config, and verifies it.
    pub fn small_blob(&self, digest: &Digest, size: u64) -> Result<Vec<u8>> {
        if size > MAX_DOCUMENT_BYTES {
            return Err(Error::TooLarge {
                host: self.domain.clone(),
                what: format!("blob {digest}"),
                limit: MAX_DOCUMENT_BYTES,
            });
        }
        let fetch = |repository: &Repository<'_>| -> Result<Vec<u8>> {
            let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
            let mut download = repository.download(digest, size, 0);
            match download.read_to_end(&mut bytes) {
                Ok(_) => Ok(bytes),
                Err(error) => Err(download.into_error(error)),
            }
        };
        let mut last = None;
        // A mirror that sends something else may be asked in vain for ever.
        for repository in [self, &self.without_mirrors()] {
            let bytes = fetch(repository)?;
            let actual = digest_of(digest, &bytes);
            if actual == *digest {
                return Ok(bytes);
            }
            last = Some(actual);
        }
        let (host, what) = (self.domain.clone(), format!("blob {digest}"));
        Err(last.map_or(Error::Stopped, |actual| Error::DigestMismatch { host, what, actual }))
    }

    pub(crate) fn manifest_call(&self, method: Method, selector: Selector<'_>) -> Call<'static> {
        let joint = if matches!(selector, Selector::Tag(_)) { ':' } else { '@' };
        let what = format!("image `{}{joint}{selector}`", self.path);
        let mut call = Call::new(method, Target::Path(format!("manifests/{selector}")), what);
        for accepted in [
            media_type::OCI_INDEX,
            media_type::OCI_MANIFEST,
            media_type::DOCKER_MANIFEST_LIST,
            media_type::DOCKER_MANIFEST,
            "*/*;q=0.1",
        ] {
            call.headers.append(ACCEPT, HeaderValue::from_static(accepted));
        }
        call
    }
}

fn digest_of(like: &Digest, bytes: &[u8]) -> Digest {
    let mut hasher = Hasher::new(like.algorithm());
    hasher.update(bytes);
    hasher.finish()
}

pub(crate) fn announced(headers: &HeaderMap) -> Option<Digest> {
    headers.get(DIGEST_HEADER)?.to_str().ok()?.parse().ok()
}

/// What a registry says of a manifest, before it is believed.
struct Unverified {
    announced: Option<Digest>,
    media_type: String,
    bytes: Vec<u8>,
}

impl Repository<'_> {
    fn read_manifest(&self, host: &Host, what: &str, response: Response) -> Result<Unverified> {
        let announced = announced(response.headers());
        let media_type = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let media_type =
            media_type.and_then(|value| value.split(';').next()).unwrap_or_default().trim().to_owned();
        let bytes = self.read_document(host, what, response)?;
        Ok(Unverified { announced, media_type, bytes })
    }

    /// Reads an answer of at most [`MAX_DOCUMENT_BYTES`].
    pub(crate) fn read_document(&self, host: &Host, what: &str, response: Response) -> Result<Vec<u8>> {
        let too_large =
            || Error::TooLarge { host: host.authority(), what: what.to_owned(), limit: MAX_DOCUMENT_BYTES };
        let length =
            response.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        if length.is_some_and(|length: u64| length > MAX_DOCUMENT_BYTES) {
            return Err(too_large());
        }
        let mut bytes = Vec::new();
        let mut body = self.paced(response);
        let read = body.by_ref().take(MAX_DOCUMENT_BYTES + 1).read_to_end(&mut bytes);
        if let Err(source) = read {
            return Err(body.failure(host, what, source));
        }
        if bytes.len() as u64 > MAX_DOCUMENT_BYTES {
            return Err(too_large());
        }
        Ok(bytes)
    }
}

fn verified(
    host: &Host,
    what: &str,
    document: Unverified,
    wanted: Option<&Digest>,
) -> Result<FetchedManifest> {
    let Unverified { announced, media_type, bytes } = document;
    let digest = match wanted.or(announced.as_ref()) {
        None => Digest::sha256_of(&bytes),
        Some(expected) => {
            let actual = digest_of(expected, &bytes);
            if actual != *expected {
                return Err(Error::DigestMismatch { host: host.authority(), what: what.to_owned(), actual });
            }
            actual
        }
    };
    Ok(FetchedManifest { digest, media_type, bytes })
}
