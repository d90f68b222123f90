//! What an operation tells while it runs.

use layerstore_oci::Digest;
use layerstore_unpack::Privileged;
use std::borrow::Cow;

/// One piece of news.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A layer is in a new state.
    Layer {
        /// Its number in this operation.
        index: usize,
        /// What to call it: the digest that is known first.
        name: LayerName,
        /// The state.
        state: LayerState,
    },
    /// What a pull is going to do, before it begins.
    Plan(PullPlan),
    /// More of a layer has been downloaded.
    Downloaded {
        /// Its number in this operation.
        index: usize,
        /// Bytes of its blob that are here, those from earlier attempts included.
        done: u64,
        /// Bytes of its blob.
        total: u64,
    },
    /// More of a layer has been uploaded.
    Uploaded {
        /// Its number in this operation.
        index: usize,
        /// Bytes of its blob that have been sent.
        done: u64,
    },
    /// A layer gets on.
    Progress {
        /// Its number in this operation.
        index: usize,
        /// Bytes of its blob that are unpacked, or written.
        done: u64,
        /// Bytes of its blob, if known.
        total: Option<u64>,
    },
    /// A layer was unpacked.
    Unpacked {
        /// Its number in this operation.
        index: usize,
        /// What to call it.
        name: LayerName,
        /// Its programs that run with more rights than whoever starts them.
        privileged: Privileged,
        /// How many device nodes it lists.
        devices: u64,
    },
    /// Something that a person should know, and that is no error.
    Note(String),
}

/// What a pull has to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PullPlan {
    /// Layers and other blobs of the image.
    pub blobs: usize,
    /// Those that are to be fetched, at least in part.
    pub missing: usize,
    /// Bytes to fetch.
    pub fetch: u64,
    /// Bytes that earlier attempts have fetched.
    pub resume: u64,
    /// Bytes of blobs that are in the store already.
    pub reuse: u64,
    /// Bytes of the blobs that are to be unpacked. Unpacked, layers take two to three times as much.
    pub unpack: u64,
    /// Bytes that are free where the store is.
    pub available: u64,
}

impl PullPlan {
    /// Bytes that it will take, as an estimate: layers at least double when they are unpacked.
    pub fn needed(&self) -> u64 {
        self.fetch.saturating_add(self.unpack.saturating_mul(2))
    }
}

/// What a layer is called in messages.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum LayerName {
    /// A digest of its compressed or uncompressed form.
    Digest(Digest),
    /// Its name in an archive, where nothing else is known yet.
    Member(String),
}

impl LayerName {
    /// Twelve digits of the digest, or the name.
    pub fn short(&self) -> Cow<'_, str> {
        match self {
            Self::Digest(digest) => digest.short().into(),
            Self::Member(name) => name.into(),
        }
    }
}

impl std::fmt::Display for LayerName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Digest(digest) => digest.fmt(f),
            Self::Member(name) => name.escape_debug().fmt(f),
        }
    }
}

/// How far a layer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum LayerState {
    /// Another process or thread is at it; its result will be used.
    Waiting,
    /// It is being downloaded; unpacking begins with the first bytes.
    Downloading {
        /// Bytes of its blob.
        total: u64,
        /// Those of them that an earlier attempt has left.
        resumed: u64,
    },
    /// It is being received and unpacked.
    Unpacking {
        /// Bytes of its blob, if known.
        total: Option<u64>,
    },
    /// It is being uploaded.
    Uploading {
        /// Bytes of its blob.
        total: u64,
    },
    /// It is being written into an archive.
    Saving {
        /// Bytes of its blob.
        total: u64,
    },
    /// The registry has it from another repository.
    Mounted,
    /// It was there.
    AlreadyExists,
    /// It is in the store now, or in the registry or archive.
    Done {
        /// Bytes of its blob.
        size: u64,
    },
}

/// Takes news. Called from several threads, at most once in a few hundred kilobytes of a layer. Some of them are
/// confined to the store ([`UnpackPolicy::sandbox`](crate::UnpackPolicy)) and cannot open files.
pub type Listener<'a> = dyn Fn(Event) + Sync + 'a;
