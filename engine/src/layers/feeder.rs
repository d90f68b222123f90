//! The side that brings layers.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};

use layerstore_oci::Digest;
use layerstore_store::{Ingest, NewBlob, Received};

use super::gate::{Gate, Slot};
use super::{Claims, Finished, Job, JobSource, Layer, Ready, Shared, Work};
use crate::error::{Error, Result};
use crate::event::LayerState;

/// The feeder's end. Several threads may bring layers through it.
pub(crate) struct Feeder<'a> {
    pub(super) shared: &'a Shared<'a>,
    pub(super) jobs: Sender<Job>,
    pub(super) ready: Sender<Ready>,
    pub(super) gate: Arc<Gate>,
    pub(super) most: usize,
}

/// What is read and written at once while receiving.
const FEED_SIZE: usize = 256 << 10;

impl Feeder<'_> {
    /// Says what becomes of a layer that needs no work.
    pub(crate) fn already_exists(&self, layer: &Layer, finished: Finished, quiet: bool) {
        if !quiet {
            self.shared.tell(layer.index, &layer.name, LayerState::AlreadyExists);
        }
        self.shared.finish(layer.index, finished);
    }

    /// Says that a layer is left to somebody else for now.
    pub(crate) fn waiting(&self, layer: &Layer) {
        self.shared.tell(layer.index, &layer.name, LayerState::Waiting);
    }

    /// Ends everything.
    pub(crate) fn fail(&self, error: Error) {
        self.shared.fail(error);
    }

    /// Whether a failure makes all further work pointless.
    pub(crate) fn stopped(&self) -> bool {
        self.shared.stopped()
    }

    /// Receives a layer's blob from `source` into `ingest`. After a failure the layer is given up, and may be begun
    /// again.
    pub(crate) fn receive(
        &self,
        layer: Layer,
        work: Work,
        claims: Claims,
        mut ingest: Ingest,
        source: &mut dyn Read,
    ) -> Result<()> {
        let slot = self.gate.enter(self.most);
        self.shared.tell(layer.index, &layer.name, LayerState::Unpacking { total: layer.size });
        let expected = layer.digest.clone().zip(layer.size);
        let what = layer.name.to_string();
        if work == Work::Keep {
            self.copy(&mut ingest, source, &what)?;
            let received = finish(ingest, expected.as_ref())?;
            self.send_ready(kept(layer, received, claims, slot));
            return Ok(());
        }
        let (verdict, received) = channel();
        let reader = ingest.reader();
        self.jobs
            .send(Job { layer, work, source: JobSource::Ingest { reader, received }, claims, slot })
            .map_err(|_| Error::Cancelled)?;
        self.copy(&mut ingest, source, &what)?;
        let received = finish(ingest, expected.as_ref())?;
        // The unpacker may have given up; then it has said why.
        verdict.send(received).unwrap_or_default();
        Ok(())
    }

    /// Unpacks or verifies a layer whose blob is in the store.
    pub(crate) fn reuse(
        &self,
        layer: Layer,
        work: Work,
        claims: Claims,
        digest: Digest,
        size: u64,
    ) -> Result<()> {
        let slot = self.gate.enter(self.most);
        let file = self.shared.store.open_blob(&digest)?;
        self.shared.tell(layer.index, &layer.name, LayerState::Unpacking { total: Some(size) });
        let source = JobSource::Blob { file, digest, size };
        self.jobs.send(Job { layer, work, source, claims, slot }).map_err(|_| Error::Cancelled)
    }

    fn copy(&self, ingest: &mut Ingest, source: &mut dyn Read, what: &str) -> Result<()> {
        let mut buffer = vec![0; FEED_SIZE];
        loop {
            if self.shared.stopped() {
                return Err(Error::Cancelled);
            }
            match source.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(count) => ingest.write(&buffer[..count])?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(Error::Read { what: what.to_owned(), source }),
            }
        }
    }

    fn send_ready(&self, ready: Ready) {
        // The publisher lives until the feeder is gone.
        self.ready.send(ready).unwrap_or_default();
    }
}

fn finish(ingest: Ingest, expected: Option<&(Digest, u64)>) -> Result<Received> {
    Ok(ingest.finish(expected.map(|(digest, size)| (digest, *size)))?)
}

/// A layer that is only kept.
pub(super) fn kept(layer: Layer, received: Received, claims: Claims, slot: Slot) -> Ready {
    Ready {
        index: layer.index,
        name: layer.name,
        finished: Finished { digest: received.digest().clone(), size: received.size(), compression: None },
        blob: Some(NewBlob { received, media_type: layer.media_type, diff_id: None }),
        tree: None,
        diff_id: None,
        claims,
        slot,
    }
}
