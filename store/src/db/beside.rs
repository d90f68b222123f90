//! Reading most of a database, which may be large.

use std::panic::resume_unwind;
use std::thread;

use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use super::{BUSY_TIMEOUT, CACHE_KIBIBYTES, Database};
use crate::error::{DbContext as _, Result};

/// From how many pages on a second connection pays for itself: to open one takes half a millisecond.
const MANY_PAGES: i64 = 1 << 10;

/// Room for pages in between: who reads everything once needs none of them again.
const FEW_KIBIBYTES: i64 = 512;

impl Database {
    /// Runs both on one state of the database: `second` in a thread of its own if there is much to read, else after
    /// `first`.
    pub(crate) fn read_beside<A, B: Send>(
        &self,
        action: &'static str,
        first: impl FnOnce(&Connection) -> Result<A>,
        second: impl FnOnce(&Connection) -> Result<B> + Send,
    ) -> Result<(A, B)> {
        if self.looking.is_some() {
            // There are ways to look in which a second connection might see something else.
            return self.read(action, |db| Ok((first(db)?, second(db)?)));
        }
        let mut connection = self.lock();
        // Where any of this fails, everything takes longer, and that is all.
        let is_large = is_large(&connection);
        let other = if is_large { self.another().ok() } else { None };
        let before = other.as_ref().map(data_version);
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Deferred).db(action)?;
        // Only a statement that reads begins it.
        transaction.query_row("SELECT count(*) FROM feature", [], |_| Ok(())).db(action)?;
        let other = other.filter(|other| {
            // It tells whether anybody has committed since it was asked before; so nobody has between both beginnings.
            other.execute_batch("BEGIN").is_ok()
                && before.is_some_and(|before| is_same(before, data_version(other)))
        });
        let _cache = is_large.then(|| SmallCache::of(&transaction));
        let Some(other) = other else { return Ok((first(&transaction)?, second(&transaction)?)) };
        thread::scope(|scope| {
            let second = scope.spawn(move || second(&other));
            let first = first(&transaction);
            let second = second.join().unwrap_or_else(|panic| resume_unwind(panic));
            Ok((first?, second?))
        })
    }

    /// As [`Database::read`], for who reads whole tables.
    pub(crate) fn read_all<T>(
        &self,
        action: &'static str,
        read: impl FnOnce(&Connection) -> Result<T>,
    ) -> Result<T> {
        self.read(action, |db| {
            let _cache = is_large(db).then(|| SmallCache::of(db));
            read(db)
        })
    }

    fn another(&self) -> rusqlite::Result<Connection> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
            | OpenFlags::SQLITE_OPEN_NO_MUTEX
            | OpenFlags::SQLITE_OPEN_EXRESCODE;
        let other = Connection::open_with_flags(self.layout.database(), flags)?;
        other.busy_timeout(BUSY_TIMEOUT)?;
        other.pragma_update(None, "cache_size", -FEW_KIBIBYTES)?;
        Ok(other)
    }
}

/// A connection's cache is small as long as this lives.
struct SmallCache<'a>(&'a Connection);

impl<'a> SmallCache<'a> {
    fn of(connection: &'a Connection) -> Self {
        connection.pragma_update(None, "cache_size", -FEW_KIBIBYTES).unwrap_or_default();
        Self(connection)
    }
}

impl Drop for SmallCache<'_> {
    fn drop(&mut self) {
        self.0.pragma_update(None, "cache_size", -CACHE_KIBIBYTES).unwrap_or_default();
    }
}

fn is_large(connection: &Connection) -> bool {
    connection
        .pragma_query_value(None, "page_count", |row| row.get(0))
        .is_ok_and(|pages: i64| pages >= MANY_PAGES)
}

fn data_version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, "data_version", |row| row.get(0))
}

fn is_same(before: rusqlite::Result<i64>, after: rusqlite::Result<i64>) -> bool {
    matches!((before, after), (Ok(before), Ok(after)) if before == after)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;
    use std::sync::atomic::Ordering::Relaxed;

    use super::*;
    use crate::{Store, Surroundings};

    /// A large database, and a statement that counts something in it.
    fn large() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("store"), Surroundings::default()).unwrap();
        let fill = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000) \
                    INSERT INTO meta SELECT i, zeroblob(8000) || '' FROM n";
        store.database().lock().execute_batch(fill).unwrap();
        assert!(is_large(&store.database().lock()));
        (dir, store)
    }

    fn count(connection: &Connection) -> Result<i64> {
        connection.query_row("SELECT count(*) FROM meta", [], |row| row.get(0)).db("count")
    }

    #[test]
    fn a_large_database_is_read_by_two_threads() {
        let (_dir, store) = large();
        let thread = |connection: &Connection| Ok((count(connection)?, thread::current().id()));
        let (first, second) = store.database().read_beside("test", thread, thread).unwrap();
        assert_eq!(first.0, second.0);
        assert_ne!(first.1, second.1);
    }

    #[test]
    fn both_see_the_same_while_others_write() {
        let (dir, store) = large();
        let other = Store::open(&dir.path().join("store"), Surroundings::default()).unwrap();
        let ended = AtomicBool::new(false);
        let counts: Result<Vec<_>> = thread::scope(|scope| {
            scope.spawn(|| {
                for serial in (0..).take_while(|_| !ended.load(Relaxed)) {
                    let insert = format!("INSERT INTO meta VALUES ('more-{serial}', '')");
                    other.database().lock().execute_batch(&insert).unwrap();
                }
            });
            let thread = |connection: &Connection| Ok((count(connection)?, thread::current().id()));
            let counts = (0..200).map(|_| store.database().read_beside("test", thread, thread)).collect();
            ended.store(true, Relaxed);
            counts
        });
        let counts = counts.unwrap();
        assert!(counts.iter().all(|(first, second)| first.0 == second.0));
        assert!(counts.iter().any(|(first, second)| first.1 != second.1), "never in two threads");
    }

    #[test]
    fn what_is_written_by_the_own_connection_is_seen_by_both() {
        let (_dir, store) = large();
        let before = store.database().read_beside("test", count, count).unwrap();
        store.database().lock().execute_batch("INSERT INTO meta VALUES ('one more', '')").unwrap();
        let after = store.database().read_beside("test", count, count).unwrap();
        assert_eq!(after, (before.0 + 1, before.1 + 1));
    }
}
