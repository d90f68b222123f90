//! What killed sessions and power cuts left behind, and the trash.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use layerstore_oci::{Algorithm, Digest};
use rustix::fs::CWD;

use crate::db::Durability;
use crate::error::{DbContext as _, IoContext as _, Result};
use crate::layout::{TreeId, random_name};
use crate::lock::Key;
use crate::remove::unlock;
use crate::session;
use crate::store::Store;
use crate::unknown::{PORTION, Sorter};

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
    /// Files that no row names come from a session that died, or lost its row to a power cut, so they
    /// are looked for only after one of the two.
    pub fn recover(&self) -> Result<Recovered> {
        let dead = self.dead_sessions()?;
        if dead.is_empty() && self.recovered_in_this_boot()? {
            return Ok(Recovered::default());
        }
        self.discard_leftovers(&dead)
    }

    /// The same, but looks for files that no row names in any case: a killed removal leaves them too.
    pub fn recover_all(&self) -> Result<Recovered> {
        self.discard_leftovers(&self.dead_sessions()?)
    }

    /// The directories of dead sessions go last, so that whoever comes after a kill in here still finds
    /// a reason to look.
    fn discard_leftovers(&self, dead: &[PathBuf]) -> Result<Recovered> {
        let unrecorded = self.discard_unnamed()?;
        self.forget_dead_leases(dead)?;
        self.record_boot()?;
        let mut sessions = 0;
        for directory in dead {
            sessions += usize::from(self.move_to_trash(directory)?.is_some());
        }
        Ok(Recovered { sessions, unrecorded })
    }

    fn recovered_in_this_boot(&self) -> Result<bool> {
        let action = "read the last boot";
        let query = "SELECT EXISTS (SELECT 1 FROM meta WHERE key = ?1 AND value = ?2)";
        self.database().read(action, |db| {
            db.query_row(query, (LAST_BOOT, &self.life().boot), |row| row.get(0)).db(action)
        })
    }

    fn record_boot(&self) -> Result<()> {
        if self.recovered_in_this_boot()? {
            return Ok(());
        }
        let action = "record the boot";
        self.database().write(Durability::Process, action, |tx| {
            tx.execute(
                "INSERT OR REPLACE INTO meta (key, value) VALUES (?1, ?2)",
                (LAST_BOOT, &self.life().boot),
            )
            .db(action)?;
            Ok(())
        })
    }

    /// Moves `path` out of sight in one step. Returns where it is now, or `None` if it was not there.
    pub(crate) fn move_to_trash(&self, path: &Path) -> Result<Option<PathBuf>> {
        let trashed = self.layout().trash().join(random_name());
        let renamed = match fs::rename(path, &trashed) {
            Err(error)
                if error.kind() == io::ErrorKind::PermissionDenied
                    && rustix::process::geteuid().is_root() =>
            {
                // It may be immutable, as containers can make their files: root takes that back.
                unlock(CWD, path).map_or(Err(error), |()| fs::rename(path, &trashed))
            }
            other => other,
        };
        match renamed {
            Ok(()) => Ok(Some(trashed)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).context("move to the trash", path),
        }
    }

    pub(crate) fn dead_sessions(&self) -> Result<Vec<PathBuf>> {
        let mut directories = entries(&self.layout().ingest())?;
        if directories.is_empty() {
            return Ok(directories);
        }
        let _claim = self.claim(&Key::Sessions)?;
        let mut error = None;
        directories.retain(|directory| {
            session::is_dead(directory).unwrap_or_else(|e| {
                error.get_or_insert(e);
                false
            })
        });
        error.map_or(Ok(directories), Err)
    }

    /// Leases that nobody holds any more.
    ///
    /// A lease's row is written after its directory was made, and deleted before it is removed: a row
    /// that was there before the directories were listed, and has none, belongs to nobody.
    pub(crate) fn dead_leases(&self, dead: &[PathBuf]) -> Result<Vec<String>> {
        let action = "look for dead leases";
        let mut ids: Vec<String> = self.database().read(action, |db| {
            let mut statement = db
                .prepare_cached("SELECT id FROM lease WHERE expires_at IS NULL OR expires_at <= ?1")
                .db(action)?;
            let ids = statement.query_map([self.clock().now()], |row| row.get(0)).db(action)?;
            ids.collect::<rusqlite::Result<_>>().db(action)
        })?;
        if ids.is_empty() {
            return Ok(ids);
        }
        let directories = entries(&self.layout().ingest())?;
        ids.retain(|id| {
            let directory = self.layout().ingest().join(id);
            dead.contains(&directory) || !directories.contains(&directory)
        });
        Ok(ids)
    }

    fn forget_dead_leases(&self, dead: &[PathBuf]) -> Result<()> {
        let action = "forget dead leases";
        let ids = self.dead_leases(dead)?;
        if ids.is_empty() {
            return Ok(());
        }
        self.database().write(Durability::Process, action, |tx| {
            for id in &ids {
                tx.execute("DELETE FROM lease WHERE id = ?1", [id]).db(action)?;
            }
            Ok(())
        })
    }

    /// Moves blobs and trees without a row to the trash. Names that no store gives stay until somebody has looked at them.
    fn discard_unnamed(&self) -> Result<usize> {
        // Listed before it is asked what has rows, so that hardly anything that is being published is among them.
        let mut blobs = Vec::new();
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            for path in entries(&self.layout().blobs(algorithm))? {
                let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
                // Names that are no digest were not put there by a store.
                blobs.extend(Digest::from_hex(algorithm, name).ok().map(|digest| (path, digest)));
            }
        }
        let mut trees = Vec::new();
        for path in entries(&self.layout().overlay2())? {
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
            trees.extend(name.parse::<TreeId>().ok().map(|id| (path, id)));
        }
        let rows = self.rows()?;
        blobs.retain(|(_, digest)| !rows.blobs.contains(digest));
        trees.retain(|(_, id)| !rows.trees.contains(id));
        let mut discarded = 0;
        // Whoever publishes waits for no more than a portion.
        for portion in blobs.chunks(PORTION) {
            let _claim = self.claim(&Key::Sweep)?;
            let mut sorter = Sorter::new(self)?;
            for (path, digest) in portion {
                discarded += usize::from(sorter.blob(path, digest)?.is_trashed());
            }
        }
        for portion in trees.chunks(PORTION) {
            let _claim = self.claim(&Key::Sweep)?;
            let mut sorter = Sorter::new(self)?;
            for (path, id) in portion {
                discarded += usize::from(sorter.tree(path, id)?.is_trashed());
            }
        }
        Ok(discarded)
    }

    /// Whether a pull is under way, or was interrupted and is to be gone on with.
    pub fn has_lasting_lease(&self) -> Result<bool> {
        let action = "look for interrupted pulls";
        self.database().read(action, |db| {
            db.prepare_cached("SELECT EXISTS (SELECT 1 FROM lease WHERE expires_at > ?1)")
                .and_then(|mut statement| statement.query_row([self.clock().now()], |row| row.get(0)))
                .db(action)
        })
    }

    pub(crate) fn has_tree(&self, id: &TreeId) -> Result<bool> {
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
