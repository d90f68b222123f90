//! Builders and comparisons that the tests of layerstore share.
//!
//! - [`layer`], [`image`] and [`docker`] compose images in memory, whole or damaged, in every form that
//!   `layerstore load` reads.
//! - [`cases`] reads the cases in `fixtures/layers`.
//! - [`tree`] records a directory exactly and says how two differ; [`mod@reference`] unpacks an image with GNU
//!   tar, independently of layerstore.
//! - [`rawtar`] writes tar archives of every format and damages them; [`rng`] is what both draw from.
//! - [`sandbox`] runs the binary on a store of its own and leaves nothing behind; [`disk`] gives it a small
//!   file system; [`user_namespace`] a user namespace; [`require`] says what a test needs from the machine.
//! - [`registry`] runs a real registry and [`token_server`] issues tokens for it; [`fault_proxy`] stands before
//!   either and breaks what a test wants broken; [`bucket`] serves blobs from elsewhere. What they saw is
//!   [`traffic`], what they speak [`http`]; [`tls_front`] gives them TLS by an [`authority`].
//! - [`credential_helper`] keeps logins as Docker's helpers do.
//! - [`podman`], [`docker_engine`] and [`containerd`] are other stores, each with folders of its own.
//! - [`chromium`] shows a page, presses its keys and clicks on it.
//! - [`runtime`] runs bundles with runc and crun.
//! - [`scale`] makes stores of many images, and times commands on them.
//!
//! Everything here panics when it cannot do its job: a failing helper is a failing test.
#![allow(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    clippy::must_use_candidate,
    reason = "only tests call this, and a panic is how a test fails"
)]

pub mod authority;
pub mod bucket;
pub mod cases;
pub mod chromium;
pub mod containerd;
pub mod credential_helper;
mod daemon;
pub mod disk;
pub mod docker;
pub mod docker_engine;
pub mod fault_proxy;
pub mod http;
pub mod image;
pub mod layer;
pub mod podman;
pub mod rawtar;
pub mod reference;
pub mod registry;
pub mod require;
pub mod rng;
pub mod runtime;
pub mod sandbox;
pub mod scale;
mod server;
pub mod tls_front;
pub mod token_server;
pub mod traffic;
pub mod tree;
pub mod user_namespace;

use sha2::{Digest, Sha256};

/// `sha256:` and the digest of `bytes` in hexadecimal, as image documents write it.
pub fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex(&Sha256::digest(bytes)))
}

/// The part of a digest after the algorithm.
pub fn hex_of(digest: &str) -> &str {
    digest.split_once(':').map_or(digest, |(_, hex)| hex)
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, b| {
        write!(text, "{b:02x}").unwrap();
        text
    })
}
