//! Manifests and indexes, in the forms of OCI and of Docker.
//!
//! The structs are our own rather than oci-spec's: that crate refuses documents which Docker
//! writes and every engine reads (`null` lists, empty platforms, media types it does not know),
//! and keeps digests and sizes in types that this workspace would have to convert on every use.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Digest, ErrorKind, Platform, lenient, media_type};

/// Size limit of manifests, indexes and configs, in bytes: 4 MiB, as registries and other clients
/// have it (OCI distribution spec, "Pushing manifests").
pub const MAX_DOCUMENT_BYTES: u64 = 4 << 20;

/// Why bytes are not a manifest, an index or a config.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DocumentError {
    /// More than [`MAX_DOCUMENT_BYTES`].
    #[error("the document has {size} bytes, more than the {MAX_DOCUMENT_BYTES} allowed")]
    TooLarge {
        /// Its size in bytes.
        size: u64,
    },
    /// Not JSON, or JSON of another shape.
    #[error("not a valid {what}")]
    Json {
        /// What was expected: `manifest or index`, `image config`.
        what: &'static str,
        /// Where and why.
        source: serde_json::Error,
    },
    /// JSON, but neither a manifest nor an index.
    #[error("not a manifest or index: {reason}")]
    NotADocument {
        /// What is missing or in the way.
        reason: &'static str,
    },
    /// Both a manifest and an index, which readers would understand differently (CVE-2021-41190).
    #[error("the document is ambiguous: it has both `{one}` and `{other}`")]
    Ambiguous {
        /// A field of one form.
        one: &'static str,
        /// A field of the other.
        other: &'static str,
    },
    /// The media type says something else than the content.
    #[error("the document is {found}, but its media type is `{declared}`")]
    MediaType {
        /// The media type declared by the descriptor or the document.
        declared: String,
        /// What the document is: `a manifest` or `an index`.
        found: &'static str,
    },
    /// Docker's schema version 1, which pulls have not returned since 2017.
    #[error("manifest schema version 1 is not supported; the image has to be rebuilt or converted")]
    SchemaVersion1,
    /// Another schema version than 2.
    #[error("manifest schema version {version} is not supported")]
    SchemaVersion {
        /// The version found.
        version: i64,
    },
    /// A negative size in a descriptor.
    #[error("{digest} has the impossible size {size}")]
    Size {
        /// The digest described.
        digest: Digest,
        /// The size found.
        size: i64,
    },
    /// A config without `rootfs`: that of an artifact rather than an image.
    #[error("not an image config: it has no `rootfs`")]
    NoRootfs,
    /// A `rootfs` of another type than `layers`.
    #[error("root filesystem type `{found}` is not supported, only `layers`")]
    RootfsType {
        /// The type found.
        found: String,
    },
    /// Manifest and config disagree on the number of layers.
    #[error("the config lists {diff_ids} diff IDs for {layers} layers")]
    LayerCount {
        /// Layers in the manifest.
        layers: usize,
        /// Diff IDs in the config.
        diff_ids: usize,
    },
}

impl DocumentError {
    /// The class of this error.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::SchemaVersion1 | Self::SchemaVersion { .. } | Self::RootfsType { .. } => {
                ErrorKind::Unsupported
            }
            Self::LayerCount { .. } => ErrorKind::Corrupt,
            _ => ErrorKind::InvalidInput,
        }
    }
}

/// What names a blob: media type, digest and size, with what is said about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Descriptor {
    /// Media type; empty if the document left it out.
    pub media_type: String,
    /// Digest of the blob.
    pub digest: Digest,
    /// Size in bytes, at most `i64::MAX`.
    pub size: u64,
    /// Platform of a manifest in an index, as written there.
    pub platform: Option<Platform>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
    /// Other places to get a foreign layer from.
    pub urls: Vec<String>,
    /// Type of an artifact that is no image.
    pub artifact_type: Option<String>,
}

impl Descriptor {
    /// A descriptor that says only what it must.
    pub fn new(media_type: impl Into<String>, digest: Digest, size: u64) -> Self {
        Self {
            media_type: media_type.into(),
            digest,
            size,
            platform: None,
            annotations: BTreeMap::new(),
            urls: Vec::new(),
            artifact_type: None,
        }
    }
}

/// An image manifest: a config and the layers, lowest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// Media type, never empty: the one declared, else OCI's or Docker's as the config has it.
    pub media_type: String,
    /// The config.
    pub config: Descriptor,
    /// The layers, lowest first.
    pub layers: Vec<Descriptor>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
    /// The manifest this one is about: a signature or an attestation has one.
    pub subject: Option<Descriptor>,
    /// Type of an artifact that is no image.
    pub artifact_type: Option<String>,
}

impl Manifest {
    /// The manifest as compact JSON, fields in the order of the spec: the same bytes for the same
    /// content, so that an archive without a manifest gets the same image digest on every load.
    pub fn to_bytes(&self) -> Vec<u8> {
        let raw = RawDocument {
            schema_version: Some(2),
            media_type: self.media_type.clone(),
            artifact_type: self.artifact_type.clone().unwrap_or_default(),
            config: Some(RawDescriptor::from(&self.config)),
            layers: Some(self.layers.iter().map(RawDescriptor::from).collect()),
            manifests: None,
            subject: self.subject.as_ref().map(RawDescriptor::from),
            annotations: self.annotations.clone(),
            fs_layers: None,
        };
        raw.to_bytes()
    }
}

/// An index: manifests (or further indexes), usually one per platform.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Index {
    /// Media type, never empty: the one declared, else OCI's.
    pub media_type: String,
    /// The manifests.
    pub manifests: Vec<Descriptor>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
}

impl Index {
    /// The index as compact JSON, fields in the order of the spec.
    pub fn to_bytes(&self) -> Vec<u8> {
        let raw = RawDocument {
            schema_version: Some(2),
            media_type: self.media_type.clone(),
            artifact_type: String::new(),
            config: None,
            layers: None,
            manifests: Some(self.manifests.iter().map(RawDescriptor::from).collect()),
            subject: None,
            annotations: self.annotations.clone(),
            fs_layers: None,
        };
        raw.to_bytes()
    }
}

/// A manifest or an index.
#[expect(clippy::large_enum_variant, reason = "one exists per image, and mostly it is the larger")]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Document {
    /// An index.
    Index(Index),
    /// A manifest.
    Manifest(Manifest),
}

impl Document {
    /// Reads a manifest or index.
    ///
    /// `hint` is the media type of the descriptor or response that led here. If it, or the media
    /// type inside, is of the other form than the content, the document is refused; a hint that is
    /// neither (`application/octet-stream`) is ignored.
    pub fn parse(bytes: &[u8], hint: Option<&str>) -> Result<Self, DocumentError> {
        let raw: RawDocument = from_json(bytes, "manifest or index")?;
        let hint = hint.unwrap_or_default();
        let declared = [hint, &raw.media_type];
        if raw.schema_version == Some(1)
            || raw.fs_layers.is_some()
            || declared.into_iter().any(media_type::is_manifest_v1)
        {
            return Err(DocumentError::SchemaVersion1);
        }
        if let Some(version) = raw.schema_version.filter(|version| *version != 2) {
            return Err(DocumentError::SchemaVersion { version });
        }
        let known = |text: &str| media_type::is_index(text) || media_type::is_manifest(text);
        if !raw.media_type.is_empty() && !known(&raw.media_type) {
            return Err(DocumentError::NotADocument { reason: "its media type is that of something else" });
        }
        let has_index = raw.manifests.is_some();
        let has_manifest = raw.config.is_some() || raw.layers.is_some();
        if has_index && has_manifest {
            let other = if raw.config.is_some() { "config" } else { "layers" };
            return Err(DocumentError::Ambiguous { one: "manifests", other });
        }
        for media_type in declared {
            let found = match (has_index, has_manifest) {
                (true, _) if media_type::is_manifest(media_type) => "an index",
                (_, true) if media_type::is_index(media_type) => "a manifest",
                _ => continue,
            };
            return Err(DocumentError::MediaType { declared: media_type.to_owned(), found });
        }
        // An empty list is `null` where Go wrote it. Then the media types alone say what it is, and must agree.
        let null_index = !has_index
            && !has_manifest
            && raw.schema_version.is_some()
            && declared.into_iter().any(media_type::is_index)
            && !declared.into_iter().any(media_type::is_manifest);
        raw.into_document(null_index)
    }

    /// The media type.
    pub fn media_type(&self) -> &str {
        match self {
            Self::Index(index) => &index.media_type,
            Self::Manifest(manifest) => &manifest.media_type,
        }
    }

    /// Everything the document is made of: the manifests of an index; config, then layers of a
    /// manifest. A `subject` is not among them, since the arrow points the other way.
    pub fn children(&self) -> impl Iterator<Item = &Descriptor> {
        let (config, list) = match self {
            Self::Index(index) => (None, &index.manifests),
            Self::Manifest(manifest) => (Some(&manifest.config), &manifest.layers),
        };
        config.into_iter().chain(list)
    }
}

/// Parses JSON within the size limit.
pub(crate) fn from_json<'de, T: Deserialize<'de>>(
    bytes: &'de [u8],
    what: &'static str,
) -> Result<T, DocumentError> {
    let size = bytes.len() as u64;
    if size > MAX_DOCUMENT_BYTES {
        return Err(DocumentError::TooLarge { size });
    }
    // serde would take a list for a struct, field by field.
    if bytes.trim_ascii_start().first() != Some(&b'{') {
        let source = serde::de::Error::custom("expected a JSON object");
        return Err(DocumentError::Json { what, source });
    }
    serde_json::from_slice(bytes).map_err(|source| DocumentError::Json { what, source })
}

/// Both forms at once, fields in the order of the image spec.
#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct RawDocument {
    #[serde(default)]
    schema_version: Option<i64>,
    #[serde(default, deserialize_with = "lenient::or_default", skip_serializing_if = "String::is_empty")]
    media_type: String,
    #[serde(default, deserialize_with = "lenient::or_default", skip_serializing_if = "String::is_empty")]
    artifact_type: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    config: Option<RawDescriptor>,
    #[serde(default, deserialize_with = "lenient::optional_list", skip_serializing_if = "Option::is_none")]
    layers: Option<Vec<RawDescriptor>>,
    #[serde(default, deserialize_with = "lenient::optional_list", skip_serializing_if = "Option::is_none")]
    manifests: Option<Vec<RawDescriptor>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    subject: Option<RawDescriptor>,
    #[serde(default, deserialize_with = "lenient::strings", skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
    #[serde(default, skip_serializing)]
    fs_layers: Option<serde::de::IgnoredAny>,
}

impl RawDocument {
    fn into_document(self, null_index: bool) -> Result<Document, DocumentError> {
        if self.manifests.is_some() || null_index {
            let media_type = or(self.media_type, media_type::OCI_INDEX);
            let manifests = descriptors(self.manifests.unwrap_or_default())?;
            return Ok(Document::Index(Index { media_type, manifests, annotations: self.annotations }));
        }
        let Some(config) = self.config else {
            let reason = if self.layers.is_some() {
                "it has no `config`"
            } else {
                "it has neither `config` nor `manifests`"
            };
            return Err(DocumentError::NotADocument { reason });
        };
        let config = Descriptor::try_from(config)?;
        let default = match config.media_type.as_str() {
            media_type::DOCKER_CONFIG => media_type::DOCKER_MANIFEST,
            _ => media_type::OCI_MANIFEST,
        };
        Ok(Document::Manifest(Manifest {
            media_type: or(self.media_type, default),
            config,
            layers: descriptors(self.layers.unwrap_or_default())?,
            annotations: self.annotations,
            subject: self.subject.map(Descriptor::try_from).transpose()?,
            artifact_type: non_empty(self.artifact_type),
        }))
    }

    fn to_bytes(&self) -> Vec<u8> {
        // Maps with string keys and plain values: serialising cannot fail.
        serde_json::to_vec(self).unwrap_or_default()
    }
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct RawDescriptor {
    #[serde(default, deserialize_with = "lenient::or_default", skip_serializing_if = "String::is_empty")]
    media_type: String,
    #[serde(default, deserialize_with = "lenient::or_default", skip_serializing_if = "String::is_empty")]
    artifact_type: String,
    digest: Digest,
    size: i64,
    #[serde(default, deserialize_with = "lenient::list", skip_serializing_if = "Vec::is_empty")]
    urls: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    platform: Option<RawPlatform>,
    #[serde(default, deserialize_with = "lenient::strings", skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
}

impl TryFrom<RawDescriptor> for Descriptor {
    type Error = DocumentError;

    fn try_from(raw: RawDescriptor) -> Result<Self, DocumentError> {
        let size = u64::try_from(raw.size)
            .map_err(|_| DocumentError::Size { digest: raw.digest.clone(), size: raw.size })?;
        Ok(Self {
            media_type: raw.media_type,
            digest: raw.digest,
            size,
            platform: raw.platform.and_then(RawPlatform::into_platform),
            annotations: raw.annotations,
            urls: raw.urls,
            artifact_type: non_empty(raw.artifact_type),
        })
    }
}

impl From<&Descriptor> for RawDescriptor {
    fn from(descriptor: &Descriptor) -> Self {
        Self {
            media_type: descriptor.media_type.clone(),
            artifact_type: descriptor.artifact_type.clone().unwrap_or_default(),
            digest: descriptor.digest.clone(),
            size: i64::try_from(descriptor.size).unwrap_or(i64::MAX),
            urls: descriptor.urls.clone(),
            platform: descriptor.platform.as_ref().map(RawPlatform::from),
            annotations: descriptor.annotations.clone(),
        }
    }
}

impl Serialize for Descriptor {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        RawDescriptor::from(self).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Descriptor {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        RawDescriptor::deserialize(deserializer)?.try_into().map_err(serde::de::Error::custom)
    }
}

/// The platform fields, alike in the descriptors of an index and in a config.
#[derive(Default, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct RawPlatform {
    #[serde(deserialize_with = "lenient::or_default")]
    pub(crate) architecture: String,
    #[serde(deserialize_with = "lenient::or_default")]
    pub(crate) os: String,
    #[serde(
        rename = "os.version",
        deserialize_with = "lenient::or_default",
        skip_serializing_if = "String::is_empty"
    )]
    pub(crate) os_version: String,
    #[serde(
        rename = "os.features",
        deserialize_with = "lenient::list",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub(crate) os_features: Vec<String>,
    #[serde(deserialize_with = "lenient::or_default", skip_serializing_if = "String::is_empty")]
    pub(crate) variant: String,
}

impl RawPlatform {
    /// The platform; none if neither system nor architecture is said.
    pub(crate) fn into_platform(self) -> Option<Platform> {
        (!self.os.is_empty() || !self.architecture.is_empty()).then(|| Platform {
            os: self.os,
            architecture: self.architecture,
            variant: non_empty(self.variant),
            os_version: non_empty(self.os_version),
            os_features: self.os_features,
        })
    }
}

impl From<&Platform> for RawPlatform {
    fn from(platform: &Platform) -> Self {
        Self {
            architecture: platform.architecture.clone(),
            os: platform.os.clone(),
            os_version: platform.os_version.clone().unwrap_or_default(),
            os_features: platform.os_features.clone(),
            variant: platform.variant.clone().unwrap_or_default(),
        }
    }
}

fn descriptors(raw: Vec<RawDescriptor>) -> Result<Vec<Descriptor>, DocumentError> {
    raw.into_iter().map(Descriptor::try_from).collect()
}

pub(crate) fn non_empty(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

fn or(text: String, default: &str) -> String {
    if text.is_empty() { default.to_owned() } else { text }
}

#[cfg(test)]
mod tests;
