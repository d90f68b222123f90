//! The vocabulary of OCI and Docker images: digests, references, platforms, manifests and configs.
//!
//! Nothing here touches the network or the disk. Every identity is a type of its own and is
//! validated when it is parsed, so that no unparsed text can become a path, a URL or a key.

mod digest;

pub use digest::{Algorithm, ChainId, DiffId, Digest, DigestError, Hasher};
