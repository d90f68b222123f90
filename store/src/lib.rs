//! Everything of layerstore that lasts: blobs, trees, references, sessions, locks and mounts.
//!
//! # On disk
//!
//! ```text
//! ROOT/                   mode 0700: trees hold set-user-ID files of strangers
//!   layerstore.db         SQLite, WAL; see the schema module. Its `-wal` and `-shm` stay when nobody uses it
//!   lock                  its byte ranges are the locks between processes
//!   blobs/<alg>/<hex>     complete, durable, never changed, mode 0444 (the OCI layout's form)
//!   ingest/<session>/     what a live session has not completed
//!   partial/<alg>-<hex>   the beginning of a blob whose download was interrupted
//!   overlay2/<id>/diff    one tree
//!   trash/<name>          forgotten, waiting to be unlinked
//!   mnt/<image>           mount points that the store made
//!   empty/{0,1}           fill up an overlay's stack
//!   reserve               some space for when the disk is full
//! ```
//!
//! # What may be relied on after a crash
//!
//! A blob with a row is complete and durable: its data, then its name, then its row were synced in
//! this order. A tree with a row is complete and verified, but only durable once `synced`; until
//! then it is trusted as long as the boot and the mount are those it was written under, and rebuilt
//! from its blob otherwise. A file without a row is debris of a killed command: that of a
//! session goes with the next one, all of it with the next collection. Deleting goes the other way
//! round: the row's removal is durable before a file is touched.

mod blob;
mod clock;
mod container;
mod db;
mod disk;
mod error;
mod evicted;
mod fixup;
mod forget;
mod graph;
mod image;
mod in_use;
mod ingest;
mod key;
mod last_use;
mod layout;
mod listing;
mod lock;
mod log_files;
mod log_index;
mod look;
mod made;
mod meta;
mod mount;
mod overlay;
mod partial;
mod place;
mod publish;
mod quota;
mod recover;
mod reference;
mod remove;
mod reserve;
mod scan;
mod schema;
mod session;
mod size;
mod snapshot;
mod store;
mod tables;
mod totals;
mod trash;
mod tree;
mod unknown;
mod walk;

pub use blob::BlobInfo;
pub use clock::{Clock, Life, SystemClock, UnixSeconds};
pub use container::{ContainerRow, NewContainer};
pub use disk::{Disk, SystemDisk};
pub use error::{Error, Result};
pub use fixup::Unsettled;
pub use forget::{Forgotten, Unless, Untag, Victim};
pub use graph::{
    Graph, GraphBuilder, ImageFacts, LayerFacts, NameRoot, Node, NodeKind, Object, Root, RootKind,
};
pub use image::{Edge, EdgeKind, ImageCommit, ImageInfo, ImageRow, LayerRow, NewImage};
pub use ingest::{Fate, Ingest, IngestReader, Received};
pub use layout::{Layout, TreeId};
pub use lock::{Claim, Key};
pub use mount::{MountPoint, MountRow, Subject, Use};
pub use overlay::{
    IdMap, IdRange, MAX_LAYERS, Mount, MountApi, MountOptions, Stack, Upper, clear_volatile,
    has_volatile_mark,
};
pub use partial::Partial;
pub use publish::{NewBlob, NewTree, Publication};
pub use quota::{Quota, QuotaUsage, clear_quota, quota_support, quota_usage, set_quota};
pub use recover::Recovered;
pub use reference::{LOCAL, ReferenceRow};
pub use scan::{IngestSpace, Missing, Scan, Unknown};
pub use session::{Session, TreeDirectory};
pub use size::Size;
pub use snapshot::{
    Discarded, Labels, Link, LinkTree, MAX_KEY, MAX_LABEL, NewSnapshot, Settings, SnapshotCommit,
    SnapshotInfo, SnapshotKind, WritableTree,
};
pub use store::{Store, Surroundings};
pub use totals::{LayerDigest, Space, Totals};
pub use tree::{Presence, TreeInfo, Usage};
pub use unknown::{Discard, Fate as DiscardFate};
