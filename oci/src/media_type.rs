//! Media types of OCI and Docker images, and what they say about a blob.

use crate::Digest;

/// OCI image index.
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// OCI image manifest.
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// OCI image config.
pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// OCI layer, not compressed.
pub const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
/// OCI layer, gzip.
pub const OCI_LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
/// OCI layer, zstd.
pub const OCI_LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
/// OCI layer that may not be pushed to other registries (deprecated by the spec, still found).
pub const OCI_FOREIGN_LAYER: &str = "application/vnd.oci.image.layer.nondistributable.v1.tar";
/// The two-byte `{}` config of artifacts that are no images (OCI image spec 1.1).
pub const OCI_EMPTY: &str = "application/vnd.oci.empty.v1+json";
/// Docker manifest list: an index.
pub const DOCKER_MANIFEST_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// Docker manifest, schema 2.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// Docker manifest, schema 1: refused by name.
pub const DOCKER_MANIFEST_V1: &str = "application/vnd.docker.distribution.manifest.v1+json";
/// Docker manifest, schema 1 with a signature: refused by name.
pub const DOCKER_MANIFEST_V1_SIGNED: &str = "application/vnd.docker.distribution.manifest.v1+prettyjws";
/// Docker image config.
pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
/// Docker layer whose compression is not declared.
pub const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";
/// Docker layer, gzip.
pub const DOCKER_LAYER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
/// Docker layer, zstd.
pub const DOCKER_LAYER_ZSTD: &str = "application/vnd.docker.image.rootfs.diff.tar.zstd";
/// Docker layer to be fetched from its own URLs (Windows base layers).
pub const DOCKER_FOREIGN_LAYER: &str = "application/vnd.docker.image.rootfs.foreign.diff.tar";

/// Whether `media_type` is an index (OCI) or manifest list (Docker).
pub fn is_index(media_type: &str) -> bool {
    matches!(media_type, OCI_INDEX | DOCKER_MANIFEST_LIST)
}

/// Whether `media_type` is an image manifest that can be read.
pub fn is_manifest(media_type: &str) -> bool {
    matches!(media_type, OCI_MANIFEST | DOCKER_MANIFEST)
}

/// Whether `media_type` is Docker's manifest of schema version 1.
pub fn is_manifest_v1(media_type: &str) -> bool {
    matches!(media_type, DOCKER_MANIFEST_V1 | DOCKER_MANIFEST_V1_SIGNED)
}

/// Whether `media_type` is the config of an image (not of some other artifact).
pub fn is_config(media_type: &str) -> bool {
    matches!(media_type, OCI_CONFIG | DOCKER_CONFIG)
}

/// How a stream is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Compression {
    /// Not at all.
    None,
    /// gzip, one or several members.
    Gzip,
    /// Zstandard, one or several frames, skippable ones among them.
    Zstd,
}

impl Compression {
    /// How many first bytes [`Compression::detect`] looks at.
    pub const MAGIC_LEN: usize = 4;

    /// The compression that the first bytes of a stream show.
    ///
    /// A zstd stream may begin with a skippable frame (RFC 8878, 3.1.2), as pzstd and eStargz's
    /// zstd form do.
    pub fn detect(first: &[u8]) -> Self {
        match first {
            [0x1f, 0x8b, 0x08, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            _ => Self::None,
        }
    }
}

/// What the media type of a layer says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LayerKind {
    /// A changeset in tar form.
    Layer {
        /// The compression declared; `None` where the type does not say and the bytes decide.
        compression: Option<Compression>,
        /// Whether the layer may have to be fetched from its own URLs.
        foreign: bool,
    },
    /// Not a layer this version can unpack: kept as a blob only.
    Unknown,
}

impl LayerKind {
    /// Reads a media type.
    ///
    /// Docker's plain `.tar` types say nothing about compression: tools have written compressed
    /// layers under them for years (containerd's `DiffCompression` treats them alike).
    pub fn of(media_type: &str) -> Self {
        let (base, suffix, docker) = if let Some(rest) = media_type.strip_prefix(DOCKER_LAYER) {
            (DOCKER_LAYER, rest, true)
        } else if let Some(rest) = media_type.strip_prefix(DOCKER_FOREIGN_LAYER) {
            (DOCKER_FOREIGN_LAYER, rest, true)
        } else if let Some(rest) = media_type.strip_prefix(OCI_LAYER) {
            (OCI_LAYER, rest, false)
        } else if let Some(rest) = media_type.strip_prefix(OCI_FOREIGN_LAYER) {
            (OCI_FOREIGN_LAYER, rest, false)
        } else {
            return Self::Unknown;
        };
        let compression = match (suffix, docker) {
            ("", true) => None,
            ("", false) => Some(Compression::None),
            (".gzip", true) | ("+gzip", false) => Some(Compression::Gzip),
            (".zstd", true) | ("+zstd", false) => Some(Compression::Zstd),
            _ => return Self::Unknown,
        };
        Self::Layer { compression, foreign: base == DOCKER_FOREIGN_LAYER || base == OCI_FOREIGN_LAYER }
    }
}

/// Where the OCI image layout keeps the blob `digest`: `blobs/sha256/<hex>`.
pub fn layout_path(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm(), digest.hex())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layer_types_are_told_apart() {
        let layer = |compression, foreign| LayerKind::Layer { compression, foreign };
        for (media_type, kind) in [
            (OCI_LAYER, layer(Some(Compression::None), false)),
            (OCI_LAYER_GZIP, layer(Some(Compression::Gzip), false)),
            (OCI_LAYER_ZSTD, layer(Some(Compression::Zstd), false)),
            (DOCKER_LAYER, layer(None, false)),
            (DOCKER_LAYER_GZIP, layer(Some(Compression::Gzip), false)),
            (DOCKER_LAYER_ZSTD, layer(Some(Compression::Zstd), false)),
            (
                "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
                layer(Some(Compression::Gzip), true),
            ),
            (
                "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
                layer(Some(Compression::Zstd), true),
            ),
            ("application/vnd.oci.image.layer.v1.tar+gzip+encrypted", LayerKind::Unknown),
            ("application/vnd.oci.image.layer.v1.tar.gzip", LayerKind::Unknown),
            ("application/vnd.in-toto+json", LayerKind::Unknown),
            ("", LayerKind::Unknown),
        ] {
            assert_eq!(LayerKind::of(media_type), kind, "{media_type}");
        }
    }

    #[test]
    fn compression_shows_in_the_first_bytes() {
        assert_eq!(Compression::detect(&[0x1f, 0x8b, 8, 0]), Compression::Gzip);
        assert_eq!(Compression::detect(&[0x28, 0xb5, 0x2f, 0xfd]), Compression::Zstd);
        assert_eq!(Compression::detect(&[0x5e, 0x2a, 0x4d, 0x18, 1]), Compression::Zstd);
        assert_eq!(Compression::detect(&[0x1f, 0x8b]), Compression::None);
        assert_eq!(Compression::detect(b""), Compression::None);
    }
}
