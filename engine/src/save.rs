//! Saving images into an archive.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::Write;

use layerstore_archive::{ArchiveForm, ArchiveWriter, DockerEntry, NamedDescriptor, WriteError};
use layerstore_oci::{
    Descriptor, Digest, Document, LayerKind, MAX_DOCUMENT_BYTES, Manifest, Platform, Reference,
};
use layerstore_registry::Client;
use layerstore_store::LOCAL;

use crate::Layerstore;
use crate::cancel::Cancellable;
use crate::error::{Error, Result};
use crate::event::{Event, LayerName, LayerState, Listener};
use crate::gone::again;
use crate::names::{Found, named};
use crate::parts::{Foreign, Parts, Wanted};
use crate::refetch::Refetch;

/// How to save.
#[derive(Debug, Clone, Default)]
pub struct SaveOptions {
    /// Who is to read the archive.
    pub form: ArchiveForm,
    /// Save only this platform of images for several.
    pub platform: Option<Platform>,
    /// Who fetches layers again that were evicted; without one, an image without them cannot be saved.
    pub client: Option<Client>,
}

/// What was saved.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SaveReport {
    /// The manifest or index that stands for each image in the archive, in the order in which they were given. Names
    /// of one image give one.
    pub images: Vec<Digest>,
    /// Bytes of all blobs in the archive.
    pub size: u64,
    /// What a person should know.
    pub notes: Vec<String>,
}

/// A manifest or index that is to be in the archive.
struct Saved {
    name: String,
    parts: Parts,
    names: Vec<Reference>,
}

impl Saved {
    /// The manifest or index itself.
    fn top(&self) -> Option<Descriptor> {
        let top = self.parts.documents.last()?;
        Some(Descriptor::new(top.media_type.clone(), top.digest.clone(), top.bytes.len() as u64))
    }
}

impl Layerstore {
    /// Writes `images`, given by name or by ID, into one archive: the very bytes that are in the store, compressed as
    /// they came. The same images, given in the same order, give the same bytes.
    ///
    /// An image given by its ID or with a digest has no name in the archive, as with Docker, and if the ID is that of
    /// one platform's image, this image is saved alone. Of an image for several platforms of which only one is here,
    /// this one is saved alone; if more are here, but not all, one has to be chosen.
    ///
    /// # Errors
    ///
    /// Of the kind [`NotFound`](layerstore_oci::ErrorKind::NotFound) if an image, a platform of it or a blob is not
    /// here ([`Error::Evicted`]: and it cannot be fetched again), before anything is written; [`Unsupported`](layerstore_oci::ErrorKind::Unsupported) for an artifact that
    /// is to go into an archive for Docker; [`Corrupt`](layerstore_oci::ErrorKind::Corrupt) if a blob is not what its
    /// digest says: then the blob is removed, so that the next pull or load brings it back. After an error, what has
    /// been written to `out` is of no use.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use layerstore::{Layerstore, SaveOptions};
    ///
    /// let store = Layerstore::open("/var/lib/layerstore".as_ref())?;
    /// let mut file = std::fs::File::create("app.tar")?;
    /// store.save(&["app:1", "app:2"], &mut file, &SaveOptions::default(), &|_| {})?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn save(
        &self,
        images: &[&str],
        out: impl Write,
        options: &SaveOptions,
        listener: &Listener<'_>,
    ) -> Result<SaveReport> {
        let mut out = out;
        again(|| {
            let mut begun = false;
            let result = self.save_once(images, &mut out, &mut begun, options, listener);
            if begun { Ok(result) } else { result.map(Ok) }
        })?
    }

    /// Sets `begun` when all that is to be written is sure to stay, and `out` is written to.
    fn save_once(
        &self,
        images: &[&str],
        out: impl Write,
        begun: &mut bool,
        options: &SaveOptions,
        listener: &Listener<'_>,
    ) -> Result<SaveReport> {
        let mut report = SaveReport::default();
        let saved = self.saved(images, options, &mut report.notes)?;
        let tops: Vec<NamedDescriptor> = saved
            .iter()
            .filter_map(|saved| {
                Some(NamedDescriptor { descriptor: saved.top()?, names: saved.names.clone() })
            })
            .collect();

        // Small documents first, and the config of an image before its layers.
        let mut seen = HashSet::new();
        let documents = saved.iter().flat_map(|saved| saved.parts.documents.iter().rev());
        let documents: Vec<_> = documents.filter(|document| seen.insert(&document.digest)).collect();
        let blobs = saved.iter().flat_map(|saved| &saved.parts.blobs);
        let (layers, configs): (Vec<_>, Vec<_>) = blobs
            .filter(|blob| seen.insert(&blob.digest))
            .partition(|blob| LayerKind::of(&blob.media_type) != LayerKind::Unknown);
        let blobs: Vec<&Descriptor> = configs.into_iter().chain(layers).collect();

        let mut session = self.store.session(LOCAL)?;
        let numbers = blobs.iter().enumerate().map(|(number, blob)| (&blob.digest, number)).collect();
        let refetch = Refetch { client: options.client.as_ref(), destination: None };
        for saved in &saved {
            let image = (saved.name.as_str(), &saved.parts);
            (session, _) = self.fetch_evicted(session, image, refetch, &numbers, listener)?;
        }
        let digests = blobs.iter().map(|blob| &blob.digest);
        let sizes = self.hold(&session, documents.iter().map(|document| &document.digest).chain(digests))?;
        let entries = match options.form {
            ArchiveForm::Docker => Some(self.docker_entries(&saved, options.platform.as_ref())?),
            ArchiveForm::Oci => None,
        };
        report.size = sizes.iter().sum();
        report.images = tops.iter().map(|top| top.descriptor.digest.clone()).collect();

        let failed = |error| match error {
            _ if self.cancel.is_cancelled() => Error::Cancelled,
            WriteError::Output { source } => Error::Output { source },
            error => Error::Output { source: std::io::Error::other(error) },
        };
        *begun = true;
        let out = Cancellable { out, cancel: &self.cancel };
        let mut archive = ArchiveWriter::begin(out, &tops, entries.as_deref()).map_err(failed)?;
        for document in &documents {
            let size = document.bytes.len() as u64;
            archive.blob(&document.digest, size, document.bytes.as_slice(), |_| ()).map_err(failed)?;
        }
        for (index, (blob, size)) in blobs.iter().zip(sizes.into_iter().skip(documents.len())).enumerate() {
            let digest = &blob.digest;
            let tell = |state| {
                listener(Event::Layer { index, name: LayerName::Digest(digest.clone()), state });
            };
            tell(LayerState::Saving { total: size });
            let progress = |done| listener(Event::Progress { index, done, total: Some(size) });
            let file = self.store.open_blob(digest)?;
            match archive.blob(digest, size, file, progress) {
                Ok(()) => tell(LayerState::Done { size }),
                Err(WriteError::Blob(error)) => {
                    return Err(self.blame(digest)?.unwrap_or_else(|| {
                        let (digest, reason) = (digest.clone(), error.to_string());
                        layerstore_store::Error::DamagedBlob { digest, reason }.into()
                    }));
                }
                Err(error) => return Err(failed(error)),
            }
        }
        archive.finish().map_err(failed)?;
        Ok(report)
    }

    /// What is to be in the archive, each manifest or index once with all the names it was given by.
    fn saved(&self, images: &[&str], options: &SaveOptions, notes: &mut Vec<String>) -> Result<Vec<Saved>> {
        let mut all: Vec<Saved> = Vec::new();
        let mut numbers: HashMap<Digest, usize> = HashMap::new();
        for &name in images {
            let found = self.find(name)?;
            let (reference, id) = name_or_id(name, &found);
            let platform = options.platform.as_ref();
            let wanted = Wanted { platform, id: id.as_deref(), foreign: Foreign::Needed, done: "saved" };
            let mut said = Vec::new();
            let parts = self.outgoing(name, &found.target, wanted, &mut said)?;
            let Some(top) = parts.documents.last().map(|top| top.digest.clone()) else { continue };
            let number = *numbers.entry(top).or_insert(all.len());
            if number == all.len() {
                notes.extend(said.into_iter().map(|note| format!("{name}: {note}")));
                all.push(Saved { name: name.to_owned(), parts, names: Vec::new() });
            }
            let names = &mut all[number].names;
            names.extend(reference.filter(|reference| !names.contains(reference)));
        }
        Ok(all)
    }

    /// What `manifest.json` says: one image of each index, and each image once.
    fn docker_entries(&self, saved: &[Saved], platform: Option<&Platform>) -> Result<Vec<DockerEntry>> {
        let mut entries: Vec<DockerEntry> = Vec::new();
        for saved in saved {
            let images = &saved.parts.images;
            let chosen = match images.as_slice() {
                [] => return Err(Error::NotAnImage { name: saved.name.clone() }),
                // A single image is taken as it is.
                [image] => image,
                images => {
                    let wanted = platform.cloned().unwrap_or_else(Platform::host);
                    let number = wanted.select(images.iter().map(|image| image.platform.as_ref()));
                    number.and_then(|number| images.get(number)).ok_or_else(|| Error::NoPlatform {
                        wanted: wanted.into(),
                        present: images.iter().filter_map(|image| image.platform.clone()).collect(),
                    })?
                }
            };
            let mut entry = self.docker_entry(&chosen.manifest)?;
            match entries.iter_mut().find(|known| known.config == entry.config) {
                Some(known) => known.names.extend(saved.names.iter().cloned()),
                None => {
                    entry.names.clone_from(&saved.names);
                    entries.push(entry);
                }
            }
        }
        Ok(entries)
    }

    fn docker_entry(&self, digest: &Digest) -> Result<DockerEntry> {
        let bytes = self.store.read_blob(digest, MAX_DOCUMENT_BYTES)?;
        let unusable =
            |source| Error::Document { what: "image manifest", digest: digest.to_string(), source };
        let Document::Manifest(Manifest { config, layers, .. }) =
            Document::parse(&bytes, None).map_err(unusable)?
        else {
            return Err(Error::NotAnImage { name: digest.to_string() });
        };
        let diff_ids = self.config(&config.digest)?.diff_ids;
        let is_foreign = |layer: &Descriptor| {
            matches!(LayerKind::of(&layer.media_type), LayerKind::Layer { foreign: true, .. })
        };
        let sources = diff_ids.into_iter().zip(&layers).filter(|(_, layer)| is_foreign(layer));
        let layer_sources: BTreeMap<_, _> = sources.map(|(id, layer)| (id, layer.clone())).collect();
        let layers = layers.into_iter().map(|layer| layer.digest).collect();
        Ok(DockerEntry { config: config.digest, layers, layer_sources, names: Vec::new() })
    }
}

/// The name that an image has in the archive, or else the hexadecimal digits by which it was found.
fn name_or_id(given: &str, found: &Found) -> (Option<Reference>, Option<String>) {
    let id = |text: &str| Some(text.strip_prefix("sha256:").unwrap_or(text).to_owned());
    let Some(name) = found.by_name.as_deref() else { return (None, id(given)) };
    match given.parse::<Reference>().ok().and_then(|given| given.digest().map(Digest::hex)) {
        Some(digest) => (None, Some(digest)),
        None => (named(name), None),
    }
}
