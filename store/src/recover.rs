//! What killed sessions and power cuts left behind, and the trash.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use layerstore_oci::{Algorithm, Digest};

use crate::db::Durability;
use crate::error::{DbContext as _, IoContext as _, Result};
use crate::layout::{TreeId, random_name};
use crate::lock::Key;
use crate::session;
use crate::store::Store;

/// What [`Store::recover`] found and threw away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Recovered {
    /// Directories of dead sessions.
    pub sessions: usize,
    /// Blobs and trees that no row names.
    pub unrecorded: usize,
}

const LAST_BOOT: &str = "recovered_in_boot";

impl Store {
    /// Moves to the trash what dead sessions left; cheap when there is nothing.
    ///
    /// Files that no row names can only come from a session that died, or lost its row to a power
    /// cut, so they are looked for only after one of the two.
    pub fn recover(&self) -> Result<Recovered> {
        let sessions = self.discard_dead_sessions()?;
        let boot = &self.life().boot;
        let same_boot = self.database().read("read the last boot", |db| {
            let count: i64 = db
                .query_row(
                    "SELECT count(*) FROM meta WHERE key = ?1 AND value = ?2",
                    (LAST_BOOT, boot),
                    |row| row.get(0),
                )
                .db("read the last boot")?;
            Ok(count == 1)
        })?;
        let mut recovered = Recovered { sessions, unrecorded: 0 };
        if sessions > 0 || !same_boot {
            recovered.unrecorded = self.discard_unnamed()?;
            self.forget_dead_leases()?;
            self.database().write(Durability::Process, "record the boot", |tx| {
                tx.execute(
                    "INSERT INTO meta (key, value) VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
                    (LAST_BOOT, boot),
                )
                .db("record the boot")?;
                Ok(())
            })?;
        }
        Ok(recovered)
    }

    /// Unlinks everything in the trash. What another process unlinks at the same time is not missed.
    pub fn empty_trash(&self) -> Result<usize> {
        let names = entries(&self.layout().trash())?;
        for path in &names {
            self.unlink_trashed(path)?;
        }
        Ok(names.len())
    }

    /// Moves `path` out of sight in one step. Returns where it is now, or `None` if it was not there.
    pub(crate) fn move_to_trash(&self, path: &Path) -> Result<Option<PathBuf>> {
        let trashed = self.layout().trash().join(random_name());
        match fs::rename(path, &trashed) {
            Ok(()) => Ok(Some(trashed)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).context("move to the trash", path),
        }
    }

    pub(crate) fn unlink_trashed(&self, path: &Path) -> Result<()> {
        let kind = match fs::symlink_metadata(path) {
            Ok(metadata) => metadata.file_type(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error).context("look at", path),
        };
        let removed = if kind.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
        match removed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).context("delete", path),
            _ => Ok(()),
        }
    }

    fn discard_dead_sessions(&self) -> Result<usize> {
        let directories = entries(&self.layout().ingest())?;
        if directories.is_empty() {
            return Ok(0);
        }
        let _claim = self.claim(&Key::Sessions)?;
        let mut dead = 0;
        for directory in directories {
            if session::is_dead(&directory)? && self.move_to_trash(&directory)?.is_some() {
                dead += 1;
            }
        }
        Ok(dead)
    }

    fn forget_dead_leases(&self) -> Result<()> {
        let alive: Vec<String> = entries(&self.layout().ingest())?
            .iter()
            .filter_map(|path| path.file_name().and_then(|name| name.to_str()).map(str::to_owned))
            .collect();
        let action = "forget dead leases";
        // A lease's row is written after its directory was made, so a row that is there now and has
        // no directory among those listed before belongs to nobody, unless it is newer than the list.
        let now = self.clock().now();
        self.database().write(Durability::Process, action, |tx| {
            let mut statement = tx.prepare("SELECT id FROM lease WHERE created_at < ?1").db(action)?;
            let ids: Vec<String> = statement
                .query_map([now], |row| row.get(0))
                .db(action)?
                .collect::<rusqlite::Result<_>>()
                .db(action)?;
            for id in ids.iter().filter(|id| !alive.contains(id)) {
                tx.execute("DELETE FROM lease WHERE id = ?1", [id]).db(action)?;
            }
            Ok(())
        })
    }

    /// Moves blobs and trees without a row to the trash.
    fn discard_unnamed(&self) -> Result<usize> {
        let _claim = self.claim(&Key::Sweep)?;
        let mut discarded = 0;
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            for path in entries(&self.layout().blobs(algorithm))? {
                let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
                // Names that are no digest were not put there by a store; collection reports them.
                let Ok(digest) = Digest::from_hex(algorithm, name) else { continue };
                if self.blob(&digest)?.is_none() && self.move_to_trash(&path)?.is_some() {
                    discarded += 1;
                }
            }
        }
        if !self.live_mounts()?.is_empty() {
            return Ok(discarded);
        }
        for path in entries(&self.layout().overlay2())? {
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
            let Ok(id) = name.parse::<TreeId>() else { continue };
            if !self.has_tree(&id)? && self.move_to_trash(&path)?.is_some() {
                discarded += 1;
            }
        }
        Ok(discarded)
    }

    fn has_tree(&self, id: &TreeId) -> Result<bool> {
        self.database().read("look up a tree", |db| {
            db.prepare_cached("SELECT EXISTS (SELECT 1 FROM tree WHERE id = ?1)")
                .and_then(|mut statement| statement.query_row([id.as_str()], |row| row.get(0)))
                .db("look up a tree")
        })
    }
}

/// The paths in a directory.
pub(crate) fn entries(directory: &Path) -> Result<Vec<PathBuf>> {
    fs::read_dir(directory)
        .and_then(|entries| entries.map(|entry| entry.map(|entry| entry.path())).collect())
        .context("list", directory)
}
