//! When images were used and pulled, and what is known of evicted blobs.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use layerstore_oci::ErrorKind;
use layerstore_store::{Clock, ImageCommit, LOCAL, NewSnapshot, Store, Surroundings, UnixSeconds};

use crate::{add_image, commit_of, diff_id, digest, manifest, open, publish_image};

#[derive(Debug)]
struct SetClock(AtomicI64);

impl Clock for SetClock {
    fn now(&self) -> UnixSeconds {
        self.0.load(Ordering::Relaxed)
    }
}

fn clocked(root: &std::path::Path) -> (Store, Arc<SetClock>) {
    let clock = Arc::new(SetClock(AtomicI64::new(10_000)));
    let surroundings = Surroundings { clock: clock.clone(), ..Surroundings::default() };
    (Store::open(root, surroundings).unwrap(), clock)
}

fn used_at(store: &Store, name: &str) -> Option<i64> {
    store.image_info(&manifest(name)).unwrap().unwrap().last_used_at
}

fn pulled_at(store: &Store) -> Option<i64> {
    store.reference(LOCAL, "localhost/x:1").unwrap().unwrap().pulled_at
}

#[test]
fn a_pull_that_finds_nothing_new_is_noted_once_a_minute() {
    let dir = tempfile::tempdir().unwrap();
    let (store, clock) = clocked(dir.path());
    let session = store.session(LOCAL).unwrap();
    publish_image(&store, &session, "a", &["base"]).unwrap();
    let references = vec![("localhost/x:1".to_owned(), manifest("a"))];
    let commit = ImageCommit { references, pulled: true, ..commit_of("a", &["base"]) };
    store.commit_images(&session, &commit).unwrap();
    assert_eq!((used_at(&store, "a"), pulled_at(&store)), (Some(10_000), Some(10_000)));
    for (now, noted) in [(10_050, 10_000), (10_061, 10_061), (10_100, 10_061), (5_000, 5_000)] {
        clock.0.store(now, Ordering::Relaxed);
        store.note_pull(LOCAL, "localhost/x:1", &manifest("a")).unwrap();
        assert_eq!((used_at(&store, "a"), pulled_at(&store)), (Some(noted), Some(noted)), "at {now}");
    }
    clock.0.store(20_000, Ordering::Relaxed);
    store.note_use(&manifest("a")).unwrap();
    assert_eq!((used_at(&store, "a"), pulled_at(&store)), (Some(20_000), Some(5_000)));
    // The same commit once more changes nothing, but the registry has said so.
    assert!(!store.commit_images(&session, &commit).unwrap());
    assert_eq!(pulled_at(&store), Some(20_000));
    store.note_pull(LOCAL, "localhost/x:1", &manifest("other")).unwrap();
    assert_eq!(pulled_at(&store), Some(20_000), "of another target");
}

#[test]
fn a_name_keeps_its_pin_and_loses_its_pull_when_it_moves() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let session = store.session(LOCAL).unwrap();
    add_image(&store, &session, "localhost/x:1", "a", &["base"]).unwrap();
    store.note_pull(LOCAL, "localhost/x:1", &manifest("a")).unwrap();
    assert!(store.set_pinned(LOCAL, "localhost/x:1", true).unwrap());
    assert!(!store.set_pinned(LOCAL, "localhost/x:1", true).unwrap(), "it is");
    assert!(pulled_at(&store).is_some());
    add_image(&store, &session, "localhost/x:1", "b", &["base"]).unwrap();
    let row = store.reference(LOCAL, "localhost/x:1").unwrap().unwrap();
    assert_eq!((row.pinned, row.pulled_at), (true, None));
    let nameless = store.reference(LOCAL, &manifest("a").to_string()).unwrap().unwrap();
    assert!(!nameless.pinned, "the pin was the name's");
    store.set_pinned(LOCAL, &nameless.name, true).unwrap();
    store.set_reference(LOCAL, "localhost/y:1", &manifest("a")).unwrap();
    assert!(store.reference(LOCAL, "localhost/y:1").unwrap().unwrap().pinned);
    assert!(store.set_pinned(LOCAL, "localhost/y:1", false).unwrap());
    for owner in [LOCAL, "another"] {
        let error = store.set_pinned(owner, "localhost/z:1", true).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
    }
}

#[test]
fn a_snapshot_of_any_owner_is_a_use_of_the_images_just_below_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let session = store.session(LOCAL).unwrap();
    add_image(&store, &session, "localhost/x:1", "a", &["base", "top"]).unwrap();
    add_image(&store, &session, "localhost/y:1", "b", &["base"]).unwrap();
    let new = NewSnapshot {
        owner: "k8s".to_owned(),
        key: "one".to_owned(),
        layers: vec![diff_id("base"), diff_id("top")],
        ..NewSnapshot::default()
    };
    let info = store.insert_snapshot(&new, None).unwrap();
    assert!(used_at(&store, "a").is_some() && used_at(&store, "b").is_none());
    let base = store.snapshot("k8s", &info.parent.unwrap()).unwrap().parent;
    let new = NewSnapshot { key: "two".to_owned(), parent: base, layers: Vec::new(), ..new };
    store.insert_snapshot(&new, Some(store.writable_tree().unwrap())).unwrap();
    assert!(used_at(&store, "b").is_some());
}

#[test]
fn a_blob_is_evicted_if_an_image_has_it_and_its_tree_does_without() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let session = store.session(LOCAL).unwrap();
    add_image(&store, &session, "localhost/x:1", "a", &["base", "top"]).unwrap();
    let evicted = |layer: &str| store.is_evicted(&digest(layer), &diff_id(layer)).unwrap();
    store.settle_older_than(0).unwrap();
    assert!(!evicted("base"), "it is here");
    let db = rusqlite::Connection::open(dir.path().join("layerstore.db")).unwrap();
    let run = |statement: &str| db.execute_batch(statement).unwrap();
    run(&format!("DELETE FROM blob WHERE digest = '{}'", digest("base")));
    assert!(evicted("base") && !evicted("top") && !evicted("never"));
    assert!(!store.is_evicted(&digest("base"), &diff_id("top")).unwrap(), "another layer's tree");
    assert_eq!(store.absent_layers(&manifest("a")).unwrap(), [(digest("base"), diff_id("base"))]);
    let tree = store.tree(&diff_id("base")).unwrap().unwrap();
    run("UPDATE tree SET synced = 0");
    assert!(!evicted("base"), "a power cut would take it");
    run("UPDATE tree SET synced = 1");
    fs::rename(store.layout().tree(&tree.id), dir.path().join("gone")).unwrap();
    assert!(!evicted("base"), "nothing is left of it");

    assert!(store.pulled_names_with(&digest("base")).unwrap().is_empty());
    store.note_pull(LOCAL, "localhost/x:1", &manifest("a")).unwrap();
    assert_eq!(store.pulled_names_with(&digest("base")).unwrap(), ["localhost/x:1"]);
    assert!(store.pulled_names_with(&digest("other")).unwrap().is_empty());
}
