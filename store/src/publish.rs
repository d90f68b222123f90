//! Making complete layers part of the store.
//!
//! In this order: the blobs' data is synced; they are renamed into place; their directory is
//! synced; the trees are renamed into place; one transaction records all of it. Whatever fails,
//! files that have a name but no row are taken away again, here or by a later recovery.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use layerstore_oci::{DiffId, Digest};
use rusqlite::Transaction;

use crate::blob;
use crate::db::Durability;
use crate::error::{DbContext as _, IoContext as _, Result};
use crate::graph::Object;
use crate::ingest::Received;
use crate::layout::TreeId;
use crate::lock::Key;
use crate::session::{Session, TreeDirectory};
use crate::store::Store;
use crate::tables::Tables;
use crate::tree::{self, Usage};
use crate::walk::{blocks, blocks_of_open, mark_untouched};

/// A complete blob to publish.
#[derive(Debug)]
pub struct NewBlob {
    /// The bytes.
    pub received: Received,
    /// The media type of its descriptor.
    pub media_type: Option<String>,
    /// For a layer: the digest of its uncompressed form, computed from these very bytes.
    pub diff_id: Option<DiffId>,
}

/// A completely unpacked layer to publish.
#[derive(Debug)]
pub struct NewTree {
    /// Where it is.
    pub directory: TreeDirectory,
    /// The layer, verified over the whole stream.
    pub diff_id: DiffId,
    /// What its `diff` directory takes.
    pub usage: Usage,
    /// Directories that the layer implies but does not list.
    pub implied: Vec<Vec<u8>>,
    /// Hard links to files of layers below: path and target.
    pub links: Vec<(Vec<u8>, Vec<u8>)>,
    /// Whiteouts and opaque directories in it, if they were counted.
    pub whiteouts: Option<u64>,
}

/// What becomes part of the store in one step.
#[derive(Debug, Default)]
pub struct Publication {
    /// New blobs.
    pub blobs: Vec<NewBlob>,
    /// New trees.
    pub trees: Vec<NewTree>,
    /// Blobs that were there, and whose uncompressed digest is known by now.
    pub diff_ids: Vec<(Digest, DiffId)>,
}

/// From this many small blobs on, one `syncfs` is cheaper than a sync for each.
const SYNC_TOGETHER_COUNT: usize = 9;
/// Above this average size, in bytes, each blob is synced by itself: `syncfs` would also wait for
/// everything else that is being written to the filesystem.
const SYNC_TOGETHER_SIZE: u64 = 1 << 20;

impl Store {
    /// Publishes complete layers and puts them under the session's lease.
    ///
    /// The caller holds the claims of what it publishes, if others might fetch the same. Success
    /// says that each blob and tree is in the store, not that it came from this publication: where
    /// another process was faster, its tree stays and this one is discarded.
    ///
    /// Returns what was not there before.
    pub fn publish(&self, session: &Session, publication: Publication) -> Result<Vec<Object>> {
        self.durable().check()?;
        self.sync_blobs(&publication.blobs)?;
        let claim = self.claim_shared(&Key::Sweep)?;
        let mut placed = Placed::default();
        let published = self.place(publication, &mut placed).and_then(|()| self.record(session, &placed));
        drop(claim);
        match published {
            Ok(Recorded { new, mut superfluous }) => {
                // A tree of an earlier life of the filesystem may still be mounted through another
                // mount of it; collection takes it away once it is not.
                if !superfluous.is_empty() {
                    match self.mounted_trees() {
                        Ok(mounted) => {
                            // Nor what a runtime has mounted by itself.
                            let tables = Tables::read();
                            superfluous.retain(|id| !mounted.contains(id) && tables.user(id).is_none());
                            self.discard_trees(&superfluous);
                        }
                        Err(error) => {
                            tracing::warn!(%error, "superfluous trees stay until the next collection");
                        }
                    }
                }
                Ok(new)
            }
            Err(error) => {
                // As it was before; if this fails too, the next collection does it.
                if let Err(second) = self.discard_unrecorded(&placed) {
                    tracing::warn!(error = %second, "files without a row stay until the next collection");
                }
                Err(error)
            }
        }
    }

    fn sync_blobs(&self, blobs: &[NewBlob]) -> Result<()> {
        let total: u64 = blobs.iter().map(|blob| blob.received.size()).sum();
        let count = blobs.len();
        if count >= SYNC_TOGETHER_COUNT && total / (count as u64) < SYNC_TOGETHER_SIZE {
            return self.durable().sync_filesystem();
        }
        for blob in blobs {
            self.durable().sync_file(blob.received.file(), blob.received.path())?;
        }
        Ok(())
    }

    fn place(&self, publication: Publication, placed: &mut Placed) -> Result<()> {
        let mut directories = BTreeSet::new();
        for blob in publication.blobs {
            let digest = blob.received.digest().clone();
            // It is synced: no block is only reserved any more.
            let stat = rustix::fs::fstat(blob.received.file()).context("examine", blob.received.path())?;
            let destination = self.layout().blob(&digest);
            self.durable().rename(blob.received.path(), &destination)?;
            directories.insert(self.layout().blobs(digest.algorithm()));
            placed.blobs.push(PlacedBlob {
                digest,
                size: blob.received.size(),
                allocated: blocks_of_open(blob.received.file(), &stat),
                media_type: blob.media_type,
                diff_id: blob.diff_id,
            });
        }
        for directory in &directories {
            self.durable().sync_dir(directory)?;
        }
        for tree in publication.trees {
            let id = TreeId::random();
            self.durable().rename(&tree.directory.into_path(), &self.layout().tree(&id))?;
            let usage = self.with_own_directory(&id, tree.usage)?;
            placed.trees.push(PlacedTree {
                id,
                diff_id: tree.diff_id,
                usage,
                implied: tree.implied,
                links: tree.links,
                whiteouts: tree.whiteouts,
            });
        }
        placed.diff_ids = publication.diff_ids;
        Ok(())
    }

    /// What a tree takes together with the directory that it is in.
    pub(crate) fn with_own_directory(&self, id: &TreeId, usage: Usage) -> Result<Usage> {
        let directory = self.layout().tree(id);
        mark_untouched(&directory)?;
        let own = blocks(&rustix::fs::lstat(&directory).context("examine", &directory)?);
        Ok(Usage { allocated: usage.allocated.saturating_add(own), ..usage })
    }

    fn record(&self, session: &Session, placed: &Placed) -> Result<Recorded> {
        let now = self.clock().now();
        let lost = self.lost_trees(placed)?;
        self.database().write(Durability::Process, "publish layers", |tx| {
            let mut recorded = Recorded::default();
            for blob in &placed.blobs {
                if record_blob(tx, blob, now)? {
                    recorded.new.push(Object::Blob(blob.digest.clone()));
                }
                session.lease(tx, "blob", &blob.digest.to_string())?;
            }
            for (digest, diff_id) in &placed.diff_ids {
                tx.execute(
                    "UPDATE blob SET diff_id = ?2 WHERE digest = ?1",
                    (digest.to_string(), diff_id.to_string()),
                )
                .db("record a diff ID")?;
            }
            for tree in &placed.trees {
                let superfluous = self.record_tree(tx, tree, &lost, now)?;
                if superfluous.as_ref() != Some(&tree.id) {
                    recorded.new.push(Object::Tree(tree.id.clone()));
                }
                recorded.superfluous.extend(superfluous);
                session.lease(tx, "tree", &tree.diff_id.to_string())?;
            }
            Ok(recorded)
        })
    }

    /// Trees with a row whose directory somebody deleted.
    fn lost_trees(&self, placed: &Placed) -> Result<BTreeSet<TreeId>> {
        let mut lost = BTreeSet::new();
        for tree in &placed.trees {
            if let Some(row) = self.tree(&tree.diff_id)?
                && !self.layout().diff(&row.id).is_dir()
            {
                lost.insert(row.id);
            }
        }
        Ok(lost)
    }

    fn record_tree(
        &self,
        tx: &Transaction<'_>,
        tree: &PlacedTree,
        lost: &BTreeSet<TreeId>,
        now: i64,
    ) -> Result<Option<TreeId>> {
        let action = "record a tree";
        let existing = tree::find(self, tx, &tree.diff_id)?;
        if let Some(existing) = &existing
            && existing.trusted
            && !lost.contains(&existing.id)
        {
            return Ok(Some(tree.id.clone()));
        }
        let life = self.life();
        let implied = (!tree.implied.is_empty()).then(|| tree.implied.join(&0));
        let links: Vec<&[u8]> = tree.links.iter().flat_map(|(path, target)| [&path[..], target]).collect();
        let links = (!links.is_empty()).then(|| links.join(&0));
        // A tree of an earlier life, or whose directory is lost, gives way in every stack that has it.
        tx.prepare_cached(
            "INSERT INTO tree (id, diff_id, bytes, allocated, inodes, implied, boot_id, mount_id, created_at, links, \
             whiteouts) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11) \
             ON CONFLICT (diff_id) DO UPDATE SET id = excluded.id, bytes = excluded.bytes, \
             allocated = excluded.allocated, inodes = excluded.inodes, implied = excluded.implied, links = excluded.links, whiteouts = excluded.whiteouts, \
             boot_id = excluded.boot_id, mount_id = excluded.mount_id, synced = 0, created_at = excluded.created_at",
        )
        .and_then(|mut insert| {
            insert.execute((
                tree.id.as_str(),
                tree.diff_id.to_string(),
                tree.usage.bytes,
                tree.usage.allocated,
                tree.usage.inodes,
                implied,
                &life.boot,
                life.mount,
                now,
                links,
                tree.whiteouts,
            ))
        })
        .db(action)?;
        Ok(existing.map(|tree| tree.id))
    }

    /// Throws away placed files that did not get a row.
    fn discard_unrecorded(&self, placed: &Placed) -> Result<()> {
        let _claim = self.claim(&Key::Sweep)?;
        for blob in &placed.blobs {
            if self.blob(&blob.digest)?.is_none() {
                remove_if_there(&self.layout().blob(&blob.digest));
            }
        }
        for tree in &placed.trees {
            if self.tree(&tree.diff_id)?.is_none_or(|row| row.id != tree.id) {
                self.discard_trees(std::slice::from_ref(&tree.id));
            }
        }
        Ok(())
    }

    pub(crate) fn discard_trees(&self, ids: &[TreeId]) {
        for id in ids {
            if let Err(error) = self.throw_away(&self.layout().tree(id)) {
                tracing::warn!(%error, tree = %id, "a superfluous tree stays until the next collection");
            }
        }
    }

    /// Moves a file or directory to the trash and unlinks it.
    pub(crate) fn throw_away(&self, path: &std::path::Path) -> Result<()> {
        if let Some(trashed) = self.move_to_trash(path)? {
            self.unlink_trashed(&trashed)?;
        }
        Ok(())
    }
}

#[derive(Debug, Default)]
struct Recorded {
    /// What has a row for the first time.
    new: Vec<Object>,
    /// Trees whose directory nothing names: ours where another was faster, else the one it replaces.
    superfluous: Vec<TreeId>,
}

#[derive(Debug, Default)]
struct Placed {
    blobs: Vec<PlacedBlob>,
    trees: Vec<PlacedTree>,
    diff_ids: Vec<(Digest, DiffId)>,
}

#[derive(Debug)]
struct PlacedBlob {
    digest: Digest,
    size: u64,
    /// Bytes of the blocks of its file.
    allocated: u64,
    media_type: Option<String>,
    diff_id: Option<DiffId>,
}

#[derive(Debug)]
struct PlacedTree {
    id: TreeId,
    diff_id: DiffId,
    usage: Usage,
    implied: Vec<Vec<u8>>,
    links: Vec<(Vec<u8>, Vec<u8>)>,
    whiteouts: Option<u64>,
}

/// Tells whether the blob is new.
fn record_blob(tx: &Transaction<'_>, blob: &PlacedBlob, now: i64) -> Result<bool> {
    let new = blob::find(tx, &blob.digest)?.is_none();
    tx.prepare_cached(
        "INSERT INTO blob (digest, size, allocated, media_type, diff_id, created_at) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT (digest) DO UPDATE \
         SET allocated = excluded.allocated, diff_id = coalesce(excluded.diff_id, diff_id)",
    )
    .and_then(|mut insert| {
        insert.execute((
            blob.digest.to_string(),
            blob.size,
            blob.allocated,
            &blob.media_type,
            blob.diff_id.as_ref().map(ToString::to_string),
            now,
        ))
    })
    .db("record a blob")?;
    Ok(new)
}

fn remove_if_there(path: &PathBuf) {
    if let Err(error) = fs::remove_file(path)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(%error, path = %path.display(), "a file without a row stays until the next collection");
    }
}
