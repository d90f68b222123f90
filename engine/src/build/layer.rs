//! The layer of a new image.

use std::io::{self, Read};
use std::path::Path;

use layerstore_oci::media_type::OCI_LAYER;
use layerstore_oci::{Algorithm, Compression, DiffId, Digest};
use layerstore_store::{Ingest, Object, Publication, Session};
use layerstore_unpack::{DiffError, DiffOptions, Holes, diff, encode};

use super::document::suffix;
use super::{CommitOptions, tell_skipped};
use crate::Layerstore;
use crate::error::{Error, Result};
use crate::event::{LayerName, Listener};
use crate::layers::{self, Claims, Finished, Layer, Work};
use crate::policy::UnpackPolicy;

/// A layer that is in the store, under the session's lease.
#[derive(Debug)]
pub(super) struct NewLayer {
    pub(super) digest: Digest,
    pub(super) size: u64,
    pub(super) diff_id: DiffId,
    pub(super) compression: Compression,
}

/// Why no layer was written.
#[derive(Debug)]
enum WriteError {
    Diff(DiffError),
    /// Nobody reads any more.
    Reader,
}

impl From<DiffError> for WriteError {
    fn from(error: DiffError) -> Self {
        Self::Diff(error)
    }
}

impl From<io::Error> for WriteError {
    fn from(_: io::Error) -> Self {
        Self::Reader
    }
}

impl Layerstore {
    /// Makes a layer of an overlay's upper directory.
    pub(super) fn diff_layer(
        &self,
        session: &Session,
        upper: &Path,
        options: &CommitOptions,
        listener: &Listener<'_>,
        new: &mut Vec<Object>,
    ) -> Result<NewLayer> {
        let mut policy = self.unpack_policy()?;
        let how = DiffOptions {
            overlay: self.unpack.overlay,
            holes: Holes::Fill,
            newest: options.created,
            limits: policy.limits,
        };
        // Files of zeros are no bomb if one has them.
        policy.limits.ratio = u64::MAX;
        let work = if options.unpack { Work::Unpack } else { Work::Keep };
        let media_type = format!("{OCI_LAYER}{}", suffix(options.compression));
        let name = (LayerName::Member("changes".to_owned()), media_type.as_str());
        let mut made = None;
        let finished = self.receive_layer(session, name, &policy, listener, work, new, |receive| {
            let (written, received) = encode(
                options.compression,
                |encoder| -> Result<_, WriteError> { Ok(diff(upper, encoder, &how)?.0) },
                |mut reader| receive(&mut reader),
            );
            match written {
                // Whoever reads has stopped, and knows why.
                Err(WriteError::Reader | WriteError::Diff(DiffError::Output(_))) => {
                    received.and(Err(Error::Cancelled))
                }
                Err(WriteError::Diff(source)) => Err(Error::Diff { path: upper.to_owned(), source }),
                Ok(done) => {
                    made = Some(done);
                    received
                }
            }
        })?;
        let (diffed, encoded) = made.ok_or(Error::Cancelled)?;
        tell_skipped(&diffed, listener);
        let diff_id = encoded.diff_id;
        match self.store.blob(&finished.digest)?.and_then(|blob| blob.diff_id) {
            Some(actual) if actual == diff_id => {}
            Some(actual) => {
                let layer = finished.digest.to_string();
                return Err(Error::DiffIdMismatch { layer, expected: diff_id, actual });
            }
            None => {
                let diff_ids = vec![(finished.digest.clone(), diff_id.clone())];
                new.extend(self.store.publish(session, Publication { diff_ids, ..Publication::default() })?);
            }
        }
        Ok(NewLayer {
            digest: finished.digest,
            size: finished.size,
            diff_id,
            compression: options.compression,
        })
    }

    /// Brings one layer into the store. `bring` hands the bytes to the function that it is given.
    #[expect(clippy::too_many_arguments, reason = "all that a layer's way depends on")]
    pub(super) fn receive_layer(
        &self,
        session: &Session,
        (name, media_type): (LayerName, &str),
        policy: &UnpackPolicy,
        listener: &Listener<'_>,
        work: Work,
        new: &mut Vec<Object>,
        bring: impl FnOnce(&dyn Fn(&mut dyn Read) -> Result<()>) -> Result<()>,
    ) -> Result<Finished> {
        let ingest = |session: &Session| -> Result<Ingest> { Ok(session.ingest(Algorithm::Sha256)?) };
        let (result, mut results) = layers::run(self, session, policy, listener, |feeder| {
            bring(&|source| {
                let layer = Layer {
                    index: 0,
                    name: name.clone(),
                    digest: None,
                    size: None,
                    media_type: Some(media_type.to_owned()),
                    diff_id: None,
                };
                feeder.receive(layer, work, Claims::default(), ingest(session)?, source)
            })
        });
        new.append(&mut results.new);
        result?;
        results.finished.remove(&0).ok_or(Error::Cancelled)
    }
}
