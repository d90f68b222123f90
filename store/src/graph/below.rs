//! What one blob leads to, without looking at the rest of the store.

use std::collections::HashSet;

use layerstore_oci::Digest;
use rusqlite::{Connection, Params};

use super::Object;
use crate::blob::parse_digest;
use crate::error::{DbContext as _, Result};
use crate::snapshot::is_chain;

pub(super) fn below(db: &Connection, blob: &Digest) -> Result<Vec<Object>> {
    let (mut documents, mut leaves) = (Vec::new(), Vec::new());
    let (mut chains, mut diff_ids) = (Vec::new(), Vec::new());
    let mut seen = HashSet::new();
    let mut open = vec![blob.to_string()];
    while let Some(digest) = open.pop() {
        let here = !texts(db, "SELECT digest FROM blob WHERE digest = ?1", [&digest])?.is_empty();
        if !here || !seen.insert(digest.clone()) {
            continue;
        }
        let children = texts(db, "SELECT child FROM edge WHERE parent = ?1 ORDER BY position", [&digest])?;
        if children.is_empty() { &mut leaves } else { &mut documents }
            .push(Object::Blob(parse_digest(&digest)?));
        open.extend(children);
        let chain = "SELECT chain_id FROM image WHERE manifest = ?1 AND chain_id IS NOT NULL";
        chains.extend(texts(db, chain, [&digest])?);
        diff_ids.extend(texts(db, "SELECT diff_id FROM image_layer WHERE manifest = ?1", [&digest])?);
    }
    let mut trees: Vec<String> = Vec::new();
    for diff_id in diff_ids {
        trees.extend(texts(db, "SELECT id FROM tree WHERE diff_id = ?1", [&diff_id])?);
        // Without it the tree would be lost with this boot.
        let blobs = "SELECT b.digest FROM blob AS b JOIN tree AS t USING (diff_id) WHERE diff_id = ?1 AND t.synced = 0";
        for digest in texts(db, blobs, [&diff_id])? {
            if seen.insert(digest.clone()) {
                leaves.push(Object::Blob(parse_digest(&digest)?));
            }
        }
    }
    let mut snapshots = Vec::new();
    let mut known = HashSet::new();
    for chain in chains {
        let mut next = Some(chain);
        while let Some(key) = next.take().filter(|key| is_chain(key) && known.insert(key.clone())) {
            let owners = texts(db, "SELECT owner FROM snapshot WHERE key = ?1 ORDER BY owner", [&key])?;
            trees.extend(texts(
                db,
                "SELECT fixup FROM snapshot WHERE key = ?1 AND fixup IS NOT NULL",
                [&key],
            )?);
            next =
                texts(db, "SELECT parent FROM snapshot WHERE key = ?1 AND parent IS NOT NULL", [&key])?.pop();
            snapshots.extend(owners.into_iter().map(|owner| Object::Snapshot { owner, key: key.clone() }));
        }
    }
    trees.sort();
    trees.dedup();
    let mut objects = documents;
    objects.append(&mut snapshots);
    for id in trees {
        objects.push(Object::Tree(id.parse()?));
    }
    objects.append(&mut leaves);
    Ok(objects)
}

fn texts<P: Params>(db: &Connection, query: &str, parameters: P) -> Result<Vec<String>> {
    let action = "look below a blob";
    let mut statement = db.prepare_cached(query).db(action)?;
    let rows = statement.query_map(parameters, |row| row.get(0)).db(action)?;
    rows.collect::<rusqlite::Result<_>>().db(action)
}
