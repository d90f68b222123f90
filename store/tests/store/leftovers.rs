//! Files that no row explains, and each reason for which one of them stays.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use layerstore_store::{
    Clock, DiscardFate as Fate, LOCAL, Object, Publication, Recovered, Size, Store, Surroundings,
    UnixSeconds, Unknown,
};

use crate::open::execute;
use crate::{add_image, audit_rows, diff_id, digest, manifest, open, sql, tree};

fn discard(store: &Store, path: PathBuf) -> Fate {
    store.discard_unknown(&[Unknown { path, size: Size::default() }]).unwrap().remove(0).fate
}

fn judge(store: &Store, path: &Path, interrupted: bool) -> Fate {
    let unknown = Unknown { path: path.to_owned(), size: Size::default() };
    store.judge_unknown(&[unknown], interrupted).unwrap().remove(0).fate
}

/// A mount, as far as rows tell: of this boot, and with one tree.
fn mount_row(root: &Path, target: &Path, tree: &str) {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let target = format!("CAST('{}' AS BLOB), 1", target.display());
    let columns = "target, namespace, manifest, boot_id, own_directory, created_at";
    execute(
        root,
        &format!(
            "INSERT INTO mount ({columns}) VALUES ({target}, '{}', '{}', 1, 0); INSERT INTO mount_tree VALUES ({target}, '{tree}')",
            manifest("a"),
            boot.trim()
        ),
    );
}

#[test]
fn a_mount_point_with_a_row_stays_and_so_does_a_tree_that_only_a_mount_knows() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let [known, other] = ["known", "other"].map(|name| dir.path().join("mnt").join(name));
    for point in [&known, &other] {
        fs::create_dir_all(point.join("file")).unwrap();
    }
    let tree = dir.path().join("overlay2/aaaaaaaa");
    fs::create_dir_all(tree.join("diff")).unwrap();
    mount_row(dir.path(), &known, "aaaaaaaa");
    let found = store.scan().unwrap().unknown.into_iter().map(|unknown| unknown.path);
    let found: std::collections::BTreeSet<PathBuf> = found.collect();
    assert_eq!(found, [known.join("file"), other.clone(), tree.clone()].into());
    assert_eq!(discard(&store, known), Fate::Explained);
    let empty = dir.path().join("mnt/empty");
    fs::create_dir(&empty).unwrap();
    assert_eq!(discard(&store, empty), Fate::Explained, "somebody may be about to mount there");
    assert_eq!(discard(&store, tree.clone()), Fate::Used("a mount of the store".to_owned()));
    assert_eq!(store.recover_all().unwrap().unrecorded, 0);
    assert!(matches!(discard(&store, other), Fate::Trashed(_)));
    execute(dir.path(), "PRAGMA foreign_keys = ON; UPDATE mount SET boot_id = 'another'");
    assert!(matches!(discard(&store, tree), Fate::Trashed(_)), "it went down with the machine");
}

#[test]
fn another_store_that_somebody_has_put_below_the_root_stays() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let other = dir.path().join("other");
    drop(open(&other));
    assert_eq!(discard(&store, other.clone()), Fate::Used("another store that is in it".to_owned()));
    audit_rows(&other);
}

/// Tells the time.
#[derive(Debug, Default)]
struct Now(AtomicI64);

impl Clock for Now {
    fn now(&self) -> UnixSeconds {
        self.0.load(Ordering::Relaxed)
    }
}

/// A blob that was whole when its pull died is a download; anything else of that name is not.
#[test]
fn only_what_an_interrupted_pull_may_have_left_is_kept_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let now = Arc::new(Now::default());
    let store =
        Store::open(dir.path(), Surroundings { clock: now.clone(), ..Surroundings::default() }).unwrap();
    let path = store.layout().blob(&digest("layer"));
    let mut session = store.session(LOCAL).unwrap();
    let place = || fs::write(&path, "layer").unwrap();
    place();
    assert!(
        matches!(discard(&store, path.clone()), Fate::Trashed(_)),
        "a session lives, and no pull was interrupted"
    );
    session.outlast("pull a", 100).unwrap();
    // It is not shortened by an attempt that would wait for less.
    store.session(LOCAL).unwrap().outlast("pull a", 10).unwrap();
    now.0.store(99, Ordering::Relaxed);
    place();
    assert_eq!(judge(&store, &path, false), Fate::Resumable);
    assert!(path.exists() && store.partials().unwrap().is_empty(), "it was only asked");
    assert!(matches!(judge(&store, &path, true), Fate::Trashed(_)));
    assert!(path.exists());
    assert_eq!(discard(&store, path.clone()), Fate::Resumable);
    assert_eq!(store.partial_size(&digest("layer")), 5);
    symlink("/etc/passwd", &path).unwrap();
    assert!(matches!(discard(&store, path.clone()), Fate::Trashed(_)), "it is a link");
    place();
    now.0.store(100, Ordering::Relaxed);
    assert!(matches!(discard(&store, path), Fate::Trashed(_)), "its time is over");
}

#[test]
fn after_another_boot_files_without_a_row_are_looked_for() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    store.recover().unwrap();
    let orphan = || fs::create_dir_all(dir.path().join("overlay2/orphan00/diff")).unwrap();
    orphan();
    assert_eq!(store.recover().unwrap(), Recovered::default());
    execute(dir.path(), "UPDATE meta SET value = 'another' WHERE key = 'recovered_in_boot'");
    assert_eq!(store.recover().unwrap(), Recovered { sessions: 0, unrecorded: 1 });
    orphan();
    assert_eq!(store.recover().unwrap(), Recovered::default(), "once");
}

#[test]
fn files_of_rows_are_not_swept() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    add_image(&store, &store.session(LOCAL).unwrap(), "localhost/a:1", "a", &["base"]).unwrap();
    let tree = store.tree(&diff_id("base")).unwrap().unwrap().id;
    let swept = store.sweep(&[Object::Tree(tree), Object::Blob(digest("base"))]).unwrap();
    assert_eq!(swept, []);
    audit_rows(dir.path());
}

#[test]
fn a_tree_that_is_published_again_stays_while_a_mount_has_it() {
    for mounted in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        add_image(&store, &store.session(LOCAL).unwrap(), "localhost/a:1", "a", &["base"]).unwrap();
        let old = store.tree(&diff_id("base")).unwrap().unwrap().id;
        if mounted {
            mount_row(dir.path(), Path::new("/none"), old.as_str());
        }
        execute(dir.path(), "UPDATE tree SET mount_id = mount_id + 1");
        let session = store.session(LOCAL).unwrap();
        let trees = vec![tree(&session, "base").unwrap()];
        store.publish(&session, Publication { trees, ..Publication::default() }).unwrap();
        assert_ne!(store.tree(&diff_id("base")).unwrap().unwrap().id, old);
        assert_eq!(store.layout().tree(&old).exists(), mounted);
    }
}

/// What cannot be told of a mount does not make it one that is gone.
#[test]
fn a_mount_that_cannot_be_looked_at_is_taken_for_there() {
    use std::os::unix::fs::MetadataExt as _;
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    mount_row(dir.path(), Path::new("/none"), "aaaaaaaa");
    let namespace = fs::metadata("/proc/self/ns/mnt").unwrap().ino();
    // No path has a NUL in it.
    let change =
        format!("PRAGMA foreign_keys = OFF; UPDATE mount SET target = x'2f0061', namespace = {namespace}");
    execute(dir.path(), &change);
    store.forget_stale_mounts().unwrap();
    assert_eq!((store.mounts().unwrap().len(), store.live_mounts().unwrap().len()), (1, 1));
}

#[test]
fn the_lease_of_a_session_that_died_ends_with_what_it_left() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    fs::create_dir(dir.path().join("ingest/dead1111")).unwrap();
    let lease = "INSERT INTO lease VALUES ('dead1111', 'local', 1, 'boot', 9000000000, NULL);";
    let item = format!("INSERT INTO lease_item VALUES ('dead1111', 'blob', '{}')", digest("base"));
    execute(dir.path(), &format!("{lease}{item}"));
    add_image(&store, &store.session(LOCAL).unwrap(), "localhost/a:1", "a", &["base"]).unwrap();
    let roots = || store.graph_to_collect(false).unwrap().roots.len();
    assert_eq!(roots(), 1, "the name");
    assert_eq!(store.recover_all().unwrap().sessions, 1);
    assert_eq!(sql(dir.path(), "SELECT id FROM lease").len(), 0);
    assert_eq!(roots(), 1);
}
