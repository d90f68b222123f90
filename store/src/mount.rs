//! What the store mounted where.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use layerstore_oci::Digest;
use rusqlite::{Connection, Transaction};

use crate::blob::parse_digest;
use crate::db::Durability;
use crate::error::{DbContext as _, Error, IoContext as _, Result};
use crate::last_use;
use crate::layout::TreeId;
use crate::lock::Key;
use crate::overlay::{self, MountOptions, Stack, Upper};
use crate::snapshot;
use crate::store::Store;
use crate::tables::Tables;

/// What can be mounted.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Subject {
    /// An image, by its manifest.
    Image(Digest),
    /// A snapshot.
    Snapshot {
        /// Who created it.
        owner: String,
        /// Its key.
        key: String,
    },
}

/// Something that is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountRow {
    /// Where.
    pub target: PathBuf,
    /// What.
    pub subject: Subject,
    /// Of an image, the config, which other manifests may share; its digest is the image ID.
    pub config: Option<Digest>,
    /// The mount namespace of the mount.
    pub namespace: i64,
    /// The mount's ID, unless it is being mounted.
    pub mount_id: Option<i64>,
    /// Whether the store made the directory.
    pub own_directory: bool,
}

/// Which use of a tree matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// Every mount of it.
    Any,
    /// As the root filesystem of a process. Other mounts are copies that came with a namespace.
    Root,
}

/// Where to mount.
#[derive(Debug, Clone, Copy)]
pub enum MountPoint<'a> {
    /// A directory that is there.
    At(&'a Path),
    /// A directory of the store's own with this name, which goes with the mount.
    Own(&'a str),
}

impl Store {
    /// Mounts what is stacked from `trees`, and returns where. What is mounted at the store's own place already stays as
    /// it is.
    ///
    /// Errors: `NotFound` if a collector has taken something of it meanwhile, `AlreadyExists` for a mount point that is
    /// one already, and for a snapshot that is mounted elsewhere: two mounts of one writable tree do not go together.
    pub fn mount(
        &self,
        subject: &Subject,
        trees: &[TreeId],
        point: MountPoint<'_>,
        stack: &Stack,
        options: &MountOptions,
    ) -> Result<PathBuf> {
        let (target, own_directory) = match point {
            MountPoint::At(target) => {
                let found = target.canonicalize().context("find the mount point", target)?;
                if !found.is_dir() {
                    return Err(Error::NotADirectory { path: found });
                }
                (found, false)
            }
            MountPoint::Own(name) => (self.layout().mounts().join(name), true),
        };
        // From the look at the mount point until the mount is there.
        let _claim = self.claim(&Key::Mounts)?;
        let live = self.live_mounts()?;
        let at_target = live.iter().find(|row| self.is_here(row) && row.target == target);
        if let Some(row) = at_target
            && own_directory
            && row.subject == *subject
            && self.is_on_top(row)?
        {
            return Ok(target);
        }
        if at_target.is_some() || overlay::mount_at(&target).context("look at", &target)?.is_some() {
            return Err(Error::AlreadyMounted { target });
        }
        if let Subject::Snapshot { key, .. } = subject
            && let Some(row) = live.iter().find(|row| row.subject == *subject)
        {
            return Err(Error::SnapshotMounted { key: key.clone(), target: row.target.clone() });
        }
        if let (Subject::Snapshot { owner, key }, Some(_)) = (subject, &stack.upper) {
            self.refuse_used(owner, key, Use::Any)?;
        }
        let (subject, namespace) = (subject.clone(), self.namespace());
        let row = MountRow { target, subject, config: None, namespace, mount_id: None, own_directory };
        // The row first: from then on it keeps what is mounted from collection.
        self.record_mount(&row, trees)?;
        if let Err(error) = self.perform(&row, stack, options) {
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
            let (manifest, owner, key) = match &row.subject {
                Subject::Image(manifest) => {
                    exists(tx, "SELECT 1 FROM blob WHERE digest = ?1", "image", &manifest.to_string())?;
                    last_use::mark_image(tx, &manifest.to_string(), self.clock().now())?;
                    (Some(manifest.to_string()), None, None)
                }
                Subject::Snapshot { owner, key } => {
                    snapshot::required(tx, owner, key)?;
                    snapshot::mark_used(tx, owner, key)?;
                    last_use::mark_container(tx, owner, key, self.clock().now())?;
                    (None, Some(owner), Some(key))
                }
            };
            for id in trees {
                exists(tx, "SELECT 1 FROM tree WHERE id = ?1", "tree", id.as_str())?;
            }
            let target = row.target.as_os_str().as_bytes();
            tx.execute(
                "INSERT OR REPLACE INTO mount \
                 (target, namespace, manifest, owner, key, boot_id, own_directory, created_at) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
                (
                    target,
                    row.namespace,
                    manifest,
                    owner,
                    key,
                    &self.life().boot,
                    row.own_directory,
                    self.clock().now(),
                ),
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

    fn perform(&self, row: &MountRow, stack: &Stack, options: &MountOptions) -> Result<()> {
        if row.own_directory
            && let Err(error) = fs::create_dir(&row.target)
            && error.kind() != io::ErrorKind::AlreadyExists
        {
            return Err(error).context("create", &row.target);
        }
        if let (Subject::Snapshot { owner, key }, Some(upper)) = (&row.subject, &stack.upper) {
            self.prepare_upper(owner, key, upper, options)?;
            // If the command that made the snapshot was killed before it came to this.
            self.limit_snapshot(owner, key)?;
        }
        self.mount_stack(stack, &row.target, options)
    }

    /// Gets the writable tree of a snapshot ready to be mounted with `options`.
    ///
    /// A tree that was mounted without syncing anything is complete as long as the machine runs. The row tells, not the
    /// kernel's mark, which need not have reached the disk.
    pub fn prepare_upper(&self, owner: &str, key: &str, upper: &Upper, options: &MountOptions) -> Result<()> {
        self.check_volatile(owner, key)?;
        if options.volatile {
            self.record_volatile(owner, key)?;
        }
        overlay::clear_volatile(upper)?;
        Ok(())
    }

    /// Unmounts what the store mounted, and removes the directory if the store made it. What somebody
    /// else mounted at the same place stays.
    pub fn unmount(&self, row: &MountRow) -> Result<()> {
        if !self.is_here(row) {
            return Err(Error::OtherNamespace { target: row.target.clone(), namespace: row.namespace });
        }
        let _claim = self.claim(&Key::Mounts)?;
        if self.is_on_top(row)? {
            overlay::unmount_at(&row.target)?;
        } else if self.is_live(row, &Tables::default())? {
            let what = format!("the mount at {}", row.target.display());
            return Err(Error::InUse { what, user: "another mount on top of it".to_owned() });
        }
        self.forget_mount(row)
    }

    /// What is mounted now. Rows whose mount somebody else took away do not count; those of other mount
    /// namespaces do as long as these are there, since nothing more can be said about them from here.
    pub fn live_mounts(&self) -> Result<Vec<MountRow>> {
        let mut rows = self.mounts()?;
        let tables = self.tables_for(&rows);
        rows.retain(|row| self.is_live(row, &tables).unwrap_or(true));
        Ok(rows)
    }

    /// The mount tables of all namespaces, if `rows` are about others than this.
    fn tables_for(&self, rows: &[MountRow]) -> Tables {
        if rows.iter().all(|row| self.is_here(row)) { Tables::default() } else { Tables::read() }
    }

    fn is_live(&self, row: &MountRow, tables: &Tables) -> Result<bool> {
        if !self.is_here(row) {
            let trees = row.mount_id.map(|_| self.trees_of_mount(row)).transpose()?;
            return Ok(tables.has_namespace(row.namespace, &row.target, trees.as_deref()));
        }
        Ok(self.is_on_top(row)?
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
                "SELECT m.target, m.namespace, m.mount_id, m.own_directory, m.manifest, i.config, m.owner, m.key \
                 FROM mount AS m LEFT JOIN image AS i USING (manifest) WHERE {condition}"
            );
            let mut statement = db.prepare_cached(&query).db(action)?;
            let rows = statement
                .query_map([&self.life().boot], |row| {
                    let digests = (row.get::<_, Option<String>>(4)?, row.get::<_, Option<String>>(5)?);
                    let snapshot = (row.get::<_, Option<String>>(6)?, row.get::<_, Option<String>>(7)?);
                    let what = (digests, snapshot);
                    Ok((row.get::<_, Vec<u8>>(0)?, row.get(1)?, row.get(2)?, row.get(3)?, what))
                })
                .db(action)?;
            rows.map(|row| {
                let (target, namespace, mount_id, own_directory, what) = row.db(action)?;
                let ((manifest, config), (owner, key)) = what;
                let subject = match (manifest, owner, key) {
                    (Some(manifest), ..) => Subject::Image(parse_digest(&manifest)?),
                    (None, Some(owner), Some(key)) => Subject::Snapshot { owner, key },
                    _ => return Err(Error::InvalidRow { what: "mount", value: String::new() }),
                };
                Ok(MountRow {
                    target: PathBuf::from(OsStr::from_bytes(&target)),
                    subject,
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

    fn trees_of_mount(&self, row: &MountRow) -> Result<Vec<TreeId>> {
        let action = "list the trees of a mount";
        let query = "SELECT tree FROM mount_tree WHERE target = ?1 AND namespace = ?2";
        self.database().read(action, |db| {
            let mut statement = db.prepare_cached(query).db(action)?;
            let place = (row.target.as_os_str().as_bytes(), row.namespace);
            let ids = statement.query_map(place, |row| row.get::<_, String>(0)).db(action)?;
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

    pub(crate) fn stale_mounts(&self) -> Result<Vec<MountRow>> {
        let mut stale = self.mounts()?;
        let tables = self.tables_for(&stale);
        stale.retain(|row| !self.is_live(row, &tables).unwrap_or(true));
        stale.extend(self.mount_rows("m.boot_id <> ?1")?);
        Ok(stale)
    }

    /// Refuses what the store itself has mounted, which it can say more of, and then what others have.
    pub(crate) fn refuse_mounted_or_used(&self, owner: &str, key: &str, refused: Use) -> Result<()> {
        if self.used_tree(owner, key)?.is_none() {
            return Ok(());
        }
        self.database().read("look for mounts", |db| self.refuse_mounted(db, owner, key))?;
        self.refuse_used(owner, key, refused)
    }

    /// Refuses what others than this store, or it in the past, have mounted: a container's process has its root filesystem
    /// in a mount namespace of its own, whatever becomes of the mount here.
    pub(crate) fn refuse_used(&self, owner: &str, key: &str, refused: Use) -> Result<()> {
        let Some(tree) = self.used_tree(owner, key)? else { return Ok(()) };
        let tables = Tables::read();
        let user = match refused {
            Use::Any => tables.user(&tree),
            Use::Root => tables.rooted(&tree),
        };
        match user {
            None => Ok(()),
            Some(user) => Err(Error::InUse { what: key.to_owned(), user: user.describe(self.namespace()) }),
        }
    }

    /// Refuses, in the transaction that would do something to a snapshot, what is mounted. Rows of mounts that have gone
    /// are forgotten before.
    pub(crate) fn refuse_mounted(&self, tx: &Connection, owner: &str, key: &str) -> Result<()> {
        use rusqlite::OptionalExtension as _;
        let action = "look for mounts of a snapshot";
        let target: Option<Vec<u8>> = tx
            .prepare_cached("SELECT target FROM mount WHERE owner = ?1 AND key = ?2 AND boot_id = ?3 LIMIT 1")
            .and_then(|mut query| {
                query.query_row((owner, key, &self.life().boot), |row| row.get(0)).optional()
            })
            .db(action)?;
        match target {
            None => Ok(()),
            Some(target) => Err(Error::SnapshotInUse {
                key: key.to_owned(),
                target: PathBuf::from(OsStr::from_bytes(&target)),
            }),
        }
    }

    fn forget_mount(&self, row: &MountRow) -> Result<()> {
        let action = "forget a mount";
        let target = row.target.as_os_str().as_bytes();
        let unused = self.database().write(Durability::Process, action, |tx| {
            // Until now, or until the machine went down, it was in use.
            match &row.subject {
                Subject::Image(manifest) => {
                    last_use::mark_image(tx, &manifest.to_string(), self.clock().now())?;
                }
                Subject::Snapshot { owner, key } => {
                    last_use::mark_container(tx, owner, key, self.clock().now())?;
                }
            }
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
