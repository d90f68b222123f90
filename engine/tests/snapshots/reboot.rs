//! After the machine went down: what was not synced is made again, or refused where it cannot be.
//!
//! The database is told that the trees are of another boot, and their files are damaged as a power cut would do it.

use std::fs;

use layerstore::oci::ErrorKind;
use layerstore::{Parent, PrepareOptions, Settings, SnapshotCommit};
use layerstore_testkit::layer::{Layer, LayerBuilder};

use crate::lab::{Lab, everything, names, refused, text};

const IMAGE: &str = "localhost/reboot:1";

fn layers() -> Vec<Layer> {
    ["a", "b"].map(|name| LayerBuilder::gzip().file(name, name).finish()).into()
}

/// Says that trees are of another life of the filesystem, those of layers as if they had not been synced, and empties the
/// files of these.
fn reboot(lab: &Lab, change: &str) {
    let db = rusqlite::Connection::open(lab.root().join("layerstore.db")).unwrap();
    db.execute_batch("UPDATE tree SET synced = 0 WHERE diff_id IS NOT NULL").unwrap();
    let mut query = db.prepare("SELECT id FROM tree WHERE diff_id IS NOT NULL").unwrap();
    let ids: Vec<String> = query.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    assert_eq!(ids.len(), 2);
    for id in ids {
        let diff = lab.root().join("overlay2").join(id).join("diff");
        for name in names(&diff) {
            fs::write(diff.join(name), "").unwrap();
        }
    }
    db.execute_batch(&format!("UPDATE tree SET {change}; UPDATE snapshot SET volatile_boot = 'another' WHERE volatile_boot IS NOT NULL")).unwrap();
}

#[test]
fn privileged_layers_are_unpacked_again_below_what_was_written() {
    for (change, nameless) in [("boot_id = 'another'", false), ("mount_id = mount_id + 1", true)] {
        let Some(lab) = Lab::new() else { return };
        lab.load(IMAGE, layers());
        let (s, options) = (lab.snapshots(), PrepareOptions::default());
        let container = lab.store.create(IMAGE, &layerstore::CreateOptions::default(), &|_| {}).unwrap();
        let target = lab.store.mount_container(&container.name, None, &|_| {}).unwrap();
        fs::write(target.join("written"), "mine").unwrap();
        lab.store.unmount(container.name.as_ref()).unwrap();
        s.prepare("active", Parent::Image(IMAGE), &options, &|_| {}).unwrap();
        lab.mounted("active", |root| fs::write(root.join("written"), "mine").unwrap());
        if nameless {
            lab.store.remove(IMAGE, true).unwrap();
        }
        reboot(&lab, change);
        lab.mounted("active", |root| {
            assert_eq!(["a", "b", "written"].map(|name| text(root.join(name))), ["a", "b", "mine"]);
        });
        let target = lab.store.mount_container(&container.name, None, &|_| {}).unwrap();
        assert_eq!(["a", "b", "written"].map(|name| text(target.join(name))), ["a", "b", "mine"]);
        lab.store.unmount(container.name.as_ref()).unwrap();
        lab.store.collect(&everything()).unwrap();
        assert_eq!(lab.names("overlay2").len(), 4, "the damaged trees have gone");
    }
}

/// The layers come back when a snapshot is put above them, not only when it is mounted.
#[test]
fn privileged_a_child_of_what_is_not_trusted_is_made_above_good_layers() {
    let Some(lab) = Lab::new() else { return };
    lab.load(IMAGE, layers());
    let (s, options) = (lab.snapshots(), PrepareOptions::default());
    s.prepare("active", Parent::Image(IMAGE), &options, &|_| {}).unwrap();
    s.commit("committed", "active", &SnapshotCommit::default()).unwrap();
    reboot(&lab, "boot_id = 'another'");
    lab.prepare("child", Some("committed"));
    lab.view("view", Parent::Snapshot("committed"));
    for key in ["child", "view"] {
        lab.mounted(key, |root| assert_eq!(["a", "b"].map(|name| text(root.join(name))), ["a", "b"]));
    }
}

#[test]
fn privileged_what_was_committed_without_a_sync_is_refused() {
    let Some(lab) = Lab::new() else { return };
    lab.load(IMAGE, layers());
    let (s, options) = (lab.snapshots(), PrepareOptions::default());
    for (sync, name) in [(true, "synced"), (false, "unsynced")] {
        s.prepare("active", Parent::Image(IMAGE), &options, &|_| {}).unwrap();
        s.commit(name, "active", &SnapshotCommit { sync, ..SnapshotCommit::default() }).unwrap();
    }
    reboot(&lab, "boot_id = 'another'");
    lab.prepare("child", Some("synced"));
    refused(s.prepare("x", Parent::Snapshot("unsynced"), &options, &|_| {}), ErrorKind::Corrupt);
    lab.view("view", Parent::Snapshot("synced"));
    lab.mounted("view", |root| assert_eq!(names(root), ["a", "b"]));
    // It can be removed all the same.
    s.remove("unsynced").unwrap();
}

#[test]
fn privileged_a_volatile_snapshot_does_not_survive() {
    let Some(lab) = Lab::new() else { return };
    lab.load(IMAGE, layers());
    let settings = Settings { volatile: true, ..Settings::default() };
    let options = PrepareOptions { settings, ..PrepareOptions::default() };
    lab.snapshots().prepare("active", Parent::Image(IMAGE), &options, &|_| {}).unwrap();
    lab.mounted("active", |root| fs::write(root.join("a"), "changed").unwrap());
    lab.mounted("active", |root| assert_eq!(text(root.join("a")), "changed"));
    reboot(&lab, "boot_id = 'another'");
    refused(lab.snapshots().mount("active", None, &|_| {}), ErrorKind::Corrupt);
    assert!(lab.store.mounted().unwrap().is_empty() && lab.names("mnt").is_empty());
    lab.snapshots().remove("active").unwrap();
}
