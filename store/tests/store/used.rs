//! What others have mounted, or wrote in another boot, and what must not happen to it.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use layerstore_oci::ErrorKind;
use layerstore_store::{
    LOCAL, MountApi, MountOptions, MountPoint, NewSnapshot, Object, Publication, Result, Settings,
    SnapshotCommit, Stack, Store, Subject, TreeId, Upper, has_volatile_mark,
};

use crate::mounts::{Unmount, skip};
use crate::open::execute;
use crate::{add_image, audit, collect, diff_id, digest, names, open, sql, tree};

const OWNER: &str = "runtime";

fn new(key: &str, parent: Option<&str>, settings: Settings) -> NewSnapshot {
    let (owner, key, parent) = (OWNER.to_owned(), key.to_owned(), parent.map(str::to_owned));
    NewSnapshot { owner, key, parent, settings, ..NewSnapshot::default() }
}

fn upper(store: &Store, key: &str) -> Upper {
    let tree = store.links(OWNER, key).unwrap()[0].tree.clone().unwrap();
    Upper { tree: store.layout().tree(&tree.id) }
}

/// A committed snapshot `base`, and an active one `work` above it.
fn with_snapshots(root: &Path, settings: Settings) -> Store {
    let store = open(root);
    store
        .insert_snapshot(&new("a", None, Settings::default()), Some(store.writable_tree().unwrap()))
        .unwrap();
    fs::write(upper(&store, "a").diff().join("below"), "1").unwrap();
    store.commit_snapshot(OWNER, "base", "a", &SnapshotCommit::default()).unwrap();
    store
        .insert_snapshot(&new("work", Some("base"), settings), Some(store.writable_tree().unwrap()))
        .unwrap();
    store
}

fn mount_work(store: &Store, options: &MountOptions) -> Result<std::path::PathBuf> {
    let base = store.links(OWNER, "base").unwrap()[0].tree.clone().unwrap().id;
    let stack = Stack {
        lowers: vec![store.layout().diff(&base)],
        upper: Some(upper(store, "work")),
        ..Stack::default()
    };
    let subject = Subject::Snapshot { owner: OWNER.to_owned(), key: "work".to_owned() };
    store.mount(&subject, &[base], MountPoint::Own("work"), &stack, options)
}

fn run(command: &mut Command) {
    assert!(command.status().unwrap().success(), "{command:?}");
}

fn ids(store: &Store) -> Vec<TreeId> {
    ["a", "base"].map(|layer| store.tree(&diff_id(layer)).unwrap().unwrap().id).to_vec()
}

/// A copy of the mount that the store knows nothing of, as a runtime makes one.
#[test]
fn privileged_what_is_mounted_a_second_time_by_hand_is_in_use() {
    if skip() {
        return;
    }
    for api in [MountApi::Newest, MountApi::Classic] {
        let [dir, outside] = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let (_inner, _outer) = (Unmount(dir.path()), Unmount(outside.path()));
        let store = with_snapshots(dir.path(), Settings::default());
        let target = mount_work(&store, &api.into()).unwrap();
        run(Command::new("mount").arg("--bind").arg(&target).arg(outside.path()));
        store.unmount(&store.live_mounts().unwrap()[0]).unwrap();
        assert!(store.live_mounts().unwrap().is_empty());
        let users = |owner| store.snapshots_in_use(owner).unwrap().into_keys().collect::<Vec<_>>();
        assert_eq!((users(OWNER), users(LOCAL)), (vec!["work".to_owned()], Vec::new()));
        let errors = [
            store.remove_snapshot(OWNER, "work").map(drop).unwrap_err(),
            mount_work(&store, &api.into()).unwrap_err(),
            store.commit_snapshot(OWNER, "done", "work", &SnapshotCommit::default()).unwrap_err(),
        ];
        for error in errors {
            assert_eq!(error.kind(), ErrorKind::InUse, "{error}");
            let user = format!("work is in use by a mount at {}", outside.path().display());
            assert!(error.to_string().contains(&user), "{error}");
        }
        fs::write(outside.path().join("file"), "x").unwrap();
        run(Command::new("umount").arg(outside.path()));
        let target = mount_work(&store, &api.into()).unwrap();
        assert_eq!(names(&target), BTreeSet::from(["below", "file"].map(str::to_owned)));
        store.unmount(&store.live_mounts().unwrap()[0]).unwrap();
        let discarded = store.remove_snapshot(OWNER, "work").unwrap();
        store.unlink_discarded(discarded).unwrap();
        assert_eq!(names(&dir.path().join("overlay2")).len(), 1);
    }
}

/// As data, for who mounts by himself: the store has no row of it.
#[test]
fn privileged_layers_that_a_runtime_has_mounted_stay() {
    if skip() {
        return;
    }
    let [dir, outside] = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let _unmount = Unmount(outside.path());
    let store = open(dir.path());
    add_image(&store, &store.session(LOCAL).unwrap(), "localhost/a:1", "a", &["base", "a"]).unwrap();
    let old = ids(&store);
    let lowers = old.iter().map(|id| store.layout().diff(id)).collect();
    let stack = Stack { lowers, ..Stack::default() };
    let mount = stack.as_mount(store.layout(), &MountOptions::default()).unwrap();
    run(Command::new("mount")
        .args(["-t", &mount.kind, "-o"])
        .arg(mount.options.join(std::ffi::OsStr::new(",")))
        .arg(&mount.source)
        .arg(outside.path()));
    let file = || fs::read_to_string(outside.path().join("file")).unwrap();
    execute(dir.path(), "UPDATE tree SET mount_id = mount_id + 1");

    let session = store.session(LOCAL).unwrap();
    let trees = ["a", "base"].map(|layer| tree(&session, layer).unwrap()).into();
    store.publish(&session, Publication { trees, ..Publication::default() }).unwrap();
    drop(session);
    assert!(ids(&store).iter().all(|id| !old.contains(id)), "they were published again");
    assert_eq!((names(&dir.path().join("overlay2")).len(), file()), (4, "a".to_owned()));
    store.recover_all().unwrap();
    assert_eq!((names(&dir.path().join("overlay2")).len(), file()), (4, "a".to_owned()));
    collect(&store, &["localhost/a:1"]).unwrap();
    assert_eq!((names(&dir.path().join("overlay2")).len(), file()), (2, "a".to_owned()));

    run(Command::new("umount").arg(outside.path()));
    assert_eq!(store.recover_all().unwrap().unrecorded, 2);
    store.empty_trash().unwrap();
    audit(dir.path());
}

/// The same where nobody publishes anything again: collection itself takes the rows, and not yet the files.
#[test]
fn privileged_forgotten_trees_that_are_mounted_go_later() {
    if skip() {
        return;
    }
    let [dir, outside] = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let _unmount = Unmount(outside.path());
    let store = open(dir.path());
    add_image(&store, &store.session(LOCAL).unwrap(), "localhost/a:1", "a", &["base", "a"]).unwrap();
    let one = store.layout().diff(&ids(&store)[0]);
    run(Command::new("mount").arg("--bind").arg(one).arg(outside.path()));
    collect(&store, &["localhost/a:1"]).unwrap();
    assert_eq!(fs::read_to_string(outside.path().join("file")).unwrap(), "a");
    assert_eq!(store.recover_all().unwrap().unrecorded, 0);
    run(Command::new("umount").arg(outside.path()));
    assert_eq!(store.recover_all().unwrap().unrecorded, 1);
    store.empty_trash().unwrap();
    audit(dir.path());
}

/// What did not reach the disk can only be had from the blob.
#[test]
fn blobs_stay_until_the_trees_made_of_them_are_synced() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    add_image(&store, &store.session(LOCAL).unwrap(), "localhost/a:1", "a", &["base", "a"]).unwrap();
    let layers = vec![diff_id("base"), diff_id("a")];
    let snapshot = NewSnapshot { layers, ..new("work", None, Settings::default()) };
    store.insert_snapshot(&snapshot, Some(store.writable_tree().unwrap())).unwrap();
    execute(dir.path(), "UPDATE tree SET synced = 0 WHERE diff_id IS NOT NULL");
    let blobs = |gone: &[Object]| gone.iter().filter(|object| matches!(object, Object::Blob(_))).count();
    let gone = collect(&store, &["localhost/a:1"]).unwrap();
    assert_eq!(blobs(&gone), 2, "the manifest and the config: {gone:?}");
    let is_there = |layer: &str| store.blob(&digest(layer)).unwrap().is_some();
    assert!(is_there("base") && is_there("a"));
    execute(dir.path(), "UPDATE tree SET synced = 1");
    assert_eq!(blobs(&collect(&store, &[]).unwrap()), 2);
    assert!(!is_there("base") && !is_there("a"));
    assert_eq!(names(&dir.path().join("overlay2")).len(), 3);
}

#[test]
fn privileged_a_volatile_snapshot_of_another_boot_is_refused_with_the_mark_and_without() {
    if skip() {
        return;
    }
    for marked in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let _unmount = Unmount(dir.path());
        let options = MountOptions { volatile: true, ..MountOptions::default() };
        let store = with_snapshots(dir.path(), Settings { volatile: true, ..Settings::default() });
        mount_work(&store, &options).unwrap();
        store.unmount(&store.live_mounts().unwrap()[0]).unwrap();
        let upper = upper(&store, "work");
        assert!(has_volatile_mark(&upper).unwrap());
        if !marked {
            layerstore_store::clear_volatile(&upper).unwrap();
        }
        execute(dir.path(), "UPDATE snapshot SET volatile_boot = 'another' WHERE key = 'work'");
        let commit = store.commit_snapshot(OWNER, "done", "work", &SnapshotCommit::default());
        let errors = [
            mount_work(&store, &options).unwrap_err(),
            mount_work(&store, &MountOptions::default()).unwrap_err(),
            commit.map(drop).unwrap_err(),
            store.prepare_upper(OWNER, "work", &upper, &options).unwrap_err(),
        ];
        for error in errors {
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
            assert!(error.to_string().contains("it was mounted volatile"), "{error}");
        }
        assert_eq!(has_volatile_mark(&upper).unwrap(), marked, "it is left as it is");
        let discarded = store.remove_snapshot(OWNER, "work").unwrap();
        store.unlink_discarded(discarded).unwrap();
    }
}

/// Files of a snapshot that went may still count for its number: in the trash, or because it was committed.
#[test]
fn no_project_number_is_given_twice() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let quota = Settings { quota_bytes: Some(1 << 20), ..Settings::default() };
    let mut given = BTreeSet::new();
    for round in 0..6 {
        // Also by another process.
        let store = open(dir.path());
        let tree = store.writable_tree().unwrap();
        store.insert_snapshot(&new("work", None, quota.clone()), Some(tree)).unwrap();
        let number = sql(dir.path(), "SELECT CAST(project AS TEXT) FROM snapshot WHERE key = 'work'");
        assert_eq!(number.len(), 1);
        assert!(given.is_disjoint(&number), "{number:?} again, after {given:?}");
        given.extend(number);
        if round % 2 == 0 {
            let discarded = store.remove_snapshot(OWNER, "work").unwrap();
            store.unlink_discarded(discarded).unwrap();
        } else {
            let name = format!("done-{round}");
            store.commit_snapshot(OWNER, &name, "work", &SnapshotCommit::default()).unwrap();
        }
    }
    // One that is refused may lose a number.
    assert!(store.insert_snapshot(&new("work", Some("none"), quota), None).is_err());
    assert_eq!(given.len(), 6);
}

#[test]
fn privileged_directories_without_a_row_go_and_others_stay() {
    if skip() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let _unmount = Unmount(dir.path());
    let store = with_snapshots(dir.path(), Settings::default());
    let place = mount_work(&store, &MountOptions::default()).unwrap();
    let mnt = dir.path().join("mnt");
    for name in ["left", "full", "of-others", ".links-x", "known"] {
        fs::create_dir(mnt.join(name)).unwrap();
    }
    fs::write(mnt.join("full/file"), "x").unwrap();
    fs::write(mnt.join(".links-x/0"), "x").unwrap();
    run(Command::new("mount").args(["-t", "tmpfs", "tmpfs"]).arg(mnt.join("of-others")));
    // About to be mounted, with its row written already.
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let known = mnt.join("known");
    let row = format!(
        "INSERT INTO mount (target, namespace, owner, key, boot_id, own_directory, created_at) \
         VALUES (CAST('{}' AS BLOB), 1, '{OWNER}', 'work', '{}', 1, 0)",
        known.display(),
        boot.trim()
    );
    execute(dir.path(), &row);
    store.tidy_mount_points().unwrap();
    let left = ["full", "known", "of-others", "work"].map(str::to_owned);
    assert_eq!(names(&mnt), BTreeSet::from(left), "what has files in it is not the store's to delete");
    assert!(place.join("below").exists());
}
