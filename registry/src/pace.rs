//! How fast a server sends, and when that is too slow.

use std::io::{self, Read};
use std::time::{Duration, Instant};

use reqwest::blocking::Response;

use crate::client::Repository;
use crate::error::Error;
use crate::host::Host;
use crate::retry::Retry;
use crate::watch::Watch;

/// Watches how fast a server sends. Time that the reader takes for itself does not count.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    waited: Duration,
    received: u64,
}

impl Pace {
    /// Notes that `count` bytes took `time`, and tells whether that is too slow for too long.
    pub(crate) fn is_stalled(&mut self, time: Duration, count: usize, retry: &Retry) -> bool {
        self.waited += time;
        self.received += count as u64;
        if self.waited < retry.stall {
            return false;
        }
        let enough = u128::from(retry.least_rate) * self.waited.as_millis() / 1000;
        let stalled = u128::from(self.received) < enough;
        *self = Self::default();
        stalled
    }
}

/// The body of a short answer: without this, one byte now and then could keep us for days.
pub(crate) struct Paced<'a> {
    response: Response,
    retry: Retry,
    watch: &'a dyn Watch,
    pace: Pace,
    error: Option<Ended>,
}

#[derive(Clone, Copy)]
enum Ended {
    Stalled,
    Stopped,
}

impl Repository<'_> {
    pub(crate) fn paced(&self, response: Response) -> Paced<'_> {
        Paced { response, retry: self.shared.retry, watch: self.watch, pace: Pace::default(), error: None }
    }
}

impl Paced<'_> {
    /// What an `error` of reading means.
    pub(crate) fn failure(&self, host: &Host, what: &str, error: io::Error) -> Error {
        let (host, what) = (host.authority(), what.to_owned());
        match self.error {
            Some(Ended::Stopped) => Error::Stopped,
            Some(Ended::Stalled) => {
                Error::Stalled { host, what, rate: self.retry.least_rate, time: self.retry.stall }
            }
            None => broken(host, what, error, &self.retry),
        }
    }
}

impl Read for Paced<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.watch.is_stopped() {
            self.error = Some(Ended::Stopped);
            return Err(io::Error::other("stopped"));
        }
        let begin = Instant::now();
        let count = self.response.read(buffer)?;
        if self.pace.is_stalled(begin.elapsed(), count, &self.retry) {
            self.error = Some(Ended::Stalled);
            return Err(io::ErrorKind::TimedOut.into());
        }
        Ok(count)
    }
}

/// What an `error` of reading an answer means. The client has a timeout of its own, for servers that send nothing.
pub(crate) fn broken(host: String, what: String, error: io::Error, retry: &Retry) -> Error {
    let of_client = error.get_ref().and_then(|inner| inner.downcast_ref::<reqwest::Error>());
    if of_client.is_some_and(reqwest::Error::is_timeout) {
        return Error::Stalled { host, what, rate: retry.least_rate, time: retry.stall };
    }
    Error::Read { host, what, source: without_url(error) }
}

/// A failure to read comes with the error of the client, which may have the URL: its query can hold a signature.
fn without_url(error: io::Error) -> io::Error {
    let kind = error.kind();
    match error.into_inner().map(<dyn std::error::Error + Send + Sync>::downcast::<reqwest::Error>) {
        Some(Ok(inner)) => io::Error::new(kind, inner.without_url()),
        Some(Err(other)) => io::Error::new(kind, other),
        None => kind.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drip_is_a_stall_and_a_pause_of_the_reader_is_not() {
        let retry = Retry { stall: Duration::from_secs(10), least_rate: 100, ..Retry::default() };
        let mut pace = Pace::default();
        let second = Duration::from_secs(1);
        assert!((0..9).all(|_| !pace.is_stalled(second, 1, &retry)));
        assert!(pace.is_stalled(second, 1, &retry));
        let mut pace = Pace::default();
        assert!((0..100).all(|_| !pace.is_stalled(second, 200, &retry)));
        assert!((0..1000).all(|_| !pace.is_stalled(Duration::from_micros(1), 1, &retry)));
    }
}
