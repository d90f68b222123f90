//! A client of OCI and Docker registries (OCI distribution spec 1.1, Docker Registry HTTP API V2).
//!
//! It knows nothing of a store: content comes out as [`std::io::Read`] and goes in the same way. All calls block; the
//! asynchronous half of `reqwest` stays behind its blocking interface.
//!
//! Of the clients that exist as crates, `oci-client` cannot continue a download at an offset and check what the
//! server answered, knows no mirrors and no headers or certificates of a host, and keeps no upload for a second
//! attempt; `docker_credential` reads Docker's file only, and writes nothing. So the protocol is here, on `reqwest`.

mod auth;
mod authorize;
mod client;
mod credentials;
mod download;
mod error;
mod host;
mod hosts;
mod limited;
mod lists;
mod location;
mod login;
mod manifest;
mod network;
mod pace;
mod push;
mod request;
mod retry;
mod search;
mod secret;
mod source;
#[cfg(test)]
mod tests;
mod transport;
mod upload;
mod watch;

pub use auth::AuthError;
pub use client::{Client, Options, Repository};
pub use credentials::{
    AuthFiles, Credential, CredentialError, Credentials, FixedCredential, Stored, registry_name,
};
pub use download::Download;
pub use error::{Error, Problem, Result};
pub use host::{Capabilities, Host, Tls};
pub use hosts::{HostOptions, HostsError};
pub use manifest::{FetchedManifest, Selector};
pub use push::{OpenAt, Outgoing, Pushed, UploadOptions};
pub use retry::Retry;
pub use search::Found;
pub use secret::Secret;
pub use transport::{Proxies, Timeouts, TransportError};
pub use watch::{Notice, Unwatched, Watch};
