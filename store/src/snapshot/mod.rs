//! Snapshots: stacks of trees with a key, as containerd's snapshot service knows them.
//!
//! An *active* snapshot has a writable tree of its own above its parent, a *view* has none, and both can be mounted. A
//! *committed* one can be the parent of others and is not mounted itself. Keys of all three kinds share one space an
//! owner; owners do not see each other, but the trees of layers are shared between them.
//!
//! The stack of an image is a chain of committed snapshots, keyed by chain ID. They come and go with what needs them;
//! everything else stays until it is removed.

mod change;
mod kinds;
mod limits;
mod prepare;
mod remove;
mod stack;

use std::collections::BTreeMap;

use layerstore_oci::Digest;
use rusqlite::{Connection, OptionalExtension as _, Row, Transaction};

use crate::clock::UnixSeconds;
use crate::db::Durability;
use crate::error::{DbContext as _, Error, Result};
use crate::layout::TreeId;
use crate::reference::LOCAL;
use crate::store::Store;

pub use change::SnapshotCommit;
pub use kinds::{Settings, SnapshotKind};
pub use prepare::{NewSnapshot, WritableTree};
pub use remove::Discarded;
pub(crate) use stack::insert_chain;
pub use stack::{Link, LinkTree};

/// Labels by name.
pub type Labels = BTreeMap<String, String>;

/// The most that the name of a label and its value may have in bytes, as in containerd.
pub const MAX_LABEL: usize = 4096;

/// The most that a key may have in bytes.
pub const MAX_KEY: usize = 1024;

/// What is known of a snapshot without looking at its files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotInfo {
    /// Who created it.
    pub owner: String,
    /// Its key.
    pub key: String,
    /// What it can be used for.
    pub kind: SnapshotKind,
    /// The key of the committed snapshot that it is above.
    pub parent: Option<String>,
    /// Labels.
    pub labels: Labels,
    /// How it is mounted.
    pub settings: Settings,
    /// When it was prepared, or committed.
    pub created_at: UnixSeconds,
    /// When its labels were last changed.
    pub updated_at: UnixSeconds,
}

impl Store {
    /// One snapshot. An unknown key is an error of kind `NotFound`.
    pub fn snapshot(&self, owner: &str, key: &str) -> Result<SnapshotInfo> {
        self.database().read("look up a snapshot", |db| required(db, owner, key))
    }

    /// The same, `None` where there is none.
    pub fn find_snapshot(&self, owner: &str, key: &str) -> Result<Option<SnapshotInfo>> {
        self.database().read("look up a snapshot", |db| find(db, owner, key))
    }

    /// Notes that somebody is told how to mount a snapshot, and may do so at any time from now on.
    pub fn hand_out(&self, owner: &str, key: &str) -> Result<()> {
        let action = "note the use of a snapshot";
        let used = self.database().read(action, |db| {
            db.prepare_cached("SELECT 1 FROM snapshot WHERE owner = ?1 AND key = ?2 AND used")
                .and_then(|mut query| query.exists((owner, key)))
                .db(action)
        })?;
        if used {
            return Ok(());
        }
        self.database().write(Durability::Process, action, |tx| mark_used(tx, owner, key))
    }

    /// The tree that a snapshot writes to, if anybody may have it mounted.
    pub(crate) fn used_tree(&self, owner: &str, key: &str) -> Result<Option<TreeId>> {
        let action = "look up the use of a snapshot";
        let tree: Option<Option<String>> = self.database().read(action, |db| {
            db.prepare_cached(
                "SELECT tree FROM snapshot WHERE owner = ?1 AND key = ?2 AND used AND kind = 'active'",
            )
            .and_then(|mut query| query.query_row((owner, key), |row| row.get(0)).optional())
            .db(action)
        })?;
        tree.flatten().map(|id| id.parse()).transpose()
    }

    /// All snapshots of an owner, by key.
    ///
    /// They are handed out in blocks, each as it was at one moment: what is created or removed while this runs may or
    /// may not be among them, and nobody waits for who is slow.
    pub fn walk_snapshots(
        &self,
        owner: &str,
        mut each: impl FnMut(SnapshotInfo) -> std::ops::ControlFlow<()>,
    ) -> Result<()> {
        const BLOCK: usize = 100;
        let action = "list snapshots";
        let mut after = String::new();
        loop {
            let block: Vec<SnapshotInfo> = self.database().read(action, |db| {
                // No key is empty.
                let query = format!(
                    "SELECT {COLUMNS} FROM snapshot WHERE owner = ?1 AND key > ?2 ORDER BY key LIMIT {BLOCK}"
                );
                let mut statement = db.prepare_cached(&query).db(action)?;
                let rows = statement.query_map((owner, &after), |row| Ok(from_row(row))).db(action)?;
                rows.map(|row| row.db(action)?).collect()
            })?;
            let complete = block.len() < BLOCK;
            if let Some(last) = block.last() {
                after.clone_from(&last.key);
            }
            for info in block {
                if each(info).is_break() {
                    return Ok(());
                }
            }
            if complete {
                return Ok(());
            }
        }
    }
}

/// Whether this is the key of a snapshot that belongs to an image's stack.
pub(crate) fn is_chain(key: &str) -> bool {
    key.parse::<Digest>().is_ok()
}

/// Checks a key that somebody has chosen.
fn check_key(owner: &str, key: &str) -> Result<()> {
    let reason = if owner.is_empty() {
        "its owner has no name"
    } else if key.is_empty() {
        "it is empty"
    } else if key.len() > MAX_KEY {
        "it is longer than 1024 bytes"
    } else if key.contains('\0') || owner.contains('\0') {
        "it has a NUL in it"
    } else if owner == LOCAL && is_chain(key) {
        "digests are kept for the stacks of images"
    } else {
        return Ok(());
    };
    Err(Error::InvalidKey { key: key.to_owned(), reason })
}

fn check_labels(labels: &Labels) -> Result<()> {
    match labels.iter().find(|(name, value)| name.len() + value.len() > MAX_LABEL) {
        Some((name, _)) => {
            Err(Error::LabelTooLong { name: name.chars().take(64).collect(), limit: MAX_LABEL })
        }
        None => Ok(()),
    }
}

const COLUMNS: &str = "owner, key, kind, parent, labels, options, created_at, updated_at";

fn find(db: &Connection, owner: &str, key: &str) -> Result<Option<SnapshotInfo>> {
    let query = format!("SELECT {COLUMNS} FROM snapshot WHERE owner = ?1 AND key = ?2");
    db.prepare_cached(&query)
        .and_then(|mut query| query.query_row((owner, key), |row| Ok(from_row(row))).optional())
        .db("look up a snapshot")?
        .transpose()
}

pub(crate) fn required(db: &Connection, owner: &str, key: &str) -> Result<SnapshotInfo> {
    find(db, owner, key)?.ok_or_else(|| no_snapshot(key))
}

/// Notes that somebody may have it mounted from now on.
pub(crate) fn mark_used(tx: &Transaction<'_>, owner: &str, key: &str) -> Result<()> {
    tx.prepare_cached("UPDATE snapshot SET used = 1 WHERE owner = ?1 AND key = ?2 AND used = 0")
        .and_then(|mut update| update.execute((owner, key)))
        .db("note the use of a snapshot")?;
    Ok(())
}

fn no_snapshot(key: &str) -> Error {
    Error::NotFound { what: "snapshot", name: key.to_owned() }
}

/// Checks, in the transaction that uses it, that `key` may be a parent.
fn check_parent(tx: &Transaction<'_>, owner: &str, key: &str) -> Result<()> {
    match required(tx, owner, key)?.kind {
        SnapshotKind::Committed => Ok(()),
        kind => Err(Error::ParentNotCommitted { key: key.to_owned(), kind }),
    }
}

fn from_row(row: &Row<'_>) -> Result<SnapshotInfo> {
    let action = "read a snapshot";
    let (kind, labels, settings): (String, String, String) =
        (row.get(2).db(action)?, row.get(4).db(action)?, row.get(5).db(action)?);
    Ok(SnapshotInfo {
        owner: row.get(0).db(action)?,
        key: row.get(1).db(action)?,
        kind: kind.parse()?,
        parent: row.get(3).db(action)?,
        labels: serde_json::from_str(&labels)
            .map_err(|_| Error::InvalidRow { what: "set of labels", value: labels })?,
        settings: Settings::parse(&settings)?,
        created_at: row.get(6).db(action)?,
        updated_at: row.get(7).db(action)?,
    })
}

fn to_json(labels: &Labels) -> String {
    // A map of texts can always be written.
    serde_json::to_string(labels).unwrap_or_default()
}
