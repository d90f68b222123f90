//! A store that cannot be trusted is not collected.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use layerstore_oci::ErrorKind;
use layerstore_store::{LOCAL, NewSnapshot, Store, Surroundings};

use crate::open::execute;
use crate::{add_image, diff_id, digest, manifest, open, sql};

/// A store with an image, a snapshot above it, a lease and a mount.
fn filled(root: &Path) -> Store {
    let store = open(root);
    let mut session = store.session(LOCAL).unwrap();
    session.outlast("pull", 1000).unwrap();
    add_image(&store, &session, "localhost/a:1", "a", &["base", "a"]).unwrap();
    let layers = vec![diff_id("base"), diff_id("a")];
    let new =
        NewSnapshot { owner: LOCAL.to_owned(), key: "work".to_owned(), layers, ..NewSnapshot::default() };
    store.insert_snapshot(&new, Some(store.writable_tree().unwrap())).unwrap();
    store
}

/// Everything on disk but the database, and all rows.
fn state(root: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut open = vec![root.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                open.push(entry.path());
            }
            if !entry.file_name().to_string_lossy().starts_with("layerstore.db") {
                found.insert(entry.path().display().to_string());
            }
        }
    }
    for table in
        ["blob", "edge", "image", "image_layer", "reference", "tree", "snapshot", "lease_item", "mount_tree"]
    {
        found.extend(sql(root, &format!("SELECT '{table} ' || count(*) FROM {table}")));
    }
    found
}

fn refused(store: &Store, root: &Path, kind: ErrorKind, case: &str) {
    let before = state(root);
    for found in [store.graph(), store.graph_to_collect(true)] {
        let Err(error) = found else { panic!("{case}: not refused") };
        assert_eq!(error.kind(), kind, "{case}: {error}");
    }
    assert_eq!(state(root), before, "{case}");
}

#[test]
fn rows_that_lead_nowhere_or_say_nonsense_stop_a_collection() {
    let none = digest("none");
    let cases = [
        format!("UPDATE reference SET target = '{none}'"),
        format!("UPDATE edge SET parent = '{none}'"),
        format!("UPDATE edge SET parent = '{none}', child = '{}'", digest("none as well")),
        format!("UPDATE image SET manifest = '{none}'"),
        format!("UPDATE image_layer SET manifest = '{none}'"),
        format!("UPDATE image_layer SET manifest = '{}'", digest("config a")),
        "UPDATE snapshot SET parent = 'none' WHERE key = 'work'".to_owned(),
        "UPDATE snapshot SET tree = '00000000' WHERE key = 'work'".to_owned(),
        "UPDATE snapshot SET tree = NULL WHERE key = 'work'".to_owned(),
        "DELETE FROM edge".to_owned(),
        "DELETE FROM edge WHERE kind = 'config'".to_owned(),
        format!("DELETE FROM edge WHERE child = '{}'", digest("base")),
        "UPDATE edge SET kind = 'subject'".to_owned(),
        format!("DELETE FROM blob WHERE digest = '{}'", digest("config a")),
        "DELETE FROM image_layer".to_owned(),
        "DELETE FROM image_layer WHERE position = 0".to_owned(),
        format!("UPDATE image_layer SET blob = '{none}' WHERE position = 1"),
        "UPDATE snapshot SET tree = '00000000' WHERE key <> 'work'".to_owned(),
        "UPDATE snapshot SET fixup = '00000000' WHERE key <> 'work'".to_owned(),
        "DELETE FROM lease".to_owned(),
        "INSERT INTO mount_tree VALUES (x'2f6d', 1, '00000000')".to_owned(),
        format!("INSERT INTO container VALUES ('x', 'local', 'x', '{}', 'a', '{{}}', 0)", manifest("a")),
        format!("INSERT INTO container VALUES ('work', 'local', 'x', '{none}', 'a', '{{}}', 0)"),
        "UPDATE blob SET digest = 'sha256:short' WHERE diff_id IS NULL AND size > 8".to_owned(),
        "UPDATE blob SET size = -1".to_owned(),
        "UPDATE edge SET kind = 'other'".to_owned(),
        "UPDATE snapshot SET kind = 'other'".to_owned(),
        "UPDATE lease_item SET kind = 'other'".to_owned(),
        "UPDATE lease_item SET key = 'nonsense'".to_owned(),
        "UPDATE image SET config = 'nonsense'".to_owned(),
        "UPDATE image_layer SET diff_id = 'nonsense' WHERE position = 0".to_owned(),
        "UPDATE tree SET id = '../../etc' WHERE diff_id IS NULL".to_owned(),
        format!("UPDATE tree SET diff_id = 'nonsense' WHERE diff_id = '{}'", diff_id("base")),
        "UPDATE tree SET allocated = -1".to_owned(),
    ];
    for case in cases {
        let dir = tempfile::tempdir().unwrap();
        let store = filled(dir.path());
        let statement = format!("PRAGMA foreign_keys = OFF; PRAGMA ignore_check_constraints = ON; {case}");
        execute(dir.path(), &statement.replace("UPDATE ", "UPDATE OR REPLACE "));
        refused(&store, dir.path(), ErrorKind::Corrupt, &case);
    }
}

#[test]
fn a_newer_format_or_an_unknown_feature_stops_everything() {
    for change in ["PRAGMA user_version = 999", "INSERT INTO feature VALUES ('other')"] {
        let dir = tempfile::tempdir().unwrap();
        drop(filled(dir.path()));
        execute(dir.path(), change);
        let before = state(dir.path());
        let error = Store::open(dir.path(), Surroundings::default()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        assert_eq!(state(dir.path()), before);
    }
}

/// It is there, and it is not: what cannot be listed may be a live session's.
#[test]
fn ingests_that_cannot_be_read_stop_a_collection() {
    let dir = tempfile::tempdir().unwrap();
    let store = filled(dir.path());
    fs::remove_dir_all(dir.path().join("ingest")).unwrap();
    fs::write(dir.path().join("ingest"), "x").unwrap();
    let before = state(dir.path());
    let error = store.graph_to_collect(false).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io, "{error}");
    assert!(error.to_string().contains("ingest"), "{error}");
    assert_eq!(state(dir.path()), before);
}

/// Any page of it, also those that a collection needs for other things than the graph.
#[test]
fn a_damaged_database_stops_a_collection() {
    let dir = tempfile::tempdir().unwrap();
    drop(filled(dir.path()));
    let path = dir.path().join("layerstore.db");
    execute(dir.path(), "PRAGMA wal_checkpoint(TRUNCATE)");
    let whole = fs::read(&path).unwrap();
    let pages: Vec<i64> = {
        let db = rusqlite::Connection::open(&path).unwrap();
        let tables = ["blob", "edge", "image", "image_layer", "reference", "tree", "snapshot", "lease_item"];
        let root = |table| {
            let query = "SELECT rootpage FROM sqlite_schema WHERE name = ?1";
            db.query_row(query, [table], |row| row.get(0)).unwrap()
        };
        tables.into_iter().map(root).collect()
    };
    for page in pages {
        let mut bytes = whole.clone();
        let start = (usize::try_from(page).unwrap() - 1) * 4096;
        bytes[start..start + 4096].fill(0xa5);
        for name in ["layerstore.db-wal", "layerstore.db-shm"] {
            drop(fs::remove_file(dir.path().join(name)));
        }
        fs::write(&path, &bytes).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let found =
            Store::open(dir.path(), Surroundings::default()).and_then(|store| store.graph_to_collect(false));
        let error = found.map(drop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "page {page}: {error}");
        let left = fs::read_dir(dir.path().join("blobs/sha256")).unwrap().count();
        assert_eq!(left, 4, "page {page}");
    }
}
