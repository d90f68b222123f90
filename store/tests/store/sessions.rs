//! Sessions that died, and those that live.

use std::fs;
use std::os::unix::fs::symlink;

use layerstore_oci::Algorithm;
use layerstore_store::{LOCAL, Object, Publication, Recovered};

use crate::{audit, blob, collect, diff_id, digest, names, open, tree};

#[test]
fn a_dead_session_and_what_it_placed_without_a_row_go() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    let store = open(root);
    store.recover().unwrap();
    for name in ["dead1111", "dead2222/tree-0/diff"] {
        fs::create_dir_all(root.join("ingest").join(name)).unwrap();
    }
    // One was killed before it had a lock; the lock of the other has no holder.
    fs::write(root.join("ingest/dead2222/lock"), "").unwrap();
    fs::write(root.join("ingest/dead2222/blob-1"), "half").unwrap();
    fs::write(root.join("ingest/stray"), "nobody's").unwrap();
    fs::write(root.join("blobs/sha256").join(digest("orphan").hex()), "orphan").unwrap();
    fs::create_dir_all(root.join("overlay2/orphan00/diff/etc")).unwrap();
    symlink("/", root.join("overlay2/orphan00/diff/root")).unwrap();
    assert_eq!(store.recover().unwrap(), Recovered { sessions: 3, unrecorded: 2 });
    assert_eq!(names(&root.join("trash")).len(), 5);
    store.empty_trash().unwrap();
    audit(root);
    assert_eq!(store.recover().unwrap(), Recovered::default());
    // Names that a store does not give are left for a person to look at.
    fs::write(root.join("blobs/sha256/README"), "hello").unwrap();
    assert_eq!(store.recover_all().unwrap(), Recovered::default());
    assert!(root.join("blobs/sha256/README").exists());
}

#[test]
fn a_lock_that_no_session_makes_is_nobodys_and_holds_nobody_up() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    let store = open(root);
    for name in ["pipe", "link", "loop", "socket", "directory"] {
        fs::create_dir(root.join("ingest").join(name)).unwrap();
    }
    let lock = |name: &str| root.join("ingest").join(name).join("lock");
    rustix::fs::mkfifoat(rustix::fs::CWD, lock("pipe"), rustix::fs::Mode::RWXU).unwrap();
    symlink("/dev/null", lock("link")).unwrap();
    symlink("lock", lock("loop")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(lock("socket")).unwrap();
    fs::create_dir(lock("directory")).unwrap();
    assert!(store.scan().unwrap().ingests.iter().all(|ingest| !ingest.alive));
    assert_eq!(store.recover().unwrap().sessions, 5);
    store.empty_trash().unwrap();
    audit(root);
}

#[test]
fn files_without_a_row_are_found_without_a_dead_session() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    store.recover().unwrap();
    fs::create_dir_all(dir.path().join("overlay2/orphan00/diff")).unwrap();
    assert_eq!(store.recover().unwrap(), Recovered::default(), "cheap where nobody died");
    assert_eq!(store.recover_all().unwrap(), Recovered { sessions: 0, unrecorded: 1 });
}

#[test]
fn a_live_session_of_another_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (store, other) = (open(dir.path()), open(dir.path()));
    let session = other.session(LOCAL).unwrap();
    let mut ingest = session.ingest(Algorithm::Sha256).unwrap();
    ingest.write(b"first ").unwrap();
    let kept = blob(&session, "kept", None).unwrap();
    let new = other.publish(&session, Publication { blobs: vec![kept], ..Publication::default() }).unwrap();
    assert_eq!(new, [Object::Blob(digest("kept"))]);

    assert_eq!(store.recover_all().unwrap().sessions, 0);
    assert!(collect(&store, &[]).unwrap().is_empty(), "published, and named soon");

    ingest.write(b"second").unwrap();
    let received = ingest.finish(Some((&digest("first second"), 12))).unwrap();
    let blobs = vec![layerstore_store::NewBlob { received, media_type: None, diff_id: None }];
    other.publish(&session, Publication { blobs, ..Publication::default() }).unwrap();
    drop(session);
    assert_eq!(collect(&store, &[]).unwrap().len(), 2, "the lease ended with the session");
    audit(dir.path());
}

#[test]
fn a_lease_without_a_session_ends() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let session = store.session(LOCAL).unwrap();
    let kept = blob(&session, "kept", None).unwrap();
    store.publish(&session, Publication { blobs: vec![kept], ..Publication::default() }).unwrap();
    rusqlite::Connection::open(dir.path().join("layerstore.db"))
        .unwrap()
        .execute_batch(
            "INSERT INTO lease VALUES ('gone0000', 'local', 1, 'boot', 9000000000, NULL);
             INSERT INTO lease_item VALUES ('gone0000', 'blob', 'sha256:00');",
        )
        .unwrap();
    store.recover_all().unwrap();
    assert_eq!(crate::sql(dir.path(), "SELECT id FROM lease").len(), 1, "only the live one is left");
    drop(session);
    collect(&store, &[]).unwrap();
    audit(dir.path());
}

#[test]
fn two_publishers_of_one_layer_leave_one_tree() {
    let dir = tempfile::tempdir().unwrap();
    let barrier = std::sync::Barrier::new(4);
    let new: usize = std::thread::scope(|scope| {
        let publish = || {
            let store = open(dir.path());
            let session = store.session(LOCAL).unwrap();
            let publication = Publication {
                blobs: vec![blob(&session, "layer", Some(diff_id("layer"))).unwrap()],
                trees: vec![tree(&session, "layer").unwrap()],
                ..Publication::default()
            };
            barrier.wait();
            store.publish(&session, publication).unwrap().len()
        };
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(publish)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(new, 2, "one blob and one tree were new to one of them");
    assert_eq!(names(&dir.path().join("overlay2")).len(), 1);
    audit(dir.path());
}

#[test]
fn a_tree_of_another_life_of_the_filesystem_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let session = store.session(LOCAL).unwrap();
    crate::add_image(&store, &session, "localhost/a:1", "a", &["base", "a"]).unwrap();
    let db = rusqlite::Connection::open(dir.path().join("layerstore.db")).unwrap();
    for change in ["boot_id = 'another'", "mount_id = mount_id + 1"] {
        let before = store.tree(&diff_id("base")).unwrap().unwrap();
        assert!(before.trusted);
        db.execute_batch(&format!("UPDATE tree SET {change}")).unwrap();
        assert!(!store.tree(&diff_id("base")).unwrap().unwrap().trusted);
        assert_eq!(store.settle_older_than(0).unwrap(), 0, "a sync now does not mend what a cut took");
        let wanted = [(digest("base"), Some(diff_id("base")))];
        let present = store.lease_layers(&session, &wanted).unwrap().pop().unwrap();
        assert!(present.blob.is_some() && present.tree.is_none());

        let trees = vec![tree(&session, "base").unwrap()];
        store.publish(&session, Publication { trees, ..Publication::default() }).unwrap();
        let after = store.tree(&diff_id("base")).unwrap().unwrap();
        assert!(after.trusted && after.id != before.id);
        assert!(!store.layout().tree(&before.id).exists(), "the old one is gone");
        let snapshots = crate::sql(dir.path(), "SELECT tree FROM snapshot");
        assert!(snapshots.contains(after.id.as_str()), "chains follow");
    }
    // Synced, a tree survives both.
    let trees = vec![tree(&session, "a").unwrap()];
    store.publish(&session, Publication { trees, ..Publication::default() }).unwrap();
    store.settle_older_than(0).unwrap();
    db.execute_batch("UPDATE tree SET boot_id = 'another', mount_id = 0").unwrap();
    assert!(store.tree(&diff_id("base")).unwrap().unwrap().trusted);
    drop(session);
    audit(dir.path());
}

#[test]
fn what_was_deleted_by_hand_counts_as_absent_and_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    crate::add_image(&store, &store.session(LOCAL).unwrap(), "localhost/a:1", "a", &["base", "a"]).unwrap();
    let manifest = crate::manifest("a");
    assert_eq!(store.manifest_of_image(&digest("config a")).unwrap(), Some(manifest.clone()));
    for tree in ["base", "a"].map(|layer| store.tree(&diff_id(layer)).unwrap().unwrap()) {
        fs::remove_dir_all(store.layout().tree(&tree.id)).unwrap();
    }
    fs::remove_file(store.layout().blob(&digest("base"))).unwrap();
    fs::remove_file(store.layout().blob(&digest("a"))).unwrap();
    fs::write(store.layout().blob(&digest("a")), "").unwrap();
    fs::remove_file(store.layout().blob(&manifest)).unwrap();
    assert_eq!(store.manifest_of_image(&digest("config a")).unwrap(), None);
    crate::add_image(&store, &store.session(LOCAL).unwrap(), "localhost/a:1", "a", &["base", "a"]).unwrap();
    assert_eq!(store.manifest_of_image(&digest("config a")).unwrap(), Some(manifest));
    audit(dir.path());
}
