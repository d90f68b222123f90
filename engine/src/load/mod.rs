//! Loading images from an archive.

pub(crate) mod contents;
mod feed;
pub(crate) mod plan;
mod stream;

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::Read as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use layerstore_archive::{ArchivedImage, Source as ArchiveSource};
use layerstore_oci::{Compression, Descriptor, Digest, Manifest, Platform, Reference, media_type};
use layerstore_store::{Edge, EdgeKind, ImageCommit, LOCAL, NewBlob, NewImage, Object, Publication, Session};

use self::contents::{Contents, Spool};
use self::feed::Feed;
use self::plan::{Plan, PlannedImage, PlannedKind, Planner};
use crate::Layerstore;
use crate::error::{Error, Result};
use crate::event::Listener;

use crate::layers::{self, Finished};
use crate::policy::UnpackPolicy;

/// Where an archive is.
#[derive(Debug)]
pub enum Source {
    /// A file or directory.
    Path(PathBuf),
    /// An open file, pipe or directory, such as standard input.
    File(File),
}

/// How to load.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// Take only this platform; without it all that the archive has are kept, and the one that this
    /// machine runs is unpacked.
    pub platform: Option<Platform>,
    /// Whether to unpack.
    pub unpack: bool,
    /// How to unpack; none says as the store's settings say.
    pub policy: Option<UnpackPolicy>,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self { platform: None, unpack: true, policy: None }
    }
}

/// What was loaded.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LoadReport {
    /// The archive's images, in its order.
    pub images: Vec<LoadedImage>,
}

/// One image of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadedImage {
    /// Its names; none if the archive has none for it.
    pub names: Vec<Reference>,
    /// The image ID: digest of the config of the platform that was unpacked.
    pub id: Digest,
    /// The manifest or index that the names stand for.
    pub target: Digest,
    /// What a person should know.
    pub notes: Vec<String>,
}

impl Layerstore {
    /// Loads every image of an archive: a docker-archive, an OCI archive, or a directory that holds an
    /// OCI layout; also compressed as a whole with gzip or zstd.
    ///
    /// The input is read once, from beginning to end where it is a stream. Success says that all images
    /// are in the store, unpacked if asked for, and durable. After an error the store has nothing of
    /// the archive that it did not have before.
    ///
    /// # Errors
    ///
    /// `Corrupt` for content that is not what its digest says; `InvalidInput` for an archive without images, or one
    /// that is refused ([`Error::is_limit`] tells of a limit); `NotFound` without the file; `NoSpace`.
    ///
    /// # Example
    ///
    /// ```no_run
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use layerstore::{Layerstore, LoadOptions, Source};
    ///
    /// let store = Layerstore::open("/var/lib/layerstore".as_ref())?;
    /// let report = store.load(Source::Path("app.tar".into()), &LoadOptions::default(), &|_| {})?;
    /// for image in report.images {
    ///     println!("{}", image.id);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn load(&self, source: Source, options: &LoadOptions, listener: &Listener<'_>) -> Result<LoadReport> {
        let file = match source {
            Source::File(file) => file,
            Source::Path(path) => {
                File::open(&path).map_err(|source| Error::File { action: "open", path, source })?
            }
        };
        self.tidily(|| {
            let mut new = Vec::new();
            let result = self.load_file(file, options, listener, &mut new);
            // Of a failed load nothing stays; of a stream, what no image of it turned out to need.
            if !new.is_empty()
                && let Err(error) = self.store.discard(new)
            {
                tracing::warn!(%error, "layers of the archive stay until the next collection");
            }
            result
        })
    }

    /// Does `work` in a store that others may have left untidy: what killed commands left is thrown away before, and
    /// unlinked beside it, as far as that gets.
    pub(crate) fn tidily<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        self.store.forget_stale_mounts()?;
        self.store.recover()?;
        self.store.settle()?;
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                if let Err(error) = self.store.empty_trash_until(&done) {
                    tracing::warn!(%error, "the trash is not empty");
                }
            });
            let result = work();
            done.store(true, Ordering::Relaxed);
            result
        })
    }

    fn load_file(
        &self,
        file: File,
        options: &LoadOptions,
        listener: &Listener<'_>,
        new: &mut Vec<Object>,
    ) -> Result<LoadReport> {
        if options.unpack {
            self.check_flavour()?;
        }
        let session = self.store.session(LOCAL)?;
        let policy = options.policy.map_or_else(|| self.unpack_policy(), Ok)?;
        let loader = Loader { engine: self, session, options, policy, listener, prefer: None, pulled: false };
        match ArchiveSource::open(file)? {
            ArchiveSource::Tar(tar) => loader.load_known(&tar, new),
            ArchiveSource::Directory(directory) => loader.load_known(&directory, new),
            ArchiveSource::Stream(stream) => {
                let (members, received) = loader.spool(stream, new)?;
                let quiet = received.values().map(|finished| finished.digest.clone()).collect();
                let first = received.keys().max().map_or(0, |last| last + 1);
                let spool = Spool { store: &self.store, members, received };
                loader.load(&spool, &quiet, first, new)
            }
        }
    }
}

/// Most documents that are published in one step.
const MAX_DOCUMENTS_AT_ONCE: usize = 128;

/// One load or pull under way.
pub(crate) struct Loader<'a> {
    pub(crate) engine: &'a Layerstore,
    pub(crate) session: Session,
    pub(crate) options: &'a LoadOptions,
    pub(crate) policy: UnpackPolicy,
    pub(crate) listener: &'a Listener<'a>,
    /// Of an image all of whose platforms are taken: the one that is unpacked, if it has it.
    pub(crate) prefer: Option<Platform>,
    /// Whether the images come from the registries of their names.
    pub(crate) pulled: bool,
}

impl Loader<'_> {
    /// Loads from an archive that says what it holds before anything is taken from it.
    fn load_known(&self, contents: &dyn Contents, new: &mut Vec<Object>) -> Result<LoadReport> {
        let report = self.load(contents, &HashSet::new(), 0, new)?;
        // All of it is what the images need.
        new.clear();
        Ok(report)
    }

    /// Loads what `contents` holds. Nothing is said of the blobs in `quiet`, which were reported already;
    /// layers are counted from `first`.
    fn load(
        &self,
        contents: &dyn Contents,
        quiet: &HashSet<Digest>,
        first: usize,
        new: &mut Vec<Object>,
    ) -> Result<LoadReport> {
        let mut plan = self.plan(contents, &layerstore_archive::images(contents)?)?;
        let finished = self.bring(contents, &plan, quiet, first, 1, new)?;
        self.commit(&mut plan, &finished, new)
    }

    /// Reads the documents of `images`, and says what has to be done for them.
    pub(crate) fn plan(&self, contents: &dyn Contents, images: &[ArchivedImage]) -> Result<Plan> {
        let mut planner = Planner {
            store: &self.engine.store,
            contents,
            platform: self.options.platform.as_ref(),
            prefer: self.prefer.as_ref(),
            unpack: self.options.unpack,
            plan: Plan::default(),
            read: 0,
            docker_configs: HashMap::new(),
        };
        for image in images {
            planner.add(image)?;
        }
        Ok(planner.plan)
    }

    /// Brings the layers of a plan into the store, with so many threads that fetch them.
    pub(crate) fn bring(
        &self,
        contents: &dyn Contents,
        plan: &Plan,
        quiet: &HashSet<Digest>,
        first: usize,
        threads: usize,
        new: &mut Vec<Object>,
    ) -> Result<Vec<Finished>> {
        let (result, results) =
            layers::run(self.engine, &self.session, &self.policy, self.listener, |feeder| {
                Feed { loader: self, contents, quiet, first, feeder }.all(&plan.tasks, threads)
            });
        new.extend(results.new);
        result?;
        (0..plan.tasks.len())
            .map(|number| results.finished.get(&(first + number)).cloned().ok_or(Error::Cancelled))
            .collect()
    }

    /// Adds the images of a plan whose layers are in the store, with their names.
    pub(crate) fn commit(
        &self,
        plan: &mut Plan,
        finished: &[Finished],
        new: &mut Vec<Object>,
    ) -> Result<LoadReport> {
        let store = &self.engine.store;
        let mut images = Vec::with_capacity(plan.images.len());
        // An archive may name one image many times.
        let mut made: HashMap<Digest, Digest> = HashMap::new();
        let mut seen = HashSet::new();
        for image in std::mem::take(&mut plan.images) {
            if matches!(image.kind, PlannedKind::Docker) && made.contains_key(&image.id) {
                continue;
            }
            let layers: Vec<&Finished> =
                image.layers.iter().filter_map(|number| finished.get(*number)).collect();
            let manifest = match &image.kind {
                PlannedKind::Oci(digest) => digest.clone(),
                PlannedKind::Docker => {
                    // The image may be here already, under the manifest it was built with.
                    let digest = match self.existing_manifest(&image.id)? {
                        Some(manifest) => manifest,
                        None => self.make_manifest(plan, &image, &layers)?,
                    };
                    made.insert(image.id.clone(), digest.clone());
                    digest
                }
            };
            if !seen.insert(manifest.clone()) {
                continue;
            }
            let blobs = layers.iter().map(|layer| layer.digest.clone());
            images.push(NewImage {
                manifest,
                config: image.id,
                platform: image.summary.platform.clone(),
                created: image.summary.created,
                labels: image.summary.labels.clone(),
                layers: blobs.zip(image.summary.diff_ids.iter().cloned()).collect(),
            });
        }
        self.check_links(&images)?;
        self.publish_documents(plan, new)?;
        let mut report = LoadReport::default();
        let mut references = Vec::new();
        for reference in std::mem::take(&mut plan.references) {
            let target =
                reference.target.or_else(|| made.get(&reference.id).cloned()).ok_or(Error::Cancelled)?;
            if reference.names.is_empty() {
                // Nothing else would keep it.
                if !self.has_name(&target)? {
                    references.push((target.to_string(), target.clone()));
                }
            }
            references.extend(reference.names.iter().map(|name| (name.to_string(), target.clone())));
            report.images.push(LoadedImage {
                names: reference.names,
                id: reference.id,
                target,
                notes: reference.notes,
            });
        }
        let edges = std::mem::take(&mut plan.edges);
        let names: Vec<String> = references.iter().map(|(name, _)| name.clone()).collect();
        let commit = ImageCommit { edges, images, references, pulled: self.pulled };
        self.engine.telling_what_is_lost(&names, self.listener, || {
            Ok(store.commit_images(&self.session, &commit)?)
        })?;
        Ok(report)
    }

    fn check_links(&self, images: &[NewImage]) -> Result<()> {
        let stack = |image: &NewImage| {
            let layers = image.layers.iter().map(|(_, diff_id)| diff_id.clone()).collect();
            (image.config.to_string(), layers)
        };
        self.engine.check_links(&images.iter().map(stack).collect::<Vec<_>>())
    }

    /// A manifest of the image `id`, put under the session's lease, which keeps all that it names.
    fn existing_manifest(&self, id: &Digest) -> Result<Option<Digest>> {
        let store = &self.engine.store;
        let Some(manifest) = store.manifest_of_image(id)? else { return Ok(None) };
        let found = store.lease_layers(&self.session, &[(manifest.clone(), None)])?;
        Ok(found.first().is_some_and(|presence| presence.blob.is_some()).then_some(manifest))
    }

    fn has_name(&self, target: &Digest) -> Result<bool> {
        Ok(self.engine.store.references(LOCAL)?.iter().any(|row| row.target == *target))
    }

    /// A docker-archive has no manifest. The one made here is the same for the same layers.
    fn make_manifest(&self, plan: &mut Plan, image: &PlannedImage, layers: &[&Finished]) -> Result<Digest> {
        let mut descriptors = Vec::with_capacity(layers.len());
        for layer in layers {
            let compression = match layer.compression {
                Some(compression) => compression,
                None => self.compression_of(&layer.digest)?,
            };
            let media_type = match compression {
                Compression::None => media_type::OCI_LAYER,
                Compression::Gzip => media_type::OCI_LAYER_GZIP,
                Compression::Zstd => media_type::OCI_LAYER_ZSTD,
            };
            descriptors.push(Descriptor::new(media_type, layer.digest.clone(), layer.size));
        }
        let manifest = Manifest {
            media_type: media_type::OCI_MANIFEST.to_owned(),
            config: Descriptor::new(media_type::OCI_CONFIG, image.id.clone(), image.summary.config_size),
            layers: descriptors,
            annotations: std::collections::BTreeMap::new(),
            subject: None,
            artifact_type: None,
        };
        let bytes = manifest.to_bytes();
        let digest = Digest::sha256_of(&bytes);
        let mut edge = |child: &Digest, kind| {
            plan.edges.push(Edge { parent: digest.clone(), child: child.clone(), kind });
        };
        edge(&image.id, EdgeKind::Config);
        for layer in layers {
            edge(&layer.digest, EdgeKind::Layer);
        }
        let media_type = media_type::OCI_MANIFEST.to_owned();
        plan.documents.push(plan::StoredDocument { digest: digest.clone(), media_type, bytes });
        Ok(digest)
    }

    fn compression_of(&self, digest: &Digest) -> Result<Compression> {
        let mut first = Vec::new();
        self.engine
            .store
            .open_blob(digest)?
            .take(Compression::MAGIC_LEN as u64)
            .read_to_end(&mut first)
            .map_err(|source| Error::Read { what: digest.to_string(), source })?;
        Ok(Compression::detect(&first))
    }

    /// Manifests, indexes and configs become blobs, all in one step.
    fn publish_documents(&self, plan: &Plan, new: &mut Vec<Object>) -> Result<()> {
        let store = &self.engine.store;
        let wanted: Vec<_> = plan.documents.iter().map(|document| (document.digest.clone(), None)).collect();
        let present = store.lease_layers(&self.session, &wanted)?;
        let mut publication = Publication::default();
        for (document, presence) in plan.documents.iter().zip(present) {
            // Its length is right; it is small enough to look at the rest as well.
            if presence.blob.is_some() && !store.discard_if_damaged(&document.digest)? {
                continue;
            }
            // Each is an open file until it is published.
            if publication.blobs.len() == MAX_DOCUMENTS_AT_ONCE {
                new.extend(store.publish(&self.session, std::mem::take(&mut publication))?);
            }
            let mut ingest = self.session.ingest(document.digest.algorithm())?;
            ingest.write(&document.bytes)?;
            let received = ingest.finish(Some((&document.digest, document.bytes.len() as u64)))?;
            let media_type = Some(document.media_type.clone());
            publication.blobs.push(NewBlob { received, media_type, diff_id: None });
        }
        if !publication.blobs.is_empty() {
            new.extend(store.publish(&self.session, publication)?);
        }
        Ok(())
    }
}
