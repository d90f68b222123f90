//! What refers to what, as the rows say it: half of what the graph is loaded from, and the half that can be read while the
//! objects are.

use foldhash::HashMap;
use layerstore_oci::Digest;
use rusqlite::Connection;

use super::load::Objects;
use super::rows::{dangling, digest, each, get, invalid, text};
use super::{Graph, LayerFacts};
use crate::blob::parse_digest;
use crate::error::Result;

/// The edges, and the layers of the images.
#[derive(Debug, Default)]
pub(super) struct Links {
    /// By parent.
    edges: Vec<(Digest, Vec<Edge>)>,
    /// By manifest; of each from the lowest on.
    layers: Vec<(Digest, Vec<Layer>)>,
}

#[derive(Debug)]
struct Edge {
    child: Digest,
    /// Where an index names this manifest; nothing for other edges.
    position: Option<i64>,
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
        let mut last = String::new();
        each(db, "SELECT parent, child, kind, position FROM edge", [], |row| {
            let position = match text(row, 2)? {
                "manifest" => Some(get(row, 3)?),
                "config" | "layer" | "subject" => None,
                kind => return Err(invalid("kind of edge", kind)),
            };
            let edge = Edge { child: digest(row, 1)?, position };
            add(&mut links.edges, &mut last, text(row, 0)?, edge)
        })?;
        last.clear();
        each(db, "SELECT manifest, blob, diff_id FROM image_layer", [], |row| {
            let layer = Layer { blob: digest(row, 1)?, diff_id: digest(row, 2)? };
            add(&mut links.layers, &mut last, text(row, 0)?, layer)
        })?;
        Ok(links)
    }
}

/// Adds to the group of a digest, which is that of the row before or a new one.
fn add<T>(groups: &mut Vec<(Digest, Vec<T>)>, last: &mut String, text: &str, item: T) -> Result<()> {
    match groups.last_mut() {
        Some((_, group)) if text == last => group.push(item),
        _ => {
            text.clone_into(last);
            groups.push((parse_digest(text)?, vec![item]));
        }
    }
    Ok(())
}

impl Objects {
    /// Puts the graph together. What an object refers to need not be here; the object itself must be.
    pub(super) fn link(mut self, links: &Links) -> Result<Graph> {
        let mut manifests = Vec::new();
        for (digest, edges) in &links.edges {
            let parent =
                self.graph.graph.index.blob(digest).ok_or_else(|| dangling("blob", &digest.to_string()))?;
            for edge in edges {
                match (edge.position, self.graph.graph.index.blob(&edge.child)) {
                    (Some(position), Some(child)) => manifests.push((parent, position, child)),
                    (None, Some(child)) => self.graph.edge(parent, child),
                    (_, None) => {}
                }
            }
        }
        manifests.sort_unstable();
        for (parent, _, child) in manifests {
            self.graph.manifest(parent, child);
        }
        let by_manifest: HashMap<usize, usize> =
            self.images.iter().enumerate().map(|(index, image)| (image.manifest, index)).collect();
        for (digest, layers) in &links.layers {
            let manifest = self.graph.graph.index.blob(digest);
            let image = manifest.and_then(|manifest| by_manifest.get(&manifest));
            let image = image.ok_or_else(|| dangling("image", &digest.to_string()))?;
            self.images[*image].layers = layers
                .iter()
                .map(|layer| LayerFacts {
                    blob: self.graph.graph.index.blob(&layer.blob),
                    tree: self.trees.get(&layer.diff_id).copied(),
                })
                .collect();
        }
        for image in self.images {
            self.graph.image(image);
        }
        Ok(self.graph.build())
    }
}
