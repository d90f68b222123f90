//! The files of SQLite's log, `layerstore.db-wal` and `-shm`, which stay when nobody has the database open.
//!
//! SQLite deletes them when the last connection is closed, and the next one makes them anew. On a full disk there may be
//! no space for them, or no inode; and whoever fills it up takes what [`crate::reserve`] gives up before the next command
//! comes. So they stay, and the log keeps its space. It is empty then: a log with something in it would be taken for that
//! of whatever database is put in its place, such as an older copy.

use std::ffi::c_int;
use std::fs::OpenOptions;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use rusqlite::{Connection, ffi};
use rustix::fs::{FallocateFlags, fallocate};

use crate::layout::Layout;
use crate::reserve;

/// Bytes that the log has at least: some transactions that remove images.
const LEAST: u64 = 512 << 10;

/// Gives the log its space when this is dropped, which is to be after the connection.
#[derive(Debug)]
pub(crate) struct LogFiles {
    path: PathBuf,
}

impl LogFiles {
    /// Lets the files stay when `connection` is the last that is closed. Where that does not work, they are deleted as
    /// ever.
    pub(crate) fn keep(connection: &Connection, layout: &Layout) -> Self {
        // With a limit, whatever it is, SQLite empties the log that stays.
        connection.pragma_update(None, "journal_size_limit", LEAST).unwrap_or_default();
        let mut wanted: c_int = 1;
        // SAFETY: the handle is that of an open connection, and is not used after this call; the name is a C string
        // that lasts; for this operation SQLite reads and writes one `int`.
        #[expect(unsafe_code, reason = "rusqlite has no name for this")]
        unsafe {
            ffi::sqlite3_file_control(
                connection.handle(),
                c"main".as_ptr(),
                ffi::SQLITE_FCNTL_PERSIST_WAL,
                (&raw mut wanted).cast(),
            );
        }
        let files = Self { path: layout.database().with_extension("db-wal") };
        if reserve::is_plenty(layout) {
            files.allocate();
        }
        files
    }

    /// The file's length stays as it is; so nobody takes what is not written yet for a part of the log.
    fn allocate(&self) {
        // SQLite has no locks on this file, which closing it would end.
        let Ok(file) = OpenOptions::new().write(true).open(&self.path) else { return };
        if file.metadata().is_ok_and(|meta| meta.blocks() * 512 < LEAST) {
            fallocate(&file, FallocateFlags::KEEP_SIZE, 0, LEAST).unwrap_or_default();
        }
    }
}

impl Drop for LogFiles {
    fn drop(&mut self) {
        // Also on a full disk: this is what emptying has just given back.
        self.allocate();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{LOCAL, Store, Surroundings};
    use std::fs;

    #[test]
    fn the_log_that_stays_is_empty_and_has_space() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("store");
        let store = Store::open(&root, Surroundings::default()).unwrap();
        drop(store.session(LOCAL).unwrap());
        drop(store);
        let log = fs::metadata(root.join("layerstore.db-wal")).unwrap();
        assert_eq!(log.len(), 0);
        if reserve::is_plenty(&Layout::new(root.clone())) {
            assert!(log.blocks() * 512 >= LEAST, "{} blocks", log.blocks());
        }
        assert!(root.join("layerstore.db-shm").exists());
    }

    #[test]
    fn an_older_copy_of_the_database_is_not_changed_by_the_log() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("store");
        let open = || Store::open(&root, Surroundings::default()).unwrap();
        let database = root.join("layerstore.db");
        drop(open());
        let copy = fs::read(&database).unwrap();
        let store = open();
        let action = "test";
        let write = |tx: &rusqlite::Transaction<'_>| {
            tx.execute("INSERT INTO meta VALUES ('test', 'x')", []).unwrap();
            Ok(())
        };
        store.database().write(crate::db::Durability::Power, action, write).unwrap();
        drop(store);
        fs::write(&database, copy).unwrap();
        let count = |db: &Connection| {
            Ok(db
                .query_row("SELECT count(*) FROM meta WHERE key = 'test'", [], |row| row.get::<_, i64>(0))
                .unwrap())
        };
        assert_eq!(open().database().read(action, count).unwrap(), 0);
    }
}
