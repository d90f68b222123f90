//! Why something is here: the ways that lead to it from the roots, and what would go without one of them.

use std::collections::{BTreeSet, HashSet, VecDeque};

use layerstore_store::{Graph, RootKind};

use crate::count::Counts;
use crate::group::Group;

/// A way from a root to an object.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Way {
    /// Index of the root.
    pub root: usize,
    /// Indices of the objects, from the one that the root keeps to the one that was asked about.
    pub objects: Vec<usize>,
}

/// The ways that lead to an object.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ways {
    /// The shortest first.
    pub ways: Vec<Way>,
    /// Whether there are more than were asked for.
    pub more: bool,
}

/// The graph seen from below: what leads to each object. What no root leads to leads nowhere.
struct Above {
    parents: Vec<Vec<usize>>,
    roots: Vec<Vec<usize>>,
}

impl Above {
    fn new(graph: &Graph) -> Self {
        let live = crate::mark::kept(graph);
        let (mut parents, mut roots) = (vec![Vec::new(); live.len()], vec![Vec::new(); live.len()]);
        for parent in (0..live.len()).filter(|parent| live[*parent]) {
            for child in graph.children(parent) {
                // A layer that is in an image twice is one way.
                if parents[child].last() != Some(&parent) {
                    parents[child].push(parent);
                }
            }
        }
        for (index, root) in graph.roots.iter().enumerate() {
            for kept in &root.keeps {
                if roots[*kept].last() != Some(&index) {
                    roots[*kept].push(index);
                }
            }
        }
        Self { parents, roots }
    }

    /// All roots that lead to an object.
    fn all_roots(&self, object: usize) -> Vec<usize> {
        let (mut found, mut seen, mut open) = (BTreeSet::new(), HashSet::new(), vec![object]);
        while let Some(index) = open.pop() {
            if seen.insert(index) {
                found.extend(&self.roots[index]);
                open.extend(&self.parents[index]);
            }
        }
        found.into_iter().collect()
    }
}

/// The ways from all roots to an object, up to `limit` of them.
pub fn ways(graph: &Graph, object: usize, limit: usize) -> Ways {
    let above = Above::new(graph);
    let mut found = Ways::default();
    // Breadth first from the object upwards, so that short ways come first. Each entry is the way so far.
    let mut open = VecDeque::from([vec![object]]);
    let mut seen = HashSet::new();
    while let Some(way) = open.pop_front() {
        let Some(top) = way.last().copied() else { continue };
        for root in &above.roots[top] {
            let objects: Vec<usize> = way.iter().rev().copied().collect();
            let way = Way { root: *root, objects };
            if !seen.insert(way.clone()) {
                continue;
            }
            if found.ways.len() == limit {
                found.more = true;
                return found;
            }
            found.ways.push(way);
        }
        for parent in &above.parents[top] {
            // Each way that is begun leads to a root, so one of them is always followed, and some is found.
            if !open.is_empty() && open.len() >= limit.saturating_mul(64) {
                found.more = true;
                break;
            }
            let mut longer = way.clone();
            longer.push(*parent);
            open.push_back(longer);
        }
    }
    found
}

/// What removing names would do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Freed {
    /// Indices of what would go.
    pub freed: Vec<usize>,
    /// Indices of what the names lead to and what stays all the same, each with the roots that keep it.
    pub stays: Vec<(usize, Vec<usize>)>,
}

/// What would go if all names of a group were removed, and what would stay because of whom.
pub fn freed_by(graph: &Graph, group: &Group) -> Freed {
    let mut counts = Counts::new(graph);
    let below = crate::mark::reach(graph, [group.target]);
    let freed = counts.release(group.names.iter().map(|_| group.target));
    let gone: HashSet<usize> = group.names.iter().copied().collect();
    let stays: Vec<usize> =
        (0..below.len()).filter(|index| below[*index] && counts.is_kept(*index)).collect();
    let above = Above::new(graph);
    let stays = stays.into_iter().map(|index| {
        let mut roots = above.all_roots(index);
        roots.retain(|root| !gone.contains(root));
        (index, roots)
    });
    let stays = stays.collect();
    Freed { freed, stays }
}

/// A root in words: `name localhost/app:1`.
pub fn describe(kind: &RootKind) -> String {
    match kind {
        RootKind::Name(name) if name.owner == layerstore_store::LOCAL => {
            format!("name {}", crate::policy::familiar(&name.name))
        }
        RootKind::Name(name) => format!("name {} of {}", name.name, name.owner),
        RootKind::Lease { id, expires_at: None } => format!("running command (lease {id})"),
        RootKind::Lease { id, .. } => format!("interrupted pull (lease {id})"),
        RootKind::Mount { target, .. } => format!("mount at {}", target.display()),
        RootKind::Container { name, .. } => format!("container {name}"),
        RootKind::Snapshot { owner, key, kind } => format!("{kind} snapshot {key} of {owner}"),
    }
}
