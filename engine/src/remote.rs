//! Looking at what registries have, without fetching it.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use layerstore_oci::{Descriptor, Digest, Document, Index, Manifest, Platform, Reference, media_type};
use layerstore_registry::{Client, FetchedManifest, Found, Repository, Selector};
use serde_json::{Value, json};

use crate::Layerstore;
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::event::Listener;
use crate::load::plan::MAX_DOCUMENTS_BYTES;
use crate::pull::remote::Watcher;

impl Layerstore {
    /// The tags of the repository that `reference` names, in the registry's order.
    ///
    /// # Errors
    ///
    /// `NotFound` if there is no such repository; `Unauthorized`; `Unavailable`.
    ///
    /// # Example
    ///
    /// ```no_run
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let client = layerstore::registry::Client::new(Default::default())?;
    /// let tags = layerstore::Layerstore::remote_tags(&client, &"alpine".parse()?, &|_| {})?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn remote_tags(
        client: &Client,
        reference: &Reference,
        listener: &Listener<'_>,
    ) -> Result<Vec<String>> {
        let never = Cancel::default();
        let watcher = Watcher::new(listener, &never);
        Ok(client.repository(reference, &watcher)?.tags()?)
    }

    /// Manifests in the registry that are about the one that `reference` names: signatures, attestations and the like.
    ///
    /// # Errors
    ///
    /// `NotFound` if there is no such image; `Unauthorized`; `Unavailable`.
    pub fn remote_referrers(
        client: &Client,
        reference: &Reference,
        artifact_type: Option<&str>,
        listener: &Listener<'_>,
    ) -> Result<Vec<Descriptor>> {
        let never = Cancel::default();
        let watcher = Watcher::new(listener, &never);
        let repository = client.repository(reference, &watcher)?;
        let digest = match reference.digest() {
            Some(digest) => digest.clone(),
            None => repository.manifest(selector(reference))?.digest,
        };
        Ok(repository.referrers(&digest, artifact_type)?)
    }

    /// Repositories of the registry `domain` that have to do with `term`.
    ///
    /// # Errors
    ///
    /// `Unsupported` by registries that cannot search; `Unauthorized`; `Unavailable`.
    pub fn remote_search(
        client: &Client,
        domain: &str,
        term: &str,
        limit: u32,
        listener: &Listener<'_>,
    ) -> Result<Vec<Found>> {
        Ok(client.search(domain, term, limit, &Watcher::new(listener, &Cancel::default()))?)
    }

    /// The manifest or index that `reference` names, as `docker manifest inspect` prints it: its own JSON, or with
    /// `verbose` an object for each image with its descriptor, its bytes and their meaning.
    ///
    /// # Errors
    ///
    /// `NotFound` if there is no such image; `Unauthorized`; `Unavailable`.
    pub fn remote_manifest(
        client: &Client,
        reference: &Reference,
        verbose: bool,
        listener: &Listener<'_>,
    ) -> Result<Value> {
        let never = Cancel::default();
        let watcher = Watcher::new(listener, &never);
        let repository = client.repository(reference, &watcher)?;
        let fetched = repository.manifest(selector(reference))?;
        let document = parse(&fetched)?;
        if !verbose {
            return serde_json::from_slice(&fetched.bytes).map_err(|source| unreadable(&fetched, source));
        }
        match document {
            Document::Manifest(manifest) => {
                let platform = platform_of(&repository, &manifest)?;
                verbose_manifest(reference, &fetched, &manifest, platform.as_ref())
            }
            Document::Index(index) => verbose_index(&repository, reference, &index),
        }
    }
}

fn selector(reference: &Reference) -> Selector<'_> {
    match reference.digest() {
        Some(digest) => Selector::Digest(digest),
        None => Selector::Tag(reference.tag().unwrap_or("latest")),
    }
}

fn parse(fetched: &FetchedManifest) -> Result<Document> {
    Document::parse(&fetched.bytes, None).map_err(|source| Error::Document {
        what: "manifest or index",
        digest: fetched.digest.to_string(),
        source,
    })
}

fn unreadable(fetched: &FetchedManifest, source: serde_json::Error) -> Error {
    let source = layerstore_oci::DocumentError::Json { what: "manifest or index", source };
    Error::Document { what: "manifest or index", digest: fetched.digest.to_string(), source }
}

/// The object that Docker's CLI prints (`cli/manifest/types.ImageManifest`).
fn verbose_manifest(
    reference: &Reference,
    fetched: &FetchedManifest,
    manifest: &Manifest,
    platform: Option<&Platform>,
) -> Result<Value> {
    let content: Value =
        serde_json::from_slice(&fetched.bytes).map_err(|source| unreadable(fetched, source))?;
    let mut descriptor = json!({
        "mediaType": manifest.media_type,
        "digest": fetched.digest.to_string(),
        "size": fetched.bytes.len(),
    });
    if let (Some(object), Some(platform)) = (descriptor.as_object_mut(), platform) {
        object.insert("platform".to_owned(), platform_json(platform));
    }
    let kind =
        if manifest.media_type == media_type::DOCKER_MANIFEST { "SchemaV2Manifest" } else { "OCIManifest" };
    Ok(json!({
        "Ref": reference.to_string(),
        "Descriptor": descriptor,
        "Raw": BASE64_STANDARD.encode(&fetched.bytes),
        kind: content,
    }))
}

fn platform_json(platform: &Platform) -> Value {
    let mut object = json!({ "architecture": platform.architecture, "os": platform.os });
    if let Some(object) = object.as_object_mut() {
        if let Some(version) = &platform.os_version {
            object.insert("os.version".to_owned(), json!(version));
        }
        if !platform.os_features.is_empty() {
            object.insert("os.features".to_owned(), json!(platform.os_features));
        }
        if let Some(variant) = &platform.variant {
            object.insert("variant".to_owned(), json!(variant));
        }
    }
    object
}

fn verbose_index(repository: &Repository<'_>, reference: &Reference, index: &Index) -> Result<Value> {
    let (mut all, mut bytes) = (Vec::new(), 0);
    for child in &index.manifests {
        let fetched = repository.manifest(Selector::Digest(&child.digest))?;
        bytes += fetched.bytes.len() as u64;
        if bytes > MAX_DOCUMENTS_BYTES {
            return Err(Error::TooManyDocuments { limit: MAX_DOCUMENTS_BYTES });
        }
        // Indexes within indexes are rare, and Docker's form has no place for them.
        if let Document::Manifest(manifest) = parse(&fetched)? {
            let name = by_digest(reference, &child.digest);
            all.push(verbose_manifest(&name, &fetched, &manifest, child.platform.as_ref())?);
        }
    }
    Ok(Value::Array(all))
}

fn by_digest(reference: &Reference, digest: &Digest) -> Reference {
    reference.with_digest(digest.clone())
}

/// What the config of a single image says that it is for.
fn platform_of(repository: &Repository<'_>, manifest: &Manifest) -> Result<Option<Platform>> {
    if !media_type::is_config(&manifest.config.media_type) {
        return Ok(None);
    }
    let bytes = repository.small_blob(&manifest.config.digest, manifest.config.size)?;
    Ok(layerstore_oci::ImageConfig::parse(&bytes).ok().and_then(|config| config.platform))
}
