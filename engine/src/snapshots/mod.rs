//! Snapshots, with the semantics of containerd's snapshot service.

mod filter;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use layerstore_oci::Digest;
use layerstore_store::{
    Labels, Mount, MountPoint, MountRow, NewSnapshot, Settings, SnapshotCommit, SnapshotInfo, SnapshotKind,
    Subject, Usage,
};

pub use self::filter::{Filter, FilterError};
use crate::Layerstore;
use crate::error::{Error, Result};
use crate::event::Listener;
use crate::mount::unpackable;
use crate::ready::Ready;

/// What a snapshot is put above.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Parent<'a> {
    /// Nothing: it begins empty.
    #[default]
    Nothing,
    /// A committed snapshot of the same owner.
    Snapshot(&'a str),
    /// An image, by a name or an ID. Its layers are unpacked first where they are not.
    Image(&'a str),
}

/// How to make a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PrepareOptions {
    /// Labels.
    pub labels: Labels,
    /// How it is mounted, and how much may be written to it.
    pub settings: Settings,
}

/// The snapshots of one owner, see [`Layerstore::snapshots`].
#[derive(Debug, Clone)]
pub struct Snapshots<'a> {
    layerstore: &'a Layerstore,
    owner: String,
}

impl Layerstore {
    /// The snapshots of `owner`. Owners do not see each other's keys, and share the trees of layers.
    ///
    /// `local` is who makes containers and images on the command line. A container's snapshot has the container's ID as
    /// key, and cannot be committed or removed as a snapshot.
    ///
    /// # Example
    ///
    /// ```no_run
    /// use layerstore::{Layerstore, Parent, PrepareOptions};
    ///
    /// # fn main() -> layerstore::Result<()> {
    /// let store = Layerstore::open("/var/lib/layerstore".as_ref())?;
    /// let snapshots = store.snapshots("my-runtime");
    /// snapshots.prepare("c1", Parent::Image("alpine:3"), &PrepareOptions::default(), &|_| {})?;
    /// let mount = snapshots.mounts("c1")?;
    /// println!("mount -t {} {:?} -o {:?}", mount.kind, mount.source, mount.options);
    /// # Ok(())
    /// # }
    /// ```
    pub fn snapshots(&self, owner: &str) -> Snapshots<'_> {
        Snapshots { layerstore: self, owner: owner.to_owned() }
    }
}

impl Snapshots<'_> {
    /// Makes an active snapshot: one that can be mounted, written to and committed.
    ///
    /// # Errors
    ///
    /// `AlreadyExists` if there is a snapshot with this key, of whatever kind; `NotFound` without the parent;
    /// `InvalidInput` for a parent that is not committed; `Unsupported` for a quota that the filesystem cannot keep.
    pub fn prepare(
        &self,
        key: &str,
        parent: Parent<'_>,
        options: &PrepareOptions,
        listener: &Listener<'_>,
    ) -> Result<SnapshotInfo> {
        let (new, below) = self.above(key, parent, options, listener)?;
        let store = &self.layerstore.store;
        if options.settings.has_quota() {
            store.check_quota_support()?;
        }
        self.layerstore.mount_options(&options.settings)?;
        let tree = self.layerstore.tree_above(&below)?;
        let info = store.insert_snapshot(&new, Some(tree))?;
        self.layerstore.limit_or_remove(&info)?;
        Ok(info)
    }

    /// Makes a view: one that can be mounted read-only.
    ///
    /// # Errors
    ///
    /// As for [`Snapshots::prepare`].
    pub fn view(
        &self,
        key: &str,
        parent: Parent<'_>,
        options: &PrepareOptions,
        listener: &Listener<'_>,
    ) -> Result<SnapshotInfo> {
        let (new, _) = self.above(key, parent, options, listener)?;
        self.layerstore.mount_options(&options.settings)?;
        Ok(self.layerstore.store.insert_snapshot(&new, None)?)
    }

    /// What is to be recorded, and the trees that it is above, topmost first.
    fn above(
        &self,
        key: &str,
        parent: Parent<'_>,
        options: &PrepareOptions,
        listener: &Listener<'_>,
    ) -> Result<(NewSnapshot, Vec<layerstore_store::TreeId>)> {
        let store = &self.layerstore.store;
        let mut new = NewSnapshot {
            owner: self.owner.clone(),
            key: key.to_owned(),
            parent: None,
            layers: Vec::new(),
            labels: options.labels.clone(),
            settings: options.settings.clone(),
        };
        // Before anything is unpacked for it.
        if store.find_snapshot(&self.owner, key)?.is_some() {
            return Err(layerstore_store::Error::Exists { what: "snapshot", name: key.to_owned() }.into());
        }
        let below = match parent {
            Parent::Nothing => Vec::new(),
            Parent::Snapshot(parent) => {
                let info = store.snapshot(&self.owner, parent)?;
                if info.kind != SnapshotKind::Committed {
                    let (key, kind) = (info.key, info.kind);
                    return Err(layerstore_store::Error::ParentNotCommitted { key, kind }.into());
                }
                new.parent = Some(parent.to_owned());
                self.layerstore.ready(&self.owner, parent, parent, listener)?.trees()
            }
            Parent::Image(name) => {
                let found = self.layerstore.find(name)?;
                let image = unpackable(name, &found)?;
                let trees = self.layerstore.unpacked(image, listener)?;
                let layers = store.layers(&image.manifest)?;
                new.layers = layers.into_iter().map(|layer| layer.diff_id).collect();
                trees
            }
        };
        Ok((new, below))
    }

    /// How to mount an active snapshot or a view, as data for mount(2) or a runtime.
    ///
    /// # Errors
    ///
    /// `NotFound` for an unknown key; `WrongState` for a committed snapshot; `Corrupt` if its files are gone or cannot be
    /// trusted.
    pub fn mounts(&self, key: &str) -> Result<Mount> {
        let (info, ready) = self.mountable(key, &|_| {})?;
        let options = self.layerstore.mount_options(&info.settings)?;
        let stack = self.layerstore.stack_of(&ready);
        if let Some(upper) = &stack.upper {
            self.layerstore.store.hand_out(&self.owner, key)?;
            self.layerstore.store.prepare_upper(&self.owner, key, upper, &options)?;
        }
        Ok(stack.as_mount(self.layerstore.store.layout(), &options)?)
    }

    fn mountable(&self, key: &str, listener: &Listener<'_>) -> Result<(SnapshotInfo, Ready)> {
        let info = self.layerstore.store.snapshot(&self.owner, key)?;
        if info.kind == SnapshotKind::Committed {
            let wanted = "only an active snapshot or a view can be mounted";
            let (key, kind) = (info.key, info.kind);
            return Err(layerstore_store::Error::WrongKind { key, kind, wanted }.into());
        }
        let ready = self.layerstore.ready(&self.owner, key, &format!("snapshot {key}"), listener)?;
        if let Some(own) = &ready.own {
            self.layerstore.store.ensure_work(own)?;
        }
        Ok((info, ready))
    }

    /// Mounts an active snapshot or a view at `directory`, or at a directory of the store's own, and returns where.
    ///
    /// # Errors
    ///
    /// As for [`Snapshots::mounts`]; `AlreadyExists` if it is mounted elsewhere, or something else there;
    /// `InvalidInput` for a directory that is none.
    pub fn mount(&self, key: &str, directory: Option<&Path>, listener: &Listener<'_>) -> Result<PathBuf> {
        let name = Digest::sha256_of(format!("{}\0{key}", self.owner).as_bytes());
        self.mount_as(key, &name.short(), directory, listener)
    }

    pub(crate) fn mount_as(
        &self,
        key: &str,
        own_name: &str,
        directory: Option<&Path>,
        listener: &Listener<'_>,
    ) -> Result<PathBuf> {
        let store = &self.layerstore.store;
        store.forget_stale_mounts()?;
        self.layerstore.refuse_over_store(directory)?;
        let (info, ready) = self.mountable(key, listener)?;
        let options = self.layerstore.mount_options(&info.settings)?;
        let point = directory.map_or(MountPoint::Own(own_name), MountPoint::At);
        let subject = Subject::Snapshot { owner: self.owner.clone(), key: key.to_owned() };
        let stack = self.layerstore.stack_of(&ready);
        Ok(store.mount(&subject, &ready.trees(), point, &stack, &options)?)
    }

    /// Unmounts what [`Snapshots::mount`] mounted, and returns where it was.
    ///
    /// # Errors
    ///
    /// `NotFound` if it is not mounted; `InUse` if programs use it, or if it is in another mount namespace.
    pub fn unmount(&self, key: &str) -> Result<PathBuf> {
        match self.mount_row(key)? {
            None => Err(Error::NotMounted { name: key.to_owned() }),
            Some(row) => {
                self.layerstore.store.unmount(&row)?;
                Ok(row.target)
            }
        }
    }

    pub(crate) fn mount_row(&self, key: &str) -> Result<Option<MountRow>> {
        let subject = Subject::Snapshot { owner: self.owner.clone(), key: key.to_owned() };
        Ok(self.layerstore.store.live_mounts()?.into_iter().find(|row| row.subject == subject))
    }

    /// Turns the active snapshot `key` into the committed one `name`, however many files it has.
    ///
    /// # Errors
    ///
    /// `NotFound` for an unknown key or parent; `AlreadyExists` for a name that is taken; `WrongState` for a snapshot that
    /// is not active, and a parent that is not committed; `InvalidInput` for another parent than it has; `InUse` for one
    /// that is mounted, or a container's.
    pub fn commit(&self, name: &str, key: &str, commit: &SnapshotCommit) -> Result<SnapshotInfo> {
        let store = &self.layerstore.store;
        let info = store.commit_snapshot(&self.owner, name, key, commit)?;
        Ok(info)
    }

    /// Removes a snapshot and what was written to it.
    ///
    /// # Errors
    ///
    /// `NotFound` for an unknown key; `InUse` for one that is mounted, has children, or is an image's or a container's;
    /// these are named, and nothing is done.
    pub fn remove(&self, key: &str) -> Result<()> {
        let discarded = self.layerstore.store.remove_snapshot(&self.owner, key)?;
        Ok(self.layerstore.store.unlink_discarded(discarded)?)
    }

    /// What is known of a snapshot.
    ///
    /// # Errors
    ///
    /// `NotFound` for an unknown key.
    pub fn stat(&self, key: &str) -> Result<SnapshotInfo> {
        Ok(self.layerstore.store.snapshot(&self.owner, key)?)
    }

    /// Replaces all labels.
    ///
    /// # Errors
    ///
    /// `NotFound` for an unknown key; `InvalidInput` for a label that is longer than [`layerstore_store::MAX_LABEL`].
    pub fn set_labels(&self, key: &str, labels: &Labels) -> Result<SnapshotInfo> {
        Ok(self.layerstore.store.set_snapshot_labels(&self.owner, key, labels)?)
    }

    /// Sets one label, or removes it.
    ///
    /// # Errors
    ///
    /// As for [`Snapshots::set_labels`].
    pub fn set_label(&self, key: &str, label: &str, value: Option<&str>) -> Result<SnapshotInfo> {
        let change = |labels: &mut Labels| {
            match value {
                Some(value) => labels.insert(label.to_owned(), value.to_owned()),
                None => labels.remove(label),
            };
        };
        Ok(self.layerstore.store.change_snapshot_labels(&self.owner, key, change)?)
    }

    /// Hands out all snapshots that one of `filters` lets through, or all if there are none, by key. Ends early when
    /// `each` says so.
    ///
    /// # Errors
    ///
    /// Only those of the store itself.
    pub fn walk(
        &self,
        filters: &[Filter],
        mut each: impl FnMut(SnapshotInfo) -> ControlFlow<()>,
    ) -> Result<()> {
        Ok(self.layerstore.store.walk_snapshots(&self.owner, |info| {
            if filters.is_empty() || filters.iter().any(|filter| filter.matches(&info)) {
                each(info)
            } else {
                ControlFlow::Continue(())
            }
        })?)
    }

    /// What the snapshot itself takes, without its parents: counted now for an active one, known for a layer, and counted
    /// once for what was committed.
    ///
    /// # Errors
    ///
    /// `NotFound` for an unknown key; `Corrupt` if its files are gone.
    pub fn usage(&self, key: &str) -> Result<Usage> {
        let store = &self.layerstore.store;
        let kind = store.snapshot(&self.owner, key)?.kind;
        let Some((tree, counted)) = store.written(&self.owner, key)? else { return Ok(Usage::default()) };
        if let Some(usage) = counted {
            return Ok(usage);
        }
        let path = store.layout().diff(&tree);
        if !path.is_dir() {
            return Err(layerstore_store::Error::LostTree { what: format!("snapshot {key}"), path }.into());
        }
        let found = layerstore_unpack::usage(&path)
            .map_err(|source| Error::Count { what: format!("snapshot {key}"), source })?;
        let allocated = found.allocated.saturating_add(store.measure_beside(&tree)?);
        let usage = Usage { bytes: found.bytes, allocated, inodes: found.inodes };
        // What was active when the count began may have been written to since.
        if kind == SnapshotKind::Committed {
            store.record_usage(&tree, usage)?;
        }
        Ok(usage)
    }
}

impl Layerstore {
    /// Puts the limits of a new snapshot in force; it goes again if they cannot be.
    pub(crate) fn limit_or_remove(&self, info: &SnapshotInfo) -> Result<()> {
        if !info.settings.has_quota() {
            return Ok(());
        }
        self.store.limit_snapshot(&info.owner, &info.key).inspect_err(|_| {
            if let Err(second) = self.store.remove_snapshot(&info.owner, &info.key) {
                tracing::warn!(error = %second, key = info.key, "a snapshot without its quota stays");
            }
        })?;
        Ok(())
    }
}
