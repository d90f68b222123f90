//! Reading the graph.

use std::collections::HashMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;

use layerstore_oci::Digest;
use rusqlite::types::FromSql;
use rusqlite::{Connection, Params, Row};

use super::{Graph, GraphBuilder, Ignored, ImageFacts, LayerFacts, NameRoot, NodeKind, Object, RootKind};
use crate::blob::parse_digest;
use crate::error::{DbContext as _, Error, Result};
use crate::key::Key;
use crate::reference::LOCAL;
use crate::size::Size;
use crate::snapshot::{SnapshotKind, is_chain};

/// The usual size of a block, for blobs that were published before anybody counted.
const BLOCK: u64 = 4096;

struct Loader<'a> {
    db: &'a Connection,
    boot: &'a str,
    ignored: &'a Ignored,
    graph: GraphBuilder,
    /// Trees of layers by diff ID.
    trees: HashMap<Key, usize>,
}

pub(super) fn load(db: &Connection, boot: &str, ignored: &Ignored) -> Result<Graph> {
    let graph = GraphBuilder::default();
    let mut loader = Loader { db, boot, ignored, graph, trees: HashMap::new() };
    loader.blobs()?;
    loader.trees()?;
    loader.snapshots()?;
    loader.edges()?;
    loader.images()?;
    loader.names()?;
    loader.leases()?;
    loader.mounts()?;
    Ok(loader.graph.build())
}

impl Loader<'_> {
    fn blobs(&mut self) -> Result<()> {
        let query = "SELECT digest, size, coalesce(allocated, -1) FROM blob";
        each(self.db, query, [], |row| {
            let apparent: u64 = get(row, 1)?;
            let allocated: i64 = get(row, 2)?;
            let allocated = u64::try_from(allocated).unwrap_or(apparent.next_multiple_of(BLOCK));
            let digest = digest(row, 0)?;
            self.graph.node(Object::Blob(digest), Size { apparent, allocated, inodes: 1 }, NodeKind::Blob);
            Ok(())
        })
    }

    fn trees(&mut self) -> Result<()> {
        each(
            self.db,
            "SELECT id, bytes, allocated, inodes, diff_id, synced, counted FROM tree",
            [],
            |row| {
                let id = text(row, 0)?.parse()?;
                // The directory that holds it counts as well.
                let size =
                    Size { apparent: get(row, 1)?, allocated: get(row, 2)?, inodes: get::<u64>(row, 3)? + 1 };
                let Some(diff_id) = optional(row, 4)? else {
                    let tree = self.graph.node(Object::Tree(id), size, NodeKind::Written);
                    if !get::<bool>(row, 6)? {
                        self.graph.graph.uncounted.push(tree);
                    }
                    return Ok(());
                };
                let tree = self.graph.node(Object::Tree(id), size, NodeKind::Layer);
                self.trees.insert(checked(diff_id)?, tree);
                if !get::<bool>(row, 5)? {
                    self.graph.graph.unsynced.push(tree);
                }
                Ok(())
            },
        )?;
        // A tree that did not reach the disk, of a mount or boot that is gone, is as good as its blob.
        let query = "SELECT t.id, b.digest, t.boot_id, t.mount_id FROM tree AS t \
                     JOIN blob AS b ON b.diff_id = t.diff_id WHERE t.synced = 0";
        each(self.db, query, [], |row| {
            let written = (text(row, 2)?, get::<i64>(row, 3)?);
            if self.ignored.settled.as_ref().is_some_and(|(boot, mount)| written == (boot, *mount)) {
                return Ok(());
            }
            let tree = self.graph.find(&Object::Tree(text(row, 0)?.parse()?));
            let blob = self.here(row, 1)?;
            if let (Some(tree), Some(blob)) = (tree, blob) {
                self.graph.edge(tree, blob);
            }
            Ok(())
        })
    }

    fn snapshots(&mut self) -> Result<()> {
        // The stack of an image is only there for others. What somebody has written is not, whatever its key.
        let mut containers = HashMap::new();
        each(self.db, "SELECT id, owner, name FROM container", [], |row| {
            let key = (text(row, 1)?.to_owned(), text(row, 0)?.to_owned());
            containers.insert(key, text(row, 2)?.to_owned());
            Ok(())
        })?;
        // What a snapshot is above may come later.
        let mut parents: Vec<(usize, String, Key)> = Vec::new();
        let mut fixups = Vec::new();
        each(self.db, "SELECT owner, key, kind, parent, tree, fixup FROM snapshot", [], |row| {
            let (owner, key) = (text(row, 0)?.to_owned(), text(row, 1)?.to_owned());
            let kind: SnapshotKind = text(row, 2)?.parse()?;
            let tree = self.tree(row, 4)?;
            let written = tree.is_some_and(|tree| self.graph.graph.nodes[tree].kind == NodeKind::Written);
            let chain = kind == SnapshotKind::Committed && !written && is_chain(&key);
            let object = Object::Snapshot { owner, key };
            let node = self.graph.node(object, Size::default(), NodeKind::Snapshot);
            if !chain {
                let (owner, key) = (text(row, 0)?.to_owned(), text(row, 1)?.to_owned());
                let place = (owner, key);
                // The image of a container comes with the names.
                let root = match containers.remove(&place) {
                    Some(name) => RootKind::Container { id: place.1, name },
                    None => RootKind::Snapshot { owner: place.0, key: place.1, kind },
                };
                self.graph.root(root, vec![node]);
            }
            if let Some(parent) = optional(row, 3)? {
                parents.push((node, text(row, 0)?.to_owned(), Key::of(parent)));
            }
            if let Some(tree) = tree {
                self.graph.edge(node, tree);
            }
            if let Some(fixup) = self.tree(row, 5)? {
                self.graph.edge(node, fixup);
                fixups.push(fixup);
            }
            Ok(())
        })?;
        if let Some((_, id)) = containers.into_keys().next() {
            return Err(dangling("snapshot", &id));
        }
        for (node, owner, parent) in parents {
            let keys = self.graph.graph.index.snapshots.get(&owner);
            let parent = keys.and_then(|keys| keys.get(&parent)).ok_or_else(|| {
                let Object::Snapshot { key, .. } = &self.graph.graph.nodes[node].object else {
                    return dangling("snapshot", "");
                };
                Error::DanglingRow { what: "parent of a snapshot", name: key.clone() }
            })?;
            let parent = *parent as usize;
            self.graph.edge(node, parent);
        }
        for fixup in fixups {
            self.graph.graph.nodes[fixup].kind = NodeKind::Fixup;
        }
        Ok(())
    }

    /// The tree of a column, if there is one: then it must be here.
    fn tree(&self, row: &Row<'_>, column: usize) -> Result<Option<usize>> {
        let Some(tree) = optional(row, column)? else { return Ok(None) };
        self.required(&Object::Tree(tree.parse()?), "tree", tree).map(Some)
    }

    fn edges(&mut self) -> Result<()> {
        let mut last = Last::default();
        // Rows come in the order of digests; few of them are of indexes.
        let mut manifests: Vec<(usize, i64, usize)> = Vec::new();
        each(self.db, "SELECT parent, child, kind, position FROM edge", [], |row| {
            let parent = last.or_find(row, |row| self.blob(row, 0))?;
            // What an index names need not be here.
            let child = self.here(row, 1)?;
            match (text(row, 2)?, child) {
                ("manifest", Some(child)) => manifests.push((parent, get(row, 3)?, child)),
                ("config" | "layer" | "subject", Some(child)) => self.graph.edge(parent, child),
                ("manifest" | "config" | "layer" | "subject", None) => {}
                (kind, _) => return Err(invalid("kind of edge", kind)),
            }
            Ok(())
        })?;
        manifests.sort_unstable();
        for (parent, _, child) in manifests {
            self.graph.manifest(parent, child);
        }
        Ok(())
    }

    fn images(&mut self) -> Result<()> {
        let mut images = Vec::new();
        let mut by_manifest = HashMap::new();
        let query = "SELECT manifest, config, platform, created, labels, last_used_at, chain_id FROM image";
        each(self.db, query, [], |row| {
            let manifest = self.blob(row, 0)?;
            let chain_key = optional(row, 6)?;
            let chain = chain_key.and_then(|chain| self.graph.graph.index.snapshot(LOCAL, chain));
            by_manifest.insert(manifest, images.len());
            images.push(ImageFacts {
                manifest,
                config: digest(row, 1)?,
                platform: text(row, 2)?.to_owned(),
                created: get(row, 3)?,
                labels: text(row, 4)?.to_owned(),
                last_used_at: get(row, 5)?,
                chain,
                chain_key: chain_key.map(str::to_owned),
                layers: Vec::new(),
            });
            Ok(())
        })?;
        let mut last = Last::default();
        each(self.db, "SELECT manifest, blob, diff_id FROM image_layer", [], |row| {
            let manifest = last.or_find(row, |row| self.blob(row, 0))?;
            let blob = self.here(row, 1)?;
            let tree = self.trees.get(&checked(text(row, 2)?)?).copied();
            // By the primary key, so in the order of the layers.
            let image = by_manifest.get(&manifest);
            let Some(image) = image else { return Err(dangling("image", text(row, 0)?)) };
            images[*image].layers.push(LayerFacts { blob, tree });
            Ok(())
        })?;
        for image in images {
            self.graph.image(image);
        }
        Ok(())
    }

    fn names(&mut self) -> Result<()> {
        let query = "SELECT owner, name, target, created_at, updated_at, pulled_at, pinned FROM reference";
        each(self.db, query, [], |row| {
            let target = self.blob(row, 2)?;
            let name = NameRoot {
                owner: text(row, 0)?.to_owned(),
                name: text(row, 1)?.to_owned(),
                created_at: get(row, 3)?,
                updated_at: get(row, 4)?,
                pulled_at: get(row, 5)?,
                pinned: get(row, 6)?,
            };
            self.graph.root(RootKind::Name(name), vec![target]);
            Ok(())
        })?;
        let mut manifests = HashMap::new();
        each(self.db, "SELECT id, manifest FROM container", [], |row| {
            manifests.insert(text(row, 0)?.to_owned(), self.blob(row, 1)?);
            Ok(())
        })?;
        for root in &mut self.graph.graph.roots {
            if let RootKind::Container { id, .. } = &root.kind {
                root.keeps.extend(manifests.remove(id));
            }
        }
        Ok(())
    }

    fn leases(&mut self) -> Result<()> {
        let query = "SELECT i.lease, l.expires_at, i.kind, i.key, l.id IS NULL FROM lease_item AS i \
                     LEFT JOIN lease AS l ON l.id = i.lease ORDER BY i.lease";
        let mut last: Option<(String, Option<i64>, Vec<usize>)> = None;
        each(self.db, query, [], |row| {
            let id = text(row, 0)?;
            if get(row, 4)? {
                return Err(dangling("lease", id));
            }
            let key = checked(text(row, 3)?)?;
            let kept = match text(row, 2)? {
                "blob" => self.graph.graph.index.blob(&key),
                "tree" => self.trees.get(&key).copied(),
                kind => return Err(invalid("kind of leased object", kind)),
            };
            if self.ignored.leases.contains(id) {
                return Ok(());
            }
            if last.as_ref().is_none_or(|(other, ..)| other != id) {
                if let Some((id, expires_at, keeps)) = last.take() {
                    self.graph.root(RootKind::Lease { id, expires_at }, keeps);
                }
                last = Some((id.to_owned(), get(row, 1)?, Vec::new()));
            }
            if let Some((.., keeps)) = &mut last {
                keeps.extend(kept);
            }
            Ok(())
        })?;
        if let Some((id, expires_at, keeps)) = last {
            self.graph.root(RootKind::Lease { id, expires_at }, keeps);
        }
        Ok(())
    }

    fn mounts(&mut self) -> Result<()> {
        let query = "SELECT tree FROM mount_tree AS t WHERE NOT EXISTS \
                     (SELECT 1 FROM mount AS m WHERE m.target = t.target AND m.namespace = t.namespace)";
        each(self.db, query, [], |row| Err(dangling("mount", text(row, 0)?)))?;
        let mut mounts: Vec<(Vec<u8>, i64, Vec<usize>)> = Vec::new();
        let query = "SELECT target, namespace, manifest, owner, key FROM mount WHERE boot_id = ?1";
        each(self.db, query, [self.boot], |row| {
            let mut keeps = Vec::new();
            if let Some(manifest) = optional(row, 2)? {
                keeps.extend(self.graph.graph.index.blob(&checked(manifest)?));
            }
            if let (Some(owner), Some(key)) = (optional(row, 3)?, optional(row, 4)?) {
                keeps.extend(self.graph.graph.index.snapshot(owner, key));
            }
            mounts.push((get(row, 0)?, get(row, 1)?, keeps));
            Ok(())
        })?;
        // They may be replaced by others, or lose their image, while mounted.
        let query = "SELECT t.tree FROM mount_tree AS t WHERE t.target = ?1 AND t.namespace = ?2";
        for (target, namespace, mut keeps) in mounts {
            each(self.db, query, (&target, namespace), |row| {
                keeps.extend(self.graph.find(&Object::Tree(text(row, 0)?.parse()?)));
                Ok(())
            })?;
            let target = PathBuf::from(OsString::from_vec(target));
            let key = (target, namespace);
            if self.ignored.mounts.contains(&key) {
                continue;
            }
            let (target, namespace) = key;
            self.graph.root(RootKind::Mount { target, namespace }, keeps);
        }
        Ok(())
    }

    /// The blob of a column that refers to one: that it is there is what collection relies on.
    fn blob(&self, row: &Row<'_>, column: usize) -> Result<usize> {
        self.here(row, column)?.map_or_else(|| Err(dangling("blob", text(row, column)?)), Ok)
    }

    /// The blob of a column, if it is here.
    fn here(&self, row: &Row<'_>, column: usize) -> Result<Option<usize>> {
        Ok(self.graph.graph.index.blob(&checked(text(row, column)?)?))
    }

    fn required(&self, object: &Object, what: &'static str, name: &str) -> Result<usize> {
        self.graph.find(object).ok_or_else(|| dangling(what, name))
    }
}

/// What the row before had in its first column: many rows in a row have the same there.
#[derive(Default)]
struct Last(String, usize);

impl Last {
    fn or_find(&mut self, row: &Row<'_>, find: impl FnOnce(&Row<'_>) -> Result<usize>) -> Result<usize> {
        let value = text(row, 0)?;
        if self.0 != value {
            self.1 = find(row)?;
            value.clone_into(&mut self.0);
        }
        Ok(self.1)
    }
}

/// A digest to look up.
fn checked(text: &str) -> Result<Key> {
    let key = Key::of(text);
    if let Key::Other(text) = &key {
        parse_digest::<Digest>(text)?;
    }
    Ok(key)
}

fn invalid(what: &'static str, value: &str) -> Error {
    Error::InvalidRow { what, value: value.to_owned() }
}

/// Something refers to a row that is not there. Who knows what else is not.
fn dangling(what: &'static str, name: &str) -> Error {
    Error::DanglingRow { what, name: name.to_owned() }
}

fn each<P: Params>(
    db: &Connection,
    query: &str,
    parameters: P,
    mut row: impl FnMut(&Row<'_>) -> Result<()>,
) -> Result<()> {
    let action = "load the graph";
    let mut statement = db.prepare_cached(query).db(action)?;
    let mut rows = statement.query(parameters).db(action)?;
    while let Some(next) = rows.next().db(action)? {
        row(next)?;
    }
    Ok(())
}

fn get<T: FromSql>(row: &Row<'_>, column: usize) -> Result<T> {
    row.get(column).db("load the graph")
}

fn optional<'a>(row: &'a Row<'_>, column: usize) -> Result<Option<&'a str>> {
    let value = row.get_ref(column).db("load the graph")?;
    value.as_str_or_null().map_err(rusqlite::Error::from).db("load the graph")
}

fn text<'a>(row: &'a Row<'_>, column: usize) -> Result<&'a str> {
    let value = row.get_ref(column).db("load the graph")?;
    value.as_str().map_err(rusqlite::Error::from).db("load the graph")
}

fn digest(row: &Row<'_>, column: usize) -> Result<Digest> {
    parse_digest(text(row, column)?)
}
