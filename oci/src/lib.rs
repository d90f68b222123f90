//! The vocabulary of OCI and Docker images: digests, references, platforms, manifests and configs.
//!
//! Nothing here touches the network or the disk. Every identity is a type of its own and is
//! validated when it is parsed, so that no unparsed text can become a path, a URL or a key.
//!
//! Start at [`Reference`] (what a person types), [`Document`] (what a registry or archive holds
//! under a digest), [`ImageConfig`] and [`VerifiedReader`] (how bytes become trusted).

#[macro_use]
mod digest;
mod change;
mod config;
mod document;
mod error;
mod glob;
mod lenient;
pub mod media_type;
mod platform;
mod reference;
mod verified;

pub use change::{Change, ChangeError, apply as apply_changes};
pub use config::{ContainerConfig, Healthcheck, History, ImageConfig};
pub use digest::{Algorithm, ChainId, DiffId, Digest, DigestError, Hasher};
pub use document::{Descriptor, Document, DocumentError, Index, MAX_DOCUMENT_BYTES, Manifest};
pub use error::ErrorKind;
pub use glob::NamePattern;
pub use media_type::{Compression, LayerKind};
pub use platform::{Platform, PlatformError};
pub use reference::{Reference, ReferenceError};
pub use verified::{VerifiedReader, VerifyError};
