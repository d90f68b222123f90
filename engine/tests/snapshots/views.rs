//! Views: what is mounted read-only.

use std::fs;
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;

use layerstore::Parent;
use layerstore_testkit::layer::LayerBuilder;
use rustix::io::Errno;

use crate::lab::{Lab, errno, names};

const IMAGE: &str = "localhost/view:1";

fn devices(root: &Path) -> usize {
    let is_device = |name: &String| {
        fs::symlink_metadata(root.join(name)).is_ok_and(|metadata| metadata.file_type().is_char_device())
    };
    names(root).iter().filter(|name| is_device(name)).count()
}

#[test]
fn privileged_a_view_cannot_be_written_to() {
    let Some(lab) = Lab::new() else { return };
    lab.load(
        IMAGE,
        [
            LayerBuilder::gzip().dir("d").file("d/a", "a").finish(),
            LayerBuilder::gzip().file("b", "b").finish(),
        ],
    );
    lab.layer("one", None, |root| fs::write(root.join("a"), "a").unwrap());
    lab.layer("two", Some("one"), |root| fs::write(root.join("b"), "b").unwrap());
    lab.view("image", Parent::Image(IMAGE));
    lab.view("single", Parent::Snapshot("one"));
    lab.view("stack", Parent::Snapshot("two"));
    lab.view("nothing", Parent::Nothing);
    for key in ["image", "single", "stack", "nothing"] {
        lab.mounted(key, |root| {
            errno(fs::write(root.join("new"), "x"), Errno::ROFS);
            for name in names(root) {
                errno(fs::rename(root.join(&name), root.join("other")), Errno::ROFS);
                errno(
                    fs::File::options().append(true).open(root.join("b")).map(drop),
                    match name.as_str() {
                        _ if root.join("b").exists() => Errno::ROFS,
                        _ => Errno::NOENT,
                    },
                );
            }
        });
    }
}

#[test]
fn privileged_a_view_of_one_layer_without_whiteouts_is_a_bind_mount() {
    let Some(lab) = Lab::new() else { return };
    lab.load(IMAGE, [LayerBuilder::gzip().file("a", "a").finish()]);
    lab.view("view", Parent::Image(IMAGE));
    let mount = lab.snapshots().mounts("view").unwrap();
    assert_eq!(mount.kind, "bind");
    assert_eq!(mount.options, ["ro", "rbind"]);
    assert_eq!(names(Path::new(&mount.source)), ["a"]);
    lab.mounted("view", |root| assert_eq!(names(root), ["a"]));
}

/// The device 0:0 with which overlayfs marks a deleted file is no file of the image.
#[test]
fn privileged_no_view_shows_whiteouts() {
    let Some(lab) = Lab::new() else { return };
    let layer = LayerBuilder::gzip().file("a", "a").whiteout("gone").dir("d").file("d/x", "x").opaque("d");
    lab.load(IMAGE, [layer.finish()]);
    lab.view("image", Parent::Image(IMAGE));
    assert_eq!(lab.snapshots().mounts("image").unwrap().kind, "overlay");
    lab.mounted("image", |root| {
        assert_eq!((names(root), devices(root)), (vec!["a".to_owned(), "d".to_owned()], 0));
    });
    // The same of a snapshot that deletes what is below it, and is then looked at without that.
    lab.layer("base", None, |root| fs::write(root.join("file"), "x").unwrap());
    lab.layer("deleted", Some("base"), |root| fs::remove_file(root.join("file")).unwrap());
    lab.view("stack", Parent::Snapshot("deleted"));
    lab.mounted("stack", |root| assert!(names(root).is_empty()));
}

/// What an active snapshot without a parent deletes is really gone: a bind mount knows no whiteouts.
#[test]
fn privileged_a_snapshot_without_a_parent_is_a_plain_directory() {
    let Some(lab) = Lab::new() else { return };
    lab.prepare("active", None);
    let mount = lab.snapshots().mounts("active").unwrap();
    assert_eq!((mount.kind.as_str(), mount.options.as_slice()), ("bind", &["rw".into(), "rbind".into()][..]));
    lab.mounted("active", |root| {
        fs::write(root.join("a"), "a").unwrap();
        fs::remove_file(root.join("a")).unwrap();
    });
    assert!(names(Path::new(&mount.source)).is_empty());
}
