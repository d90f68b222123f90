//! Power cuts: what was acknowledged is there, or is known not to be.
//!
//! The store is on an ext4 that is a file on an XFS. A copy of that file, taken in one step, is what a disk holds whose
//! power fails at that moment.

use std::fs;
use std::io::Write as _;
use std::path::Path;

use layerstore::oci::ErrorKind;
use layerstore::{CreateOptions, Layerstore, LoadOptions, Parent, PrepareOptions, SnapshotCommit, Source};
use layerstore_testkit::disk::{Disk, cut_power, format_ext4};
use layerstore_testkit::image::{Image, Layout};
use layerstore_testkit::layer::LayerBuilder;
use layerstore_testkit::require;

use crate::lab::{OWNER, everything, names, quick, refused, text};

const IMAGE: &str = "localhost/power:1";

/// A disk with a store on it, and the disk that holds its image.
struct Machine {
    disk: Disk,
    host: Disk,
}

impl Machine {
    fn new() -> Self {
        let host = Disk::xfs(400);
        let image = host.path().join("disk");
        format_ext4(&image, 64);
        Self { disk: Disk::of_image(&image), host }
    }

    fn store(&self) -> Layerstore {
        Layerstore::open(&self.disk.path().join("store")).unwrap()
    }

    /// The same machine after its power has failed now.
    fn cut(&self, name: &str) -> Disk {
        let image = self.host.path().join(name);
        cut_power(&self.host.path().join("disk"), &image);
        Disk::of_image(&image)
    }
}

/// The store on a disk after a power cut, of which the kernel says that it is another boot.
fn reopened(disk: &Disk) -> Layerstore {
    let root = disk.path().join("store");
    let db = rusqlite::Connection::open(root.join("layerstore.db")).unwrap();
    db.execute_batch("UPDATE tree SET boot_id = 'another'").unwrap();
    drop(db);
    Layerstore::open(&root).unwrap()
}

fn load(store: &Layerstore, place: &Path) {
    let path = place.join("image.tar");
    let layers = ["a", "b"].map(|name| LayerBuilder::gzip().file(name, name).finish());
    fs::write(&path, Layout::of(IMAGE, &Image::new(layers)).archive()).unwrap();
    store.load(Source::Path(path), &LoadOptions::default(), &|_| {}).unwrap();
}

/// Prepares, writes many files that nobody syncs, and commits.
fn commit(store: &Layerstore, name: &str, commit: &SnapshotCommit) {
    let s = store.snapshots(OWNER);
    s.prepare("active", Parent::Image(IMAGE), &PrepareOptions::default(), &|_| {}).unwrap();
    let target = s.mount("active", None, &|_| {}).unwrap();
    for n in 0..50 {
        fs::write(target.join(format!("file-{n}")), format!("{name} {n}")).unwrap();
    }
    fs::remove_file(target.join("a")).unwrap();
    s.unmount("active").unwrap();
    s.commit(name, "active", commit).unwrap();
}

#[test]
fn privileged_a_commit_that_was_synced_is_whole_and_another_is_refused() {
    if !require::root() {
        return;
    }
    let machine = Machine::new();
    let store = machine.store();
    load(&store, machine.host.path());
    commit(&store, "synced", &SnapshotCommit::default());
    commit(&store, "unsynced", &quick());
    let disk = machine.cut("cut");
    let after = reopened(&disk);
    let s = after.snapshots(OWNER);
    s.view("view", Parent::Snapshot("synced"), &PrepareOptions::default(), &|_| {}).unwrap();
    let target = s.mount("view", None, &|_| {}).unwrap();
    assert_eq!(names(&target).len(), 51, "50 files, and `b` of the image");
    (0..50).for_each(|n| assert_eq!(text(target.join(format!("file-{n}"))), format!("synced {n}")));
    s.unmount("view").unwrap();
    let options = PrepareOptions::default();
    refused(s.prepare("x", Parent::Snapshot("unsynced"), &options, &|_| {}), ErrorKind::Corrupt);
    s.remove("unsynced").unwrap();
    after.collect(&everything()).unwrap();
}

#[test]
fn privileged_what_a_container_has_synced_is_there() {
    if !require::root() {
        return;
    }
    let machine = Machine::new();
    let store = machine.store();
    load(&store, machine.host.path());
    let container = store.create(IMAGE, &CreateOptions::default(), &|_| {}).unwrap();
    let early = machine.cut("early");
    let target = store.mount_container(&container.name, None, &|_| {}).unwrap();
    let mut file = fs::File::create(target.join("written")).unwrap();
    file.write_all(b"mine").unwrap();
    file.sync_all().unwrap();
    let late = machine.cut("late");
    drop(file);
    store.unmount(container.name.as_ref()).unwrap();
    for (disk, written) in [(early, None), (late, Some("mine"))] {
        let after = reopened(&disk);
        let target = after.mount_container(&container.name, None, &|_| {}).unwrap();
        assert_eq!(["a", "b"].map(|name| text(target.join(name))), ["a", "b"]);
        assert_eq!(fs::read_to_string(target.join("written")).ok().as_deref(), written);
        after.unmount(container.name.as_ref()).unwrap();
    }
}
