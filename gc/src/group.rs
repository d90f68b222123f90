//! Names together: those with the same target come and go as one.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;

use layerstore_oci::Platform;
use layerstore_store::{Graph, LOCAL, NameRoot, Object, RootKind, UnixSeconds};

/// All names of one manifest or index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Index of the manifest or index.
    pub target: usize,
    /// Indices of the roots that are its names, those of all owners.
    pub names: Vec<usize>,
    /// Indices of the images that it leads to: first the one that stands for all, which is that for this machine if there
    /// is one, then the others in the order of the index.
    pub images: Vec<usize>,
}

/// What uses an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum User {
    /// A container that was made from it.
    Container(String),
    /// It is mounted there.
    Mount(PathBuf),
    /// A command that is running, or that was interrupted and may go on.
    Lease(String),
    /// A snapshot that is directly above its layers.
    Snapshot {
        /// Who created it.
        owner: String,
        /// Its key.
        key: String,
    },
}

impl Group {
    /// The names, as roots.
    pub fn names<'a>(&self, graph: &'a Graph) -> impl Iterator<Item = (usize, &'a NameRoot)> + use<'_, 'a> {
        self.names.iter().filter_map(|index| match &graph.roots[*index].kind {
            RootKind::Name(name) => Some((*index, name)),
            _ => None,
        })
    }

    /// When it was last mounted, pulled or named, or something was made from it.
    pub fn last_use(&self, graph: &Graph) -> UnixSeconds {
        let names = self.names(graph).flat_map(|(_, name)| [Some(name.updated_at), name.pulled_at]);
        let images = self.images.iter().map(|image| graph.images[*image].last_used_at);
        names.chain(images).flatten().max().unwrap_or(0)
    }

    /// Whether it has no name but its digest.
    pub fn is_dangling(&self, graph: &Graph) -> bool {
        self.names(graph).all(|(_, name)| is_digest(graph, self.target, name))
    }
}

/// Whether a name is the digest under which an image without one is kept.
pub(crate) fn is_digest(graph: &Graph, target: usize, name: &NameRoot) -> bool {
    matches!(&graph.nodes[target].object, Object::Blob(digest) if name.name == digest.to_string())
}

/// All groups, by target.
pub fn groups(graph: &Graph) -> Vec<Group> {
    let mut by_target: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (index, root) in graph.roots.iter().enumerate() {
        if let (RootKind::Name(_), [target]) = (&root.kind, &root.keeps[..]) {
            by_target.entry(*target).or_default().push(index);
        }
    }
    let images: HashMap<usize, usize> =
        graph.images.iter().enumerate().map(|(index, image)| (image.manifest, index)).collect();
    let groups = by_target.into_iter().map(|(target, names)| {
        let (mut found, mut seen, mut open) = (Vec::new(), HashSet::new(), vec![target]);
        while let Some(index) = open.pop() {
            if seen.insert(index) {
                found.extend(images.get(&index));
                let below: Vec<usize> = graph.manifests(index).collect();
                open.extend(below.into_iter().rev());
            }
        }
        best_first(graph, &mut found);
        Group { target, names, images: found }
    });
    groups.collect()
}

/// Moves the image to the front that lists show of several.
fn best_first(graph: &Graph, images: &mut [usize]) {
    if images.len() < 2 {
        return;
    }
    let platforms: Vec<Option<Platform>> =
        images.iter().map(|image| graph.images[*image].platform.parse().ok()).collect();
    if let Some(best) = Platform::host().select(platforms.iter().map(Option::as_ref)) {
        images[..=best].rotate_right(1);
    }
}

/// Who uses each image.
pub fn users(graph: &Graph) -> Vec<Vec<User>> {
    let mut users = vec![Vec::new(); graph.images.len()];
    let by_manifest: HashMap<usize, usize> =
        graph.images.iter().enumerate().map(|(index, image)| (image.manifest, index)).collect();
    let mut by_chain: HashMap<&str, Vec<usize>> = HashMap::new();
    for (index, image) in graph.images.iter().enumerate() {
        // Another owner may have the stack of an image that is not unpacked here.
        if let Some(key) = &image.chain_key {
            by_chain.entry(key).or_default().push(index);
        }
    }
    for root in &graph.roots {
        let user = match &root.kind {
            RootKind::Name(_) => continue,
            RootKind::Container { name, .. } => User::Container(name.clone()),
            RootKind::Mount { target, .. } => User::Mount(target.clone()),
            RootKind::Lease { id, .. } => User::Lease(id.clone()),
            RootKind::Snapshot { owner, key, .. } => {
                let user = User::Snapshot { owner: owner.clone(), key: key.clone() };
                for image in directly_below(graph, &root.keeps, &by_chain) {
                    users[image].push(user.clone());
                }
                continue;
            }
        };
        for image in root.keeps.iter().filter_map(|index| by_manifest.get(index)) {
            users[*image].push(user.clone());
        }
    }
    users
}

/// The images whose layers, all of them, are what these snapshots were prepared from.
fn directly_below(graph: &Graph, snapshots: &[usize], by_chain: &HashMap<&str, Vec<usize>>) -> Vec<usize> {
    let parents = snapshots.iter().flat_map(|index| graph.children(*index));
    let keys = parents.filter_map(|parent| match &graph.nodes[parent].object {
        Object::Snapshot { key, .. } => by_chain.get(key.as_str()),
        _ => None,
    });
    keys.flatten().copied().collect()
}

/// Whether a policy may act on a name: it is not another owner's.
pub(crate) fn is_local(name: &NameRoot) -> bool {
    name.owner == LOCAL
}
