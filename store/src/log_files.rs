//! The files of SQLite's log, `layerstore.db-wal` and `-shm`, which stay when nobody has the database open.
//!
//! SQLite deletes them when the last connection is closed, and the next one makes them anew. On a full disk there may be
//! no space for them, or no inode; and whoever fills it up takes what [`crate::reserve`] gives up before the next command
//! comes. Files that are there are overwritten in their place.

use std::ffi::c_int;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::MetadataExt as _;

use rusqlite::{Connection, ffi};
use rustix::fs::{FallocateFlags, fallocate};

use crate::layout::Layout;
use crate::reserve;

/// Bytes that the log has at least: some transactions that remove images.
const LEAST: u64 = 512 << 10;
/// Bytes from which on it does not stay. SQLite begins it anew when it has 4 MiB, unless somebody reads for long.
const MOST: u64 = 16 << 20;

/// Lets the files stay when `connection` is the last that is closed. Where that does not work, they are deleted as ever.
pub(crate) fn keep(connection: &Connection, layout: &Layout) {
    let path = layout.database().with_extension("db-wal");
    let Ok(meta) = fs::metadata(&path) else { return };
    if meta.len() > MOST && reserve::is_plenty(layout) {
        // It is cut off when the last connection is closed.
        connection.pragma_update(None, "journal_size_limit", 0).unwrap_or_default();
    }
    let mut wanted: c_int = 1;
    // SAFETY: the handle is that of an open connection, and is not used after this call; the name is a C string that
    // lasts; for this operation SQLite reads and writes one `int`.
    #[expect(unsafe_code, reason = "rusqlite has no name for this")]
    unsafe {
        ffi::sqlite3_file_control(
            connection.handle(),
            c"main".as_ptr(),
            ffi::SQLITE_FCNTL_PERSIST_WAL,
            (&raw mut wanted).cast(),
        );
    }
    if meta.blocks() * 512 < LEAST && reserve::is_plenty(layout) {
        // SQLite has no locks on this file, which closing it would end. Its length stays; so nothing is read from it.
        let file = OpenOptions::new().write(true).open(&path);
        drop(file.map(|file| fallocate(&file, FallocateFlags::KEEP_SIZE, 0, LEAST)));
    }
}
