//! Loading from a stream: members are taken as they come, before it is known what they are for.

use std::collections::HashMap;
use std::io::BufRead;
use std::sync::Arc;

use layerstore_archive::{MemberMap, Stream, scan_stream};
use layerstore_oci::{Algorithm, Compression, Digest, MAX_DOCUMENT_BYTES};
use layerstore_store::{Key, Object, Presence};
use layerstore_tar::{Entry, Reader};

use super::Loader;
use super::contents::Spooled;
use crate::error::{Error, Result};
use crate::event::LayerName;
use crate::layers::{self, Feeder, Finished, Layer, Work};

/// Documents that are kept in memory until the end; what is beyond becomes a blob like a layer.
const MAX_HELD_BYTES: usize = 32 << 20;

impl Loader<'_> {
    /// Reads `stream` to its end. Documents stay in memory, everything else becomes a blob, and what looks
    /// like a layer is unpacked while it arrives.
    pub(super) fn spool(
        &self,
        stream: Stream,
        new: &mut Vec<Object>,
    ) -> Result<(MemberMap<Spooled>, HashMap<usize, Finished>)> {
        let mut members = MemberMap::default();
        let (result, results) =
            layers::run(self.engine, &self.session, &self.policy, self.listener, |feeder| {
                let mut spooler = Spooler { loader: self, feeder, next: 0, held: 0 };
                members = scan_stream(stream, |name, entry, reader| spooler.take(name, entry, reader))?;
                Ok(())
            });
        new.extend(results.new);
        result?;
        Ok((members, results.finished))
    }
}

struct Spooler<'a, 'f> {
    loader: &'a Loader<'a>,
    feeder: &'a Feeder<'f>,
    next: usize,
    held: usize,
}

impl Spooler<'_, '_> {
    fn take<R: BufRead>(&mut self, name: &str, entry: &Entry, reader: &mut Reader<R>) -> Result<Spooled> {
        let start = reader.fill_data().map_err(layerstore_archive::Error::from)?;
        let document =
            start.iter().find(|byte| !byte.is_ascii_whitespace()).is_some_and(|b| b"{[".contains(b));
        let layer = looks_like_layer(start);
        let size = usize::try_from(entry.size).unwrap_or(usize::MAX);
        let small = entry.size <= MAX_DOCUMENT_BYTES && self.held.saturating_add(size) <= MAX_HELD_BYTES;
        if small && (document || entry.size == 0 || !name.contains('/')) && !layer {
            let mut bytes = Vec::with_capacity(size);
            let unreadable = |source| Error::Read { what: format!("`{}`", name.escape_debug()), source };
            std::io::Read::read_to_end(&mut reader.data(), &mut bytes).map_err(unreadable)?;
            self.held += bytes.len();
            return Ok(Spooled::Bytes(bytes));
        }
        let digest = digest_of(name);
        let mut claims = Vec::new();
        if let Some(digest) = &digest {
            if let Some(present) = self.present(digest, layer)? {
                return Ok(present);
            }
            claims.push(self.claim(digest, entry.size)?);
            if let Some(present) = self.present(digest, layer)? {
                return Ok(present);
            }
        }
        let index = self.next;
        self.next += 1;
        let layer_name = match &digest {
            Some(digest) => LayerName::Digest(digest.clone()),
            None => LayerName::Member(name.to_owned()),
        };
        let received = Layer {
            index,
            name: layer_name,
            digest,
            size: Some(entry.size),
            media_type: None,
            diff_id: None,
        };
        let work = if layer && self.loader.options.unpack { Work::Try } else { Work::Keep };
        let ingest = self
            .loader
            .session
            .ingest(received.digest.as_ref().map_or(Algorithm::Sha256, Digest::algorithm))?;
        self.feeder.receive(received, work, Arc::new(claims), ingest, &mut reader.data())?;
        Ok(Spooled::Received(index))
    }

    fn present(&mut self, digest: &Digest, layer: bool) -> Result<Option<Spooled>> {
        let store = &self.loader.engine.store;
        let found = store.lease_layers(&self.loader.session, &[(digest.clone(), None)])?;
        let Some(Presence { blob: Some(blob), tree }) = found.into_iter().next() else { return Ok(None) };
        if layer && (tree.is_some() || !self.loader.options.unpack) {
            let index = self.next;
            self.next += 1;
            let layer = Layer {
                index,
                name: LayerName::Digest(digest.clone()),
                digest: Some(digest.clone()),
                size: Some(blob.size),
                media_type: None,
                diff_id: blob.diff_id,
            };
            let finished = Finished { digest: digest.clone(), size: blob.size, compression: None };
            self.feeder.already_exists(&layer, finished, false);
            return Ok(Some(Spooled::Received(index)));
        }
        Ok(Some(Spooled::Present(digest.clone(), blob.size)))
    }

    fn claim(&mut self, digest: &Digest, size: u64) -> Result<layerstore_store::Claim> {
        let store = &self.loader.engine.store;
        let key = Key::Blob(digest.clone());
        if let Some(claim) = store.try_claim(&key)? {
            return Ok(claim);
        }
        self.feeder.waiting(&Layer {
            index: self.next,
            name: LayerName::Digest(digest.clone()),
            digest: Some(digest.clone()),
            size: Some(size),
            media_type: None,
            diff_id: None,
        });
        self.loader.engine.claim(&key)
    }
}

/// The digest that a member's name in an OCI layout says it has.
fn digest_of(name: &str) -> Option<Digest> {
    let (algorithm, hex) = name.strip_prefix("blobs/")?.split_once('/')?;
    let algorithm = [Algorithm::Sha256, Algorithm::Sha512].into_iter().find(|a| a.as_str() == algorithm)?;
    Digest::from_hex(algorithm, hex).ok()
}

/// Whether something that starts like this is worth the attempt to unpack it.
fn looks_like_layer(start: &[u8]) -> bool {
    const USTAR: std::ops::Range<usize> = 257..262;
    Compression::detect(start) != Compression::None || start.get(USTAR) == Some(b"ustar")
}
