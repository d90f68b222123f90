//! Eight processes at once do everything there is to do to one store, for a minute and a half.
//!
//! `LAYERSTORE_SOAK_SECONDS` says for how long, `LAYERSTORE_SOAK_SEED` what is drawn; with the same seed the timing is
//! still another one. What a command may be refused is listed where it is run, by exit code and words: it lost to
//! another worker, who removed the image, mounts the container or has the name. Everything else is a failure, and what
//! a worker has names for that nobody else removes is never refused.

mod images;
mod worker;

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use layerstore_testkit::registry::Registry;
use layerstore_testkit::require;
use layerstore_testkit::sandbox::{Run, Sandbox};

use images::Known;
use worker::Worker;

const WORKERS: usize = 8;

/// How many of the latest commands a failure shows.
const REMEMBERED: usize = 60;

/// Failures after which it makes no sense to go on.
const ENOUGH: usize = 25;

/// What all workers have in common.
struct Soak {
    store: Sandbox,
    registry: Registry,
    shared: Vec<Known>,
    start: Instant,
    end: Instant,
    stopped: AtomicBool,
    faults: Mutex<Vec<String>>,
    /// When which worker did what, and how it ended.
    journal: Mutex<VecDeque<String>>,
    /// How often each verb was successful, and how often it lost to another worker.
    counts: Mutex<BTreeMap<String, [usize; 2]>>,
}

/// Why a command may be refused: exit status, and what it says.
type Lost = (i32, &'static str);

impl Soak {
    fn new(duration: Duration) -> Option<Self> {
        if !require::registry() {
            return None;
        }
        let store = Sandbox::new()?;
        let registry = Registry::plain();
        let shared = images::shared(&store);
        for (i, known) in shared.iter().enumerate() {
            registry.push(&format!("shared:{i}"), &known.image);
        }
        let start = Instant::now();
        Some(Self {
            store,
            registry,
            shared,
            start,
            end: start + duration,
            stopped: AtomicBool::new(false),
            faults: Mutex::default(),
            journal: Mutex::default(),
            counts: Mutex::default(),
        })
    }

    fn is_over(&self) -> bool {
        Instant::now() >= self.end || self.stopped.load(Ordering::Relaxed)
    }

    /// Looks at how a command ended. Returns what it printed if it was successful.
    fn judge(&self, worker: usize, run: &Run, verb: &str, lost: &[Lost]) -> Option<String> {
        let sentence = run.stderr.lines().find(|line| line.starts_with("error: ")).unwrap_or_default();
        let is_lost = lost.iter().any(|(code, words)| run.code == *code && sentence.contains(words));
        let line = format!(
            "{:8.3} +{:.3} worker {worker}: {verb}: {} {sentence}",
            (self.start.elapsed().saturating_sub(run.time)).as_secs_f64(),
            run.time.as_secs_f64(),
            run.code
        );
        let mut journal = self.journal.lock().unwrap();
        journal.push_back(line);
        if journal.len() > REMEMBERED {
            journal.pop_front();
        }
        drop(journal);
        let first = verb.split(' ').next().unwrap().to_owned();
        if run.code == 0 || is_lost {
            self.counts.lock().unwrap().entry(first).or_default()[usize::from(is_lost)] += 1;
        } else {
            self.fault(worker, &run.to_string());
        }
        (run.code == 0).then(|| run.stdout.clone())
    }

    fn fault(&self, worker: usize, text: &str) {
        let journal: Vec<_> = self.journal.lock().unwrap().iter().cloned().collect();
        let mut faults = self.faults.lock().unwrap();
        let before =
            if faults.is_empty() { format!("\nbefore it:\n{}", journal.join("\n")) } else { String::new() };
        faults
            .push(format!("worker {worker} after {:.3}: {text}{before}", self.start.elapsed().as_secs_f64()));
        if faults.len() >= ENOUGH {
            self.stopped.store(true, Ordering::Relaxed);
        }
    }
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|value| value.parse().unwrap())
}

#[test]
fn privileged_a_soak() {
    let seconds = number("LAYERSTORE_SOAK_SECONDS").unwrap_or(90);
    let seed = number("LAYERSTORE_SOAK_SEED")
        .unwrap_or_else(|| std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs());
    let Some(soak) = Soak::new(Duration::from_secs(seconds)) else { return };
    thread::scope(|scope| {
        for number in 0..WORKERS {
            let soak = &soak;
            scope.spawn(move || {
                let mut worker = Worker::new(soak, number, seed);
                while !soak.is_over() {
                    worker.step();
                }
                worker.finish();
            });
        }
    });
    let counts = soak.counts.lock().unwrap();
    println!("seed {seed}; done and lost of each verb: {counts:?}");
    let faults = soak.faults.lock().unwrap();
    assert!(faults.is_empty(), "seed {seed}: {} failures\n\n{}", faults.len(), faults.join("\n\n"));
    drop(faults);
    assert_can_be_emptied(&soak.store);
    // A soak that is always refused proves nothing.
    for (verb, [done, lost]) in counts.iter() {
        assert!(seconds < 60 || *done > 10, "{verb} was successful {done} times, and lost {lost} times");
    }
}

/// When everything is removed, nothing is left: no row, no file, no mount.
#[track_caller]
fn assert_can_be_emptied(store: &Sandbox) {
    store.ok(["umount", "--all"]);
    for id in store.ok(["ps", "-aq", "--no-trunc"]).lines() {
        store.ok(["rm", "-f", id]);
    }
    for id in store.ok(["images", "-aq", "--no-trunc"]).lines() {
        store.ok(["rmi", "-f", id]);
    }
    store.ok(["gc"]);
    assert_sound(store);
    for table in [
        "blob",
        "edge",
        "image",
        "tree",
        "snapshot",
        "container",
        "reference",
        "lease",
        "mount",
        "mount_tree",
    ] {
        assert_eq!(store.sql(&format!("SELECT count(*) FROM {table}")), ["0"], "rows of {table}");
    }
    for folder in ["blobs/sha256", "overlay2", "trash", "ingest", "partial", "mnt"] {
        assert!(store.names(folder).is_empty(), "{folder}: {:?}", store.names(folder));
    }
    store.assert_nothing_to_collect();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(store.root().to_str().unwrap()), "{mounts}");
    let left = files(store.root());
    let known = ["layerstore.db", "layerstore.db-shm", "layerstore.db-wal", "lock", "reserve"];
    assert!(left.iter().all(|path| known.contains(&path.as_str())), "{left:?}");
}

/// The database is whole, and agrees with the disk.
#[track_caller]
fn assert_sound(store: &Sandbox) {
    assert_eq!(store.sql("PRAGMA integrity_check"), ["ok"]);
    assert_eq!(store.sql("SELECT count(*) FROM pragma_foreign_key_check"), ["0"]);
    store.assert_no_leftovers();
}

/// What is not a directory below `root`, by its path from there.
fn files(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut open = vec![root.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                open.push(entry.path());
            } else {
                found.push(entry.path().strip_prefix(root).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    found
}
