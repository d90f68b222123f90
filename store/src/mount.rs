//! Which images the store mounted where.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use layerstore_oci::Digest;

use crate::blob::parse_digest;
use crate::db::Durability;
use crate::error::{DbContext as _, Error, IoContext as _, Result};
use crate::layout::TreeId;
use crate::overlay::{self, MountApi};
use crate::store::Store;

/// A mounted image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountRow {
    /// Where.
    pub target: PathBuf,
    /// The image's manifest.
    pub manifest: Digest,
    /// Whether the store made the directory.
    pub own_directory: bool,
}

impl Store {
    /// Mounts an image's trees read-only, topmost first, at `target` or at a directory of the
    /// store's own, and returns where. An image that is mounted at the store's own place already
    /// stays as it is. Trees that a collector has taken meanwhile are an error of kind `NotFound`.
    pub fn mount_image(
        &self,
        manifest: &Digest,
        trees: &[TreeId],
        target: Option<&Path>,
        api: MountApi,
    ) -> Result<PathBuf> {
        let (target, own_directory) = match target {
            Some(target) => (target.canonicalize().context("find the mount point", target)?, false),
            None => (self.layout().mounts().join(manifest.short()), true),
        };
        if own_directory {
            match fs::create_dir(&target) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(error).context("create", target);
                }
                _ => {}
            }
        }
        if overlay::is_mount_point(&target).context("look at", &target)? {
            let ours =
                self.live_mounts()?.into_iter().any(|row| row.target == target && row.manifest == *manifest);
            return if ours && own_directory { Ok(target) } else { Err(Error::AlreadyMounted { target }) };
        }
        // The row first, in one transaction with the check that everything is there: from then on it
        // keeps the image from collection.
        let action = "record the mount";
        self.database().write(Durability::Process, action, |tx| {
            let mut exists =
                tx.prepare_cached("SELECT EXISTS (SELECT 1 FROM tree WHERE id = ?1)").db(action)?;
            for id in trees {
                if !exists.query_row([id.as_str()], |row| row.get::<_, bool>(0)).db(action)? {
                    return Err(Error::NotFound { what: "tree", name: id.to_string() });
                }
            }
            tx.execute(
                "INSERT OR REPLACE INTO mount (target, manifest, boot_id, own_directory, created_at) \
                 VALUES (?1, ?2, ?3, ?4, ?5)",
                (
                    target.as_os_str().as_bytes(),
                    manifest.to_string(),
                    &self.life().boot,
                    own_directory,
                    self.clock().now(),
                ),
            )
            .db(action)?;
            Ok(())
        })?;
        let lowers: Vec<PathBuf> = trees.iter().map(|id| self.layout().diff(id)).collect();
        if let Err(error) = self.mount_read_only(&lowers, &target, api) {
            self.forget_mount(&MountRow { target, manifest: manifest.clone(), own_directory })?;
            return Err(error);
        }
        Ok(target)
    }

    /// Unmounts what the store mounted, and removes the directory if the store made it.
    pub fn unmount_image(&self, row: &MountRow) -> Result<()> {
        if overlay::is_mount_point(&row.target).context("look at", &row.target)? {
            overlay::unmount_at(&row.target)?;
        }
        self.forget_mount(row)
    }

    /// What is mounted now. Rows whose mount somebody else took away do not count.
    pub fn live_mounts(&self) -> Result<Vec<MountRow>> {
        let mut rows = self.mounts()?;
        rows.retain(|row| overlay::is_mount_point(&row.target).unwrap_or(true));
        Ok(rows)
    }

    /// What was mounted in this boot and not unmounted through the store.
    pub fn mounts(&self) -> Result<Vec<MountRow>> {
        let action = "list mounts";
        self.database().read(action, |db| {
            let mut statement = db
                .prepare_cached("SELECT target, manifest, own_directory FROM mount WHERE boot_id = ?1")
                .db(action)?;
            let rows = statement
                .query_map([&self.life().boot], |row| {
                    Ok((row.get::<_, Vec<u8>>(0)?, row.get::<_, String>(1)?, row.get(2)?))
                })
                .db(action)?;
            rows.map(|row| {
                let (target, manifest, own_directory) = row.db(action)?;
                let target = PathBuf::from(OsStr::from_bytes(&target));
                Ok(MountRow { target, manifest: parse_digest(&manifest)?, own_directory })
            })
            .collect()
        })
    }

    /// Forgets rows whose mount has gone: unmounted by other means, or with the machine.
    pub fn forget_stale_mounts(&self) -> Result<()> {
        for row in self.mounts()? {
            if !overlay::is_mount_point(&row.target).unwrap_or(true) {
                self.forget_mount(&row)?;
            }
        }
        let action = "forget mounts of earlier boots";
        self.database().write(Durability::Process, action, |tx| {
            tx.execute("DELETE FROM mount WHERE boot_id <> ?1", [&self.life().boot]).db(action)?;
            Ok(())
        })
    }

    fn forget_mount(&self, row: &MountRow) -> Result<()> {
        let action = "forget a mount";
        self.database().write(Durability::Process, action, |tx| {
            tx.execute("DELETE FROM mount WHERE target = ?1", [row.target.as_os_str().as_bytes()])
                .db(action)?;
            Ok(())
        })?;
        if row.own_directory
            && let Err(error) = fs::remove_dir(&row.target)
            && error.kind() != io::ErrorKind::NotFound
        {
            return Err(error).context("remove the mount point", &row.target);
        }
        Ok(())
    }
}
