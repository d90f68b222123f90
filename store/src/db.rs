//! The database: opening, migrating, transactions.
//!
//! SQLite in WAL mode, so that readers never wait for a writer. Every writer begins with
//! `BEGIN IMMEDIATE` and a busy timeout, so that no statement fails in mid-transaction because
//! another process writes. Nothing here may open or close the database file by other means than
//! SQLite: POSIX locks of a process vanish at *any* close of the file.

mod beside;

use std::cell::Cell;
use std::fs::File;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};

use crate::disk::Durable;
use crate::error::{DbContext as _, Error, Result};
use crate::layout::Layout;
use crate::lock::{Claim, Key, Mode};
use crate::log_files::LogFiles;
use crate::look::{self, Looking};
use crate::reserve;
use crate::schema::{APPLICATION_ID, KNOWN_FEATURES, MIGRATIONS};

/// How long a statement waits for the write lock. Write transactions take milliseconds; a wait of
/// this length means that another process hangs.
const BUSY_TIMEOUT: Duration = Duration::from_mins(2);

/// How much of the database a process keeps in memory at most. With SQLite's own 2 MiB, looking ten thousand layers up
/// reads every page several times.
const CACHE_KIBIBYTES: i64 = 16 << 10;

/// What a commit promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Durability {
    /// Survives the death of the process. A power cut may undo it.
    Process,
    /// Survives a power cut: what a command acknowledges.
    Power,
}

thread_local! {
    static IN_WRITE_TRANSACTION: Cell<bool> = const { Cell::new(false) };
}

/// Checks, in debug builds, that no file is touched while other processes wait for the database.
pub(crate) fn assert_outside_write_transaction() {
    debug_assert!(!IN_WRITE_TRANSACTION.get(), "file operation inside a write transaction");
}

struct InWriteTransaction;

impl InWriteTransaction {
    fn enter() -> Self {
        debug_assert!(!IN_WRITE_TRANSACTION.get(), "write transactions do not nest");
        IN_WRITE_TRANSACTION.set(true);
        Self
    }
}

impl Drop for InWriteTransaction {
    fn drop(&mut self) {
        IN_WRITE_TRANSACTION.set(false);
    }
}

/// The process's one connection.
#[derive(Debug)]
pub(crate) struct Database {
    connection: Mutex<Connection>,
    durable: Durable,
    layout: Layout,
    /// Of a store that cannot be written.
    looking: Option<Looking>,
    /// After the connection, which is closed before.
    _log: Option<LogFiles>,
}

impl Database {
    /// Opens the database, creates or migrates it where needed.
    pub(crate) fn open(layout: &Layout, durable: Durable) -> Result<Self> {
        let path = layout.database();
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_CREATE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX
            | OpenFlags::SQLITE_OPEN_EXRESCODE;
        let mut connection = Connection::open_with_flags(&path, flags).db("open a connection")?;
        connection.set_prepared_statement_cache_capacity(64);
        connection.busy_timeout(BUSY_TIMEOUT).db("set the busy timeout")?;
        let known = i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX);
        // Switching to WAL fails while anybody reads, and does not wait; and many may meet an empty
        // store at once.
        let found = {
            let _claim = Claim::acquire(layout, "", &Key::Schema, Mode::Shared)?;
            version(&connection)?
        };
        if found != known {
            let _claim = Claim::acquire(layout, "", &Key::Schema, Mode::Exclusive)?;
            migrate(&mut connection, layout, &durable, known)?;
        }
        check_identity(&connection, &path)?;
        connection
            .execute_batch(
                "PRAGMA synchronous = NORMAL; PRAGMA foreign_keys = ON; PRAGMA temp_store = MEMORY;",
            )
            .and_then(|()| connection.pragma_update(None, "cache_size", -CACHE_KIBIBYTES))
            .db("configure the connection")?;
        check_features(&connection, layout.root())?;
        let log = Some(LogFiles::keep(&connection, layout));
        let (connection, layout) = (Mutex::new(connection), layout.clone());
        Ok(Self { connection, durable, layout, looking: None, _log: log })
    }

    /// Opens the database of a store that cannot be written, see [`crate::look`].
    pub(crate) fn look(layout: &Layout, durable: Durable) -> Result<Self> {
        let (connection, looking) = look::connect(layout)?;
        connection.set_prepared_statement_cache_capacity(64);
        connection.busy_timeout(BUSY_TIMEOUT).db("set the busy timeout")?;
        let (connection, looking) = (Mutex::new(connection), Some(looking));
        let database = Self { connection, durable, layout: layout.clone(), looking, _log: None };
        database.read("look at the format", |db| {
            db.pragma_update(None, "temp_store", "MEMORY")
                .and_then(|()| db.pragma_update(None, "cache_size", -CACHE_KIBIBYTES))
                .db("configure the connection")?;
            look_at_format(db, layout)
        })?;
        Ok(database)
    }

    /// What keeps others from aiming for a collision of locks.
    pub(crate) fn lock_salt(&self) -> Result<String> {
        let action = "read the salt of the locks";
        self.read(action, |db| {
            db.query_row("SELECT value FROM meta WHERE key = 'lock_salt'", [], |row| row.get(0)).db(action)
        })
    }

    fn lock(&self) -> MutexGuard<'_, Connection> {
        // A panic in a transaction rolls it back when the transaction is dropped.
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `read` on one consistent state of the database.
    pub(crate) fn read<T>(
        &self,
        action: &'static str,
        read: impl FnOnce(&Connection) -> Result<T>,
    ) -> Result<T> {
        let mut connection = self.lock();
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Deferred).db(action)?;
        let Some(looking) = &self.looking else { return read(&transaction) };
        look::begin(&transaction)?;
        let value = read(&transaction);
        looking.end()?;
        value
    }

    /// Runs `write` in one write transaction and commits it if it succeeds.
    ///
    /// `write` must not touch files, the network or other processes. After a failed sync, of files or
    /// of the database, everything is refused.
    pub(crate) fn write<T>(
        &self,
        durability: Durability,
        action: &'static str,
        write: impl FnOnce(&Transaction<'_>) -> Result<T>,
    ) -> Result<T> {
        self.durable.check()?;
        let mut connection = self.lock();
        let level = match durability {
            Durability::Process => "NORMAL",
            Durability::Power => "FULL",
        };
        connection.pragma_update(None, "synchronous", level).db(action)?;
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).db(action)?;
        let value = {
            let _inside = InWriteTransaction::enter();
            write(&transaction)?
        };
        if let Err(error) = transaction.commit() {
            if is_failed_sync(&error) {
                self.durable.poison();
            }
            let error = Err(error).db(action);
            if error.as_ref().is_err_and(Error::is_full_or_no_file) {
                // For the next attempt.
                reserve::give_up(&self.layout);
            }
            return error;
        }
        Ok(value)
    }
}

/// Whether SQLite could not sync. Earlier commits that were not synced yet may be lost with this one,
/// and a later sync that succeeds would not bring them back.
fn is_failed_sync(error: &rusqlite::Error) -> bool {
    use rusqlite::ffi::{SQLITE_IOERR_DIR_FSYNC, SQLITE_IOERR_FSYNC};
    error
        .sqlite_error()
        .is_some_and(|e| matches!(e.extended_code, SQLITE_IOERR_FSYNC | SQLITE_IOERR_DIR_FSYNC))
}

fn version(connection: &Connection) -> Result<i64> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0)).db("read the format version")
}

fn migrate(connection: &mut Connection, layout: &Layout, durable: &Durable, known: i64) -> Result<()> {
    let found = version(connection)?;
    if found != 0 {
        check_identity(connection, &layout.database())?;
    }
    if found > known {
        return Err(Error::NewerFormat { root: layout.root().to_owned(), found, known });
    }
    if found == 0 {
        let tables: i64 = connection
            .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
            .db("look for tables")?;
        if tables != 0 {
            return Err(Error::NotAStore { path: layout.database() });
        }
        connection.pragma_update(None, "journal_mode", "WAL").db("switch to WAL mode")?;
    }
    // Tables are made anew, and dropping the old one would take along what refers to it.
    connection.pragma_update(None, "foreign_keys", "OFF").db("prepare a migration")?;
    // Before the version tells that there is a store: who is killed up to here leaves it to the next.
    sync_names(layout, durable)?;
    let transaction =
        connection.transaction_with_behavior(TransactionBehavior::Exclusive).db("begin a migration")?;
    let done = usize::try_from(found).unwrap_or(0);
    for migration in MIGRATIONS.iter().skip(done) {
        transaction.execute_batch(migration).db("run a migration")?;
    }
    transaction.pragma_update(None, "application_id", APPLICATION_ID).db("mark the database")?;
    transaction.pragma_update(None, "user_version", known).db("set the format version")?;
    transaction.commit().db("commit a migration")
}

/// Makes durable the names of the database, of the root, and of the directories below it.
fn sync_names(layout: &Layout, durable: &Durable) -> Result<()> {
    for directory in [layout.root().join("blobs"), layout.root().to_owned()] {
        durable.sync_dir(&directory)?;
    }
    match layout.root().parent() {
        // Who may not read it cannot sync it either.
        Some(parent) if File::open(parent).is_ok() => durable.sync_dir(parent),
        _ => Ok(()),
    }
}

/// Refuses a database that is not one of this version.
fn look_at_format(connection: &Connection, layout: &Layout) -> Result<()> {
    let root = || layout.root().to_owned();
    let known = i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX);
    let found = version(connection)?;
    if found == 0 {
        return Err(Error::Unreadable { root: root(), reason: "there is nothing in its database yet" });
    }
    check_identity(connection, &layout.database())?;
    if found > known {
        return Err(Error::NewerFormat { root: root(), found, known });
    }
    if found < known {
        let reason = "its format is an earlier one and has to be converted";
        return Err(Error::Unreadable { root: root(), reason });
    }
    check_features(connection, layout.root())
}

fn check_identity(connection: &Connection, path: &Path) -> Result<()> {
    let id: i32 = connection
        .pragma_query_value(None, "application_id", |row| row.get(0))
        .db("read the application ID")?;
    if id == APPLICATION_ID { Ok(()) } else { Err(Error::NotAStore { path: path.to_owned() }) }
}

fn check_features(connection: &Connection, root: &Path) -> Result<()> {
    let mut statement = connection.prepare("SELECT name FROM feature").db("read the feature flags")?;
    let names = statement.query_map([], |row| row.get::<_, String>(0)).db("read the feature flags")?;
    for name in names {
        let feature = name.db("read the feature flags")?;
        if !KNOWN_FEATURES.contains(&feature.as_str()) {
            return Err(Error::UnknownFeature { root: root.to_owned(), feature });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Store, Subject, Surroundings};

    /// A store as each earlier version left it, with something mounted.
    #[test]
    fn stores_of_earlier_formats_are_taken_over() {
        for version in 1..MIGRATIONS.len() {
            let dir = tempfile::tempdir().unwrap();
            let root = dir.path().join("store");
            let store = Store::open(&root, Surroundings::default()).unwrap();
            let (boot, namespace) = (store.life().boot.clone(), store.namespace());
            drop(store);
            for name in ["layerstore.db", "layerstore.db-wal", "layerstore.db-shm"] {
                drop(std::fs::remove_file(root.join(name)));
            }
            let old = Connection::open(root.join("layerstore.db")).unwrap();
            old.pragma_update(None, "journal_mode", "WAL").unwrap();
            for script in &MIGRATIONS[..version] {
                old.execute_batch(script).unwrap();
            }
            let digest = layerstore_oci::Digest::sha256_of(b"x").to_string();
            old.execute("INSERT INTO blob (digest, size, created_at) VALUES (?1, 1, 2)", [&digest]).unwrap();
            old.execute(
                "INSERT INTO tree (id, diff_id, bytes, allocated, inodes, boot_id, mount_id, created_at) \
                 VALUES ('abcdefgh', ?1, 1, 2, 3, 'b', 4, 5)",
                [&digest],
            )
            .unwrap();
            old.execute(
                "INSERT INTO mount (target, namespace, manifest, boot_id, own_directory, created_at) \
                 VALUES (CAST('/x' AS BLOB), ?1, ?2, ?3, 0, 1)",
                (namespace, &digest, &boot),
            )
            .unwrap();
            old.execute("INSERT INTO mount_tree VALUES (CAST('/x' AS BLOB), ?1, 'abcdefgh')", [namespace])
                .unwrap();
            old.pragma_update(None, "application_id", APPLICATION_ID).unwrap();
            old.pragma_update(None, "user_version", i64::try_from(version).unwrap()).unwrap();
            drop(old);
            let store = Store::open(&root, Surroundings::default()).unwrap();
            let mounts = store.mounts().unwrap();
            assert_eq!(mounts.len(), 1);
            assert_eq!(mounts[0].subject, Subject::Image(digest.parse().unwrap()));
            assert_eq!(store.mounted_trees().unwrap().len(), 1, "what the mount keeps is still kept");
            let tree =
                store.tree(&digest.parse::<layerstore_oci::Digest>().unwrap().into()).unwrap().unwrap();
            assert_eq!(tree.usage.inodes, 3);
            assert!(store.unsettled(&[tree.id]).unwrap()[0].links.is_empty());
            store
                .database()
                .read("check", |db| {
                    let broken: i64 = db
                        .query_row("SELECT count(*) FROM pragma_foreign_key_check", [], |row| row.get(0))
                        .db("check")?;
                    assert_eq!(broken, 0);
                    Ok(())
                })
                .unwrap();
        }
    }
}
