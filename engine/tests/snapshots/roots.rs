//! The root directory: that of an upper layer is like the one below it.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use layerstore::{Parent, PrepareOptions};
use layerstore_testkit::layer::{Entry, LayerBuilder};
use rustix::fs::{XattrFlags, getxattr, setxattr};

use crate::lab::Lab;

const IMAGE: &str = "localhost/root:1";

/// Version 2: owner rwx, user 7 r-x, group r-x, mask r-x, others none.
const ACL: [u8; 44] = [
    2, 0, 0, 0, // version
    1, 0, 7, 0, 255, 255, 255, 255, // owner
    2, 0, 5, 0, 7, 0, 0, 0, // user 7
    4, 0, 5, 0, 255, 255, 255, 255, // group
    16, 0, 5, 0, 255, 255, 255, 255, // mask
    32, 0, 0, 0, 255, 255, 255, 255, // others
];

/// Mode, owner, group and modification time, and some extended attributes.
#[derive(Debug, PartialEq, Eq)]
struct Attributes {
    mode: u32,
    owner: (u32, u32),
    time: (i64, i64),
    note: Vec<u8>,
    acl: Vec<u8>,
}

fn attributes(path: &Path) -> Attributes {
    let found = fs::metadata(path).unwrap();
    let value = |name: &str| {
        let mut value = [0_u8; 128];
        let size = getxattr(path, name, &mut value[..]).unwrap_or(0);
        value[..size].to_vec()
    };
    Attributes {
        mode: found.mode() & 0o7777,
        owner: (found.uid(), found.gid()),
        time: (found.mtime(), found.mtime_nsec()),
        note: value("user.note"),
        acl: value("system.posix_acl_access"),
    }
}

fn expected() -> Attributes {
    Attributes {
        mode: 0o1750,
        owner: (12, 34),
        time: (1_234_567, 89),
        note: b"note".to_vec(),
        acl: ACL.to_vec(),
    }
}

/// The directory in which the changes of an active snapshot are.
fn upper(lab: &Lab, key: &str) -> PathBuf {
    let mount = lab.snapshots().mounts(key).unwrap();
    let mut options = mount.options.iter().map(|option| option.to_str().unwrap());
    options.find_map(|option| option.strip_prefix("upperdir=")).unwrap().into()
}

#[test]
fn privileged_the_root_of_an_image_is_the_root_of_what_is_above_it() {
    let Some(lab) = Lab::new() else { return };
    let root = Entry::dir("./")
        .mode(0o1750)
        .owner(12, 34)
        .mtime(1_234_567, 89)
        .xattr("user.note", "note")
        .xattr("system.posix_acl_access", ACL);
    let layers = [
        LayerBuilder::gzip().entry(root).file("a", "a").finish(),
        // This one says nothing of the root: that below counts.
        LayerBuilder::gzip().file("b", "b").finish(),
    ];
    lab.load(IMAGE, layers);
    let options = PrepareOptions::default();
    lab.snapshots().prepare("active", Parent::Image(IMAGE), &options, &|_| {}).unwrap();
    assert_eq!(attributes(&upper(&lab, "active")), expected());
    lab.mounted("active", |root| assert_eq!(attributes(root), expected()));
    lab.commit("committed", "active");
    lab.prepare("child", Some("committed"));
    assert_eq!(attributes(&upper(&lab, "child")), expected());
    lab.view("view", Parent::Snapshot("committed"));
    lab.mounted("view", |root| assert_eq!(attributes(root), expected()));
}

#[test]
fn privileged_a_root_that_a_snapshot_has_changed_is_the_root_of_its_children() {
    let Some(lab) = Lab::new() else { return };
    lab.layer("base", None, |root| {
        setxattr(root, "user.note", b"note", XattrFlags::empty()).unwrap();
        rustix::fs::chown(root, Some(rustix::fs::Uid::from_raw(12)), Some(rustix::fs::Gid::from_raw(34)))
            .unwrap();
        rustix::fs::chmod(root, rustix::fs::Mode::from_raw_mode(0o1700)).unwrap();
    });
    lab.prepare("child", Some("base"));
    let seen = attributes(&upper(&lab, "child"));
    assert_eq!((seen.mode, seen.owner, seen.note.as_slice()), (0o1700, (12, 34), &b"note"[..]));
    lab.mounted("child", |root| assert_eq!(attributes(root), seen));
}
