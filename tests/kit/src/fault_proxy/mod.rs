//! A reverse proxy that breaks transfers as rules ask, and counts what went through it.
//!
//! It stands before one upstream, a registry or a [`crate::bucket`], and passes the `Host` field on, so that absolute
//! addresses in answers lead to the proxy. Everything that has no rule goes through unchanged.

mod relay;
mod rule;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

pub use rule::{Fault, Match};

use crate::server::Server;
use crate::traffic::Traffic;

/// The proxy; its connections end when it is dropped.
#[derive(Debug)]
pub struct FaultProxy {
    server: Server,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    upstream: SocketAddr,
    rules: Mutex<Vec<rule::Rule>>,
    traffic: Traffic,
}

impl FaultProxy {
    /// Listens on a free port of 127.0.0.1 and forwards to `upstream`.
    pub fn start(upstream: SocketAddr) -> Self {
        let shared = Arc::new(Shared { upstream, rules: Mutex::default(), traffic: Traffic::default() });
        let of_server = Arc::clone(&shared);
        let server = Server::start(move |client, stop| relay::serve(&of_server, client, stop));
        Self { server, shared }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// `127.0.0.1:PORT`, as references to images begin.
    pub fn host(&self) -> String {
        self.address().to_string()
    }

    /// `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address())
    }

    /// Breaks the requests that `requests` describes, from now on. A request gets the fault of the first rule that
    /// matches it; every rule counts all requests of its method and path, also those that another rule breaks.
    pub fn on(&self, requests: Match, fault: Fault) -> &Self {
        self.shared.rules.lock().unwrap().push(rule::Rule::new(requests, fault));
        self
    }

    /// Drops all rules.
    pub fn heal(&self) {
        self.shared.rules.lock().unwrap().clear();
    }

    /// What went through the proxy.
    pub fn traffic(&self) -> &Traffic {
        &self.shared.traffic
    }
}

#[cfg(test)]
mod tests;
