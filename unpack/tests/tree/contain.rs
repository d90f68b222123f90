//! Nothing outside of the tree is touched: `unpack_in` compares a directory beside it after every test here.

use layerstore_testkit::layer::{self, EntryType, LayerBuilder};
use layerstore_testkit::require;

use super::*;

/// Ways from inside the tree to the directory beside it, and to the whole system.
fn ways_out() -> Vec<String> {
    [
        "../canary",
        "../../../../../../..",
        "/",
        "..",
        ".",
        "/proc/self/root",
        "/proc/self/cwd",
        "d/../../canary",
    ]
    .map(str::to_owned)
    .to_vec()
}

/// Entries as they stand, with names that no honest writer lets through.
fn raw(entries: Vec<layer::Entry>) -> Vec<u8> {
    entries.into_iter().fold(LayerBuilder::new(layer::Compression::None), LayerBuilder::entry).finish().blob
}

#[test]
fn dots_in_names_are_refused() {
    for name in ["../canary/file", "a/../../canary/file", "..", "a/..", "/..", "./../canary", "a/b/../c"] {
        for kind in [EntryType::Regular, EntryType::Directory, EntryType::Symlink, EntryType::Fifo] {
            let entry = layer::Entry::new(kind, name);
            let Err(error) = unpack_with(&raw(vec![entry]), None, &options()) else { panic!("{name}") };
            assert!(matches!(error, Error::Refused { .. }), "{name}: {error:?}");
        }
        let link = raw(vec![layer::Entry::hard_link("h", name)]);
        assert!(matches!(unpack_with(&link, None, &options()), Err(Error::Refused { .. })), "{name}");
    }
}

#[test]
fn absolute_names_are_inside() {
    let dir = tempfile::tempdir().unwrap();
    let canary = dir.path().join("canary/file").into_os_string().into_encoded_bytes();
    let inside = canary.strip_prefix(b"/").unwrap().to_vec();
    let stream = tar(&[file(&canary, "mine"), file("//etc//passwd", "mine"), hard_link("h", &canary)]);
    let tree = unpack_in(dir, &stream, None, &options()).unwrap();
    assert_eq!(std::fs::read(tree.path(inside)).unwrap(), b"mine");
    assert_eq!(std::fs::read(tree.path("etc/passwd")).unwrap(), b"mine");
    assert_eq!(std::fs::read(tree.path("h")).unwrap(), b"mine");
}

#[test]
fn what_goes_through_links_to_outside_stays_inside() {
    let all = |through: &str, absolute: &str| {
        let at = |name: &str| format!("{through}{absolute}/{name}");
        vec![
            file(at("file"), "changed").mode(0o777),
            file(at("canary/file"), "changed"),
            file(at("dir/file"), "changed"),
            dir(at("dir")).mode(0o700).mtime(1, 1).xattr("user.changed", "1"),
            dir(at("made")),
            symlink(at("link"), "changed"),
            fifo(at("pipe")),
            file(at(".wh.file"), ""),
            file(at(".wh.dir"), ""),
            file(at(".wh..wh..opq"), ""),
            file(at("dir/.wh..wh..opq"), ""),
            hard_link(at("hard"), at("file")),
            hard_link("kept", at("file")),
        ]
    };
    for out in ways_out() {
        let beside = tempfile::tempdir().unwrap();
        let absolute = beside.path().join("canary").to_str().unwrap().to_owned();
        for absolute in ["", absolute.as_str()] {
            // Each alone, as some fail, and then as many as go.
            for item in all("l", absolute) {
                let items = [symlink("l", &out), dir("d"), item];
                drop(unpack_with(&tar(&items), None, &options()));
            }
        }
        let dir_with = tempfile::tempdir().unwrap();
        let absolute = dir_with.path().join("canary").to_str().unwrap().to_owned();
        let items = [vec![dir("d"), symlink("l", &out)], all("l", &absolute)].concat();
        drop(unpack_in(dir_with, &tar(&items), None, &options()));
        let dir_with = tempfile::tempdir().unwrap();
        let target = dir_with.path().join("canary").to_str().unwrap().to_owned();
        let items = [vec![symlink("l", &target)], all("l", "")].concat();
        unpack_in(dir_with, &tar(&items), None, &options()).unwrap();
    }
}

#[test]
fn a_link_in_the_last_place_is_replaced_or_kept_but_not_followed() {
    let dir_with = tempfile::tempdir().unwrap();
    let canary = |name: &str| dir_with.path().join("canary").join(name).to_str().unwrap().to_owned();
    let (to_file, to_dir) = (canary("file"), canary("dir"));
    let stream = tar(&[
        symlink("a", &to_file),
        file("a", "changed").mode(0o777),
        symlink("b", &to_dir),
        dir("b").mode(0o700).mtime(1, 1),
        symlink("c", &to_file).mode(0o700).mtime(1, 1),
        hard_link("d", "c"),
        symlink("e", &to_file),
        file(".wh.e", ""),
        symlink("f", &to_dir),
        fifo("f").mode(0o600),
        symlink("g", &to_dir),
        hard_link("g", "a"),
    ]);
    let tree = unpack_in(dir_with, &stream, None, &options()).unwrap();
    assert_eq!(tree.shape(), ["a", "b/", "c", "d", "e", "f", "g"]);
    let snapshot = tree.snapshot();
    assert_eq!(snapshot.at("c").target, to_file.as_bytes());
    assert_eq!(snapshot.at("d").target, to_file.as_bytes());
    assert_eq!((snapshot.at("a").size, snapshot.at("e").target.as_slice()), (7, to_file.as_bytes()));
}

#[test]
fn the_root_stays_a_directory() {
    for name in [".", "/", "./", "./.", "//"] {
        for kind in [EntryType::Symlink, EntryType::Link, EntryType::Fifo, EntryType::Char, EntryType::Block]
        {
            let stream = raw(vec![layer::Entry::new(kind, name), layer::Entry::file("f", "")]);
            let Err(error) = unpack_with(&stream, None, &options()) else { panic!("{name} {kind:?}") };
            assert!(matches!(error, Error::Refused { .. }), "{name} {kind:?}: {error:?}");
        }
    }
    // Tradition has it that a slash at the end makes a directory.
    assert!(refusal(&[file(".", "data")]).contains("root"));
}

#[test]
fn privileged_devices_are_made_and_never_opened() {
    if !require::root() {
        return;
    }
    // A device that does not exist: opening it would fail.
    let device = || Item::from(Entry::char_device(b"dev", 511, 77)).owner(5, 6).mode(0o660).mtime(3, 4);
    let block = || Item::from(Entry::block_device(b"block", 259, 1_000_000)).xattr("trusted.k", "v");
    let tree = apply(&[device(), block(), device(), fifo("p"), fifo("p"), hard_link("same", "dev")]);
    let snapshot = tree.snapshot();
    assert_eq!(snapshot.at("dev").rdev, rustix::fs::makedev(511, 77));
    assert_eq!(snapshot.at("block").rdev, rustix::fs::makedev(259, 1_000_000));
    assert_eq!((snapshot.at("dev").uid, snapshot.at("dev").mode), (5, 0o660));
    assert_eq!(snapshot.at("dev").mtime, (3, 4));
    // What follows does not go into it, nor wait for it.
    let tree = apply(&[device(), file("dev", "data"), fifo("p"), file("p", "data")]);
    assert_eq!((tree.snapshot().at("dev").size, tree.snapshot().at("p").size), (4, 4));
    assert!(refusal(&[fifo("p"), file("p/x", "")]).contains("not a directory"));
    // No overlay can show this one: it hides what is below.
    let tree = apply(&[file("d/gone", ""), Entry::char_device(b"d/gone", 0, 0).into()]);
    assert_eq!((tree.shape(), tree.unpacked.lost.devices), (vec!["d/".into(), "d/gone -".into()], 1));
    let hidden = || Item::from(Entry::char_device(b"f", 0, 0));
    let tree = apply(&[hidden(), hard_link("l", "f"), hard_link("m", "l")]);
    assert_eq!(tree.shape(), ["f -", "l -", "m -"]);
    assert!(refusal(&[hidden(), file("f/below", "")]).contains("no directory"));
    let tree = apply(&[hidden(), file("f", "data")]);
    assert_eq!(tree.shape(), ["f"]);
    // Cut to 32 bits, these would be whiteouts as well.
    for (major, minor) in [(4096, 0), (0, 1 << 20), (u32::MAX, u32::MAX)] {
        assert!(refusal(&[Entry::char_device(b"wh", major, minor).into()]).contains("larger"));
        assert!(refusal(&[Entry::block_device(b"wh", major, minor).into()]).contains("larger"));
    }
}

#[test]
fn unknown_types_are_refused_and_volume_labels_are_not() {
    let label = layer::Entry::new(EntryType::new(b'V'), "../label");
    let tree = unpack_with(&raw(vec![label, layer::Entry::file("f", "")]), None, &options()).unwrap();
    assert_eq!(tree.shape(), ["f"]);
    let vendor = layer::Entry::new(EntryType::new(b'Q'), "f");
    assert!(matches!(unpack_with(&raw(vec![vendor]), None, &options()), Err(Error::Refused { .. })));
}

#[test]
fn control_characters_do_not_reach_messages() {
    let message = refusal(&[file("x", ""), file("x/\u{1b}[2J\n", ""), dir("x/\u{1b}[2J\n/y")]);
    assert!(!message.contains('\u{1b}') && !message.contains('\n'), "{message:?}");
}
