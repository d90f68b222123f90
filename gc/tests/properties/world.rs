//! Random worlds: what a store might hold.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use layerstore_oci::Digest;
use layerstore_store::{
    Graph, GraphBuilder, ImageFacts, LOCAL, LayerFacts, NameRoot, NodeKind, Object, RootKind, Size,
    SnapshotKind,
};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

/// A graph, and its edges once more, as they were meant.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) graph: Graph,
    /// In the order in which they were added, some of them twice.
    pub(crate) edges: Vec<(usize, usize)>,
    /// The edges from images to what could be made again from blobs.
    pub(crate) unpacked: Vec<(usize, usize)>,
    /// The edges from images to the blobs of their layers.
    pub(crate) packed: Vec<(usize, usize)>,
}

impl World {
    pub(crate) fn root_named(&self, owner: &str, name: &str) -> Option<usize> {
        self.graph.roots.iter().position(
            |root| matches!(&root.kind, RootKind::Name(found) if found.owner == owner && found.name == name),
        )
    }
}

/// Layers may have no blob, no tree, or a tree that did not reach the disk.
type Layer = (bool, Option<bool>, u64, u64);
type Image = (Vec<Index>, bool, bool, Option<i64>, u8, Option<i64>);
type Name = (u8, u8, u8, Index, i64, Option<i64>, bool);

/// How a world is made. Everything that is chosen from a list may choose from an empty one, and then is nothing.
#[derive(Debug, Clone)]
pub(crate) struct Recipe {
    layers: Vec<Layer>,
    images: Vec<Image>,
    indexes: Vec<Vec<Index>>,
    names: Vec<Name>,
    /// Chains of another owner.
    chains: Vec<Index>,
    /// Above an image of one of the owners, of a kind, some of them containers; or above what was committed before.
    snapshots: Vec<(Option<Index>, u8, u8, Index)>,
    leases: Vec<(Vec<Index>, bool)>,
    mounts: Vec<(Index, Vec<Index>)>,
}

fn mostly<S: Strategy>(strategy: S) -> impl Strategy<Value = Option<S::Value>> {
    proptest::option::weighted(0.8, strategy)
}

pub(crate) fn recipes() -> impl Strategy<Value = Recipe> {
    let layer = (prop::bool::weighted(0.9), mostly(prop::bool::weighted(0.8)), 0..9_u64, 0..9_u64);
    let image = (
        vec(any::<Index>(), 0..4),
        prop::bool::weighted(0.8),
        prop::bool::weighted(0.3),
        mostly(0..6_i64),
        0..4_u8,
        proptest::option::of(0..9_i64),
    );
    let name = (
        0..7_u8,
        0..4_u8,
        0..3_u8,
        any::<Index>(),
        0..9_i64,
        proptest::option::of(0..9_i64),
        prop::bool::weighted(0.1),
    );
    let snapshot = (mostly(any::<Index>()), 0..6_u8, 0..3_u8, any::<Index>());
    let lists = (
        vec(layer, 0..7),
        vec(image, 0..7),
        vec(vec(any::<Index>(), 0..4), 0..3),
        vec(name, 0..9),
        vec(any::<Index>(), 0..3),
        vec(snapshot, 0..3),
        vec((vec(any::<Index>(), 1..4), any::<bool>()), 0..2),
        vec((any::<Index>(), vec(any::<Index>(), 0..3)), 0..2),
    );
    lists.prop_map(|(layers, images, indexes, names, chains, snapshots, leases, mounts)| Recipe {
        layers,
        images,
        indexes,
        names,
        chains,
        snapshots,
        leases,
        mounts,
    })
}

pub(crate) fn worlds() -> impl Strategy<Value = World> {
    recipes().prop_map(|recipe| Maker::default().make(&recipe))
}

fn pick<T: Clone>(index: Index, list: &[T]) -> Option<T> {
    if list.is_empty() { None } else { Some(index.get(list).clone()) }
}

pub(crate) fn digest(text: &str) -> Digest {
    Digest::sha256_of(text.as_bytes())
}

/// The key of a stack with one more layer.
fn above(key: &str, layer: usize) -> String {
    digest(&format!("{key} {layer}")).to_string()
}

/// The key of a stack.
fn top(layers: &[(usize, LayerFacts)]) -> Option<String> {
    layers.iter().fold(None, |key, (layer, _)| Some(above(&key.unwrap_or_default(), *layer)))
}

#[derive(Default)]
struct Maker {
    graph: GraphBuilder,
    edges: Vec<(usize, usize)>,
    unpacked: Vec<(usize, usize)>,
    packed: Vec<(usize, usize)>,
    manifests: Vec<usize>,
    trees: Vec<usize>,
    blobs: Vec<usize>,
    digests: BTreeMap<usize, String>,
    keys: Vec<(String, Vec<usize>, String)>,
    serial: usize,
}

impl Maker {
    fn blob(&mut self, text: &str, allocated: u64) -> usize {
        let size = Size { apparent: allocated * 3, allocated: allocated * 4, inodes: 1 };
        let index = self.graph.node(Object::Blob(digest(text)), size, NodeKind::Blob);
        self.blobs.push(index);
        self.digests.insert(index, digest(text).to_string());
        index
    }

    fn tree(&mut self, allocated: u64, kind: NodeKind) -> usize {
        self.serial += 1;
        let id = digest(&self.serial.to_string()).hex()[..8].parse().unwrap();
        let size = Size { apparent: allocated * 7, allocated: allocated * 8, inodes: 2 };
        let index = self.graph.node(Object::Tree(id), size, kind);
        self.trees.push(index);
        index
    }

    fn edge(&mut self, parent: usize, child: usize) {
        self.edges.push((parent, child));
        self.graph.edge(parent, child);
    }

    /// A snapshot; the one that is there, if one of a chain is.
    fn snapshot(&mut self, owner: &str, key: &str) -> (usize, bool) {
        let object = Object::Snapshot { owner: owner.to_owned(), key: key.to_owned() };
        match self.graph.find(&object) {
            Some(index) => (index, false),
            None => (self.graph.node(object, Size::default(), NodeKind::Snapshot), true),
        }
    }

    /// The stack of layers, as chain snapshots.
    fn chain(&mut self, owner: &str, layers: &[(usize, LayerFacts)], fixup: bool) -> Option<usize> {
        let (mut key, mut below) = (String::new(), None);
        for (name, layer) in layers {
            key = above(&key, *name);
            let (snapshot, new) = self.snapshot(owner, &key);
            if new {
                for child in layer.tree.into_iter().chain(below) {
                    self.edge(snapshot, child);
                }
            }
            below = Some(snapshot);
        }
        if let (true, Some(top)) = (fixup, below) {
            let tree = self.tree(1, NodeKind::Fixup);
            self.edge(top, tree);
        }
        below
    }

    fn make(mut self, recipe: &Recipe) -> World {
        let layers: Vec<(usize, LayerFacts)> = recipe
            .layers
            .iter()
            .enumerate()
            .map(|(index, layer)| {
                let (blob, tree, packed, unpacked) = *layer;
                let blob = blob.then(|| self.blob(&format!("layer {index}"), packed));
                let tree = tree.map(|synced| {
                    let tree = self.tree(unpacked, NodeKind::Layer);
                    if let (false, Some(blob)) = (synced, blob) {
                        self.edge(tree, blob);
                        // The same layer in another compression keeps it as well.
                        let other = self.blob(&format!("the same as {index}"), packed + 1);
                        self.edge(tree, other);
                    }
                    tree
                });
                (index, LayerFacts { blob, tree })
            })
            .collect();
        let mut stacks = Vec::new();
        for (index, image) in recipe.images.iter().enumerate() {
            let chosen: Vec<_> = image.0.iter().filter_map(|layer| pick(*layer, &layers)).collect();
            let chain = if image.1 { self.chain(LOCAL, &chosen, image.2) } else { None };
            self.image(index, image, &chosen, chain);
            stacks.push(chosen);
        }
        let mut listed = Vec::new();
        for (index, below) in recipe.indexes.iter().enumerate() {
            let known = self.manifests.clone();
            let manifest = self.blob(&format!("index {index}"), 1);
            for child in below.iter().filter_map(|child| pick(*child, &known)) {
                if !self.edges.contains(&(manifest, child)) {
                    self.edges.push((manifest, child));
                    listed.push((manifest, child));
                }
            }
            self.manifests.push(manifest);
        }
        // In no order.
        for (manifest, child) in listed.into_iter().rev() {
            self.graph.manifest(manifest, child);
        }
        recipe.names.iter().for_each(|name| self.name(name));
        for chain in &recipe.chains {
            if let Some(layers) = pick(*chain, &stacks) {
                self.chain("other", &layers, false);
            }
        }
        for (index, snapshot) in recipe.snapshots.iter().enumerate() {
            self.above(index, snapshot, &stacks);
        }
        for (index, (items, lasts)) in recipe.leases.iter().enumerate() {
            let all: Vec<usize> = self.blobs.iter().chain(&self.trees).copied().collect();
            let keeps = items.iter().filter_map(|item| pick(*item, &all)).collect();
            let expires_at = lasts.then_some(9);
            self.graph.root(RootKind::Lease { id: index.to_string(), expires_at }, keeps);
        }
        for (index, (subject, trees)) in recipe.mounts.iter().enumerate() {
            let subjects: Vec<usize> =
                self.manifests.iter().chain(self.keys.iter().flat_map(|key| &key.1)).copied().collect();
            let trees = trees.iter().filter_map(|tree| pick(*tree, &self.trees));
            let keeps = pick(*subject, &subjects).into_iter().chain(trees).collect();
            let target = PathBuf::from(format!("/mnt/{index}"));
            self.graph.root(RootKind::Mount { target, namespace: 1 }, keeps);
        }
        let Self { graph, edges, unpacked, packed, .. } = self;
        World { graph: graph.build(), edges, unpacked, packed }
    }

    fn image(&mut self, index: usize, image: &Image, layers: &[(usize, LayerFacts)], chain: Option<usize>) {
        let manifest = self.blob(&format!("manifest {index}"), 1);
        let name = format!("config {}", index / 2 * 2);
        let config = self.graph.find(&Object::Blob(digest(&name))).unwrap_or_else(|| self.blob(&name, 1));
        self.edge(manifest, config);
        let blobs = layers.iter().filter_map(|(_, layer)| layer.blob);
        for blob in blobs.collect::<BTreeSet<_>>() {
            self.edge(manifest, blob);
            self.packed.push((manifest, blob));
        }
        let below = layers.iter().filter_map(|(_, layer)| layer.tree).chain(chain);
        for child in below {
            self.edges.push((manifest, child));
            self.unpacked.push((manifest, child));
        }
        let labels = ["{}", r#"{"a":"1"}"#, r#"{"a":"2","b":"1"}"#, r#"{"b":""}"#];
        self.graph.image(ImageFacts {
            manifest,
            config: digest(&name),
            platform: "linux/amd64".to_owned(),
            created: image.3,
            labels: labels[image.4 as usize].to_owned(),
            last_used_at: image.5,
            chain,
            chain_key: top(layers),
            layers: layers.iter().map(|(_, layer)| layer.clone()).collect(),
        });
        self.manifests.push(manifest);
    }

    fn name(&mut self, (owner, repository, tag, target, updated_at, pulled_at, pinned): &Name) {
        let Some(target) = pick(*target, &self.manifests) else { return };
        let owner = if *owner < 6 { LOCAL } else { "other" };
        let name = match repository {
            0 => format!("docker.io/library/a:{tag}"),
            1 => format!("docker.io/library/b:{tag}"),
            2 => format!("example.com/c/d:{tag}"),
            _ => self.digests[&target].clone(),
        };
        let taken = self.keys.iter().any(|(other, _, key)| other == owner && *key == name);
        if !taken {
            self.keys.push((owner.to_owned(), Vec::new(), name.clone()));
            let root = NameRoot {
                owner: owner.to_owned(),
                name,
                created_at: 0,
                updated_at: *updated_at,
                pulled_at: *pulled_at,
                pinned: *pinned,
            };
            self.graph.root(RootKind::Name(root), vec![target]);
        }
    }

    /// A snapshot that stays until it is removed.
    fn above(
        &mut self,
        index: usize,
        (image, kind, owner, committed): &(Option<Index>, u8, u8, Index),
        stacks: &[Vec<(usize, LayerFacts)>],
    ) {
        let owner = if *owner == 0 { "other" } else { LOCAL };
        let images: Vec<usize> = (0..stacks.len()).collect();
        let image = image.as_ref().and_then(|image| pick(*image, &images));
        let stack = image.and_then(|image| self.chain(owner, &stacks[image], false));
        let written: Vec<usize> = self
            .keys
            .iter()
            .filter(|key| key.0 == owner && key.2.starts_with("done"))
            .flat_map(|key| key.1.clone())
            .collect();
        let below = stack.or_else(|| pick(*committed, &written));
        let (kind, word) = match kind {
            0..3 => (SnapshotKind::Active, "active"),
            3 => (SnapshotKind::View, "view"),
            _ => (SnapshotKind::Committed, "done"),
        };
        let key = format!("{word}-{index}");
        let (snapshot, _) = self.snapshot(owner, &key);
        if let Some(below) = below {
            self.edge(snapshot, below);
        }
        if kind != SnapshotKind::View {
            let tree = self.tree(2, NodeKind::Written);
            self.edge(snapshot, tree);
        }
        let container = image.filter(|_| kind == SnapshotKind::Active && index.is_multiple_of(2));
        if let Some(image) = container {
            let keeps = vec![snapshot, self.manifests[image]];
            self.graph.root(RootKind::Container { id: key.clone(), name: format!("c{index}") }, keeps);
        } else {
            let owner = owner.to_owned();
            self.graph.root(RootKind::Snapshot { owner, key: key.clone(), kind }, vec![snapshot]);
        }
        self.keys.push((owner.to_owned(), vec![snapshot], key));
    }
}
