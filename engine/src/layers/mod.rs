//! The layers of one operation: received, unpacked and published in parallel.
//!
//! Three kinds of threads, joined by channels. *Feeders* (the calling thread, or several for a download) write
//! blobs into the session, hashing them. *Unpackers* read behind it, one layer each. The
//! *publisher* makes complete layers durable and part of the store, all that are ready in one go. A
//! claim on the layer goes along from hand to hand, so that other processes wait for the result
//! instead of doing the same; the publisher lets go of it without waiting for anybody.

mod feeder;
mod gate;
mod unpacker;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use layerstore_oci::{Compression, DiffId, Digest};
use layerstore_store::{
    Claim, IngestReader, NewBlob, NewTree, Object, Publication, Received, Session, Store,
};
use layerstore_unpack::Options;

pub(crate) use self::feeder::Feeder;
use self::gate::{Slot, most_layers};
use crate::Layerstore;
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::event::{Event, LayerName, LayerState, Listener};
use crate::policy::UnpackPolicy;

/// What is known of a layer when it is begun.
#[derive(Debug, Clone)]
pub(crate) struct Layer {
    pub(crate) index: usize,
    pub(crate) name: LayerName,
    pub(crate) digest: Option<Digest>,
    pub(crate) size: Option<u64>,
    pub(crate) media_type: Option<String>,
    pub(crate) diff_id: Option<DiffId>,
}

/// What is known when it is in the store.
#[derive(Debug, Clone)]
pub(crate) struct Finished {
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    /// How it is compressed, if its bytes were looked at.
    pub(crate) compression: Option<Compression>,
}

/// What to do with a layer's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    /// Keep them only.
    Keep,
    /// Compute the diff ID: the tree is there, from another blob.
    Verify,
    /// Unpack.
    Unpack,
    /// Unpack if it turns out to be a layer, and keep it only if not.
    Try,
}

/// What one layer has claimed, held by whoever is at it.
pub(crate) type Claims = Arc<Vec<Claim>>;

/// A layer on its way to an unpacker.
struct Job {
    layer: Layer,
    work: Work,
    source: JobSource,
    claims: Claims,
    slot: Slot,
}

enum JobSource {
    /// It is being received; the verdict on the blob follows.
    Ingest { reader: IngestReader, received: Receiver<Received> },
    /// It is a blob of the store.
    Blob { file: std::fs::File, digest: Digest, size: u64 },
}

/// A complete layer on its way to the publisher.
struct Ready {
    index: usize,
    name: LayerName,
    finished: Finished,
    blob: Option<NewBlob>,
    tree: Option<NewTree>,
    diff_id: Option<(Digest, DiffId)>,
    claims: Claims,
    slot: Slot,
}

/// What all threads of one operation share.
struct Shared<'a> {
    store: &'a Store,
    session: &'a Session,
    options: &'a Options,
    policy: &'a UnpackPolicy,
    listener: &'a Listener<'a>,
    cancel: &'a Cancel,
    stop: AtomicBool,
    failure: Mutex<Option<Failure>>,
    results: Mutex<Results>,
}

/// Why everything ended.
#[derive(Debug)]
struct Failure {
    error: Error,
    /// The stored blob that the layer came from: if that is damaged, this is the cause.
    suspect: Option<Box<Digest>>,
}

impl<E: Into<Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self { error: error.into(), suspect: None }
    }
}

/// What came out.
#[derive(Debug, Default)]
pub(crate) struct Results {
    /// The layers by their index.
    pub(crate) finished: std::collections::HashMap<usize, Finished>,
    /// What the store did not have before.
    pub(crate) new: Vec<Object>,
}

impl Shared<'_> {
    /// Notes the first failure and stops everything.
    fn fail(&self, failure: impl Into<Failure>) {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| failure.into());
        self.stop.store(true, Ordering::Release);
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire) || self.cancel.is_cancelled()
    }

    fn tell(&self, index: usize, name: &LayerName, state: LayerState) {
        (self.listener)(Event::Layer { index, name: name.clone(), state });
    }

    fn finish(&self, index: usize, finished: Finished) {
        self.results.lock().unwrap_or_else(PoisonError::into_inner).finished.insert(index, finished);
    }
}

/// Most layers that are unpacked at the same time.
const MAX_UNPACKERS: usize = 8;
/// The same, for who asks for more.
const MAX_JOBS: usize = 64;

/// Runs `feed` with unpackers and a publisher behind it, and returns when everything that it fed is
/// published. After a failure the results are what was published before it.
pub(crate) fn run(
    engine: &Layerstore,
    session: &Session,
    policy: &UnpackPolicy,
    listener: &Listener<'_>,
    feed: impl FnOnce(&Feeder<'_>) -> Result<()>,
) -> (Result<()>, Results) {
    let store = &engine.store;
    let shared = Shared {
        store,
        session,
        options: &Options { limits: policy.limits, ..engine.unpack },
        policy,
        listener,
        cancel: &engine.cancel,
        stop: AtomicBool::new(false),
        failure: Mutex::default(),
        results: Mutex::default(),
    };
    let (jobs, queue) = channel();
    let (ready, complete) = channel();
    let queue = Mutex::new(queue);
    // Even a single core is better used by two: one waits for the disk while the other computes.
    let unpackers = policy.jobs.map_or_else(
        || thread::available_parallelism().map_or(2, |cores| cores.get().clamp(2, MAX_UNPACKERS)),
        |jobs| jobs.get().min(MAX_JOBS),
    );
    thread::scope(|scope| {
        for _ in 0..unpackers {
            let (shared, queue, ready) = (&shared, &queue, ready.clone());
            scope.spawn(move || shared.unpack_all(queue, &ready));
        }
        let publisher = &shared;
        scope.spawn(move || publisher.publish_all(&complete));
        let (gate, most) = (Arc::default(), most_layers());
        let feeder = Feeder { shared: &shared, jobs, ready, gate, most };
        if let Err(error) = feed(&feeder) {
            shared.fail(error);
        }
    });
    let failure = shared.failure.into_inner().unwrap_or_else(PoisonError::into_inner);
    let results = shared.results.into_inner().unwrap_or_else(PoisonError::into_inner);
    let result = match failure {
        // Everything else that failed did so because of this.
        _ if engine.cancel.is_cancelled() => Err(Error::Cancelled),
        Some(failure) => Err(failure.cause(store)),
        None => Ok(()),
    };
    (result, results)
}

impl Failure {
    /// Looks at the blob that the layer came from. Not for a confined thread.
    fn cause(self, store: &Store) -> Error {
        let Some(digest) = self.suspect.map(|digest| *digest) else { return self.error };
        match store.discard_if_damaged(&digest) {
            Ok(false) => self.error,
            Ok(true) => {
                let reason = "it has been removed, load or pull the image again".to_owned();
                layerstore_store::Error::DamagedBlob { digest, reason }.into()
            }
            Err(error) => error.into(),
        }
    }
}

impl Shared<'_> {
    fn publish_all(&self, complete: &Receiver<Ready>) {
        while let Ok(first) = complete.recv() {
            let mut batch = vec![first];
            batch.extend(complete.try_iter());
            if self.stopped() {
                continue;
            }
            if let Err(error) = self.publish(batch) {
                self.fail(error);
            }
        }
    }

    fn publish(&self, batch: Vec<Ready>) -> Result<()> {
        let mut publication = Publication::default();
        let mut layers = Vec::with_capacity(batch.len());
        for ready in batch {
            publication.blobs.extend(ready.blob);
            publication.trees.extend(ready.tree);
            publication.diff_ids.extend(ready.diff_id);
            layers.push((ready.index, ready.name, ready.finished, (ready.claims, ready.slot)));
        }
        let new = self.store.publish(self.session, publication)?;
        self.results.lock().unwrap_or_else(PoisonError::into_inner).new.extend(new);
        for (index, name, finished, held) in layers {
            drop(held);
            self.tell(index, &name, LayerState::Done { size: finished.size });
            self.finish(index, finished);
        }
        Ok(())
    }
}
