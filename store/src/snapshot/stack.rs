//! What a snapshot is stacked from.

use layerstore_oci::{ChainId, DiffId};
use rusqlite::{OptionalExtension as _, Row, Transaction};

use super::no_snapshot;
use crate::blob::parse_digest;
use crate::clock::UnixSeconds;
use crate::error::{DbContext as _, Error, Result};
use crate::layout::TreeId;
use crate::store::Store;

/// One snapshot of a stack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its key.
    pub key: String,
    /// Its tree; a view has none.
    pub tree: Option<LinkTree>,
    /// Its fix-up, if it has one that may be used.
    pub fixup: Option<TreeId>,
    /// Whether it is known if it needs a fix-up.
    pub settled: bool,
}

/// The tree of one snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkTree {
    /// Its directory's name.
    pub id: TreeId,
    /// The layer that it is; `None` for what was written to a snapshot.
    pub diff_id: Option<DiffId>,
    /// Whether its files may be used as they are: synced, or written under this boot and mount.
    pub trusted: bool,
    /// Whiteouts and opaque directories in it, if they were counted.
    pub whiteouts: Option<u64>,
}

impl Store {
    /// The stack that ends with this snapshot, topmost first, itself included.
    pub fn links(&self, owner: &str, key: &str) -> Result<Vec<Link>> {
        let action = "follow the parents of a snapshot";
        let links: Vec<Link> = self.database().read(action, |db| {
            let mut query = db
                .prepare_cached(
                    "WITH RECURSIVE chain (depth, key, parent, tree, fixup, settled) AS ( \
                     SELECT 0, key, parent, tree, fixup, settled FROM snapshot WHERE owner = ?1 AND key = ?2 \
                     UNION ALL SELECT c.depth + 1, s.key, s.parent, s.tree, s.fixup, s.settled FROM chain AS c \
                     CROSS JOIN snapshot AS s ON s.owner = ?1 AND s.key = c.parent) \
                     SELECT c.key, c.settled, t.id, t.diff_id, t.whiteouts, \
                     t.synced OR (t.boot_id = ?3 AND t.mount_id = ?4), f.id \
                     FROM chain AS c LEFT JOIN tree AS t ON t.id = c.tree LEFT JOIN tree AS f ON f.id = c.fixup \
                     AND (f.synced OR (f.boot_id = ?3 AND f.mount_id = ?4)) ORDER BY c.depth",
                )
                .db(action)?;
            let life = self.life();
            let rows = query
                .query_map((owner, key, &life.boot, life.mount), |row| Ok(link(row)))
                .db(action)?;
            rows.map(|row| row.db(action)?).collect()
        })?;
        if links.is_empty() { Err(no_snapshot(key)) } else { Ok(links) }
    }
}

fn link(row: &Row<'_>) -> Result<Link> {
    let action = "follow the parents of a snapshot";
    let tree: Option<String> = row.get(2).db(action)?;
    let tree = match tree {
        None => None,
        Some(id) => Some(LinkTree {
            id: id.parse()?,
            diff_id: row.get::<_, Option<String>>(3).db(action)?.as_deref().map(parse_digest).transpose()?,
            trusted: row.get(5).db(action)?,
            whiteouts: row.get(4).db(action)?,
        }),
    };
    Ok(Link {
        key: row.get(0).db(action)?,
        settled: row.get(1).db(action)?,
        tree,
        fixup: row.get::<_, Option<String>>(6).db(action)?.as_deref().map(str::parse).transpose()?,
    })
}

/// Commits one snapshot a layer, lowest first, as far up as the layers are unpacked. Returns the last.
pub(crate) fn insert_chain(
    tx: &Transaction<'_>,
    owner: &str,
    layers: &[DiffId],
    now: UnixSeconds,
) -> Result<Option<ChainId>> {
    let action = "commit a snapshot";
    let mut parent: Option<ChainId> = None;
    for diff_id in layers {
        let tree: Option<String> = tx
            .prepare_cached("SELECT id FROM tree WHERE diff_id = ?1")
            .and_then(|mut query| query.query_row([diff_id.to_string()], |row| row.get(0)).optional())
            .db(action)?;
        let Some(tree) = tree else { return Ok(parent) };
        let chain = ChainId::extend(parent.as_ref(), diff_id);
        // What one owner knows of a stack holds for all.
        tx.prepare_cached(
            "INSERT INTO snapshot (owner, key, kind, parent, tree, fixup, settled, created_at, updated_at) \
             VALUES (?1, ?2, 'committed', ?3, ?4, \
             (SELECT fixup FROM snapshot WHERE key = ?2 AND fixup IS NOT NULL), \
             (SELECT coalesce(max(settled), 0) FROM snapshot WHERE key = ?2), ?5, ?5) \
             ON CONFLICT (owner, key) DO UPDATE SET tree = excluded.tree WHERE tree IS NULL",
        )
        .and_then(|mut insert| {
            let (key, parent) = (chain.to_string(), parent.as_ref().map(ToString::to_string));
            insert.execute((owner, key, parent, tree, now))
        })
        .db(action)?;
        // A client may have unpacked the layer itself, or have put something else there.
        let is_it = tx
            .prepare_cached("SELECT 1 FROM snapshot WHERE owner = ?1 AND key = ?2 AND parent IS ?3")
            .and_then(|mut query| {
                let parent = parent.as_ref().map(ToString::to_string);
                query.exists((owner, chain.to_string(), parent))
            })
            .db(action)?;
        if !is_it {
            return Err(Error::Exists { what: "snapshot", name: chain.to_string() });
        }
        parent = Some(chain);
    }
    Ok(parent)
}
