//! Mounts protect what they show.

use std::fs;
use std::path::Path;
use std::process::Command;

use layerstore_oci::ErrorKind;
use layerstore_store::{LOCAL, MountApi, Publication, Store, TreeId};

use crate::{add_image, audit, collect, diff_id, manifest, names, open, tree};

fn skip() -> bool {
    let root = rustix::process::geteuid().is_root();
    let wanted = std::env::var("LAYERSTORE_TEST_SKIP").unwrap_or_default();
    assert!(
        root || wanted.split(',').any(|kind| kind.trim() == "privileged"),
        "this test needs root, or set LAYERSTORE_TEST_SKIP=privileged to leave such tests out"
    );
    !root
}

fn stack(store: &Store) -> Vec<TreeId> {
    ["a", "base"].map(|layer| store.tree(&diff_id(layer)).unwrap().unwrap().id).to_vec()
}

fn with_image(root: &Path) -> Store {
    let store = open(root);
    add_image(&store, &store.session(LOCAL).unwrap(), "localhost/a:1", "a", &["base", "a"]).unwrap();
    store
}

/// Takes the mounts along when a test fails.
struct Unmount<'a>(&'a Path);

impl Drop for Unmount<'_> {
    fn drop(&mut self) {
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
        for target in table.lines().rev().filter_map(|line| line.split(' ').nth(4)) {
            if Path::new(target).starts_with(self.0) {
                Command::new("umount").args(["--lazy", target]).status().unwrap();
            }
        }
    }
}

#[test]
fn privileged_what_is_mounted_stays() {
    if skip() {
        return;
    }
    for api in [MountApi::Newest, MountApi::Classic] {
        let dir = tempfile::tempdir().unwrap();
        let _unmount = Unmount(dir.path());
        let store = with_image(dir.path());
        let target = store.mount_image(&manifest("a"), &stack(&store), None, api).unwrap();
        assert_eq!(fs::read_to_string(target.join("file")).unwrap(), "a");
        assert_eq!(store.mount_image(&manifest("a"), &stack(&store), None, api).unwrap(), target, "once");

        assert!(collect(&store, &["localhost/a:1"]).unwrap().is_empty());
        store.forget_stale_mounts().unwrap();
        assert_eq!(store.recover_all().unwrap().unrecorded, 0);
        assert_eq!(fs::read_to_string(target.join("file")).unwrap(), "a");

        let row = store.live_mounts().unwrap().pop().unwrap();
        store.unmount_image(&row).unwrap();
        assert!(!target.exists(), "its own directory goes along");
        assert_eq!(collect(&store, &[]).unwrap().len(), 8);
        audit(dir.path());
        assert!(names(&dir.path().join("mnt")).is_empty());
    }
}

#[test]
fn privileged_a_tree_that_is_replaced_while_mounted_goes_after() {
    if skip() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let _unmount = Unmount(dir.path());
    let store = with_image(dir.path());
    let old = stack(&store);
    let target = store.mount_image(&manifest("a"), &old, None, MountApi::Newest).unwrap();
    // As if mounted through another mount of the filesystem.
    rusqlite::Connection::open(dir.path().join("layerstore.db"))
        .unwrap()
        .execute_batch("UPDATE tree SET mount_id = 0")
        .unwrap();
    let session = store.session(LOCAL).unwrap();
    let trees = vec![tree(&session, "a").unwrap()];
    store.publish(&session, Publication { trees, ..Publication::default() }).unwrap();
    drop(session);
    store.recover_all().unwrap();
    collect(&store, &[]).unwrap();
    assert_ne!(stack(&store), old);
    assert_eq!(fs::read_to_string(target.join("file")).unwrap(), "a");
    assert_eq!(names(&dir.path().join("overlay2")).len(), 3);

    // Debris goes also while something is mounted.
    fs::create_dir_all(dir.path().join("overlay2/orphan00/diff")).unwrap();
    assert_eq!(store.recover_all().unwrap().unrecorded, 1);

    // Somebody unmounts without telling.
    assert!(Command::new("umount").arg(&target).status().unwrap().success());
    store.forget_stale_mounts().unwrap();
    assert_eq!(store.recover_all().unwrap().unrecorded, 1);
    store.empty_trash().unwrap();
    audit(dir.path());
}

#[test]
fn privileged_stale_rows_and_directories_go() {
    if skip() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let store = with_image(dir.path());
    let boots = ["another boot", &fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap()];
    let db = rusqlite::Connection::open(dir.path().join("layerstore.db")).unwrap();
    for boot in boots.map(str::trim) {
        // Killed between the row and the mount, with `mount(2)`'s links.
        let target = dir.path().join("mnt").join(boot);
        fs::create_dir_all(&target).unwrap();
        fs::create_dir_all(dir.path().join("mnt/.links-x/0")).unwrap();
        db.execute(
            "INSERT INTO mount VALUES (?1, ?2, ?3, 1, 0)",
            (target.to_str().unwrap().as_bytes(), manifest("a").to_string(), boot),
        )
        .unwrap();
    }
    store.forget_stale_mounts().unwrap();
    assert!(names(&dir.path().join("mnt")).is_empty());
    assert_eq!(collect(&store, &["localhost/a:1"]).unwrap().len(), 8);
}

#[test]
fn privileged_images_that_went_meanwhile_are_not_mounted() {
    if skip() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let store = with_image(dir.path());
    let trees = stack(&store);
    collect(&store, &["localhost/a:1"]).unwrap();
    let error = store.mount_image(&manifest("a"), &trees, None, MountApi::Newest).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(names(&dir.path().join("mnt")).is_empty() && store.mounts().unwrap().is_empty());
}

#[test]
fn privileged_one_of_many_mounts_at_once_wins() {
    if skip() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let _unmount = Unmount(dir.path());
    let first = with_image(dir.path());
    for _ in 0..10 {
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let store = open(dir.path());
                    let trees = stack(&store);
                    store.forget_stale_mounts().unwrap();
                    store.mount_image(&manifest("a"), &trees, None, MountApi::Newest).unwrap();
                    store.forget_stale_mounts().unwrap();
                });
            }
        });
        let rows = first.live_mounts().unwrap();
        assert_eq!(rows.len(), 1);
        first.unmount_image(&rows[0]).unwrap();
        assert!(!rows[0].target.exists(), "mounted once");
    }
}
