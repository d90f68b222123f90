//! When images were last used, and when names were last pulled.
//!
//! It is noted in the transactions that record the use anyway. A time that is lost with a power cut makes an image look a
//! little older than it is, so nothing here waits for the disk.

use layerstore_oci::ChainId;
use layerstore_oci::{DiffId, Digest};
use rusqlite::Transaction;

use crate::clock::UnixSeconds;
use crate::db::Durability;
use crate::error::{DbContext as _, Result};
use crate::store::Store;

/// Seconds within which a further use or pull is not noted: nothing is decided by less.
const NOTED_FOR: UnixSeconds = 60;

const ACTION: &str = "note the use of an image";

/// A manifest or index, and the manifests below it.
const BELOW: &str = "WITH RECURSIVE below (digest) AS ( \
                     SELECT ?1 UNION SELECT e.child FROM below AS b \
                     JOIN edge AS e ON e.parent = b.digest AND e.kind = 'manifest')";

impl Store {
    /// Notes that the registry of the name says that it still stands for `target`, and that the images that it leads to
    /// are used. Writes only if that was not noted within the last minute, and without waiting for the disk.
    pub fn note_pull(&self, owner: &str, name: &str, target: &Digest) -> Result<()> {
        self.note(Some((owner, name)), target)
    }

    /// Notes that the images that `target` leads to are used. Writes as rarely as [`Store::note_pull`].
    pub fn note_use(&self, target: &Digest) -> Result<()> {
        self.note(None, target)
    }

    fn note(&self, name: Option<(&str, &str)>, target: &Digest) -> Result<()> {
        let (now, target) = (self.clock().now(), target.to_string());
        // A clock that was set back makes what lies ahead of it worth noting once more.
        let recent = (now - NOTED_FOR, now + NOTED_FOR);
        let (owner, name) = name.unzip();
        let noted = self.database().read(ACTION, |db| {
            db.prepare_cached(&format!(
                "{BELOW} SELECT NOT EXISTS (SELECT 1 FROM below AS b JOIN image AS i ON i.manifest = b.digest \
                 WHERE coalesce(i.last_used_at, 0) NOT BETWEEN ?2 AND ?3) AND NOT EXISTS \
                 (SELECT 1 FROM reference WHERE owner = ?4 AND name = ?5 AND target = ?1 \
                  AND coalesce(pulled_at, 0) NOT BETWEEN ?2 AND ?3)"
            ))
            .and_then(|mut query| {
                query.query_row((&target, recent.0, recent.1, owner, name), |row| row.get::<_, bool>(0))
            })
            .db(ACTION)
        })?;
        if noted {
            return Ok(());
        }
        self.database().write(Durability::Process, ACTION, |tx| {
            if let (Some(owner), Some(name)) = (owner, name) {
                mark_pulled(tx, owner, name, &target, now)?;
            }
            mark_below(tx, &target, now)
        })
    }
}

/// Notes that a name was pulled, if it still stands for `target`.
pub(crate) fn mark_pulled(
    tx: &Transaction<'_>,
    owner: &str,
    name: &str,
    target: &str,
    now: UnixSeconds,
) -> Result<()> {
    tx.prepare_cached("UPDATE reference SET pulled_at = ?4 WHERE owner = ?1 AND name = ?2 AND target = ?3")
        .and_then(|mut update| update.execute((owner, name, target, now)))
        .db(ACTION)?;
    Ok(())
}

/// Notes a use of every image that a manifest or index leads to.
pub(crate) fn mark_below(tx: &Transaction<'_>, target: &str, now: UnixSeconds) -> Result<()> {
    tx.prepare_cached(&format!(
        "{BELOW} UPDATE image SET last_used_at = ?2 WHERE manifest IN (SELECT digest FROM below)"
    ))
    .and_then(|mut update| update.execute((target, now)))
    .db(ACTION)?;
    Ok(())
}

/// Notes a use of an image.
pub(crate) fn mark_image(tx: &Transaction<'_>, manifest: &str, now: UnixSeconds) -> Result<()> {
    tx.prepare_cached("UPDATE image SET last_used_at = ?2 WHERE manifest = ?1")
        .and_then(|mut update| update.execute((manifest, now)))
        .db(ACTION)?;
    Ok(())
}

/// Notes a use of the images that are stacked from just these layers, lowest first, or from the chain with the key
/// `parent`.
pub(crate) fn mark_stack(
    tx: &Transaction<'_>,
    layers: &[DiffId],
    parent: Option<&str>,
    now: UnixSeconds,
) -> Result<()> {
    let chain = ChainId::chain(layers).pop().map(|chain| chain.to_string());
    let Some(chain) = chain.as_deref().or(parent) else { return Ok(()) };
    tx.prepare_cached("UPDATE image SET last_used_at = ?2 WHERE chain_id = ?1")
        .and_then(|mut update| update.execute((chain, now)))
        .db(ACTION)?;
    Ok(())
}

/// Notes a use of the image that a container was made from, if the snapshot is one's.
pub(crate) fn mark_container(tx: &Transaction<'_>, owner: &str, id: &str, now: UnixSeconds) -> Result<()> {
    tx.prepare_cached(
        "UPDATE image SET last_used_at = ?3 WHERE manifest = \
         (SELECT manifest FROM container WHERE owner = ?1 AND id = ?2)",
    )
    .and_then(|mut update| update.execute((owner, id, now)))
    .db(ACTION)?;
    Ok(())
}
