//! Thousands of snapshots: how long each operation takes, and that nothing stays behind.
//!
//! The normal run takes seconds and is lenient, as others use the machine; `LAYERSTORE_LONG=1` asks for ten thousand, and
//! for less than two milliseconds, which only a release build on a disk that syncs in less keeps. All figures go to stderr.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::fs;
use std::io::Write as _;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use layerstore::{
    Layerstore, LoadOptions, Parent, PrepareOptions, Settings, SnapshotCommit, Snapshots, Source,
};
use layerstore_testkit::disk::Disk;
use layerstore_testkit::image::{Image, Layout};
use layerstore_testkit::layer::LayerBuilder;
use layerstore_testkit::require;

const IMAGE: &str = "localhost/soak:1";

struct Soak {
    store: Layerstore,
    root: PathBuf,
    _dir: tempfile::TempDir,
}

impl Soak {
    fn new() -> Option<Self> {
        if !require::root() {
            return None;
        }
        let parent = std::env::var_os("LAYERSTORE_TEST_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
        let dir = tempfile::Builder::new().prefix("layerstore-test-").tempdir_in(parent).unwrap();
        let root = dir.path().join("store");
        let store = Layerstore::open(&root).unwrap();
        let layers = (0..5).map(|n| LayerBuilder::gzip().file(format!("file-{n}"), "x").finish());
        let path = dir.path().join("image.tar");
        fs::write(&path, Layout::of(IMAGE, &Image::new(layers)).archive()).unwrap();
        store.load(Source::Path(path), &LoadOptions::default(), &|_| {}).unwrap();
        let soak = Self { store, root, _dir: dir };
        // The stack of the image is settled once, and there is something to be the parent of others.
        prepare(&soak.snapshots(), "first", Parent::Image(IMAGE));
        soak.snapshots()
            .commit("base", "first", &SnapshotCommit { sync: false, ..Default::default() })
            .unwrap();
        Some(soak)
    }

    fn snapshots(&self) -> Snapshots<'_> {
        self.store.snapshots("soak")
    }

    /// Everything that could be left behind: names in the store's folders, rows, mounts, descriptors.
    fn state(&self) -> Vec<String> {
        let mut state = Vec::new();
        for folder in ["overlay2", "trash", "mnt", "ingest", "partial"] {
            state.extend(names(&self.root.join(folder)).into_iter().map(|name| format!("{folder}/{name}")));
        }
        let db = rusqlite::Connection::open(self.root.join("layerstore.db")).unwrap();
        for table in ["tree", "snapshot", "mount", "mount_tree", "lease", "lease_item"] {
            let count: u64 =
                db.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap();
            state.push(format!("{table}: {count}"));
        }
        drop(db);
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let own = table.lines().filter(|line| line.contains(self.root.to_str().unwrap()));
        state.push(format!("mounts: {}", own.count()));
        state.push(format!("descriptors: {}", self.descriptors()));
        state
    }

    /// Those of the store and of files below it: other tests of this process have some too.
    fn descriptors(&self) -> usize {
        let of_store = |name: &String| {
            fs::read_link(Path::new("/proc/self/fd").join(name))
                .is_ok_and(|path| path.starts_with(&self.root))
        };
        names(Path::new("/proc/self/fd")).iter().filter(|name| of_store(name)).count()
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn prepare(snapshots: &Snapshots<'_>, key: &str, parent: Parent<'_>) {
    snapshots.prepare(key, parent, &PrepareOptions::default(), &|_| {}).unwrap();
}

/// How long something took, many times.
struct Times {
    what: &'static str,
    sorted: Vec<Duration>,
}

impl Times {
    fn of(what: &'static str, count: usize, mut each: impl FnMut(usize)) -> Self {
        let mut sorted: Vec<Duration> = (0..count)
            .map(|n| {
                let start = Instant::now();
                each(n);
                start.elapsed()
            })
            .collect();
        sorted.sort();
        let times = Self { what, sorted };
        let report = format!(
            "{what:>24} x {count:<5}: median {:>8.3?}, p99 {:>8.3?}, worst {:>8.3?}\n",
            times.median(),
            times.sorted[(count * 99 / 100).min(count - 1)],
            times.sorted[count - 1],
        );
        std::io::stderr().write_all(report.as_bytes()).unwrap();
        times
    }

    fn median(&self) -> Duration {
        self.sorted[self.sorted.len() / 2]
    }

    #[track_caller]
    fn assert_median_under(&self, limit: Duration) {
        assert!(self.median() < limit, "{}: a median of {:?}", self.what, self.median());
    }
}

#[test]
fn privileged_cycles_of_prepare_and_remove_leave_nothing() {
    let Some(soak) = Soak::new() else { return };
    let (s, cycles) = (soak.snapshots(), if require::is_long() { 10_000 } else { 200 });
    let before = soak.state();
    Times::of("prepare, use, remove", cycles, |n| {
        let parent = if n % 2 == 0 { Parent::Image(IMAGE) } else { Parent::Snapshot("base") };
        prepare(&s, "key", parent);
        if n % 10 == 0 {
            let target = s.mount("key", None, &|_| {}).unwrap();
            fs::write(target.join("file-1"), "changed").unwrap();
            fs::remove_file(target.join("file-2")).unwrap();
            s.unmount("key").unwrap();
        }
        s.remove("key").unwrap();
    });
    assert_eq!(soak.state(), before.clone());
    let collected =
        soak.store.collect(&layerstore::Policy { interrupted: true, ..Default::default() }).unwrap();
    assert!(collected.objects.is_empty(), "{collected:?}");
    assert_eq!(soak.state(), before);
}

#[test]
fn privileged_many_snapshots_do_not_make_it_slow() {
    let Some(soak) = Soak::new() else { return };
    let long = require::is_long();
    let (s, count) = (soak.snapshots(), if long { 10_000 } else { 300 });
    let limit = Duration::from_millis(if long { 2 } else { 40 });
    let key = |n: usize| format!("active-{n}");
    Times::of("prepare, filling", count, |n| prepare(&s, &key(n), Parent::Snapshot("base")));

    let some = if long { 500 } else { 50 };
    let more = |n: usize| format!("more-{n}");
    let image = |n: usize| format!("image-{n}");
    Times::of("prepare", some, |n| prepare(&s, &more(n), Parent::Snapshot("base")))
        .assert_median_under(limit);
    Times::of("prepare above an image", some, |n| prepare(&s, &image(n), Parent::Image(IMAGE)))
        .assert_median_under(limit);
    let view = |n: usize| format!("view-{n}");
    let views = |n: usize| {
        s.view(&view(n), Parent::Snapshot("base"), &PrepareOptions::default(), &|_| {}).unwrap();
    };
    Times::of("view", some, views).assert_median_under(limit);
    Times::of("mounts", some, |n| drop(s.mounts(&key(n)).unwrap())).assert_median_under(limit);
    Times::of("stat", some, |n| drop(s.stat(&key(n)).unwrap())).assert_median_under(limit);
    Times::of("set a label", some, |n| drop(s.set_label(&key(n), "a", Some("b")).unwrap()))
        .assert_median_under(limit);
    let commit = SnapshotCommit { sync: false, ..SnapshotCommit::default() };
    Times::of("commit", some, |n| drop(s.commit(&format!("done-{n}"), &more(n), &commit).unwrap()))
        .assert_median_under(limit);
    Times::of("remove", some, |n| s.remove(&image(n)).unwrap()).assert_median_under(limit);
    let mut seen = 0;
    let walk = Times::of("walk", 5, |_| {
        seen = 0;
        let counted = s.walk(&["kind==active".parse().unwrap()], |_| {
            seen += 1;
            ControlFlow::Continue(())
        });
        counted.unwrap();
    });
    assert_eq!(seen, count);
    walk.assert_median_under(Duration::from_millis(100));
    if long {
        Times::of("remove, emptying", count, |n| s.remove(&key(n)).unwrap()).assert_median_under(limit);
    }
}

/// Everything but usage, and the unlinking of files, takes the same time however many files there are.
#[test]
fn privileged_a_commit_does_not_look_at_files() {
    let Some(soak) = Soak::new() else { return };
    let (s, files) = (soak.snapshots(), if require::is_long() { 20_000 } else { 500 });
    let commit = SnapshotCommit { sync: false, ..SnapshotCommit::default() };
    let mut times = Vec::new();
    for (what, files) in [("commit of nothing", 1), ("commit of many files", files)] {
        let key = |n: usize| format!("{what}-{n}");
        for n in 0..3 {
            prepare(&s, &key(n), Parent::Snapshot("base"));
            let target = s.mount(&key(n), None, &|_| {}).unwrap();
            fs::create_dir(target.join("many")).unwrap();
            for file in 0..files {
                fs::write(target.join(format!("many/{file}")), "x").unwrap();
            }
            s.unmount(&key(n)).unwrap();
        }
        times.push(Times::of(what, 3, |n| {
            s.commit(&format!("{what}-done-{n}"), &key(n), &commit).unwrap();
        }));
    }
    let (empty, full) = (times[0].median(), times[1].median());
    assert!(full < empty * 5 + Duration::from_millis(20), "{full:?} instead of {empty:?}");
    Times::of("usage of many files", 1, |_| {
        s.usage("commit of many files-done-0").unwrap();
    });
    Times::of("prepare above many files", 3, |n| {
        prepare(&s, &format!("above-{n}"), Parent::Snapshot("commit of many files-done-1"));
    });
    Times::of("remove many files", 1, |_| s.remove("commit of many files-done-2").unwrap());
}

/// A thousand other images, of ten layers each, which only the database knows.
#[test]
fn privileged_other_images_do_not_make_it_slow() {
    let Some(soak) = Soak::new() else { return };
    let s = soak.snapshots();
    Times::of("prepare, 1 image", 50, |n| prepare(&s, &format!("first-{n}"), Parent::Image(IMAGE)));
    let db = rusqlite::Connection::open(soak.root.join("layerstore.db")).unwrap();
    let digest = |what: &str, n: usize| layerstore_testkit::digest(format!("{what} {n}").as_bytes());
    let rows = db.unchecked_transaction().unwrap();
    for n in 0..1000 {
        let manifest = digest("manifest", n);
        for blob in [manifest.clone(), digest("config", n)] {
            rows.execute("INSERT INTO blob (digest, size, created_at) VALUES (?1, 1, 1)", [blob]).unwrap();
        }
        rows.execute(
            "INSERT INTO image (manifest, config, platform, labels) VALUES (?1, ?2, 'linux/amd64', '[]')",
            (&manifest, digest("config", n)),
        )
        .unwrap();
        for layer in 0..10 {
            let diff_id = digest("layer", n * 10 + layer);
            rows.execute("INSERT INTO image_layer VALUES (?1, ?2, ?3, ?3)", (&manifest, layer, diff_id))
                .unwrap();
        }
        rows.execute(
            "INSERT INTO reference (owner, name, target, created_at, updated_at) VALUES ('local', ?1, ?2, 1, 1)",
            (format!("localhost/other:{n}"), &manifest),
        )
        .unwrap();
    }
    rows.commit().unwrap();
    drop(db);
    assert_eq!(soak.store.images().unwrap().len(), 1001);
    let limit = Duration::from_millis(if require::is_long() { 2 } else { 40 });
    let key = |n: usize| format!("key-{n}");
    Times::of("prepare, 1000 images", 50, |n| prepare(&s, &key(n), Parent::Image(IMAGE)))
        .assert_median_under(limit);
    Times::of("mounts, 1000 images", 50, |n| drop(s.mounts(&key(n)).unwrap())).assert_median_under(limit);
}

#[test]
fn privileged_project_ids_are_given_back() {
    if !require::root() {
        return;
    }
    let disk = Disk::ext4_with_quotas(64).or_else(|| Disk::xfs_with_quotas(400));
    if !require::kernel_has(disk.is_some(), "quotas of projects") {
        return;
    }
    let disk = disk.unwrap();
    let store = Layerstore::open(&disk.path().join("store")).unwrap();
    let s = store.snapshots("soak");
    let settings = Settings { quota_bytes: Some(1 << 20), ..Settings::default() };
    let options = PrepareOptions { settings, ..PrepareOptions::default() };
    let projects = || {
        let db = rusqlite::Connection::open(disk.path().join("store/layerstore.db")).unwrap();
        let mut query =
            db.prepare("SELECT project FROM snapshot WHERE project IS NOT NULL ORDER BY 1").unwrap();
        query.query_map([], |row| row.get(0)).unwrap().collect::<Result<Vec<u32>, _>>().unwrap()
    };
    s.prepare("stays", Parent::Nothing, &options, &|_| {}).unwrap();
    let first = projects();
    for n in 0..50 {
        s.prepare("key", Parent::Nothing, &options, &|_| {}).unwrap();
        assert_eq!(projects(), [first[0], first[0] + 1]);
        if n % 2 == 0 {
            let commit = SnapshotCommit { sync: false, ..SnapshotCommit::default() };
            s.commit("committed", "key", &commit).unwrap();
            s.remove("committed").unwrap();
        } else {
            s.remove("key").unwrap();
        }
    }
    assert_eq!(projects(), first);
}
