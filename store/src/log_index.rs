//! Space for the index of SQLite's log, `layerstore.db-shm`, on filesystems with blocks smaller than 4 KiB.
//!
//! SQLite makes the file anew when nobody else has it, with a byte written in each 4 KiB, maps it, and writes to the memory.
//! Where that takes a block that is not there, and the disk is full, the kernel kills the process. So the file gets all its
//! blocks before SQLite comes, and keeps them: who holds a shared lock on the byte that SQLite calls the "dead man switch"
//! is for it somebody who has the file already. Who has that lock alone does what SQLite would do, and empties the index:
//! here by zeros, for which no header has ever been valid. SQLite then reads the log, as after any crash.
//!
//! SQLite's own locks on the file belong to the process, and end when the process closes any descriptor of it. So this
//! happens on a thread that has descriptors of its own.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::mpsc;
use std::thread;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use rustix::fs::{FallocateFlags, fallocate, statvfs};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use crate::error::{IoContext as _, Result};
use crate::layout::Layout;
use crate::lock::{Mode, byte};

/// What is allocated: two regions of SQLite's, for a log of more than 30 MiB.
const INDEX: u64 = 64 << 10;
/// Of the pages in which SQLite allocates the file.
const PAGE: usize = 4096;
/// `UNIX_SHM_DMS` in SQLite's `os_unix.c`, part of what all its versions agree on: behind a header that exists twice,
/// information for checkpoints, and eight locks (<https://www.sqlite.org/walformat.html#wal_locks>).
const DEAD_MAN_SWITCH: i64 = 128;

/// Opens the database with `open`, if there is space for the index, or nobody needs to ask.
pub(crate) fn with_space<T>(layout: &Layout, open: impl FnOnce() -> Result<T>) -> Result<T> {
    if statvfs(layout.root()).map_or(true, |space| space.f_frsize >= PAGE as u64) {
        return open();
    }
    let path = layout.database().with_extension("db-shm");
    thread::scope(|scope| {
        let (tell, told) = mpsc::channel();
        let (opened, wait) = mpsc::channel::<()>();
        let place = path.clone();
        scope.spawn(move || {
            let held = hold(&place);
            let (held, result) = match held {
                Ok(file) => (Some(file), Ok(())),
                Err(error) => (None, Err(error)),
            };
            // Nobody is there to be told, or to wait for, if opening has panicked.
            tell.send(result).unwrap_or_default();
            // Until SQLite has a lock of its own.
            wait.recv().unwrap_or_default();
            drop(held);
        });
        match told.recv() {
            Ok(Err(error)) if is_full(&error) => return Err(error).context("allocate", &path),
            Ok(Err(error)) => tracing::info!(%error, "the index of the log is not allocated"),
            Ok(Ok(())) | Err(_) => {}
        }
        let result = open();
        drop(opened);
        result
    })
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Makes the file whole, and holds it as one of those who use it.
fn hold(path: &Path) -> io::Result<File> {
    // SAFETY: this thread has just begun, and uses no descriptor but those that it opens from here on.
    #[expect(unsafe_code, reason = "unshare is unsafe for the sake of CLONE_FILES, which is what is wanted")]
    unsafe {
        unshare_unsafe(UnshareFlags::FILES)?;
    }
    make_whole(path)
}

fn make_whole(path: &Path) -> io::Result<File> {
    let file =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
    let (alone, shared) = (byte(DEAD_MAN_SWITCH, Mode::Exclusive), byte(DEAD_MAN_SWITCH, Mode::Shared));
    match fcntl(&file, FcntlArg::F_OFD_SETLK(&alone)) {
        Ok(_) => {
            // What is allocated already is not allocated again.
            for start in (0..INDEX).step_by(PAGE) {
                file.write_all_at(&[0; PAGE], start)?;
            }
            file.set_len(INDEX)?;
        }
        Err(Errno::EAGAIN | Errno::EACCES) => {}
        Err(errno) => return Err(errno.into()),
    }
    while let Err(errno) = fcntl(&file, FcntlArg::F_OFD_SETLKW(&shared)) {
        if errno != Errno::EINTR {
            return Err(errno.into());
        }
    }
    match fallocate(&file, FallocateFlags::empty(), 0, INDEX) {
        // A filesystem that cannot has its blocks by what was written, unless somebody else has made the file.
        Ok(()) | Err(rustix::io::Errno::OPNOTSUPP) => Ok(file),
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use rusqlite::Connection;

    use super::*;

    fn count(db: &Connection) -> i64 {
        db.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).unwrap()
    }

    #[test]
    fn sqlite_takes_the_index_as_it_is_and_reads_the_log() {
        let dir = tempfile::tempdir().unwrap();
        let [first, copy] = ["first.db", "copy.db"].map(|name| dir.path().join(name));
        let one = Connection::open(&first).unwrap();
        one.execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE t (x); INSERT INTO t VALUES (1)").unwrap();
        // As after a kill, with an index that says something else.
        std::fs::copy(&first, &copy).unwrap();
        std::fs::copy(first.with_extension("db-wal"), copy.with_extension("db-wal")).unwrap();
        let index = copy.with_extension("db-shm");
        std::fs::write(&index, vec![7; 200_000]).unwrap();
        let held = make_whole(&index).unwrap();
        let inode = std::fs::metadata(&index).unwrap().ino();
        let two = Connection::open(&copy).unwrap();
        assert_eq!(count(&two), 1);
        let found = std::fs::metadata(&index).unwrap();
        assert_eq!((found.ino(), found.len()), (inode, INDEX), "SQLite has not made it anew");
        // Somebody uses it: it stays as it is.
        thread::scope(|scope| scope.spawn(|| drop(hold(&index).unwrap())).join().unwrap());
        two.execute_batch("INSERT INTO t VALUES (2)").unwrap();
        let three = Connection::open(&copy).unwrap();
        assert_eq!((count(&two), count(&three)), (2, 2));
        drop(held);
    }

    #[test]
    fn a_thread_that_lets_go_of_the_index_takes_no_lock_of_sqlite_along() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("some.db");
        let db = Connection::open(&path).unwrap();
        db.execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE t (x)").unwrap();
        let index = path.with_extension("db-shm");
        thread::scope(|scope| scope.spawn(|| drop(hold(&index).unwrap())).join().unwrap());
        let alone = byte(DEAD_MAN_SWITCH, Mode::Exclusive);
        let held = thread::scope(|scope| {
            let look = || {
                let held = hold(&index).unwrap();
                fcntl(&held, FcntlArg::F_OFD_SETLK(&alone))
            };
            scope.spawn(look).join().unwrap()
        });
        assert_eq!(held, Err(Errno::EAGAIN), "SQLite still has its own");
    }
}
