//! Which images the store mounted where.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use layerstore_oci::Digest;
use rusqlite::Transaction;

use crate::blob::parse_digest;
use crate::db::Durability;
use crate::error::{DbContext as _, Error, IoContext as _, Result};
use crate::layout::TreeId;
use crate::lock::Key;
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
        // From the look at the mount point until the mount is there.
        let _claim = self.claim(&Key::Mounts)?;
        if overlay::is_mount_point(&target).context("look at", &target)? {
            let ours =
                self.live_mounts()?.into_iter().any(|row| row.target == target && row.manifest == *manifest);
            return if ours && own_directory { Ok(target) } else { Err(Error::AlreadyMounted { target }) };
        }
        let row = MountRow { target, manifest: manifest.clone(), own_directory };
        // The row first: from then on it keeps the image from collection.
        self.record_mount(&row, trees)?;
        if let Err(error) = self.mount_trees(&row, trees, api) {
            self.forget_mount(&row)?;
            return Err(error);
        }
        Ok(row.target)
    }

    /// In one transaction with the check that everything is there.
    fn record_mount(&self, row: &MountRow, trees: &[TreeId]) -> Result<()> {
        let action = "record the mount";
        let exists = |tx: &Transaction<'_>, query: &str, what: &'static str, name: &str| -> Result<()> {
            if tx.prepare_cached(query).and_then(|mut query| query.exists([name])).db(action)? {
                return Ok(());
            }
            Err(Error::NotFound { what, name: name.to_owned() })
        };
        self.database().write(Durability::Process, action, |tx| {
            let manifest = row.manifest.to_string();
            exists(tx, "SELECT 1 FROM blob WHERE digest = ?1", "image", &manifest)?;
            for id in trees {
                exists(tx, "SELECT 1 FROM tree WHERE id = ?1", "tree", id.as_str())?;
            }
            let target = row.target.as_os_str().as_bytes();
            tx.execute(
                "INSERT OR REPLACE INTO mount (target, manifest, boot_id, own_directory, created_at) \
                 VALUES (?1, ?2, ?3, ?4, ?5)",
                (target, manifest, &self.life().boot, row.own_directory, self.clock().now()),
            )
            .db(action)?;
            for id in trees {
                tx.prepare_cached("INSERT INTO mount_tree (target, tree) VALUES (?1, ?2)")
                    .and_then(|mut insert| insert.execute((target, id.as_str())))
                    .db(action)?;
            }
            Ok(())
        })
    }

    fn mount_trees(&self, row: &MountRow, trees: &[TreeId], api: MountApi) -> Result<()> {
        if row.own_directory
            && let Err(error) = fs::create_dir(&row.target)
            && error.kind() != io::ErrorKind::AlreadyExists
        {
            return Err(error).context("create", &row.target);
        }
        let lowers: Vec<PathBuf> = trees.iter().map(|id| self.layout().diff(id)).collect();
        self.mount_read_only(&lowers, &row.target, api)
    }

    /// Unmounts what the store mounted, and removes the directory if the store made it.
    pub fn unmount_image(&self, row: &MountRow) -> Result<()> {
        let _claim = self.claim(&Key::Mounts)?;
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
        self.mount_rows("boot_id = ?1")
    }

    fn mount_rows(&self, condition: &'static str) -> Result<Vec<MountRow>> {
        let action = "list mounts";
        self.database().read(action, |db| {
            let query = format!("SELECT target, manifest, own_directory FROM mount WHERE {condition}");
            let mut statement = db.prepare_cached(&query).db(action)?;
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

    /// The trees of everything that was mounted in this boot and not unmounted through the store.
    pub(crate) fn mounted_trees(&self) -> Result<HashSet<TreeId>> {
        let action = "list mounted trees";
        let query = "SELECT t.tree FROM mount_tree AS t JOIN mount AS m USING (target) WHERE m.boot_id = ?1";
        self.database().read(action, |db| {
            let mut statement = db.prepare_cached(query).db(action)?;
            let ids = statement.query_map([&self.life().boot], |row| row.get::<_, String>(0)).db(action)?;
            ids.map(|id| id.db(action)?.parse()).collect()
        })
    }

    /// Forgets rows whose mount has gone: unmounted by other means, or with the machine.
    pub fn forget_stale_mounts(&self) -> Result<()> {
        if self.stale_mounts()?.is_empty() {
            return Ok(());
        }
        // Some may have been about to be mounted.
        let _claim = self.claim(&Key::Mounts)?;
        for row in self.stale_mounts()? {
            self.forget_mount(&row)?;
        }
        self.remove_links()
    }

    fn stale_mounts(&self) -> Result<Vec<MountRow>> {
        let mut stale = self.mounts()?;
        stale.retain(|row| !overlay::is_mount_point(&row.target).unwrap_or(true));
        stale.extend(self.mount_rows("boot_id <> ?1")?);
        Ok(stale)
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
            tracing::warn!(%error, path = %row.target.display(), "a mount point stays");
        }
        Ok(())
    }
}
