//! What is seen in a stack of snapshots.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::Path;

use layerstore::{Parent, PrepareOptions};
use layerstore_testkit::layer::{Entry, LayerBuilder};
use layerstore_testkit::tree::Snapshot;
use rustix::fs::{XattrFlags, getxattr, setxattr};
use rustix::io::Errno;

use crate::lab::{Lab, above, errno, names, text};

/// A capability as `setcap cap_net_raw+ep` writes it: version 2, effective, bit 13.
const CAPABILITY: [u8; 20] = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

fn capability(path: &Path) -> Vec<u8> {
    let mut value = [0_u8; 64];
    let size = getxattr(path, "security.capability", &mut value[..]).unwrap();
    value[..size].to_vec()
}

#[test]
fn privileged_each_level_shows_what_was_written_there_and_below() {
    let Some(lab) = Lab::new() else { return };
    lab.layer("base", None, |root| {
        fs::create_dir_all(root.join("etc/app")).unwrap();
        fs::write(root.join("etc/app/one"), "1").unwrap();
        fs::write(root.join("gone"), "gone").unwrap();
        fs::write(root.join("changed"), "old").unwrap();
    });
    lab.layer("middle", Some("base"), |root| {
        assert_eq!(text(root.join("etc/app/one")), "1");
        fs::remove_file(root.join("gone")).unwrap();
        fs::write(root.join("changed"), "new").unwrap();
        fs::write(root.join("etc/app/two"), "2").unwrap();
    });
    lab.layer("top", Some("middle"), |root| {
        fs::remove_dir_all(root.join("etc")).unwrap();
        fs::write(root.join("gone"), "again").unwrap();
    });
    let seen = |key: &str| lab.mounted(key, |root| (names(root), fs::read_to_string(root.join("changed"))));
    for (parent, expected, changed) in [
        ("base", vec!["changed", "etc", "gone"], "old"),
        ("middle", vec!["changed", "etc"], "new"),
        ("top", vec!["changed", "gone"], "new"),
    ] {
        lab.view(&format!("view-{parent}"), Parent::Snapshot(parent));
        let (names, text) = seen(&format!("view-{parent}"));
        assert_eq!(
            (names, text.unwrap().as_str()),
            (expected.iter().map(ToString::to_string).collect(), changed)
        );
        // A child that nothing was written to is the same.
        lab.prepare(&format!("active-{parent}"), Some(parent));
        let of = |key: &str| lab.mounted(key, |root| Snapshot::of(root).without_root_mtime());
        of(&format!("view-{parent}")).assert_same(&of(&format!("active-{parent}")));
    }
}

/// Prepared, mounted and committed again and again: the sum is what one would have got at once.
#[test]
fn privileged_committing_is_transitive() {
    let Some(lab) = Lab::new() else { return };
    let steps: [fn(&Path); 4] = [
        |root| fs::create_dir_all(root.join("a/b")).unwrap(),
        |root| fs::write(root.join("a/b/file"), "text").unwrap(),
        |root| fs::set_permissions(root.join("a/b"), fs::Permissions::from_mode(0o700)).unwrap(),
        |root| fs::remove_file(root.join("a/b/file")).unwrap(),
    ];
    let mut parent: Option<String> = None;
    for (number, step) in steps.iter().enumerate() {
        let name = format!("step-{number}");
        lab.layer(&name, parent.as_deref(), *step);
        parent = Some(name);
    }
    lab.view("view", Parent::Snapshot("step-3"));
    lab.mounted("view", |root| {
        assert_eq!(fs::metadata(root.join("a/b")).unwrap().mode() & 0o7777, 0o700);
        assert!(names(&root.join("a/b")).is_empty());
    });
}

#[test]
fn privileged_trees_without_parents_are_stacked_at_commit() {
    let Some(lab) = Lab::new() else { return };
    for key in ["one", "two"] {
        lab.prepare(key, None);
        lab.mounted(key, |root| {
            fs::create_dir(root.join("shared")).unwrap();
            fs::write(root.join("shared").join(key), key).unwrap();
            fs::write(root.join("last"), key).unwrap();
        });
    }
    lab.commit("first", "one");
    let info = lab.snapshots().commit("second", "two", &above("first")).unwrap();
    assert_eq!(info.parent.as_deref(), Some("first"));
    lab.prepare("child", Some("second"));
    lab.mounted("child", |root| {
        assert_eq!(names(&root.join("shared")), ["one", "two"]);
        assert_eq!(text(root.join("last")), "two");
    });
}

/// Without `redirect_dir` overlayfs does not rename what a lower layer has; `mv` copies instead.
#[test]
fn privileged_files_are_renamed_and_directories_of_a_lower_layer_are_not() {
    let Some(lab) = Lab::new() else { return };
    lab.layer("base", None, |root| {
        fs::create_dir(root.join("lower")).unwrap();
        fs::write(root.join("lower/file"), "1").unwrap();
        fs::write(root.join("plain"), "2").unwrap();
    });
    lab.layer("moved", Some("base"), |root| {
        errno(fs::rename(root.join("lower"), root.join("elsewhere")), Errno::XDEV);
        fs::rename(root.join("plain"), root.join("lower/renamed")).unwrap();
        fs::create_dir(root.join("upper")).unwrap();
        fs::write(root.join("upper/file"), "3").unwrap();
        fs::rename(root.join("upper"), root.join("moved")).unwrap();
        // What overlayfs had to copy can be renamed neither.
        fs::write(root.join("lower/new"), "4").unwrap();
        errno(fs::rename(root.join("lower"), root.join("elsewhere")), Errno::XDEV);
    });
    lab.view("view", Parent::Snapshot("moved"));
    lab.mounted("view", |root| {
        assert_eq!(names(root), ["lower", "moved"]);
        assert_eq!(names(&root.join("lower")), ["file", "new", "renamed"]);
        assert_eq!(text(root.join("lower/renamed")), "2");
        assert_eq!(text(root.join("moved/file")), "3");
    });
}

#[test]
fn privileged_a_changed_mode_keeps_the_rest_of_a_lower_file() {
    let Some(lab) = Lab::new() else { return };
    let layer = LayerBuilder::gzip().entry(
        Entry::file("ping", "program").mode(0o755).owner(1, 2).xattr("security.capability", CAPABILITY),
    );
    let layer = layer.entry(
        Entry::file("other", "program").mode(0o755).owner(1, 2).xattr("security.capability", CAPABILITY),
    );
    lab.load("localhost/caps:1", [layer.finish()]);
    let snapshots = lab.snapshots();
    snapshots.prepare("c", Parent::Image("localhost/caps:1"), &PrepareOptions::default(), &|_| {}).unwrap();
    lab.mounted("c", |root| {
        fs::set_permissions(root.join("ping"), fs::Permissions::from_mode(0o711)).unwrap();
        setxattr(root.join("ping"), "user.note", b"n", XattrFlags::empty()).unwrap();
        assert_eq!(capability(&root.join("ping")), CAPABILITY);
        // The kernel takes capabilities from a file that gets another owner, here as anywhere.
        chown(root.join("other"), Some(7), Some(8)).unwrap();
    });
    lab.commit("committed", "c");
    lab.view("view", Parent::Snapshot("committed"));
    lab.mounted("view", |root| {
        let ping = fs::metadata(root.join("ping")).unwrap();
        assert_eq!((ping.mode() & 0o7777, ping.uid(), ping.gid()), (0o711, 1, 2));
        assert_eq!(capability(&root.join("ping")), CAPABILITY);
        let other = fs::metadata(root.join("other")).unwrap();
        assert_eq!((other.mode() & 0o7777, other.uid(), other.gid()), (0o755, 7, 8));
        assert_eq!(text(root.join("other")), "program");
    });
}

#[test]
fn privileged_a_directory_that_is_made_again_is_empty() {
    let Some(lab) = Lab::new() else { return };
    lab.layer("base", None, |root| {
        fs::create_dir_all(root.join("dir/sub")).unwrap();
        fs::write(root.join("dir/sub/file"), "old").unwrap();
        fs::write(root.join("file"), "old").unwrap();
    });
    lab.layer("again", Some("base"), |root| {
        fs::remove_dir_all(root.join("dir")).unwrap();
        fs::create_dir(root.join("dir")).unwrap();
        fs::remove_file(root.join("file")).unwrap();
        fs::create_dir(root.join("file")).unwrap();
    });
    lab.layer("more", Some("again"), |root| {
        assert!(names(&root.join("dir")).is_empty());
        fs::create_dir(root.join("dir/sub")).unwrap();
        fs::remove_dir(root.join("file")).unwrap();
        fs::write(root.join("file"), "new").unwrap();
    });
    lab.view("view", Parent::Snapshot("more"));
    lab.mounted("view", |root| {
        assert_eq!(names(&root.join("dir")), ["sub"]);
        assert!(names(&root.join("dir/sub")).is_empty());
        assert_eq!(text(root.join("file")), "new");
    });
}

#[test]
fn privileged_128_snapshots_are_stacked() {
    let Some(lab) = Lab::new() else { return };
    let mut parent: Option<String> = None;
    for number in 0..128 {
        let key = format!("active-{number}");
        lab.prepare(&key, parent.as_deref());
        lab.mounted(&key, |root| {
            fs::write(root.join(format!("file-{number}")), "").unwrap();
            fs::write(root.join("last"), number.to_string()).unwrap();
        });
        let name = format!("layer-{number:03}");
        lab.commit(&name, &key);
        parent = Some(name);
    }
    lab.prepare("top", parent.as_deref());
    lab.mounted("top", |root| {
        assert_eq!(names(root).len(), 129);
        assert_eq!(text(root.join("last")), "127");
        fs::write(root.join("last"), "written").unwrap();
    });
}
