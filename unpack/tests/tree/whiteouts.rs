//! Whiteouts, in every order of a layer's entries.

use super::*;

fn permutations(items: &[Item]) -> Vec<Vec<Item>> {
    if items.len() < 2 {
        return vec![items.to_vec()];
    }
    let mut all = Vec::new();
    for i in 0..items.len() {
        let mut rest = items.to_vec();
        let first = rest.remove(i);
        all.extend(permutations(&rest).into_iter().map(|mut order| {
            order.insert(0, first.clone());
            order
        }));
    }
    all
}

fn mark(path: &str) -> Item {
    file(path, "")
}

#[test]
fn the_order_of_entries_makes_no_difference() {
    let cases: &[(&[Item], &[&str])] = &[
        (&[mark(".wh.f")], &["f -"]),
        (&[mark(".wh.f"), mark(".wh.f")], &["f -"]),
        // A file of the layer itself is not deleted, and hides the lower one anyway.
        (&[mark(".wh.f"), file("f", "x")], &["f"]),
        (&[mark(".wh.f"), symlink("f", "x")], &["f"]),
        (&[mark(".wh.d"), dir("d")], &["d/ opaque"]),
        (&[mark(".wh.d"), file("d/x", "")], &["d/ opaque", "d/x"]),
        (&[mark(".wh.d"), dir("d"), file("d/x", "")], &["d/ opaque", "d/x"]),
        (&[mark("d/.wh..wh..opq")], &["d/ opaque"]),
        (&[mark("d/.wh..wh..opq"), dir("d"), file("d/x", "")], &["d/ opaque", "d/x"]),
        (&[mark("d/.wh..wh..opq"), file("d/e/x", "")], &["d/ opaque", "d/e/", "d/e/x"]),
        // readdir would show a whiteout in an opaque directory.
        (&[mark("d/.wh..wh..opq"), mark("d/.wh.x"), file("d/y", "")], &["d/ opaque", "d/y"]),
        (&[mark("d/.wh..wh..opq"), mark("d/e/.wh.x"), file("d/e/y", "")], &["d/ opaque", "d/e/", "d/e/y"]),
        (&[mark("d/.wh..wh..opq"), mark("d/e/.wh.x")], &["d/ opaque"]),
        (&[mark("d/.wh..wh..opq"), mark("d/e/.wh..wh..opq")], &["d/ opaque"]),
        (&[mark("d/.wh..wh..opq"), mark(".wh.d")], &["d -"]),
        (&[mark("d/.wh..wh..opq"), mark(".wh.d"), dir("d")], &["d/ opaque"]),
        (&[mark(".wh.foo"), mark("foo/.wh.bar")], &["foo -"]),
        (&[mark(".wh.foo"), mark("foo/.wh.bar"), file("foo/x", "")], &["foo/ opaque", "foo/x"]),
        (&[mark(".wh.foo"), mark("foo/bar/.wh..wh..opq")], &["foo -"]),
        (&[mark(".wh.foo"), mark("foo/a/.wh.b"), mark("foo/.wh.a")], &["foo -"]),
        (&[mark("a/b/.wh.c")], &["a/", "a/b/", "a/b/c -"]),
        (&[mark("a/.wh.b"), mark("a/.wh.c"), dir("a")], &["a/", "a/b -", "a/c -"]),
        (
            &[mark("a/.wh.b"), file("a/b/.wh..wh.plnk/1", ""), file("a/b/c", "")],
            &["a/", "a/b/ opaque", "a/b/c"],
        ),
        (&[mark(".wh..wh.plnk"), mark(".wh..wh.aufs"), mark(".wh..wh.orph/x")], &[]),
        (&[mark(".wh..wh..opq"), file("f", "")], &["/ opaque", "f"]),
        (&[mark(".wh..wh..opq"), mark(".wh.f"), mark("d/.wh.f")], &["/ opaque"]),
    ];
    for (items, expected) in cases {
        for order in permutations(items) {
            let tree = apply(&order);
            let names: Vec<_> = order.iter().map(|item| item.entry.path.escape_ascii().to_string()).collect();
            assert_eq!(tree.shape(), *expected, "{names:?}");
            assert_eq!(tree.usage().inodes, tree.snapshot().entries.len() as u64, "{names:?}");
        }
    }
}

#[test]
fn whiteouts_go_by_name_not_by_type() {
    let content = file("a/.wh.one", "content");
    let linked = hard_link("a/.wh.two", ".wh..wh.plnk/two");
    let directory = dir("a/.wh.three");
    let link = symlink("a/.wh.four", "/etc");
    let opaque = hard_link("b/.wh..wh..opq", "nowhere");
    let tree = apply(&[content, linked, directory, link, opaque, file("last", "data")]);
    assert_eq!(tree.shape(), ["a/", "a/four -", "a/one -", "a/three -", "a/two -", "b/ opaque", "last"]);
    assert_eq!(std::fs::read(tree.path("last")).unwrap(), b"data");
}

#[test]
fn a_whiteout_in_a_missing_directory_implies_it() {
    let tree = apply(&[mark("a/b/.wh.c"), mark("o/p/.wh..wh..opq")]);
    assert_eq!(tree.implied(), ["", "a", "a/b", "o", "o/p"]);
    assert_eq!(tree.shape(), ["a/", "a/b/", "a/b/c -", "o/", "o/p/ opaque"]);
    assert_eq!(tree.snapshot().at("a/b").mtime, (0, 0));
    assert_eq!(tree.snapshot().at("a/b").mode, 0o755);
}

#[test]
fn whiteouts_leave_the_times_of_their_directory() {
    let tree = apply(&[
        dir("a").mtime(5, 5).mode(0o555),
        mark("a/.wh.b"),
        dir("o").mtime(6, 6),
        mark("o/.wh..wh..opq"),
    ]);
    assert_eq!(tree.snapshot().at("a").mtime, (5, 5));
    assert_eq!(tree.snapshot().at("a").mode, 0o555);
    assert_eq!(tree.snapshot().at("o").mtime, (6, 6));
}

#[test]
fn markers_reach_their_directory_through_links_of_the_layer() {
    let links = [dir("real"), symlink("l", "real"), symlink("m", "/l")];
    for (markers, expected) in [
        (&["l/.wh.x"][..], &["l", "m", "real/", "real/x -"][..]),
        (&["m/.wh.x", "real/.wh.x"], &["l", "m", "real/", "real/x -"]),
        (&["m/d/.wh.x"], &["l", "m", "real/", "real/d/", "real/d/x -"]),
        (&["m/.wh..wh..opq"], &["l", "m", "real/ opaque"]),
        // One directory by two names.
        (&["m/.wh..wh..opq", "real/.wh.x", "l/.wh.y"], &["l", "m", "real/ opaque"]),
        (&["real/.wh.d", "l/d/.wh.x"], &["l", "m", "real/", "real/d -"]),
        (&["real/.wh..wh..opq", "l/d/.wh.x"], &["l", "m", "real/ opaque"]),
    ] {
        let items = [links.to_vec(), markers.iter().copied().map(mark).collect()].concat();
        for order in [items.clone(), items.into_iter().rev().collect()] {
            assert_eq!(apply(&order).shape(), expected, "{markers:?}");
        }
    }
}

#[test]
fn replacing_and_whiteouts_together() {
    let tree = apply(&[
        file("x", ""),
        dir("x"),
        mark(".wh.x"),
        dir("y"),
        file("y/f", ""),
        mark("y/.wh..wh..opq"),
        mark(".wh.z"),
        fifo("z"),
        file("z", ""),
    ]);
    assert_eq!(tree.shape(), ["x/ opaque", "y/ opaque", "y/f", "z"]);
    // What became a file is not opaque, and nothing is hidden in it.
    assert!(refusal(&[file("y/f", ""), mark("y/.wh..wh..opq"), file("y", "")]).contains("not a directory"));
}

#[test]
fn whiteouts_of_nothing_are_refused() {
    for name in [".wh.", ".wh..", ".wh...", "a/.wh.", "a/.wh..", "a/.wh...", ".wh.a/b", "a/.wh.b/c/d"] {
        assert!(refusal(&[dir("a"), file("a/f", ""), mark(name)]).contains(name));
    }
    // Names that only look alike.
    let tree = apply(&[mark(".wh...."), mark(".wh..x"), file("x.wh.y", ""), file(".whx", "")]);
    assert_eq!(tree.shape(), ["... -", ".whx", ".x -", "x.wh.y"]);
}
