//! What an archive's images consist of, and what has to be done for them.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use layerstore_archive::{ArchivedImage, Content, DockerImage};
use layerstore_oci::media_type::{self, layout_path};
use layerstore_oci::{
    Descriptor, DiffId, Digest, Document, Hasher, ImageConfig, LayerKind, MAX_DOCUMENT_BYTES, Manifest,
    Platform, Reference,
};
use layerstore_store::{Edge, EdgeKind, Store};

use super::contents::{Contents, DocumentKind};
use crate::error::{Error, Result};
use crate::images::seconds;
use crate::names::refuse_reserved;

/// A layer, or another blob that an image names.
#[derive(Debug, Clone)]
pub(crate) struct Task {
    /// Its descriptor, where the archive has one.
    pub(crate) descriptor: Option<Descriptor>,
    /// Its member in the archive.
    pub(crate) member: String,
    /// What the config says it is uncompressed.
    pub(crate) diff_id: Option<DiffId>,
    /// Whether a tree is wanted.
    pub(crate) unpack: bool,
}

/// A small blob that has been read.
#[derive(Debug, Clone)]
pub(crate) struct StoredDocument {
    pub(crate) digest: Digest,
    pub(crate) media_type: String,
    pub(crate) bytes: Vec<u8>,
}

/// An image whose layers are among the tasks.
#[derive(Debug, Clone)]
pub(crate) struct PlannedImage {
    pub(crate) id: Digest,
    pub(crate) summary: Rc<Summary>,
    /// For each layer, lowest first, the number of its task.
    pub(crate) layers: Vec<usize>,
    pub(crate) kind: PlannedKind,
}

/// What is wanted of an image's config; the rest can be megabytes.
#[derive(Debug)]
pub(crate) struct Summary {
    pub(crate) config_size: u64,
    pub(crate) platform: String,
    pub(crate) created: Option<i64>,
    pub(crate) labels: Vec<(String, String)>,
    pub(crate) diff_ids: Vec<DiffId>,
    runs_on: Option<Platform>,
}

impl Summary {
    fn new(config: ImageConfig, config_size: usize) -> Self {
        let platform =
            config.platform.as_ref().map_or_else(|| "unknown/unknown".to_owned(), ToString::to_string);
        Self {
            config_size: config_size as u64,
            platform,
            created: config.created.as_deref().and_then(seconds),
            labels: config.config.labels.into_iter().collect(),
            diff_ids: config.diff_ids,
            runs_on: config.platform,
        }
    }
}

/// How an image is described.
#[derive(Debug, Clone)]
pub(crate) enum PlannedKind {
    /// By this manifest.
    Oci(Digest),
    /// By no manifest: one is made when the layers' digests are known.
    Docker,
}

/// What one image of the archive will be known by.
#[derive(Debug, Clone)]
pub(crate) struct PlannedReference {
    pub(crate) names: Vec<Reference>,
    /// The manifest or index, unless the manifest is still to be made.
    pub(crate) target: Option<Digest>,
    /// The image ID that is reported: of the platform that was chosen, or the target of an artifact.
    pub(crate) id: Digest,
    pub(crate) notes: Vec<String>,
}

/// Everything that is to be done.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub(crate) tasks: Vec<Task>,
    pub(crate) documents: Vec<StoredDocument>,
    pub(crate) images: Vec<PlannedImage>,
    pub(crate) edges: Vec<Edge>,
    pub(crate) references: Vec<PlannedReference>,
    by_content: HashMap<(String, Option<DiffId>), usize>,
    document_digests: HashSet<Digest>,
}

/// Makes the plan.
pub(crate) struct Planner<'a> {
    pub(crate) store: &'a Store,
    pub(crate) contents: &'a dyn Contents,
    pub(crate) platform: Option<&'a Platform>,
    /// Of all platforms, the one to unpack, or another where there is none such; none is this machine's.
    pub(crate) prefer: Option<&'a Platform>,
    pub(crate) unpack: bool,
    pub(crate) plan: Plan,
    /// Bytes of all documents read.
    pub(crate) read: u64,
    /// Configs of a docker-archive by member: several names of one image have an entry each.
    pub(crate) docker_configs: HashMap<String, (Digest, Rc<Summary>)>,
}

/// A manifest that an index leads to.
struct Leaf {
    digest: Digest,
    manifest: Manifest,
    config: Option<(Digest, Rc<Summary>)>,
    /// The manifest and the config, kept if the platform is.
    documents: Vec<StoredDocument>,
    platform: Option<Platform>,
}

/// How deep indexes may be nested. Tools make two levels at most.
const MAX_DEPTH: usize = 8;
/// Bytes of all manifests, indexes and configs of an archive. A thousand images have ten million.
pub(crate) const MAX_DOCUMENTS_BYTES: u64 = 64 << 20;

impl Planner<'_> {
    pub(crate) fn add(&mut self, image: &ArchivedImage) -> Result<()> {
        let names = if image.names.is_empty() { &image.tags } else { &image.names };
        let names = names.iter().map(|name| parse_name(name)).collect::<Result<Vec<Reference>>>()?;
        match &image.content {
            Content::Oci(descriptor) => self.add_oci(descriptor, names),
            Content::Docker(docker) => self.add_docker(docker, names),
        }
    }

    fn add_docker(&mut self, image: &DockerImage, names: Vec<Reference>) -> Result<()> {
        let (id, summary) = self.docker_config(&image.config)?;
        if summary.diff_ids.len() != image.layers.len() {
            let (layers, diff_ids) = (image.layers.len(), summary.diff_ids.len());
            let source = layerstore_oci::DocumentError::LayerCount { layers, diff_ids };
            return Err(Error::Document { what: "image config", digest: image.config.clone(), source });
        }
        if let Some(wanted) = self.platform {
            check_platform(wanted, summary.runs_on.as_ref())?;
        }
        let layers = summary
            .diff_ids
            .iter()
            .zip(&image.layers)
            .map(|(diff_id, member)| {
                self.task(Task {
                    descriptor: None,
                    member: member.clone(),
                    diff_id: Some(diff_id.clone()),
                    unpack: self.unpack,
                })
            })
            .collect();
        self.plan.images.push(PlannedImage { id: id.clone(), summary, layers, kind: PlannedKind::Docker });
        self.plan.references.push(PlannedReference { names, target: None, id, notes: Vec::new() });
        Ok(())
    }

    fn docker_config(&mut self, member: &str) -> Result<(Digest, Rc<Summary>)> {
        if let Some(known) = self.docker_configs.get(member) {
            return Ok(known.clone());
        }
        let bytes = self.contents.read_small(member, MAX_DOCUMENT_BYTES)?.ok_or_else(|| {
            layerstore_archive::Error::Missing { member: member.to_owned(), wanted_by: "manifest.json" }
        })?;
        self.count(bytes.len())?;
        let config = ImageConfig::parse(&bytes).map_err(|source| Error::Document {
            what: "image config",
            digest: member.to_owned(),
            source,
        })?;
        let id = Digest::sha256_of(&bytes);
        let summary = Rc::new(Summary::new(config, bytes.len()));
        self.keep_document(id.clone(), media_type::OCI_CONFIG, bytes);
        self.docker_configs.insert(member.to_owned(), (id.clone(), Rc::clone(&summary)));
        Ok((id, summary))
    }

    /// Bounds the work that hostile documents can ask for.
    fn count(&mut self, bytes: usize) -> Result<()> {
        self.read += bytes as u64;
        if self.read > MAX_DOCUMENTS_BYTES {
            return Err(Error::TooManyDocuments { limit: MAX_DOCUMENTS_BYTES });
        }
        Ok(())
    }

    fn add_oci(&mut self, descriptor: &Descriptor, names: Vec<Reference>) -> Result<()> {
        let known =
            media_type::is_manifest(&descriptor.media_type) || media_type::is_index(&descriptor.media_type);
        if !known && !descriptor.media_type.is_empty() {
            return self.add_unknown(descriptor, names);
        }
        let mut leaves = Vec::new();
        self.collect(descriptor, 0, &mut HashSet::new(), &mut leaves)?;
        let is_index = leaves.first().is_none_or(|leaf| leaf.digest != descriptor.digest);
        let chosen = self.choose(&leaves, is_index)?;
        // A digest in a name is a promise.
        let digests = || leaves.iter().map(|leaf| &leaf.digest).chain([&descriptor.digest]);
        for name in &names {
            if name.digest().is_some_and(|digest| digests().all(|present| present != digest)) {
                return Err(Error::WrongDigest { name: name.familiar(), actual: descriptor.digest.clone() });
            }
        }
        let mut notes = Vec::new();
        let mut id = descriptor.digest.clone();
        for (number, leaf) in leaves.into_iter().enumerate() {
            let is_chosen = chosen == Some(number);
            if is_chosen && let Some((config, _)) = &leaf.config {
                id = config.clone();
            }
            if is_chosen || self.platform.is_none() {
                let mut all = Vec::new();
                self.add_leaf(leaf, is_chosen && self.unpack, &mut all)?;
                // Of the other platforms, and of attestations, nobody asked.
                if is_chosen {
                    notes = all;
                }
            }
        }
        let target = Some(descriptor.digest.clone());
        self.plan.references.push(PlannedReference { names, target, id, notes });
        Ok(())
    }

    /// Something that an archive names and that is neither a manifest nor an index.
    fn add_unknown(&mut self, descriptor: &Descriptor, names: Vec<Reference>) -> Result<()> {
        self.require(descriptor, "blob")?;
        let member = layout_path(&descriptor.digest);
        self.task(Task { descriptor: Some(descriptor.clone()), member, diff_id: None, unpack: false });
        let note = format!(
            "{} has the unknown media type `{}`: kept, not unpacked",
            descriptor.digest,
            descriptor.media_type.escape_debug()
        );
        self.plan.references.push(PlannedReference {
            names,
            target: Some(descriptor.digest.clone()),
            id: descriptor.digest.clone(),
            notes: vec![note],
        });
        Ok(())
    }

    /// Reads the manifest or index `descriptor` and all that is there below it.
    fn collect(
        &mut self,
        descriptor: &Descriptor,
        depth: usize,
        seen: &mut HashSet<Digest>,
        leaves: &mut Vec<Leaf>,
    ) -> Result<()> {
        if depth > MAX_DEPTH {
            return Err(Error::TooDeep { digest: descriptor.digest.clone() });
        }
        if !seen.insert(descriptor.digest.clone()) {
            return Ok(());
        }
        let bytes = self
            .document(descriptor, DocumentKind::Manifest)?
            .ok_or_else(|| Error::MissingBlob { what: "manifest", digest: descriptor.digest.clone() })?;
        let hint = Some(descriptor.media_type.as_str()).filter(|hint| !hint.is_empty());
        let document = Document::parse(&bytes, hint).map_err(|source| Error::Document {
            what: "manifest or index",
            digest: descriptor.digest.to_string(),
            source,
        })?;
        let parent = descriptor.digest.clone();
        let media_type = document.media_type().to_owned();
        match document {
            Document::Index(index) => {
                self.keep_document(parent.clone(), &media_type, bytes);
                for child in &index.manifests {
                    self.edge(&parent, &child.digest, EdgeKind::Manifest);
                }
                for child in self.contents.wanted(&index)?.unwrap_or(index.manifests) {
                    // Archives may hold only some of the platforms.
                    if self.has(&child.digest)? {
                        self.collect(&child, depth + 1, seen, leaves)?;
                    }
                }
            }
            Document::Manifest(manifest) => {
                let mut documents = vec![StoredDocument { digest: parent.clone(), media_type, bytes }];
                let config = self.config(&manifest, &mut documents)?;
                // The index may say more than the config: the variant, mostly.
                let platform = descriptor
                    .platform
                    .clone()
                    .or_else(|| config.as_ref().and_then(|(_, summary)| summary.runs_on.clone()));
                leaves.push(Leaf { digest: parent, manifest, config, documents, platform });
            }
        }
        Ok(())
    }

    /// The config of an image; `None` for a manifest that is none.
    fn config(
        &mut self,
        manifest: &Manifest,
        documents: &mut Vec<StoredDocument>,
    ) -> Result<Option<(Digest, Rc<Summary>)>> {
        if !media_type::is_config(&manifest.config.media_type) {
            return Ok(None);
        }
        let digest = manifest.config.digest.clone();
        let bytes = self
            .document(&manifest.config, DocumentKind::Config)?
            .ok_or_else(|| Error::MissingBlob { what: "image config", digest: digest.clone() })?;
        let config = ImageConfig::parse(&bytes)
            .and_then(|config| config.check_layers(manifest).map(|()| config))
            .map_err(|source| Error::Document { what: "image config", digest: digest.to_string(), source })?;
        let summary = Rc::new(Summary::new(config, bytes.len()));
        let media_type = manifest.config.media_type.clone();
        documents.push(StoredDocument { digest: digest.clone(), media_type, bytes });
        Ok(Some((digest, summary)))
    }

    /// Which of the images is unpacked and reported.
    fn choose(&self, leaves: &[Leaf], is_index: bool) -> Result<Option<usize>> {
        let images: Vec<usize> =
            (0..leaves.len()).filter(|number| leaves[*number].config.is_some()).collect();
        if images.is_empty() {
            return Ok((!leaves.is_empty() && !is_index).then_some(0));
        }
        let platforms = || images.iter().map(|number| leaves[*number].platform.as_ref());
        let wanted = match self.platform {
            Some(wanted) => wanted.clone(),
            // A single image is taken as it is, as Docker does.
            None if !is_index => return Ok(images.first().copied()),
            None => self.prefer.cloned().unwrap_or_else(Platform::host),
        };
        match wanted.select(platforms()) {
            Some(number) => Ok(images.get(number).copied()),
            None if self.prefer.is_some() => Ok(images.first().copied()),
            None => Err(Error::NoPlatform {
                wanted: wanted.into(),
                present: platforms().flatten().cloned().collect(),
            }),
        }
    }

    fn add_leaf(&mut self, leaf: Leaf, unpack: bool, notes: &mut Vec<String>) -> Result<()> {
        let Leaf { digest, manifest, config, documents, .. } = leaf;
        for StoredDocument { digest, media_type, bytes } in documents {
            self.keep_document(digest, &media_type, bytes);
        }
        self.edge(&digest, &manifest.config.digest, EdgeKind::Config);
        if let Some(subject) = &manifest.subject {
            self.edge(&digest, &subject.digest, EdgeKind::Subject);
        }
        let unknown =
            manifest.layers.iter().find(|layer| LayerKind::of(&layer.media_type) == LayerKind::Unknown);
        let image = config.filter(|_| {
            if let Some(layer) = unknown {
                notes.push(format!(
                    "layer {} has the unknown media type `{}`: the image is kept, not unpacked",
                    layer.digest,
                    layer.media_type.escape_debug()
                ));
            }
            unknown.is_none()
        });
        let Some((id, summary)) = image else {
            let config =
                (!self.plan.document_digests.contains(&manifest.config.digest)).then_some(&manifest.config);
            if config.is_some() && unpack {
                notes.push(format!("{digest} is not a container image: kept, not unpacked"));
            }
            for descriptor in config.into_iter().chain(&manifest.layers) {
                if descriptor.digest != manifest.config.digest {
                    self.edge(&digest, &descriptor.digest, EdgeKind::Layer);
                }
                self.require(descriptor, "blob")?;
                let member = layout_path(&descriptor.digest);
                self.task(Task {
                    descriptor: Some(descriptor.clone()),
                    member,
                    diff_id: None,
                    unpack: false,
                });
            }
            return Ok(());
        };
        let mut layers = Vec::with_capacity(manifest.layers.len());
        for (descriptor, diff_id) in manifest.layers.iter().zip(&summary.diff_ids) {
            self.edge(&digest, &descriptor.digest, EdgeKind::Layer);
            self.require(descriptor, "layer")?;
            layers.push(self.task(Task {
                descriptor: Some(descriptor.clone()),
                member: layout_path(&descriptor.digest),
                diff_id: Some(diff_id.clone()),
                unpack,
            }));
        }
        self.plan.images.push(PlannedImage { id, summary, layers, kind: PlannedKind::Oci(digest) });
        Ok(())
    }

    fn edge(&mut self, parent: &Digest, child: &Digest, kind: EdgeKind) {
        self.plan.edges.push(Edge { parent: parent.clone(), child: child.clone(), kind });
    }

    /// Adds a task, or finds the one for the same content.
    fn task(&mut self, task: Task) -> usize {
        let content = match &task.descriptor {
            Some(descriptor) => descriptor.digest.to_string(),
            None => task.member.clone(),
        };
        let next = self.plan.tasks.len();
        let number = *self.plan.by_content.entry((content, task.diff_id.clone())).or_insert(next);
        if number == next {
            self.plan.tasks.push(task);
        } else if let Some(existing) = self.plan.tasks.get_mut(number) {
            existing.unpack |= task.unpack;
        }
        number
    }

    fn keep_document(&mut self, digest: Digest, media_type: &str, bytes: Vec<u8>) {
        if self.plan.document_digests.insert(digest.clone()) {
            self.plan.documents.push(StoredDocument { digest, media_type: media_type.to_owned(), bytes });
        }
    }

    /// Whether a blob is in the archive or in the store.
    fn has(&self, digest: &Digest) -> Result<bool> {
        Ok(self.contents.resolve(&layout_path(digest))?.is_some() || self.store.blob(digest)?.is_some())
    }

    fn require(&self, descriptor: &Descriptor, what: &'static str) -> Result<()> {
        if self.has(&descriptor.digest)? {
            Ok(())
        } else {
            Err(Error::MissingBlob { what, digest: descriptor.digest.clone() })
        }
    }

    /// A document, verified; from the store if the archive left it out.
    fn document(&mut self, descriptor: &Descriptor, kind: DocumentKind) -> Result<Option<Vec<u8>>> {
        let bytes = match self.contents.document(descriptor, kind)? {
            Some(bytes) => bytes,
            None if self.store.blob(&descriptor.digest)?.is_some() => {
                let bytes = self.store.read_blob(&descriptor.digest, MAX_DOCUMENT_BYTES)?;
                self.count(bytes.len())?;
                return Ok(Some(bytes));
            }
            None => return Ok(None),
        };
        self.count(bytes.len())?;
        if bytes.len() as u64 != descriptor.size {
            let (digest, actual) = (descriptor.digest.clone(), bytes.len() as u64);
            return Err(
                layerstore_store::Error::SizeMismatch { digest, expected: descriptor.size, actual }.into()
            );
        }
        let mut hasher = Hasher::new(descriptor.digest.algorithm());
        hasher.update(&bytes);
        let actual = hasher.finish();
        if actual == descriptor.digest {
            Ok(Some(bytes))
        } else {
            Err(Error::DocumentMismatch { what: kind.as_str(), digest: descriptor.digest.clone(), actual })
        }
    }
}

fn check_platform(wanted: &Platform, present: Option<&Platform>) -> Result<()> {
    if wanted.select([present]).is_some() {
        return Ok(());
    }
    Err(Error::NoPlatform { wanted: wanted.clone().into(), present: present.into_iter().cloned().collect() })
}

fn parse_name(name: &str) -> Result<Reference> {
    let reference: Reference = name.parse()?;
    refuse_reserved(&reference)?;
    Ok(reference)
}
