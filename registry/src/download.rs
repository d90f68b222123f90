//! A blob on its way, through interruptions, slow servers and several hosts.

use std::io::{self, Read};
use std::sync::Arc;
use std::time::Instant;

use layerstore_oci::Digest;
use reqwest::StatusCode;
use reqwest::blocking::Response;
use reqwest::header::{CONTENT_RANGE, HeaderMap, HeaderValue, RANGE};

use crate::client::{Need, Repository};
use crate::error::{Error, Result};
use crate::host::Host;
use crate::pace::{Pace, broken};
use crate::request::Call;

/// Bytes after which earlier failures are forgotten: a long download may be cut many times, as long as it gets on.
const PROGRESS: u64 = 1 << 20;

/// Reads a blob from `offset` to its end.
///
/// Interrupted, it goes on where it was, by `Range`, on the same host or the next. The bytes are not verified here:
/// who reads them has those before `offset`. An error ends it; [`Download::into_error`] tells what it was.
#[derive(Debug)]
pub struct Download<'w> {
    repository: Repository<'w>,
    digest: Digest,
    size: u64,
    offset: u64,
    hosts: Vec<Arc<Host>>,
    connection: Option<Connection>,
    failures: u32,
    /// Where the last failure was.
    failed_at: u64,
    /// Servers that answered a range with something else are asked for everything.
    whole: bool,
    error: Option<Error>,
}

struct Connection {
    response: Response,
    /// Bytes before the offset that the server sends all the same.
    skip: u64,
    pace: Pace,
}

impl std::fmt::Debug for Connection {
    /// The URL of the answer may hold a signature.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection")
            .field("skip", &self.skip)
            .field("pace", &self.pace)
            .finish_non_exhaustive()
    }
}

impl Repository<'_> {
    /// Starts to download the blob `digest` of `size` bytes at `offset`. Nothing is sent before the first read.
    pub fn download(&self, digest: &Digest, size: u64, offset: u64) -> Download<'_> {
        Download {
            repository: self.clone(),
            digest: digest.clone(),
            size,
            offset,
            hosts: Vec::new(),
            connection: None,
            failures: 0,
            failed_at: offset,
            whole: false,
            error: None,
        }
    }
}

impl Download<'_> {
    /// The reason for the `error` that reading gave.
    pub fn into_error(self, error: io::Error) -> Error {
        let (host, what) = (self.repository.domain.clone(), self.what());
        self.error.unwrap_or(Error::Read { host, what, source: error })
    }

    fn what(&self) -> String {
        format!("blob {}", self.digest)
    }

    fn host(&self) -> Result<Arc<Host>> {
        let none = || Error::NoHost { domain: self.repository.domain.clone(), what: "pull" };
        self.hosts.first().cloned().ok_or_else(none)
    }

    fn read_some(&mut self, buffer: &mut [u8]) -> Result<usize> {
        if self.hosts.is_empty() {
            self.hosts = self.repository.hosts_for(Need::Pull)?;
        }
        loop {
            if self.offset >= self.size || buffer.is_empty() {
                return Ok(0);
            }
            if self.repository.watch.is_stopped() {
                return Err(Error::Stopped);
            }
            match self.attempt(buffer) {
                Ok(0) => {}
                Ok(count) => {
                    self.offset += count as u64;
                    return Ok(count);
                }
                Err(Error::Stopped) => return Err(Error::Stopped),
                Err(error) => {
                    self.connection = None;
                    self.recover(error)?;
                }
            }
        }
    }

    /// Waits for another attempt, or turns to the next host, or gives up.
    fn recover(&mut self, error: Error) -> Result<()> {
        // A server that begins anew each time makes us receive all of it for each step.
        if self.offset - self.failed_at >= PROGRESS && !self.whole {
            self.failures = 0;
        }
        self.failed_at = self.offset;
        self.failures += 1;
        let retry = &self.repository.shared.retry;
        let last = self.hosts.len() == 1;
        let attempts = if last { retry.attempts } else { retry.attempts.min(2) };
        if may_pass(&error)
            && self.failures < attempts
            && self.repository.wait_after(&error, self.failures)?
        {
            return Ok(());
        }
        if last {
            return Err(error);
        }
        let host = self.hosts.remove(0);
        let next = self.host()?;
        self.repository.next_host(&host, &next, &error);
        (self.failures, self.whole) = (0, false);
        Ok(())
    }

    /// Reads a piece, connecting before if need be. `0` says that only bytes to skip came.
    fn attempt(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let host = self.host()?;
        if self.connection.is_none() {
            self.connection = Some(self.connect(&host)?);
        }
        let (what, left) = (self.what(), self.size - self.offset);
        let (offset, size) = (self.offset, self.size);
        let retry = self.repository.shared.retry;
        let Some(connection) = &mut self.connection else { return Ok(0) };
        let most = if connection.skip > 0 { connection.skip } else { left };
        let most = buffer.len().min(usize::try_from(most).unwrap_or(usize::MAX));
        let begin = Instant::now();
        let read = connection.response.read(&mut buffer[..most]);
        let slow =
            connection.pace.is_stalled(begin.elapsed(), read.as_ref().map_or(0, |count| *count), &retry);
        match read {
            Ok(0) => Err(Error::Cut {
                host: host.authority(),
                what,
                received: offset - connection.skip,
                expected: size,
            }),
            Ok(_) if slow => Err(Error::Stalled {
                host: host.authority(),
                what,
                rate: retry.least_rate,
                time: retry.stall,
            }),
            Ok(count) if connection.skip > 0 => {
                connection.skip -= count as u64;
                Ok(0)
            }
            Ok(count) => Ok(count),
            Err(source) if source.kind() == io::ErrorKind::Interrupted => Ok(0),
            Err(error) => Err(broken(host.authority(), what, error, &retry)),
        }
    }

    fn connect(&mut self, host: &Host) -> Result<Connection> {
        let what = self.what();
        let mut call = Call::get(format!("blobs/{}", self.digest), &what);
        let ranged = self.offset > 0 && !self.whole;
        if ranged && let Ok(range) = HeaderValue::try_from(format!("bytes={}-", self.offset)) {
            call.headers.insert(RANGE, range);
        }
        let (response, authorization) = self.repository.send_raw(host, &call)?;
        let skip = match response.status() {
            StatusCode::PARTIAL_CONTENT if ranged => {
                if content_range(response.headers()) != Some((self.offset, Some(self.size)))
                    && content_range(response.headers()) != Some((self.offset, None))
                {
                    self.whole = true;
                    return Err(self.protocol(host, "the range is not the one that was asked for"));
                }
                0
            }
            StatusCode::RANGE_NOT_SATISFIABLE if ranged => {
                self.whole = true;
                return Err(self.protocol(host, "the range is refused"));
            }
            // All of it comes, from the beginning. What is there already has been read by somebody: skip that much.
            StatusCode::OK => {
                if let Some(length) = response.content_length().filter(|length| *length != self.size) {
                    let reason = format!("{length} bytes, where the manifest says {}", self.size);
                    return Err(self.protocol(host, reason));
                }
                self.whole = self.offset > 0;
                self.offset
            }
            _ => return Err(self.repository.refusal(host, &call, response, authorization.as_ref())),
        };
        Ok(Connection { response, skip, pace: Pace::default() })
    }

    fn protocol(&self, host: &Host, reason: impl Into<String>) -> Error {
        Error::Protocol { host: host.authority(), what: self.what(), reason: reason.into() }
    }
}

/// In the middle of a download more may pass than before it.
fn may_pass(error: &Error) -> bool {
    error.is_transient()
        || matches!(
            error,
            Error::Protocol { .. } | Error::Unreachable { problem: crate::error::Problem::Refused, .. }
        )
}

impl Read for Download<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.read_some(buffer).map_err(|error| {
            let text = error.in_full();
            self.error = Some(error);
            io::Error::other(text)
        })
    }
}

/// `bytes 100-199/200`: the first position, and the whole length if it is given (RFC 9110, 14.4).
fn content_range(headers: &HeaderMap) -> Option<(u64, Option<u64>)> {
    let text = headers.get(CONTENT_RANGE)?.to_str().ok()?;
    let (range, total) = text.trim().strip_prefix("bytes")?.trim_start().split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
    let total = if total == "*" { None } else { Some(total.parse().ok()?) };
    (first <= last && total.is_none_or(|total| last < total)).then_some((first, total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_strictly() {
        let range = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_RANGE, text.parse().unwrap());
            content_range(&headers)
        };
        assert_eq!(range("bytes 5-9/10"), Some((5, Some(10))));
        assert_eq!(range("bytes 5-9/*"), Some((5, None)));
        for wrong in ["bytes 5-10/10", "bytes 9-5/10", "bytes */10", "items 5-9/10", "bytes 5-9", "5-9/10"] {
            assert_eq!(range(wrong), None, "{wrong}");
        }
    }
}
