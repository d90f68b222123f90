//! Uploads: blobs, in one piece or several, and manifests (OCI distribution spec, "Push").

use std::io::{self, Read};
use std::sync::Arc;

use layerstore_oci::Digest;
use reqwest::Method;
use reqwest::blocking::{Body, Response};
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue};

use crate::client::{Need, Repository};
use crate::error::{Error, Result};
use crate::host::Host;
use crate::manifest::{Selector, announced};
use crate::request::{Call, Target};
use crate::source::Source;
use crate::upload::Upload;

/// Opens a blob at an offset.
pub type OpenAt<'a> = dyn Fn(u64) -> io::Result<Box<dyn Read + Send>> + Sync + 'a;

/// A blob to be uploaded.
pub struct Outgoing<'a> {
    /// Its digest.
    pub digest: &'a Digest,
    /// Its size in bytes.
    pub size: u64,
    /// Opens it; more than once if the connection breaks.
    pub open: &'a OpenAt<'a>,
}

/// How to upload.
#[derive(Debug, Clone, Default)]
pub struct UploadOptions {
    /// Bytes that are sent in one request; none is all of them, which every registry takes. What lies between may limit
    /// the size of a request.
    pub chunk: Option<u64>,
    /// Repositories of the same registry that may have the blob.
    pub mount_from: Vec<String>,
}

/// What became of a blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pushed {
    /// The repository had it.
    AlreadyExists,
    /// Another repository of the registry had it.
    Mounted {
        /// Which one.
        from: String,
    },
    /// It was sent.
    Uploaded,
}

impl Repository<'_> {
    /// Whether the repository has a blob.
    pub fn has_blob(&self, digest: &Digest) -> Result<bool> {
        self.has(&format!("blobs/{digest}"), format!("blob {digest}"))
    }

    /// Whether the repository has a manifest or index.
    pub fn has_manifest(&self, digest: &Digest) -> Result<bool> {
        let mut call = self.manifest_call(Method::HEAD, Selector::Digest(digest));
        call.push = true;
        found(self.send_patiently(&*self.push_host()?, &call, self.shared.retry.attempts))
    }

    fn has(&self, path: &str, what: String) -> Result<bool> {
        let mut call = Call::new(Method::HEAD, Target::Path(path.to_owned()), what);
        // One token for all that follows.
        call.push = true;
        found(self.send_patiently(&*self.push_host()?, &call, self.shared.retry.attempts))
    }

    fn push_host(&self) -> Result<Arc<Host>> {
        let none = || Error::NoHost { domain: self.domain.clone(), what: "push" };
        self.hosts_for(Need::Push)?.first().cloned().ok_or_else(none)
    }

    /// Uploads a blob, if the repository does not have it. `progress` is told how many bytes have been sent, from
    /// another thread; after an interruption it may be fewer than before.
    ///
    /// After an interruption it goes on with what the registry has received. The content is verified on the way: what
    /// is not as its digest says is not completed, and is [`Error::Source`].
    pub fn push_blob(
        &self,
        blob: &Outgoing<'_>,
        options: &UploadOptions,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<Pushed> {
        match self.has_blob(blob.digest) {
            Ok(true) => return Ok(Pushed::AlreadyExists),
            // A registry may send even this question to where it stores blobs, which may not know it. It can be spared.
            Ok(false) | Err(Error::Status { .. } | Error::Denied { .. } | Error::Redirect { .. }) => {}
            Err(error) => return Err(error),
        }
        let host = self.push_host()?;
        let source = Source::new(blob);
        let upload = Upload::new(self, &host, blob, options, &source);
        source.telling(self.watch, progress, || upload.run())
    }

    /// Puts a manifest or index, byte for byte, under a tag or its digest.
    pub fn push_manifest(&self, selector: Selector<'_>, media_type: &str, bytes: &[u8]) -> Result<()> {
        let host = self.push_host()?;
        let mut call = self.manifest_call(Method::PUT, selector);
        call.headers.clear();
        call.push = true;
        if let Ok(media_type) = HeaderValue::try_from(media_type) {
            call.headers.insert(CONTENT_TYPE, media_type);
        }
        let body = || Ok((Body::from(bytes.to_vec()), bytes.len() as u64));
        call.body = Some(&body);
        let response = self.send_patiently(&host, &call, self.shared.retry.attempts)?;
        let digest = match selector {
            Selector::Digest(digest) => digest.clone(),
            Selector::Tag(_) => Digest::sha256_of(bytes),
        };
        check_announced(&host, &call.what, &digest, response.headers())
    }
}

fn found(answer: Result<Response>) -> Result<bool> {
    match answer {
        Ok(_) => Ok(true),
        // Without a body there is no telling why.
        Err(Error::NotFound { .. } | Error::NotARegistry { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Compares what a registry says that it has stored with what was sent.
pub(crate) fn check_announced(host: &Host, what: &str, wanted: &Digest, headers: &HeaderMap) -> Result<()> {
    match announced(headers) {
        Some(actual) if actual != *wanted && actual.algorithm() == wanted.algorithm() => {
            Err(Error::DigestMismatch { host: host.authority(), what: what.to_owned(), actual })
        }
        _ => Ok(()),
    }
}

impl std::fmt::Debug for Outgoing<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outgoing")
            .field("digest", self.digest)
            .field("size", &self.size)
            .finish_non_exhaustive()
    }
}
