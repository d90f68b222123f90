//! What a program saw in an overlay is what the layer shows above the same layers.

use std::ffi::CString;
use std::os::unix::fs::PermissionsExt as _;

use layerstore_testkit::require;
use proptest::collection::vec;
use proptest::prelude::*;
use rustix::fs::CWD;
use rustix::mount::{MountFlags, UnmountFlags, unmount};

use super::build::{Menu, build, choices};
use super::*;

/// An overlay mount that goes away with the value.
struct Overlay(PathBuf);

impl Overlay {
    fn mount(target: &Path, data: &str) -> Self {
        let data = CString::new(format!("{data},index=off")).unwrap();
        rustix::mount::mount("overlay", target, "overlay", MountFlags::empty(), Some(data.as_c_str()))
            .unwrap();
        Self(target.to_owned())
    }

    fn path(&self, path: &[u8]) -> PathBuf {
        join(&self.0, path)
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        unmount(&self.0, UnmountFlags::DETACH).unwrap();
    }
}

/// Changes a tree through an overlay, makes a layer of that, and looks at it above the same lower tree.
fn check(lower: impl FnOnce(&Path), change: impl FnOnce(&Overlay)) -> Layer {
    check_with(OverlayXattr::Trusted, lower, change)
}

fn check_with(overlay: OverlayXattr, lower: impl FnOnce(&Path), change: impl FnOnce(&Overlay)) -> Layer {
    // The first implies what the second says.
    let xattr = if overlay == OverlayXattr::User { ",userxattr" } else { ",redirect_dir=off,metacopy=off" };
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    for name in ["lower", "upper", "work", "merged", "layer"] {
        std::fs::create_dir(at(name)).unwrap();
    }
    lower(&at("lower"));
    let [lower, upper, work, applied] =
        ["lower", "upper", "work", "layer"].map(|name| at(name).display().to_string());
    let mounted =
        Overlay::mount(&at("merged"), &format!("lowerdir={lower},upperdir={upper},workdir={work}{xattr}"));
    change(&mounted);
    let mut expected = Snapshot::of(at("merged"));
    drop(mounted);
    // No layer has them.
    expected.entries.retain(|_, entry| entry.kind != FileType::Socket);
    let layer = layer_of(&at("upper"), &DiffOptions { overlay, ..options() }).unwrap();
    layer.unpack_to_with(&at("layer"), overlay);
    let mounted = Overlay::mount(&at("merged"), &format!("lowerdir={applied}:{lower}{xattr}"));
    let found = Snapshot::of(at("merged"));
    drop(mounted);
    expected.assert_same(&found);
    layer
}

#[test]
fn privileged_everything_that_one_does_in_a_container() {
    if !require::root() {
        return;
    }
    let lower = |root: &Path| {
        for path in ["etc", "etc/opt", "var", "var/lib", "usr"] {
            std::fs::create_dir(root.join(path)).unwrap();
        }
        for path in
            ["etc/passwd", "etc/opt/conf", "etc/gone", "var/lib/db", "var/old", "usr/linked", "usr/tool"]
        {
            std::fs::write(root.join(path), path).unwrap();
        }
        std::fs::hard_link(root.join("usr/linked"), root.join("usr/link")).unwrap();
        std::os::unix::fs::symlink("tool", root.join("usr/alias")).unwrap();
    };
    let layer = check(lower, |merged| {
        let at = |path: &str| merged.path(path.as_bytes());
        std::fs::remove_file(at("etc/gone")).unwrap();
        // Another directory in the place of one that is gone.
        std::fs::remove_dir_all(at("var/lib")).unwrap();
        std::fs::create_dir(at("var/lib")).unwrap();
        std::fs::write(at("var/lib/new"), "new").unwrap();
        std::fs::rename(at("var/old"), at("etc/moved")).unwrap();
        std::fs::set_permissions(at("etc/passwd"), std::fs::Permissions::from_mode(0o4711)).unwrap();
        std::fs::hard_link(at("usr/tool"), at("usr/again")).unwrap();
        // A directory becomes a file, and a file a directory.
        std::fs::remove_dir_all(at("etc/opt")).unwrap();
        std::fs::write(at("etc/opt"), "file").unwrap();
        std::fs::remove_file(at("usr/alias")).unwrap();
        std::fs::create_dir(at("usr/alias")).unwrap();
        rustix::fs::setxattr(at("usr/linked"), "user.k", b"v", XattrFlags::empty()).unwrap();
        rustix::fs::setxattr(at("usr"), "system.posix_acl_access", &acl(), XattrFlags::empty()).unwrap();
        build::sparse(&at("holes"), &[false, true], 9);
        std::fs::create_dir_all(at("a/b/c")).unwrap();
        std::fs::remove_dir(at("a/b/c")).unwrap();
    });
    assert_eq!(
        layer.listing(),
        [
            "./",
            "a/",
            "a/b/",
            "etc/",
            "etc/.wh.gone",
            "etc/moved",
            "etc/opt",
            "etc/passwd",
            "holes",
            "usr/",
            "usr/again",
            "usr/alias/",
            "usr/alias/.wh..wh..opq",
            "usr/linked",
            "usr/tool = usr/again",
            "var/",
            "var/lib/",
            "var/lib/.wh..wh..opq",
            "var/lib/new",
            "var/.wh.old",
        ]
    );
}

#[test]
fn privileged_a_socket_does_not_bring_back_what_it_replaced() {
    if !require::root() {
        return;
    }
    let lower = |root: &Path| {
        std::fs::create_dir(root.join("d")).unwrap();
        std::fs::write(root.join("d/s"), "file").unwrap();
        std::fs::write(root.join("s"), "file").unwrap();
    };
    let layer = check(lower, |merged| {
        std::fs::create_dir(merged.path(b"new")).unwrap();
        for path in [&b"s"[..], b"d/s", b"new/s"] {
            drop(std::fs::remove_file(merged.path(path)));
            build::node(&merged.path(path), FileType::Socket, 0);
        }
    });
    assert_eq!(layer.listing(), ["./", "d/", "d/.wh.s", "new/", ".wh.s"]);
}

#[test]
fn privileged_attributes_of_overlayfs_that_a_container_sets_come_back() {
    if !require::root() {
        return;
    }
    let name = "trusted.overlay.opaque";
    let layer = check(
        |root| std::fs::create_dir(root.join("d")).unwrap(),
        |merged| {
            std::fs::create_dir(merged.path(b"d/e")).unwrap();
            // The kernel escapes it since 6.7, and refuses it before.
            let _ = rustix::fs::setxattr(merged.path(b"d"), name, b"y", XattrFlags::empty());
        },
    );
    let escaped = layer.at("d/").xattrs;
    assert!(escaped.is_empty() || escaped == [(name.as_bytes().to_vec(), b"y".to_vec())], "{escaped:?}");
    assert_eq!(layer.listing(), ["./", "d/", "d/e/"]);
}

#[test]
fn privileged_marks_may_be_attributes_of_the_user() {
    if !require::root() {
        return;
    }
    let lower = |root: &Path| {
        std::fs::create_dir(root.join("d")).unwrap();
        std::fs::write(root.join("d/f"), "old").unwrap();
    };
    let layer = check_with(OverlayXattr::User, lower, |merged| {
        std::fs::remove_dir_all(merged.path(b"d")).unwrap();
        std::fs::create_dir(merged.path(b"d")).unwrap();
        std::fs::write(merged.path(b"d/g"), "new").unwrap();
    });
    assert_eq!(layer.listing(), ["./", "d/", "d/.wh..wh..opq", "d/g"]);
    assert!(layer.entries().iter().all(|(entry, _)| entry.xattrs.is_empty()));
}

#[test]
fn privileged_an_upper_directory_that_does_without_copies_is_an_error() {
    if !require::root() {
        return;
    }
    let rename: fn(&Path) = |merged| std::fs::rename(merged.join("d"), merged.join("moved")).unwrap();
    let chmod: fn(&Path) = |merged| {
        std::fs::set_permissions(merged.join("d/f"), std::fs::Permissions::from_mode(0o600)).unwrap();
    };
    for (option, change, path) in [("redirect_dir=on", rename, "`moved`"), ("metacopy=on", chmod, "`d/f`")] {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for name in ["lower", "lower/d", "upper", "work", "merged"] {
            std::fs::create_dir(at(name)).unwrap();
        }
        std::fs::write(at("lower/d/f"), "data").unwrap();
        let [lower, upper, work] = ["lower", "upper", "work"].map(|name| at(name).display().to_string());
        let data = format!("lowerdir={lower},upperdir={upper},workdir={work},{option}");
        let mounted = Overlay::mount(&at("merged"), &data);
        change(&at("merged"));
        drop(mounted);
        let error = layer_of(&at("upper"), &options()).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains(path) && error.contains(option), "{error}");
    }
}

#[derive(Debug, Clone)]
enum Step {
    Remove(Vec<u8>),
    Replace(Vec<u8>),
    Directory(Vec<u8>),
    Write(Vec<u8>, Vec<u8>),
    Rename(Vec<u8>, Vec<u8>),
    Link(Vec<u8>, Vec<u8>),
    Symlink(Vec<u8>),
    Socket(Vec<u8>),
    Mode(Vec<u8>, u32),
    Xattr(Vec<u8>),
}

fn step() -> impl Strategy<Value = Step> {
    use build::path;
    prop_oneof![
        3 => path().prop_map(Step::Remove),
        2 => path().prop_map(Step::Replace),
        2 => path().prop_map(Step::Directory),
        2 => (path(), vec(any::<u8>(), 0..20)).prop_map(|(path, data)| Step::Write(path, data)),
        2 => (path(), path()).prop_map(|(old, new)| Step::Rename(old, new)),
        2 => (path(), path()).prop_map(|(old, new)| Step::Link(old, new)),
        1 => path().prop_map(Step::Symlink),
        1 => path().prop_map(Step::Socket),
        1 => (path(), 0..0o10000u32).prop_map(|(path, mode)| Step::Mode(path, mode)),
        1 => path().prop_map(Step::Xattr),
    ]
}

/// Does what is possible.
fn take(merged: &Overlay, step: &Step) {
    let at = |path: &[u8]| merged.path(path);
    let is = |path: &[u8], kind: fn(&std::fs::FileType) -> bool| {
        at(path).symlink_metadata().is_ok_and(|found| kind(&found.file_type()))
    };
    let remove = |path: &[u8]| {
        drop(std::fs::remove_file(at(path)));
        drop(std::fs::remove_dir_all(at(path)));
    };
    match step {
        Step::Remove(path) => remove(path),
        Step::Replace(path) => {
            remove(path);
            drop(std::fs::create_dir(at(path)));
        }
        Step::Directory(path) => drop(std::fs::create_dir_all(at(path))),
        Step::Write(path, data) => {
            // Pipes would wait, devices be written to.
            if !at(path).exists() || is(path, std::fs::FileType::is_file) {
                drop(std::fs::write(at(path), data));
            }
        }
        Step::Rename(old, new) => drop(std::fs::rename(at(old), at(new))),
        Step::Link(old, new) => _ = rustix::fs::link(at(old), at(new)),
        Step::Socket(path) => {
            _ = rustix::fs::mknodat(CWD, at(path), FileType::Socket, rustix::fs::Mode::RWXU, 0);
        }
        Step::Symlink(path) => _ = rustix::fs::symlink("a", at(path)),
        Step::Mode(path, mode) => {
            if !is(path, std::fs::FileType::is_symlink) {
                drop(std::fs::set_permissions(at(path), std::fs::Permissions::from_mode(*mode)));
            }
        }
        Step::Xattr(path) => _ = rustix::fs::lsetxattr(at(path), "user.changed", b"v", XattrFlags::empty()),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, max_shrink_iters: 200, ..ProptestConfig::with_cases(60) })]

    #[test]
    fn privileged_any_change_of_any_tree_is_a_layer(choices in choices(), steps in vec(step(), 0..15)) {
        if !require::root() {
            return Ok(());
        }
        check(
            |root| build(root, &choices, Menu::Plain),
            |merged| steps.iter().for_each(|step| take(merged, step)),
        );
    }
}
