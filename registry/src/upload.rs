//! One blob's upload to one host: its session there, and going on after interruptions.

use reqwest::blocking::{Body, Response};
use reqwest::header::{CONTENT_RANGE, CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION, RANGE};
use reqwest::{Method, StatusCode};
use url::Url;

use crate::client::Repository;
use crate::error::{Error, Result};
use crate::host::Host;
use crate::location;
use crate::push::{Outgoing, Pushed, UploadOptions, check_announced};
use crate::request::{Call, Target};
use crate::source::Source;

/// Repositories that a blob is looked for in, at one request each.
const MAX_MOUNTS: usize = 3;
/// The header in which a registry says how small a chunk may be.
const MIN_CHUNK: &str = "oci-chunk-min-length";
/// Bytes after which earlier failures are forgotten: a long upload may be cut many times, as long as it gets on.
const PROGRESS: u64 = 1 << 20;

/// An upload that a registry has begun.
struct Session {
    /// Where the next request goes. Each answer says so anew.
    location: Url,
    /// Bytes that the registry has.
    offset: u64,
    /// Whether that is known. After an interruption only the registry knows.
    certain: bool,
    /// The least size of a chunk that is not the last.
    min_chunk: u64,
}

enum Begun {
    Mounted {
        from: String,
    },
    Upload(Session),
    /// The registry says that it needs none.
    Present,
}

/// Sends one blob to one host.
pub(crate) struct Upload<'a> {
    repository: &'a Repository<'a>,
    host: &'a Host,
    blob: &'a Outgoing<'a>,
    options: &'a UploadOptions,
    source: &'a Source<'a>,
    what: String,
}

impl<'a> Upload<'a> {
    pub(crate) fn new(
        repository: &'a Repository<'a>,
        host: &'a Host,
        blob: &'a Outgoing<'a>,
        options: &'a UploadOptions,
        source: &'a Source<'a>,
    ) -> Self {
        Self { repository, host, blob, options, source, what: format!("the upload of blob {}", blob.digest) }
    }

    /// Sends the blob until it is there, or it has failed too often without getting on.
    pub(crate) fn run(&self) -> Result<Pushed> {
        let attempts = self.repository.shared.retry.attempts;
        let mut session = None;
        let (mut failures, mut reached) = (0, 0);
        loop {
            let error = match self.attempt(&mut session) {
                Ok(pushed) => return Ok(pushed),
                Err(error) => error,
            };
            if let Some(source) = self.source.failure() {
                return Err(Error::Source { what: format!("blob {}", self.blob.digest), source });
            }
            if self.source.is_stopped() {
                return Err(Error::Stopped);
            }
            let again = error.is_transient() || is_lost(&error) && session.is_some();
            if !again {
                return Err(error);
            }
            let offset = session.as_ref().map_or(0, |session| session.offset);
            if offset >= reached + PROGRESS {
                (failures, reached) = (0, offset);
            }
            failures += 1;
            if failures >= attempts || !self.repository.wait_after(&error, failures)? {
                return Err(error);
            }
            if let Some(session) = &mut session {
                session.certain = false;
            }
        }
    }

    fn attempt(&self, slot: &mut Option<Session>) -> Result<Pushed> {
        if let Some(session) = slot.as_mut().filter(|session| !session.certain)
            && !self.ask(session)?
        {
            // What cannot be gone on with is begun again, unless it is over and only the answer did not get through.
            *slot = None;
            if self.repository.has_blob(self.blob.digest).unwrap_or(false) {
                return Ok(Pushed::Uploaded);
            }
        }
        let session = match slot {
            Some(session) => session,
            None => match self.begin()? {
                Begun::Mounted { from } => return Ok(Pushed::Mounted { from }),
                Begun::Present => return Ok(Pushed::AlreadyExists),
                Begun::Upload(begun) => slot.insert(begun),
            },
        };
        let size = self.blob.size;
        if session.offset == 0 && self.options.chunk.is_none_or(|chunk| chunk >= size) {
            self.close(session, size)?;
            return Ok(Pushed::Uploaded);
        }
        while session.offset < size {
            self.send_chunk(session)?;
        }
        self.close(session, 0)?;
        Ok(Pushed::Uploaded)
    }

    /// Asks for an upload, or for the blob of another repository.
    fn begin(&self) -> Result<Begun> {
        let mut upload = None;
        let elsewhere = self.options.mount_from.iter().filter(|from| **from != self.repository.path);
        for from in elsewhere.take(MAX_MOUNTS) {
            match self.post(Some(from)) {
                Ok(response) if response.status() == StatusCode::CREATED => {
                    return Ok(Begun::Mounted { from: from.clone() });
                }
                // An upload has begun instead.
                Ok(response) => upload = Some(self.begun(&response)?),
                // Whoever may not read there may still write here.
                Err(error) if error.is_transient() || matches!(error, Error::Stopped) => return Err(error),
                Err(error) => tracing::debug!(error = error.in_full(), from, "a blob cannot be mounted"),
            }
        }
        if let Some(upload) = upload {
            return Ok(Begun::Upload(upload));
        }
        let response = self.post(None)?;
        if response.status() == StatusCode::CREATED {
            return Ok(Begun::Present);
        }
        self.begun(&response).map(Begun::Upload)
    }

    fn post(&self, mount_from: Option<&str>) -> Result<Response> {
        let mut call = self.call(Method::POST, Target::Path("blobs/uploads/".to_owned()));
        if let Some(from) = mount_from {
            call.query = vec![("mount", self.blob.digest.to_string()), ("from", from.to_owned())];
            call.mount_from = Some(from);
        }
        self.repository.send(self.host, &call)
    }

    fn begun(&self, response: &Response) -> Result<Session> {
        let min_chunk = response.headers().get(MIN_CHUNK).and_then(|value| value.to_str().ok()?.parse().ok());
        let location = self.location(response)?;
        let location = location.ok_or_else(|| self.protocol("it does not say where to send the data"))?;
        Ok(Session { location, offset: 0, certain: true, min_chunk: min_chunk.unwrap_or(0) })
    }

    /// Asks how much of an interrupted upload has arrived. `false` if it cannot be gone on with.
    fn ask(&self, session: &mut Session) -> Result<bool> {
        let call = self.call(Method::GET, Target::Url(session.location.clone()));
        let response = match self.repository.send(self.host, &call) {
            Ok(response) => response,
            Err(error) if error.is_transient() || matches!(error, Error::Stopped) => return Err(error),
            Err(error) => {
                tracing::debug!(error = error.in_full(), "an upload is begun again");
                return Ok(false);
            }
        };
        let Some(offset) = received(response.headers()).filter(|offset| *offset <= self.blob.size) else {
            return Ok(false);
        };
        if let Some(location) = self.location(&response)? {
            session.location = location;
        }
        (session.offset, session.certain) = (offset, true);
        Ok(true)
    }

    /// Sends the next chunk; without a size for chunks, all that is left.
    fn send_chunk(&self, session: &mut Session) -> Result<()> {
        let offset = session.offset;
        let left = self.blob.size - offset;
        let length = self.options.chunk.unwrap_or(left).max(session.min_chunk).clamp(1, left);
        let end = offset + length;
        let mut call = self.call(Method::PATCH, Target::Url(session.location.clone()));
        call.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        if let Ok(range) = HeaderValue::try_from(format!("{offset}-{}", end - 1)) {
            call.headers.insert(CONTENT_RANGE, range);
        }
        let body = || Ok((self.source.body(offset, length)?, length));
        call.body = Some(&body);
        let response = self.repository.send(self.host, &call)?;
        if let Some(location) = self.location(&response)? {
            session.location = location;
        }
        // Not all registries say it, and some say it wrongly of a single byte.
        let arrived = received(response.headers()).filter(|arrived| *arrived > 0).unwrap_or(end);
        if arrived <= offset || arrived > end {
            return Err(self.protocol(&format!("it has {arrived} bytes after those up to {end} were sent")));
        }
        session.offset = arrived;
        Ok(())
    }

    /// Ends the upload, with the first `length` bytes, which are all or none.
    fn close(&self, session: &Session, length: u64) -> Result<()> {
        let mut url = session.location.clone();
        url.query_pairs_mut().append_pair("digest", &self.blob.digest.to_string());
        let mut call = self.call(Method::PUT, Target::Url(url));
        call.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        let body = || match length {
            // The registry may take its time to read all of it once more.
            0 => Ok((Body::from(""), self.blob.size)),
            length => Ok((self.source.body(0, length)?, length)),
        };
        call.body = Some(&body);
        let response = self.repository.send(self.host, &call)?;
        check_announced(self.host, &self.what, self.blob.digest, response.headers())
    }

    /// Where the upload goes on, if the answer says it. Another server gets no credentials: see `follow`.
    fn location(&self, response: &Response) -> Result<Option<Url>> {
        let Some(text) = response.headers().get(LOCATION) else { return Ok(None) };
        let base = self.repository.shared.base(self.host);
        let text = text.to_str().map_err(|_| self.protocol(location::UNREADABLE))?;
        location::resolve(&base, response.url(), text).map(Some).map_err(|reason| self.protocol(reason))
    }

    fn call(&self, method: Method, target: Target) -> Call<'a> {
        let mut call = Call::new(method, target, &self.what);
        call.push = true;
        call
    }

    fn protocol(&self, reason: &str) -> Error {
        Error::Protocol { host: self.host.authority(), what: self.what.clone(), reason: reason.to_owned() }
    }
}

/// Whether an upload may have ended on the registry's side, or be elsewhere there than thought.
fn is_lost(error: &Error) -> bool {
    matches!(
        error,
        Error::NotFound { .. }
            | Error::NotARegistry { .. }
            | Error::Status { status: StatusCode::RANGE_NOT_SATISFIABLE, .. }
    )
}

/// `Range: 0-99` says that 100 bytes are there. Of none, registries say `0-0`, too.
fn received(headers: &HeaderMap) -> Option<u64> {
    let text = headers.get(RANGE)?.to_str().ok()?.trim();
    let (first, last) = text.strip_prefix("bytes=").unwrap_or(text).split_once('-')?;
    if first != "0" {
        return None;
    }
    match last.parse::<u64>().ok()? {
        0 => Some(0),
        last => last.checked_add(1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_arrived_is_read_strictly() {
        let received = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(RANGE, text.parse().unwrap());
            received(&headers)
        };
        assert_eq!(received("0-99"), Some(100));
        assert_eq!(received("bytes=0-99"), Some(100));
        assert_eq!(received("0-0"), Some(0));
        for wrong in ["", "0", "1-99", "0--1", "0-18446744073709551615", "0-99999999999999999999", "a-b"] {
            assert_eq!(received(wrong), None, "{wrong}");
        }
    }
}
