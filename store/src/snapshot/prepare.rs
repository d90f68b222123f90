//! Making active snapshots and views.

use std::fs;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;

use layerstore_oci::{ChainId, DiffId};
use rusqlite::Transaction;

use super::{
    Labels, Settings, SnapshotInfo, SnapshotKind, check_key, check_labels, check_parent, find, insert_chain,
    to_json,
};
use crate::db::Durability;
use crate::error::{DbContext as _, Error, IoContext as _, Result};
use crate::last_use;
use crate::layout::TreeId;
use crate::lock::{Claim, Key};
use crate::store::Store;
use crate::walk::mark_untouched;

/// A snapshot to make.
#[derive(Debug, Clone, Default)]
pub struct NewSnapshot {
    /// Who creates it.
    pub owner: String,
    /// Its key, new to the owner.
    pub key: String,
    /// The committed snapshot to put it above.
    pub parent: Option<String>,
    /// The layers of an image to put it above, lowest first, in the place of `parent`. They are unpacked.
    pub layers: Vec<DiffId>,
    /// Labels.
    pub labels: Labels,
    /// How it is mounted.
    pub settings: Settings,
}

/// The directory of an active snapshot that is not recorded yet; deleted when dropped before that.
#[derive(Debug)]
pub struct WritableTree {
    store: Store,
    id: TreeId,
    recorded: bool,
    /// A directory without a row is debris, unless somebody holds this.
    _sweep: Claim,
}

/// Project IDs of the store begin here. Docker and podman begin near 1, people use small numbers.
const FIRST_PROJECT: u32 = 0x4c59_0000;

impl Store {
    /// Makes the directory of an active snapshot: `diff`, with mode 0755, and `work`.
    pub fn writable_tree(&self) -> Result<WritableTree> {
        self.durable().check()?;
        let sweep = self.claim_shared(&Key::Sweep)?;
        let tree = WritableTree { store: self.clone(), id: TreeId::random(), recorded: false, _sweep: sweep };
        let path = self.layout().tree(&tree.id);
        let mut builder = fs::DirBuilder::new();
        builder.mode(0o700).create(&path).context("create", &path)?;
        let work = self.layout().work(&tree.id);
        builder.create(&work).context("create", &work)?;
        let diff = self.layout().diff(&tree.id);
        builder.create(&diff).context("create", &diff)?;
        // Whatever the umask says.
        rustix::fs::chmod(&diff, rustix::fs::Mode::from_raw_mode(0o755)).context("set the mode of", &diff)?;
        mark_untouched(&path)?;
        Ok(tree)
    }

    /// Makes the directory in which overlayfs works again, if somebody has deleted it: it holds nothing that lasts.
    pub fn ensure_work(&self, tree: &TreeId) -> Result<()> {
        let work = self.layout().work(tree);
        match fs::DirBuilder::new().mode(0o700).create(&work) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
            made => made.context("create", &work),
        }
    }

    /// Records an active snapshot with its tree, or a view without one, durably.
    ///
    /// Errors: the key exists (`AlreadyExists`), the parent does not (`NotFound`) or is not committed (`InvalidInput`).
    pub fn insert_snapshot(&self, new: &NewSnapshot, tree: Option<WritableTree>) -> Result<SnapshotInfo> {
        self.insert_snapshot_with(new, tree, |tx| {
            last_use::mark_stack(tx, &new.layers, new.parent.as_deref(), self.clock().now())
        })
    }

    /// The same, together with what else belongs to it.
    pub(crate) fn insert_snapshot_with(
        &self,
        new: &NewSnapshot,
        mut tree: Option<WritableTree>,
        also: impl FnOnce(&Transaction<'_>) -> Result<()>,
    ) -> Result<SnapshotInfo> {
        check_key(&new.owner, &new.key)?;
        check_labels(&new.labels)?;
        if let Some(tree) = &tree {
            // What a program in the container syncs must have a name after a power cut.
            self.durable().sync_dir(&self.layout().tree(&tree.id))?;
            self.durable().sync_dir(&self.layout().overlay2())?;
        }
        let kind = if tree.is_some() { SnapshotKind::Active } else { SnapshotKind::View };
        let (info, project) = self.database().write(Durability::Power, "record a snapshot", |tx| {
            let action = "record a snapshot";
            if find(tx, &new.owner, &new.key)?.is_some() {
                return Err(Error::Exists { what: "snapshot", name: new.key.clone() });
            }
            let now = self.clock().now();
            let mut parent = new.parent.clone();
            if let Some(chain) = ChainId::chain(&new.layers).pop() {
                insert_chain(tx, &new.owner, &new.layers, now)?;
                parent = Some(chain.to_string());
            }
            if let Some(parent) = &parent {
                check_parent(tx, &new.owner, parent)?;
            }
            if let Some(tree) = &tree {
                self.record_writable(tx, &tree.id)?;
            }
            let project = if new.settings.has_quota() { Some(next_project(tx)?) } else { None };
            tx.prepare_cached(
                "INSERT INTO snapshot (owner, key, kind, parent, tree, labels, options, project, created_at, updated_at) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?9)",
            )
            .and_then(|mut insert| {
                insert.execute((
                    &new.owner,
                    &new.key,
                    kind.as_str(),
                    &parent,
                    tree.as_ref().map(|tree| tree.id.as_str()),
                    to_json(&new.labels),
                    new.settings.to_json(),
                    project,
                    now,
                ))
            })
            .db(action)?;
            also(tx)?;
            let info = SnapshotInfo {
                owner: new.owner.clone(),
                key: new.key.clone(),
                kind,
                parent,
                labels: new.labels.clone(),
                settings: new.settings.clone(),
                created_at: now,
                updated_at: now,
            };
            Ok((info, project))
        })?;
        if let Some(tree) = &mut tree {
            tree.recorded = true;
        }
        tracing::debug!(owner = new.owner, key = new.key, %kind, ?project, "snapshot recorded");
        Ok(info)
    }

    /// Nothing of it is ever rebuilt, so it is trusted from the beginning; it becomes a question when it is committed.
    fn record_writable(&self, tx: &Transaction<'_>, id: &TreeId) -> Result<()> {
        let life = self.life();
        tx.prepare_cached(
            "INSERT INTO tree (id, bytes, allocated, inodes, boot_id, mount_id, synced, created_at, counted) \
             VALUES (?1, 0, 0, 0, ?2, ?3, 1, ?4, 0)",
        )
        .and_then(|mut insert| insert.execute((id.as_str(), &life.boot, life.mount, self.clock().now())))
        .db("record a tree")?;
        Ok(())
    }
}

/// A number that nothing had before: files of what was committed, or waits in the trash, still count for theirs.
fn next_project(tx: &Transaction<'_>) -> Result<u32> {
    let action = "choose a project ID";
    let next: String = tx
        .query_row(
            "INSERT INTO meta (key, value) VALUES ('next_project', ?1) \
             ON CONFLICT (key) DO UPDATE SET value = CAST(value AS INTEGER) + 1 RETURNING value",
            [FIRST_PROJECT.to_string()],
            |row| row.get(0),
        )
        .db(action)?;
    next.parse().map_err(|_| Error::InvalidRow { what: "project ID", value: next })
}

impl WritableTree {
    /// Where its files are.
    pub fn diff(&self) -> PathBuf {
        self.store.layout().diff(&self.id)
    }
}

impl Drop for WritableTree {
    fn drop(&mut self) {
        if !self.recorded
            && let Err(error) = self.store.throw_away(&self.store.layout().tree(&self.id))
        {
            tracing::warn!(%error, tree = %self.id, "an unused tree stays until the next collection");
        }
    }
}
