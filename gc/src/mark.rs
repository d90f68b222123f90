//! Mark: what the roots lead to.

use layerstore_store::Graph;

/// Which objects `starts` lead to, these included.
pub fn reach(graph: &Graph, starts: impl IntoIterator<Item = usize>) -> Vec<bool> {
    let mut reached = vec![false; graph.nodes.len()];
    let mut open: Vec<usize> = starts.into_iter().collect();
    while let Some(index) = open.pop() {
        if !std::mem::replace(&mut reached[index], true) {
            open.extend(graph.children(index).filter(|child| !reached[*child]));
        }
    }
    reached
}

/// Which objects are kept: those that the roots lead to.
pub fn kept(graph: &Graph) -> Vec<bool> {
    reach(graph, graph.roots.iter().flat_map(|root| root.keeps.iter().copied()))
}

/// The objects of a set, each after all in the set that lead to it.
pub(crate) fn parents_first(graph: &Graph, wanted: &[usize]) -> Vec<usize> {
    let mut inside = vec![false; graph.nodes.len()];
    for index in wanted {
        inside[*index] = true;
    }
    let mut seen = vec![false; graph.nodes.len()];
    let mut order = Vec::with_capacity(wanted.len());
    // Depth first, children before parents; no recursion, as a stack of snapshots may be 500 deep.
    let mut open = Vec::new();
    for start in wanted {
        if std::mem::replace(&mut seen[*start], true) {
            continue;
        }
        open.push((*start, graph.children(*start)));
        while let Some((_, children)) = open.last_mut() {
            match children.next() {
                Some(child) if inside[child] && !seen[child] => {
                    seen[child] = true;
                    open.push((child, graph.children(child)));
                }
                Some(_) => {}
                None => order.extend(open.pop().map(|(index, _)| index)),
            }
        }
    }
    order.reverse();
    order
}
