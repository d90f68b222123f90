//! Images: manifests with a config, their layers, and the chains of snapshots they stand for.

use std::collections::HashSet;

use layerstore_oci::{ChainId, DiffId, Digest};
use rusqlite::{Connection, OptionalExtension as _, Row, Transaction};

use crate::blob::parse_digest;
use crate::clock::UnixSeconds;
use crate::db::Durability;
use crate::error::{DbContext as _, Error, Result};
use crate::last_use;
use crate::listing;
use crate::reference::{self, LOCAL};
use crate::session::Session;
use crate::snapshot::insert_chain;
use crate::store::Store;
use crate::tree::{self, TreeInfo};

/// Why one blob names another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EdgeKind {
    /// An index names a manifest or another index.
    Manifest,
    /// A manifest names its config.
    Config,
    /// A manifest names a layer.
    Layer,
    /// A manifest names the one it is about.
    Subject,
}

impl EdgeKind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Manifest => "manifest",
            Self::Config => "config",
            Self::Layer => "layer",
            Self::Subject => "subject",
        }
    }
}

/// One blob names another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edge {
    /// The index or manifest.
    pub parent: Digest,
    /// What it names; it need not be in the store.
    pub child: Digest,
    /// Why.
    pub kind: EdgeKind,
}

/// What a manifest with a config says.
#[derive(Debug, Clone)]
pub struct NewImage {
    /// The manifest.
    pub manifest: Digest,
    /// The config; its digest is the image ID.
    pub config: Digest,
    /// `os/architecture[/variant]`.
    pub platform: String,
    /// When the image was built, according to its config.
    pub created: Option<UnixSeconds>,
    /// The config's labels.
    pub labels: Vec<(String, String)>,
    /// Blob and diff ID of each layer, lowest first.
    pub layers: Vec<(Digest, DiffId)>,
}

/// What a command adds when all its layers are published.
#[derive(Debug, Default)]
pub struct ImageCommit {
    /// Which blob names which.
    pub edges: Vec<Edge>,
    /// Images.
    pub images: Vec<NewImage>,
    /// Names and their targets; an image without a name has its target's digest as name.
    pub references: Vec<(String, Digest)>,
    /// Whether the registries of these names have just said that they stand for these targets.
    pub pulled: bool,
}

/// A reference together with one image that it leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageRow {
    /// The name.
    pub name: String,
    /// What the name stands for: a manifest, or an index that leads to it.
    pub target: Digest,
    /// When the name got its present target.
    pub updated_at: UnixSeconds,
    /// When its registry last said that it stands for this target, if it came from there.
    pub pulled_at: Option<UnixSeconds>,
    /// Whether no policy may take the name away.
    pub pinned: bool,
    /// The image, or `None` where the target is an artifact that is no image.
    pub image: Option<ImageInfo>,
}

/// One image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageInfo {
    /// The manifest.
    pub manifest: Digest,
    /// The config; its digest is the image ID.
    pub config: Digest,
    /// `os/architecture[/variant]`.
    pub platform: String,
    /// When the image was built, according to its config.
    pub created: Option<UnixSeconds>,
    /// The config's labels.
    pub labels: serde_json::Map<String, serde_json::Value>,
    /// Bytes of all its layers: unpacked where they are unpacked, else of their blobs.
    pub size: u64,
    /// When it was mounted, pulled, or something was made from it; to a minute.
    pub last_used_at: Option<UnixSeconds>,
}

/// One layer of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerRow {
    /// The blob.
    pub blob: Digest,
    /// The blob's length, if the store has it.
    pub blob_size: Option<u64>,
    /// The layer's diff ID.
    pub diff_id: DiffId,
    /// Its tree, if it is unpacked.
    pub tree: Option<TreeInfo>,
}

const IMAGE_COLUMNS: &str = "i.manifest, i.config, i.platform, i.created, i.labels, \
    (SELECT coalesce(sum(coalesce(t.bytes, b.size)), 0) FROM image_layer AS l \
     LEFT JOIN tree AS t ON t.diff_id = l.diff_id LEFT JOIN blob AS b ON b.digest = l.blob \
     WHERE l.manifest = i.manifest), i.last_used_at";

impl Store {
    /// The image of a manifest; `None` if there is none, or if it is that of something else.
    pub fn image_info(&self, manifest: &Digest) -> Result<Option<ImageInfo>> {
        let action = "look up an image";
        let query = format!("SELECT {IMAGE_COLUMNS} FROM image AS i WHERE i.manifest = ?1");
        self.database().read(action, |db| {
            let found = db
                .prepare_cached(&query)
                .and_then(|mut query| {
                    query.query_row([manifest.to_string()], |row| Ok(image_info(row, 0))).optional()
                })
                .db(action)?;
            found.map_or(Ok(None), |info| info)
        })
    }

    /// Every reference of `owner` with every image that it leads to, by name.
    pub fn images(&self, owner: &str) -> Result<Vec<ImageRow>> {
        self.database().read_all("list images", |db| listing::images(db, owner))
    }

    /// The same of those alone that have the name `name`, or the same target as it. Does not look at others, however many
    /// there are.
    pub fn images_named(&self, owner: &str, name: &str) -> Result<Vec<ImageRow>> {
        let condition =
            "owner = ?1 AND target = (SELECT target FROM reference WHERE owner = ?1 AND name = ?2)";
        self.images_where(condition, [owner, name])
    }

    /// The same of those alone that lead to a digest whose hexadecimal part begins with `hex`: that of an image's config,
    /// of a manifest with a config, or of what a name stands for. Does not look at others either.
    pub fn images_by_digest(&self, owner: &str, hex: &str) -> Result<Vec<ImageRow>> {
        // Upwards from what has the digest to all that has a name. After the last digit comes `g`.
        let condition = "owner = ?1 AND target IN ( \
             WITH RECURSIVE span (low, high) AS ( \
                 VALUES ('sha256:' || ?2, 'sha256:' || ?2 || 'g'), ('sha512:' || ?2, 'sha512:' || ?2 || 'g')), \
             up (digest) AS ( \
                 SELECT i.manifest FROM span AS s JOIN image AS i ON i.config >= s.low AND i.config < s.high \
                 UNION SELECT i.manifest FROM span AS s JOIN image AS i ON i.manifest >= s.low AND i.manifest < s.high \
                 UNION SELECT f.target FROM span AS s JOIN reference AS f ON f.target >= s.low AND f.target < s.high \
                 UNION SELECT e.parent FROM up AS u JOIN edge AS e ON e.child = u.digest AND e.kind = 'manifest') \
             SELECT digest FROM up)";
        self.images_where(condition, [owner, hex])
    }

    pub(crate) fn images_where(
        &self,
        condition: &'static str,
        parameters: impl rusqlite::Params,
    ) -> Result<Vec<ImageRow>> {
        let action = "list images";
        let query = format!(
            "WITH RECURSIVE reach (name, target, updated_at, pulled_at, pinned, digest, position) AS ( \
                 SELECT name, target, updated_at, pulled_at, pinned, target, 0 FROM reference WHERE {condition} \
                 UNION \
                 SELECT r.name, r.target, r.updated_at, r.pulled_at, r.pinned, e.child, e.position FROM reach AS r \
                 JOIN edge AS e ON e.parent = r.digest AND e.kind = 'manifest') \
             SELECT r.name, r.target, r.updated_at, r.pulled_at, r.pinned, {IMAGE_COLUMNS} \
             FROM reach AS r LEFT JOIN image AS i ON i.manifest = r.digest \
             WHERE i.manifest IS NOT NULL OR r.digest = r.target \
             ORDER BY r.name, i.manifest IS NULL, r.position, i.manifest"
        );
        let mut rows: Vec<ImageRow> = self.database().read(action, |db| {
            let mut statement = db.prepare_cached(&query).db(action)?;
            let rows = statement.query_map(parameters, |row| Ok(image_row(row))).db(action)?;
            rows.map(|row| row.db(action)?).collect()
        })?;
        // An index is no image itself: its own row counts only where it leads to none; and an image to
        // which several ways lead counts once.
        let mut last = None;
        let mut seen = HashSet::new();
        rows.retain(|row| {
            if last.as_ref() != Some(&row.name) {
                last = Some(row.name.clone());
                seen.clear();
            }
            match &row.image {
                Some(image) => seen.insert(image.manifest.clone()),
                None => seen.is_empty(),
            }
        });
        Ok(rows)
    }

    /// A manifest of the image with this ID, all of whose blobs are here. Of several, always the same.
    ///
    /// One whose file has gone from the disk, or has another length, counts as absent.
    pub fn manifest_of_image(&self, id: &Digest) -> Result<Option<Digest>> {
        let action = "look up an image";
        let manifest: Option<Digest> = self.database().read(action, |db| {
            let found: Option<String> = db
                .prepare_cached(
                    "SELECT min(i.manifest) FROM image AS i WHERE i.config = ?1 AND NOT EXISTS \
                     (SELECT 1 FROM edge AS e LEFT JOIN blob AS b ON b.digest = e.child \
                      WHERE e.parent = i.manifest AND e.kind <> 'subject' AND b.digest IS NULL)",
                )
                .and_then(|mut statement| statement.query_row([id.to_string()], |row| row.get(0)))
                .db(action)?;
            found.as_deref().map(parse_digest).transpose()
        })?;
        let Some(manifest) = manifest else { return Ok(None) };
        let size = self.blob(&manifest)?.map(|blob| blob.size);
        Ok((size.is_some() && size == self.blob_file_size(&manifest)).then_some(manifest))
    }

    /// The layers of an image, lowest first. An image that is not there, any more perhaps, is an error of kind `NotFound`:
    /// it must not pass for one without layers.
    pub fn layers(&self, manifest: &Digest) -> Result<Vec<LayerRow>> {
        let action = "list layers";
        let query = format!(
            "SELECT {}, l.blob, b.size, l.diff_id FROM image_layer AS l \
             LEFT JOIN tree AS t ON t.diff_id = l.diff_id LEFT JOIN blob AS b ON b.digest = l.blob \
             WHERE l.manifest = ?1 ORDER BY l.position",
            tree::COLUMNS.split(", ").map(|column| format!("t.{column}")).collect::<Vec<_>>().join(", ")
        );
        self.database().read(action, |db| {
            let mut image = db.prepare_cached("SELECT 1 FROM image WHERE manifest = ?1").db(action)?;
            if !image.exists([manifest.to_string()]).db(action)? {
                return Err(Error::NotFound { what: "image", name: manifest.to_string() });
            }
            let mut statement = db.prepare_cached(&query).db(action)?;
            let rows =
                statement.query_map([manifest.to_string()], |row| Ok(self.layer_row(row))).db(action)?;
            rows.map(|row| row.db(action)?).collect()
        })
    }

    fn layer_row(&self, row: &Row<'_>) -> Result<LayerRow> {
        let action = "read a layer";
        let unpacked = row.get::<_, Option<String>>(0).db(action)?.is_some();
        Ok(LayerRow {
            tree: if unpacked { Some(tree::from_row(self, row)?) } else { None },
            blob: parse_digest(&row.get::<_, String>(8).db(action)?)?,
            blob_size: row.get(9).db(action)?,
            diff_id: parse_digest(&row.get::<_, String>(10).db(action)?)?,
        })
    }

    /// Records images and their names, durably. Tells whether anything changed.
    ///
    /// Everything named was published or leased by `session`, so it cannot have gone meanwhile.
    pub fn commit_images(&self, session: &Session, commit: &ImageCommit) -> Result<bool> {
        let now = self.clock().now();
        tracing::debug!(session = session.id(), images = commit.images.len(), "commit images");
        if self.database().read("compare images", |db| already_committed(db, commit))? {
            for (name, target) in commit.references.iter().filter(|_| commit.pulled) {
                self.note_pull(LOCAL, name, target)?;
            }
            return Ok(false);
        }
        self.database().write(Durability::Power, "commit images", |tx| {
            let action = "commit images";
            for (position, edge) in commit.edges.iter().enumerate() {
                tx.prepare_cached(
                    "INSERT OR IGNORE INTO edge (parent, child, kind, position) VALUES (?1, ?2, ?3, ?4)",
                )
                .and_then(|mut insert| {
                    let (parent, child) = (edge.parent.to_string(), edge.child.to_string());
                    insert.execute((parent, child, edge.kind.as_str(), position as u64))
                })
                .db(action)?;
            }
            for image in &commit.images {
                insert_image(tx, image)?;
                insert_chain(tx, LOCAL, &diff_ids(image), now)?;
            }
            let mut changed = false;
            for (name, target) in &commit.references {
                changed |= reference::set(tx, LOCAL, name, target, now)?;
                if commit.pulled {
                    last_use::mark_pulled(tx, LOCAL, name, &target.to_string(), now)?;
                    last_use::mark_below(tx, &target.to_string(), now)?;
                }
            }
            Ok(changed)
        })
    }
}

fn already_committed(db: &Connection, commit: &ImageCommit) -> Result<bool> {
    let action = "compare images";
    for (name, target) in &commit.references {
        if reference::find(db, LOCAL, name)?.is_none_or(|row| row.target != *target) {
            return Ok(false);
        }
    }
    // Another archive may have more of the platforms and artifacts of an index that is here.
    for edge in &commit.edges {
        let known = db
            .prepare_cached("SELECT 1 FROM edge WHERE parent = ?1 AND child = ?2")
            .and_then(|mut query| query.exists((edge.parent.to_string(), edge.child.to_string())))
            .db(action)?;
        if !known {
            return Ok(false);
        }
    }
    for image in &commit.images {
        // Unpacked since: its chain may be new.
        let chain = ChainId::chain(&diff_ids(image));
        let complete: bool = db
            .prepare_cached(
                "SELECT EXISTS (SELECT 1 FROM image WHERE manifest = ?1) AND (?2 IS NULL OR EXISTS \
                 (SELECT 1 FROM snapshot WHERE owner = ?3 AND key = ?2))",
            )
            .and_then(|mut statement| {
                let top = chain.last().map(ToString::to_string);
                statement.query_row((image.manifest.to_string(), top, LOCAL), |row| row.get(0))
            })
            .db(action)?;
        if !complete {
            return Ok(false);
        }
    }
    Ok(true)
}

fn diff_ids(image: &NewImage) -> Vec<DiffId> {
    image.layers.iter().map(|(_, diff_id)| diff_id.clone()).collect()
}

fn insert_image(tx: &Transaction<'_>, image: &NewImage) -> Result<()> {
    let action = "commit an image";
    // Another command may have removed it while its layers were unpacked once more.
    if crate::blob::find(tx, &image.manifest)?.is_none() {
        return Err(Error::NoBlob { digest: image.manifest.clone() });
    }
    let labels: serde_json::Map<_, _> =
        image.labels.iter().map(|(key, value)| (key.clone(), value.clone().into())).collect();
    let chain = ChainId::chain(&diff_ids(image));
    let manifest = image.manifest.to_string();
    let inserted = tx
        .prepare_cached(
            "INSERT OR IGNORE INTO image (manifest, config, platform, created, labels, chain_id) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )
        .and_then(|mut insert| {
            insert.execute((
                &manifest,
                image.config.to_string(),
                &image.platform,
                image.created,
                serde_json::Value::Object(labels).to_string(),
                chain.last().map(ToString::to_string),
            ))
        })
        .db(action)?;
    if inserted == 0 {
        return Ok(());
    }
    for (position, (blob, diff_id)) in image.layers.iter().enumerate() {
        tx.prepare_cached(
            "INSERT INTO image_layer (manifest, position, blob, diff_id) VALUES (?1, ?2, ?3, ?4)",
        )
        .and_then(|mut insert| insert.execute((&manifest, position, blob.to_string(), diff_id.to_string())))
        .db(action)?;
    }
    Ok(())
}

/// Reads [`IMAGE_COLUMNS`], which begin at column `first`.
fn image_info(row: &Row<'_>, first: usize) -> Result<Option<ImageInfo>> {
    let action = "read an image";
    let manifest: Option<String> = row.get(first).db(action)?;
    let Some(manifest) = manifest else { return Ok(None) };
    Ok(Some(ImageInfo {
        manifest: parse_digest(&manifest)?,
        config: parse_digest(&row.get::<_, String>(first + 1).db(action)?)?,
        platform: row.get(first + 2).db(action)?,
        created: row.get(first + 3).db(action)?,
        labels: serde_json::from_str(&row.get::<_, String>(first + 4).db(action)?).unwrap_or_default(),
        size: row.get(first + 5).db(action)?,
        last_used_at: row.get(first + 6).db(action)?,
    }))
}

fn image_row(row: &Row<'_>) -> Result<ImageRow> {
    let action = "read an image";
    let image = image_info(row, 5)?;
    Ok(ImageRow {
        name: row.get(0).db(action)?,
        target: parse_digest(&row.get::<_, String>(1).db(action)?)?,
        updated_at: row.get(2).db(action)?,
        pulled_at: row.get(3).db(action)?,
        pinned: row.get(4).db(action)?,
        image,
    })
}
