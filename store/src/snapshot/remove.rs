//! Removing snapshots.

use std::path::PathBuf;

use rusqlite::Transaction;

use super::{SnapshotKind, is_chain, required};
use crate::container;
use crate::db::Durability;
use crate::error::{DbContext as _, Error, Result};
use crate::layout::TreeId;
use crate::mount::Use;
use crate::reference::LOCAL;
use crate::store::Store;

/// The files of a removed snapshot, out of sight and to be unlinked. If they are not, the next collection does it.
#[derive(Debug, Default)]
#[must_use = "files are unlinked by `Store::unlink_discarded`"]
pub struct Discarded {
    trashed: Option<PathBuf>,
}

impl Store {
    /// Forgets a snapshot, durably, and moves the tree that only it has to the trash.
    ///
    /// Errors: `NotFound` for an unknown key, `InUse` for one that has children, is mounted, or is a container's or an
    /// image's; they are named.
    pub fn remove_snapshot(&self, owner: &str, key: &str) -> Result<Discarded> {
        self.remove_snapshot_with(owner, key, Use::Any, |tx| container::refuse_owned(tx, owner, key))
    }

    pub(crate) fn remove_snapshot_with(
        &self,
        owner: &str,
        key: &str,
        refused: Use,
        first: impl FnOnce(&Transaction<'_>) -> Result<()>,
    ) -> Result<Discarded> {
        self.forget_stale_mounts()?;
        self.refuse_mounted_or_used(owner, key, refused)?;
        let tree = self.database().write(Durability::Power, "remove a snapshot", |tx| {
            let info = required(tx, owner, key)?;
            first(tx)?;
            self.refuse_mounted(tx, owner, key)?;
            refuse_parent(tx, owner, key)?;
            if owner == LOCAL && info.kind == SnapshotKind::Committed && is_chain(key) {
                refuse_image(tx, key)?;
            }
            delete(tx, owner, key)
        })?;
        let (tree, project) = tree;
        let trashed = match tree {
            Some(tree) => self.move_to_trash(&self.layout().tree(&tree))?,
            None => None,
        };
        self.clear_limits(project);
        Ok(Discarded { trashed })
    }

    /// Unlinks the files of a removed snapshot.
    pub fn unlink_discarded(&self, discarded: Discarded) -> Result<()> {
        discarded.trashed.map_or(Ok(()), |path| self.unlink_trashed(&path))
    }
}

fn refuse_parent(tx: &Transaction<'_>, owner: &str, key: &str) -> Result<()> {
    let action = "look for children of a snapshot";
    let mut query = tx
        .prepare_cached("SELECT key FROM snapshot WHERE owner = ?1 AND parent = ?2 ORDER BY key LIMIT 5")
        .db(action)?;
    let children = query.query_map((owner, key), |row| row.get::<_, String>(0)).db(action)?;
    let children: Vec<String> = children.collect::<rusqlite::Result<_>>().db(action)?;
    if children.is_empty() {
        return Ok(());
    }
    let user = format!("the snapshots above it: {}", children.join(", "));
    Err(Error::InUse { what: format!("snapshot {key}"), user })
}

fn refuse_image(tx: &Transaction<'_>, key: &str) -> Result<()> {
    let action = "look for the image of a snapshot";
    let mut query = tx.prepare_cached("SELECT config FROM image WHERE chain_id = ?1 LIMIT 1").db(action)?;
    let mut images = query.query_map([key], |row| row.get::<_, String>(0)).db(action)?;
    match images.next() {
        None => Ok(()),
        Some(config) => {
            let user = format!("image {}", config.db(action)?);
            Err(Error::InUse { what: format!("snapshot {key}"), user })
        }
    }
}

/// Returns the tree if nothing else has it, and the project whose quota it counted for.
fn delete(tx: &Transaction<'_>, owner: &str, key: &str) -> Result<(Option<TreeId>, Option<u32>)> {
    use rusqlite::OptionalExtension as _;
    let action = "remove a snapshot";
    let (tree, project): (Option<String>, Option<u32>) = tx
        .prepare_cached("DELETE FROM snapshot WHERE owner = ?1 AND key = ?2 RETURNING tree, project")
        .and_then(|mut delete| delete.query_row((owner, key), |row| Ok((row.get(0)?, row.get(1)?))))
        .db(action)?;
    let Some(tree) = tree else { return Ok((None, project)) };
    // Those of layers are shared, and stay for whoever comes next.
    let gone: Option<String> = tx
        .prepare_cached(
            "DELETE FROM tree WHERE id = ?1 AND diff_id IS NULL \
             AND NOT EXISTS (SELECT 1 FROM snapshot WHERE tree = ?1 OR fixup = ?1) RETURNING id",
        )
        .and_then(|mut delete| delete.query_row([tree], |row| row.get(0)).optional())
        .db(action)?;
    Ok((gone.map(|id| id.parse()).transpose()?, project))
}
