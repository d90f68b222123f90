//! What others still use, what another boot left behind, and stacks that are not what their keys say.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::Path;
use std::process::Command;

use layerstore::oci::{ChainId, DiffId, Digest, ErrorKind};
use layerstore::{
    CommitOptions, CreateOptions, IdRange, Mount, Parent, PrepareOptions, Settings, SnapshotCommit,
};
use layerstore_testkit::layer::{Layer, LayerBuilder};

use crate::lab::{Lab, everything, names, quick, refused, text};

const IMAGE: &str = "localhost/used:1";

fn layers() -> Vec<Layer> {
    ["a", "b"].map(|name| LayerBuilder::gzip().file(name, name).finish()).into()
}

fn with_image() -> Option<Lab> {
    let lab = Lab::new()?;
    lab.load(IMAGE, layers());
    Some(lab)
}

fn execute(lab: &Lab, statement: &str) {
    rusqlite::Connection::open(lab.root().join("layerstore.db")).unwrap().execute_batch(statement).unwrap();
}

fn run(command: &mut Command) {
    assert!(command.status().unwrap().success(), "{command:?}");
}

/// Performs a mount as a runtime would, lets `use_it` work there, and unmounts it.
fn by_hand(mount: &Mount, target: &Path, use_it: impl FnOnce()) {
    let options: OsString = mount.options.join(OsStr::new(","));
    run(Command::new("mount").args(["-t", &mount.kind, "-o"]).arg(options).arg(&mount.source).arg(target));
    use_it();
    run(Command::new("umount").arg(target));
}

#[test]
fn privileged_a_container_that_is_mounted_a_second_time_by_hand_is_in_use() {
    let Some(lab) = with_image() else { return };
    let name = lab.store.create(IMAGE, &CreateOptions::default(), &|_| {}).unwrap().name;
    let target = lab.store.mount_container(&name, None, &|_| {}).unwrap();
    let copy = lab.folder("copy");
    run(Command::new("mount").arg("--bind").arg(&target).arg(&copy));
    refused(lab.store.remove_container(&name, false), ErrorKind::InUse);
    lab.store.unmount(name.as_ref()).unwrap();
    for result in [
        lab.store.remove_container(&name, false).map(drop),
        lab.store.mount_container(&name, None, &|_| {}).map(drop),
    ] {
        let sentence = result.as_ref().unwrap_err().to_string();
        assert_eq!(sentence, format!("container {name} is in use by a mount at {}", copy.display()));
        refused(result, ErrorKind::InUse);
    }
    assert!(lab.store.mounted().unwrap().is_empty() && lab.names("mnt").is_empty());
    fs::write(copy.join("written"), "mine").unwrap();
    run(Command::new("umount").arg(&copy));
    let target = lab.store.mount_container(&name, None, &|_| {}).unwrap();
    assert_eq!(text(target.join("written")), "mine");
    lab.store.unmount(name.as_ref()).unwrap();
    lab.store.remove_container(&name, false).unwrap();
}

/// The image has gone, and the machine went down before the layers had reached the disk.
#[test]
fn privileged_a_stack_that_is_not_on_the_disk_keeps_what_it_is_made_of() {
    let Some(lab) = with_image() else { return };
    let s = lab.snapshots();
    s.prepare("active", Parent::Image(IMAGE), &PrepareOptions::default(), &|_| {}).unwrap();
    execute(&lab, "UPDATE tree SET synced = 0, boot_id = 'another' WHERE diff_id IS NOT NULL");
    for tree in lab.names("overlay2") {
        for name in names(&lab.root().join("overlay2").join(&tree).join("diff")) {
            fs::write(lab.root().join("overlay2").join(&tree).join("diff").join(name), "").unwrap();
        }
    }
    lab.store.remove(IMAGE, true).unwrap();
    lab.store.collect(&everything()).unwrap();
    assert_eq!(lab.names("blobs/sha256").len(), 2, "those of the layers");
    let is_whole = || {
        lab.mounted("active", |root| assert_eq!(["a", "b"].map(|name| text(root.join(name))), ["a", "b"]));
    };
    is_whole();
    lab.store.collect(&everything()).unwrap();
    // The last one settled what was unpacked again.
    lab.store.collect(&everything()).unwrap();
    assert!(lab.names("blobs/sha256").is_empty(), "{:?}", lab.names("blobs/sha256"));
    is_whole();
}

#[test]
fn privileged_what_was_written_volatile_in_another_boot_is_not_shown() {
    let Some(lab) = with_image() else { return };
    let settings = Settings { volatile: true, ..Settings::default() };
    let options = PrepareOptions { settings: settings.clone(), ..PrepareOptions::default() };
    let s = lab.snapshots();
    s.prepare("active", Parent::Image(IMAGE), &options, &|_| {}).unwrap();
    let place = lab.folder("place");
    // In the same boot nothing is missing, however often it is mounted, and the store does not see it.
    for round in ["first", "second"] {
        let mount = s.mounts("active").unwrap();
        assert!(mount.options.iter().any(|option| option == "volatile"), "{mount:?}");
        by_hand(&mount, &place, || fs::write(place.join(round), round).unwrap());
    }
    lab.mounted("active", |root| assert_eq!(names(root), ["a", "b", "first", "second"]));
    let create = CreateOptions { settings, ..CreateOptions::default() };
    let name = lab.store.create(IMAGE, &create, &|_| {}).unwrap().name;
    let target = lab.store.mount_container(&name, None, &|_| {}).unwrap();
    fs::write(target.join("written"), "mine").unwrap();
    lab.store.unmount(name.as_ref()).unwrap();
    let before = lab.names("blobs/sha256");
    execute(&lab, "UPDATE snapshot SET volatile_boot = 'another' WHERE volatile_boot IS NOT NULL");
    let build = || lab.store.commit(&name, None, &CommitOptions::default(), &|_| {});
    for result in [
        s.mounts("active").map(drop),
        s.mount("active", None, &|_| {}).map(drop),
        s.commit("done", "active", &SnapshotCommit::default()).map(drop),
        s.commit("done", "active", &quick()).map(drop),
        lab.store.mount_container(&name, None, &|_| {}).map(drop),
        lab.store.diff(&name, &|_| {}, &mut |_| Ok(())),
        lab.store.export(&name, &mut Vec::new(), &|_| {}).map(drop),
        build().map(drop),
    ] {
        let sentence = result.as_ref().unwrap_err().to_string();
        assert!(sentence.contains("it was mounted volatile when the machine went down"), "{sentence}");
        refused(result, ErrorKind::Corrupt);
    }
    assert_eq!(lab.names("blobs/sha256"), before);
    assert!(lab.names("mnt").is_empty());
    s.remove("active").unwrap();
    lab.store.remove_container(&name, false).unwrap();
}

#[test]
fn privileged_a_view_with_a_map_that_is_none_is_refused() {
    let Some(lab) = with_image() else { return };
    let range = |container, host, count| IdRange { container, host, count };
    let good = vec![range(0, 100_000, 1000)];
    for (uid_map, gid_map) in [
        (good.clone(), vec![]),
        (vec![], good.clone()),
        (vec![range(0, 100_000, 0)], good.clone()),
        (vec![range(0, 100_000, 10), range(5, 200_000, 10)], good.clone()),
        (vec![range(0, u32::MAX, 10)], good.clone()),
    ] {
        let settings = Settings { uid_map, gid_map, ..Settings::default() };
        let options = PrepareOptions { settings, ..PrepareOptions::default() };
        let s = lab.snapshots();
        refused(s.view("view", Parent::Image(IMAGE), &options, &|_| {}), ErrorKind::InvalidInput);
        refused(s.prepare("active", Parent::Image(IMAGE), &options, &|_| {}), ErrorKind::InvalidInput);
        assert!(lab.keys().is_empty(), "{:?}", lab.keys());
        assert_eq!(lab.names("overlay2").len(), 2);
    }
}

/// A client may unpack an image's layers itself, but what is above something else is not one of them.
#[test]
fn privileged_what_a_client_has_put_in_the_place_of_a_layer_is_not_taken_for_it() {
    let Some(lab) = with_image() else { return };
    let s = lab.snapshots();
    let ids: Vec<DiffId> =
        layers().iter().map(|layer| layer.diff_id.parse::<Digest>().unwrap().into()).collect();
    let top = ChainId::chain(&ids).pop().unwrap().to_string();
    // Above nothing, where the layer is above another.
    lab.layer(&top, None, |root| fs::write(root.join("other"), "of the client").unwrap());
    let options = PrepareOptions::default();
    refused(s.prepare("active", Parent::Image(IMAGE), &options, &|_| {}), ErrorKind::AlreadyExists);
    refused(s.view("view", Parent::Image(IMAGE), &options, &|_| {}), ErrorKind::AlreadyExists);
    // Others have nothing to do with it, and its owner can use it.
    lab.store.create(IMAGE, &CreateOptions::default(), &|_| {}).unwrap();
    lab.prepare("own", Some(&top));
    lab.mounted("own", |root| assert_eq!(names(root), ["other"]));
    s.remove("own").unwrap();
    s.remove(&top).unwrap();
    s.prepare("active", Parent::Image(IMAGE), &options, &|_| {}).unwrap();
    lab.mounted("active", |root| assert_eq!(names(root), ["a", "b"]));
}
