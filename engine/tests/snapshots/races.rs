//! Threads and processes that use one store at the same time, with a collector among them.

use std::env;
use std::fs;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use layerstore::oci::ErrorKind;
use layerstore::{Layerstore, Parent, PrepareOptions, Result, Snapshots};
use layerstore_testkit::layer::{Layer, LayerBuilder};
use layerstore_testkit::require;
use layerstore_testkit::rng::Rng;

use crate::lab::{Lab, OWNER, everything, names, quick, text};

const IMAGE: &str = "localhost/race:1";
const ROOT: &str = "LAYERSTORE_RACE_ROOT";

fn layers() -> Vec<Layer> {
    (0..4).map(|n| LayerBuilder::gzip().file(format!("file-{n}"), n.to_string()).finish()).collect()
}

/// What may go wrong where many use the same keys.
fn allow<T>(result: Result<T>) -> Option<T> {
    let kinds = [
        ErrorKind::AlreadyExists,
        ErrorKind::NotFound,
        ErrorKind::InUse,
        ErrorKind::WrongState,
        ErrorKind::InvalidInput,
    ];
    match result {
        Ok(value) => Some(value),
        Err(error) => {
            assert!(kinds.contains(&error.kind()), "{:?}: {error:?}", error.kind());
            None
        }
    }
}

/// Some operations on a few keys, in any order.
fn work(store: &Layerstore, seed: u64, rounds: usize) {
    let (s, mut rng) = (store.snapshots(OWNER), Rng::new(seed));
    let options = PrepareOptions::default();
    for _ in 0..rounds {
        let key = format!("key-{}", rng.below(4));
        let name = format!("done-{}", rng.below(4));
        let parent = if rng.one_in(2) { Parent::Image(IMAGE) } else { Parent::Snapshot(&name) };
        match rng.below(6) {
            0 | 1 => drop(allow(s.prepare(&key, parent, &options, &|_| {}))),
            2 => drop(allow(s.view(&key, parent, &options, &|_| {}))),
            3 => drop(allow(s.commit(&name, &key, &quick()))),
            4 => use_mounted(&s, &key),
            _ => drop(allow(s.remove(if rng.one_in(3) { &name } else { &key }))),
        }
    }
}

fn use_mounted(s: &Snapshots<'_>, key: &str) {
    let Some(target) = allow(s.mount(key, None, &|_| {})) else { return };
    // Another thread may have mounted the same at the same place, and may unmount it again.
    if let Ok(text) = fs::read_to_string(target.join("file-0")) {
        assert_eq!(text, "0");
        drop(fs::write(target.join("new"), "x"));
    }
    allow(s.unmount(key));
}

#[test]
fn privileged_many_use_the_same_keys() {
    // A process that another test process has started.
    if let Some(root) = env::var_os(ROOT) {
        let store = Layerstore::open(root.as_ref()).unwrap();
        work(&store, u64::from(std::process::id()), rounds());
        return;
    }
    let Some(lab) = Lab::new() else { return };
    lab.load(IMAGE, layers());
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let collector = scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                lab.store.collect(&everything()).unwrap();
            }
        });
        let processes: Vec<_> = (0..4)
            .map(|_| {
                let mut process = Command::new(env::current_exe().unwrap());
                process.args(["--exact", "races::privileged_many_use_the_same_keys"]).env(ROOT, lab.root());
                process.stdout(std::process::Stdio::null()).spawn().unwrap()
            })
            .collect();
        let store = &lab.store;
        let threads: Vec<_> = (0..8).map(|seed| scope.spawn(move || work(store, seed, rounds()))).collect();
        let results: Vec<_> = threads.into_iter().map(thread::ScopedJoinHandle::join).collect();
        let statuses: Vec<_> = processes.into_iter().map(|mut process| process.wait().unwrap()).collect();
        stop.store(true, Ordering::Relaxed);
        collector.join().unwrap();
        assert!(results.iter().all(std::result::Result::is_ok));
        assert!(statuses.iter().all(std::process::ExitStatus::success), "{statuses:?}");
    });
    for mounted in lab.store.mounted().unwrap() {
        lab.store.unmount(mounted.target.as_os_str()).unwrap();
    }
    lab.store.collect(&everything()).unwrap();
    let db = rusqlite::Connection::open(lab.root().join("layerstore.db")).unwrap();
    let mut query = db.prepare("SELECT id FROM tree ORDER BY id").unwrap();
    let rows: Vec<String> =
        query.query_map([], |row| row.get(0)).unwrap().map(std::result::Result::unwrap).collect();
    assert_eq!(lab.names("overlay2"), rows, "each tree has a row, and each row a tree");
    assert!(lab.names("trash").is_empty() && lab.names("mnt").is_empty() && lab.names("ingest").is_empty());
    // Whatever has come of it is whole.
    for key in lab.keys().iter().filter(|key| key.starts_with("key-")) {
        lab.mounted(key, |root| {
            let found = names(root);
            (0..4).for_each(|n| assert!(found.contains(&format!("file-{n}")), "{key}: {found:?}"));
        });
    }
}

fn rounds() -> usize {
    if require::is_long() { 1000 } else { 40 }
}

/// The collector takes the image away while snapshots are put above it: each is whole, or was refused.
#[test]
fn privileged_an_image_that_goes_is_not_half_below_a_snapshot() {
    let Some(lab) = Lab::new() else { return };
    let rounds = if require::is_long() { 300 } else { 20 };
    let (made, refused) = (AtomicUsize::new(0), AtomicUsize::new(0));
    for round in 0..rounds {
        lab.load(IMAGE, layers());
        thread::scope(|scope| {
            let (lab, made, refused) = (&lab, &made, &refused);
            for n in 0..2 {
                scope.spawn(move || {
                    let key = format!("key-{n}");
                    let options = PrepareOptions::default();
                    for _ in 0..6 {
                        match lab.snapshots().prepare(&key, Parent::Image(IMAGE), &options, &|_| {}) {
                            Ok(_) => {
                                made.fetch_add(1, Ordering::Relaxed);
                                lab.mounted(&key, |root| {
                                    (0..4).for_each(|n| {
                                        assert_eq!(text(root.join(format!("file-{n}"))), n.to_string());
                                    });
                                });
                                lab.snapshots().remove(&key).unwrap();
                            }
                            Err(error) => {
                                refused.fetch_add(1, Ordering::Relaxed);
                                assert_eq!(error.kind(), ErrorKind::NotFound, "{error:?}");
                            }
                        }
                    }
                });
            }
            scope.spawn(move || {
                thread::yield_now();
                allow(lab.store.remove(IMAGE, round % 2 == 0));
                lab.store.collect(&everything()).unwrap();
            });
        });
        allow(lab.store.remove(IMAGE, true));
        lab.store.collect(&everything()).unwrap();
        assert!(lab.names("overlay2").is_empty(), "round {round}: {:?}", lab.names("overlay2"));
    }
    assert!(made.into_inner() > 0 && refused.into_inner() > 0, "both have happened");
}
