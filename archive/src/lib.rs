//! Image archives: docker-archive (old and 25+), OCI archive and OCI layout directory are read, the first in its new
//! form and the second are written.
//!
//! This crate finds the images and where their blobs are. It knows nothing of a store, follows no
//! index below `index.json`, and trusts no digest: whoever reads a blob verifies it.
//!
//! [`Source::open`] tells the three ways apart in which an archive can arrive:
//!
//! * [`TarFile`], a tar in a regular file: one pass over its headers, seeking over the data, then
//!   any member is read from its position, in parallel if wanted.
//! * [`Stream`], a pipe or a file compressed as a whole: [`scan_stream`] hands out every regular
//!   member once, in order of arrival; what it is for shows only when the manifest has come.
//! * [`Directory`], an unpacked archive or layout. No link in it leads outside.
//!
//! All three are [`Members`], from which [`images`] reads what the archive holds.
//!
//! [`ArchiveWriter`] writes an archive as one stream.

mod directory;
mod error;
mod image;
mod member;
mod source;
mod stream;
mod tar_file;
mod write;

pub use directory::Directory;
pub use error::Error;
pub use image::{ArchivedImage, Content, DockerImage, images};
pub use member::{MemberMap, Members, normalise_member};
pub use source::Source;
pub use stream::{Stream, scan_stream};
pub use tar_file::{Extent, Section, TarFile};
pub use write::{ArchiveForm, ArchiveWriter, DockerEntry, NamedDescriptor, WriteError};

#[cfg(test)]
mod tests;
