//! Collection: what nothing keeps goes.
//!
//! Three steps. [`unreachable()`] is a pure function of the graph; choosing and forgetting happen in one
//! transaction of the store, so that nothing chosen can be claimed in between; the files go after the
//! transaction is durable.

use std::collections::{HashMap, HashSet};

use layerstore_store::{Forgotten, Graph, Node, Object, Result, Store};

/// Which of the unreachable objects go.
#[derive(Debug, Clone)]
pub enum Scope {
    /// All of them.
    Everything,
    /// Only these.
    Only(HashSet<Object>),
    /// Only these and what they lead to.
    Below(HashSet<Object>),
}

/// The objects that no root leads to, in no particular order.
pub fn unreachable(graph: &Graph) -> Vec<usize> {
    let kept = reach(graph, graph.roots.iter().copied());
    (0..graph.nodes.len()).filter(|index| !kept[*index]).collect()
}

/// What is reachable from `starts`, these included.
fn reach(graph: &Graph, starts: impl Iterator<Item = usize>) -> Vec<bool> {
    let mut reached = vec![false; graph.nodes.len()];
    let mut open: Vec<usize> = starts.collect();
    while let Some(index) = open.pop() {
        if !std::mem::replace(&mut reached[index], true) {
            open.extend(graph.children[index].iter().copied().filter(|child| !reached[*child]));
        }
    }
    reached
}

/// What of `graph` goes within `scope`.
pub fn plan(graph: &Graph, scope: &Scope) -> Vec<usize> {
    let unreachable = unreachable(graph);
    let mut victims = unreachable.clone();
    match scope {
        Scope::Everything => {}
        Scope::Only(objects) => victims.retain(|index| objects.contains(&graph.nodes[*index].object)),
        Scope::Below(objects) => {
            let below = reach(graph, objects.iter().filter_map(|object| graph.find(object)));
            victims.retain(|index| below[*index]);
        }
    }
    with_snapshots_above(graph, &unreachable, victims)
}

/// Adds the snapshots that `victims` are stacked in, such as those that another owner's removed container has left: they
/// are unreachable too, and no row can be without the rows that it is stacked from.
fn with_snapshots_above(graph: &Graph, unreachable: &[usize], mut victims: Vec<usize>) -> Vec<usize> {
    let mut above: HashMap<usize, Vec<usize>> = HashMap::new();
    for index in unreachable {
        if matches!(graph.nodes[*index].object, Object::Snapshot { .. }) {
            for child in &graph.children[*index] {
                above.entry(*child).or_default().push(*index);
            }
        }
    }
    let mut chosen: HashSet<usize> = victims.iter().copied().collect();
    let mut next = 0;
    while let Some(victim) = victims.get(next) {
        let snapshots = above.get(victim).into_iter().flatten();
        let added: Vec<usize> = snapshots.copied().filter(|index| chosen.insert(*index)).collect();
        victims.extend(added);
        next += 1;
    }
    victims
}

/// What a collection would take now.
pub fn dry_run(store: &Store, scope: &Scope) -> Result<Vec<Node>> {
    let graph = store.graph()?;
    Ok(plan(&graph, scope).into_iter().map(|index| graph.nodes[index].clone()).collect())
}

/// Removes the names `untag` of `owner`, and then what nothing keeps within `scope`.
pub fn collect(store: &Store, owner: &str, untag: &[String], scope: &Scope) -> Result<Forgotten> {
    let forgotten = store.forget(owner, untag, |graph| plan(graph, scope))?;
    store.sweep(&forgotten)?;
    Ok(forgotten)
}

#[cfg(test)]
mod tests {
    use layerstore_oci::Digest;
    use proptest::prelude::*;

    use super::*;

    fn object(index: usize) -> Object {
        Object::Blob(Digest::sha256_of(&index.to_le_bytes()))
    }

    fn graph(count: usize, edges: &[(usize, usize)], roots: &[usize]) -> Graph {
        let mut graph = Graph::default();
        for index in 0..count {
            graph.add(object(index), 1);
        }
        for (parent, child) in edges {
            graph.children[*parent].push(*child);
        }
        graph.roots = roots.to_vec();
        graph
    }

    #[test]
    fn what_a_removed_image_shares_stays() {
        // 0 -> 1, 2   3 -> 2, 4   5 alone; 3 is still named.
        let graph = graph(6, &[(0, 1), (0, 2), (3, 2), (3, 4)], &[3]);
        assert_eq!(unreachable(&graph), [0, 1, 5]);
        let removed = Scope::Below(HashSet::from([object(0)]));
        assert_eq!(plan(&graph, &removed), [0, 1]);
        assert_eq!(plan(&graph, &Scope::Only(HashSet::from([object(5), object(3)]))), [5]);
    }

    #[test]
    fn what_is_stacked_from_a_victim_goes_too() {
        let snapshot = |key: &str| Object::Snapshot { owner: "o".to_owned(), key: key.to_owned() };
        let mut graph = graph(1, &[], &[]);
        let tree = graph.add(Object::Tree("abcdefgh".parse().unwrap()), 1);
        let [lower, upper, other] = ["lower", "upper", "other"].map(|key| graph.add(snapshot(key), 0));
        graph.children[0].push(tree);
        graph.children[lower].push(tree);
        graph.children[upper].push(lower);
        let removed = Scope::Below(HashSet::from([object(0)]));
        assert_eq!(plan(&graph, &removed), [0, tree, lower, upper], "but not {other}");
    }

    proptest! {
        #[test]
        fn exactly_what_no_root_leads_to_goes(
            edges in proptest::collection::vec((0..20_usize, 0..20_usize), 0..60),
            roots in proptest::collection::vec(0..20_usize, 0..5),
        ) {
            let graph = graph(20, &edges, &roots);
            let gone: HashSet<usize> = unreachable(&graph).into_iter().collect();
            // A second definition: the smallest set that holds the roots and is closed under edges.
            let mut kept: HashSet<usize> = roots.iter().copied().collect();
            loop {
                let before = kept.len();
                kept.extend(edges.iter().filter(|(parent, _)| kept.contains(parent)).map(|(_, child)| *child).collect::<Vec<_>>());
                if kept.len() == before { break }
            }
            for index in 0..20 {
                prop_assert_eq!(gone.contains(&index), !kept.contains(&index));
            }
        }
    }
}
