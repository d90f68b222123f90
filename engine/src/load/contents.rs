//! An archive whose members can be opened by name, and one that came as a stream.

use std::collections::HashMap;
use std::io::Read;

use layerstore_archive::{Directory, Error as ArchiveError, MemberMap, Members, TarFile};
use layerstore_oci::media_type::layout_path;
use layerstore_oci::{Algorithm, Descriptor, DiffId, Digest, Index, MAX_DOCUMENT_BYTES};
use layerstore_store::{Session, Store};

use crate::error::{Error, Result};
use crate::layers::{Claims, Feeder, Finished, Layer, Work};

/// Where the blobs of images come from: an archive, or a registry.
pub(crate) trait Contents: Members + Sync {
    /// Opens a member; none if there is none.
    fn open(&self, _name: &str) -> Result<Option<Member<'_>>> {
        Ok(None)
    }

    /// A manifest, an index or a config, unverified; none if there is none.
    fn document(&self, descriptor: &Descriptor, _kind: DocumentKind) -> Result<Option<Vec<u8>>> {
        Ok(self.read_small(&layout_path(&descriptor.digest), MAX_DOCUMENT_BYTES)?)
    }

    /// Which of an index's manifests are looked at, in the order of the index; none says all that are there.
    fn wanted(&self, _index: &Index) -> Result<Option<Vec<Descriptor>>> {
        Ok(None)
    }

    /// Brings a layer's blob to the unpackers.
    fn bring(
        &self,
        session: &Session,
        feeder: &Feeder<'_>,
        mut layer: Layer,
        member: &str,
        work: Work,
        claims: Claims,
    ) -> Result<()> {
        let Some(mut opened) = self.open(member)? else {
            return Err(match &layer.digest {
                Some(digest) => Error::MissingBlob { what: "layer", digest: digest.clone() },
                None => {
                    ArchiveError::Missing { member: member.to_owned(), wanted_by: "manifest.json" }.into()
                }
            });
        };
        layer.size.get_or_insert(opened.size);
        let ingest = session.ingest(layer.digest.as_ref().map_or(Algorithm::Sha256, Digest::algorithm))?;
        feeder.receive(layer, work, claims, ingest, &mut opened.reader)
    }

    /// Whether a layer that the store has no blob of may stay away, as its tree is here.
    fn may_be_absent(&self, _blob: &Digest, _diff_id: &DiffId) -> Result<bool> {
        Ok(false)
    }

    /// The digest of a member whose blob is in the store already.
    fn stored(&self, _name: &str) -> Option<Digest> {
        None
    }
}

/// What a small blob is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DocumentKind {
    /// A manifest or an index.
    Manifest,
    /// An image's config.
    Config,
}

impl DocumentKind {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Manifest => "manifest",
            Self::Config => "image config",
        }
    }
}

/// An open member.
pub(crate) struct Member<'a> {
    pub(crate) size: u64,
    pub(crate) reader: Box<dyn Read + 'a>,
}

impl Contents for TarFile {
    fn open(&self, name: &str) -> Result<Option<Member<'_>>> {
        let Some((extent, section)) = self.extent(name).zip(TarFile::open(self, name)) else {
            return Ok(None);
        };
        Ok(Some(Member { size: extent.len, reader: Box::new(section) }))
    }
}

impl Contents for Directory {
    fn open(&self, name: &str) -> Result<Option<Member<'_>>> {
        let Some(file) = Directory::open(self, name)? else { return Ok(None) };
        let size = file.metadata().map_err(|source| Error::Read { what: name.to_owned(), source })?.len();
        Ok(Some(Member { size, reader: Box::new(file) }))
    }
}

/// What became of a member of a stream.
#[derive(Debug)]
pub(crate) enum Spooled {
    /// A document, kept in memory.
    Bytes(Vec<u8>),
    /// A blob that was in the store.
    Present(Digest, u64),
    /// A blob that was received, by its number.
    Received(usize),
}

/// A stream that has been read to its end.
pub(crate) struct Spool<'a> {
    pub(crate) store: &'a Store,
    pub(crate) members: MemberMap<Spooled>,
    pub(crate) received: HashMap<usize, Finished>,
}

impl Spool<'_> {
    fn blob(&self, spooled: &Spooled) -> Option<(Digest, u64)> {
        match spooled {
            Spooled::Bytes(_) => None,
            Spooled::Present(digest, size) => Some((digest.clone(), *size)),
            Spooled::Received(index) => {
                self.received.get(index).map(|finished| (finished.digest.clone(), finished.size))
            }
        }
    }
}

impl Members for Spool<'_> {
    fn resolve(&self, name: &str) -> Result<Option<String>, ArchiveError> {
        Ok(self.members.get(name).map(|(name, _)| name.to_owned()))
    }

    fn read_small(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>, ArchiveError> {
        let too_large = || ArchiveError::TooLarge { member: name.to_owned(), limit };
        let Some((_, spooled)) = self.members.get(name) else { return Ok(None) };
        if let Spooled::Bytes(bytes) = spooled {
            return if bytes.len() as u64 > limit { Err(too_large()) } else { Ok(Some(bytes.clone())) };
        }
        let Some((digest, size)) = self.blob(spooled) else { return Ok(None) };
        if size > limit {
            return Err(too_large());
        }
        self.store.read_blob(&digest, limit).map(Some).map_err(|error| ArchiveError::Read {
            what: format!("`{}`", name.escape_debug()),
            source: std::io::Error::other(error),
        })
    }

    fn top_level(&self) -> Vec<String> {
        self.members.top_level()
    }
}

impl Contents for Spool<'_> {
    fn open(&self, name: &str) -> Result<Option<Member<'_>>> {
        let Some((_, Spooled::Bytes(bytes))) = self.members.get(name) else { return Ok(None) };
        Ok(Some(Member { size: bytes.len() as u64, reader: Box::new(bytes.as_slice()) }))
    }

    fn stored(&self, name: &str) -> Option<Digest> {
        let (_, spooled) = self.members.get(name)?;
        self.blob(spooled).map(|(digest, _)| digest)
    }
}
