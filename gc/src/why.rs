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
#[derive(Debug)]
pub struct Above {
    parents: Lists,
    roots: Lists,
}

impl Above {
    /// Turns a graph over.
    pub fn new(graph: &Graph) -> Self {
        let live = crate::mark::kept(graph);
        let count = live.len();
        let parents = || {
            let parents = (0..count).filter(|parent| live[*parent]);
            parents.flat_map(|parent| graph.children(parent).map(move |child| (child, parent)))
        };
        let roots = || {
            let roots = graph.roots.iter().enumerate();
            roots.flat_map(|(index, root)| root.keeps.iter().map(move |kept| (*kept, index)))
        };
        Self { parents: Lists::new(count, parents), roots: Lists::new(count, roots) }
    }

    /// An object and all that leads to it.
    pub fn with(&self, object: usize) -> HashSet<usize> {
        let (mut seen, mut open) = (HashSet::new(), vec![object]);
        while let Some(index) = open.pop() {
            if seen.insert(index) {
                open.extend(self.parents.of(index));
            }
        }
        seen
    }

    /// The roots that lead to an object, in their order; none to what nothing keeps.
    pub fn roots(&self, object: usize) -> Vec<usize> {
        let found: BTreeSet<usize> =
            self.with(object).into_iter().flat_map(|index| self.roots.of(index)).copied().collect();
        found.into_iter().collect()
    }

    /// The ways from all roots to an object, up to `limit` of them.
    pub fn ways(&self, object: usize, limit: usize) -> Ways {
        let mut found = Ways::default();
        // Breadth first from the object upwards, so that short ways come first. Each entry is the way so far.
        let mut open = VecDeque::from([vec![object]]);
        let mut seen = HashSet::new();
        while let Some(way) = open.pop_front() {
            let Some(top) = way.last().copied() else { continue };
            for root in self.roots.of(top) {
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
            for parent in self.parents.of(top) {
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
}

/// A list for each index, all of them in one: stores are large.
#[derive(Debug)]
struct Lists {
    /// Where the list of each index begins, and the end of the last.
    starts: Vec<usize>,
    items: Vec<usize>,
}

impl Lists {
    /// `pairs` are an index and an item of its list. They come in the order of the items, and those of one item together.
    fn new<I: Iterator<Item = (usize, usize)>>(count: usize, pairs: impl Fn() -> I) -> Self {
        let mut starts = vec![0; count + 1];
        for (index, _) in pairs() {
            starts[index + 1] += 1;
        }
        for index in 0..count {
            starts[index + 1] += starts[index];
        }
        let mut items = vec![0; starts[count]];
        let mut next = starts.clone();
        for (index, item) in pairs() {
            items[next[index]] = item;
            next[index] += 1;
        }
        Self { starts, items }
    }

    /// The list of an index. A layer that is in an image twice is one way.
    fn of(&self, index: usize) -> impl Iterator<Item = &usize> {
        let items = &self.items[self.starts[index]..self.starts[index + 1]];
        let again = |at: &usize| at.checked_sub(1).is_some_and(|before| items[before] == items[*at]);
        (0..items.len()).filter(move |at| !again(at)).map(|at| &items[at])
    }
}

/// The ways from all roots to an object, up to `limit` of them; see [`Above::ways`].
pub fn ways(graph: &Graph, object: usize, limit: usize) -> Ways {
    Above::new(graph).ways(object, limit)
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
        let mut roots = above.roots(index);
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
