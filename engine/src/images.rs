//! Listing and describing images.

use layerstore_oci::{Digest, ErrorKind, ImageConfig, MAX_DOCUMENT_BYTES, Reference};
use layerstore_store::{ImageRow, LOCAL, LayerRow};
use serde_json::{Map, Value, json};

use crate::Layerstore;
use crate::error::{Error, Result};
use crate::names::{Found, best, named};

/// One line of a list of images: a name, or an image without one.
#[derive(Debug, Clone, PartialEq)]
pub struct ImageSummary {
    /// The name; `None` for an image that has none.
    pub reference: Option<Reference>,
    /// The image ID: digest of its config, or the target of an artifact.
    pub id: Digest,
    /// The manifest or index that the name stands for.
    pub target: Digest,
    /// `os/architecture[/variant]` of each image below the name, the one shown first.
    pub platforms: Vec<String>,
    /// When the image was built, in seconds since 1970, if its config says.
    pub created: Option<i64>,
    /// When the name got its target, in seconds since 1970.
    pub updated_at: i64,
    /// When it was last pulled, in seconds since 1970; `None` if its target did not come from its registry.
    pub pulled_at: Option<i64>,
    /// When an image below the name was last mounted, pulled, or something was made from it, in seconds since 1970.
    pub last_used_at: Option<i64>,
    /// Whether no policy may take the name away.
    pub pinned: bool,
    /// Bytes of its layers, unpacked.
    pub size: u64,
    /// The config's labels.
    pub labels: Map<String, Value>,
    /// Whether it is an image, not another artifact.
    pub is_image: bool,
}

/// One step of an image's history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryStep {
    /// The image ID, for the newest step only: the steps below have none of their own.
    pub id: Option<Digest>,
    /// When, in seconds since 1970.
    pub created: Option<i64>,
    /// The command or instruction.
    pub created_by: String,
    /// Bytes of its layer; 0 for a step without.
    pub size: u64,
    /// A message.
    pub comment: String,
    /// Whether it made no layer.
    pub empty_layer: bool,
}

impl Layerstore {
    /// All images by name, those without a name last.
    ///
    /// # Errors
    ///
    /// Only those of the store itself.
    ///
    /// # Example
    ///
    /// ```no_run
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let store = layerstore::Layerstore::open("/var/lib/layerstore".as_ref())?;
    /// for image in store.images()? {
    ///     println!("{} {}", image.id, image.size);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn images(&self) -> Result<Vec<ImageSummary>> {
        let rows = self.store.images(LOCAL)?;
        let mut summaries: Vec<ImageSummary> = rows.chunk_by(|a, b| a.name == b.name).map(summary).collect();
        summaries.sort_by_key(|summary| summary.reference.is_none());
        Ok(summaries)
    }

    /// Describes an image as `docker image inspect` does: the object that is one element of its array.
    ///
    /// # Errors
    ///
    /// `NotFound` if there is no such image; `InvalidInput` if several IDs begin like this.
    ///
    /// # Example
    ///
    /// ```no_run
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let store = layerstore::Layerstore::open("/var/lib/layerstore".as_ref())?;
    /// println!("{}", store.inspect("app:1")?["Architecture"]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn inspect(&self, name: &str) -> Result<Value> {
        let found = self.find(name)?;
        let Some(image) = &found.image else {
            return Ok(json!({
                "Id": found.target.to_string(),
                "RepoTags": tags(&found),
                "RepoDigests": digests(&found),
                "Descriptor": self.describe(&found.target)?,
            }));
        };
        let mut config = self.config_object(&image.config)?;
        let mut take = |key: &str| config.remove(key).unwrap_or(Value::Null);
        let text = |value: Value| if value.is_null() { Value::String(String::new()) } else { value };
        let layers = self.store.layers(&image.manifest)?;
        let diffs = layers.iter().rev().filter_map(|layer| layer.tree.as_ref());
        let mut diffs = diffs.map(|tree| self.store.layout().diff(&tree.id).display().to_string());
        let mut graph = Map::new();
        if let Some(upper) = diffs.next() {
            let lower = diffs.collect::<Vec<_>>().join(":");
            if !lower.is_empty() {
                graph.insert("LowerDir".to_owned(), lower.into());
            }
            graph.insert("UpperDir".to_owned(), upper.into());
        }
        let mut object = json!({
            "Id": image.config.to_string(),
            "RepoTags": tags(&found),
            "RepoDigests": digests(&found),
            "Comment": text(take("comment")),
            "Created": text(take("created")),
            "Author": text(take("author")),
            "Architecture": text(take("architecture")),
        });
        if let (Value::Object(map), Value::String(variant)) = (&mut object, take("variant")) {
            map.insert("Variant".to_owned(), variant.into());
        }
        let rest = json!({
            "Os": text(take("os")),
            "Size": image.size,
            "GraphDriver": { "Data": graph, "Name": "overlay2" },
            "RootFS": {
                "Type": "layers",
                "Layers": layers.iter().map(|layer| layer.diff_id.to_string()).collect::<Vec<_>>(),
            },
            // All but the first are ours.
            "Metadata": {
                "LastTagTime": time(found.updated_at),
                "LastUsedTime": image.last_used_at.map(time),
                "PulledTime": found.pulled_at.map(time),
                "Pinned": is_pinned(&found),
            },
            "Descriptor": self.describe(&found.target)?,
            "Config": take("config"),
        });
        if let (Value::Object(object), Value::Object(rest)) = (&mut object, rest) {
            object.extend(rest);
        }
        Ok(object)
    }

    /// A config as it is written.
    pub(crate) fn config_object(&self, digest: &Digest) -> Result<Map<String, Value>> {
        let raw = self.store.read_blob(digest, MAX_DOCUMENT_BYTES)?;
        Ok(serde_json::from_slice(&raw).unwrap_or_default())
    }

    /// Describes the container or, if there is none of this name, the image.
    ///
    /// # Errors
    ///
    /// As for [`Layerstore::inspect`].
    pub fn inspect_any(&self, name: &str) -> Result<Value> {
        if self.is_container(name)? {
            return self.inspect_container(name);
        }
        match self.inspect(name) {
            Err(error) if error.kind() == ErrorKind::NotFound => match self.inspect_container(name) {
                Err(Error::NoContainer { .. }) => Err(Error::NoImageOrContainer { name: name.to_owned() }),
                other => other,
            },
            other => other,
        }
    }

    fn describe(&self, target: &Digest) -> Result<Value> {
        let blob = self.store.blob(target)?;
        Ok(json!({
            "mediaType": blob.as_ref().and_then(|blob| blob.media_type.clone()),
            "digest": target.to_string(),
            "size": blob.map(|blob| blob.size),
        }))
    }

    /// The steps that made an image, newest first.
    ///
    /// # Errors
    ///
    /// As for [`Layerstore::inspect`]; `Unsupported` for an artifact that is no image.
    ///
    /// # Example
    ///
    /// ```no_run
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let store = layerstore::Layerstore::open("/var/lib/layerstore".as_ref())?;
    /// for step in store.history("app:1")? {
    ///     println!("{}", step.created_by);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn history(&self, name: &str) -> Result<Vec<HistoryStep>> {
        let found = self.find(name)?;
        let Some(image) = &found.image else {
            let reason = "it is an artifact without layers of an image".to_owned();
            return Err(Error::NotUnpackable { name: name.to_owned(), reason });
        };
        let config = self.config(&image.config)?;
        let mut layers = self.store.layers(&image.manifest)?.into_iter();
        let mut steps: Vec<HistoryStep> = config
            .history
            .into_iter()
            .map(|step| HistoryStep {
                id: None,
                created: step.created.as_deref().and_then(seconds),
                created_by: step.created_by.unwrap_or_default(),
                size: if step.empty_layer { 0 } else { layers.next().as_ref().map_or(0, layer_size) },
                comment: step.comment.unwrap_or_default(),
                empty_layer: step.empty_layer,
            })
            .collect();
        // Tools may leave the history out, or part of it.
        steps.extend(layers.map(|layer| HistoryStep {
            id: None,
            created: image.created,
            created_by: String::new(),
            size: layer_size(&layer),
            comment: String::new(),
            empty_layer: false,
        }));
        steps.reverse();
        if let Some(newest) = steps.first_mut() {
            newest.id = Some(image.config.clone());
        }
        Ok(steps)
    }

    pub(crate) fn config(&self, digest: &Digest) -> Result<ImageConfig> {
        let bytes = self.store.read_blob(digest, MAX_DOCUMENT_BYTES)?;
        ImageConfig::parse(&bytes).map_err(|source| Error::Document {
            what: "image config",
            digest: digest.to_string(),
            source,
        })
    }
}

fn summary(rows: &[ImageRow]) -> ImageSummary {
    let row = &rows[0];
    let shown = best(rows.iter());
    let mut platforms: Vec<String> =
        rows.iter().filter_map(|row| row.image.as_ref()).map(|image| image.platform.clone()).collect();
    if let Some(shown) = shown {
        platforms.sort_by_key(|platform| *platform != shown.platform);
    }
    ImageSummary {
        reference: named(&row.name),
        id: shown.map_or(row.target.clone(), |image| image.config.clone()),
        target: row.target.clone(),
        platforms,
        created: shown.and_then(|image| image.created),
        updated_at: row.updated_at,
        pulled_at: row.pulled_at,
        last_used_at: rows.iter().filter_map(|row| row.image.as_ref()?.last_used_at).max(),
        pinned: row.pinned,
        size: shown.map_or(0, |image| image.size),
        labels: shown.map(|image| image.labels.clone()).unwrap_or_default(),
        is_image: shown.is_some(),
    }
}

fn layer_size(layer: &LayerRow) -> u64 {
    layer.tree.as_ref().map(|tree| tree.usage.bytes).or(layer.blob_size).unwrap_or(0)
}

/// Whether the name by which it was found is pinned, or any that its ID stands for.
fn is_pinned(found: &Found) -> bool {
    match &found.by_name {
        Some(name) => found.pinned.contains(name),
        None => !found.pinned.is_empty(),
    }
}

/// Names with a tag, as Docker shows them.
fn tags(found: &Found) -> Vec<String> {
    let names = found.names.iter().filter_map(|name| named(name));
    names.filter(|name| name.tag().is_some()).map(|name| name.without_digest().familiar()).collect()
}

/// Each repository with the digest of what its name stands for.
fn digests(found: &Found) -> Vec<String> {
    let names = found.names.iter().filter_map(|name| named(name));
    let mut digests: Vec<String> =
        names.map(|name| format!("{}@{}", name.familiar_repository(), found.target)).collect();
    digests.sort();
    digests.dedup();
    digests
}

pub(crate) fn seconds(created: &str) -> Option<i64> {
    created.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_second)
}

pub(crate) fn time(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds).map(|time| time.to_string()).unwrap_or_default()
}
