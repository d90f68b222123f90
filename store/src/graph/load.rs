//! Reading the objects and roots of the graph.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;

use foldhash::HashMap;
use layerstore_oci::Digest;
use rusqlite::{Connection, Row};

use super::rows::{dangling, digest, each, get, invalid, optional, text};
use super::{GraphBuilder, Ignored, ImageFacts, NameRoot, NodeKind, Object, RootKind};
use crate::blob::parse_digest;
use crate::error::{Error, Result};
use crate::key::Key;
use crate::reference::LOCAL;
use crate::size::Size;
use crate::snapshot::{SnapshotKind, is_chain};

/// The usual size of a block, for blobs that were published before anybody counted.
const BLOCK: u64 = 4096;

/// The graph without what rows say of its links.
#[derive(Debug, Default)]
pub(super) struct Objects {
    pub(super) graph: GraphBuilder,
    /// Trees of layers by diff ID.
    pub(super) trees: HashMap<Digest, usize>,
    /// By manifest, without their layers.
    pub(super) images: Vec<ImageFacts>,
}

impl Objects {
    pub(super) fn load(db: &Connection, boot: &str, ignored: &Ignored) -> Result<Self> {
        let mut loader = Loader { db, boot, ignored, objects: Self::default() };
        loader.blobs()?;
        loader.trees()?;
        loader.snapshots()?;
        loader.images()?;
        loader.names()?;
        loader.leases()?;
        loader.mounts()?;
        Ok(loader.objects)
    }
}

struct Loader<'a> {
    db: &'a Connection,
    boot: &'a str,
    ignored: &'a Ignored,
    objects: Objects,
}

impl Loader<'_> {
    fn blobs(&mut self) -> Result<()> {
        let query = "SELECT digest, size, coalesce(allocated, -1) FROM blob";
        each(self.db, query, [], |row| {
            let apparent: u64 = get(row, 1)?;
            let allocated: i64 = get(row, 2)?;
            let allocated = u64::try_from(allocated).unwrap_or(apparent.next_multiple_of(BLOCK));
            let digest = digest(row, 0)?;
            self.objects.graph.node(
                Object::Blob(digest),
                Size { apparent, allocated, inodes: 1 },
                NodeKind::Blob,
            );
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
                    let tree = self.objects.graph.node(Object::Tree(id), size, NodeKind::Written);
                    if !get::<bool>(row, 6)? {
                        self.objects.graph.graph.uncounted.push(tree);
                    }
                    return Ok(());
                };
                let tree = self.objects.graph.node(Object::Tree(id), size, NodeKind::Layer);
                self.objects.trees.insert(parse_digest(diff_id)?, tree);
                if !get::<bool>(row, 5)? {
                    self.objects.graph.graph.unsynced.push(tree);
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
            let tree = self.objects.graph.find(&Object::Tree(text(row, 0)?.parse()?));
            let blob = self.here(row, 1)?;
            if let (Some(tree), Some(blob)) = (tree, blob) {
                self.objects.graph.edge(tree, blob);
            }
            Ok(())
        })
    }

    fn snapshots(&mut self) -> Result<()> {
        // The stack of an image is only there for others. What somebody has written is not, whatever its key.
        let mut containers = HashMap::default();
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
            // What is written to is somewhere.
            if kind == SnapshotKind::Active && tree.is_none() {
                return Err(dangling("tree of a snapshot", text(row, 1)?));
            }
            let written =
                tree.is_some_and(|tree| self.objects.graph.graph.nodes[tree].kind == NodeKind::Written);
            let chain = kind == SnapshotKind::Committed && !written && is_chain(&key);
            let object = Object::Snapshot { owner, key };
            let node = self.objects.graph.node(object, Size::default(), NodeKind::Snapshot);
            if !chain {
                let (owner, key) = (text(row, 0)?.to_owned(), text(row, 1)?.to_owned());
                let place = (owner, key);
                // The image of a container comes with the names.
                let root = match containers.remove(&place) {
                    Some(name) => RootKind::Container { id: place.1, name },
                    None => RootKind::Snapshot { owner: place.0, key: place.1, kind },
                };
                self.objects.graph.root(root, vec![node]);
            }
            if let Some(parent) = optional(row, 3)? {
                parents.push((node, text(row, 0)?.to_owned(), Key::of(parent)));
            }
            if let Some(tree) = tree {
                self.objects.graph.edge(node, tree);
            }
            if let Some(fixup) = self.tree(row, 5)? {
                self.objects.graph.edge(node, fixup);
                fixups.push(fixup);
            }
            Ok(())
        })?;
        if let Some((_, id)) = containers.into_keys().next() {
            return Err(dangling("snapshot", &id));
        }
        for (node, owner, parent) in parents {
            let keys = self.objects.graph.graph.index.snapshots.get(&owner);
            let parent = keys.and_then(|keys| keys.get(&parent)).ok_or_else(|| {
                let Object::Snapshot { key, .. } = &self.objects.graph.graph.nodes[node].object else {
                    return dangling("snapshot", "");
                };
                Error::DanglingRow { what: "parent of a snapshot", name: key.clone() }
            })?;
            let parent = *parent as usize;
            self.objects.graph.edge(node, parent);
        }
        for fixup in fixups {
            self.objects.graph.graph.nodes[fixup].kind = NodeKind::Fixup;
        }
        Ok(())
    }

    /// The tree of a column, if there is one: then it must be here.
    fn tree(&self, row: &Row<'_>, column: usize) -> Result<Option<usize>> {
        let Some(tree) = optional(row, column)? else { return Ok(None) };
        self.required(&Object::Tree(tree.parse()?), "tree", tree).map(Some)
    }

    fn images(&mut self) -> Result<()> {
        let query = "SELECT manifest, config, platform, created, labels, last_used_at, chain_id FROM image";
        each(self.db, query, [], |row| {
            let chain_key = optional(row, 6)?;
            self.objects.images.push(ImageFacts {
                manifest: self.blob(row, 0)?,
                config: digest(row, 1)?,
                platform: text(row, 2)?.to_owned(),
                created: get(row, 3)?,
                labels: text(row, 4)?.to_owned(),
                last_used_at: get(row, 5)?,
                chain: chain_key.and_then(|chain| self.objects.graph.graph.index.snapshot(LOCAL, chain)),
                chain_key: chain_key.map(str::to_owned),
                layers: Vec::new(),
            });
            Ok(())
        })
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
            self.objects.graph.root(RootKind::Name(name), vec![target]);
            Ok(())
        })?;
        let mut manifests = HashMap::default();
        each(self.db, "SELECT id, manifest FROM container", [], |row| {
            manifests.insert(text(row, 0)?.to_owned(), self.blob(row, 1)?);
            Ok(())
        })?;
        for root in &mut self.objects.graph.graph.roots {
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
            let key = digest(row, 3)?;
            let kept = match text(row, 2)? {
                "blob" => self.objects.graph.graph.index.blob(&key),
                "tree" => self.objects.trees.get(&key).copied(),
                kind => return Err(invalid("kind of leased object", kind)),
            };
            if self.ignored.leases.contains(id) {
                return Ok(());
            }
            if last.as_ref().is_none_or(|(other, ..)| other != id) {
                if let Some((id, expires_at, keeps)) = last.take() {
                    self.objects.graph.root(RootKind::Lease { id, expires_at }, keeps);
                }
                last = Some((id.to_owned(), get(row, 1)?, Vec::new()));
            }
            if let Some((.., keeps)) = &mut last {
                keeps.extend(kept);
            }
            Ok(())
        })?;
        if let Some((id, expires_at, keeps)) = last {
            self.objects.graph.root(RootKind::Lease { id, expires_at }, keeps);
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
                keeps.extend(self.objects.graph.graph.index.blob(&parse_digest(manifest)?));
            }
            if let (Some(owner), Some(key)) = (optional(row, 3)?, optional(row, 4)?) {
                keeps.extend(self.objects.graph.graph.index.snapshot(owner, key));
            }
            mounts.push((get(row, 0)?, get(row, 1)?, keeps));
            Ok(())
        })?;
        // They may be replaced by others, or lose their image, while mounted.
        let query = "SELECT t.tree FROM mount_tree AS t WHERE t.target = ?1 AND t.namespace = ?2";
        for (target, namespace, mut keeps) in mounts {
            each(self.db, query, (&target, namespace), |row| {
                keeps.extend(self.objects.graph.find(&Object::Tree(text(row, 0)?.parse()?)));
                Ok(())
            })?;
            let target = PathBuf::from(OsString::from_vec(target));
            let key = (target, namespace);
            if self.ignored.mounts.contains(&key) {
                continue;
            }
            let (target, namespace) = key;
            self.objects.graph.root(RootKind::Mount { target, namespace }, keeps);
        }
        Ok(())
    }

    /// The blob of a column that refers to one: that it is there is what collection relies on.
    fn blob(&self, row: &Row<'_>, column: usize) -> Result<usize> {
        self.here(row, column)?.map_or_else(|| Err(dangling("blob", text(row, column)?)), Ok)
    }

    /// The blob of a column, if it is here.
    fn here(&self, row: &Row<'_>, column: usize) -> Result<Option<usize>> {
        Ok(self.objects.graph.graph.index.blob(&digest(row, column)?))
    }

    fn required(&self, object: &Object, what: &'static str, name: &str) -> Result<usize> {
        self.objects.graph.find(object).ok_or_else(|| dangling(what, name))
    }
}
