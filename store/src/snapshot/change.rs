//! Committing snapshots, and changing their labels.

use rusqlite::{OptionalExtension as _, Transaction};

use super::{
    Labels, SnapshotInfo, SnapshotKind, check_key, check_labels, check_parent, find, required, to_json,
};
use crate::container;
use crate::db::Durability;
use crate::error::{DbContext as _, Error, Result};
use crate::layout::TreeId;
use crate::lock::Key;
use crate::mount::Use;
use crate::store::Store;

/// How to commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotCommit {
    /// The parent of a snapshot that was prepared without one: its tree is put above that.
    pub parent: Option<String>,
    /// Labels of the result. Those of the active snapshot are not kept.
    pub labels: Labels,
    /// Make the files durable first, which waits for the disk. Otherwise the next settling does that, and what a power
    /// cut comes before is refused from then on.
    pub sync: bool,
}

impl Default for SnapshotCommit {
    fn default() -> Self {
        Self { parent: None, labels: Labels::new(), sync: true }
    }
}

impl Store {
    /// Turns the active snapshot `key` into the committed one `name`.
    ///
    /// Does not look at the files, however many there are. They must not be changed any more, by nobody; one that is
    /// mounted through the store is refused.
    ///
    /// Errors: `NotFound` for an unknown key or parent, `AlreadyExists` for a name that is a key, `WrongState` for a
    /// snapshot that is not active or a parent that is not committed, `InvalidInput` for another parent than it has,
    /// `InUse` for one that is mounted or a container's.
    pub fn commit_snapshot(
        &self,
        owner: &str,
        name: &str,
        key: &str,
        commit: &SnapshotCommit,
    ) -> Result<SnapshotInfo> {
        check_key(owner, name)?;
        check_labels(&commit.labels)?;
        self.forget_stale_mounts()?;
        // Nobody mounts it from here on, so that what is synced is all that there is.
        let _claim = self.claim(&Key::Mounts)?;
        self.check_volatile(owner, key)?;
        self.refuse_mounted_or_used(owner, key, Use::Any)?;
        if commit.sync {
            self.database().read("look up a snapshot", |db| {
                required(db, owner, key)?;
                self.refuse_mounted(db, owner, key)
            })?;
            self.durable().sync_filesystem()?;
        }
        let (info, tree, project) = self.database().write(Durability::Power, "commit a snapshot", |tx| {
            let project = tx
                .query_row(
                    "SELECT project FROM snapshot WHERE owner = ?1 AND key = ?2",
                    (owner, key),
                    |row| row.get::<_, Option<u32>>(0),
                )
                .optional()
                .db("commit a snapshot")?;
            let (info, tree) = self.record_commit(tx, owner, name, key, commit)?;
            Ok((info, tree, project.flatten()))
        })?;
        self.clear_limits(project);
        // What overlayfs needed to write is of no use any more.
        if let Err(error) = self.throw_away(&self.layout().work(&tree)) {
            tracing::warn!(%error, key = name, "the work directory of a committed snapshot stays");
        }
        Ok(info)
    }

    fn record_commit(
        &self,
        tx: &Transaction<'_>,
        owner: &str,
        name: &str,
        key: &str,
        commit: &SnapshotCommit,
    ) -> Result<(SnapshotInfo, TreeId)> {
        let action = "commit a snapshot";
        let active = required(tx, owner, key)?;
        if active.kind != SnapshotKind::Active {
            let wanted = "only an active snapshot can be committed";
            return Err(Error::WrongKind { key: key.to_owned(), kind: active.kind, wanted });
        }
        if find(tx, owner, name)?.is_some() {
            return Err(Error::Exists { what: "snapshot", name: name.to_owned() });
        }
        container::refuse_owned(tx, owner, key)?;
        self.refuse_mounted(tx, owner, key)?;
        if let Some(parent) = &commit.parent
            && active.parent.as_ref() != Some(parent)
        {
            if let Some(present) = active.parent {
                let (key, wanted) = (key.to_owned(), parent.clone());
                return Err(Error::OtherParent { key, present, wanted });
            }
            check_parent(tx, owner, parent).map_err(|error| match error {
                Error::ParentNotCommitted { key, kind } => {
                    Error::WrongKind { key, kind, wanted: "only a committed snapshot can be a parent" }
                }
                error => error,
            })?;
        }
        let now = self.clock().now();
        let parent = commit.parent.clone().or(active.parent);
        tx.prepare_cached(
            "UPDATE snapshot SET key = ?3, kind = 'committed', parent = ?4, labels = ?5, options = '{}', \
             project = NULL, used = 0, volatile_boot = NULL, created_at = ?6, updated_at = ?6 WHERE owner = ?1 AND key = ?2",
        )
        .and_then(|mut update| {
            update.execute((owner, key, name, &parent, to_json(&commit.labels), now))
        })
        .db(action)?;
        let life = self.life();
        let tree: String = tx
            .prepare_cached(
                "UPDATE tree SET synced = ?3, boot_id = ?4, mount_id = ?5, created_at = ?6 \
                 WHERE id = (SELECT tree FROM snapshot WHERE owner = ?1 AND key = ?2) RETURNING id",
            )
            .and_then(|mut update| {
                update.query_row((owner, name, commit.sync, &life.boot, life.mount, now), |row| row.get(0))
            })
            .db(action)?;
        Ok((required(tx, owner, name)?, tree.parse()?))
    }

    /// Replaces all labels of a snapshot, durably. An unknown key is an error of kind `NotFound`.
    pub fn set_snapshot_labels(&self, owner: &str, key: &str, labels: &Labels) -> Result<SnapshotInfo> {
        self.change_snapshot_labels(owner, key, |all| all.clone_from(labels))
    }

    /// Changes labels of a snapshot, durably.
    pub fn change_snapshot_labels(
        &self,
        owner: &str,
        key: &str,
        change: impl FnOnce(&mut Labels),
    ) -> Result<SnapshotInfo> {
        let action = "change the labels of a snapshot";
        self.database().write(Durability::Power, action, |tx| {
            let mut info = required(tx, owner, key)?;
            change(&mut info.labels);
            check_labels(&info.labels)?;
            info.updated_at = self.clock().now();
            tx.prepare_cached(
                "UPDATE snapshot SET labels = ?3, updated_at = ?4 WHERE owner = ?1 AND key = ?2",
            )
            .and_then(|mut update| update.execute((owner, key, to_json(&info.labels), info.updated_at)))
            .db(action)?;
            Ok(info)
        })
    }

    /// The directory of what was written to a snapshot, and what it takes if that was counted. A view has none, nor has
    /// a snapshot of an image's stack.
    pub fn written(&self, owner: &str, key: &str) -> Result<Option<(TreeId, Option<crate::tree::Usage>)>> {
        let action = "look up the usage of a snapshot";
        let found: Option<(String, bool, crate::tree::Usage)> = self.database().read(action, |db| {
            required(db, owner, key)?;
            db.prepare_cached(
                "SELECT t.id, t.counted, t.bytes, t.allocated, t.inodes FROM snapshot AS s JOIN tree AS t ON t.id = s.tree \
                 WHERE s.owner = ?1 AND s.key = ?2",
            )
            .and_then(|mut query| {
                query
                    .query_row((owner, key), |row| {
                        let (bytes, allocated, inodes) = (row.get(2)?, row.get(3)?, row.get(4)?);
                        Ok((row.get(0)?, row.get(1)?, crate::tree::Usage { bytes, allocated, inodes }))
                    })
                    .optional()
            })
            .db(action)
        })?;
        found.map(|(id, counted, usage)| Ok((id.parse()?, counted.then_some(usage)))).transpose()
    }

    /// Records what was counted in the tree of a committed snapshot, which does not change any more.
    pub fn record_usage(&self, tree: &TreeId, usage: crate::tree::Usage) -> Result<()> {
        let action = "record the usage of a snapshot";
        self.database().write(Durability::Process, action, |tx| {
            tx.execute(
                "UPDATE tree SET bytes = ?2, allocated = ?3, inodes = ?4, counted = 1 WHERE id = ?1 AND EXISTS \
                 (SELECT 1 FROM snapshot WHERE tree = ?1 AND kind = 'committed')",
                (tree.as_str(), usage.bytes, usage.allocated, usage.inodes),
            )
            .db(action)?;
            Ok(())
        })
    }

    /// Says that a snapshot is being mounted so that nothing of it is synced.
    pub(crate) fn record_volatile(&self, owner: &str, key: &str) -> Result<()> {
        let action = "record a volatile mount";
        self.database().write(Durability::Power, action, |tx| {
            tx.execute(
                "UPDATE snapshot SET volatile_boot = ?3 WHERE owner = ?1 AND key = ?2",
                (owner, key, &self.life().boot),
            )
            .db(action)?;
            Ok(())
        })
    }

    /// Refuses a snapshot that was mounted without syncing anything in another boot.
    pub fn check_volatile(&self, owner: &str, key: &str) -> Result<()> {
        match self.volatile_boot(owner, key)? {
            Some(boot) if boot != self.life().boot => {
                let reason = "it was mounted volatile when the machine went down";
                Err(Error::Untrusted { what: format!("snapshot {key}"), reason })
            }
            _ => Ok(()),
        }
    }

    /// The boot in which a snapshot was last mounted volatile.
    fn volatile_boot(&self, owner: &str, key: &str) -> Result<Option<String>> {
        let action = "look up a volatile mount";
        self.database().read(action, |db| {
            let boot: Option<Option<String>> = db
                .query_row(
                    "SELECT volatile_boot FROM snapshot WHERE owner = ?1 AND key = ?2",
                    (owner, key),
                    |row| row.get(0),
                )
                .optional()
                .db(action)?;
            Ok(boot.flatten())
        })
    }
}
