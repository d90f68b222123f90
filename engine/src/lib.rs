//! The image store for Linux containers, as a library.
//!
//! [`Layerstore`] is the one type to start from. Nothing here prints, reads the environment or keeps
//! global state; what an operation tells while it runs goes to the listener it is given.

#![warn(clippy::missing_errors_doc)]

#[cfg(feature = "async")]
mod asynchronous;
mod build;
mod bundle;
mod cancel;
mod changes;
mod collect;
mod compose;
mod containers;
mod error;
mod event;
mod export;
mod fixup;
mod gone;
mod images;
mod in_use;
mod info;
mod layers;
mod load;
mod mount;
mod names;
mod options;
mod parts;
mod pins;
mod policy;
mod pull;
mod push;
mod ready;
mod refetch;
mod remote;
mod remove;
mod rootfs;
mod save;
mod snapshots;
mod sources;
mod usage;
mod watermark;
mod why;

use std::path::Path;

use layerstore_store::{Store, Surroundings};
use layerstore_unpack::Options;

#[cfg(feature = "async")]
pub use asynchronous::{AsyncLayerstore, Progress};
pub use build::{Built, CommitOptions, ImportOptions};
pub use bundle::{
    Bundle, BundleDirectory, BundleError, BundleOptions, RuntimeConfig, VolumeDirectory, Volumes,
};
pub use cancel::Cancel;
pub use changes::{Change, ChangeKind};
pub use collect::{Collected, CollectedKind, CollectedObject, RemovedName};
pub use containers::{Container, CreateOptions, Exported};
pub use error::{Error, Result};
pub use event::{Event, LayerName, LayerState, Listener, PullPlan};
pub use images::{HistoryStep, ImageSummary};
pub use info::Info;
pub use layerstore_archive::ArchiveForm;
pub use layerstore_gc::{Cause, Evict, Goal, Kept, LabelFilter, Policy, Reason, Scope, Stays, familiar};
pub use layerstore_oci as oci;
pub use layerstore_registry as registry;
/// What went wrong in the store itself.
pub use layerstore_store::Error as StoreError;
pub use layerstore_store::{
    IdMap, IdRange, LOCAL, Labels, LayerDigest, MAX_LABEL, Mount, Settings, Size, SnapshotCommit,
    SnapshotInfo, SnapshotKind, Space, Usage,
};
pub use layerstore_unpack::{Devices, Limits, Privileged};
pub use load::{LoadOptions, LoadReport, LoadedImage, Source};
pub use mount::{Mounted, MountedWhat};
pub use policy::{Setting, UnpackPolicy};
pub use pull::{PullOptions, PullReport, When};
pub use push::{PushOptions, PushReport};
pub use remove::Removed;
pub use rootfs::{FileEntry, FileKind, ListOptions};
pub use save::{SaveOptions, SaveReport};
pub use snapshots::{Filter, FilterError, Parent, PrepareOptions, Snapshots};
pub use usage::{
    ContainerUsage, DetailedUsage, DiskUsage, ImageUsage, LayerDigests, LayerUsage, Part, PartKind,
    VariantUsage,
};
pub use why::{Chain, Eviction, FreedBy, FreedObject, Keeper, Outlook, Staying, Step, Verdict, Why};

/// An open image store. Clones are the same store.
#[derive(Debug, Clone)]
pub struct Layerstore {
    store: Store,
    unpack: Options,
    cancel: Cancel,
}

impl Layerstore {
    /// Opens the store below `root`, which is created where it does not exist.
    ///
    /// Where its filesystem is read-only, what only looks works as ever; see [`Layerstore::check_writable`].
    ///
    /// # Errors
    ///
    /// `InvalidInput` for a directory that holds something else; `Unsupported` for a store of a newer version; `Io`
    /// for one that cannot be read.
    ///
    /// # Example
    ///
    /// ```no_run
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let store = layerstore::Layerstore::open("/var/lib/layerstore".as_ref())?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn open(root: &Path) -> Result<Self> {
        let store = Store::open(root, Surroundings::default())?;
        Ok(Self { store, unpack: options::for_this_process(), cancel: Cancel::default() })
    }

    /// Whether anything can be written. On a filesystem that is read-only whatever writes fails sooner or later; with this
    /// it fails at once.
    ///
    /// # Errors
    ///
    /// [`StoreError::ReadOnly`], of the kind `Io`, where the filesystem was read-only when the store was opened.
    pub fn check_writable(&self) -> Result<()> {
        Ok(self.store.check_writable()?)
    }

    /// Refuses to read or write trees in a store whose trees another kind of user has unpacked: their marks would not
    /// be seen, and owners would be mixed up.
    pub(crate) fn check_flavour(&self) -> Result<()> {
        let flavour = options::flavour(&self.unpack);
        let found = self.store.settled_fact("trees", flavour)?;
        if found == flavour {
            return Ok(());
        }
        let root = self.store.layout().root().to_owned();
        Err(Error::OtherFlavour { root, found, wanted: flavour })
    }
}
