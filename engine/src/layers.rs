//! The layers of one operation: received, unpacked and published in parallel.
//!
//! Three kinds of threads, joined by channels. The *feeder* (the calling thread) writes blobs into the
//! session one after the other, hashing them. *Unpackers* read behind it, one layer each. The
//! *publisher* makes complete layers durable and part of the store, all that are ready in one go. A
//! claim on the layer goes along from hand to hand, so that other processes wait for the result
//! instead of doing the same; the publisher lets go of it without waiting for anybody.

use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;

use layerstore_oci::{Algorithm, Compression, DiffId, Digest, ErrorKind};
use layerstore_store::{
    Claim, Ingest, IngestReader, NewBlob, NewTree, Object, Publication, Received, Session, Store, Usage,
};
use layerstore_unpack::{Options, PrivateUmask};
use rustix::process::{Resource, getrlimit};

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

/// A layer on its way to an unpacker.
struct Job {
    layer: Layer,
    work: Work,
    source: JobSource,
    claims: Vec<Claim>,
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
    claims: Vec<Claim>,
    slot: Slot,
}

/// Limits how many layers are between the feeder and the publisher: each holds open files.
#[derive(Debug, Default)]
struct Gate {
    inside: Mutex<usize>,
    left: Condvar,
}

impl Gate {
    /// Waits for a place. Everybody inside leaves without waiting for the feeder.
    fn enter(self: &Arc<Self>, limit: usize) -> Slot {
        let mut inside = self.inside.lock().unwrap_or_else(PoisonError::into_inner);
        while *inside >= limit {
            inside = self.left.wait(inside).unwrap_or_else(PoisonError::into_inner);
        }
        *inside += 1;
        Slot(Arc::clone(self))
    }
}

/// A layer's place, left when dropped.
#[derive(Debug)]
struct Slot(Arc<Gate>);

impl Drop for Slot {
    fn drop(&mut self) {
        *self.0.inside.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        self.0.left.notify_one();
    }
}

/// Open files that a layer may need: its blob and two claims, and some while it is unpacked.
const FILES_PER_LAYER: u64 = 8;

/// How many layers may be under way with the files that this process may open.
fn most_layers() -> usize {
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    usize::try_from(files / FILES_PER_LAYER).unwrap_or(usize::MAX).clamp(4, 128)
}

/// What all threads of one operation share.
struct Shared<'a> {
    store: &'a Store,
    session: &'a Session,
    options: &'a Options,
    policy: &'a UnpackPolicy,
    listener: &'a Listener<'a>,
    stop: AtomicBool,
    failure: Mutex<Option<Failure>>,
    results: Mutex<Results>,
}

/// Why everything ended.
#[derive(Debug)]
struct Failure {
    error: Error,
    /// The stored blob that the layer came from: if that is damaged, this is the cause.
    suspect: Option<Digest>,
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
        self.stop.load(Ordering::Acquire)
    }

    fn tell(&self, index: usize, name: &LayerName, state: LayerState) {
        (self.listener)(Event::Layer { index, name: name.clone(), state });
    }

    fn finish(&self, index: usize, finished: Finished) {
        self.results.lock().unwrap_or_else(PoisonError::into_inner).finished.insert(index, finished);
    }
}

/// The feeder's end.
pub(crate) struct Feeder<'a> {
    shared: &'a Shared<'a>,
    jobs: Sender<Job>,
    ready: Sender<Ready>,
    buffer: Vec<u8>,
    gate: Arc<Gate>,
    most: usize,
}

/// What is read and written at once while receiving.
const FEED_SIZE: usize = 256 << 10;

/// Most layers that are unpacked at the same time.
const MAX_UNPACKERS: usize = 8;
/// The same, for who asks for more.
const MAX_JOBS: usize = 64;

/// Runs `feed` with unpackers and a publisher behind it, and returns when everything that it fed is
/// published. After a failure the results are what was published before it.
pub(crate) fn run(
    store: &Store,
    session: &Session,
    options: &Options,
    policy: &UnpackPolicy,
    listener: &Listener<'_>,
    feed: impl FnOnce(&mut Feeder<'_>) -> Result<()>,
) -> (Result<()>, Results) {
    let shared = Shared {
        store,
        session,
        options: &Options { limits: policy.limits, ..*options },
        policy,
        listener,
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
        let buffer = vec![0; FEED_SIZE];
        let (gate, most) = (Arc::default(), most_layers());
        let mut feeder = Feeder { shared: &shared, jobs, ready, buffer, gate, most };
        if let Err(error) = feed(&mut feeder) {
            shared.fail(error);
        }
    });
    let failure = shared.failure.into_inner().unwrap_or_else(PoisonError::into_inner);
    let results = shared.results.into_inner().unwrap_or_else(PoisonError::into_inner);
    (failure.map_or(Ok(()), |failure| Err(failure.cause(store))), results)
}

impl Failure {
    /// Looks at the blob that the layer came from. Not for a confined thread.
    fn cause(self, store: &Store) -> Error {
        let Some(digest) = self.suspect else { return self.error };
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

    /// Whether a failure makes all further work pointless.
    pub(crate) fn stopped(&self) -> bool {
        self.shared.stopped()
    }

    /// Receives a layer's blob from `source`.
    pub(crate) fn receive(
        &mut self,
        layer: Layer,
        work: Work,
        claims: Vec<Claim>,
        source: &mut dyn Read,
    ) -> Result<()> {
        let slot = self.gate.enter(self.most);
        let algorithm = layer.digest.as_ref().map_or(Algorithm::Sha256, Digest::algorithm);
        let mut ingest = self.shared.session.ingest(algorithm)?;
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
        &mut self,
        layer: Layer,
        work: Work,
        claims: Vec<Claim>,
        digest: Digest,
        size: u64,
    ) -> Result<()> {
        let slot = self.gate.enter(self.most);
        let file = self.shared.store.open_blob(&digest)?;
        self.shared.tell(layer.index, &layer.name, LayerState::Unpacking { total: Some(size) });
        let source = JobSource::Blob { file, digest, size };
        self.jobs.send(Job { layer, work, source, claims, slot }).map_err(|_| Error::Cancelled)
    }

    fn copy(&mut self, ingest: &mut Ingest, source: &mut dyn Read, what: &str) -> Result<()> {
        loop {
            if self.shared.stopped() {
                return Err(Error::Cancelled);
            }
            match source.read(&mut self.buffer) {
                Ok(0) => return Ok(()),
                Ok(count) => ingest.write(&self.buffer[..count])?,
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

fn kept(layer: Layer, received: Received, claims: Vec<Claim>, slot: Slot) -> Ready {
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

impl Shared<'_> {
    fn unpack_all(&self, queue: &Mutex<Receiver<Job>>, ready: &Sender<Ready>) {
        let umask = PrivateUmask::enter();
        if self.policy.sandbox {
            let directories = self.session.directories();
            let directories = directories.each_ref().map(PathBuf::as_path);
            if let Err(source) = layerstore_unpack::confine(&directories) {
                // The queue is still emptied: the feeder waits for places in it.
                self.fail(Error::Sandbox { source });
            }
        }
        loop {
            let next = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let Ok(job) = next else { return };
            if self.stopped() {
                continue;
            }
            match self.work(job, &umask) {
                Ok(Some(done)) => ready.send(done).unwrap_or_default(),
                Ok(None) => {}
                Err(error) => self.fail(error),
            }
        }
    }

    /// `None` if the layer was given up because of a failure that is reported by another.
    fn work(&self, job: Job, umask: &PrivateUmask) -> Result<Option<Ready>, Failure> {
        let Job { layer, work, source, claims, slot } = job;
        let (reader, size, origin): (Box<dyn Read + Send>, _, _) = match source {
            JobSource::Ingest { reader, received } => {
                (Box::new(reader), layer.size, Origin::Ingest(received))
            }
            JobSource::Blob { file, digest, size } => {
                (Box::new(file), Some(size), Origin::Blob(digest, size))
            }
        };
        let counted = Counted { inner: reader, shared: self, index: layer.index, done: 0, total: size };
        let directory = match work {
            Work::Unpack | Work::Try => Some(self.session.tree_directory()?),
            Work::Verify | Work::Keep => None,
        };
        let result = match &directory {
            Some(directory) => {
                layerstore_unpack::unpack(counted, size, &directory.diff(), self.options, umask)
                    .map(|(unpacked, stream)| (Some(unpacked), stream))
            }
            None => {
                layerstore_unpack::digest(counted, size, &self.options.limits).map(|stream| (None, stream))
            }
        };
        if self.stopped() {
            return Ok(None);
        }
        let result = result.map_err(|source| Error::Unpack { layer: layer.name.to_string(), source });
        let blob = match origin {
            Origin::Blob(digest, size) => Blob::Stored(digest, size),
            Origin::Ingest(received) => {
                // Damage of the content has its cause in the blob, if that is not what its digest says: wait
                // for the verdict. A full disk is a failure of its own.
                if let Err(Error::Unpack { source, .. }) = &result
                    && !is_about_content(source)
                {
                    return Ok(result.map(|_| None)?);
                }
                match received.recv() {
                    Ok(received) => Blob::Received(received),
                    Err(_) => return Ok(None),
                }
            }
        };
        let (unpacked, stream) = match result {
            Ok(done) => done,
            Err(error) => match blob {
                // Whatever it is, it is no layer; if an image says it is one, this comes up again.
                // The layer may be as it should be, and the disk not.
                Blob::Stored(digest, _) => return Err(Failure { error, suspect: Some(digest) }),
                Blob::Received(received) if work == Work::Try => {
                    return Ok(Some(kept(layer, received, claims, slot)));
                }
                Blob::Received(_) => return Err(error.into()),
            },
        };
        if let Some(expected) = layer.diff_id.as_ref().filter(|expected| **expected != stream.diff_id) {
            let error = Error::DiffIdMismatch {
                layer: layer.name.to_string(),
                expected: expected.clone(),
                actual: stream.diff_id,
            };
            let suspect = match blob {
                Blob::Stored(digest, _) => Some(digest),
                Blob::Received(_) => None,
            };
            return Err(Failure { error, suspect });
        }
        if let Some(unpacked) = &unpacked {
            self.report(&layer, unpacked);
        }
        let diff_id = stream.diff_id;
        let tree = directory.zip(unpacked).map(|(directory, unpacked)| NewTree {
            directory,
            diff_id: diff_id.clone(),
            usage: Usage {
                bytes: unpacked.usage.bytes,
                allocated: unpacked.usage.allocated,
                inodes: unpacked.usage.inodes,
            },
            implied: unpacked.implied,
            links: unpacked.lower_links.into_iter().map(|link| (link.path, link.target)).collect(),
        });
        let (digest, size, blob, known) = match blob {
            Blob::Received(received) => {
                let (digest, size) = (received.digest().clone(), received.size());
                let media_type = layer.media_type;
                let blob = NewBlob { received, media_type, diff_id: Some(diff_id.clone()) };
                (digest, size, Some(blob), None)
            }
            Blob::Stored(digest, size) => (digest.clone(), size, None, Some((digest, diff_id.clone()))),
        };
        Ok(Some(Ready {
            index: layer.index,
            name: layer.name,
            finished: Finished { digest, size, compression: Some(stream.compression) },
            blob,
            tree,
            diff_id: known,
            claims,
            slot,
        }))
    }

    fn report(&self, layer: &Layer, unpacked: &layerstore_unpack::Unpacked) {
        (self.listener)(Event::Unpacked {
            index: layer.index,
            name: layer.name.clone(),
            privileged: unpacked.privileged.clone(),
            devices: unpacked.devices,
        });
        let lost = unpacked.lost;
        for (count, what) in [
            (lost.owners, "owners could not be set without privilege"),
            (lost.xattrs, "extended attributes are not supported here"),
            (lost.devices, "device nodes could not be made"),
        ] {
            if count > 0 {
                (self.listener)(Event::Note(format!("layer {}: {count} {what}", layer.name)));
            }
        }
    }

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

/// Whether the layer is to blame, rather than the disk.
fn is_about_content(error: &layerstore_unpack::Error) -> bool {
    matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::InvalidInput | ErrorKind::Unsupported)
}

/// The blob of a layer that has been read to its end.
enum Blob {
    Received(Received),
    Stored(Digest, u64),
}

enum Origin {
    Ingest(Receiver<Received>),
    Blob(Digest, u64),
}

/// Tells how far a layer is, and ends it when everything stops.
struct Counted<'a> {
    inner: Box<dyn Read + Send>,
    shared: &'a Shared<'a>,
    index: usize,
    done: u64,
    total: Option<u64>,
}

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.shared.stopped() {
            return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "stopped"));
        }
        let count = self.inner.read(buffer)?;
        self.done += count as u64;
        (self.shared.listener)(Event::Progress { index: self.index, done: self.done, total: self.total });
        Ok(count)
    }
}
