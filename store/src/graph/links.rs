//! What refers to what, as the rows say it: half of what the graph is loaded from, and the half that can be read while the
//! objects are.

use foldhash::HashMap;
use layerstore_oci::Digest;
use rusqlite::Connection;

use super::load::Objects;
use super::rows::{dangling, digest, each, get, invalid, text};
use super::{Graph, ImageFacts, LayerFacts};
use crate::blob::parse_digest;
use crate::error::Result;

/// The edges, and the layers of the images.
#[derive(Debug, Default)]
pub(super) struct Links {
    /// By parent; of each by child.
    edges: Groups<Edge>,
    /// By manifest; of each from the lowest on.
    layers: Groups<Layer>,
}

#[derive(Debug)]
struct Edge {
    child: Digest,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Of an index; with its place there.
    Manifest(i64),
    Config,
    Layer,
    Subject,
}

#[derive(Debug)]
struct Layer {
    blob: Digest,
    diff_id: Digest,
}

impl Links {
    pub(super) fn load(db: &Connection) -> Result<Self> {
        let mut links = Self::default();
        // Rows come in the order of the primary keys.
        each(db, "SELECT parent, child, kind, position FROM edge", [], |row| {
            let kind = match text(row, 2)? {
                "manifest" => Kind::Manifest(get(row, 3)?),
                "config" => Kind::Config,
                "layer" => Kind::Layer,
                "subject" => Kind::Subject,
                kind => return Err(invalid("kind of edge", kind)),
            };
            let edge = Edge { child: digest(row, 1)?, kind };
            links.edges.add(text(row, 0)?, edge)
        })?;
        each(db, "SELECT manifest, blob, diff_id FROM image_layer", [], |row| {
            let layer = Layer { blob: digest(row, 1)?, diff_id: digest(row, 2)? };
            links.layers.add(text(row, 0)?, layer)
        })?;
        Ok(links)
    }
}

/// Items in groups, each of a digest.
#[derive(Debug)]
struct Groups<T> {
    items: Vec<T>,
    /// The digests, and where their items begin.
    starts: Vec<(Digest, usize)>,
    /// The last digest.
    last: String,
}

impl<T> Groups<T> {
    /// Adds to the group of a digest, which is that of the item before or a new one.
    fn add(&mut self, digest: &str, item: T) -> Result<()> {
        if digest != self.last {
            self.starts.push((parse_digest(digest)?, self.items.len()));
            digest.clone_into(&mut self.last);
        }
        self.items.push(item);
        Ok(())
    }

    fn iter(&self) -> impl Iterator<Item = (&Digest, &[T])> {
        let ends = self.starts.iter().skip(1).map(|(_, start)| *start).chain([self.items.len()]);
        self.starts.iter().zip(ends).map(|((digest, start), end)| (digest, &self.items[*start..end]))
    }
}

impl<T> Default for Groups<T> {
    fn default() -> Self {
        Self { items: Vec::new(), starts: Vec::new(), last: String::new() }
    }
}

impl Objects {
    /// Puts the graph together. What an object refers to need not be here; the object itself must be.
    pub(super) fn link(mut self, links: &Links) -> Result<Graph> {
        let mut manifests = Vec::new();
        let mut below: HashMap<usize, &[Edge]> = HashMap::default();
        for (digest, edges) in links.edges.iter() {
            let parent = self.blob(digest).ok_or_else(|| dangling("blob", &digest.to_string()))?;
            below.insert(parent, edges);
            for edge in edges {
                match (edge.kind, self.blob(&edge.child)) {
                    (Kind::Manifest(place), Some(child)) => manifests.push((parent, place, child)),
                    (_, Some(child)) => self.graph.edge(parent, child),
                    (_, None) => {}
                }
            }
        }
        manifests.sort_unstable();
        for (parent, _, child) in manifests {
            self.graph.manifest(parent, child);
        }
        let mut layers: HashMap<usize, &[Layer]> = HashMap::default();
        for (digest, of_image) in links.layers.iter() {
            let manifest = self.blob(digest).ok_or_else(|| dangling("image", &digest.to_string()))?;
            layers.insert(manifest, of_image);
        }
        for mut image in std::mem::take(&mut self.images) {
            let edges = below.get(&image.manifest).copied().unwrap_or_default();
            let layers = layers.remove(&image.manifest).unwrap_or_default();
            self.check(&image, edges, layers)?;
            let facts = |layer: &Layer| LayerFacts {
                blob: self.blob(&layer.blob),
                tree: self.trees.get(&layer.diff_id).copied(),
            };
            image.layers = layers.iter().map(facts).collect();
            self.graph.image(image);
        }
        match layers.into_keys().next() {
            Some(manifest) => Err(dangling("image", &self.name(manifest))),
            None => Ok(self.graph.build()),
        }
    }

    fn blob(&self, digest: &Digest) -> Option<usize> {
        self.graph.graph.index.blob(digest)
    }

    /// Several tables tell what an image consists of. Where they do not agree, rows are lost, and with them what keeps its
    /// blobs.
    fn check(&self, image: &ImageFacts, edges: &[Edge], layers: &[Layer]) -> Result<()> {
        let lost = |what: &'static str| Err(dangling(what, &self.name(image.manifest)));
        let config = edges.binary_search_by(|edge| edge.child.cmp(&image.config));
        let has_config = config.is_ok_and(|index| edges[index].kind == Kind::Config);
        if !has_config || self.blob(&image.config).is_none() {
            return lost("config of an image");
        }
        let mut blobs: Vec<&Digest> = layers.iter().map(|layer| &layer.blob).collect();
        blobs.sort_unstable();
        blobs.dedup();
        let named = edges.iter().filter(|edge| edge.kind == Kind::Layer).map(|edge| &edge.child);
        if !named.eq(blobs) || layers.is_empty() != image.chain_key.is_none() {
            return lost("layer of an image");
        }
        Ok(())
    }

    fn name(&self, index: usize) -> String {
        self.graph.graph.nodes[index].object.to_string()
    }
}
