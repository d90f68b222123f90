//! Unlinking so that nobody else notices.
//!
//! A million names take a minute or more, and each is a change of the filesystem's metadata. Two things hurt others: the
//! processor, which low priority leaves to them, and the journal. Whoever syncs a file waits until all changes that the
//! filesystem has collected are written, also ours, and that may be a second's worth. So there are never many of them:
//! after each portion this thread syncs by itself, and makes the portions as large as that stays short. Where others are at
//! work it also pauses, in proportion to what it has done.
//!
//! The kernel takes the priority of a thread's disk accesses from that of the thread (`ioprio_set(2)`). The idle class would
//! not get its turn, and who waits for the disk in the middle of a change of the filesystem keeps everybody from syncing.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;

use crate::error::{IoContext as _, Result};
use crate::recover::entries;
use crate::remove::remove_while;
use crate::store::Store;

/// So many names go at once, by whoever is there: a small tree is gone before anybody could notice.
const AT_ONCE: u32 = 2000;
/// How long a sync of a portion should take at most. Others wait for it, and then for their own.
const SYNC_GOAL: Duration = Duration::from_millis(15);
/// How long a portion may take: its changes hold up a sync that others begin meanwhile.
const PORTION_GOAL: Duration = Duration::from_millis(20);
/// These change a hundred blocks or so of the journal: less would not make a sync any faster.
const SMALLEST_PORTION: u32 = 1000;
const LARGEST_PORTION: u32 = 10_000;
/// Pauses while others are at work, as a multiple of the time of the portion, up to a limit: where the processor or the
/// disk is not to be had, that is a pause too.
const PAUSE: u32 = 2;
const LONGEST_PAUSE: Duration = Duration::from_millis(60);
/// For so long after a sign of them others count as being at work.
const AT_WORK: Duration = Duration::from_secs(1);

/// For who unlinks to the end.
static NEVER: AtomicBool = AtomicBool::new(false);

impl Store {
    /// Unlinks everything in the trash. What another process unlinks at the same time is waited for, not fought for, and
    /// what cannot be unlinked does not keep the rest. Returns how many names were there.
    ///
    /// Takes its time for large trees, so that other commands are not disturbed. A process that is killed meanwhile leaves
    /// what is left to the next.
    pub fn empty_trash(&self) -> Result<usize> {
        let names = entries(&self.layout().trash())?;
        let mut failed = None;
        let mut busy = Vec::new();
        for path in &names {
            match self.unlink_unless_locked(path, FlockOperation::NonBlockingLockExclusive, &NEVER) {
                Ok(true) => {}
                Ok(false) => busy.push(path),
                Err(error) => drop(failed.get_or_insert(error)),
            }
        }
        // Whoever was at them is done, or dead.
        for path in busy {
            if let Err(error) = self.unlink_unless_locked(path, FlockOperation::LockExclusive, &NEVER) {
                failed.get_or_insert(error);
            }
        }
        failed.map_or(Ok(names.len()), Err)
    }

    /// Unlinks what is in the trash beside other work, until that is done and says so. What another process unlinks is left to
    /// it, and what is left to the next.
    pub fn empty_trash_until(&self, done: &AtomicBool) -> Result<()> {
        for path in entries(&self.layout().trash())? {
            if done.load(Ordering::Relaxed) {
                break;
            }
            self.unlink_unless_locked(&path, FlockOperation::NonBlockingLockExclusive, done)?;
        }
        Ok(())
    }

    pub(crate) fn unlink_trashed(&self, path: &Path) -> Result<()> {
        self.unlink_unless_locked(path, FlockOperation::LockExclusive, &NEVER).map(drop)
    }

    /// Tells whether it was unlinked here; false if somebody else is at it.
    fn unlink_unless_locked(
        &self,
        path: &Path,
        operation: FlockOperation,
        done: &AtomicBool,
    ) -> Result<bool> {
        let flags = OFlags::NOFOLLOW | OFlags::DIRECTORY | OFlags::NONBLOCK;
        let opened =
            OpenOptions::new().read(true).custom_flags(i32::try_from(flags.bits()).unwrap_or(0)).open(path);
        // Held until it is gone. What is no directory, or closed to its owner, goes without.
        let _lock = match opened {
            Ok(directory) => match flock(&directory, operation) {
                Ok(()) => Some(directory),
                Err(Errno::WOULDBLOCK) => return Ok(false),
                Err(errno) => return Err(errno).context("lock", path),
            },
            Err(_) => None,
        };
        self.unlink_by_portions(path, done).context("delete", path).map(|()| true)
    }

    fn unlink_by_portions(&self, path: &Path, done: &AtomicBool) -> io::Result<()> {
        let trash = self.layout().trash();
        let mut left = AT_ONCE;
        let rest = remove_while(vec![path.to_owned()], &trash, &mut |_| {
            left -= 1;
            Ok(left > 0 && !done.load(Ordering::Relaxed))
        })?;
        if rest.is_empty() || done.load(Ordering::Relaxed) {
            return Ok(());
        }
        // On a thread of its own, since not everybody may take the priority of theirs back.
        std::thread::scope(|scope| {
            let unlinking = scope.spawn(|| {
                rustix::process::setpriority_process(None, LOW_PRIORITY).unwrap_or_default();
                let mut pace = Pace::new(self);
                remove_while(rest, &trash, &mut |directory| {
                    pace.unlinked(directory)?;
                    Ok(!done.load(Ordering::Relaxed))
                })
            });
            unlinking.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)).map(drop)
        })
    }
}

/// Of a thread: on Linux each has its own (`setpriority(2)`, "C library/kernel differences").
///
/// Not the lowest: on a machine that is busy that gets a fiftieth of a processor, and who waits for the processor in the
/// middle of a change of the filesystem keeps everybody from syncing.
const LOW_PRIORITY: i32 = 10;

/// How fast names go.
struct Pace<'a> {
    store: &'a Store,
    portion: u32,
    left: u32,
    began: Instant,
    /// What tells of others, as it was the last time.
    seen: Option<(i64, i64, u64)>,
    /// When others were at work last.
    others: Option<Instant>,
}

impl<'a> Pace<'a> {
    fn new(store: &'a Store) -> Self {
        let portion = SMALLEST_PORTION;
        let seen = writes(store);
        Self { store, portion, left: portion, began: Instant::now(), seen, others: None }
    }

    /// After each name that has gone from `directory`.
    fn unlinked(&mut self, directory: &OwnedFd) -> io::Result<()> {
        self.left -= 1;
        if self.left > 0 {
            return Ok(());
        }
        let worked = self.began.elapsed();
        let sync = Instant::now();
        rustix::fs::fsync(directory)?;
        let synced = sync.elapsed();
        self.portion = next_portion(self.portion, worked, synced);
        if self.others_are_at_work() {
            std::thread::sleep(((worked + synced) * PAUSE).min(LONGEST_PAUSE));
        }
        self.left = self.portion;
        self.began = Instant::now();
        Ok(())
    }

    /// Commands that load or pull have a session, and all that change something write to the database.
    fn others_are_at_work(&mut self) -> bool {
        let now = writes(self.store);
        let sessions =
            std::fs::read_dir(self.store.layout().ingest()).is_ok_and(|mut entries| entries.next().is_some());
        if sessions || now != self.seen {
            self.seen = now;
            self.others = Some(Instant::now());
        }
        self.others.is_some_and(|seen| seen.elapsed() < AT_WORK)
    }
}

/// What changes with each transaction. The file is only looked at: SQLite's locks would be lost if it were closed here.
fn writes(store: &Store) -> Option<(i64, i64, u64)> {
    let mut path = store.layout().database().into_os_string();
    path.push("-wal");
    let found = std::fs::metadata(path).ok()?;
    Some((found.mtime(), found.mtime_nsec(), found.len()))
}

fn next_portion(portion: u32, worked: Duration, synced: Duration) -> u32 {
    let next = if synced > SYNC_GOAL || worked > PORTION_GOAL {
        portion / 2
    } else if synced < SYNC_GOAL / 2 && worked < PORTION_GOAL / 2 {
        portion * 2
    } else {
        portion
    };
    next.clamp(SMALLEST_PORTION, LARGEST_PORTION)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, File};

    use crate::store::Surroundings;

    fn store() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("root"), Surroundings::default()).unwrap();
        (dir, store)
    }

    fn fill(store: &Store, name: &str, files: u32) -> std::path::PathBuf {
        let path = store.layout().trash().join(name);
        for directory in 0..4 {
            let directory = path.join(directory.to_string());
            fs::create_dir_all(&directory).unwrap();
            for file in 0..files {
                fs::write(directory.join(file.to_string()), "").unwrap();
            }
        }
        path
    }

    #[test]
    fn what_is_more_than_goes_at_once_goes_too() {
        let (_dir, store) = store();
        fill(&store, "large", AT_ONCE / 2);
        fill(&store, "small", 1);
        fs::write(store.layout().trash().join("file"), "").unwrap();
        std::os::unix::fs::symlink("/etc", store.layout().trash().join("link")).unwrap();
        // What nests deep is moved out on the way.
        let deep = store.layout().trash().join("large/deep").join("d/".repeat(200));
        fs::create_dir_all(&deep).unwrap();
        fs::write(deep.join("file"), "").unwrap();
        store.unlink_trashed(&store.layout().trash().join("large")).unwrap();
        assert_eq!(entries(&store.layout().trash()).unwrap().len(), 3, "all of it is gone");
        assert_eq!(store.empty_trash().unwrap(), 3);
        assert_eq!(entries(&store.layout().trash()).unwrap(), Vec::<std::path::PathBuf>::new());
    }

    #[test]
    fn what_somebody_else_unlinks_is_left_to_them_and_waited_for() {
        let (_dir, store) = store();
        let (held, free) = (fill(&store, "held", 1), fill(&store, "free", 1));
        let lock = File::open(&held).unwrap();
        flock(&lock, FlockOperation::LockExclusive).unwrap();
        std::thread::scope(|scope| {
            let emptying = scope.spawn(|| store.empty_trash());
            while free.exists() {
                std::thread::yield_now();
            }
            assert!(held.exists() && !emptying.is_finished());
            // As the kernel does for a process that was killed.
            drop(lock);
            assert_eq!(emptying.join().unwrap().unwrap(), 2);
        });
        assert!(!held.exists());
    }

    #[test]
    fn beside_other_work_it_ends_with_that_and_waits_for_nobody() {
        let (_dir, store) = store();
        let (held, free) = (fill(&store, "held", 1), fill(&store, "free", 1));
        let lock = File::open(&held).unwrap();
        flock(&lock, FlockOperation::LockExclusive).unwrap();
        store.empty_trash_until(&AtomicBool::new(true)).unwrap();
        assert!(free.exists(), "the other work is done");
        store.empty_trash_until(&AtomicBool::new(false)).unwrap();
        assert!(held.exists() && !free.exists());
    }

    #[test]
    fn portions_follow_the_time_they_take() {
        let [short, medium, long] = [1, 12, 30].map(Duration::from_millis);
        assert_eq!(next_portion(4000, short, short), 8000);
        assert_eq!(next_portion(4000, medium, medium), 4000);
        assert_eq!(next_portion(4000, short, long), 2000);
        assert_eq!(next_portion(4000, long, short), 2000);
        assert_eq!(next_portion(SMALLEST_PORTION, long, long), SMALLEST_PORTION);
        assert_eq!(next_portion(LARGEST_PORTION, short, short), LARGEST_PORTION);
    }
}
