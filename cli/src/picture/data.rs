//! What a page shows, as the caller found it in the accounting.

use serde::Serialize;

/// Everything that a page shows. Indexes lead into the lists here; times are in seconds since 1970.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Picture {
    /// The root of the store.
    pub(crate) root: String,
    /// When the figures were taken; ages are counted from then.
    pub(crate) made_at: i64,
    pub(crate) filesystem: Filesystem,
    /// All below the root.
    pub(crate) total: Size,
    /// What adds up to the total: blobs, trees, writable layers and so on.
    pub(crate) rows: Vec<Row>,
    pub(crate) images: Vec<PictureImage>,
    pub(crate) layers: Vec<PictureLayer>,
    pub(crate) containers: Vec<PictureContainer>,
    /// What nothing keeps, and is no layer of an image.
    pub(crate) garbage: Vec<Garbage>,
    pub(crate) policies: Vec<PolicyPreview>,
}

/// The filesystem that the store is on, in bytes.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(crate) struct Filesystem {
    pub(crate) total: u64,
    /// What a process without privileges may still fill.
    pub(crate) available: u64,
}

/// Bytes as files say, and as their blocks take them from the disk.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(crate) struct Size {
    pub(crate) apparent: u64,
    pub(crate) allocated: u64,
}

/// One kind of what lies below the root.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Row {
    /// As `df` names it.
    pub(crate) kind: String,
    pub(crate) count: u64,
    pub(crate) apparent: u64,
    pub(crate) allocated: u64,
    /// How much of `allocated` would be freed at most.
    pub(crate) reclaimable: u64,
}

/// An image, with all its names.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct PictureImage {
    /// `REPOSITORY:TAG` each; none for an image that has only its digest.
    pub(crate) names: Vec<String>,
    pub(crate) id: String,
    pub(crate) platform: String,
    /// As its config says.
    pub(crate) created: Option<i64>,
    pub(crate) last_used: Option<i64>,
    pub(crate) pulled: Option<i64>,
    pub(crate) pinned: bool,
    /// Names of the containers of it.
    pub(crate) containers: Vec<String>,
    pub(crate) mounted: bool,
    /// Allocated bytes that removing this image alone would free.
    pub(crate) freed: u64,
    /// Its layers, lowest first.
    pub(crate) layers: Vec<usize>,
}

/// A layer: its blob, its tree, or both.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct PictureLayer {
    pub(crate) diff_id: String,
    /// The digest of the compressed blob, if one is known.
    pub(crate) blob: Option<String>,
    /// The media type of the blob.
    pub(crate) media: String,
    /// Allocated bytes of the blob; 0 if it is not here.
    pub(crate) blob_bytes: u64,
    /// Allocated bytes of the tree; 0 if it is not unpacked.
    pub(crate) tree_bytes: u64,
    /// Entries of the tree.
    pub(crate) files: u64,
    /// The images that have it.
    pub(crate) images: Vec<usize>,
    /// How many containers stand on it.
    pub(crate) containers: u64,
}

/// A container, for its writable layer.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct PictureContainer {
    pub(crate) name: String,
    pub(crate) image: String,
    /// Who uses it, in words; empty if nobody does.
    pub(crate) used: String,
    /// Allocated bytes of its writable layer.
    pub(crate) bytes: u64,
}

/// What nothing keeps.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Garbage {
    /// What it is, in a few words.
    pub(crate) what: String,
    /// Allocated bytes.
    pub(crate) bytes: u64,
}

/// What a command would free, were it run now.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct PolicyPreview {
    /// As a user would type it.
    pub(crate) command: String,
    /// Allocated bytes.
    pub(crate) freed: u64,
    /// The images that would go.
    pub(crate) images: Vec<usize>,
    /// Whether the garbage goes too.
    pub(crate) garbage: bool,
    /// A sentence on it, or nothing.
    pub(crate) note: String,
}
