//! What keeps what: the graph that collection works on, and forgetting what it chose.

use std::collections::HashMap;

use layerstore_oci::Digest;
use rusqlite::{Connection, Transaction};

use crate::blob::parse_digest;
use crate::db::Durability;
use crate::error::{DbContext as _, Error, Result};
use crate::layout::TreeId;
use crate::lock::Key;
use crate::reference::LOCAL;
use crate::snapshot;
use crate::store::Store;
use crate::tables::Tables;

/// Something that collection may take away.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Object {
    /// A blob.
    Blob(Digest),
    /// A tree's directory.
    Tree(TreeId),
    /// A snapshot's row.
    Snapshot {
        /// Who created it.
        owner: String,
        /// Its key.
        key: String,
    },
}

/// An object and the space it takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// The object.
    pub object: Object,
    /// Its bytes: length of a blob, allocated bytes of a tree, nothing for a snapshot.
    pub bytes: u64,
}

/// All objects of a store at one moment. Indices refer to `nodes`.
#[derive(Debug, Default)]
pub struct Graph {
    /// The objects.
    pub nodes: Vec<Node>,
    /// Which objects each object keeps.
    pub children: Vec<Vec<usize>>,
    /// What references, leases, mounts and live snapshots keep.
    pub roots: Vec<usize>,
    index: HashMap<Object, usize>,
}

impl Graph {
    /// The index of an object.
    pub fn find(&self, object: &Object) -> Option<usize> {
        self.index.get(object).copied()
    }

    /// Adds an object.
    pub fn add(&mut self, object: Object, bytes: u64) -> usize {
        let index = self.nodes.len();
        self.index.insert(object.clone(), index);
        self.nodes.push(Node { object, bytes });
        self.children.push(Vec::new());
        index
    }
}

/// What [`Store::forget`] did.
#[derive(Debug, Default)]
pub struct Forgotten {
    /// The objects whose rows are gone. Their files go with [`Store::sweep`].
    pub nodes: Vec<Node>,
}

impl Store {
    /// The graph as it is now.
    pub fn graph(&self) -> Result<Graph> {
        let boot = &self.life().boot;
        self.database().read("load the graph", |db| load(db, boot, true))
    }

    /// The same as if no interrupted pull kept anything.
    pub fn graph_without_lasting_leases(&self) -> Result<Graph> {
        let boot = &self.life().boot;
        self.database().read("load the graph", |db| load(db, boot, false))
    }

    /// Removes the names `untag` of `owner`, lets `choose` pick what goes, and forgets it: all in
    /// one durable transaction, so that nothing chosen can be claimed in between.
    ///
    /// `choose` returns indices of the graph; what it returns must not be reachable from the roots.
    pub fn forget(
        &self,
        owner: &str,
        untag: &[String],
        choose: impl FnOnce(&Graph) -> Vec<usize>,
    ) -> Result<Forgotten> {
        let boot = &self.life().boot;
        self.database().write(Durability::Power, "forget objects", |tx| {
            for name in untag {
                let count = tx
                    .execute("DELETE FROM reference WHERE owner = ?1 AND name = ?2", (owner, name))
                    .db("remove a name")?;
                if count == 0 {
                    return Err(Error::NotFound { what: "name", name: name.clone() });
                }
            }
            let graph = load(tx, boot, true)?;
            let nodes: Vec<Node> =
                choose(&graph).into_iter().map(|index| graph.nodes[index].clone()).collect();
            delete_rows(tx, &nodes)?;
            Ok(Forgotten { nodes })
        })
    }

    /// Takes the files of forgotten objects away: into the trash in one step, then unlinked.
    /// Whatever got a row again in the meantime stays.
    pub fn sweep(&self, forgotten: &Forgotten) -> Result<()> {
        let mut trashed = Vec::new();
        let has_trees = forgotten.nodes.iter().any(|node| matches!(node.object, Object::Tree(_)));
        {
            let _claim = self.claim(&Key::Sweep)?;
            // What somebody still has mounted goes with a later collection.
            let tables = if has_trees { Tables::read() } else { Tables::default() };
            for node in &forgotten.nodes {
                let path = match &node.object {
                    Object::Blob(digest) if self.blob(digest)?.is_none() => self.layout().blob(digest),
                    Object::Tree(id) if tables.user(id).is_none() => self.layout().tree(id),
                    Object::Blob(_) | Object::Tree(_) | Object::Snapshot { .. } => continue,
                };
                trashed.extend(self.move_to_trash(&path)?);
            }
        }
        for path in &trashed {
            self.unlink_trashed(path)?;
        }
        Ok(())
    }
}

fn load(db: &Connection, boot: &str, lasting: bool) -> Result<Graph> {
    let mut graph = Graph::default();
    let mut by_diff_id: HashMap<String, usize> = HashMap::new();
    each(db, "SELECT digest, size FROM blob", [], |row| {
        let digest = parse_digest(&text(row, 0)?)?;
        graph.add(Object::Blob(digest), number(row, 1)?);
        Ok(())
    })?;
    each(db, "SELECT id, allocated, diff_id FROM tree", [], |row| {
        let tree = graph.add(Object::Tree(text(row, 0)?.parse()?), number(row, 1)?);
        if let Some(diff_id) = row.get(2).db("read a tree")? {
            by_diff_id.insert(diff_id, tree);
        }
        Ok(())
    })?;
    let snapshots = "SELECT s.owner, s.key, s.kind, t.id IS NOT NULL AND t.diff_id IS NULL FROM snapshot AS s \
                     LEFT JOIN tree AS t ON t.id = s.tree";
    each(db, snapshots, [], |row| {
        let (owner, key) = (text(row, 0)?, text(row, 1)?);
        // The stack of an image is only there for others. What somebody has written is not, whatever its key.
        let written: bool = row.get(3).db("read a snapshot")?;
        let kept = text(row, 2)? != "committed" || written || !snapshot::is_chain(&key);
        let snapshot = graph.add(Object::Snapshot { owner, key }, 0);
        if kept {
            graph.roots.push(snapshot);
        }
        Ok(())
    })?;
    keep_blobs_of_unsynced_trees(db, &mut graph)?;
    let blob = |graph: &Graph, text: &str| -> Result<Option<usize>> {
        Ok(graph.find(&Object::Blob(parse_digest(text)?)))
    };
    let snapshot = |graph: &Graph, owner: String, key: String| graph.find(&Object::Snapshot { owner, key });
    each(db, "SELECT parent, child FROM edge", [], |row| {
        let ends = (blob(&graph, &text(row, 0)?)?, blob(&graph, &text(row, 1)?)?);
        if let (Some(parent), Some(child)) = ends {
            graph.children[parent].push(child);
        }
        Ok(())
    })?;
    each(db, "SELECT manifest, chain_id FROM image WHERE chain_id IS NOT NULL", [], |row| {
        let manifest = blob(&graph, &text(row, 0)?)?;
        let chain = snapshot(&graph, LOCAL.to_owned(), text(row, 1)?);
        if let (Some(manifest), Some(chain)) = (manifest, chain) {
            graph.children[manifest].push(chain);
        }
        Ok(())
    })?;
    each(db, "SELECT manifest, diff_id FROM image_layer", [], |row| {
        let manifest = blob(&graph, &text(row, 0)?)?;
        if let (Some(manifest), Some(tree)) = (manifest, by_diff_id.get(&text(row, 1)?)) {
            graph.children[manifest].push(*tree);
        }
        Ok(())
    })?;
    each(db, "SELECT owner, key, parent, tree, fixup FROM snapshot", [], |row| {
        let owner = text(row, 0)?;
        let Some(child) = snapshot(&graph, owner.clone(), text(row, 1)?) else { return Ok(()) };
        if let Some(parent) = row.get::<_, Option<String>>(2).db("read a snapshot")? {
            let parent = snapshot(&graph, owner, parent);
            graph.children[child].extend(parent);
        }
        for column in [3, 4] {
            if let Some(tree) = row.get::<_, Option<String>>(column).db("read a snapshot")? {
                let tree = graph.find(&Object::Tree(tree.parse()?));
                graph.children[child].extend(tree);
            }
        }
        Ok(())
    })?;
    let leased = if lasting { "" } else { " AND lease IN (SELECT id FROM lease WHERE expires_at IS NULL)" };
    let targets = format!(
        "SELECT target FROM reference UNION ALL SELECT key FROM lease_item WHERE kind = 'blob'{leased} \
         UNION ALL SELECT manifest FROM mount WHERE boot_id = ?1 AND manifest IS NOT NULL \
         UNION ALL SELECT manifest FROM container"
    );
    each(db, &targets, [boot], |row| {
        let target = blob(&graph, &text(row, 0)?)?;
        graph.roots.extend(target);
        Ok(())
    })?;
    each(
        db,
        "SELECT t.tree FROM mount_tree AS t JOIN mount AS m USING (target, namespace) WHERE m.boot_id = ?1",
        [boot],
        |row| {
            let tree = graph.find(&Object::Tree(text(row, 0)?.parse()?));
            graph.roots.extend(tree);
            Ok(())
        },
    )?;
    let trees = format!("SELECT key FROM lease_item WHERE kind = 'tree'{leased}");
    each(db, &trees, [], |row| {
        graph.roots.extend(by_diff_id.get(&text(row, 0)?));
        Ok(())
    })?;
    Ok(graph)
}

/// A tree that did not reach the disk, of a mount or boot that is gone, is as good as its blob.
fn keep_blobs_of_unsynced_trees(db: &Connection, graph: &mut Graph) -> Result<()> {
    let unsynced =
        "SELECT t.id, b.digest FROM tree AS t JOIN blob AS b ON b.diff_id = t.diff_id WHERE t.synced = 0";
    each(db, unsynced, [], |row| {
        let tree = graph.find(&Object::Tree(text(row, 0)?.parse()?));
        let blob = graph.find(&Object::Blob(parse_digest(&text(row, 1)?)?));
        if let (Some(tree), Some(blob)) = (tree, blob) {
            graph.children[tree].push(blob);
        }
        Ok(())
    })
}

fn delete_rows(tx: &Transaction<'_>, nodes: &[Node]) -> Result<()> {
    let action = "forget an object";
    // A chain's snapshots go in any order.
    tx.execute_batch("PRAGMA defer_foreign_keys = ON").db(action)?;
    for node in nodes {
        match &node.object {
            Object::Blob(digest) => tx
                .prepare_cached("DELETE FROM blob WHERE digest = ?1")
                .and_then(|mut delete| delete.execute([digest.to_string()])),
            Object::Tree(id) => tx
                .prepare_cached("DELETE FROM tree WHERE id = ?1")
                .and_then(|mut delete| delete.execute([id.as_str()])),
            Object::Snapshot { owner, key } => tx
                .prepare_cached("DELETE FROM snapshot WHERE owner = ?1 AND key = ?2")
                .and_then(|mut delete| delete.execute((owner, key))),
        }
        .db(action)?;
    }
    Ok(())
}

fn each<P: rusqlite::Params>(
    db: &Connection,
    query: &str,
    parameters: P,
    mut row: impl FnMut(&rusqlite::Row<'_>) -> Result<()>,
) -> Result<()> {
    let action = "load the graph";
    let mut statement = db.prepare_cached(query).db(action)?;
    let mut rows = statement.query(parameters).db(action)?;
    while let Some(next) = rows.next().db(action)? {
        row(next)?;
    }
    Ok(())
}

fn text(row: &rusqlite::Row<'_>, index: usize) -> Result<String> {
    row.get(index).db("load the graph")
}

fn number(row: &rusqlite::Row<'_>, index: usize) -> Result<u64> {
    row.get(index).db("load the graph")
}
