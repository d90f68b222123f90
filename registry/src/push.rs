//! Uploads: blobs, in one piece or several, and manifests (OCI distribution spec, "Push").

use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use layerstore_oci::{Digest, Hasher};
use reqwest::blocking::{Body, Response};
use reqwest::header::{CONTENT_RANGE, CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION, RANGE};
use reqwest::{Method, StatusCode};
use url::Url;

use crate::client::{Need, Repository};
use crate::error::{Error, Result};
use crate::host::Host;
use crate::manifest::{Selector, announced};
use crate::request::{Call, Target};

/// How often the progress of an upload is told.
const TELL_EVERY: Duration = Duration::from_millis(100);
/// Repositories that a blob is looked for in, at one request each.
const MAX_MOUNTS: usize = 3;
/// The header in which a registry says how small a chunk may be.
const MIN_CHUNK: &str = "oci-chunk-min-length";

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

/// An upload under way.
struct Upload {
    location: Url,
    /// Bytes that the registry has.
    offset: u64,
    /// The least size of a chunk that is not the last.
    min_chunk: u64,
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

    /// Uploads a blob, if the repository does not have it. `progress` is told how many bytes have been sent.
    ///
    /// After an interruption it goes on with what the registry has received. The content is verified on the way: what
    /// is not as its digest says is not completed.
    pub fn push_blob(
        &self,
        blob: &Outgoing<'_>,
        options: &UploadOptions,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<Pushed> {
        if self.has_blob(blob.digest)? {
            return Ok(Pushed::AlreadyExists);
        }
        let host = self.push_host()?;
        let mut upload = None;
        let mut failures = 0;
        loop {
            let error = match self.attempt_upload(&host, blob, options, &mut upload, progress) {
                Ok(pushed) => return Ok(pushed),
                Err(error) => error,
            };
            let gone = matches!(
                &error,
                Error::NotFound { .. }
                    | Error::Status { status: StatusCode::RANGE_NOT_SATISFIABLE, .. }
            );
            let again = error.is_transient() || gone && upload.is_some();
            if !again {
                return Err(error);
            }
            failures += 1;
            if failures >= self.shared.retry.attempts || !self.wait_after(&error, failures)? {
                return Err(error);
            }
            // What cannot be gone on with is begun again.
            upload = upload.take().filter(|_| !gone).and_then(|upload| self.received(&host, blob, upload));
        }
    }

    fn attempt_upload(
        &self,
        host: &Host,
        blob: &Outgoing<'_>,
        options: &UploadOptions,
        upload: &mut Option<Upload>,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<Pushed> {
        let current = match upload {
            Some(current) => current,
            None => match self.begin_upload(host, blob, &options.mount_from)? {
                Begun::Mounted { from } => return Ok(Pushed::Mounted { from }),
                Begun::Upload(begun) => upload.insert(begun),
            },
        };
        let whole = current.offset == 0 && options.chunk.is_none_or(|chunk| chunk >= blob.size);
        if whole {
            self.send_part(host, blob, current, blob.size, true, progress)?;
            return Ok(Pushed::Uploaded);
        }
        while current.offset < blob.size {
            let left = blob.size - current.offset;
            let chunk = options.chunk.unwrap_or(left).max(current.min_chunk).max(1).min(left);
            self.send_part(host, blob, current, chunk, false, progress)?;
        }
        self.finish_upload(host, blob, current)?;
        Ok(Pushed::Uploaded)
    }

    /// Asks for an upload, or for the blob of another repository.
    fn begin_upload(&self, host: &Host, blob: &Outgoing<'_>, mount_from: &[String]) -> Result<Begun> {
        let what = format!("the upload of blob {}", blob.digest);
        let begin = |from: Option<&str>| -> Result<Response> {
            let mut call = Call::new(Method::POST, Target::Path("blobs/uploads/".to_owned()), &what);
            call.push = true;
            if let Some(from) = from {
                call.query = vec![("mount", blob.digest.to_string()), ("from", from.to_owned())];
                call.mount_from = Some(from);
            }
            self.send(host, &call)
        };
        for from in mount_from.iter().filter(|from| **from != self.path).take(MAX_MOUNTS) {
            match begin(Some(from)) {
                Ok(response) if response.status() == StatusCode::CREATED => {
                    return Ok(Begun::Mounted { from: from.clone() });
                }
                // An upload has begun instead.
                Ok(response) if mount_from.len() == 1 => return Ok(Begun::Upload(Self::begun(host, &what, &response)?)),
                Ok(_) => {}
                // Whoever may not read there may still write here.
                Err(error) if error.is_transient() => return Err(error),
                Err(error) => tracing::debug!(error = error.in_full(), from, "a blob cannot be mounted"),
            }
        }
        let response = begin(None)?;
        Ok(Begun::Upload(Self::begun(host, &what, &response)?))
    }

    fn begun(host: &Host, what: &str, response: &Response) -> Result<Upload> {
        let min_chunk = response.headers().get(MIN_CHUNK).and_then(|value| value.to_str().ok()?.parse().ok());
        let location = Self::location(host, what, response)?;
        Ok(Upload { location, offset: 0, min_chunk: min_chunk.unwrap_or(0) })
    }

    /// Where the upload goes on. Another server gets no credentials: see `follow`.
    fn location(host: &Host, what: &str, response: &Response) -> Result<Url> {
        let to = response.headers().get(LOCATION).and_then(|to| to.to_str().ok());
        let mut url = to.and_then(|to| response.url().join(to).ok()).ok_or_else(|| Error::Protocol {
            host: host.authority(),
            what: what.to_owned(),
            reason: "it does not say where to send the data".to_owned(),
        })?;
        let _ = url.set_username("").and_then(|()| url.set_password(None));
        Ok(url)
    }

    /// Sends `length` bytes from the offset on: the last ones with the digest, in a `PUT`, which ends the upload.
    fn send_part(
        &self,
        host: &Host,
        blob: &Outgoing<'_>,
        upload: &mut Upload,
        length: u64,
        last: bool,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<()> {
        let what = format!("the upload of blob {}", blob.digest);
        let offset = upload.offset;
        let target = if last { with_digest(&upload.location, blob.digest) } else { upload.location.clone() };
        let method = if last { Method::PUT } else { Method::PATCH };
        let mut call = Call::new(method, Target::Url(target), &what);
        call.push = true;
        call.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        if !last && let Ok(range) = HeaderValue::try_from(format!("{offset}-{}", offset + length - 1)) {
            call.headers.insert(CONTENT_RANGE, range);
        }
        let sent = Arc::new(AtomicU64::new(0));
        let failure: Arc<Mutex<Option<io::Error>>> = Arc::default();
        let body = || {
            sent.store(0, Ordering::Relaxed);
            let inner = (blob.open)(offset)?.take(length);
            // Only who reads all of it can tell.
            let check = last.then(|| (Hasher::new(blob.digest.algorithm()), blob.digest.clone()));
            let (sent, failure) = (Arc::clone(&sent), Arc::clone(&failure));
            let source = Source { inner, left: length, check, sent, failure };
            Ok((Body::sized(source, length), length))
        };
        call.body = Some(&body);
        let response = telling(&sent, &|bytes| progress(offset + bytes), || self.send(host, &call));
        if let Some(source) = failure.lock().unwrap_or_else(PoisonError::into_inner).take() {
            return Err(Error::Source { what: format!("blob {}", blob.digest), source });
        }
        let response = response?;
        progress(offset + length);
        if last {
            return Self::check_announced(host, &what, blob.digest, response.headers());
        }
        upload.location = Self::location(host, &what, &response)?;
        upload.offset = received_range(response.headers()).filter(|end| *end > offset).unwrap_or(offset + length);
        if upload.offset > blob.size {
            let reason = format!("it says that it has {} of {} bytes", upload.offset, blob.size);
            return Err(Error::Protocol { host: host.authority(), what, reason });
        }
        Ok(())
    }

    /// Ends an upload all of whose bytes have been sent.
    fn finish_upload(&self, host: &Host, blob: &Outgoing<'_>, upload: &Upload) -> Result<()> {
        let what = format!("the upload of blob {}", blob.digest);
        let mut call = Call::new(Method::PUT, Target::Url(with_digest(&upload.location, blob.digest)), &what);
        call.push = true;
        // The registry may take its time to read all of it once more.
        let size = blob.size;
        let body = move || Ok((Body::from(""), size));
        call.body = Some(&body);
        let response = self.send(host, &call)?;
        Self::check_announced(host, &what, blob.digest, response.headers())
    }

    fn check_announced(host: &Host, what: &str, wanted: &Digest, headers: &HeaderMap) -> Result<()> {
        match announced(headers) {
            Some(actual) if actual != *wanted && actual.algorithm() == wanted.algorithm() => {
                Err(Error::DigestMismatch { host: host.authority(), what: what.to_owned(), actual })
            }
            _ => Ok(()),
        }
    }

    /// How much of an interrupted upload has arrived; none if it cannot be gone on with.
    fn received(&self, host: &Host, blob: &Outgoing<'_>, upload: Upload) -> Option<Upload> {
        let what = format!("the upload of blob {}", blob.digest);
        let mut call = Call::new(Method::GET, Target::Url(upload.location.clone()), &what);
        call.push = true;
        let response = self.send(host, &call).ok()?;
        let offset = received_range(response.headers()).filter(|offset| *offset <= blob.size)?;
        let location = Self::location(host, &what, &response).unwrap_or(upload.location);
        Some(Upload { location, offset, ..upload })
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
        Self::check_announced(&host, &call.what, &digest, response.headers())
    }
}

enum Begun {
    Mounted { from: String },
    Upload(Upload),
}

fn found(answer: Result<Response>) -> Result<bool> {
    match answer {
        Ok(_) => Ok(true),
        // Without a body there is no telling why.
        Err(Error::NotFound { .. } | Error::NotARegistry { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

fn with_digest(location: &Url, digest: &Digest) -> Url {
    let mut url = location.clone();
    url.query_pairs_mut().append_pair("digest", &digest.to_string());
    url
}

/// `Range: 0-99` says that 100 bytes are there. Of none, registries say `0-0`, too.
fn received_range(headers: &HeaderMap) -> Option<u64> {
    let text = headers.get(RANGE)?.to_str().ok()?;
    let (first, last) = text.trim().trim_start_matches("bytes=").split_once('-')?;
    if first != "0" {
        return None;
    }
    let last: u64 = last.parse().ok()?;
    Some(if last == 0 { 0 } else { last.checked_add(1)? })
}

/// Does `work`, and tells every now and then what is in `sent`.
fn telling<T>(sent: &AtomicU64, tell: &(dyn Fn(u64) + Sync), work: impl FnOnce() -> T) -> T {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let teller = scope.spawn(|| {
            loop {
                thread::park_timeout(TELL_EVERY);
                if done.load(Ordering::Acquire) {
                    return;
                }
                tell(sent.load(Ordering::Relaxed));
            }
        });
        let result = work();
        done.store(true, Ordering::Release);
        teller.thread().unpark();
        result
    })
}

/// What is sent: counted, and at its end compared with its digest.
struct Source<R> {
    inner: R,
    left: u64,
    check: Option<(Hasher, Digest)>,
    sent: Arc<AtomicU64>,
    failure: Arc<Mutex<Option<io::Error>>>,
}

impl<R: Read> Read for Source<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.read_some(buffer).map_err(|error| {
            let told = io::Error::new(error.kind(), "the source failed");
            *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
            told
        })
    }
}

impl<R: Read> Source<R> {
    fn read_some(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        if count == 0 && self.left > 0 && !buffer.is_empty() {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it is shorter than it should be"));
        }
        self.left = self.left.saturating_sub(count as u64);
        if let Some((hasher, _)) = &mut self.check {
            hasher.update(&buffer[..count]);
        }
        // Before the last bytes go out: without them the registry takes nothing.
        if self.left == 0
            && let Some((hasher, wanted)) = self.check.take()
            && hasher.finish() != wanted
        {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "its content is not what its digest says"));
        }
        self.sent.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}

impl std::fmt::Debug for Outgoing<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outgoing").field("digest", self.digest).field("size", &self.size).finish_non_exhaustive()
    }
}
