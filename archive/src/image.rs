//! Which images an archive holds.

use std::collections::{BTreeMap, BTreeSet};

use layerstore_oci::media_type::{self, layout_path};
use layerstore_oci::{Descriptor, DiffId, Document, Index, MAX_DOCUMENT_BYTES};
use serde::Deserialize;

use crate::{Error, Members, normalise_member};

pub(crate) const OCI_LAYOUT: &str = "oci-layout";
pub(crate) const INDEX: &str = "index.json";
pub(crate) const MANIFEST: &str = "manifest.json";
/// Of docker-archives older than `manifest.json`.
const REPOSITORIES: &str = "repositories";
/// Full image name; containerd and Docker write it.
pub(crate) const IMAGE_NAME: &str = "io.containerd.image.name";
/// Name or tag (OCI image spec, "Pre-Defined Annotation Keys").
pub(crate) const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// An image or index of an archive, with the names it has there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArchivedImage {
    /// Names as written, not yet parsed; none for an image without a name.
    pub names: Vec<String>,
    /// Reference names without `/` and `:`, as `skopeo copy … oci:DIR:TAG` writes them: a tag
    /// rather than the name of an image, but what there is.
    pub tags: Vec<String>,
    /// Where its parts are.
    pub content: Content,
}

/// The parts of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// A manifest or index of an OCI layout. Blobs are the members [`layout_path`] names; an
    /// archive may hold only some of an index's platforms.
    Oci(Descriptor),
    /// An entry of a docker-archive's `manifest.json`; there is no manifest.
    Docker(DockerImage),
}

/// An image of a docker-archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DockerImage {
    /// Member with the config.
    pub config: String,
    /// Members with the layers, lowest first, links resolved: the same member may come again.
    /// Despite their name (`layer.tar`) they may be compressed.
    pub layers: Vec<String>,
    /// What some layers were when they were pulled: foreign layers have their URLs here.
    pub layer_sources: BTreeMap<DiffId, Descriptor>,
}

/// Reads which images an archive holds, in the archive's order.
///
/// An OCI layout is preferred where there are both forms, as in archives of Docker 25 and later.
pub fn images(members: &dyn Members) -> Result<Vec<ArchivedImage>, Error> {
    let has = |name| members.resolve(name).map(|found| found.is_some());
    if let Some(layout) = members.read_small(OCI_LAYOUT, MAX_DOCUMENT_BYTES)? {
        check_layout(&layout)?;
        return oci_images(members);
    }
    if has(MANIFEST)? {
        return docker_images(members);
    }
    if has(INDEX)? {
        // The mark is required, but nothing else could be meant.
        return oci_images(members);
    }
    if has(REPOSITORIES)? {
        return Err(Error::Legacy);
    }
    let mut found = members.top_level();
    let rootfs = found.iter().filter(|name| is_root_directory(name)).count() >= 3;
    found.truncate(5);
    Err(Error::NotAnImage { found, rootfs })
}

fn is_root_directory(name: &str) -> bool {
    matches!(
        name,
        "bin"
            | "boot"
            | "dev"
            | "etc"
            | "home"
            | "lib"
            | "proc"
            | "root"
            | "sbin"
            | "sys"
            | "tmp"
            | "usr"
            | "var"
    )
}

fn check_layout(bytes: &[u8]) -> Result<(), Error> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Layout {
        image_layout_version: String,
    }
    let layout: Layout = json(bytes, OCI_LAYOUT)?;
    match layout.image_layout_version.as_str() {
        "1.0.0" => Ok(()),
        _ => Err(Error::LayoutVersion { version: layout.image_layout_version }),
    }
}

fn json<'de, T: Deserialize<'de>>(bytes: &'de [u8], member: &'static str) -> Result<T, Error> {
    serde_json::from_slice(bytes).map_err(|source| Error::Json { member, source })
}

fn oci_images(members: &dyn Members) -> Result<Vec<ArchivedImage>, Error> {
    let bytes = members
        .read_small(INDEX, MAX_DOCUMENT_BYTES)?
        .ok_or(Error::Missing { member: INDEX.to_owned(), wanted_by: OCI_LAYOUT })?;
    let document = Document::parse(&bytes, Some(media_type::OCI_INDEX))
        .map_err(|source| Error::Document { member: INDEX, source })?;
    // A manifest under this hint is refused in parsing.
    let Document::Index(Index { manifests, .. }) = document else { return Ok(Vec::new()) };

    let mut images: Vec<ArchivedImage> = Vec::new();
    let mut positions = BTreeMap::new();
    for descriptor in manifests {
        // Docker repeats the descriptor for every name of one image.
        let position = *positions.entry(descriptor.digest.clone()).or_insert(images.len());
        let (name, tag) = names_of(&descriptor);
        if position == images.len() {
            images.push(ArchivedImage {
                names: Vec::new(),
                tags: Vec::new(),
                content: Content::Oci(descriptor),
            });
        }
        push_new(&mut images[position].names, name);
        push_new(&mut images[position].tags, tag);
    }
    if images.iter().any(|image| image.names.is_empty()) {
        names_from_docker(members, &mut images)?;
    }
    Ok(images)
}

fn push_new(list: &mut Vec<String>, item: Option<String>) {
    list.extend(item.filter(|item| !list.contains(item)));
}

/// The full name and, if there is none, the mere tag a descriptor is annotated with.
fn names_of(descriptor: &Descriptor) -> (Option<String>, Option<String>) {
    let annotation = |key: &str| descriptor.annotations.get(key).filter(|text| !text.is_empty()).cloned();
    match annotation(IMAGE_NAME).or_else(|| annotation(REF_NAME)) {
        Some(name) if name.contains(['/', ':']) || descriptor.annotations.contains_key(IMAGE_NAME) => {
            (Some(name), None)
        }
        tag => (None, tag),
    }
}

/// Gives images without a name those that `manifest.json` has for the same config.
fn names_from_docker(members: &dyn Members, images: &mut [ArchivedImage]) -> Result<(), Error> {
    let mut names: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for entry in docker_entries(members)?.unwrap_or_default() {
        if let (Some(config), Some(tags)) = (normalise_member(entry.config.as_bytes()), entry.repo_tags) {
            names.entry(config).or_default().extend(tags);
        }
    }
    if names.is_empty() {
        return Ok(());
    }
    for image in images.iter_mut().filter(|image| image.names.is_empty()) {
        let Content::Oci(descriptor) = &image.content else { continue };
        let mut configs = BTreeSet::new();
        collect_configs(members, descriptor, true, &mut configs)?;
        for name in configs.iter().filter_map(|config| names.get(config)).flatten() {
            push_new(&mut image.names, Some(name.clone()));
        }
    }
    Ok(())
}

/// The configs of a manifest, or of the manifests of an index. What is not there or does not parse
/// is left out: whoever loads it will say so.
fn collect_configs(
    members: &dyn Members,
    descriptor: &Descriptor,
    nested: bool,
    configs: &mut BTreeSet<String>,
) -> Result<(), Error> {
    let bytes = match members.read_small(&layout_path(&descriptor.digest), MAX_DOCUMENT_BYTES) {
        Ok(Some(bytes)) => bytes,
        Ok(None) | Err(Error::TooLarge { .. }) => return Ok(()),
        Err(error) => return Err(error),
    };
    match Document::parse(&bytes, Some(&descriptor.media_type)) {
        Ok(Document::Manifest(manifest)) => {
            configs.insert(layout_path(&manifest.config.digest));
            Ok(())
        }
        Ok(Document::Index(index)) if nested => {
            index.manifests.iter().try_for_each(|child| collect_configs(members, child, false, configs))
        }
        _ => Ok(()),
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerEntry {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
    #[serde(default)]
    layer_sources: Option<BTreeMap<DiffId, Descriptor>>,
}

/// The entries of `manifest.json`; none if there is no such member. `null` is not a list.
fn docker_entries(members: &dyn Members) -> Result<Option<Vec<DockerEntry>>, Error> {
    let Some(bytes) = members.read_small(MANIFEST, MAX_DOCUMENT_BYTES)? else { return Ok(None) };
    json(&bytes, MANIFEST).map(Some)
}

fn docker_images(members: &dyn Members) -> Result<Vec<ArchivedImage>, Error> {
    let member =
        |name: String| members.resolve(&name)?.ok_or(Error::Missing { member: name, wanted_by: MANIFEST });
    let mut images = Vec::new();
    for entry in docker_entries(members)?.unwrap_or_default() {
        let layers = entry.layers.unwrap_or_default();
        images.push(ArchivedImage {
            names: entry.repo_tags.unwrap_or_default(),
            tags: Vec::new(),
            content: Content::Docker(DockerImage {
                config: member(entry.config)?,
                layers: layers.into_iter().map(member).collect::<Result<_, _>>()?,
                layer_sources: entry.layer_sources.unwrap_or_default(),
            }),
        });
    }
    Ok(images)
}
