//! A bundle with a container of its own.

use std::path::{Path, PathBuf};

use super::{BundleDirectory, BundleOptions};
use crate::Layerstore;
use crate::containers::{Container, CreateOptions};
use crate::error::Result;
use crate::event::Listener;
use crate::mount::unpackable;

/// A bundle that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bundle {
    /// Its directory.
    pub path: PathBuf,
    /// The container whose files are at `rootfs` below it.
    pub container: Container,
    /// What of the image's config was left out, and why: sentences for a person.
    pub notes: Vec<String>,
}

impl Layerstore {
    /// Makes an OCI runtime bundle in `directory`, which is absent or empty: a new container of `image`, mounted at
    /// `rootfs`, and a `config.json` with what the image says. runc and crun run it as it is.
    ///
    /// The ID maps of `options` are also those of the container's mount. Afterwards
    /// [`remove_container`](Layerstore::remove_container) unmounts and removes the container; the directory is the
    /// caller's.
    ///
    /// # Errors
    ///
    /// `NotFound` if there is no such image; `AlreadyExists` for a directory with something in it, or a name that is taken;
    /// `InvalidInput` where image or options make no sense, see [`BundleError`](super::BundleError); `Unsupported` without
    /// the privilege to mount. After an error nothing of it is left.
    pub fn bundle(
        &self,
        image: &str,
        directory: &Path,
        create: &CreateOptions,
        options: &BundleOptions,
        listener: &Listener<'_>,
    ) -> Result<Bundle> {
        let found = self.find(image)?;
        let info = unpackable(image, &found)?;
        let config = self.runtime_config_of(image, info, options, listener)?;
        let mut bundle = BundleDirectory::create(directory, mapped_group(options))?;
        self.refuse_over_store(Some(&bundle.rootfs()))?;
        let mut create = create.clone();
        create.settings.uid_map.clone_from(&options.uid_map);
        create.settings.gid_map.clone_from(&options.gid_map);
        let container = self.create_from(image, info, &create, listener)?;
        let made = self.mount_container(&container.id, Some(&bundle.rootfs()), listener).and_then(|_| {
            bundle.make_volumes(&config)?;
            bundle.write_config(&config)
        });
        if let Err(error) = made {
            if let Err(second) = self.remove_container(&container.id, true) {
                tracing::warn!(error = %second, container = container.name, "the container of a failed bundle stays");
            }
            return Err(error);
        }
        let container = self.container(&container.id)?;
        Ok(Bundle { path: bundle.commit(), container, notes: config.notes })
    }
}

/// The group on the host that the root of the container's user namespace has.
fn mapped_group(options: &BundleOptions) -> Option<u32> {
    options.gid_map.iter().find(|range| range.container == 0).map(|range| range.host)
}
