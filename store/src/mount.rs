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
use crate::overlay::{self, MountOptions};
use crate::store::Store;

/// A mounted image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountRow {
    /// Where.
    pub target: PathBuf,
    /// The image's manifest.
    pub manifest: Digest,
    /// The image's config, which other manifests may share; its digest is the image ID.
    pub config: Option<Digest>,
    /// The mount namespace of the mount.
    pub namespace: i64,
    /// The mount's ID, unless it is being mounted.
    pub mount_id: Option<i64>,
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
        options: impl Into<MountOptions>,
    ) -> Result<PathBuf> {
        let (target, own_directory) = match target {
            Some(target) => (target.canonicalize().context("find the mount point", target)?, false),
            None => (self.layout().mounts().join(manifest.short()), true),
        };
        // From the look at the mount point until the mount is there.
        let _claim = self.claim(&Key::Mounts)?;
        let live = self.live_mounts()?.into_iter().find(|row| self.is_here(row) && row.target == target);
        if let Some(row) = &live
            && own_directory
            && row.manifest == *manifest
            && self.is_on_top(row)?
        {
            return Ok(target);
        }
        if live.is_some() || overlay::mount_at(&target).context("look at", &target)?.is_some() {
            return Err(Error::AlreadyMounted { target });
        }
        let (manifest, namespace) = (manifest.clone(), self.namespace());
        let row = MountRow { target, manifest, config: None, namespace, mount_id: None, own_directory };
        // The row first: from then on it keeps the image from collection.
        self.record_mount(&row, trees)?;
        if let Err(error) = self.mount_trees(&row, trees, &options.into()) {
            if let Err(second) = self.forget_mount(&row) {
                tracing::warn!(error = %second, "the row of a failed mount stays until the next collection");
            }
            return Err(error);
        }
        // Without its ID, whatever is mounted there passes for it.
        if let Err(error) = self.record_mount_id(&row) {
            tracing::warn!(%error, "the ID of a mount is not recorded");
        }
        Ok(row.target)
    }

    /// Whether a row is about the mount namespace of this process.
    pub fn is_here(&self, row: &MountRow) -> bool {
        row.namespace == self.namespace()
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
                "INSERT OR REPLACE INTO mount (target, namespace, manifest, boot_id, own_directory, created_at) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                (target, row.namespace, manifest, &self.life().boot, row.own_directory, self.clock().now()),
            )
            .db(action)?;
            for id in trees {
                tx.prepare_cached("INSERT INTO mount_tree (target, namespace, tree) VALUES (?1, ?2, ?3)")
                    .and_then(|mut insert| insert.execute((target, row.namespace, id.as_str())))
                    .db(action)?;
            }
            Ok(())
        })
    }

    fn record_mount_id(&self, row: &MountRow) -> Result<()> {
        let action = "record the mount's ID";
        let id = overlay::mount_at(&row.target).context("look at", &row.target)?;
        self.database().write(Durability::Process, action, |tx| {
            tx.execute(
                "UPDATE mount SET mount_id = ?3 WHERE target = ?1 AND namespace = ?2",
                (row.target.as_os_str().as_bytes(), row.namespace, id),
            )
            .db(action)?;
            Ok(())
        })
    }

    fn mount_trees(&self, row: &MountRow, trees: &[TreeId], options: &MountOptions) -> Result<()> {
        if row.own_directory
            && let Err(error) = fs::create_dir(&row.target)
            && error.kind() != io::ErrorKind::AlreadyExists
        {
            return Err(error).context("create", &row.target);
        }
        let lowers: Vec<PathBuf> = trees.iter().map(|id| self.layout().diff(id)).collect();
        self.mount_read_only(&lowers, &row.target, options)
    }

    /// Unmounts what the store mounted, and removes the directory if the store made it. What somebody
    /// else mounted at the same place stays.
    pub fn unmount_image(&self, row: &MountRow) -> Result<()> {
        if !self.is_here(row) {
            return Err(Error::OtherNamespace { target: row.target.clone(), namespace: row.namespace });
        }
        let _claim = self.claim(&Key::Mounts)?;
        if self.is_on_top(row)? {
            overlay::unmount_at(&row.target)?;
        } else if self.is_live(row)? {
            let what = format!("the mount at {}", row.target.display());
            return Err(Error::InUse { what, user: "another mount on top of it".to_owned() });
        }
        self.forget_mount(row)
    }

    /// What is mounted now. Rows whose mount somebody else took away do not count; those of other mount
    /// namespaces do, since nothing can be said about them from here.
    pub fn live_mounts(&self) -> Result<Vec<MountRow>> {
        let mut rows = self.mounts()?;
        rows.retain(|row| self.is_live(row).unwrap_or(true));
        Ok(rows)
    }

    fn is_live(&self, row: &MountRow) -> Result<bool> {
        Ok(!self.is_here(row)
            || self.is_on_top(row)?
            || overlay::is_mounted_below(&row.target).context("look for the mount at", &row.target)?)
    }

    /// Whether the path of a mount leads to it.
    fn is_on_top(&self, row: &MountRow) -> Result<bool> {
        let found = overlay::mount_at(&row.target).context("look at", &row.target)?;
        Ok(self.is_here(row) && found.is_some_and(|id| row.mount_id.is_none_or(|own| own == id)))
    }

    /// What was mounted in this boot and not unmounted through the store.
    pub fn mounts(&self) -> Result<Vec<MountRow>> {
        self.mount_rows("m.boot_id = ?1")
    }

    fn mount_rows(&self, condition: &'static str) -> Result<Vec<MountRow>> {
        let action = "list mounts";
        self.database().read(action, |db| {
            let query = format!(
                "SELECT m.target, m.namespace, m.mount_id, m.own_directory, m.manifest, i.config \
                 FROM mount AS m LEFT JOIN image AS i USING (manifest) WHERE {condition}"
            );
            let mut statement = db.prepare_cached(&query).db(action)?;
            let rows = statement
                .query_map([&self.life().boot], |row| {
                    let digests = (row.get::<_, String>(4)?, row.get::<_, Option<String>>(5)?);
                    Ok((row.get::<_, Vec<u8>>(0)?, row.get(1)?, row.get(2)?, row.get(3)?, digests))
                })
                .db(action)?;
            rows.map(|row| {
                let (target, namespace, mount_id, own_directory, (manifest, config)) = row.db(action)?;
                Ok(MountRow {
                    target: PathBuf::from(OsStr::from_bytes(&target)),
                    manifest: parse_digest(&manifest)?,
                    config: config.as_deref().map(parse_digest).transpose()?,
                    namespace,
                    mount_id,
                    own_directory,
                })
            })
            .collect()
        })
    }

    /// The trees of everything that was mounted in this boot and not unmounted through the store.
    pub(crate) fn mounted_trees(&self) -> Result<HashSet<TreeId>> {
        let action = "list mounted trees";
        let query = "SELECT t.tree FROM mount_tree AS t JOIN mount AS m USING (target, namespace) \
                     WHERE m.boot_id = ?1";
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
        stale.retain(|row| !self.is_live(row).unwrap_or(true));
        stale.extend(self.mount_rows("m.boot_id <> ?1")?);
        Ok(stale)
    }

    fn forget_mount(&self, row: &MountRow) -> Result<()> {
        let action = "forget a mount";
        let target = row.target.as_os_str().as_bytes();
        let unused = self.database().write(Durability::Process, action, |tx| {
            tx.execute("DELETE FROM mount WHERE target = ?1 AND namespace = ?2", (target, row.namespace))
                .db(action)?;
            let mut others = tx.prepare_cached("SELECT 1 FROM mount WHERE target = ?1").db(action)?;
            Ok(!others.exists([target]).db(action)?)
        })?;
        // The kernel takes away what other namespaces mounted at a directory that is removed.
        if row.own_directory
            && unused
            && let Err(error) = fs::remove_dir(&row.target)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%error, path = %row.target.display(), "a mount point stays");
        }
        Ok(())
    }
}
