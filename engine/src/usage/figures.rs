//! What is told about where the disk went.

use std::collections::HashMap;
use std::path::PathBuf;

use layerstore_oci::Digest;
use layerstore_store::{LayerDigest, Size, Space};

/// The layers of images, by manifest.
pub type LayerDigests = HashMap<Digest, Vec<LayerDigest>>;

/// What a store takes, by what it is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskUsage {
    /// All images that names lead to.
    pub images: Part,
    /// All containers.
    pub containers: Part,
    /// Where the bytes are. Without a scan those parts are left out that have no rows.
    pub parts: Vec<(PartKind, Part)>,
    /// What all parts take together, which is what `du -x` says of the root; `None` without a scan.
    pub total: Option<Size>,
    /// What nothing explains.
    pub unknown: Vec<(PathBuf, Size)>,
    /// Blobs and trees that should be there and are not.
    pub missing: Vec<String>,
    /// The filesystem that the store is on.
    pub space: Space,
}

/// Some things and what they take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Part {
    /// How many there are.
    pub count: u64,
    /// How many of them are in use.
    pub active: u64,
    /// What they take.
    pub size: Size,
    /// Bytes of blocks that can be had back: those of unused images by `image prune --all`, those of containers that are
    /// not in use by removing them, all others by a collection without any policy.
    pub reclaimable: u64,
}

/// A part of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PartKind {
    /// Complete blobs.
    Blobs,
    /// Unpacked layers.
    Trees,
    /// What containers and other snapshots have written.
    Writable,
    /// Trees that one stack of layers needs on top.
    Fixups,
    /// What running commands have not completed, and interrupted downloads.
    Ingests,
    /// What was forgotten and is not deleted yet.
    Trash,
    /// The database, locks, the reserve, and the directories of every store.
    Database,
    /// What nothing explains.
    Unknown,
}

/// One image with all its names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageUsage {
    /// Names as they are stored; the target's digest for an image without one.
    pub names: Vec<String>,
    /// The manifest or index that they stand for.
    pub target: Digest,
    /// The images that they lead to, one for each platform.
    pub variants: Vec<VariantUsage>,
    /// What removing it would free.
    pub freed: Size,
    /// When it was last used, or got its name, in seconds since 1970.
    pub last_use: i64,
    /// When it was last mounted, pulled, or something was made from it.
    pub last_used_at: Option<i64>,
    /// When it was last pulled.
    pub pulled_at: Option<i64>,
    /// Whether one of its names is pinned.
    pub pinned: bool,
}

/// One image of one platform.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VariantUsage {
    /// Its ID.
    pub id: Digest,
    /// Its manifest.
    pub manifest: Digest,
    /// `os/architecture[/variant]`.
    pub platform: String,
    /// When it was built, if its config says.
    pub created: Option<i64>,
    /// Bytes of its layers, as `images` shows them.
    pub size: u64,
    /// Bytes of those that other images have as well.
    pub shared: u64,
    /// Its containers.
    pub containers: Vec<String>,
    /// Where it is mounted.
    pub mounts: Vec<PathBuf>,
    /// Its layers, lowest first.
    pub layers: Vec<LayerUsage>,
}

impl VariantUsage {
    /// Bytes of the layers that no other image has.
    pub fn unique(&self) -> u64 {
        self.size - self.shared
    }
}

/// One layer of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerUsage {
    /// Its blob and what that takes, if it is here.
    pub blob: Option<(Digest, Size)>,
    /// Its tree's directory and what that takes, if it is unpacked.
    pub tree: Option<(String, Size)>,
}

/// What a container has written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerUsage {
    /// Its ID.
    pub id: String,
    /// Its name.
    pub name: String,
    /// The image as it was asked for.
    pub image: String,
    /// When it was created, in seconds since 1970.
    pub created_at: i64,
    /// Where the store has mounted it.
    pub mounted: Option<PathBuf>,
    /// Who has its files mounted, whoever mounted them, in words as in
    /// [`Layerstore::containers_in_use`](crate::Layerstore::containers_in_use).
    pub in_use: Option<String>,
    /// What it takes.
    pub size: Size,
}

/// A store's usage, and that of each image and container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DetailedUsage {
    /// All in all.
    pub usage: DiskUsage,
    /// Each image.
    pub images: Vec<ImageUsage>,
    /// Each container.
    pub containers: Vec<ContainerUsage>,
}
