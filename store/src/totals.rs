//! Figures about the whole store.

use std::collections::HashMap;

use layerstore_oci::{DiffId, Digest};
use rustix::fs::statvfs;

use crate::blob::parse_digest;
use crate::error::{DbContext as _, IoContext as _, Result};
use crate::store::Store;

/// How much there is of what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// Blobs and their bytes.
    pub blobs: (u64, u64),
    /// Trees and the bytes of their blocks.
    pub trees: (u64, u64),
}

/// The filesystem that the store is on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Space {
    /// Its type as in `/proc/self/mountinfo`, or `unknown`.
    pub filesystem: String,
    /// Bytes that it has.
    pub total: u64,
    /// Bytes that this user may still use.
    pub available: u64,
}

/// How a layer of an image is named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerDigest {
    /// The blob.
    pub blob: Digest,
    /// The blob's media type, if it is here.
    pub media_type: Option<String>,
    /// The diff ID.
    pub diff_id: DiffId,
}

impl Store {
    /// The layers of all images, lowest first, by manifest.
    pub fn layer_digests(&self) -> Result<HashMap<Digest, Vec<LayerDigest>>> {
        let action = "list layers";
        self.database().read(action, |db| {
            let query = "SELECT l.manifest, l.blob, l.diff_id, b.media_type FROM image_layer AS l \
                         LEFT JOIN blob AS b ON b.digest = l.blob ORDER BY l.manifest, l.position";
            let mut statement = db.prepare_cached(query).db(action)?;
            let mut rows = statement.query([]).db(action)?;
            let mut layers: HashMap<Digest, Vec<LayerDigest>> = HashMap::new();
            while let Some(row) = rows.next().db(action)? {
                let text = |column| row.get::<_, String>(column).db(action);
                layers.entry(parse_digest(&text(0)?)?).or_default().push(LayerDigest {
                    blob: parse_digest(&text(1)?)?,
                    diff_id: parse_digest(&text(2)?)?,
                    media_type: row.get(3).db(action)?,
                });
            }
            Ok(layers)
        })
    }

    /// Counts blobs and trees.
    pub fn totals(&self) -> Result<Totals> {
        let action = "count blobs and trees";
        self.database().read(action, |db| {
            let count = |query: &str| {
                db.query_row(query, [], |row| Ok((row.get::<_, u64>(0)?, row.get::<_, u64>(1)?))).db(action)
            };
            Ok(Totals {
                blobs: count("SELECT count(*), coalesce(sum(size), 0) FROM blob")?,
                trees: count("SELECT count(*), coalesce(sum(allocated), 0) FROM tree")?,
            })
        })
    }

    /// Asks the filesystem.
    pub fn space(&self) -> Result<Space> {
        let root = self.layout().root();
        let stat = statvfs(root).context("ask the filesystem of", root)?;
        let available = stat.f_bavail.saturating_mul(stat.f_frsize);
        let total = stat.f_blocks.saturating_mul(stat.f_frsize);
        Ok(Space { filesystem: filesystem(root).unwrap_or_else(|| "unknown".to_owned()), total, available })
    }
}

/// The type of the filesystem with the device number of `path`. Fields as in proc(5): the third is the
/// device, the one behind `-` the type.
fn filesystem(path: &std::path::Path) -> Option<String> {
    let device = rustix::fs::stat(path).ok()?.st_dev;
    let number = format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device));
    let table = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
    let line = table.lines().find(|line| line.split(' ').nth(2) == Some(&number))?;
    line.split_once(" - ")?.1.split(' ').next().map(str::to_owned)
}
