//! What an interrupted pull leaves for the next one, and for how long.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use layerstore_store::{Clock, Key, LOCAL, Publication, RootKind, Store, Surroundings, UnixSeconds};

use crate::{add_image, audit, blob, collect, diff_id, digest, open, sql, tree};

/// A clock that a test moves.
#[derive(Debug, Clone, Default)]
struct Hand(Arc<AtomicI64>);

impl Clock for Hand {
    fn now(&self) -> UnixSeconds {
        self.0.load(Ordering::Relaxed)
    }
}

fn open_with(root: &std::path::Path, clock: &Hand) -> Store {
    Store::open(root, Surroundings { clock: Arc::new(clock.clone()), ..Surroundings::default() }).unwrap()
}

/// A session that publishes a layer and ends without naming it.
fn interrupted(store: &Store, purpose: &str, seconds: i64) {
    let mut session = store.session(LOCAL).unwrap();
    session.outlast(purpose, seconds).unwrap();
    let publication = Publication {
        blobs: vec![blob(&session, "layer", Some(diff_id("layer"))).unwrap()],
        trees: vec![tree(&session, "layer").unwrap()],
        ..Publication::default()
    };
    store.publish(&session, publication).unwrap();
}

#[test]
fn what_was_fetched_is_kept_for_its_time_and_no_longer() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Hand::default();
    let store = open_with(dir.path(), &clock);
    interrupted(&store, "pull a", 100);
    clock.0.store(99, Ordering::Relaxed);
    store.recover_all().unwrap();
    assert_eq!(collect(&store, &[]).unwrap(), []);
    clock.0.store(100, Ordering::Relaxed);
    store.recover_all().unwrap();
    assert_eq!(collect(&store, &[]).unwrap().len(), 2, "the blob and the tree");
    audit(dir.path());
}

#[test]
fn the_attempt_that_succeeds_ends_it_for_all() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    interrupted(&store, "pull a", 100);
    interrupted(&store, "pull a", 100);
    assert_eq!(sql(dir.path(), "SELECT id FROM lease").len(), 1);
    let mut session = store.session(LOCAL).unwrap();
    session.outlast("pull a", 100).unwrap();
    add_image(&store, &session, "localhost/a:1", "a", &["layer"]).unwrap();
    session.complete().unwrap();
    drop(session);
    // What others were interrupted at has nothing to do with it.
    assert_eq!(collect(&store, &[]).unwrap(), []);
    assert_eq!(collect(&store, &["localhost/a:1"]).unwrap().len(), 5);
    audit(dir.path());
}

#[test]
fn one_that_goes_on_while_another_succeeds_still_keeps_what_it_has() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let mut slow = store.session(LOCAL).unwrap();
    slow.outlast("pull a", 100).unwrap();
    let mut quick = store.session(LOCAL).unwrap();
    quick.outlast("pull a", 100).unwrap();
    add_image(&store, &quick, "localhost/a:1", "a", &["layer"]).unwrap();
    quick.complete().unwrap();
    store
        .publish(
            &slow,
            Publication { blobs: vec![blob(&slow, "more", None).unwrap()], ..Publication::default() },
        )
        .unwrap();
    drop((slow, quick));
    assert_eq!(collect(&store, &[]).unwrap(), []);
    store.forget_lasting_leases().unwrap();
    assert_eq!(collect(&store, &[]).unwrap().len(), 1);
}

#[test]
fn a_download_is_found_again_and_thrown_away_only_if_nobody_is_at_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let wanted = digest("one two");
    {
        let session = store.session(LOCAL).unwrap();
        session.resume(&wanted, 7).unwrap().write(b"one ").unwrap();
    }
    assert_eq!(store.partial_size(&wanted), 4);
    let partials = store.partials().unwrap();
    assert_eq!((partials.len(), &partials[0].digest, partials[0].bytes), (1, &wanted, 4));
    let claim = store.claim(&Key::Blob(wanted.clone())).unwrap();
    assert!(!store.discard_partial(&wanted).unwrap());
    drop(claim);
    assert!(store.discard_partial(&wanted).unwrap());
    assert_eq!(store.partials().unwrap(), []);
    // Complete, it becomes a blob like any other.
    let session = store.session(LOCAL).unwrap();
    let mut ingest = session.resume(&wanted, 7).unwrap();
    ingest.write(b"one two").unwrap();
    let received = ingest.finish(Some((&wanted, 7))).unwrap();
    let blobs = vec![layerstore_store::NewBlob { received, media_type: None, diff_id: None }];
    store.publish(&session, Publication { blobs, ..Publication::default() }).unwrap();
    assert_eq!(store.read_blob(&wanted, 7).unwrap(), b"one two");
    assert_eq!(store.partials().unwrap(), []);
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &std::fs::metadata(store.layout().blob(&wanted)).unwrap().permissions(),
    );
    assert_eq!(mode & 0o777, 0o444);
}

#[test]
fn a_pull_that_died_between_a_name_and_its_row_keeps_its_download() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let wanted = digest("layer");
    let half_published = || std::fs::write(store.layout().blob(&wanted), "layer").unwrap();
    half_published();
    store.recover_all().unwrap();
    assert_eq!((store.partials().unwrap().len(), store.layout().blob(&wanted).exists()), (0, false));
    store.session(LOCAL).unwrap().outlast("pull a", 100).unwrap();
    half_published();
    store.recover_all().unwrap();
    assert_eq!(store.partial_size(&wanted), 5);
    let session = store.session(LOCAL).unwrap();
    let ingest = session.resume(&wanted, 5).unwrap();
    ingest.finish(Some((&wanted, 5))).unwrap();
}

#[test]
fn giving_up_what_was_interrupted_takes_nothing_from_who_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    interrupted(&store, "pull a", 100);
    let mut session = store.session(LOCAL).unwrap();
    session.outlast("pull b", 100).unwrap();
    let publication =
        Publication { blobs: vec![blob(&session, "kept", None).unwrap()], ..Publication::default() };
    store.publish(&session, publication).unwrap();
    let leases = |interrupted| {
        let graph = store.graph_to_collect(interrupted).unwrap();
        graph.roots.iter().filter(|root| matches!(root.kind, RootKind::Lease { .. })).count()
    };
    assert_eq!((leases(false), leases(true)), (3, 1), "of the session, and of two pulls");
    store.forget_lasting_leases().unwrap();
    assert_eq!((leases(false), leases(true)), (1, 1));
    assert_eq!(collect(&store, &[]).unwrap().len(), 2, "the layer of the other");
    assert_eq!(store.read_blob(&digest("kept"), 4).unwrap(), b"kept");
}
