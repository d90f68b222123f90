//! References: names for manifests and indexes.

use layerstore_oci::Digest;
use rusqlite::{Connection, OptionalExtension as _, Row, Transaction};

use crate::blob::parse_digest;
use crate::clock::UnixSeconds;
use crate::db::Durability;
use crate::error::{DbContext as _, Error, Result};
use crate::store::Store;

/// The owner of what people and programs create without naming another.
pub const LOCAL: &str = "local";

/// A name and what it stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReferenceRow {
    /// A canonical reference, or for an image without a name its target's digest.
    pub name: String,
    /// The manifest or index.
    pub target: Digest,
    /// When the name was first given.
    pub created_at: UnixSeconds,
    /// When it got its present target.
    pub updated_at: UnixSeconds,
    /// When its registry last said that it stands for this target, if it came from there.
    pub pulled_at: Option<UnixSeconds>,
    /// Whether no policy may take it away.
    pub pinned: bool,
}

impl Store {
    /// The reference with this exact name.
    pub fn reference(&self, owner: &str, name: &str) -> Result<Option<ReferenceRow>> {
        self.database().read("look up a name", |db| find(db, owner, name))
    }

    /// All references of an owner, by name.
    pub fn references(&self, owner: &str) -> Result<Vec<ReferenceRow>> {
        let action = "list names";
        self.database().read(action, |db| {
            let mut statement = db
                .prepare_cached(&format!("SELECT {COLUMNS} FROM reference WHERE owner = ?1 ORDER BY name"))
                .db(action)?;
            let rows = statement.query_map([owner], |row| Ok(from_row(row))).db(action)?;
            rows.map(|row| row.db(action)?).collect()
        })
    }

    /// Gives `target` one more name. The name stays pinned if it was, but does not count as pulled any more. A target that loses its last name by this stays as an image
    /// without a name. Tells whether anything changed; the change is durable.
    pub fn set_reference(&self, owner: &str, name: &str, target: &Digest) -> Result<bool> {
        let now = self.clock().now();
        if self.reference(owner, name)?.is_some_and(|row| row.target == *target) {
            return Ok(false);
        }
        self.database().write(Durability::Power, "set a name", |tx| {
            if crate::blob::find(tx, target)?.is_none() {
                return Err(Error::NoBlob { digest: target.clone() });
            }
            set(tx, owner, name, target, now)
        })
    }

    /// Pins a name, so that no policy takes it away, or unpins it, durably. Tells whether that changed anything; a name
    /// that there is not is an error of kind `NotFound`.
    pub fn set_pinned(&self, owner: &str, name: &str, pinned: bool) -> Result<bool> {
        let action = "pin a name";
        let missing = || Error::NotFound { what: "name", name: name.to_owned() };
        if self.reference(owner, name)?.ok_or_else(missing)?.pinned == pinned {
            return Ok(false);
        }
        self.database().write(Durability::Power, action, |tx| {
            let before = find(tx, owner, name)?.ok_or_else(missing)?;
            tx.execute(
                "UPDATE reference SET pinned = ?3 WHERE owner = ?1 AND name = ?2",
                (owner, name, pinned),
            )
            .db(action)?;
            Ok(before.pinned != pinned)
        })
    }
}

const COLUMNS: &str = "name, target, created_at, updated_at, pulled_at, pinned";

pub(crate) fn find(db: &Connection, owner: &str, name: &str) -> Result<Option<ReferenceRow>> {
    db.prepare_cached(&format!("SELECT {COLUMNS} FROM reference WHERE owner = ?1 AND name = ?2"))
        .and_then(|mut statement| statement.query_row((owner, name), |row| Ok(from_row(row))).optional())
        .db("look up a name")?
        .transpose()
}

/// Sets a name inside a transaction. Tells whether anything changed. A target that has a name does not
/// get its digest for one.
pub(crate) fn set(
    tx: &Transaction<'_>,
    owner: &str,
    name: &str,
    target: &Digest,
    now: UnixSeconds,
) -> Result<bool> {
    let action = "set a name";
    let before = find(tx, owner, name)?;
    if before.as_ref().is_some_and(|row| row.target == *target) {
        return Ok(false);
    }
    let target_text = target.to_string();
    if name == target_text && is_named(tx, owner, &target_text)? {
        return Ok(false);
    }
    tx.prepare_cached(
        "INSERT INTO reference (owner, name, target, created_at, updated_at) VALUES (?1, ?2, ?3, ?4, ?4) \
         ON CONFLICT (owner, name) DO UPDATE SET target = excluded.target, updated_at = excluded.updated_at, \
         pulled_at = NULL",
    )
    .and_then(|mut insert| insert.execute((owner, name, &target_text, now)))
    .db(action)?;
    // A named image needs its digest as a name no longer, a nameless one needs it from now on.
    if name != target_text {
        // Who has pinned it has pinned the image.
        tx.prepare_cached(
            "UPDATE reference SET pinned = 1 WHERE owner = ?1 AND name = ?2 AND EXISTS \
             (SELECT 1 FROM reference WHERE owner = ?1 AND name = ?3 AND pinned)",
        )
        .and_then(|mut update| update.execute((owner, name, &target_text)))
        .db(action)?;
        tx.prepare_cached("DELETE FROM reference WHERE owner = ?1 AND name = ?2")
            .and_then(|mut delete| delete.execute((owner, &target_text)))
            .db(action)?;
    }
    if let Some(before) = before {
        // The same image under another manifest is not worth keeping.
        let lost = before.target.to_string();
        tx.prepare_cached(
            "INSERT INTO reference (owner, name, target, created_at, updated_at) SELECT ?1, ?2, ?2, ?3, ?4 \
             WHERE NOT EXISTS (SELECT 1 FROM reference WHERE owner = ?1 AND target = ?2) AND NOT EXISTS \
             (SELECT 1 FROM image AS a JOIN image AS b ON a.config = b.config \
              WHERE a.manifest = ?2 AND b.manifest = ?5)",
        )
        .and_then(|mut insert| insert.execute((owner, &lost, before.created_at, now, &target_text)))
        .db(action)?;
    }
    Ok(true)
}

/// Whether anything has this target.
fn is_named(tx: &Transaction<'_>, owner: &str, target: &str) -> Result<bool> {
    tx.prepare_cached("SELECT 1 FROM reference WHERE owner = ?1 AND target = ?2")
        .and_then(|mut statement| statement.exists((owner, target)))
        .db("look up a name")
}

fn from_row(row: &Row<'_>) -> Result<ReferenceRow> {
    let action = "read a name";
    Ok(ReferenceRow {
        name: row.get(0).db(action)?,
        target: parse_digest(&row.get::<_, String>(1).db(action)?)?,
        created_at: row.get(2).db(action)?,
        updated_at: row.get(3).db(action)?,
        pulled_at: row.get(4).db(action)?,
        pinned: row.get(5).db(action)?,
    })
}
