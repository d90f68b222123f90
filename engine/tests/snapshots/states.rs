//! Kinds, keys, labels, usage: what containerd asks a snapshotter for.

use std::fs;
use std::ops::ControlFlow;

use layerstore::oci::ErrorKind;
use layerstore::{Filter, Parent, PrepareOptions, SnapshotCommit, SnapshotKind, Usage};
use layerstore_testkit::layer::LayerBuilder;

use crate::lab::{Lab, above, labels, quick, refused};

#[test]
fn privileged_a_parent_stays_until_its_children_have_gone() {
    let Some(lab) = Lab::new() else { return };
    lab.layer("base", None, |_| {});
    lab.prepare("child", Some("base"));
    lab.view("view", Parent::Snapshot("base"));
    refused(lab.snapshots().remove("base"), ErrorKind::InUse);
    lab.snapshots().remove("view").unwrap();
    refused(lab.snapshots().remove("base"), ErrorKind::InUse);
    lab.snapshots().remove("child").unwrap();
    lab.snapshots().remove("base").unwrap();
    refused(lab.snapshots().stat("base"), ErrorKind::NotFound);
    assert!(lab.names("overlay2").is_empty() && lab.names("trash").is_empty());
}

#[test]
fn privileged_what_cannot_be_done_has_its_kind() {
    let Some(lab) = Lab::new() else { return };
    let (s, default) = (lab.snapshots(), PrepareOptions::default());
    lab.layer("base", None, |_| {});
    lab.prepare("active", Some("base"));
    lab.view("view", Parent::Snapshot("base"));
    let prepare = |key: &str, parent: &str| s.prepare(key, Parent::Snapshot(parent), &default, &|_| {});
    for taken in ["active", "view", "base"] {
        refused(prepare(taken, "base"), ErrorKind::AlreadyExists);
        refused(s.view(taken, Parent::Snapshot("base"), &default, &|_| {}), ErrorKind::AlreadyExists);
        refused(s.commit(taken, "active", &quick()), ErrorKind::AlreadyExists);
    }
    refused(prepare("new", "nobody"), ErrorKind::NotFound);
    refused(prepare("new", "active"), ErrorKind::InvalidInput);
    refused(s.prepare("new", Parent::Image("localhost/none:1"), &default, &|_| {}), ErrorKind::NotFound);
    refused(s.commit("new", "view", &quick()), ErrorKind::WrongState);
    refused(s.commit("new", "base", &quick()), ErrorKind::WrongState);
    refused(s.commit("new", "nobody", &quick()), ErrorKind::NotFound);
    refused(s.commit("new", "active", &above("view")), ErrorKind::InvalidInput);
    lab.prepare("alone", None);
    refused(s.commit("new", "alone", &above("view")), ErrorKind::WrongState);
    refused(s.commit("new", "alone", &above("nobody")), ErrorKind::NotFound);
    refused(s.mounts("base"), ErrorKind::WrongState);
    refused(s.mounts("nobody"), ErrorKind::NotFound);
    refused(s.remove("nobody"), ErrorKind::NotFound);
    refused(s.usage("nobody"), ErrorKind::NotFound);
    refused(s.set_label("nobody", "a", Some("b")), ErrorKind::NotFound);
    s.mount("active", None, &|_| {}).unwrap();
    refused(s.commit("new", "active", &quick()), ErrorKind::InUse);
    refused(s.remove("active"), ErrorKind::InUse);
    let elsewhere = lab.folder("elsewhere");
    refused(s.mount("active", Some(&elsewhere), &|_| {}), ErrorKind::AlreadyExists);
    // Nothing of all this has left a trace.
    s.unmount("active").unwrap();
    assert_eq!(lab.keys(), ["active", "alone", "base", "view"]);
    assert_eq!(lab.names("overlay2").len(), 3);
    assert!(lab.names("mnt").is_empty() && lab.names("trash").is_empty());
}

#[test]
fn privileged_stat_tells_what_was_asked_for() {
    let Some(lab) = Lab::new() else { return };
    let s = lab.snapshots();
    let options = PrepareOptions { labels: labels(&[("a", "1")]), ..PrepareOptions::default() };
    let active = s.prepare("active", Parent::Nothing, &options, &|_| {}).unwrap();
    assert_eq!((active.kind, &active.parent, &active.labels), (SnapshotKind::Active, &None, &options.labels));
    assert_eq!(s.stat("active").unwrap(), active);
    let commit = SnapshotCommit { labels: labels(&[("b", "2")]), ..quick() };
    let committed = s.commit("committed", "active", &commit).unwrap();
    assert_eq!(committed.kind, SnapshotKind::Committed);
    assert_eq!(committed.labels, commit.labels, "those of the active snapshot are not kept");
    assert_eq!(s.stat("committed").unwrap(), committed);
    refused(s.stat("active"), ErrorKind::NotFound);
    lab.view("view", Parent::Snapshot("committed"));
    let view = s.stat("view").unwrap();
    assert_eq!((view.kind, view.parent.as_deref()), (SnapshotKind::View, Some("committed")));
}

#[test]
fn privileged_labels_change_and_the_time_of_creation_does_not() {
    let Some(lab) = Lab::new() else { return };
    let s = lab.snapshots();
    lab.prepare("active", None);
    let back = "UPDATE snapshot SET created_at = created_at - 100, updated_at = updated_at - 100";
    let db = rusqlite::Connection::open(lab.root().join("layerstore.db")).unwrap();
    db.execute_batch(back).unwrap();
    let before = s.stat("active").unwrap();
    s.set_labels("active", &labels(&[("one", "1"), ("two", "2")])).unwrap();
    s.set_label("active", "one", None).unwrap();
    let after = s.set_label("active", "three", Some("3")).unwrap();
    assert_eq!(after.labels, labels(&[("two", "2"), ("three", "3")]));
    assert_eq!(after.created_at, before.created_at);
    assert!(after.updated_at >= before.updated_at + 100);
    assert_eq!((after.kind, after.parent.as_ref()), (before.kind, before.parent.as_ref()));
    refused(s.set_label("active", "long", Some(&"x".repeat(5000))), ErrorKind::InvalidInput);
    assert_eq!(s.stat("active").unwrap(), after);
}

#[test]
fn privileged_a_walk_hands_out_what_a_filter_lets_through() {
    let Some(lab) = Lab::new() else { return };
    let s = lab.snapshots();
    lab.layer("base", None, |_| {});
    for number in 0..5 {
        let options =
            PrepareOptions { labels: labels(&[("n", &number.to_string())]), ..PrepareOptions::default() };
        s.prepare(&format!("active-{number}"), Parent::Snapshot("base"), &options, &|_| {}).unwrap();
        lab.view(&format!("view-{number}"), Parent::Snapshot("base"));
    }
    let walk = |filters: &[&str]| {
        let filters: Vec<Filter> = filters.iter().map(|text| text.parse().unwrap()).collect();
        let mut keys = Vec::new();
        let result = s.walk(&filters, |info| {
            keys.push(info.key);
            ControlFlow::Continue(())
        });
        result.unwrap();
        keys
    };
    assert_eq!(walk(&[]).len(), 11);
    assert_eq!(walk(&["kind==committed"]), ["base"]);
    assert_eq!(walk(&["labels.n==3"]), ["active-3"]);
    assert_eq!(walk(&["kind==view,name~=[12]$"]), ["view-1", "view-2"]);
    assert_eq!(walk(&["kind==committed", "labels.\"n\"==0"]), ["active-0", "base"]);
    assert_eq!(walk(&["parent==base"]).len(), 10);
    // A walk may change what it walks over.
    let removed = s.walk(&["kind==view".parse().unwrap()], |info| {
        s.remove(&info.key).unwrap();
        ControlFlow::Continue(())
    });
    removed.unwrap();
    assert_eq!(lab.keys().len(), 6);
}

#[test]
fn privileged_usage_grows_is_frozen_and_counts_no_parents() {
    let Some(lab) = Lab::new() else { return };
    let s = lab.snapshots();
    lab.prepare("active", None);
    let empty = s.usage("active").unwrap();
    assert_eq!(empty.bytes, 0);
    let full = lab.mounted("active", |root| {
        fs::write(root.join("file"), vec![1; 100_000]).unwrap();
        fs::hard_link(root.join("file"), root.join("link")).unwrap();
        s.usage("active").unwrap()
    });
    assert_eq!((full.bytes, full.inodes), (100_000, empty.inodes + 1), "a file of two names counts once");
    assert!(full.allocated >= 100_000);
    lab.commit("committed", "active");
    let frozen = s.usage("committed").unwrap();
    assert_eq!((frozen.bytes, frozen.inodes), (full.bytes, full.inodes));
    // The kernel's own directory beside it came with the mount, and goes.
    assert!((100_000..=full.allocated).contains(&frozen.allocated), "{frozen:?} of {full:?}");
    assert_eq!(s.usage("committed").unwrap(), frozen, "from the database");
    lab.view("view", Parent::Snapshot("committed"));
    assert_eq!(s.usage("view").unwrap(), Usage::default());
    lab.prepare("child", Some("committed"));
    assert_eq!(s.usage("child").unwrap(), empty);
    lab.mounted("child", |root| fs::remove_file(root.join("file")).unwrap());
    assert_eq!(s.usage("child").unwrap().inodes, empty.inodes + 1, "a whiteout is a file");
}

#[test]
fn privileged_owners_have_keys_of_their_own_and_share_trees() {
    let Some(lab) = Lab::new() else { return };
    lab.load("localhost/a:1", [LayerBuilder::gzip().file("a", "a").finish()]);
    let trees = lab.names("overlay2").len();
    let options = PrepareOptions::default();
    for owner in ["one", "two"] {
        let s = lab.store.snapshots(owner);
        s.prepare("key", Parent::Image("localhost/a:1"), &options, &|_| {}).unwrap();
        s.view("view", Parent::Image("localhost/a:1"), &options, &|_| {}).unwrap();
    }
    assert_eq!(lab.names("overlay2").len(), trees + 2, "one tree for what each of them writes");
    let (one, two) = (lab.store.snapshots("one"), lab.store.snapshots("two"));
    one.commit("committed", "key", &quick()).unwrap();
    refused(two.stat("committed"), ErrorKind::NotFound);
    refused(two.prepare("x", Parent::Snapshot("committed"), &options, &|_| {}), ErrorKind::NotFound);
    let place = one.mount("view", None, &|_| {}).unwrap();
    assert_ne!(two.mount("view", None, &|_| {}).unwrap(), place);
    two.unmount("view").unwrap();
    one.unmount("view").unwrap();
    two.remove("key").unwrap();
    assert!(one.stat("committed").is_ok());
}
