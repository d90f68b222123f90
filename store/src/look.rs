//! Looking at a store whose filesystem is read-only, be it that the kernel has made it so after an error.
//!
//! SQLite reads a database in WAL mode without writing anything if `-wal` and `-shm` are there
//! (<https://www.sqlite.org/wal.html#read_only_databases>): with the index that others share while they have it open, or with
//! one of its own in memory. A store leaves both files behind ([`crate::log_files`]), but a copy, or what a power cut has
//! left, may be without them. Then what is in the log decides: nothing, and the database is read as it is; something, and
//! it is read only if nobody else can write to the filesystem. What is committed is seen in any case, or nothing is.

use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::{Connection, OpenFlags, ffi};
use rustix::fs::{Access, access, major, minor};
use rustix::io::Errno;

use crate::error::{DbContext as _, Error, IoContext as _, Result};
use crate::layout::Layout;

/// The header of a log, behind which its first transaction is: <https://www.sqlite.org/fileformat2.html#walformat>.
const LOG_HEADER: u64 = 32;

/// How long somebody who has just opened the database may take to make the index of its log.
const PATIENCE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(5);

/// Whether the filesystem says that it is read-only.
///
/// A file is opened to find out: ext4 that has met an error lets nobody do that, and yet looks writable to `statvfs` and
/// `access` (Linux 6.12 and later). Who may not write for another reason is told so elsewhere.
pub(crate) fn is_read_only(layout: &Layout) -> bool {
    match OpenOptions::new().write(true).open(layout.locks()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            access(layout.root(), Access::WRITE_OK) == Err(Errno::ROFS)
        }
        Err(error) => is_refused(&error),
        Ok(_) => false,
    }
}

/// Whether an error says that the filesystem is read-only.
pub(crate) fn is_refused(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::ROFS.raw_os_error())
}

/// Opens what locks are taken on, for reading: enough for locks that are shared.
pub(crate) fn open_locks(layout: &Layout) -> io::Result<File> {
    match File::open(layout.locks()) {
        // In an incomplete copy. Nobody writes there, so nobody holds a lock.
        Err(error) if error.kind() == io::ErrorKind::NotFound => File::open(layout.root()),
        opened => opened,
    }
}

/// What each reading of the database has to mind.
#[derive(Debug)]
pub(crate) struct Looking {
    root: PathBuf,
    /// What the files were like when they were found to need no log.
    settled: Option<Files>,
}

/// The database and its log, as far as anybody who writes changes that.
#[derive(Debug, PartialEq, Eq)]
struct Files {
    paths: [PathBuf; 2],
    seen: [Option<Seen>; 2],
}

#[derive(Debug, PartialEq, Eq)]
struct Seen {
    inode: u64,
    length: u64,
    changed: (i64, i64),
}

impl Files {
    fn look(paths: [PathBuf; 2]) -> Result<Self> {
        let see = |path: &PathBuf| match fs::metadata(path) {
            Ok(meta) => Ok(Some(Seen {
                inode: meta.ino(),
                length: meta.len(),
                changed: (meta.ctime(), meta.ctime_nsec()),
            })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).context("examine", path),
        };
        let seen = [see(&paths[0])?, see(&paths[1])?];
        Ok(Self { paths, seen })
    }

    fn has_log(&self) -> bool {
        self.seen[1].is_some()
    }

    /// Whether nothing is in the log.
    fn is_settled(&self) -> bool {
        self.seen[1].as_ref().is_none_or(|log| log.length <= LOG_HEADER)
    }
}

/// Connects to the database without writing anything.
pub(crate) fn connect(layout: &Layout) -> Result<(Connection, Looking)> {
    let (root, path) = (layout.root().to_owned(), layout.database());
    let files = Files::look([path.clone(), path.with_extension("db-wal")])?;
    if files.seen[0].is_none() {
        return Err(Error::Unreadable { root, reason: "there is no database yet" });
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
        | OpenFlags::SQLITE_OPEN_URI
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
        | OpenFlags::SQLITE_OPEN_EXRESCODE;
    let open = |parameters: &str| Connection::open_with_flags(uri(&path, parameters), flags);
    let has_index = path.with_extension("db-shm").exists();
    let mut settled = None;
    let connection = if has_index && files.has_log() {
        open("")
    } else if files.is_settled() {
        settled = Some(files);
        open("?immutable=1")
    } else if nobody_writes(&root) {
        // With no locks, whoever has the database for itself keeps the index in its own memory.
        open("?vfs=unix-none").and_then(|connection| {
            connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
            Ok(connection)
        })
    } else {
        let reason = "layerstore.db-wal has transactions, and layerstore.db-shm is missing";
        return Err(Error::Unreadable { root, reason });
    };
    Ok((connection.db("open a connection")?, Looking { root, settled }))
}

/// Fixes the state that a transaction reads.
pub(crate) fn begin(transaction: &Connection) -> Result<()> {
    let start = Instant::now();
    loop {
        let found = transaction.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()));
        match found {
            Err(error) if is_not_ready(&error) && start.elapsed() < PATIENCE => thread::sleep(PAUSE),
            other => return other.db("begin to read"),
        }
    }
}

impl Looking {
    /// Checks that what has been read was one state.
    pub(crate) fn end(&self) -> Result<()> {
        let Some(before) = &self.settled else { return Ok(()) };
        if Files::look(before.paths.clone())? == *before {
            return Ok(());
        }
        Err(Error::Unreadable {
            root: self.root.clone(),
            reason: "it was written to from elsewhere meanwhile",
        })
    }
}

/// Whether somebody has just opened the database and is to make the index of its log, which who only looks cannot do.
fn is_not_ready(error: &rusqlite::Error) -> bool {
    error.sqlite_error().is_some_and(|error| {
        matches!(
            error.extended_code,
            ffi::SQLITE_READONLY_RECOVERY | ffi::SQLITE_READONLY_CANTLOCK | ffi::SQLITE_READONLY_CANTINIT
        )
    })
}

/// A file's name as SQLite takes it: <https://www.sqlite.org/uri.html>.
fn uri(path: &Path, parameters: &str) -> String {
    let mut uri = "file:".to_owned();
    for byte in path.as_os_str().as_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'-' | b'_' | b'.' => {
                uri.push(char::from(*byte));
            }
            // Writing to a string does not fail.
            _ => write!(uri, "%{byte:02X}").unwrap_or_default(),
        }
    }
    uri + parameters
}

/// Whether the filesystem itself is read-only, and not only the mount that the path is seen through. Where that cannot be
/// told it is not.
fn nobody_writes(root: &Path) -> bool {
    let Ok(device) = rustix::fs::stat(root).map(|stat| stat.st_dev) else { return false };
    let Ok(table) = fs::read("/proc/self/mountinfo") else { return false };
    shows_read_only(&String::from_utf8_lossy(&table), &format!("{}:{}", major(device), minor(device)))
}

/// Fields as in proc(5): the third is the device; the third behind `-` has what holds for all mounts of the filesystem.
fn shows_read_only(table: &str, device: &str) -> bool {
    table.lines().filter(|line| line.split(' ').nth(2) == Some(device)).any(|line| {
        let options = line.split_once(" - ").and_then(|(_, rest)| rest.split(' ').nth(2));
        options
            .is_some_and(|options| options.split(',').any(|option| matches!(option, "ro" | "emergency_ro")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filesystem_is_read_only_if_all_its_mounts_are() {
        let table = "\
43 27 7:1 / /m ro,relatime - ext4 /dev/loop1 rw,errors=remount-ro
44 27 7:2 / /n rw,relatime shared:5 - ext4 /dev/loop2 rw,errors=remount-ro,emergency_ro
45 27 7:3 / /o rw,relatime - ext4 /dev/loop3 ro
";
        let read_only = ["7:1", "7:2", "7:3", "7:4"].map(|device| shows_read_only(table, device));
        assert_eq!(read_only, [false, true, true, false]);
    }

    #[test]
    fn a_path_stays_what_it_is_in_a_uri() {
        assert_eq!(
            uri(Path::new("/a b/%41?x#y.db"), "?immutable=1"),
            "file:/a%20b/%2541%3Fx%23y.db?immutable=1"
        );
    }

    #[test]
    fn who_reads_without_the_log_hears_of_a_change() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path().to_owned());
        let writer = Connection::open(layout.database()).unwrap();
        writer.execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE t (x)").unwrap();
        drop(writer);
        let (connection, looking) = connect(&layout).unwrap();
        begin(&connection).unwrap();
        looking.end().unwrap();
        let writer = Connection::open(layout.database()).unwrap();
        writer.execute_batch("INSERT INTO t VALUES (1)").unwrap();
        assert!(matches!(looking.end(), Err(Error::Unreadable { .. })));
    }

    #[test]
    fn a_log_without_its_index_is_not_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path().join("store"));
        fs::create_dir(layout.root()).unwrap();
        let original = dir.path().join("original.db");
        let writer = Connection::open(&original).unwrap();
        writer.execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE t (x)").unwrap();
        fs::copy(&original, layout.database()).unwrap();
        fs::copy(original.with_extension("db-wal"), layout.database().with_extension("db-wal")).unwrap();
        assert!(matches!(connect(&layout), Err(Error::Unreadable { .. })), "this filesystem can be written");
    }
}
