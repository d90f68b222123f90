//! Blobs of layers that were given up, because their trees are here and a registry has them.
//!
//! An evicted blob has no row and no file, but the images that name it are here. One whose row is still here, and whose
//! file is not, is damaged: that is another matter.

use std::collections::HashSet;

use layerstore_oci::{DiffId, Digest};

use crate::blob::parse_digest;
use crate::error::{DbContext as _, Result};
use crate::graph::{Graph, Object};
use crate::layout::TreeId;
use crate::store::Store;
use crate::walk::in_parallel;

impl Store {
    /// Looks for the blobs and trees of all layers of images, and notes in the graph which of them are not on the disk, or
    /// shorter or longer than they should be. Before one half of a layer is given up the other one has to be there.
    pub fn note_missing(&self, graph: &mut Graph) {
        let layers = graph.images.iter().flat_map(|image| &image.layers);
        let halves: HashSet<usize> = layers.flat_map(|layer| [layer.blob, layer.tree]).flatten().collect();
        let halves: Vec<usize> = halves.into_iter().collect();
        let there = in_parallel(&halves, |index| {
            let node = &graph.nodes[*index];
            match &node.object {
                Object::Blob(digest) => self.blob_file_size(digest) == Some(node.size.apparent),
                Object::Tree(id) => self.layout().diff(id).is_dir(),
                Object::Snapshot { .. } => true,
            }
        });
        let missing = halves.iter().zip(there).filter(|(_, there)| !there).map(|(index, _)| *index);
        let missing = missing.collect();
        graph.missing = missing;
    }

    /// Whether the blob of an image's layer was evicted, and its tree can do without: it is durable, and on the disk.
    ///
    /// That an image in the store has the layer is part of it: what has never been here was not evicted.
    pub fn is_evicted(&self, blob: &Digest, diff_id: &DiffId) -> Result<bool> {
        let action = "look for an evicted blob";
        let tree: Option<String> = self.database().read(action, |db| {
            use rusqlite::OptionalExtension as _;
            db.prepare_cached(
                "SELECT t.id FROM tree AS t WHERE t.diff_id = ?2 AND t.synced = 1 AND \
                 NOT EXISTS (SELECT 1 FROM blob WHERE digest = ?1) AND \
                 EXISTS (SELECT 1 FROM image_layer AS l WHERE l.diff_id = ?2 AND l.blob = ?1)",
            )
            .and_then(|mut query| {
                query.query_row((blob.to_string(), diff_id.to_string()), |row| row.get(0)).optional()
            })
            .db(action)
        })?;
        let tree: Option<TreeId> = tree.as_deref().map(str::parse).transpose()?;
        Ok(tree.is_some_and(|tree| self.layout().diff(&tree).is_dir()))
    }

    /// The names, of all owners, that were pulled and lead to a manifest with this layer, those pulled last first. Their
    /// registries had the blob.
    pub fn pulled_names_with(&self, layer: &Digest) -> Result<Vec<String>> {
        self.names_where(layer, "r.pulled_at IS NOT NULL")
    }

    /// All names, of all owners, that lead to a manifest with this layer.
    pub fn names_with(&self, layer: &Digest) -> Result<Vec<String>> {
        self.names_where(layer, "true")
    }

    fn names_where(&self, layer: &Digest, condition: &str) -> Result<Vec<String>> {
        let action = "look for where a layer came from";
        let query = format!(
            "WITH RECURSIVE above (digest) AS ( \
                 SELECT parent FROM edge WHERE child = ?1 AND kind = 'layer' \
                 UNION SELECT e.parent FROM above AS a JOIN edge AS e ON e.child = a.digest AND e.kind = 'manifest') \
             SELECT r.name FROM above AS a JOIN reference AS r ON r.target = a.digest \
             WHERE {condition} GROUP BY r.name ORDER BY max(r.pulled_at) DESC, r.name"
        );
        self.database().read(action, |db| {
            let mut query = db.prepare_cached(&query).db(action)?;
            let names = query.query_map([layer.to_string()], |row| row.get(0)).db(action)?;
            names.collect::<rusqlite::Result<_>>().db(action)
        })
    }

    /// Those of an image's layers whose blobs the store does not know, with their diff IDs; none for what is no image.
    pub fn absent_layers(&self, manifest: &Digest) -> Result<Vec<(Digest, DiffId)>> {
        let action = "look for absent layers";
        self.database().read(action, |db| {
            let mut query = db
                .prepare_cached(
                    "SELECT l.blob, l.diff_id FROM image_layer AS l WHERE l.manifest = ?1 \
                     AND NOT EXISTS (SELECT 1 FROM blob WHERE digest = l.blob) ORDER BY l.position",
                )
                .db(action)?;
            let rows = query
                .query_map([manifest.to_string()], |row| {
                    Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?))
                })
                .db(action)?;
            rows.map(|row| {
                let (blob, diff_id) = row.db(action)?;
                Ok((parse_digest(&blob)?, parse_digest(&diff_id)?))
            })
            .collect()
        })
    }
}
