mod mounted;
pub(crate) mod random;

use layerstore_testkit::require;

use super::*;
use crate::rootfs::trees::Trees;

/// What differs between two stacks of trees, topmost first, as lines.
fn lines(trees: &Trees, before: &[&str], after: &[&str], parents: Parents) -> Vec<String> {
    let mut lines = Vec::new();
    let mut each = |change: Change| {
        lines.push(format!("{} {}", change.kind.letter(), change.path.escape_ascii()));
        Ok(())
    };
    changes(&trees.rootfs(before), &trees.rootfs(after), parents, &mut each).unwrap();
    lines
}

fn container(trees: &Trees) -> Vec<String> {
    lines(trees, &["base"], &["upper", "base"], Parents::All)
}

#[test]
fn files_are_added_changed_and_deleted() {
    let trees = Trees::new();
    trees.tree("base").file("a", "a").file("b", "b").file("c", "c");
    trees.tree("upper").file("a", "new").whiteout("b").file("d", "d");
    assert_eq!(container(&trees), ["C /a", "D /b", "A /d"]);
    let back = lines(&trees, &["upper", "base"], &["base"], Parents::All);
    assert_eq!(back, ["C /a", "A /b", "D /d"]);
}

#[test]
fn what_was_touched_but_is_the_same_is_no_change() {
    let trees = Trees::new();
    trees.tree("base").dir("d").file("d/f", "same").symlink("d/s", "f").file("d/g", "");
    trees.tree("upper").dir("d").file("d/f", "same").symlink("d/s", "f").whiteout("d/never").file("d/g", "");
    assert_eq!(container(&trees), Vec::<String>::new());
    // The same through other trees, as of an image that was built twice.
    trees.tree("copy").dir("d").file("d/f", "same").symlink("d/s", "f").file("d/g", "");
    assert_eq!(lines(&trees, &["base"], &["copy"], Parents::Changed), Vec::<String>::new());
}

#[test]
fn every_attribute_counts() {
    let trees = Trees::new();
    let names = ["content", "mode", "size", "time", "xattr"];
    let (base, upper) = (trees.tree("base"), trees.tree("upper"));
    for name in names {
        base.file(name, "data");
        upper.file(name, "data");
    }
    base.symlink("target", "one").node("type", FileType::Fifo, 0).dir("z").dir("z-mode");
    upper.symlink("target", "two").file("type", "").dir("z").dir("z-mode");
    upper.file("content", "Data").mode("mode", 0o4755).file("size", "data+").time("time", 1);
    upper.xattr("xattr", "user.k", "v").mode("z-mode", 0o700);
    let expected =
        ["C /content", "C /mode", "C /size", "C /target", "C /time", "C /type", "C /xattr", "C /z-mode"];
    assert_eq!(container(&trees), expected);
}

#[test]
fn privileged_owners_and_devices_count_and_overlayfs_own_attributes_do_not() {
    if !require::root() {
        return;
    }
    let trees = Trees::new();
    let (base, upper) = (trees.tree("base"), trees.tree("upper"));
    let null = rustix::fs::makedev(1, 3);
    for tree in [&base, &upper] {
        for name in ["group", "origin", "owner"] {
            tree.file(name, "data");
        }
        tree.node("same", FileType::CharacterDevice, null);
    }
    base.node("device", FileType::CharacterDevice, null);
    upper.node("device", FileType::CharacterDevice, rustix::fs::makedev(1, 5));
    upper.owner("owner", 1000, 0).owner("group", 0, 1000);
    upper.mode("owner", 0o644).xattr("origin", "trusted.overlay.origin", "x");
    assert_eq!(container(&trees), ["C /device", "C /group", "C /owner"]);
}

#[test]
fn a_directory_that_is_gone_is_one_line_and_a_new_one_is_all_of_it() {
    let trees = Trees::new();
    trees.tree("base").dir("old").dir("old/in").file("old/in/f", "");
    trees.tree("upper").whiteout("old").dir("new").dir("new/in").file("new/in/f", "").whiteout("new/x");
    assert_eq!(container(&trees), ["A /new", "A /new/in", "A /new/in/f", "D /old"]);
}

#[test]
fn a_directory_and_a_file_replace_each_other() {
    let trees = Trees::new();
    trees.tree("base").dir("d").dir("d/in").file("d/in/f", "").file("f", "");
    trees.tree("upper").file("d", "").dir("f").opaque("f").file("f/in", "");
    assert_eq!(container(&trees), ["C /d", "C /f", "A /f/in"]);
}

#[test]
fn a_link_in_the_place_of_a_directory_is_not_followed() {
    let trees = Trees::new();
    trees.tree("base").dir("d").file("d/passwd", "");
    trees.tree("upper").symlink("d", "/etc");
    assert_eq!(container(&trees), ["C /d"]);
}

#[test]
fn a_directory_that_was_made_again_is_compared_file_by_file() {
    let trees = Trees::new();
    trees.tree("base").dir("d").file("d/changed", "1").file("d/gone", "").file("d/same", "same");
    let upper = trees.tree("upper");
    upper.dir("d").opaque("d").file("d/changed", "2").file("d/same", "same").file("d/new", "");
    assert_eq!(container(&trees), ["C /d", "C /d/changed", "D /d/gone", "A /d/new"]);
    let only_changed = lines(&trees, &["base"], &["upper", "base"], Parents::Changed);
    assert_eq!(only_changed, ["C /d/changed", "D /d/gone", "A /d/new"]);
}

#[test]
fn parents_count_once_and_the_root_never() {
    let trees = Trees::new();
    let (base, upper) = (trees.tree("base"), trees.tree("upper"));
    for tree in [&base, &upper] {
        tree.dir("a").dir("a/b").dir("a/c").dir("z");
    }
    upper.file("a/b/1", "").file("a/b/2", "").file("a/c/3", "").file("top", "");
    let all = ["C /a", "C /a/b", "A /a/b/1", "A /a/b/2", "C /a/c", "A /a/c/3", "A /top"];
    assert_eq!(container(&trees), all);
    let changed = lines(&trees, &["base"], &["upper", "base"], Parents::Changed);
    assert_eq!(changed, ["A /a/b/1", "A /a/b/2", "A /a/c/3", "A /top"]);
}

#[test]
fn a_directory_comes_before_what_is_in_it_and_that_before_the_next_name() {
    let trees = Trees::new();
    trees.tree("base");
    trees.tree("upper").dir("a").file("a/b", "").file("a-b", "").dir("B").file("B/\n", "").file("\u{fc}", "");
    assert_eq!(container(&trees), ["A /B", "A /B/\\n", "A /a", "A /a/b", "A /a-b", "A /\\xc3\\xbc"]);
}

#[test]
fn a_name_means_what_the_topmost_layer_says() {
    let trees = Trees::new();
    trees.tree("base").file("f", "1").file("g", "1").dir("d").file("d/1", "");
    trees.tree("middle").file("f", "2").whiteout("g").dir("d").opaque("d").file("d/2", "");
    trees.tree("top").file("g", "1").dir("d").file("d/3", "");
    let stacks: [&[&str]; 2] = [&["base"], &["top", "middle", "base"]];
    let found = lines(&trees, stacks[0], stacks[1], Parents::Changed);
    assert_eq!(found, ["D /d/1", "A /d/2", "A /d/3", "C /f"]);
    // What both have is at the lower end; what is above it differs.
    let found = lines(&trees, &["middle", "base"], stacks[1], Parents::Changed);
    assert_eq!(found, ["A /d/3", "A /g"]);
    let found = lines(&trees, &["top", "base"], &["middle", "base"], Parents::Changed);
    assert_eq!(found, ["D /d/1", "A /d/2", "D /d/3", "C /f", "D /g"]);
}

#[test]
fn trees_may_be_deeper_than_paths_and_than_a_process_has_files() {
    const DEPTH: usize = 1500;
    let trees = Trees::new();
    trees.tree("base").deep("some-name", DEPTH, "1");
    trees.tree("upper").deep("some-name", DEPTH, "2");
    trees.tree("empty");
    let path = format!("{}/file", "/some-name".repeat(DEPTH));
    let found = lines(&trees, &["base"], &["upper", "base"], Parents::Changed);
    assert_eq!(found, [format!("C {path}")]);
    let found = lines(&trees, &["empty"], &["upper", "empty"], Parents::All);
    assert_eq!((found.len(), found.last()), (DEPTH + 1, Some(&format!("A {path}"))));
}

#[test]
fn long_paths_that_end_alike_are_not_mixed_up() {
    const DEPTH: usize = 900;
    let trees = Trees::new();
    for (name, y) in [("base", "1"), ("upper", "2")] {
        let tree = trees.tree(name);
        tree.dir("x").dir("y");
        for (side, end) in [("x", "1"), ("y", y)] {
            tree.below(side).deep("name", DEPTH, end);
            tree.time(side, 0);
        }
    }
    let found = lines(&trees, &["base"], &["upper", "base"], Parents::Changed);
    assert_eq!(found, [format!("C /y{}/file", "/name".repeat(DEPTH))]);
}

#[test]
fn what_has_gone_when_its_turn_comes_counts_as_changed() {
    let trees = Trees::new();
    trees.tree("base").file("a", "1").file("b", "1").dir("c").file("c/f", "1").dir("d");
    let upper = trees.tree("upper");
    upper.file("a", "2").file("b", "1").dir("c").file("c/f", "2").dir("d").dir("e").file("e/f", "");
    let mut found = Vec::new();
    let mut each = |change: Change| {
        match change.path.as_slice() {
            b"/a" => {
                std::fs::remove_file(upper.path("b")).unwrap();
                std::fs::remove_dir_all(upper.path("c")).unwrap();
            }
            b"/e" => std::fs::remove_dir_all(upper.path("e")).unwrap(),
            _ => {}
        }
        found.push(String::from_utf8(change.path).unwrap());
        Ok(())
    };
    let (before, after) = (trees.rootfs(&["base"]), trees.rootfs(&["upper", "base"]));
    changes(&before, &after, Parents::All, &mut each).unwrap();
    assert_eq!(found, ["/a", "/b", "/c", "/e"]);
}

#[test]
fn the_first_error_of_the_receiver_ends_it() {
    let trees = Trees::new();
    trees.tree("base");
    trees.tree("upper").file("a", "").file("b", "");
    let mut seen = 0;
    let mut each = |_| {
        seen += 1;
        Err(Error::Cancelled)
    };
    let result = changes(&trees.rootfs(&["base"]), &trees.rootfs(&["upper"]), Parents::All, &mut each);
    assert!(matches!(result, Err(Error::Cancelled)));
    assert_eq!(seen, 1);
}
