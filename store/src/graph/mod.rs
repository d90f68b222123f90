//! What keeps what: the graph that collection and accounting work on.
//!
//! Its nodes are the objects that collection may take away, its edges lead from each object to those that it needs, and its
//! roots are the roots. It is data alone, read in one transaction ([`Store::graph`]); whoever acts on it later has to ask
//! again, in the transaction in which it acts ([`Store::forget`](crate::Store::forget)).

mod below;
mod links;
mod load;
mod rows;

use std::collections::HashSet;
use std::fmt;
use std::path::PathBuf;

use foldhash::HashMap;
use layerstore_oci::Digest;
use rusqlite::Connection;

use self::links::Links;
use self::load::Objects;
use crate::clock::UnixSeconds;
use crate::error::Result;
use crate::key::Key;
use crate::layout::TreeId;
use crate::size::Size;
use crate::snapshot::SnapshotKind;
use crate::store::Store;

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

/// What it is called: a digest, an ID or a key.
impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Blob(digest) => digest.fmt(f),
            Self::Tree(id) => id.fmt(f),
            Self::Snapshot { key, .. } => f.write_str(key),
        }
    }
}

/// An object and the space it takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// The object.
    pub object: Object,
    /// What it takes; nothing for a snapshot. A writable tree is not counted here: that takes a walk.
    pub size: Size,
    /// What kind of object it is.
    pub kind: NodeKind,
}

/// What kind of object a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum NodeKind {
    /// A blob.
    Blob,
    /// The tree of a layer.
    Layer,
    /// A tree that one stack of layers needs on top.
    Fixup,
    /// A tree that was or is written to by a container, or whoever else has prepared a snapshot.
    Written,
    /// A snapshot.
    Snapshot,
}

/// A root: why objects are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Root {
    /// What it is.
    pub kind: RootKind,
    /// Indices of the objects that it keeps, and with each what that leads to.
    pub keeps: Vec<usize>,
}

/// What a root is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RootKind {
    /// A name for a manifest or index.
    Name(NameRoot),
    /// What a command needs that is running, or that was interrupted and may go on.
    Lease {
        /// Its ID.
        id: String,
        /// When it ends by itself, if it does not end with its command.
        expires_at: Option<UnixSeconds>,
    },
    /// Something is mounted.
    Mount {
        /// Where.
        target: PathBuf,
        /// The mount namespace.
        namespace: i64,
    },
    /// A container, with its snapshot and its image.
    Container {
        /// Its ID.
        id: String,
        /// Its name.
        name: String,
    },
    /// A snapshot that stays until it is removed: active, a view, or one that somebody has committed.
    Snapshot {
        /// Who created it.
        owner: String,
        /// Its key.
        key: String,
        /// What it can be used for.
        kind: SnapshotKind,
    },
}

/// A name, as a root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NameRoot {
    /// Whose it is.
    pub owner: String,
    /// The name; the target's digest for an image without one.
    pub name: String,
    /// When it was first given.
    pub created_at: UnixSeconds,
    /// When it got its present target.
    pub updated_at: UnixSeconds,
    /// When the target was last pulled by this name.
    pub pulled_at: Option<UnixSeconds>,
    /// Whether no policy may take it away.
    pub pinned: bool,
}

/// An image, as far as collection cares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageFacts {
    /// Index of its manifest.
    pub manifest: usize,
    /// Its ID: the digest of its config.
    pub config: Digest,
    /// `os/architecture[/variant]`.
    pub platform: String,
    /// When it was built, according to its config.
    pub created: Option<UnixSeconds>,
    /// The config's labels, as a JSON object.
    pub labels: String,
    /// When it was last mounted or pulled, or something was made from it.
    pub last_used_at: Option<UnixSeconds>,
    /// Index of the snapshot of all its layers, if it is unpacked.
    pub chain: Option<usize>,
    /// The chain ID of all its layers, which is the key of that snapshot with whoever has it; none without layers.
    pub chain_key: Option<String>,
    /// Its layers, lowest first.
    pub layers: Vec<LayerFacts>,
}

/// A layer of an image, as far as collection cares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerFacts {
    /// Index of its blob, if that is here.
    pub blob: Option<usize>,
    /// Index of its tree, if it is unpacked.
    pub tree: Option<usize>,
}

/// All objects of a store at one moment. Indices refer to `nodes`.
#[derive(Debug, Default)]
pub struct Graph {
    /// The objects.
    pub nodes: Vec<Node>,
    /// The roots.
    pub roots: Vec<Root>,
    /// The images.
    pub images: Vec<ImageFacts>,
    /// Trees that may be used as long as this boot and mount last, by index: without their blobs they are lost after it.
    pub unsynced: Vec<usize>,
    /// Trees that are written to, by index: their sizes are not known.
    pub uncounted: Vec<usize>,
    /// Blobs and trees of layers that are damaged or not on the disk, by index, if somebody has looked
    /// ([`Store::note_missing`]).
    pub missing: HashSet<usize>,
    /// Where the edges of each node begin in `targets`.
    starts: Vec<u32>,
    targets: Vec<u32>,
    /// Which blob names which manifest: parent and child, by parent, and of each in the order of the index.
    manifests: Vec<(u32, u32)>,
    index: Index,
}

#[derive(Debug, Default)]
struct Index {
    blobs: HashMap<Digest, u32>,
    trees: HashMap<TreeId, u32>,
    snapshots: HashMap<String, HashMap<Key, u32>>,
}

impl Index {
    fn find(&self, object: &Object) -> Option<usize> {
        match object {
            Object::Blob(digest) => self.blob(digest),
            Object::Tree(id) => self.trees.get(id).map(|index| *index as usize),
            Object::Snapshot { owner, key } => self.snapshot(owner, key),
        }
    }

    fn blob(&self, digest: &Digest) -> Option<usize> {
        self.blobs.get(digest).map(|index| *index as usize)
    }

    fn snapshot(&self, owner: &str, key: &str) -> Option<usize> {
        Some(*self.snapshots.get(owner)?.get(&Key::of(key))? as usize)
    }
}

impl Graph {
    /// The index of an object.
    pub fn find(&self, object: &Object) -> Option<usize> {
        self.index.find(object)
    }

    /// Indices of the objects that an object needs. The same may come twice.
    pub fn children(&self, index: usize) -> impl ExactSizeIterator<Item = usize> + '_ {
        let range = self.starts[index] as usize..self.starts[index + 1] as usize;
        self.targets[range].iter().map(|child| *child as usize)
    }

    /// Indices of the manifests and indexes that an index names, in its order.
    pub fn manifests(&self, index: usize) -> impl Iterator<Item = usize> + '_ {
        let parent = small(index);
        let first = self.manifests.partition_point(|(other, _)| *other < parent);
        let below = self.manifests[first..].iter();
        below.take_while(move |(other, _)| *other == parent).map(|(_, child)| *child as usize)
    }
}

/// Puts a graph together.
#[derive(Debug, Default)]
pub struct GraphBuilder {
    graph: Graph,
    edges: Vec<(u32, u32)>,
}

impl GraphBuilder {
    /// Adds an object; returns its index.
    pub fn node(&mut self, object: Object, size: Size, kind: NodeKind) -> usize {
        let index = self.graph.nodes.len();
        let known = &mut self.graph.index;
        match &object {
            Object::Blob(digest) => known.blobs.insert(digest.clone(), small(index)),
            Object::Tree(id) => known.trees.insert(id.clone(), small(index)),
            Object::Snapshot { owner, key } => {
                if !known.snapshots.contains_key(owner) {
                    known.snapshots.insert(owner.clone(), HashMap::default());
                }
                known.snapshots.get_mut(owner).and_then(|keys| keys.insert(Key::of(key), small(index)))
            }
        };
        self.graph.nodes.push(Node { object, size, kind });
        index
    }

    /// The index of an object.
    pub fn find(&self, object: &Object) -> Option<usize> {
        self.graph.find(object)
    }

    /// One object needs another.
    pub fn edge(&mut self, parent: usize, child: usize) {
        self.edges.push((small(parent), small(child)));
    }

    /// An index names a manifest, after those that were added before; it needs it.
    pub fn manifest(&mut self, parent: usize, child: usize) {
        self.edge(parent, child);
        self.graph.manifests.push((small(parent), small(child)));
    }

    /// Adds a root.
    pub fn root(&mut self, kind: RootKind, keeps: Vec<usize>) {
        self.graph.roots.push(Root { kind, keeps });
    }

    /// Adds what is known of an image. It needs its layers and its chain.
    pub fn image(&mut self, facts: ImageFacts) {
        let needs = facts.layers.iter().filter_map(|layer| layer.tree).chain(facts.chain);
        for child in needs {
            self.edges.push((small(facts.manifest), small(child)));
        }
        self.graph.images.push(facts);
    }

    /// The graph.
    pub fn build(mut self) -> Graph {
        // A counting sort by parent.
        let mut starts = vec![0_u32; self.graph.nodes.len() + 1];
        for (parent, _) in &self.edges {
            starts[*parent as usize + 1] += 1;
        }
        for index in 1..starts.len() {
            starts[index] += starts[index - 1];
        }
        let mut next = starts.clone();
        let mut targets = vec![0; self.edges.len()];
        for (parent, child) in &self.edges {
            let place = &mut next[*parent as usize];
            targets[*place as usize] = *child;
            *place += 1;
        }
        self.graph.manifests.sort_by_key(|(parent, _)| *parent);
        self.graph.starts = starts;
        self.graph.targets = targets;
        self.graph
    }
}

/// Indices are small, so that a graph of a million objects stays small: a database of four billion rows is not to be had.
fn small(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}

/// What of the roots does not count.
#[derive(Debug, Default)]
pub(crate) struct Ignored {
    /// Leases that are about to be forgotten.
    pub(crate) leases: HashSet<String>,
    /// Mounts that are not there any more: target and namespace.
    pub(crate) mounts: HashSet<(PathBuf, i64)>,
    /// Boot and mount of which everything that was written is about to be made durable.
    pub(crate) settled: Option<(String, i64)>,
}

impl Store {
    /// The graph as it is now.
    pub fn graph(&self) -> Result<Graph> {
        self.graph_without(&Ignored::default())
    }

    /// The graph as a collection finds it, which first makes durable what can be, so that no tree needs its blob, and
    /// forgets what dead sessions leased and what is not mounted any more; with `interrupted` also what interrupted pulls want to go on with.
    pub fn graph_to_collect(&self, interrupted: bool) -> Result<Graph> {
        let mut leases: HashSet<String> = self.dead_leases(&self.dead_sessions()?)?.into_iter().collect();
        if interrupted {
            leases.extend(self.lasting_leases()?);
        }
        let mounts = self.stale_mounts()?.into_iter().map(|row| (row.target, row.namespace)).collect();
        let life = self.life();
        self.graph_without(&Ignored { leases, mounts, settled: Some((life.boot.clone(), life.mount)) })
    }

    fn graph_without(&self, ignored: &Ignored) -> Result<Graph> {
        let boot = &self.life().boot;
        let read = |db: &Connection| Objects::load(db, boot, ignored);
        let (objects, links) = self.database().read_beside("load the graph", read, Links::load)?;
        objects.link(&links)
    }

    /// What a blob leads to, and it itself, parents first as far as possible; snapshots of all owners that are stacked from
    /// the same layers are among it. Looks at nothing else, however large the store is.
    pub fn below(&self, blob: &Digest) -> Result<Vec<Object>> {
        self.database().read("look below a blob", |db| below::below(db, blob))
    }
}
