//! What kind of store this is.

use std::path::PathBuf;

use layerstore_store::LOCAL;
use layerstore_unpack::{OverlayXattr, Ownership};

use crate::Layerstore;
use crate::error::Result;

/// A store at a glance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Info {
    /// Its root.
    pub root: PathBuf,
    /// Type of the filesystem it is on, as in `/proc/mounts`.
    pub filesystem: String,
    /// Bytes free for this user on that filesystem.
    pub available: u64,
    /// Names of images.
    pub references: u64,
    /// Images: distinct IDs.
    pub images: u64,
    /// Blobs and their bytes.
    pub blobs: (u64, u64),
    /// Trees and their bytes.
    pub trees: (u64, u64),
    /// Downloads under way and interrupted ones, and what they have.
    pub partials: (u64, u64),
    /// Mounted images.
    pub mounts: u64,
    /// Namespace of the extended attributes that overlayfs reads: `trusted` or `user`.
    pub overlay_xattrs: &'static str,
    /// Whether owners, devices and privileged attributes are kept.
    pub keeps_owners: bool,
    /// Whether the kernel can confine the threads that unpack.
    pub sandbox_available: bool,
    /// Whether the store's settings ask for it.
    pub sandbox_wanted: bool,
    /// The kernel's release.
    pub kernel: String,
}

impl Layerstore {
    /// Describes the store.
    ///
    /// # Errors
    ///
    /// Only those of the store itself.
    ///
    /// # Example
    ///
    /// ```no_run
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let store = layerstore::Layerstore::open("/var/lib/layerstore".as_ref())?;
    /// println!("{} images", store.info()?.images);
    /// # Ok(())
    /// # }
    /// ```
    pub fn info(&self) -> Result<Info> {
        let root = self.store.layout().root().to_owned();
        let totals = self.store.totals()?;
        let images = self.images()?;
        let ids: std::collections::HashSet<_> = images.iter().map(|image| &image.id).collect();
        let space = self.store.space()?;
        Ok(Info {
            filesystem: space.filesystem,
            available: space.available,
            root,
            references: self.store.references(LOCAL)?.len() as u64,
            images: ids.len() as u64,
            blobs: totals.blobs,
            trees: totals.trees,
            partials: {
                let partials = self.store.partials()?;
                (partials.len() as u64, partials.iter().map(|partial| partial.bytes).sum())
            },
            mounts: self.store.live_mounts()?.len() as u64,
            overlay_xattrs: match self.unpack.overlay {
                OverlayXattr::Trusted => "trusted",
                OverlayXattr::User => "user",
            },
            keeps_owners: self.unpack.ownership == Ownership::Layer,
            sandbox_available: layerstore_unpack::sandbox_is_available(),
            sandbox_wanted: self.unpack_policy()?.sandbox,
            kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
        })
    }
}
