//! Pushing images to registries.

use std::collections::{HashMap, HashSet};
use std::io::{Read, Seek as _, SeekFrom};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use layerstore_oci::{Descriptor, Digest, Platform, Reference};
use layerstore_registry::{
    Client, Error as RegistryError, Outgoing, Pushed, Repository, Selector, UploadOptions,
};
use layerstore_store::LOCAL;

use crate::Layerstore;
use crate::error::{Error, Result};
use crate::event::{Event, LayerName, LayerState, Listener};
use crate::names::named;
use crate::parts::{Foreign, Wanted};
use crate::pull::remote::Watcher;
use crate::refetch::Refetch;

/// Layers that are uploaded at the same time.
const UPLOADS: usize = 4;

/// How to push.
#[derive(Debug, Clone, Default)]
pub struct PushOptions {
    /// Push only this platform of an image for several.
    pub platform: Option<Platform>,
    /// Bytes that are sent in one request; none is a whole layer.
    pub chunk: Option<u64>,
    /// Layers that are uploaded at the same time; none is the default.
    pub uploads: Option<usize>,
    /// Push also the layers that their manifest says are to be had elsewhere, if they are here. Their licences may not
    /// allow it, so Docker does not do it either.
    pub foreign: bool,
}

/// What was pushed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PushReport {
    /// Where it is now.
    pub reference: Reference,
    /// The digest of the manifest or index.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// What a person should know.
    pub notes: Vec<String>,
}

impl Layerstore {
    /// Pushes the image `name` to where its name says, or to `destination`: the very bytes that are in the store.
    ///
    /// Of an image for several platforms of which only one is here, its manifest is pushed alone; if more are here, but
    /// not all, one has to be chosen. What the registry has is not sent. Layers that were evicted are fetched again first,
    /// from where they were pulled.
    ///
    /// # Errors
    ///
    /// `NotFound` if there is no such image, or not all of it ([`Error::Evicted`]: and it cannot be fetched again); `InvalidInput` if its name says nothing about a
    /// registry; `Unauthorized`; `Unavailable`.
    ///
    /// # Example
    ///
    /// ```no_run
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use layerstore::{Layerstore, PushOptions};
    ///
    /// let store = Layerstore::open("/var/lib/layerstore".as_ref())?;
    /// let client = layerstore::registry::Client::new(Default::default())?;
    /// let destination = "registry.example.com/team/app:1".parse()?;
    /// store.push(&client, "app:1", Some(&destination), &PushOptions::default(), &|_| {})?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn push(
        &self,
        client: &Client,
        name: &str,
        destination: Option<&Reference>,
        options: &PushOptions,
        listener: &Listener<'_>,
    ) -> Result<PushReport> {
        let found = self.find(name)?;
        let reference = match destination {
            Some(reference) => reference.clone(),
            None => found
                .by_name
                .as_deref()
                .and_then(named)
                .ok_or_else(|| Error::NoDestination { name: name.to_owned() })?,
        };
        // With a digest, a tag says only what it stood for once.
        let Some(tag) = reference.tag().filter(|_| reference.digest().is_none()) else {
            return Err(Error::DigestAsTag { name: reference.familiar() });
        };
        let mut notes = Vec::new();
        let wanted = Wanted {
            platform: options.platform.as_ref(),
            id: None,
            foreign: if options.foreign { Foreign::IfPresent } else { Foreign::Left },
            done: "pushed",
        };
        let parts = self.outgoing(name, &found.target, wanted, &mut notes)?;
        if parts.foreign > 0 {
            notes.push(format!("{} foreign layers are not pushed", parts.foreign));
        }
        let session = self.store.session(LOCAL)?;
        let watcher = Watcher::new(listener, &self.cancel);
        let repository = client.repository(&reference, &watcher)?;
        let refetch = Refetch { client: Some(client), destination: Some(&repository) };
        let numbers = parts.blobs.iter().enumerate().map(|(number, blob)| (&blob.digest, number)).collect();
        let (session, there) = self.fetch_evicted(session, (name, &parts), refetch, &numbers, listener)?;
        let documents = parts.documents.iter().map(|document| &document.digest);
        let blobs = parts.blobs.iter().map(|blob| &blob.digest).filter(|digest| !there.contains(digest));
        self.hold(&session, documents.chain(blobs))?;
        self.push_blobs(&repository, &parts.blobs, options, listener)?;
        let Some((top, children)) = parts.documents.split_last() else { return Err(Error::Cancelled) };
        for document in children {
            if !repository.has_manifest(&document.digest)? {
                let selector = Selector::Digest(&document.digest);
                repository.push_manifest(selector, &document.media_type, &document.bytes)?;
            }
        }
        repository.push_manifest(Selector::Tag(tag), &top.media_type, &top.bytes)?;
        let (digest, size) = (top.digest.clone(), top.bytes.len() as u64);
        Ok(PushReport { reference, digest, size, notes })
    }

    fn push_blobs(
        &self,
        repository: &Repository<'_>,
        blobs: &[Descriptor],
        options: &PushOptions,
        listener: &Listener<'_>,
    ) -> Result<()> {
        let elsewhere = self.repositories_with(repository, blobs)?;
        let queue = Mutex::new(blobs.iter().enumerate().collect::<Vec<_>>());
        // The largest first, from the end.
        let lock = || queue.lock().unwrap_or_else(PoisonError::into_inner);
        lock().sort_by_key(|(_, blob)| blob.size);
        let stop = AtomicBool::new(false);
        let failure = Mutex::new(None);
        let stopped = || stop.load(Ordering::Acquire);
        let watcher = Watcher::new(listener, &self.cancel).until(&stopped);
        let repository = repository.watched_by(&watcher);
        let workers = options.uploads.unwrap_or(UPLOADS).max(1).min(blobs.len());
        thread::scope(|scope| {
            for _ in 0..workers {
                scope.spawn(|| {
                    while !stopped() {
                        let Some((index, blob)) = lock().pop() else { return };
                        let mount_from = elsewhere.get(&blob.digest).cloned().unwrap_or_default();
                        let upload = UploadOptions { chunk: options.chunk, mount_from };
                        if let Err(error) = self.push_blob(&repository, index, blob, &upload, listener) {
                            failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                            stop.store(true, Ordering::Release);
                        }
                    }
                });
            }
        });
        failure.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
    }

    fn push_blob(
        &self,
        repository: &Repository<'_>,
        index: usize,
        blob: &Descriptor,
        options: &UploadOptions,
        listener: &Listener<'_>,
    ) -> Result<()> {
        let tell = |state| {
            let name = LayerName::Digest(blob.digest.clone());
            listener(Event::Layer { index, name, state });
        };
        tell(LayerState::Uploading { total: blob.size });
        let open = |offset| {
            let mut file = self.store.open_blob(&blob.digest).map_err(std::io::Error::other)?;
            file.seek(SeekFrom::Start(offset))?;
            Ok(Box::new(file) as Box<dyn Read + Send>)
        };
        let outgoing = Outgoing { digest: &blob.digest, size: blob.size, open: &open };
        let progress = |done| listener(Event::Uploaded { index, done });
        match repository.push_blob(&outgoing, options, &progress) {
            Ok(Pushed::AlreadyExists) => tell(LayerState::AlreadyExists),
            Ok(Pushed::Mounted { from }) => {
                tracing::info!(blob = %blob.digest, from, "mounted");
                tell(LayerState::Mounted);
            }
            Ok(Pushed::Uploaded) => tell(LayerState::Done { size: blob.size }),
            Err(error) => {
                // A registry only says that it got something else.
                if matches!(error, RegistryError::Source { .. } | RegistryError::Status { .. })
                    && let Some(damaged) = self.blame(&blob.digest)?
                {
                    return Err(damaged);
                }
                return Err(error.into());
            }
        }
        Ok(())
    }

    /// For each blob, the other repositories of the same registry that an image in the store says have it.
    fn repositories_with(
        &self,
        repository: &Repository<'_>,
        blobs: &[Descriptor],
    ) -> Result<HashMap<Digest, Vec<String>>> {
        let wanted: HashSet<&Digest> = blobs.iter().map(|blob| &blob.digest).collect();
        let mut found: HashMap<Digest, Vec<String>> = HashMap::new();
        for row in self.store.images(LOCAL)? {
            let Some(name) = named(&row.name) else { continue };
            let Some(image) = row.image else { continue };
            if name.domain() != repository.domain() || name.path() == repository.path() {
                continue;
            }
            let layers = self.store.layers(&image.manifest)?.into_iter().map(|layer| layer.blob);
            for digest in layers.chain([image.config]).filter(|digest| wanted.contains(digest)) {
                let paths = found.entry(digest).or_default();
                if !paths.iter().any(|path| path == name.path()) {
                    paths.push(name.path().to_owned());
                }
            }
        }
        Ok(found)
    }
}
