//! The one account of what takes how much: behind `df`, the sizes in lists, the picture and metrics.

use std::collections::{HashMap, HashSet};

use layerstore_oci::Digest;
use layerstore_store::{Graph, NodeKind, RootKind, Size, UnixSeconds};

use crate::count::Counts;
use crate::group::{Group, User, groups, users};
use crate::mark;

/// What everything takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Each manifest or index that has names.
    pub groups: Vec<GroupAccount>,
    /// Each image, as in the graph.
    pub images: Vec<ImageAccount>,
    /// Objects of each kind, and those of them that nothing keeps.
    pub kinds: Vec<(NodeKind, Tally, Tally)>,
    /// All that names lead to, each object once.
    pub named: Size,
    /// Distinct image IDs that names lead to.
    pub image_ids: usize,
    /// Those of them that have a container.
    pub active_ids: usize,
}

/// So many objects take so much.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Objects.
    pub count: u64,
    /// What they take.
    pub size: Size,
}

/// All names of one target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupAccount {
    /// The names and their images.
    pub group: Group,
    /// What goes when these names alone are removed.
    pub freed: Size,
    /// When it was last used.
    pub last_use: UnixSeconds,
}

/// One image. Its size is that of its layers, unpacked where they are, in bytes of files as `images` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageAccount {
    /// Bytes of all its layers.
    pub size: u64,
    /// Bytes of those that another image ID has as well; the rest is unique.
    pub shared: u64,
    /// Who uses it.
    pub users: Vec<User>,
}

impl ImageAccount {
    /// Bytes of the layers that no other image has.
    pub fn unique(&self) -> u64 {
        self.size - self.shared
    }

    /// How many containers were made from it.
    pub fn containers(&self) -> usize {
        self.users.iter().filter(|user| matches!(user, User::Container(_))).count()
    }
}

/// The index that stands for a layer, whichever of its forms is here.
pub(crate) fn layer_index(layer: &layerstore_store::LayerFacts) -> Option<usize> {
    layer.tree.or(layer.blob)
}

/// Sizes of all images.
pub fn images(graph: &Graph) -> Vec<ImageAccount> {
    let mut owners: HashMap<usize, (&Digest, bool)> = HashMap::new();
    for image in &graph.images {
        for index in image.layers.iter().filter_map(layer_index) {
            let (config, shared) = owners.entry(index).or_insert((&image.config, false));
            *shared |= **config != image.config;
        }
    }
    let users = users(graph);
    graph
        .images
        .iter()
        .zip(users)
        .map(|(image, users)| {
            let mut account = ImageAccount { size: 0, shared: 0, users };
            for index in image.layers.iter().filter_map(layer_index) {
                let bytes = graph.nodes[index].size.apparent;
                account.size += bytes;
                if owners.get(&index).is_some_and(|(_, shared)| *shared) {
                    account.shared += bytes;
                }
            }
            account
        })
        .collect()
}

/// Accounts for everything that has a row. Trees that are being written to are not counted in it.
pub fn account(graph: &Graph) -> Account {
    let mut counts = Counts::new(graph);
    let groups = groups(graph).into_iter().map(|group| group_account(graph, &mut counts, group));
    let groups: Vec<GroupAccount> = groups.collect();
    let images = images(graph);
    let (mut ids, mut active) = (HashSet::new(), HashSet::new());
    for image in groups.iter().flat_map(|account| &account.group.images) {
        ids.insert(&graph.images[*image].config);
        if images[*image].containers() > 0 {
            active.insert(&graph.images[*image].config);
        }
    }
    let tagged = graph.roots.iter().filter(|root| matches!(root.kind, RootKind::Name(_)));
    let reached = mark::reach(graph, tagged.flat_map(|root| root.keeps.iter().copied()));
    let named =
        graph.nodes.iter().zip(reached).filter(|(_, reached)| *reached).map(|(node, _)| node.size).sum();
    let mut kinds: Vec<(NodeKind, Tally, Tally)> = Vec::new();
    for kind in [NodeKind::Blob, NodeKind::Layer, NodeKind::Fixup, NodeKind::Written, NodeKind::Snapshot] {
        kinds.push((kind, Tally::default(), Tally::default()));
    }
    for (index, node) in graph.nodes.iter().enumerate() {
        for (_, all, garbage) in kinds.iter_mut().filter(|(kind, ..)| *kind == node.kind) {
            all.add(node.size);
            if !counts.is_kept(index) {
                garbage.add(node.size);
            }
        }
    }
    let (image_ids, active_ids) = (ids.len(), active.len());
    Account { groups, images, kinds, named, image_ids, active_ids }
}

impl Tally {
    fn add(&mut self, size: Size) {
        self.count += 1;
        self.size += size;
    }
}

impl Account {
    /// Objects of a kind, and those of them that nothing keeps.
    pub fn kind(&self, kind: NodeKind) -> (Tally, Tally) {
        let found = self.kinds.iter().find(|(other, ..)| *other == kind);
        found.map(|(_, all, garbage)| (*all, *garbage)).unwrap_or_default()
    }
}

fn group_account(graph: &Graph, counts: &mut Counts<'_>, group: Group) -> GroupAccount {
    let released: Vec<usize> = group.names.iter().map(|_| group.target).collect();
    let freed = counts.release(released.iter().copied());
    let size = counts.size(&freed);
    counts.restore(released, &freed);
    let last_use = group.last_use(graph);
    GroupAccount { group, freed: size, last_use }
}
