//! Containers: root filesystems made from images, that people give names to.

mod files;
mod inspect;
mod names;

use std::path::{Path, PathBuf};

use layerstore_oci::{Digest, ErrorKind};
use layerstore_store::{
    ContainerRow, ImageInfo, LOCAL, Labels, MountRow, NewContainer, NewSnapshot, Settings, Subject, Usage,
    Use,
};

use crate::Layerstore;
use crate::error::{Error, Result};
use crate::event::Listener;
use crate::mount::unpackable;
use crate::ready::Ready;

pub use files::Exported;

/// How to make a container.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CreateOptions {
    /// Its name; one that is free is chosen if there is none.
    pub name: Option<String>,
    /// Labels.
    pub labels: Labels,
    /// How it is mounted, and how much may be written to it.
    pub settings: Settings,
}

/// A container: a writable tree above those of an image. No program runs in it unless a runtime is told to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// 64 hexadecimal digits.
    pub id: String,
    /// Its name.
    pub name: String,
    /// The image as it was asked for.
    pub image: String,
    /// The image ID.
    pub image_id: Option<Digest>,
    /// The image's manifest, which stays as long as the container.
    pub manifest: Digest,
    /// What the image runs: entrypoint and command.
    pub command: Vec<String>,
    /// Labels.
    pub labels: Labels,
    /// How it is mounted.
    pub settings: Settings,
    /// When it was created, in seconds since 1970.
    pub created_at: i64,
    /// Where it is mounted.
    pub mounted: Option<PathBuf>,
}

impl Layerstore {
    /// Makes a container from an image: a writable tree above those of its layers, which are unpacked if they are not.
    ///
    /// # Errors
    ///
    /// `NotFound` if there is no such image; `AlreadyExists` for a name that is taken; `InvalidInput` for one that no
    /// container can have; `Unsupported` for an artifact that is no image, and for a quota that the filesystem cannot keep.
    ///
    /// # Example
    ///
    /// ```no_run
    /// # fn main() -> layerstore::Result<()> {
    /// let store = layerstore::Layerstore::open("/var/lib/layerstore".as_ref())?;
    /// let container = store.create("alpine:3", &Default::default(), &|_| {})?;
    /// let path = store.mount_container(&container.name, None, &|_| {})?;
    /// std::fs::write(path.join("etc/motd"), "welcome\n").unwrap();
    /// store.remove_container(&container.name, true)?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn create(&self, image: &str, options: &CreateOptions, listener: &Listener<'_>) -> Result<Container> {
        self.with_image(image, |found| self.create_from(image, unpackable(image, found)?, options, listener))
    }

    /// The same from an image that was found by the name `image`.
    pub(crate) fn create_from(
        &self,
        image: &str,
        info: &ImageInfo,
        options: &CreateOptions,
        listener: &Listener<'_>,
    ) -> Result<Container> {
        if let Some(name) = &options.name {
            names::check(name)?;
            // Before anything is unpacked for it.
            if let Some(row) = self.store.find_containers(name)?.into_iter().find(|row| row.name == *name) {
                let name = name.clone();
                return Err(layerstore_store::Error::NameTaken { name, id: row.id }.into());
            }
        }
        self.mount_options(&options.settings)?;
        if options.settings.has_quota() {
            self.store.check_quota_support()?;
        }
        self.store.settle()?;
        let below = self.unpacked(info, listener)?;
        let layers = self.store.layers(&info.manifest)?;
        let layers: Vec<_> = layers.into_iter().map(|layer| layer.diff_id).collect();
        let id = names::new_id()?;
        let manifest = info.manifest.clone();
        loop {
            let name = match &options.name {
                Some(name) => name.clone(),
                None => names::random()?,
            };
            let snapshot = NewSnapshot {
                owner: LOCAL.to_owned(),
                key: id.clone(),
                parent: None,
                layers: layers.clone(),
                labels: Labels::new(),
                settings: options.settings.clone(),
            };
            let container = NewContainer {
                id: id.clone(),
                name,
                manifest: manifest.clone(),
                image: image.to_owned(),
                labels: options.labels.clone(),
            };
            let tree = self.tree_above(&below)?;
            match self.store.insert_container(&container, &snapshot, tree) {
                Ok(_) => break,
                Err(layerstore_store::Error::NameTaken { .. }) if options.name.is_none() => {}
                Err(error) => return Err(error.into()),
            }
        }
        if options.settings.has_quota()
            && let Err(error) = self.store.limit_snapshot(LOCAL, &id)
        {
            self.store.unlink_discarded(self.store.remove_container(&id, Use::Any)?)?;
            return Err(error.into());
        }
        self.container(&id)
    }

    /// All containers, the latest first.
    ///
    /// # Errors
    ///
    /// Only those of the store itself.
    pub fn containers(&self) -> Result<Vec<Container>> {
        let mounts = self.store.live_mounts()?;
        let rows = self.store.containers()?;
        Ok(rows.into_iter().map(|row| self.describe_container(row, &mounts)).collect())
    }

    /// A container by its name, its ID, or the beginning of its ID.
    ///
    /// # Errors
    ///
    /// `NotFound` if there is none; `InvalidInput` if several IDs begin like this.
    pub fn container(&self, name: &str) -> Result<Container> {
        let row = self.container_row(name)?;
        Ok(self.describe_container(row, &self.store.live_mounts()?))
    }

    pub(crate) fn container_row(&self, name: &str) -> Result<ContainerRow> {
        // As Docker's `inspect` prints it.
        let name = name.strip_prefix('/').unwrap_or(name);
        let mut rows = self.store.find_containers(name)?;
        if rows.len() > 1 {
            // One may have a name that is the ID of another; the name counts.
            if let Some(named) = rows.iter().position(|row| row.name == name) {
                return Ok(rows.swap_remove(named));
            }
            let names = rows.into_iter().map(|row| row.name).collect();
            return Err(Error::AmbiguousContainer { prefix: name.to_owned(), names });
        }
        rows.pop().ok_or_else(|| Error::NoContainer { name: name.to_owned() })
    }

    /// Whether `name` is that of a container, or its whole ID: these come before images of the same name.
    pub(crate) fn is_container(&self, name: &str) -> Result<bool> {
        let rows = self.store.find_containers(name)?;
        Ok(rows.iter().any(|row| row.name == name || row.id == name))
    }

    fn describe_container(&self, row: ContainerRow, mounts: &[MountRow]) -> Container {
        let wanted = subject(&row.id);
        let mounted = mounts.iter().find(|mount| mount.subject == wanted).map(|mount| mount.target.clone());
        // A config that cannot be read must not keep anybody from listing or removing the container.
        let config = row.config.as_ref().and_then(|config| self.config(config).ok());
        let command = config.map(|config| [config.config.entrypoint, config.config.cmd].concat());
        Container {
            id: row.id,
            name: row.name,
            image: row.image,
            image_id: row.config,
            manifest: row.manifest,
            command: command.unwrap_or_default(),
            labels: row.labels,
            settings: row.settings,
            created_at: row.created_at,
            mounted,
        }
    }

    /// Mounts a container at `directory`, or at a directory of the store's own, and returns where. One that is mounted at
    /// the store's own directory already stays there.
    ///
    /// # Errors
    ///
    /// `NotFound` if there is no such container or directory; `InUse` if it is mounted elsewhere; `AlreadyExists` if
    /// something else is mounted there; `InvalidInput` for a directory that is none; `Corrupt` if its files have been deleted.
    pub fn mount_container(
        &self,
        name: &str,
        directory: Option<&Path>,
        listener: &Listener<'_>,
    ) -> Result<PathBuf> {
        let row = self.container_row(name)?;
        let own_name = row.id.get(..12).unwrap_or(&row.id);
        self.with_container(&row, || self.snapshots(LOCAL).mount_as(&row.id, own_name, directory, listener))
    }

    /// Mounts a container or, if there is none of this name, an image.
    ///
    /// # Errors
    ///
    /// As for [`Layerstore::mount_container`] and [`Layerstore::mount_image`].
    pub fn mount(&self, name: &str, directory: Option<&Path>, listener: &Listener<'_>) -> Result<PathBuf> {
        if self.is_container(name)? {
            return self.mount_container(name, directory, listener);
        }
        match self.find(name) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                match self.mount_container(name, directory, listener) {
                    Err(Error::NoContainer { .. }) => {
                        Err(Error::NoImageOrContainer { name: name.to_owned() })
                    }
                    other => other,
                }
            }
            _ => self.mount_image(name, directory, listener),
        }
    }

    /// Gives a container another name.
    ///
    /// # Errors
    ///
    /// `NotFound` if there is no such container; `AlreadyExists` if another has the name.
    pub fn rename_container(&self, name: &str, new_name: &str) -> Result<()> {
        let row = self.container_row(name)?;
        names::check(new_name)?;
        Ok(self.store.rename_container(&row.id, new_name)?)
    }

    /// Removes a container and what was written to it. With `force`, one that is mounted is unmounted before.
    ///
    /// # Errors
    ///
    /// `NotFound` if there is no such container; `InUse` for one that is mounted, or whose mount is busy: then nothing is
    /// removed.
    pub fn remove_container(&self, name: &str, force: bool) -> Result<Container> {
        self.store.forget_stale_mounts()?;
        let row = self.container_row(name)?;
        let container = self.describe_container(row.clone(), &[]);
        // A container that runs is not removed; copies of its mount that came with other namespaces are in nobody's way.
        let refused = if force { Use::Root } else { Use::Any };
        if force && let Some(mount) = self.snapshots(LOCAL).mount_row(&container.id)? {
            self.store
                .refuse_container_in_use(&container.id, refused)
                .map_err(|error| named(error.into(), &row))?;
            self.store.unmount(&mount)?;
        }
        let removed = self.store.remove_container(&container.id, refused);
        let discarded = removed.map_err(|error| named(error.into(), &row))?;
        // It is removed; if its files are not unlinked now, the next collection does that.
        if let Err(error) = self.store.unlink_discarded(discarded) {
            tracing::warn!(%error, container = container.name, "files of a removed container stay in the trash");
        }
        Ok(container)
    }

    /// What the container's own files take: those that it has written.
    ///
    /// # Errors
    ///
    /// `NotFound` if there is no such container; `Corrupt` if its files have been deleted.
    pub fn container_usage(&self, name: &str) -> Result<Usage> {
        let row = self.container_row(name)?;
        self.with_container(&row, || self.snapshots(LOCAL).usage(&row.id))
    }

    /// A container, and what it is stacked from.
    pub(crate) fn ready_container(
        &self,
        name: &str,
        listener: &Listener<'_>,
    ) -> Result<(ContainerRow, Ready)> {
        let row = self.container_row(name)?;
        let what = format!("container {}", row.name);
        let ready = self.with_container(&row, || self.ready(LOCAL, &row.id, &what, listener))?;
        Ok((row, ready))
    }
}

/// What is mounted when a container is.
pub(crate) fn subject(id: &str) -> Subject {
    Subject::Snapshot { owner: LOCAL.to_owned(), key: id.to_owned() }
}

/// Says it with the container's name where the store knows only its key.
pub(crate) fn named(error: Error, row: &ContainerRow) -> Error {
    use layerstore_store::Error as Store;
    let what = || format!("container {}", row.name);
    match error {
        Error::Store(Store::SnapshotMounted { target, .. } | Store::SnapshotInUse { target, .. }) => {
            Error::ContainerMounted { name: row.name.clone(), target }
        }
        // Removed by another process since its row was read.
        Error::Store(Store::NotFound { what: "snapshot", name }) if name == row.id => {
            Error::NoContainer { name: row.name.clone() }
        }
        Error::Store(Store::InUse { user, .. }) => Store::InUse { what: what(), user }.into(),
        Error::Store(Store::LostTree { path, .. }) => Store::LostTree { what: what(), path }.into(),
        Error::Store(Store::Untrusted { reason, .. }) => Store::Untrusted { what: what(), reason }.into(),
        other => other,
    }
}
