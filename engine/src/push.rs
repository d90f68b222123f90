//! Pushing images to registries.

use std::collections::{HashMap, HashSet};
use std::io::{Read, Seek as _, SeekFrom};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use layerstore_oci::{
    Descriptor, Digest, Document, LayerKind, MAX_DOCUMENT_BYTES, Platform, Reference, media_type,
};
use layerstore_registry::{
    Client, Error as RegistryError, Outgoing, Pushed, Repository, Selector, UploadOptions,
};
use layerstore_store::LOCAL;

use crate::Layerstore;
use crate::error::{Error, Result};
use crate::event::{Event, LayerName, LayerState, Listener};
use crate::names::named;
use crate::pull::remote::Watcher;

/// Layers that are uploaded at the same time.
const UPLOADS: usize = 4;
/// How deep indexes may be nested.
const MAX_DEPTH: usize = 8;

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

/// A manifest or index to push.
#[derive(Debug)]
struct OutgoingDocument {
    digest: Digest,
    media_type: String,
    bytes: Vec<u8>,
}

/// All that belongs to an image, each part before what names it.
#[derive(Debug, Default)]
struct Parts {
    blobs: Vec<Descriptor>,
    documents: Vec<OutgoingDocument>,
    seen: HashSet<Digest>,
    /// What an index names and the store does not have: its platform, or its digest.
    missing: Vec<String>,
    /// Manifests of images that are here, with their platforms.
    images: Vec<(Digest, Option<Platform>)>,
    foreign: usize,
}

impl Layerstore {
    /// Pushes the image `name` to where its name says, or to `destination`: the very bytes that are in the store.
    ///
    /// Of an image for several platforms of which only one is here, its manifest is pushed alone; if more are here, but
    /// not all, one has to be chosen. What the registry has is not sent.
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
        let parts = self.outgoing(name, &found.target, options, &mut notes)?;
        if parts.foreign > 0 {
            notes.push(format!("{} foreign layers are not pushed", parts.foreign));
        }
        // Whatever others remove meanwhile, it stays until it is sent.
        let session = self.store.session(LOCAL)?;
        let digests = parts.documents.iter().map(|document| &document.digest);
        let all = digests.chain(parts.blobs.iter().map(|blob| &blob.digest));
        let wanted: Vec<_> = all.map(|digest| (digest.clone(), None)).collect();
        for (presence, (digest, _)) in self.store.lease_layers(&session, &wanted)?.iter().zip(&wanted) {
            if presence.blob.is_none() {
                let digest = digest.clone();
                // Known, but gone from the disk or of another length.
                return Err(match self.store.blob(&digest)? {
                    Some(_) => {
                        let reason = "its file is not whole, pull or load the image again".to_owned();
                        layerstore_store::Error::DamagedBlob { digest, reason }
                    }
                    None => layerstore_store::Error::NoBlob { digest },
                }
                .into());
            }
        }
        let watcher = Watcher::new(listener);
        let repository = client.repository(&reference, &watcher)?;
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

    /// What is to be pushed of `target`.
    fn outgoing(
        &self,
        name: &str,
        target: &Digest,
        options: &PushOptions,
        notes: &mut Vec<String>,
    ) -> Result<Parts> {
        let mut parts = Parts::default();
        self.gather(target, None, options, 0, &mut parts)?;
        let is_index = parts.documents.last().is_some_and(|top| media_type::is_index(&top.media_type));
        let platforms = || parts.images.iter().map(|(_, platform)| platform.as_ref());
        let chosen = match &options.platform {
            Some(wanted) => match wanted.select(platforms()) {
                Some(number) => Some(number),
                None => {
                    let present = platforms().flatten().cloned().collect();
                    return Err(Error::NoPlatform { wanted: wanted.clone().into(), present });
                }
            },
            None if !parts.missing.is_empty() && parts.images.len() == 1 => Some(0),
            None => None,
        };
        let Some((manifest, platform)) = chosen.filter(|_| is_index).map(|number| &parts.images[number])
        else {
            if parts.missing.is_empty() {
                return Ok(parts);
            }
            let present = platforms().flatten().map(ToString::to_string).collect();
            return Err(Error::Incomplete { name: name.to_owned(), missing: parts.missing, present });
        };
        if options.platform.is_none() {
            let platform = platform.as_ref().map_or_else(|| manifest.to_string(), ToString::to_string);
            notes.push(format!("only {platform} of the image is here: its manifest is pushed alone"));
        }
        let manifest = manifest.clone();
        let mut alone = Parts::default();
        self.gather(&manifest, None, options, 0, &mut alone)?;
        Ok(alone)
    }

    /// Adds a manifest or index and all that it leads to.
    fn gather(
        &self,
        digest: &Digest,
        platform: Option<&Platform>,
        options: &PushOptions,
        depth: usize,
        parts: &mut Parts,
    ) -> Result<()> {
        if depth > MAX_DEPTH {
            return Err(Error::TooDeep { digest: digest.clone() });
        }
        if !parts.seen.insert(digest.clone()) {
            return Ok(());
        }
        let bytes = self.store.read_blob(digest, MAX_DOCUMENT_BYTES)?;
        let document = Document::parse(&bytes, None).map_err(|source| Error::Document {
            what: "manifest or index",
            digest: digest.to_string(),
            source,
        })?;
        let media_type = document.media_type().to_owned();
        match document {
            Document::Index(index) => {
                for child in &index.manifests {
                    if self.store.blob(&child.digest)?.is_some() {
                        self.gather(&child.digest, child.platform.as_ref(), options, depth + 1, parts)?;
                    } else {
                        let known = child.platform.as_ref().filter(|platform| platform.os != "unknown");
                        parts
                            .missing
                            .push(known.map_or_else(|| child.digest.to_string(), ToString::to_string));
                    }
                }
            }
            Document::Manifest(manifest) => {
                if media_type::is_config(&manifest.config.media_type)
                    && platform.is_none_or(|platform| platform.os != "unknown")
                {
                    // A manifest that no index names says it in its config only.
                    let config = || self.config(&manifest.config.digest).ok()?.platform;
                    parts.images.push((digest.clone(), platform.cloned().or_else(config)));
                }
                for blob in [manifest.config].into_iter().chain(manifest.layers) {
                    let foreign =
                        matches!(LayerKind::of(&blob.media_type), LayerKind::Layer { foreign: true, .. });
                    let elsewhere = foreign && !blob.urls.is_empty();
                    if elsewhere && !(options.foreign && self.store.blob(&blob.digest)?.is_some()) {
                        parts.foreign += 1;
                    } else if parts.seen.insert(blob.digest.clone()) {
                        parts.blobs.push(blob);
                    }
                }
            }
        }
        parts.documents.push(OutgoingDocument { digest: digest.clone(), media_type, bytes });
        Ok(())
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
        let watcher = Watcher::until(listener, &stopped);
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
                    && self.store.discard_if_damaged(&blob.digest)?
                {
                    let reason = "it has been removed, pull or load the image again".to_owned();
                    let digest = blob.digest.clone();
                    return Err(layerstore_store::Error::DamagedBlob { digest, reason }.into());
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
