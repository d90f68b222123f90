//! Stacks of several origins: layers of images, and what was written in their place.

use std::fs;

use layerstore::oci::ErrorKind;
use layerstore::{Parent, PrepareOptions};
use layerstore_testkit::layer::LayerBuilder;

use crate::lab::{Lab, OWNER, above, everything, names, refused};

const IMAGE: &str = "localhost/stacks:1";

/// A snapshotter's clients name what they unpack themselves by its chain ID.
#[test]
fn privileged_a_snapshot_that_is_named_like_a_stack_of_layers_is_kept() {
    let Some(lab) = Lab::new() else { return };
    let key = format!("sha256:{}", "7".repeat(64));
    lab.prepare("extract", None);
    lab.mounted("extract", |root| fs::write(root.join("file"), "x").unwrap());
    lab.commit(&key, "extract");
    lab.store.collect(&everything()).unwrap();
    assert_eq!(lab.keys(), [key.as_str()]);
    lab.view("view", Parent::Snapshot(&key));
    lab.mounted("view", |root| assert_eq!(names(root), ["file"]));
}

/// Where one of an image's lower layers was unpacked by the client itself, it counts as any other.
#[test]
fn privileged_an_image_above_a_layer_that_was_written_has_all_layers() {
    let Some(lab) = Lab::new() else { return };
    let layers = [
        LayerBuilder::gzip().file("a", "a").finish(),
        LayerBuilder::gzip().file("b", "b").finish(),
        LayerBuilder::gzip().file("c", "c").finish(),
    ];
    let first = layers[0].diff_id.clone();
    lab.load(IMAGE, layers);
    lab.prepare("extract", None);
    lab.mounted("extract", |root| fs::write(root.join("a"), "mine").unwrap());
    lab.commit(&first, "extract");
    let s = lab.store.snapshots(OWNER);
    s.prepare("active", Parent::Image(IMAGE), &PrepareOptions::default(), &|_| {}).unwrap();
    lab.mounted("active", |root| assert_eq!(names(root), ["a", "b", "c"]));
    s.view("view", Parent::Image(IMAGE), &PrepareOptions::default(), &|_| {}).unwrap();
    lab.mounted("view", |root| assert_eq!(names(root), ["a", "b", "c"]));
    // Further up nothing is different.
    lab.commit("committed", "active");
    lab.prepare("extra", None);
    s.commit("top", "extra", &above("committed")).unwrap();
    lab.view("all", Parent::Snapshot("top"));
    lab.mounted("all", |root| assert_eq!(names(root), ["a", "b", "c"]));
    refused(s.remove(&first), ErrorKind::InUse);
}

/// What another owner's snapshot leaves of an image's stack keeps nothing, and stands in nobody's way.
#[test]
fn privileged_an_image_goes_after_the_snapshots_that_were_above_it() {
    let Some(lab) = Lab::new() else { return };
    lab.load(IMAGE, ["a", "b"].map(|name| LayerBuilder::gzip().file(name, name).finish()));
    let s = lab.snapshots();
    s.prepare("active", Parent::Image(IMAGE), &PrepareOptions::default(), &|_| {}).unwrap();
    s.remove("active").unwrap();
    lab.store.remove(IMAGE, false).unwrap();
    assert!(lab.names("overlay2").is_empty() && lab.keys().is_empty());
}
