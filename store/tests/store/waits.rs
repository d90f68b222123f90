//! Who must wait for whom: between a name and its row, a directory and its lock, a row and its mount.

use std::any::Any;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use layerstore_store::{
    Key, LOCAL, MountOptions, MountPoint, Object, Publication, SnapshotCommit, Stack, Store, Subject, Unknown,
};

use crate::open::execute;
use crate::{add_image, blob, digest, manifest, open, tree};

/// What is held.
type Holder = fn(&Store) -> Box<dyn Any>;
/// What is done meanwhile. Whether it succeeds is not the question.
type Work = fn(&Store, &Path);

fn sweep(store: &Store) -> Box<dyn Any> {
    Box::new(store.claim(&Key::Sweep).unwrap())
}

fn sessions(store: &Store) -> Box<dyn Any> {
    Box::new(store.claim(&Key::Sessions).unwrap())
}

fn mounts(store: &Store) -> Box<dyn Any> {
    Box::new(store.claim(&Key::Mounts).unwrap())
}

/// The same as [`sweep`], for who does not share it.
fn a_new_tree(store: &Store) -> Box<dyn Any> {
    Box::new(store.writable_tree().unwrap())
}

/// Whether somebody waits for a lock on the file. In `/proc/locks` (proc(5)) an arrow stands before who is blocked.
fn is_waited_for(file: &Path) -> bool {
    let inode = format!(":{} ", fs::metadata(file).unwrap().ino());
    let locks = fs::read_to_string("/proc/locks").unwrap();
    locks.lines().any(|line| line.contains("->") && line.contains(&inode))
}

fn waits(holder: Holder, work: Work) -> bool {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    let store = open(root);
    add_image(&store, &store.session(LOCAL).unwrap(), "localhost/a:1", "a", &["base"]).unwrap();
    let held = holder(&store);
    std::thread::scope(|scope| {
        let worker = scope.spawn(|| work(&open(root), root));
        let waits = loop {
            // Looked at before, so that whoever has finished did not wait.
            let finished = worker.is_finished();
            if is_waited_for(&root.join("lock")) {
                break true;
            }
            if finished {
                break false;
            }
            std::thread::yield_now();
        };
        drop(held);
        worker.join().unwrap();
        waits
    })
}

fn unknown(root: &Path) -> Vec<Unknown> {
    fs::write(root.join("junk"), "x").unwrap();
    vec![Unknown { path: root.join("junk"), size: layerstore_store::Size::default() }]
}

/// A mount of another boot, or of this one.
fn mount_row(root: &Path, boot: &str) {
    let namespace = fs::metadata("/proc/self/ns/mnt").unwrap().ino();
    let values = format!("x'2f6e6f6e65', {namespace}, '{}', '{boot}', 0, 0", manifest("a"));
    let columns = "target, namespace, manifest, boot_id, own_directory, created_at";
    execute(root, &format!("INSERT INTO mount ({columns}) VALUES ({values})"));
}

fn publish(store: &Store, damaged: bool) {
    let session = store.session(LOCAL).unwrap();
    let publication = Publication {
        blobs: vec![blob(&session, "more", None).unwrap()],
        trees: vec![tree(&session, "more").unwrap()],
        ..Publication::default()
    };
    if damaged {
        fs::remove_dir_all(publication.trees[0].directory.diff().parent().unwrap()).unwrap();
    }
    assert_eq!(store.publish(&session, publication).is_err(), damaged);
}

#[test]
fn between_a_name_and_its_row_nobody_throws_files_away() {
    let cases: [(&str, Holder, Work); 9] = [
        ("what is published", sweep, |store, _| publish(store, false)),
        ("the same, and what is not recorded goes again", a_new_tree, |store, _| publish(store, true)),
        ("what is to be written to", sweep, |store, _| drop(store.writable_tree().unwrap())),
        ("a fix-up", sweep, |store, _| {
            let session = store.session(LOCAL).unwrap();
            let new = tree(&session, "x").unwrap();
            let chain = digest("no chain").into();
            store.publish_fixup(&session, &chain, new.directory, new.usage).unwrap_err();
        }),
        ("what was forgotten", a_new_tree, |store, _| {
            store.sweep(&[Object::Blob(digest("base"))]).unwrap();
        }),
        ("what nobody knows", a_new_tree, |store, root| {
            store.discard_unknown(&unknown(root)).unwrap();
        }),
        ("what nobody knows, before it is judged", a_new_tree, |store, root| {
            store.judge_unknown(&unknown(root), false).unwrap();
        }),
        ("a blob without a row", sweep, |store, _| {
            fs::write(store.layout().blob(&digest("orphan")), "orphan").unwrap();
            store.recover_all().unwrap();
        }),
        ("a tree without a row", sweep, |store, root| {
            fs::create_dir_all(root.join("overlay2/orphan00/diff")).unwrap();
            store.recover_all().unwrap();
        }),
    ];
    for (case, holder, work) in cases {
        assert!(waits(holder, work), "{case}");
    }
    assert!(!waits(a_new_tree, |store, _| publish(store, false)), "publishers do not wait for each other");
}

#[test]
fn between_its_directory_and_its_lock_no_session_is_taken_for_dead() {
    let cases: [(&str, Work); 3] = [
        ("a session begins", |store, _| drop(store.session(LOCAL).unwrap())),
        ("dead ones are looked for", |store, root| {
            fs::create_dir(root.join("ingest/dead1111")).unwrap();
            store.recover_all().unwrap();
        }),
        ("a scan tells the living from the dead", |store, root| {
            fs::create_dir(root.join("ingest/dead1111")).unwrap();
            store.scan().unwrap();
        }),
    ];
    for (case, work) in cases {
        assert!(waits(sessions, work), "{case}");
    }
}

#[test]
fn between_its_row_and_the_mount_nothing_is_taken_for_stale() {
    let cases: [(&str, Work); 6] = [
        ("something is mounted", |store, root| {
            let point = root.join("nothing to mount");
            fs::create_dir(&point).unwrap();
            let stack = Stack { lowers: vec![root.join("none")], ..Stack::default() };
            let subject = Subject::Image(manifest("none"));
            store.mount(&subject, &[], MountPoint::At(&point), &stack, &MountOptions::default()).unwrap_err();
        }),
        ("something is unmounted", |store, root| {
            let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
            mount_row(root, boot.trim());
            store.unmount(&store.mounts().unwrap()[0]).unwrap();
        }),
        ("a snapshot is committed", |store, _| {
            store.commit_snapshot(LOCAL, "done", "none", &SnapshotCommit::default()).unwrap_err();
        }),
        ("rows of mounts that are gone are forgotten", |store, root| {
            mount_row(root, "another");
            store.forget_stale_mounts().unwrap();
        }),
        ("mount points are tidied up", |store, _| store.tidy_mount_points().unwrap()),
        ("what nobody knows goes", |store, root| {
            store.discard_unknown(&unknown(root)).unwrap();
        }),
    ];
    for (case, work) in cases {
        assert!(waits(mounts, work), "{case}");
    }
}
