//! A registry as the place that images come from.

use std::io::{self, Read};

use layerstore_archive::{Error as ArchiveError, Members};
use layerstore_oci::media_type::LayerKind;
use layerstore_oci::{Descriptor, DiffId, Digest, ErrorKind, Index, MAX_DOCUMENT_BYTES};
use layerstore_registry::{
    Download, Error as RegistryError, FetchedManifest, Notice, Repository, Selector, Watch,
};
use layerstore_store::{Session, Store};

use super::Pull;
use crate::Layerstore;
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::event::{Event, LayerState, Listener};
use crate::layers::{Claims, Feeder, Layer, Work};
use crate::load::contents::{Contents, DocumentKind};

/// Passes on what the client tells.
pub(crate) struct Watcher<'a> {
    listener: &'a Listener<'a>,
    cancel: &'a Cancel,
    stopped: Option<&'a (dyn Fn() -> bool + Sync)>,
}

impl<'a> Watcher<'a> {
    pub(crate) fn new(listener: &'a Listener<'a>, cancel: &'a Cancel) -> Self {
        Self { listener, cancel, stopped: None }
    }

    /// One who waits only until `stopped` says so.
    pub(crate) fn until(self, stopped: &'a (dyn Fn() -> bool + Sync)) -> Self {
        Self { stopped: Some(stopped), ..self }
    }
}

impl Watch for Watcher<'_> {
    fn notice(&self, notice: Notice) {
        let text = match notice {
            Notice::Retry { reason, wait } => {
                format!("{reason}; trying again in {:.1} s", wait.as_secs_f64())
            }
            Notice::NextHost { host, reason, next } => {
                format!("{host} did not help, {next} is asked: {reason}")
            }
            _ => return,
        };
        (self.listener)(Event::Note(text));
    }

    fn is_stopped(&self) -> bool {
        self.cancel.is_cancelled() || self.stopped.is_some_and(|stopped| stopped())
    }
}

/// What one pull reads from.
pub(super) struct Remote<'a> {
    pub(super) pull: &'a Pull<'a>,
    pub(super) store: &'a Store,
    pub(super) repository: &'a Repository<'a>,
    /// What the name stands for.
    pub(super) top: &'a FetchedManifest,
}

impl Members for Remote<'_> {
    /// Everything that a manifest names is taken to be there until it is asked for.
    fn resolve(&self, name: &str) -> Result<Option<String>, ArchiveError> {
        Ok(Some(name.to_owned()))
    }
}

impl Contents for Remote<'_> {
    fn document(&self, descriptor: &Descriptor, kind: DocumentKind) -> Result<Option<Vec<u8>>> {
        let digest = &descriptor.digest;
        if *digest == self.top.digest {
            return Ok(Some(self.top.bytes.clone()));
        }
        if self.store.blob(digest)?.is_some()
            && let Ok(bytes) = self.store.read_blob(digest, MAX_DOCUMENT_BYTES)
        {
            return Ok(Some(bytes));
        }
        let fetched = match kind {
            DocumentKind::Manifest => self.repository.manifest(Selector::Digest(digest))?.bytes,
            DocumentKind::Config => self.repository.small_blob(digest, descriptor.size)?,
        };
        Ok(Some(fetched))
    }

    fn wanted(&self, index: &Index) -> Result<Option<Vec<Descriptor>>> {
        self.pull.wanted(index).map(Some)
    }

    fn may_be_absent(&self, blob: &Digest, diff_id: &DiffId) -> Result<bool> {
        self.pull.may_be_absent(blob, diff_id)
    }

    fn bring(
        &self,
        session: &Session,
        feeder: &Feeder<'_>,
        layer: Layer,
        _member: &str,
        work: Work,
        claims: Claims,
    ) -> Result<()> {
        let source =
            Source { engine: self.pull.engine, listener: self.pull.listener, repository: self.repository };
        source.bring(session, feeder, &layer, work, &claims)
    }
}

/// A repository that single layers come from.
pub(crate) struct Source<'a> {
    pub(crate) engine: &'a Layerstore,
    pub(crate) listener: &'a Listener<'a>,
    pub(crate) repository: &'a Repository<'a>,
}

impl Source<'_> {
    /// Brings a layer's blob to the unpackers, a second time if the first time it arrives damaged.
    pub(crate) fn bring(
        &self,
        session: &Session,
        feeder: &Feeder<'_>,
        layer: &Layer,
        work: Work,
        claims: &Claims,
    ) -> Result<()> {
        let Some(digest) = layer.digest.clone() else { return Err(Error::Cancelled) };
        match self.download(self.repository, session, feeder, layer, work, claims) {
            // What lies between may have damaged it: once more, from the beginning.
            Err(Error::Store(layerstore_store::Error::DigestMismatch { .. })) => {}
            done => return done,
        }
        (self.listener)(Event::Note(format!("layer {digest} arrived damaged; it is fetched once more")));
        // A mirror that has it wrong would have it wrong once more.
        let registry = self.repository.without_mirrors();
        match self.download(&registry, session, feeder, layer, work, claims) {
            Err(Error::Store(layerstore_store::Error::DigestMismatch { actual, .. })) => {
                let (host, what) = (self.repository.domain().to_owned(), format!("layer {digest}"));
                Err(RegistryError::DigestMismatch { host, what, actual }.into())
            }
            done => done,
        }
    }

    fn download(
        &self,
        repository: &Repository<'_>,
        session: &Session,
        feeder: &Feeder<'_>,
        layer: &Layer,
        work: Work,
        claims: &Claims,
    ) -> Result<()> {
        let (Some(digest), Some(size)) = (&layer.digest, layer.size) else { return Err(Error::Cancelled) };
        let ingest = session.resume(digest, size)?;
        let resumed = ingest.written();
        let state = LayerState::Downloading { total: size, resumed };
        (self.listener)(Event::Layer { index: layer.index, name: layer.name.clone(), state });
        let stopped = || feeder.stopped();
        let watcher = Watcher::new(self.listener, &self.engine.cancel).until(&stopped);
        let repository = repository.watched_by(&watcher);
        let mut source = Counted {
            download: repository.download(digest, size, resumed),
            listener: self.listener,
            index: layer.index,
            done: resumed,
            total: size,
        };
        match feeder.receive(layer.clone(), work, Claims::clone(claims), ingest, &mut source) {
            Err(Error::Read { source: error, .. }) => {
                Err(Self::explain(layer, source.download.into_error(error)))
            }
            done => done,
        }
    }

    fn explain(layer: &Layer, error: RegistryError) -> Error {
        if matches!(error, RegistryError::Stopped) {
            return Error::Cancelled;
        }
        let media_type = layer.media_type.as_deref().unwrap_or_default();
        if error.kind() == ErrorKind::NotFound
            && matches!(LayerKind::of(media_type), LayerKind::Layer { foreign: true, .. })
            && let Some(digest) = layer.digest.clone()
        {
            return Error::ForeignLayer { digest, media_type: media_type.to_owned() };
        }
        error.into()
    }
}

/// Tells how much has been downloaded.
struct Counted<'a> {
    download: Download<'a>,
    listener: &'a Listener<'a>,
    index: usize,
    done: u64,
    total: u64,
}

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.download.read(buffer)?;
        self.done += count as u64;
        (self.listener)(Event::Downloaded { index: self.index, done: self.done, total: self.total });
        Ok(count)
    }
}
