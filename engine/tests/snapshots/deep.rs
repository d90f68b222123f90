//! Images of many layers, and stores with long and strange paths.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use layerstore::oci::ErrorKind;
use layerstore::{CreateOptions, Layerstore, Parent, PrepareOptions};
use layerstore_store::{MountApi, MountOptions, Stack, Store, Surroundings, Upper};
use layerstore_testkit::layer::{Entry, Layer, LayerBuilder};

use crate::lab::{Lab, OWNER, names, refused, text};

const IMAGE: &str = "localhost/deep:1";

/// Small layers, each with a file of its own and one that all have.
fn layers(count: usize) -> Vec<Layer> {
    let layer = |n: usize| {
        LayerBuilder::gzip().dir("d").file(format!("d/{n:03}"), n.to_string()).file("last", n.to_string())
    };
    (0..count).map(|n| layer(n).finish()).collect()
}

fn check(root: &Path, count: usize) {
    assert_eq!(names(&root.join("d")).len(), count);
    assert_eq!(text(root.join("last")), (count - 1).to_string());
    assert_eq!(text(root.join("d/000")), "0");
    fs::write(root.join("last"), "written").unwrap();
    fs::remove_file(root.join("d/000")).unwrap();
    assert_eq!((text(root.join("last")).as_str(), names(&root.join("d")).len()), ("written", count - 1));
}

/// Mounts a snapshot as before Linux 6.8.
fn mount_classic(root: &Path, key: &str, target: &Path) {
    let store = Store::open(root, Surroundings::default()).unwrap();
    let links = store.links(OWNER, key).unwrap();
    let (own, below) = links.split_first().unwrap();
    let tree = |link: &layerstore_store::Link| link.tree.as_ref().unwrap().id.clone();
    let stack = Stack {
        lowers: below.iter().map(|link| store.layout().diff(&tree(link))).collect(),
        upper: Some(Upper { tree: store.layout().tree(&tree(own)) }),
        plain: false,
    };
    let options = MountOptions { api: MountApi::Classic, ..MountOptions::default() };
    store.mount_stack(&stack, target, &options).unwrap();
}

fn unmount(target: &Path) {
    rustix::mount::unmount(target, rustix::mount::UnmountFlags::empty()).unwrap();
}

fn works(lab: &Lab, count: usize) {
    lab.load(IMAGE, layers(count));
    let (s, options) = (lab.snapshots(), PrepareOptions::default());
    for key in ["newest", "classic"] {
        s.prepare(key, Parent::Image(IMAGE), &options, &|_| {}).unwrap();
    }
    lab.mounted("newest", |root| check(root, count));
    let target = lab.folder("classic");
    mount_classic(lab.root(), "classic", &target);
    check(&target, count);
    unmount(&target);
    s.view("view", Parent::Image(IMAGE), &options, &|_| {}).unwrap();
    lab.mounted("view", |root| assert_eq!(names(&root.join("d")).len(), count));
    let container = lab.store.create(IMAGE, &CreateOptions::default(), &|_| {}).unwrap();
    let target = lab.store.mount_container(&container.name, None, &|_| {}).unwrap();
    check(&target, count);
    lab.store.unmount(container.name.as_ref()).unwrap();
}

#[test]
fn privileged_128_layers_are_mounted_under_a_long_path() {
    let Some(lab) = Lab::with_path_of(200) else { return };
    works(&lab, 128);
}

/// The kernel's limit counts what is below the writable layer.
#[test]
fn privileged_500_layers_are_mounted_under_a_long_path() {
    let Some(lab) = Lab::with_path_of(200) else { return };
    works(&lab, 500);
    // One more committed layer is one too many, and that is said before anything is mounted.
    lab.commit("committed", "newest");
    lab.prepare("child", Some("committed"));
    refused(lab.snapshots().mount("child", None, &|_| {}), ErrorKind::InvalidInput);
    assert!(lab.names("mnt").is_empty());
    lab.snapshots().remove("child").unwrap();
}

/// A fix-up is one more tree: an image that needs one may have 499 layers.
#[test]
fn privileged_500_layers_that_need_a_fix_up_are_one_too_many() {
    let Some(lab) = Lab::new() else { return };
    for (count, fits) in [(499, true), (500, false)] {
        let root = LayerBuilder::gzip().entry(Entry::dir("d").mode(0o700)).finish();
        // The others imply the directory, and do not list it.
        let others = (1..count).map(|n| LayerBuilder::gzip().file(format!("d/{n:03}"), "x").finish());
        let name = format!("localhost/fixup:{count}");
        lab.load(&name, std::iter::once(root).chain(others));
        let (s, key) = (lab.snapshots(), format!("key-{count}"));
        s.prepare(&key, Parent::Image(&name), &PrepareOptions::default(), &|_| {}).unwrap();
        if fits {
            lab.mounted(&key, |root| {
                assert_eq!(names(&root.join("d")).len(), count - 1);
                assert_eq!(fs::metadata(root.join("d")).unwrap().permissions().mode() & 0o7777, 0o700);
            });
        } else {
            refused(s.mount(&key, None, &|_| {}), ErrorKind::InvalidInput);
            refused(s.mounts(&key), ErrorKind::InvalidInput);
        }
        s.remove(&key).unwrap();
    }
}

#[test]
fn privileged_a_path_may_have_anything_in_it() {
    let Some(lab) = Lab::at("a:b,c d\\e=f\n") else { return };
    works(&lab, 3);
    assert!(Layerstore::open(lab.root()).unwrap().mounted().unwrap().is_empty());
}
