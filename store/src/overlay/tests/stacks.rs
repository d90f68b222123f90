//! Every kind of mount shows what it is to show, and takes changes where it should.

use std::ffi::{CString, OsString};
use std::io::ErrorKind;
use std::os::unix::ffi::OsStringExt as _;

use rustix::fs::{FileType, Mode, mknodat};
use rustix::mount::{MountFlags, mount, mount_bind};

use super::*;

fn whiteout(path: &Path) {
    mknodat(rustix::fs::CWD, path, FileType::CharacterDevice, Mode::empty(), 0).unwrap();
}

fn is_read_only(directory: &Path) -> bool {
    match fs::write(directory.join("new"), "") {
        Ok(()) => false,
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::ReadOnlyFilesystem);
            true
        }
    }
}

#[test]
fn privileged_changes_go_to_the_upper_tree() {
    if !require::root() {
        return;
    }
    for way in ways(&MountOptions::default()) {
        let fixture = Fixture::with_root(AWKWARD);
        let lowers = vec![
            fixture.lower("b", &[("b", "b"), ("shared", "b")]),
            fixture.lower("a", &[("a", "a"), ("shared", "a")]),
        ];
        let stack = fixture.stack(lowers);
        fixture.mount_by(way, &stack, &MountOptions::default());
        assert_eq!(fixture.read("shared"), "b");
        fs::write(fixture.target.join("shared"), "new").unwrap();
        fs::remove_file(fixture.target.join("a")).unwrap();
        let shown = shown_options(&fixture.target);
        assert!(shown.contains("redirect_dir=nofollow") && !shown.contains("index=on"), "{shown}");
        fixture.unmount();
        let upper = stack.upper.as_ref().unwrap().diff();
        assert_eq!(fs::read_to_string(upper.join("shared")).unwrap(), "new");
        assert_eq!(fs::symlink_metadata(upper.join("a")).unwrap().rdev(), 0);
        assert_eq!(fs::read_to_string(stack.lowers[0].join("shared")).unwrap(), "b");
        assert!(stack.lowers[1].join("a").exists());

        // Once more, with what is there.
        fixture.mount_by(way, &stack, &MountOptions { read_only: true, ..MountOptions::default() });
        assert_eq!(fixture.read("shared"), "new");
        assert!(!fixture.target.join("a").exists());
        assert!(is_read_only(&fixture.target));
        fixture.unmount();
    }
}

#[test]
fn privileged_500_layers_and_an_upper_tree_below_a_long_root() {
    if !require::root() {
        return;
    }
    for name in ["r".repeat(200), format!("{AWKWARD}{}", "r".repeat(150))] {
        let fixture = Fixture::with_root(&name);
        let stack = fixture.stack(fixture.lowers(MAX_LAYERS));
        for way in ways(&MountOptions::default()) {
            fixture.mount_by(way, &stack, &MountOptions::default());
            assert_eq!(fixture.read("shared"), "499", "{way:?}");
            assert!(fixture.target.join("only-0").exists() && fixture.target.join("only-250").exists());
            fs::write(fixture.target.join("only-0"), "changed").unwrap();
            fixture.unmount();
        }
        for api in [MountApi::Newest, MountApi::Classic] {
            fixture.mount(&stack, &api.into()).unwrap();
            fixture.unmount();
            fixture.mount(&Stack { upper: None, ..stack.clone() }, &api.into()).unwrap();
            assert!(is_read_only(&fixture.target));
            fixture.unmount();
        }
    }
}

#[test]
fn privileged_a_single_plain_tree_is_shown_as_it_is() {
    if !require::root() {
        return;
    }
    for api in [MountApi::Newest, MountApi::Classic] {
        let fixture = Fixture::new();
        let tree = fixture.lower("a", &[("file", "a")]);
        whiteout(&tree.join("gone"));
        let stack = Stack { lowers: vec![tree.clone()], upper: None, plain: true };
        fixture.mount(&stack, &api.into()).unwrap();
        assert_eq!(fixture.read("file"), "a");
        assert!(fixture.target.join("gone").symlink_metadata().is_ok(), "bound, not stacked");
        assert!(is_read_only(&fixture.target));
        assert!(!is_read_only(&tree), "only there");
        assert!(is_mounted_below(&fixture.target).unwrap());
        fixture.unmount();

        fixture.mount(&Stack { plain: false, ..stack }, &api.into()).unwrap();
        assert_eq!(fixture.read("file"), "a");
        assert!(fixture.target.join("gone").symlink_metadata().is_err(), "hidden by its whiteout");
        assert!(is_read_only(&fixture.target));
        fixture.unmount();
    }
}

#[test]
fn privileged_a_read_only_bind_keeps_the_flags_of_its_filesystem() {
    if !require::root() {
        return;
    }
    let fixture = Fixture::new();
    let tree = fixture.lower("a", &[]);
    mount_bind(&tree, &tree).unwrap();
    let flags = MountFlags::BIND | MountFlags::NOSUID | MountFlags::NODEV;
    rustix::mount::mount_remount(&tree, flags, "").unwrap();
    let stack = Stack { lowers: vec![tree.clone()], upper: None, plain: true };
    for api in [MountApi::Newest, MountApi::Classic] {
        let outcome = fixture.mount(&stack, &api.into());
        let shown = outcome.map(|()| shown_options(&fixture.target));
        fixture.unmount();
        let shown = shown.unwrap();
        assert!(shown.contains(" ro,nosuid,nodev"), "{shown}");
    }
    unmount_at(&tree).unwrap();
}

#[test]
fn privileged_an_upper_tree_alone_is_bound_writable() {
    if !require::root() {
        return;
    }
    for api in [MountApi::Newest, MountApi::Classic] {
        let fixture = Fixture::new();
        let stack = fixture.stack(vec![]);
        fixture.mount(&stack, &api.into()).unwrap();
        fs::write(fixture.target.join("file"), "a").unwrap();
        fixture.unmount();
        assert!(stack.upper.as_ref().unwrap().diff().join("file").exists());
        fixture.mount(&stack, &MountOptions { api, read_only: true, ..MountOptions::default() }).unwrap();
        assert!(is_read_only(&fixture.target));
        fixture.unmount();
    }
}

/// Does what `mount -t KIND -o OPTIONS SOURCE TARGET` does.
fn perform(description: &Mount, target: &Path) {
    if description.kind == "bind" {
        return mount_bind(&description.source, target).unwrap();
    }
    let mut flags = MountFlags::empty();
    let mut data = Vec::new();
    for option in &description.options {
        if option == "ro" {
            flags |= MountFlags::RDONLY;
            continue;
        }
        if !data.is_empty() {
            data.push(b',');
        }
        data.extend(option.as_encoded_bytes());
    }
    let data = CString::new(data).unwrap();
    mount(&description.source, target, &*description.kind, flags, &*data).unwrap();
}

#[test]
fn privileged_a_description_mounts_the_same() {
    if !require::root() {
        return;
    }
    let not_utf8 = OsString::from_vec(b"a\xff".to_vec());
    for name in [AWKWARD, "plain", "trailing\\"].map(OsString::from).into_iter().chain([not_utf8]) {
        let fixture = Fixture::with_root(Path::new(&name).to_str().unwrap_or("x"));
        let stack = fixture.stack(fixture.lowers(3));
        let read_only = Stack { upper: None, ..stack.clone() };
        let alone = Stack { lowers: vec![stack.lowers[0].clone()], ..read_only.clone() };
        let bound = Stack { plain: true, ..alone.clone() };
        for (stack, kind) in [(stack, "overlay"), (read_only, "overlay"), (alone, "overlay"), (bound, "bind")]
        {
            let description = stack.as_mount(fixture.store.layout(), &MountOptions::default()).unwrap();
            assert_eq!(description.kind, kind);
            perform(&description, &fixture.target);
            assert_eq!(fixture.read("shared"), "2", "{name:?}");
            if let Some(upper) = &stack.upper {
                fs::write(fixture.target.join("new"), "").unwrap();
                assert!(upper.diff().join("new").exists());
            }
            fixture.unmount();
        }
    }
}

#[test]
fn a_description_escapes_paths_and_nothing_else() {
    let layout = crate::layout::Layout::new("/r".into());
    let upper = Some(Upper { tree: "/u,\\".into() });
    let stack = Stack { lowers: vec!["/a:b".into(), "/c d".into()], upper, plain: false };
    let options = MountOptions { user_xattrs: true, volatile: true, ..MountOptions::default() };
    let description = stack.as_mount(&layout, &options).unwrap();
    let paths: Vec<&OsString> =
        description.options.iter().filter(|option| option.as_encoded_bytes().contains(&b'/')).collect();
    assert_eq!(paths, ["workdir=/u\\,\\\\/work", "upperdir=/u\\,\\\\/diff", "lowerdir=/a\\:b:/c d"]);
    for flag in ["userxattr", "volatile"] {
        assert!(description.options.contains(&flag.into()), "{description:?}");
    }

    let bind = Stack { lowers: vec!["/a:b".into()], upper: None, plain: true };
    let description = bind.as_mount(&layout, &options).unwrap();
    assert_eq!((description.kind.as_str(), description.source), ("bind", "/a:b".into()));
    assert_eq!(description.options, ["ro", "rbind"]);

    let id_map = Some(IdMap::parse("0:1:1", "0:1:1").unwrap());
    let error = stack.as_mount(&layout, &MountOptions { id_map, ..MountOptions::default() }).unwrap_err();
    assert!(matches!(error, Error::NotSupported { .. }), "{error}");
}

#[test]
fn privileged_a_volatile_mount_leaves_a_mark_that_can_be_taken_away() {
    if !require::root() {
        return;
    }
    let fixture = Fixture::new();
    let stack = fixture.stack(fixture.lowers(1));
    let upper = stack.upper.as_ref().unwrap();
    let volatile = MountOptions { volatile: true, ..MountOptions::default() };
    assert!(!has_volatile_mark(upper).unwrap() && !clear_volatile(upper).unwrap());
    for way in ways(&MountOptions::default()) {
        fixture.mount_by(way, &stack, &volatile);
        fs::write(fixture.target.join("file"), "").unwrap();
        assert!(shown_options(&fixture.target).contains("volatile"));
        fixture.unmount();
        assert!(has_volatile_mark(upper).unwrap());
        for options in [&volatile, &MountOptions::default()] {
            assert!(fixture.mount(&stack, options).is_err(), "the kernel takes it for damaged");
        }
        // Another mark stays.
        let other = upper.work().join("work/incompat/other");
        fs::create_dir(&other).unwrap();
        assert!(clear_volatile(upper).unwrap() && !has_volatile_mark(upper).unwrap());
        fs::remove_dir(other).unwrap();
        fixture.mount(&stack, &MountOptions::default()).unwrap();
        fixture.unmount();
    }
}

#[test]
fn privileged_the_mark_is_not_looked_for_behind_symbolic_links() {
    if !require::root() {
        return;
    }
    let fixture = Fixture::new();
    let upper = fixture.upper("upper");
    let outside = fixture.dir.path().join("incompat");
    fs::create_dir_all(outside.join("volatile")).unwrap();
    fs::write(outside.join("volatile/dirty"), "").unwrap();
    fs::create_dir(upper.work().join("work")).unwrap();
    std::os::unix::fs::symlink(&outside, upper.work().join("work/incompat")).unwrap();
    assert!(clear_volatile(&upper).is_err());
    assert!(outside.join("volatile/dirty").exists());
}
