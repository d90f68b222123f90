//! Opening: what is refused, what is migrated, and many at once.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Barrier;
use std::time::Duration;

use layerstore_oci::ErrorKind;
use layerstore_store::{Error, Key, LOCAL, Store, Surroundings};

use crate::{add_image, audit, open, sql};

/// Opening fails, and leaves every byte of the database as it was.
fn refused(root: &Path) -> Error {
    let path = root.join("layerstore.db");
    let before = fs::read(&path).ok();
    let error = Store::open(root, Surroundings::default()).unwrap_err();
    assert_eq!(fs::read(&path).ok(), before, "the database was changed");
    assert_eq!(fs::metadata(root.join("layerstore.db-wal")).map_or(0, |m| m.len()), 0);
    error
}

pub(crate) fn execute(root: &Path, statement: &str) {
    rusqlite::Connection::open(root.join("layerstore.db")).unwrap().execute_batch(statement).unwrap();
}

#[test]
fn formats_of_others_are_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    drop(open(root));
    execute(root, "PRAGMA user_version = 1000");
    let error = refused(root);
    assert!(matches!(error, Error::NewerFormat { found: 1000, .. }), "{error}");
    assert_eq!(error.kind(), ErrorKind::Unsupported);

    execute(root, "PRAGMA application_id = 7");
    assert!(matches!(refused(root), Error::NotAStore { .. }), "whose version 1000 it is comes first");
    for version in [0, 1, 2] {
        execute(root, &format!("PRAGMA user_version = {version}"));
        assert!(matches!(refused(root), Error::NotAStore { .. }), "version {version}");
    }
}

#[test]
fn an_unknown_feature_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()));
    execute(dir.path(), "INSERT INTO feature VALUES ('telepathy')");
    let error = refused(dir.path());
    assert!(matches!(&error, Error::UnknownFeature { feature, .. } if feature == "telepathy"), "{error}");
}

#[test]
fn a_file_that_is_no_database_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("layerstore.db"), "not a database, but long enough to be asked ".repeat(99))
        .unwrap();
    assert_eq!(refused(dir.path()).kind(), ErrorKind::Corrupt);
}

/// Switching to WAL mode fails while anybody reads, if only the version.
#[test]
fn nobody_looks_while_the_database_is_created() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(dir.path());
    let creating = first.claim(&Key::Schema).unwrap();
    std::thread::scope(|scope| {
        let second = scope.spawn(|| drop(open(dir.path())));
        std::thread::sleep(Duration::from_millis(100));
        assert!(!second.is_finished(), "the database was read");
        drop(creating);
    });
}

#[test]
fn eight_threads_meet_an_empty_root() {
    for _ in 0..10 {
        let dir = tempfile::tempdir().unwrap();
        let (root, barrier) = (dir.path().join("new/store"), Barrier::new(8));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    barrier.wait();
                    let store = open(&root);
                    add_image(&store, &store.session(LOCAL).unwrap(), "localhost/a:1", "a", &["base"])
                        .unwrap();
                });
            }
        });
        audit(&root);
    }
}

const ROOT: &str = "LAYERSTORE_TEST_ROOT";

#[test]
fn eight_processes_meet_an_empty_root() {
    for _ in 0..5 {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("store");
        let start = || {
            Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "open::one_of_eight_processes", "--ignored", "--quiet"])
                .env(ROOT, &root)
                .stdout(std::process::Stdio::null())
                .spawn()
                .unwrap()
        };
        let children: Vec<_> = std::iter::repeat_with(start).take(8).collect();
        for mut child in children {
            assert!(child.wait().unwrap().success());
        }
        // A tree that came second may have been found by a recovery before its publisher got to it.
        open(&root).empty_trash().unwrap();
        audit(&root);
        assert_eq!(sql(&root, "SELECT name FROM reference").len(), 1);
    }
}

#[test]
#[ignore = "run by eight_processes_meet_an_empty_root"]
fn one_of_eight_processes() {
    let store = open(Path::new(&std::env::var_os(ROOT).unwrap()));
    for _ in 0..3 {
        let session = store.session(LOCAL).unwrap();
        add_image(&store, &session, "localhost/a:1", "a", &["base", "a"]).unwrap();
        store.recover().unwrap();
    }
}

#[test]
fn a_directory_of_somebody_else_is_left_alone() {
    for path in ["trash/thesis", "ingest/data", "overlay2/abcd1234/x", "notes", "blobs/sha256/x"] {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join(path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, "precious").unwrap();
        assert!(matches!(refused(dir.path()), Error::NoDatabase { .. }), "{path}");
        assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
        assert!(!dir.path().join("layerstore.db").exists(), "{path}");
    }
}

#[test]
fn a_store_that_has_lost_its_database_is_not_begun_anew() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    add_image(&store, &store.session(LOCAL).unwrap(), "localhost/a:1", "a", &["base"]).unwrap();
    drop(store);
    for name in ["layerstore.db-wal", "layerstore.db-shm"] {
        fs::remove_file(dir.path().join(name)).unwrap_or_default();
    }
    fs::write(dir.path().join("layerstore.db"), "").unwrap();
    assert!(matches!(refused(dir.path()), Error::NoDatabase { .. }));
    fs::remove_file(dir.path().join("layerstore.db")).unwrap();
    assert!(matches!(refused(dir.path()), Error::NoDatabase { .. }));
}
