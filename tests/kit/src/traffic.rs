//! What a server of tests saw and sent.

use std::sync::{Condvar, Mutex};
use std::time::Duration;

use crate::http::{Head, find};

/// One request and what came of it.
#[derive(Clone, Debug)]
pub struct Exchange {
    /// `GET`, `PUT` …
    pub method: String,
    /// Path and query.
    pub target: String,
    /// The header fields of the request.
    pub headers: Vec<(String, String)>,
    /// The status that was answered; nothing if none was.
    pub status: Option<u16>,
    /// Bytes of the request's body that came.
    pub received: u64,
    /// Bytes of the answer's body that were sent. The client need not have read them.
    pub sent: u64,
    /// When it began and ended, in events of this server.
    times: (usize, Option<usize>),
}

impl Exchange {
    /// The first header field of the request called `name`.
    pub fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }
}

/// All requests that a server saw, in the order of their arrival.
#[derive(Debug, Default)]
pub struct Traffic {
    log: Mutex<Log>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Log {
    exchanges: Vec<Exchange>,
    /// How many of them are forgotten. Their places stay, as requests under way know theirs.
    forgotten: usize,
    /// How many requests began or ended.
    events: usize,
}

impl Log {
    fn known(&self) -> &[Exchange] {
        &self.exchanges[self.forgotten..]
    }
}

impl Traffic {
    /// All requests up to now.
    pub fn exchanges(&self) -> Vec<Exchange> {
        self.log.lock().unwrap().known().to_vec()
    }

    /// The requests whose target has `part` in it.
    pub fn of(&self, part: &str) -> Vec<Exchange> {
        let mut exchanges = self.exchanges();
        exchanges.retain(|e| e.target.contains(part));
        exchanges
    }

    /// `METHOD TARGET` of all requests.
    pub fn requests(&self) -> Vec<String> {
        self.exchanges().iter().map(|e| format!("{} {}", e.method, e.target)).collect()
    }

    /// How many requests had `method` and `part` in their target.
    pub fn count(&self, method: &str, part: &str) -> usize {
        self.of(part).iter().filter(|e| e.method == method).count()
    }

    /// How many bytes of bodies were sent in answer to requests whose target has `part` in it.
    pub fn bytes_served(&self, part: &str) -> u64 {
        self.of(part).iter().map(|e| e.sent).sum()
    }

    /// How many bytes of bodies came in requests whose target has `part` in it.
    pub fn bytes_received(&self, part: &str) -> u64 {
        self.of(part).iter().map(|e| e.received).sum()
    }

    /// How many requests whose target has `part` in it were under way at the same time, at most.
    pub fn most_at_once(&self, part: &str) -> usize {
        let all = self.of(part);
        let under_way = |at: usize| {
            all.iter().filter(|e| e.times.0 <= at && e.times.1.is_none_or(|end| end > at)).count()
        };
        all.iter().map(|e| under_way(e.times.0)).max().unwrap_or_default()
    }

    /// Forgets all requests up to now, for a test of several steps.
    pub fn clear(&self) {
        let mut log = self.log.lock().unwrap();
        log.forgotten = log.exchanges.len();
    }

    /// Waits until `is_so` holds of the requests: for tests that act in the middle of a transfer. Fails after a
    /// minute.
    #[track_caller]
    pub fn wait_until(&self, is_so: impl Fn(&[Exchange]) -> bool) {
        let log = self.log.lock().unwrap();
        let wait = Duration::from_mins(1);
        let (log, result) = self.changed.wait_timeout_while(log, wait, |log| !is_so(log.known())).unwrap();
        let exchanges = log.known().to_vec();
        drop(log);
        assert!(!result.timed_out(), "it did not come to that: {exchanges:?}");
    }

    /// Waits until this many bytes were sent in answer to requests whose target has `part` in it.
    #[track_caller]
    pub fn wait_until_served(&self, part: &str, bytes: u64) {
        self.wait_until(|all| {
            all.iter().filter(|e| e.target.contains(part)).map(|e| e.sent).sum::<u64>() >= bytes
        });
    }

    /// Notes a request; the result is its place.
    pub(crate) fn begin(&self, head: &Head) -> usize {
        let (method, target) = head.request();
        let mut log = self.log.lock().unwrap();
        log.events += 1;
        let exchange = Exchange {
            method: method.to_owned(),
            target: target.to_owned(),
            headers: head.headers.clone(),
            status: None,
            received: 0,
            sent: 0,
            times: (log.events, None),
        };
        log.exchanges.push(exchange);
        self.changed.notify_all();
        log.exchanges.len() - 1
    }

    /// Notes what came of the request at `place`.
    pub(crate) fn note(&self, place: usize, change: impl FnOnce(&mut Exchange)) {
        change(&mut self.log.lock().unwrap().exchanges[place]);
        self.changed.notify_all();
    }

    /// Notes that the request at `place` has ended, one way or another. To be called before the client can know it, as it
    /// may begin the next one at once.
    pub(crate) fn end(&self, place: usize) {
        let mut log = self.log.lock().unwrap();
        log.events += 1;
        let now = log.events;
        log.exchanges[place].times.1.get_or_insert(now);
        self.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_that_overlap_are_counted_as_such() {
        let traffic = Traffic::default();
        let begin = |target: &str| {
            traffic.begin(&Head { line: format!("GET {target} HTTP/1.1"), headers: Vec::new() })
        };
        let first = begin("/a");
        begin("/other");
        traffic.end(first);
        let second = begin("/a");
        begin("/a");
        traffic.end(second);
        assert_eq!((traffic.most_at_once("/a"), traffic.most_at_once("")), (2, 3));
        assert_eq!(traffic.most_at_once("/nothing"), 0);
    }
}
