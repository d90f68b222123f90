//! Fix-ups: small trees that one stack needs on top of those of its layers.

use std::collections::HashSet;

use layerstore_oci::{ChainId, DiffId};
use rusqlite::OptionalExtension as _;

use crate::blob::parse_digest;
use crate::db::Durability;
use crate::error::{DbContext as _, Error, Result};
use crate::layout::TreeId;
use crate::lock::Key;
use crate::session::{Session, TreeDirectory};
use crate::store::Store;
use crate::tree::Usage;

impl Store {
    /// The fix-up of an image's stack, if it has one that may be used.
    pub fn fixup(&self, chain: &ChainId) -> Result<Option<TreeId>> {
        let action = "look up a fix-up";
        let life = self.life();
        let id: Option<String> = self.database().read(action, |db| {
            db.prepare_cached(
                "SELECT t.id FROM snapshot AS s JOIN tree AS t ON t.id = s.fixup WHERE s.key = ?1 \
                 AND (t.synced = 1 OR (t.boot_id = ?2 AND t.mount_id = ?3)) LIMIT 1",
            )
            .and_then(|mut statement| {
                statement.query_row((chain.to_string(), &life.boot, life.mount), |row| row.get(0)).optional()
            })
            .db(action)
        })?;
        let id: Option<TreeId> = id.as_deref().map(str::parse).transpose()?;
        Ok(id.filter(|id| self.layout().diff(id).is_dir()))
    }

    /// Publishes the fix-up of an image's stack, in the place of one that may not be used. The caller holds the claim of
    /// the chain, whose snapshot must be there; `usage` is that of its `diff` directory. Tells also whether it replaces another.
    pub fn publish_fixup(
        &self,
        _session: &Session,
        chain: &ChainId,
        directory: TreeDirectory,
        usage: Usage,
    ) -> Result<(TreeId, bool)> {
        let claim = self.claim_shared(&Key::Sweep)?;
        let id = TreeId::random();
        self.durable().rename(&directory.into_path(), &self.layout().tree(&id))?;
        let recorded =
            self.with_own_directory(&id, usage).and_then(|usage| self.record_fixup(chain, &id, usage));
        drop(claim);
        match recorded {
            Ok(replaces) => Ok((id, replaces)),
            Err(error) => {
                self.discard_trees(&[id]);
                Err(error)
            }
        }
    }

    /// Records that a stack needs no fix-up, so that nobody has to find that out again: it follows from its layers alone.
    pub fn settle_stack(&self, chain: &ChainId) -> Result<()> {
        let action = "record that a stack is settled";
        self.database().write(Durability::Process, action, |tx| {
            tx.execute("UPDATE snapshot SET settled = 1 WHERE key = ?1", [chain.to_string()]).db(action)?;
            Ok(())
        })
    }

    /// Whether it is known that a stack needs no fix-up.
    pub fn is_settled(&self, chain: &ChainId) -> Result<bool> {
        let action = "look up whether a stack is settled";
        self.database().read(action, |db| {
            db.prepare_cached("SELECT 1 FROM snapshot WHERE key = ?1 AND settled AND fixup IS NULL LIMIT 1")
                .and_then(|mut query| query.exists([chain.to_string()]))
                .db(action)
        })
    }

    /// A fix-up that is replaced goes with the next collection, unless it is mounted.
    fn record_fixup(&self, chain: &ChainId, id: &TreeId, usage: Usage) -> Result<bool> {
        let action = "record a fix-up";
        let (now, life) = (self.clock().now(), self.life());
        self.database().write(Durability::Process, action, |tx| {
            tx.execute(
                "INSERT INTO tree (id, bytes, allocated, inodes, boot_id, mount_id, created_at) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                (id.as_str(), usage.bytes, usage.allocated, usage.inodes, &life.boot, life.mount, now),
            )
            .db(action)?;
            let mut old = tx
                .prepare_cached("SELECT 1 FROM snapshot WHERE key = ?1 AND fixup IS NOT NULL")
                .db(action)?;
            let replaces = old.exists([chain.to_string()]).db(action)?;
            // The stack is the same whoever has it.
            let updated = tx
                .execute(
                    "UPDATE snapshot SET fixup = ?2, settled = 1 WHERE key = ?1",
                    (chain.to_string(), id.as_str()),
                )
                .db(action)?;
            if updated == 0 {
                return Err(Error::NotFound { what: "snapshot", name: chain.to_string() });
            }
            Ok(replaces)
        })
    }

    /// What each tree leaves to those below it.
    pub fn unsettled(&self, trees: &[TreeId]) -> Result<Vec<Unsettled>> {
        let action = "look up what a layer leaves open";
        self.database().read(action, |db| {
            let mut statement =
                db.prepare_cached("SELECT implied, links FROM tree WHERE id = ?1").db(action)?;
            trees
                .iter()
                .map(|id| {
                    let found = statement
                        .query_row([id.as_str()], |row| {
                            Ok((row.get::<_, Option<Vec<u8>>>(0)?, row.get::<_, Option<Vec<u8>>>(1)?))
                        })
                        .optional();
                    let (implied, links) = found.db(action)?.unwrap_or_default();
                    let links = parts(links.as_deref())
                        .chunks_exact(2)
                        .map(|pair| {
                            (
                                pair.first().cloned().unwrap_or_default(),
                                pair.last().cloned().unwrap_or_default(),
                            )
                        })
                        .collect();
                    Ok(Unsettled { implied: parts(implied.as_deref()), links })
                })
                .collect()
        })
    }

    /// The diff IDs among `layers` whose trees have hard links to layers below; mostly none.
    pub fn linked_below(&self, layers: &HashSet<&DiffId>) -> Result<HashSet<DiffId>> {
        let action = "look for hard links to layers below";
        self.database().read(action, |db| {
            let query = "SELECT diff_id FROM tree WHERE links IS NOT NULL AND diff_id IS NOT NULL";
            let mut statement = db.prepare_cached(query).db(action)?;
            let rows = statement.query_map([], |row| row.get::<_, String>(0)).db(action)?;
            let all = rows.map(|row| parse_digest::<DiffId>(&row.db(action)?)).collect::<Result<Vec<_>>>()?;
            Ok(all.into_iter().filter(|id| layers.contains(id)).collect())
        })
    }
}

/// What a tree leaves to those below it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Unsettled {
    /// Directories that its layer implies but does not list.
    pub implied: Vec<Vec<u8>>,
    /// Hard links to files of layers below: path and target.
    pub links: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Splits a column of paths. The root's is the empty one.
fn parts(joined: Option<&[u8]>) -> Vec<Vec<u8>> {
    joined.map_or_else(Vec::new, |all| all.split(|byte| *byte == 0).map(<[u8]>::to_vec).collect())
}
