//! What no row explains, and sizes to the byte.

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::PathBuf;
use std::process::Command;

use layerstore_store::{DiscardFate, Error, Missing, NewSnapshot, Object, Scan, Size, Unknown};

use super::*;

/// Bytes, without what is mounted.
fn du(path: &Path) -> u64 {
    let output = Command::new("du").args(["-x", "-B1", "-s"]).arg(path).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.split_whitespace().next().unwrap().parse().unwrap()
}

/// What the trees take that are written to.
fn written(store: &Store) -> Size {
    let graph = store.graph().unwrap();
    let ids = graph.uncounted.iter().map(|index| match &graph.nodes[*index].object {
        Object::Tree(id) => id.clone(),
        other => panic!("{other:?} is no tree"),
    });
    store.measure_trees(&ids.collect::<Vec<_>>()).unwrap().iter().sum()
}

/// The sum of everything, each byte once.
fn total(root: &Path, store: &Store, scan: &Scan) -> u64 {
    let rows = sql(
        root,
        "SELECT 'blob ' || digest || ' ' || allocated FROM blob UNION ALL \
                          SELECT 'tree ' || id || ' ' || allocated FROM tree WHERE counted",
    );
    let rows: u64 = rows.iter().map(|row| row.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum();
    let written: Size = written(store);
    let partials: Size = scan.partials.iter().map(|(_, size)| size).sum();
    let ingests: Size = scan.ingests.iter().map(|ingest| &ingest.size).sum();
    let unknown: Size = scan.unknown.iter().map(|unknown| &unknown.size).sum();
    rows + (written + partials + ingests + unknown + scan.trash + scan.database).allocated
}

/// Whether the sum is what `du` says. While it writes a file, ext4 counts blocks of it twice for a moment.
fn adds_up(root: &Path, store: &Store) -> bool {
    (0..100).any(|_| total(root, store, &store.scan().unwrap()) == du(root))
}

fn paths(scan: &Scan) -> BTreeSet<PathBuf> {
    scan.unknown.iter().map(|unknown| unknown.path.clone()).collect()
}

/// As the unpacker would say it.
fn counted_tree(session: &Session, layer: &str) -> NewTree {
    let mut new = tree(session, layer).unwrap();
    new.usage.allocated = du(&new.directory.diff());
    new
}

fn store_with_an_image(root: &Path) -> Store {
    let store = open(root);
    let session = store.session(LOCAL).unwrap();
    let publication = Publication { trees: vec![counted_tree(&session, "one")], ..Publication::default() };
    store.publish(&session, publication).unwrap();
    add_image(&store, &session, "x:1", "x", &["one"]).unwrap();
    drop(session);
    store
}

fn active(store: &Store, key: &str) -> PathBuf {
    let tree = store.writable_tree().unwrap();
    let diff = tree.diff();
    let new = NewSnapshot { owner: LOCAL.to_owned(), key: key.to_owned(), ..NewSnapshot::default() };
    store.insert_snapshot(&new, Some(tree)).unwrap();
    diff
}

/// Something in every place where nothing belongs. Returns what should be found.
fn plant(root: &Path, tree: &str) -> BTreeSet<PathBuf> {
    let mut planted = BTreeSet::new();
    let mut add = |path: &[u8]| {
        let path = root.join(OsStr::from_bytes(path));
        planted.insert(path.clone());
        path
    };
    fs::write(add(b"junk"), vec![1; 10_000]).unwrap();
    fs::create_dir_all(root.join("images/a/b")).unwrap();
    add(b"images");
    fs::write(root.join("images/a/b/file"), "x").unwrap();
    symlink("/etc", add(b"link")).unwrap();
    symlink("/etc/passwd", add(b"blobs/link")).unwrap();
    fs::create_dir(add(b"blobs/md5")).unwrap();
    fs::write(add(b"blobs/sha256/short"), "x").unwrap();
    fs::create_dir(add(format!("blobs/sha256/{}", digest("directory").hex()).as_bytes())).unwrap();
    fs::write(add(format!("blobs/sha256/{}", digest("nobody's").hex()).as_bytes()), "x").unwrap();
    fs::write(add(b"overlay2/a\nb"), "x").unwrap();
    fs::create_dir(add(b"overlay2/\xff\xfe")).unwrap();
    fs::create_dir_all(root.join("overlay2/zzzzzzzz/diff/deep")).unwrap();
    add(b"overlay2/zzzzzzzz");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        add(format!("overlay2/{tree}/fifo").as_bytes()),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RWXU,
        0,
    )
    .unwrap();
    fs::write(add(b"partial/not a digest"), "x").unwrap();
    fs::write(add(b"ingest/file"), "x").unwrap();
    fs::write(add(b"mnt/file"), "x").unwrap();
    fs::create_dir_all(root.join("mnt/full/inside")).unwrap();
    add(b"mnt/full");
    fs::create_dir(add(b"empty/2")).unwrap();
    fs::write(add(b"empty/0/file"), "x").unwrap();
    File::create(add(b"sparse")).unwrap().set_len(1 << 30).unwrap();
    // Other names of what is counted already.
    fs::hard_link(root.join("junk"), root.join("images/again")).unwrap();
    fs::hard_link(root.join(format!("overlay2/{tree}/diff/file")), add(b"hard")).unwrap();
    let blob = root.join("blobs/sha256").join(digest("one").hex());
    fs::hard_link(blob, root.join("images/blob")).unwrap();
    planted
}

#[test]
fn everything_adds_up_to_what_du_says() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    let store = store_with_an_image(&root);
    let scan = store.scan().unwrap();
    assert_eq!(paths(&scan), BTreeSet::new());
    assert!(adds_up(&root, &store));
    let tree = sql(&root, "SELECT id FROM tree").pop_first().unwrap();
    fs::write(active(&store, "container").join("written"), vec![1; 100_000]).unwrap();
    let planted = plant(&root, &tree);
    fs::write(store.layout().partial_blob(&digest("partial")), vec![1; 5000]).unwrap();
    fs::create_dir_all(root.join("trash/abc/d")).unwrap();
    fs::create_dir_all(root.join("lost+found/x")).unwrap();
    fs::create_dir_all(root.join("mnt/empty")).unwrap();
    let session = store.session(LOCAL).unwrap();
    let _ingest = session.ingest(Algorithm::Sha256).unwrap();
    fs::create_dir(root.join("ingest/dead")).unwrap();
    let scan = store.scan().unwrap();
    assert_eq!(paths(&scan), planted);
    assert!(adds_up(&root, &store));
    assert_eq!(
        scan.partials.iter().map(|(digest, _)| digest.clone()).collect::<Vec<_>>(),
        [digest("partial")]
    );
    let alive: BTreeSet<_> =
        scan.ingests.iter().map(|ingest| (ingest.name == "dead", ingest.alive)).collect();
    assert_eq!(alive, BTreeSet::from([(false, true), (true, false)]));
    let size = |name: &str| scan.unknown.iter().find(|u| u.path == root.join(name)).unwrap().size;
    assert_eq!(size("hard"), Size::default(), "it counts with its tree");
    assert!(size("sparse").allocated <= 4096 && size("sparse").apparent == 1 << 30);
    drop(session);
    // All of it goes, and then everything adds up again.
    let done = store.discard_unknown(&scan.unknown).unwrap();
    assert!(done.iter().all(|done| matches!(done.fate, DiscardFate::Trashed(_))), "{done:?}");
    store.recover_all().unwrap();
    store.empty_trash().unwrap();
    let scan = store.scan().unwrap();
    assert_eq!((paths(&scan), scan.trash), (BTreeSet::new(), Size::default()));
    assert!(adds_up(&root, &store));
    assert!(Path::new("/etc/passwd").exists());
}

#[test]
fn rows_without_their_files_are_missing() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    let store = store_with_an_image(&root);
    assert_eq!(store.scan().unwrap().missing, []);
    fs::remove_file(store.layout().blob(&digest("one"))).unwrap();
    let tree = store.tree(&diff_id("one")).unwrap().unwrap().id;
    fs::remove_dir_all(store.layout().diff(&tree)).unwrap();
    let missing = store.scan().unwrap().missing;
    assert_eq!(missing, [Missing::Blob(digest("one")), Missing::Tree(tree)]);
}

#[test]
fn a_link_in_the_place_of_a_folder_of_the_store_is_no_debris() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    let store = store_with_an_image(&root);
    let elsewhere = dir.path().join("elsewhere");
    for folder in ["overlay2", "blobs", "blobs/sha512", "partial", "empty/0"].map(|name| root.join(name)) {
        fs::rename(&folder, &elsewhere).unwrap();
        symlink(&elsewhere, &folder).unwrap();
        let refused = store.scan().unwrap_err();
        assert!(matches!(&refused, Error::Io { path, .. } if *path == folder), "{refused:?}");
        let unknown = [Unknown { path: folder.clone(), size: Size::default() }];
        assert!(store.discard_unknown(&unknown).is_err());
        assert!(folder.is_symlink());
        fs::remove_file(&folder).unwrap();
        fs::rename(&elsewhere, &folder).unwrap();
    }
    assert_eq!(paths(&store.scan().unwrap()), BTreeSet::new());
}

#[test]
fn privileged_what_is_immutable_goes() {
    use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};
    layerstore_testkit::require::root();
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    let store = open(&root);
    let planted = [root.join("file"), root.join("directory")];
    fs::write(&planted[0], "x").unwrap();
    fs::create_dir(&planted[1]).unwrap();
    for path in &planted {
        let file = File::open(path).unwrap();
        let Ok(flags) = ioctl_getflags(&file) else { return };
        ioctl_setflags(&file, flags | IFlags::IMMUTABLE).unwrap();
    }
    let done = store.discard_unknown(&store.scan().unwrap().unknown).unwrap();
    assert!(done.iter().all(|done| matches!(done.fate, DiscardFate::Trashed(_))), "{done:?}");
    assert_eq!(store.empty_trash().unwrap(), 2);
    assert!(planted.iter().all(|path| !path.exists()));
}

#[test]
fn what_has_been_explained_meanwhile_stays() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    let store = store_with_an_image(&root);
    let tree = store.tree(&diff_id("one")).unwrap().unwrap().id;
    for path in [
        store.layout().blob(&digest("one")),
        store.layout().tree(&tree),
        store.layout().diff(&tree),
        store.layout().diff(&tree).join("file"),
        store.layout().database(),
        store.layout().overlay2(),
        root.clone(),
        root.join("gone"),
        root.join("../outside"),
        PathBuf::from("/etc/passwd"),
    ] {
        let done = store.discard_unknown(&[Unknown { path, size: Size::default() }]).unwrap();
        assert_eq!(done[0].fate, DiscardFate::Explained, "{done:?}");
    }
    audit_rows(&root);
}

#[test]
fn a_whole_blob_of_an_interrupted_pull_is_kept_as_a_download() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    let store = open(&root);
    let mut session = store.session(LOCAL).unwrap();
    session.outlast("pull of x", 60).unwrap();
    drop(session);
    fs::write(store.layout().blob(&digest("x")), "x").unwrap();
    let unknown = store.scan().unwrap().unknown;
    assert_eq!(store.discard_unknown(&unknown).unwrap()[0].fate, DiscardFate::Resumable);
    assert_eq!(fs::read(store.layout().partial_blob(&digest("x"))).unwrap(), b"x");
}

#[test]
fn privileged_what_is_mounted_is_neither_counted_nor_moved() {
    use rustix::mount::{MountFlags, UnmountFlags, mount, mount_bind, unmount};
    layerstore_testkit::require::root();
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    let store = store_with_an_image(&root);
    let points = ["junk", "outer/inner", "mnt/foreign", "bound"].map(|name| root.join(name));
    for point in &points {
        fs::create_dir_all(point).unwrap();
    }
    for point in &points[..3] {
        mount("t", point, "tmpfs", MountFlags::empty(), None).unwrap();
        fs::write(point.join("file"), vec![1; 100_000]).unwrap();
    }
    // Somebody has a part of it elsewhere.
    let elsewhere = dir.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    fs::write(points[3].join("file"), "x").unwrap();
    mount_bind(&points[3], &elsewhere).unwrap();
    let scan = store.scan().unwrap();
    let done = store.discard_unknown(&scan.unknown);
    let adds_up = adds_up(&root, &store);
    for point in points[..3].iter().chain([&elsewhere]) {
        unmount(point, UnmountFlags::empty()).unwrap();
    }
    assert_eq!(paths(&scan), ["junk", "outer", "bound"].map(|name| root.join(name)).into());
    assert!(adds_up);
    for done in done.unwrap() {
        assert!(matches!(done.fate, DiscardFate::Used(_)), "{done:?}");
    }
    let done = store.discard_unknown(&scan.unknown).unwrap();
    assert!(done.iter().all(|done| matches!(done.fate, DiscardFate::Trashed(_))), "{done:?}");
}

#[test]
fn sizes_of_blobs_are_those_of_their_blocks() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    let store = store_with_an_image(&root);
    let allocated = store.blob(&digest("one")).unwrap().unwrap().allocated;
    assert_eq!(allocated, fs::metadata(store.layout().blob(&digest("one"))).unwrap().blocks() * 512);
    assert_eq!(sql(&root, "SELECT digest FROM blob WHERE allocated IS NULL"), BTreeSet::new());
}
