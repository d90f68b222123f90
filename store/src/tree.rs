//! Trees: unpacked layers, shared by every chain that has the layer.

use layerstore_oci::{DiffId, Digest};
use rusqlite::{Connection, OptionalExtension as _, Row};

use crate::blob::{self, BlobInfo};
use crate::clock::UnixSeconds;
use crate::db::Durability;
use crate::error::{DbContext as _, Result};
use crate::layout::TreeId;
use crate::session::Session;
use crate::store::Store;

/// What a tree takes, counted when it was unpacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Lengths of all regular files, a file with several names once.
    pub bytes: u64,
    /// The bytes of the blocks of everything, as `du` counts them. In the row of a tree these are those of all of its
    /// directory: itself, `diff` and `work`.
    pub allocated: u64,
    /// Files, directories and everything else.
    pub inodes: u64,
}

/// One unpacked layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TreeInfo {
    /// Its directory's name.
    pub id: TreeId,
    /// The layer.
    pub diff_id: DiffId,
    /// What it takes.
    pub usage: Usage,
    /// Whether its files may be used as they are: synced, or written under this boot and mount.
    pub trusted: bool,
}

/// What the store has of one layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Presence {
    /// The blob, if it is there.
    pub blob: Option<BlobInfo>,
    /// The tree, if it is there and may be used.
    pub tree: Option<TreeInfo>,
}

/// Seconds after which the kernel has written a tree back by itself (30 s is its default), so that a sync finds little to
/// do.
const SETTLE_AGE: UnixSeconds = 60;

impl Store {
    /// The tree of a layer, trusted or not.
    pub fn tree(&self, diff_id: &DiffId) -> Result<Option<TreeInfo>> {
        self.database().read("look up a tree", |db| find(self, db, diff_id))
    }

    /// Looks up layers, and puts what is there under the session's lease in the same transaction,
    /// so that no collector takes it away before the session's images are committed.
    ///
    /// A row whose file or directory has gone from the disk counts as absent.
    pub fn lease_layers(
        &self,
        session: &Session,
        layers: &[(Digest, Option<DiffId>)],
    ) -> Result<Vec<Presence>> {
        let action = "lease layers";
        let mut found = self.database().write(Durability::Process, action, |tx| {
            let mut found = Vec::with_capacity(layers.len());
            for (digest, expected) in layers {
                let blob = blob::find(tx, digest)?;
                if blob.is_some() {
                    session.lease(tx, "blob", &digest.to_string())?;
                }
                let known = blob.as_ref().and_then(|blob| blob.diff_id.as_ref());
                let tree = match expected.as_ref().or(known) {
                    Some(diff_id) => find(self, tx, diff_id)?.filter(|tree| tree.trusted),
                    None => None,
                };
                if let Some(tree) = &tree {
                    session.lease(tx, "tree", &tree.diff_id.to_string())?;
                }
                found.push(Presence { blob, tree });
            }
            Ok(found)
        })?;
        for (presence, (digest, _)) in found.iter_mut().zip(layers) {
            let size = self.blob_file_size(digest);
            presence.blob.take_if(|blob| size != Some(blob.size));
            presence.tree.take_if(|tree| !self.layout().diff(&tree.id).is_dir());
        }
        Ok(found)
    }

    /// Makes trees durable, if all that are not were written long enough ago for this to be cheap.
    ///
    /// Called before a command writes, never after: a sync waits for everything written to the filesystem.
    pub fn settle(&self) -> Result<()> {
        let action = "look for fresh trees";
        let fresh_since = self.clock().now() - SETTLE_AGE;
        let fresh: bool = self.database().read(action, |db| {
            db.prepare_cached("SELECT EXISTS (SELECT 1 FROM tree WHERE synced = 0 AND created_at > ?1)")
                .and_then(|mut statement| statement.query_row([fresh_since], |row| row.get(0)))
                .db(action)
        })?;
        if fresh { Ok(()) } else { self.settle_older_than(SETTLE_AGE).map(drop) }
    }

    /// Makes all trees durable if there are snapshots of others than images. Called before blobs are removed: the layers
    /// that these are stacked from could not be unpacked again after a power cut.
    pub fn settle_for_snapshots(&self) -> Result<()> {
        let action = "look for snapshots above fresh trees";
        let needed: bool = self.database().read(action, |db| {
            db.query_row(
                "SELECT EXISTS (SELECT 1 FROM tree WHERE synced = 0) AND EXISTS (SELECT 1 FROM snapshot AS s \
                 LEFT JOIN tree AS t ON t.id = s.tree WHERE s.kind <> 'committed' OR t.diff_id IS NULL)",
                [],
                |row| row.get(0),
            )
            .db(action)
        })?;
        if needed { self.settle_older_than(0).map(drop) } else { Ok(()) }
    }

    /// Makes trees durable that are at least `age` seconds old. Returns how many there were.
    pub fn settle_older_than(&self, age: UnixSeconds) -> Result<usize> {
        let action = "record what is durable";
        // All of them, whatever the clock has done.
        let written_before = if age == 0 { UnixSeconds::MAX } else { self.clock().now() - age };
        let life = self.life();
        let filter = "synced = 0 AND created_at <= ?1 AND boot_id = ?2 AND mount_id = ?3";
        let parameters = (written_before, &life.boot, life.mount);
        let ids: Vec<String> = self.database().read(action, |db| {
            let mut statement =
                db.prepare_cached(&format!("SELECT id FROM tree WHERE {filter}")).db(action)?;
            let rows = statement.query_map(parameters, |row| row.get(0)).db(action)?;
            rows.collect::<rusqlite::Result<_>>().db(action)
        })?;
        if ids.is_empty() {
            return Ok(0);
        }
        self.durable().sync_filesystem()?;
        self.database().write(Durability::Process, action, |tx| {
            let mut update = tx.prepare_cached("UPDATE tree SET synced = 1 WHERE id = ?1").db(action)?;
            for id in &ids {
                update.execute([id]).db(action)?;
            }
            Ok(ids.len())
        })
    }
}

pub(crate) const COLUMNS: &str = "id, diff_id, bytes, allocated, inodes, boot_id, mount_id, synced";

pub(crate) fn find(store: &Store, db: &Connection, diff_id: &DiffId) -> Result<Option<TreeInfo>> {
    let row = db
        .prepare_cached(&format!("SELECT {COLUMNS} FROM tree WHERE diff_id = ?1"))
        .and_then(|mut statement| {
            statement.query_row([diff_id.to_string()], |row| Ok(from_row(store, row))).optional()
        })
        .db("look up a tree")?;
    row.transpose()
}

/// Reads the columns [`COLUMNS`].
pub(crate) fn from_row(store: &Store, row: &Row<'_>) -> Result<TreeInfo> {
    let text = |index| row.get::<_, String>(index).db("read a tree");
    let number = |index| row.get::<_, u64>(index).db("read a tree");
    let synced: bool = row.get(7).db("read a tree")?;
    let mount: i64 = row.get(6).db("read a tree")?;
    let life = store.life();
    Ok(TreeInfo {
        id: text(0)?.parse()?,
        diff_id: blob::parse_digest(&text(1)?)?,
        usage: Usage { bytes: number(2)?, allocated: number(3)?, inodes: number(4)? },
        trusted: synced || (text(5)? == life.boot && mount == life.mount),
    })
}
