//! How much goes with what: reference counts over the part of the graph that is kept.
//!
//! Nothing leads in a circle, since a digest cannot be part of what it is the digest of, so that what drops to zero is
//! exactly what no root leads to any more. The bytes of that are what taking the root away frees: no estimate, whatever
//! is shared with whom.

use layerstore_store::{Graph, Size};

use crate::mark;

/// For each object the number of roots and kept objects that need it.
#[derive(Debug, Clone)]
pub struct Counts<'a> {
    graph: &'a Graph,
    counts: Vec<u32>,
}

impl<'a> Counts<'a> {
    /// Counts what is kept as things are.
    pub fn new(graph: &'a Graph) -> Self {
        let kept = mark::kept(graph);
        let mut counts = vec![0; graph.nodes.len()];
        for index in (0..graph.nodes.len()).filter(|index| kept[*index]) {
            for child in graph.children(index) {
                counts[child] += 1;
            }
        }
        for index in graph.roots.iter().flat_map(|root| &root.keeps) {
            counts[*index] += 1;
        }
        Self { graph, counts }
    }

    /// Whether anything needs the object.
    pub fn is_kept(&self, index: usize) -> bool {
        self.counts[index] > 0
    }

    /// What nothing needs.
    pub fn garbage(&self) -> Vec<usize> {
        (0..self.counts.len()).filter(|index| !self.is_kept(*index)).collect()
    }

    /// Takes away one reason to keep each of `objects`. Returns what nothing needs any more by this, each object after all
    /// that needed it.
    pub fn release(&mut self, objects: impl IntoIterator<Item = usize>) -> Vec<usize> {
        let mut freed = Vec::new();
        for object in objects {
            self.drop_one(object, &mut freed);
        }
        let mut next = 0;
        while let Some(index) = freed.get(next).copied() {
            for child in self.graph.children(index) {
                self.drop_one(child, &mut freed);
            }
            next += 1;
        }
        freed
    }

    fn drop_one(&mut self, index: usize, freed: &mut Vec<usize>) {
        let count = &mut self.counts[index];
        // Nothing is released more often than it is kept; if it were, it would stay gone.
        let before = std::mem::replace(count, count.saturating_sub(1));
        if before == 1 {
            freed.push(index);
        }
    }

    /// The opposite of a release of `objects` that freed `freed`.
    pub fn restore(&mut self, objects: impl IntoIterator<Item = usize>, freed: &[usize]) {
        let children = freed.iter().flat_map(|index| self.graph.children(*index));
        for index in objects.into_iter().chain(children) {
            self.counts[index] += 1;
        }
    }

    /// What `objects` take.
    pub fn size(&self, objects: &[usize]) -> Size {
        objects.iter().map(|index| self.graph.nodes[*index].size).sum()
    }
}
