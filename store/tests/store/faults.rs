//! Every operation of the durable path fails once, and every one is once the last of a killed process.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use layerstore_store::{
    Disk, Error, LOCAL, NewBlob, Publication, Store, Surroundings, SystemClock, SystemDisk,
};

use crate::{add_image, audit, audit_rows, blob, collect, digest, manifest, names, open, sql, tree};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Op {
    Write,
    SyncFile,
    SyncDir,
    SyncFilesystem,
    Rename,
}

/// What happens at one of the operations.
#[derive(Debug, Clone)]
enum Fault {
    None,
    Fail(usize),
    /// The root is copied to the path before the operation is done: what a kill at that moment leaves.
    Copy(usize, PathBuf),
}

#[derive(Debug)]
struct FaultyDisk {
    root: PathBuf,
    fault: Fault,
    done: Mutex<Vec<Op>>,
}

impl FaultyDisk {
    fn new(root: &Path, fault: Fault) -> Arc<Self> {
        Arc::new(Self { root: root.to_owned(), fault, done: Mutex::default() })
    }

    fn surroundings(self: &Arc<Self>) -> Surroundings {
        Surroundings { disk: self.clone(), clock: Arc::new(SystemClock) }
    }

    fn done(&self) -> Vec<Op> {
        self.done.lock().unwrap().clone()
    }

    fn next(&self, op: Op) -> bool {
        let mut done = self.done.lock().unwrap();
        done.push(op);
        match &self.fault {
            Fault::Fail(at) => *at + 1 == done.len(),
            Fault::Copy(at, to) if *at + 1 == done.len() => {
                copy(&self.root, to);
                false
            }
            Fault::Copy(..) | Fault::None => false,
        }
    }
}

fn copy(from: &Path, to: &Path) {
    assert!(std::process::Command::new("cp").args(["-a"]).args([from, to]).status().unwrap().success());
}

fn broken() -> io::Result<()> {
    Err(io::ErrorKind::Other.into())
}

impl Disk for FaultyDisk {
    fn write(&self, mut file: &File, bytes: &[u8]) -> io::Result<()> {
        if self.next(Op::Write) {
            // A full disk takes what fits.
            file.write_all(&bytes[..bytes.len() / 2])?;
            return Err(io::ErrorKind::StorageFull.into());
        }
        SystemDisk.write(file, bytes)
    }

    fn sync_file(&self, file: &File) -> io::Result<()> {
        if self.next(Op::SyncFile) { broken() } else { SystemDisk.sync_file(file) }
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        if self.next(Op::SyncDir) { broken() } else { SystemDisk.sync_dir(path) }
    }

    fn sync_filesystem(&self, root: &File) -> io::Result<()> {
        if self.next(Op::SyncFilesystem) { broken() } else { SystemDisk.sync_filesystem(root) }
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        if self.next(Op::Rename) { broken() } else { SystemDisk.rename(from, to) }
    }
}

/// The whole life of a store, every kind of operation in it.
fn scenario(store: &Store) -> Result<(), Error> {
    let session = store.session(LOCAL)?;
    add_image(store, &session, "localhost/a:1", "a", &["base", "a"])?;
    // So many that they are synced together.
    let blobs = (0..12).map(|n| blob(&session, &format!("small {n}"), None));
    let blobs = blobs.collect::<Result<Vec<NewBlob>, _>>()?;
    store.publish(&session, Publication { blobs, ..Publication::default() })?;
    drop(session);
    let session = store.session(LOCAL)?;
    add_image(store, &session, "localhost/b:1", "b", &["base", "b"])?;
    store.set_reference(LOCAL, "localhost/c:1", &manifest("b"))?;
    drop(session);
    store.settle_older_than(0)?;
    collect(store, &["localhost/a:1"])?;
    Ok(())
}

fn check_end(root: &Path) {
    audit(root);
    let expected = ["localhost/b:1", "localhost/c:1"].map(str::to_owned);
    assert_eq!(sql(root, "SELECT name FROM reference"), expected.into());
    assert_eq!(names(&root.join("blobs/sha256")).len(), 4, "manifest, config and two layers");
    assert_eq!(names(&root.join("overlay2")).len(), 2);
}

/// Whatever was left behind, the next process finds a store that works.
fn recover_and_finish(root: &Path) {
    let store = open(root);
    audit_rows(root);
    store.recover_all().unwrap();
    store.empty_trash().unwrap();
    audit(root);
    scenario(&store).unwrap();
    check_end(root);
    collect(&store, &["localhost/b:1", "localhost/c:1"]).unwrap();
    drop(store);
    audit(root);
    for folder in ["blobs/sha256", "overlay2"] {
        assert!(names(&root.join(folder)).is_empty(), "{folder} is not empty without images");
    }
}

fn operations() -> Vec<Op> {
    let dir = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::new(dir.path(), Fault::None);
    let store = Store::open(dir.path(), disk.surroundings()).unwrap();
    scenario(&store).unwrap();
    check_end(dir.path());
    let done = disk.done();
    for op in [Op::Write, Op::SyncFile, Op::SyncDir, Op::SyncFilesystem, Op::Rename] {
        assert!(done.contains(&op), "the scenario has no {op:?}");
    }
    done
}

#[test]
fn any_operation_may_fail() {
    for (at, op) in operations().into_iter().enumerate() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("store");
        let disk = FaultyDisk::new(&root, Fault::Fail(at));
        match Store::open(&root, disk.surroundings()) {
            Ok(store) => {
                assert!(scenario(&store).is_err(), "{op:?} {at} failed unnoticed");
                assert_eq!(disk.done().get(at), Some(&op));
                let is_sync = matches!(op, Op::SyncFile | Op::SyncDir | Op::SyncFilesystem);
                assert_eq!(
                    matches!(store.session(LOCAL), Err(Error::Poisoned { .. })),
                    is_sync,
                    "{op:?} {at}"
                );
            }
            Err(error) => assert!(matches!(error, Error::Io { .. }), "{error}"),
        }
        recover_and_finish(&root);
    }
}

#[test]
fn any_operation_may_be_the_last() {
    for at in 0..operations().len() {
        let dir = tempfile::tempdir().unwrap();
        let [root, killed] = ["store", "killed"].map(|name| dir.path().join(name));
        let disk = FaultyDisk::new(&root, Fault::Copy(at, killed.clone()));
        scenario(&Store::open(&root, disk.surroundings()).unwrap()).unwrap();
        recover_and_finish(&killed);
    }
}

#[test]
fn after_a_failed_sync_nothing_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let syncs = operations().into_iter().position(|op| op == Op::SyncFile).unwrap();
    let disk = FaultyDisk::new(dir.path(), Fault::Fail(syncs));
    let store = Store::open(dir.path(), disk.surroundings()).unwrap();
    let session = store.session(LOCAL).unwrap();
    let mut open_ingest = session.ingest(layerstore_oci::Algorithm::Sha256).unwrap();
    assert!(add_image(&store, &session, "localhost/a:1", "a", &["base"]).is_err());
    let done = disk.done().len();
    let poisoned = |error: Error| assert!(matches!(error, Error::Poisoned { .. }), "{error}");
    poisoned(open_ingest.write(b"more").unwrap_err());
    poisoned(store.publish(&session, Publication::default()).unwrap_err());
    poisoned(store.lease_layers(&session, &[(digest("base"), None)]).unwrap_err());
    poisoned(store.set_reference(LOCAL, "localhost/x:1", &digest("base")).unwrap_err());
    poisoned(add_image(&store, &session, "localhost/b:1", "b", &[]).unwrap_err());
    poisoned(collect(&store, &[]).unwrap_err());
    poisoned(store.session(LOCAL).unwrap_err());
    assert_eq!(disk.done().len(), done, "the disk was touched");
    assert!(store.references(LOCAL).unwrap().is_empty(), "reading goes on");
    drop((open_ingest, session, store));
    recover_and_finish(dir.path());
}

#[test]
fn trees_count_as_durable_only_after_the_filesystem_was_synced() {
    let dir = tempfile::tempdir().unwrap();
    let synced = || sql(dir.path(), "SELECT CAST(synced AS TEXT) FROM tree");
    let [no, yes] = ["0", "1"].map(|value| std::collections::BTreeSet::from([value.to_owned()]));
    let disk = FaultyDisk::new(dir.path(), Fault::None);
    let store = Store::open(dir.path(), disk.surroundings()).unwrap();
    let session = store.session(LOCAL).unwrap();
    add_image(&store, &session, "localhost/a:1", "a", &["base", "a"]).unwrap();
    assert!(!disk.done().contains(&Op::SyncFilesystem), "a load does not wait for its trees");
    store.settle().unwrap();
    assert_eq!(synced(), no, "too young to be synced for nothing");

    let failing = FaultyDisk::new(dir.path(), Fault::Fail(0));
    let other = Store::open(dir.path(), failing.surroundings()).unwrap();
    assert!(other.settle_older_than(0).is_err());
    assert_eq!(failing.done(), [Op::SyncFilesystem]);
    assert_eq!(synced(), no, "the sync failed");

    assert_eq!(store.settle_older_than(0).unwrap(), 2);
    assert_eq!(disk.done().last(), Some(&Op::SyncFilesystem));
    assert_eq!(synced(), yes);
    assert_eq!(store.settle_older_than(0).unwrap(), 0, "once is enough");
}

#[test]
fn a_failed_write_ends_an_ingest() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::new(dir.path(), Fault::Fail(3));
    let store = Store::open(dir.path(), disk.surroundings()).unwrap();
    assert_eq!(disk.done(), [Op::SyncDir; 3]);
    let session = store.session(LOCAL).unwrap();
    let mut ingest = session.ingest(layerstore_oci::Algorithm::Sha256).unwrap();
    let error = ingest.write(b"does not fit").unwrap_err();
    assert_eq!(error.kind(), layerstore_oci::ErrorKind::NoSpace);
    assert!(ingest.write(b"does not fit").is_err(), "half of it is in the file");
    assert!(ingest.finish(None).is_err());
    // Others go on: the disk may have room again.
    let blob = blob(&session, "fits", None).unwrap();
    store.publish(&session, Publication { blobs: vec![blob], ..Publication::default() }).unwrap();
    drop(session);
    collect(&store, &[]).unwrap();
    audit(dir.path());
}

#[test]
fn what_cannot_be_tidied_up_does_not_hide_the_result() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let session = store.session(LOCAL).unwrap();
    add_image(&store, &session, "localhost/a:1", "a", &["a"]).unwrap();

    // Which trees are mounted cannot be told.
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let db = rusqlite::Connection::open(dir.path().join("layerstore.db")).unwrap();
    db.execute("INSERT INTO mount VALUES (x'2f', 1, 'sha256:', NULL, NULL, ?1, NULL, 0, 0)", [boot.trim()])
        .unwrap();
    db.execute("INSERT INTO mount_tree VALUES (x'2f', 1, 'not a tree')", []).unwrap();
    let trees = vec![tree(&session, "a").unwrap()];
    assert!(store.publish(&session, Publication { trees, ..Publication::default() }).unwrap().is_empty());
    assert_eq!(names(&dir.path().join("overlay2")).len(), 2, "both are kept");

    // The trash cannot be used.
    let unused = tree(&session, "unused").unwrap();
    std::fs::remove_dir(dir.path().join("trash")).unwrap();
    std::fs::write(dir.path().join("trash"), "").unwrap();
    let chain = digest("no such chain").into();
    let error = store.publish_fixup(&session, &chain, unused.directory, unused.usage).unwrap_err();
    assert!(matches!(error, Error::NotFound { .. }), "{error}");
}

#[test]
fn who_creates_a_store_makes_its_names_durable_first() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("store");
    let syncs = |fault| {
        let disk = FaultyDisk::new(&root, fault);
        let opened = Store::open(&root, disk.surroundings());
        (opened.is_ok(), disk.done())
    };
    assert_eq!(syncs(Fault::Fail(0)), (false, vec![Op::SyncDir]));
    assert_eq!(syncs(Fault::Fail(2)), (false, vec![Op::SyncDir; 3]), "blobs, root and its parent");
    assert_eq!(syncs(Fault::None), (true, vec![Op::SyncDir; 3]), "again");
    assert_eq!(syncs(Fault::None), (true, vec![]));
    audit(&root);
}
