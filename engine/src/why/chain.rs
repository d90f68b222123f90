//! Ways from roots to an object, in words.

use std::collections::{HashMap, HashSet};
use std::fmt;

use layerstore_gc::{Ways, describe};
use layerstore_store::{Graph, NodeKind, Object, RootKind};

/// Roots, and the way from them to what was asked about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// The roots: all names of one manifest, for example.
    pub keepers: Vec<Keeper>,
    /// The objects on the way, from the one that the roots keep to the one that was asked about.
    pub steps: Vec<Step>,
    /// Whether the same roots have a shorter way.
    pub detour: bool,
}

/// A root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keeper {
    /// What it is: `name localhost/app:1`.
    pub text: String,
    /// When it ends by itself, in seconds since 1970.
    pub expires_at: Option<i64>,
}

/// An object on the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// What it is to the one before: `layer 3 of 12`.
    pub what: String,
    /// Its digest, ID or key.
    pub name: String,
}

impl fmt::Display for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keepers: Vec<&str> = self.keepers.iter().map(|keeper| keeper.text.as_str()).collect();
        f.write_str(&keepers.join(", "))?;
        self.steps.iter().try_for_each(|step| write!(f, " → {} {}", step.what, step.name))
    }
}

/// All ways, those with the same objects as one.
pub(super) fn chains(graph: &Graph, ways: &Ways) -> Vec<Chain> {
    let words = Words::new(graph);
    let mut found: Vec<Chain> = Vec::new();
    let mut places: HashMap<&[usize], usize> = HashMap::new();
    let mut reached: HashSet<usize> = HashSet::new();
    for way in &ways.ways {
        let kind = &graph.roots[way.root].kind;
        let expires_at = if let RootKind::Lease { expires_at, .. } = kind { *expires_at } else { None };
        let keeper = Keeper { text: describe(kind), expires_at };
        let first = reached.insert(way.root);
        if let Some(place) = places.get(&way.objects[..]) {
            let chain = &mut found[*place];
            chain.keepers.push(keeper);
            chain.detour &= !first;
            continue;
        }
        places.insert(&way.objects, found.len());
        found.push(Chain { keepers: vec![keeper], steps: words.steps(&way.objects), detour: !first });
    }
    found
}

/// What is needed to name objects.
pub(super) struct Words<'a> {
    graph: &'a Graph,
    images: HashMap<usize, usize>,
    configs: HashSet<String>,
    layers: HashSet<usize>,
    unsynced: HashSet<usize>,
}

impl<'a> Words<'a> {
    pub(super) fn new(graph: &'a Graph) -> Self {
        let images = graph.images.iter().enumerate().map(|(index, image)| (image.manifest, index)).collect();
        let configs = graph.images.iter().map(|image| image.config.to_string()).collect();
        let layers = graph.images.iter().flat_map(|image| &image.layers);
        let layers = layers.filter_map(|layer| layer.blob).collect();
        Self { graph, images, configs, layers, unsynced: graph.unsynced.iter().copied().collect() }
    }

    fn steps(&self, objects: &[usize]) -> Vec<Step> {
        let mut steps = Vec::new();
        let mut stacks = 0;
        for (place, index) in objects.iter().copied().enumerate() {
            let parent = place.checked_sub(1).map(|place| objects[place]);
            let next = objects.get(place + 1).copied();
            let is_stack = |index: Option<usize>| {
                index.is_some_and(|index| self.graph.nodes[index].kind == NodeKind::Snapshot)
            };
            if is_stack(parent) && is_stack(Some(index)) {
                stacks += 1;
                // Of a row of stacks one below the other only the last says anything.
                if is_stack(next) {
                    continue;
                }
                let what =
                    if stacks == 1 { "the one below".to_owned() } else { format!("{stacks} below it") };
                steps.push(Step { what, name: name(self.graph, index) });
                stacks = 0;
                continue;
            }
            steps.push(Step { what: self.relation(parent, index), name: name(self.graph, index) });
        }
        steps
    }

    /// What an object is to the one that needs it.
    fn relation(&self, parent: Option<usize>, index: usize) -> String {
        let image =
            parent.and_then(|parent| self.images.get(&parent)).map(|image| &self.graph.images[*image]);
        if let Some(image) = image {
            let count = image.layers.len();
            let place = |wanted: fn(&layerstore_store::LayerFacts) -> Option<usize>| {
                image.layers.iter().position(|layer| wanted(layer) == Some(index)).map(|place| place + 1)
            };
            if let Some(place) = place(|layer| layer.blob) {
                return format!("layer {place} of {count}");
            }
            if let Some(place) = place(|layer| layer.tree) {
                return format!("tree of layer {place} of {count}");
            }
            if image.chain == Some(index) {
                return "stack of all its layers".to_owned();
            }
        }
        if parent.is_some_and(|parent| self.unsynced.contains(&parent)) {
            return "blob of it, while it is not synced".to_owned();
        }
        self.kind(index).to_owned()
    }

    /// What an object is.
    pub(super) fn kind(&self, index: usize) -> &'static str {
        let node = &self.graph.nodes[index];
        match (node.kind, &node.object) {
            (NodeKind::Blob, _) if self.images.contains_key(&index) => "manifest",
            (NodeKind::Blob, _) if self.graph.manifests(index).next().is_some() => "index",
            (NodeKind::Blob, Object::Blob(digest)) if self.configs.contains(&digest.to_string()) => "config",
            (NodeKind::Blob, _) if self.layers.contains(&index) => "layer blob",
            (NodeKind::Blob, _) => "blob",
            (NodeKind::Layer, _) => "tree of a layer",
            (NodeKind::Fixup, _) => "fix-up tree",
            (NodeKind::Written, _) => "written tree",
            (NodeKind::Snapshot, Object::Snapshot { key, .. }) if is_chain(key) => "stack of layers",
            (NodeKind::Snapshot, _) => "snapshot",
        }
    }
}

fn is_chain(key: &str) -> bool {
    key.parse::<layerstore_oci::Digest>().is_ok()
}

/// Its digest, ID or key.
pub(super) fn name(graph: &Graph, index: usize) -> String {
    graph.nodes[index].object.to_string()
}
