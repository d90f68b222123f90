//! Mounts protect what they show.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use layerstore_oci::ErrorKind;
use layerstore_store::{
    Error, LOCAL, MountApi, MountPoint, Publication, Result, Stack, Store, Subject, TreeId,
};

use crate::{add_image, audit, collect, diff_id, manifest, names, open, tree};

pub(crate) fn skip() -> bool {
    let root = rustix::process::geteuid().is_root();
    let wanted = std::env::var("LAYERSTORE_TEST_SKIP").unwrap_or_default();
    assert!(
        root || wanted.split(',').any(|kind| kind.trim() == "privileged"),
        "this test needs root, or set LAYERSTORE_TEST_SKIP=privileged to leave such tests out"
    );
    !root
}

fn namespace() -> u64 {
    fs::metadata("/proc/self/ns/mnt").unwrap().ino()
}

fn stack(store: &Store) -> Vec<TreeId> {
    ["a", "base"].map(|layer| store.tree(&diff_id(layer)).unwrap().unwrap().id).to_vec()
}

fn with_image(root: &Path) -> Store {
    let store = open(root);
    add_image(&store, &store.session(LOCAL).unwrap(), "localhost/a:1", "a", &["base", "a"]).unwrap();
    store
}

/// Mounts the image `a` from `trees`, at the store's own place unless told otherwise.
fn mount_a(store: &Store, trees: &[TreeId], place: Option<&Path>, api: MountApi) -> Result<PathBuf> {
    let image = manifest("a");
    let lowers = trees.iter().map(|id| store.layout().diff(id)).collect();
    let stack = Stack { lowers, ..Stack::default() };
    let short = image.short();
    let point = place.map_or(MountPoint::Own(&short), MountPoint::At);
    store.mount(&Subject::Image(image.clone()), trees, point, &stack, &api.into())
}

/// Takes the mounts along when a test fails.
pub(crate) struct Unmount<'a>(pub(crate) &'a Path);

impl Drop for Unmount<'_> {
    fn drop(&mut self) {
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
        for target in table.lines().rev().filter_map(|line| line.split(' ').nth(4)) {
            if Path::new(target).starts_with(self.0) {
                let target = target.replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\");
                Command::new("umount").args(["--lazy", &target]).status().unwrap();
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
        let target = mount_a(&store, &stack(&store), None, api).unwrap();
        assert_eq!(fs::read_to_string(target.join("file")).unwrap(), "a");
        assert_eq!(mount_a(&store, &stack(&store), None, api).unwrap(), target, "once");

        assert!(collect(&store, &["localhost/a:1"]).unwrap().is_empty());
        store.forget_stale_mounts().unwrap();
        assert_eq!(store.recover_all().unwrap().unrecorded, 0);
        assert_eq!(fs::read_to_string(target.join("file")).unwrap(), "a");

        let row = store.live_mounts().unwrap().pop().unwrap();
        store.unmount(&row).unwrap();
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
    let target = mount_a(&store, &old, None, MountApi::Newest).unwrap();
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
            "INSERT INTO mount VALUES (?1, ?4, ?2, NULL, NULL, ?3, NULL, 1, 0)",
            (target.to_str().unwrap().as_bytes(), manifest("a").to_string(), boot, namespace()),
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
    let error = mount_a(&store, &trees, None, MountApi::Newest).unwrap_err();
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
                    mount_a(&store, &trees, None, MountApi::Newest).unwrap();
                    store.forget_stale_mounts().unwrap();
                });
            }
        });
        let rows = first.live_mounts().unwrap();
        assert_eq!(rows.len(), 1);
        first.unmount(&rows[0]).unwrap();
        assert!(!rows[0].target.exists(), "mounted once");
    }
}

const ROOT: &str = "LAYERSTORE_TEST_ROOT";
const MOUNTED: &str = "LAYERSTORE_TEST_MOUNTED";

#[test]
fn privileged_mounts_of_another_namespace_are_left_alone() {
    if skip() {
        return;
    }
    let [dir, outside] = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let _unmount = Unmount(dir.path());
    let store = with_image(dir.path());
    let mounted = outside.path().join("mounted");
    let mut other = Command::new("unshare")
        .args(["--mount", "--propagation", "private"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "mounts::in_another_namespace", "--ignored", "--quiet"])
        .env(ROOT, dir.path())
        .env(MOUNTED, &mounted)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    while !mounted.exists() {
        assert!(other.try_wait().unwrap().is_none(), "it did not mount");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let trees = stack(&store);
    store.forget_stale_mounts().unwrap();
    assert!(collect(&store, &["localhost/a:1"]).unwrap().is_empty());
    let row = store.live_mounts().unwrap().pop().unwrap();
    assert!(!store.is_here(&row));
    let error = store.unmount(&row).unwrap_err();
    assert!(matches!(error, Error::OtherNamespace { .. }), "{error}");

    // The same directory, here.
    let target = mount_a(&store, &trees, None, MountApi::Newest).unwrap();
    assert_eq!(target, row.target);
    let here = store.live_mounts().unwrap().into_iter().find(|row| store.is_here(row)).unwrap();
    store.unmount(&here).unwrap();
    assert!(target.exists(), "removing it would unmount the other");
    assert_eq!(store.live_mounts().unwrap(), [row]);

    drop(other.stdin.take());
    assert!(other.wait().unwrap().success());
    assert!(store.mounts().unwrap().is_empty() && !target.exists());
    assert_eq!(collect(&store, &[]).unwrap().len(), 8);
}

#[test]
#[ignore = "run by privileged_mounts_of_another_namespace_are_left_alone"]
fn in_another_namespace() {
    let store = open(Path::new(&std::env::var_os(ROOT).unwrap()));
    let target = mount_a(&store, &stack(&store), None, MountApi::Newest).unwrap();
    fs::write(std::env::var_os(MOUNTED).unwrap(), "").unwrap();
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
    assert_eq!(fs::read_to_string(target.join("file")).unwrap(), "a");
    store.unmount(&store.live_mounts().unwrap()[0]).unwrap();
}

fn mount_tmpfs(target: &Path) {
    let arguments = ["-t", "tmpfs", "of somebody else"];
    assert!(Command::new("mount").args(arguments).arg(target).status().unwrap().success());
}

#[test]
fn privileged_mounts_of_others_are_not_taken_for_ours() {
    if skip() {
        return;
    }
    let [dir, outside] = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let store = with_image(dir.path());
    let place = outside.path().canonicalize().unwrap().join("a place \\ with\ttab");
    fs::create_dir(&place).unwrap();
    let _unmount = Unmount(outside.path());
    let mount = || mount_a(&store, &stack(&store), Some(&place), MountApi::Newest).unwrap();

    // On top of ours, which lasts.
    mount();
    let row = store.live_mounts().unwrap().pop().unwrap();
    mount_tmpfs(&place);
    store.forget_stale_mounts().unwrap();
    assert_eq!(store.live_mounts().unwrap(), std::slice::from_ref(&row));
    assert_eq!(store.unmount(&row).unwrap_err().kind(), ErrorKind::InUse);
    assert!(Command::new("umount").arg(&place).status().unwrap().success());
    store.unmount(&row).unwrap();

    // In its place.
    mount();
    let row = store.live_mounts().unwrap().pop().unwrap();
    assert!(Command::new("umount").arg(&place).status().unwrap().success());
    mount_tmpfs(&place);
    assert!(store.live_mounts().unwrap().is_empty());
    store.unmount(&row).unwrap();
    assert!(store.mounts().unwrap().is_empty());
    assert!(Command::new("mountpoint").arg("--quiet").arg(&place).status().unwrap().success());
    assert!(Command::new("umount").arg(&place).status().unwrap().success());
}

#[test]
fn privileged_a_failed_mount_tells_why_though_its_row_stays() {
    if skip() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let store = with_image(dir.path());
    let trees = stack(&store);
    fs::remove_dir_all(store.layout().diff(&trees[0])).unwrap();
    rusqlite::Connection::open(dir.path().join("layerstore.db"))
        .unwrap()
        .execute_batch("CREATE TRIGGER t BEFORE DELETE ON mount BEGIN SELECT RAISE(ABORT, 'no'); END")
        .unwrap();
    let error = mount_a(&store, &trees, None, MountApi::Newest).unwrap_err();
    assert!(matches!(error, Error::Io { .. }), "{error}");
}
