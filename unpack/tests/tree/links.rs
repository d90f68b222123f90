//! Hard links, and symbolic links on the way.

use super::*;

#[test]
fn hard_links_are_names_of_one_file() {
    let tree = apply(&[
        dir("a"),
        file("a/f", "12345"),
        hard_link("b/g", "a/f"),
        hard_link("./c", "/a//f"),
        hard_link("d", "b/g"),
        symlink("s", "nowhere"),
        hard_link("t", "s"),
        fifo("p"),
        hard_link("q", "p"),
    ]);
    let snapshot = tree.snapshot();
    for path in ["b/g", "c", "d"] {
        assert_eq!(snapshot.at(path).link_of.as_deref(), Some(&b"a/f"[..]), "{path}");
    }
    assert_eq!(snapshot.at("t").link_of.as_deref(), Some(&b"s"[..]));
    assert_eq!(snapshot.at("t").target, b"nowhere");
    assert_eq!(snapshot.at("q").link_of.as_deref(), Some(&b"p"[..]));
    // The root, a, a/f, b, s, p.
    assert_eq!(tree.usage(), Usage { bytes: 5, inodes: 6, ..tree.counted() });
}

#[test]
fn a_hard_link_finds_its_target_through_links_of_the_layer() {
    let tree = apply(&[
        dir("real"),
        file("real/f", "x"),
        symlink("relative", "real"),
        symlink("absolute", "/real"),
        hard_link("one", "relative/f"),
        hard_link("relative/two", "absolute/f"),
        hard_link("absolute/three", "one"),
    ]);
    let snapshot = tree.snapshot();
    for path in ["real/two", "real/three", "real/f"] {
        assert_eq!(snapshot.at(path).link_of.as_deref(), Some(&b"one"[..]), "{path}");
    }
}

#[test]
fn a_hard_link_to_itself_keeps_the_file() {
    let tree = apply(&[
        dir("d"),
        file("d/f", "12345"),
        symlink("l", "d"),
        hard_link("d/f", "d/f"),
        hard_link("l/f", "d/f"),
        hard_link("d/f", "l/f"),
        hard_link("g", "d/f"),
        hard_link("g", "d/f"),
    ]);
    assert_eq!(std::fs::read(tree.path("d/f")).unwrap(), b"12345");
    assert_eq!(tree.usage(), Usage { bytes: 5, inodes: 4, ..tree.counted() });
}

/// The links that a layer leaves to those below it, as `path -> target`.
fn lower_links(tree: &Tree) -> Vec<String> {
    let text = |path: &[u8]| path.escape_ascii().to_string();
    tree.unpacked
        .lower_links
        .iter()
        .map(|link| format!("{} -> {}", text(&link.path), text(&link.target)))
        .collect()
}

#[test]
fn a_hard_link_to_what_the_layer_lacks_is_left_to_the_layers_below() {
    for (items, links, shape) in [
        // Whatever layers below have there, the link replaces.
        (vec![hard_link("a", "missing")], &["a -> missing"][..], &["a -"][..]),
        (vec![hard_link("x/a", "missing/f")], &["x/a -> missing/f"], &["x/", "x/a -"]),
        (vec![dir("d"), hard_link("a", "d/missing")], &["a -> d/missing"], &["a -", "d/"]),
        // Through links of the layer, which do not lead out of it.
        (vec![symlink("l", "/canary"), hard_link("a", "l/file")], &["a -> canary/file"], &["a -", "l"]),
        (vec![symlink("l", "../../canary"), hard_link("a", "l/f")], &["a -> canary/f"], &["a -", "l"]),
        (vec![dir("d"), symlink("l", "d"), hard_link("l/a", "f")], &["d/a -> f"], &["d/", "d/a -", "l"]),
        // A link to such a link is one itself, in either order.
        (vec![hard_link("b", "f"), hard_link("a", "b")], &["a -> f", "b -> f"], &["a -", "b -"]),
        (vec![hard_link("a", "b"), hard_link("b", "f")], &["a -> f", "b -> f"], &["a -", "b -"]),
        // What it replaces goes, and what replaces it counts.
        (vec![file("a", "x"), hard_link("a", "f")], &["a -> f"], &["a -"]),
        (vec![dir("a"), file("a/f", ""), hard_link("a", "f")], &["a -> f"], &["a -"]),
        (vec![hard_link("a", "f"), file("a", "x")], &[], &["a"]),
        (vec![hard_link("d/a", "f"), file("d", "x")], &[], &["d"]),
        (vec![hard_link("a", "f"), dir("a"), file("a/g", "x")], &[], &["a/", "a/g"]),
        // The layer has it after all.
        (vec![hard_link("a", "f"), file("f", "x")], &[], &["a", "f"]),
        (vec![hard_link("b", "a"), hard_link("a", "f"), file("f", "x")], &[], &["a", "b", "f"]),
        // Whiteouts hide what is below, not what the layer says.
        (vec![file(".wh.f", ""), hard_link("a", "f")], &["a -> f"], &["a -", "f -"]),
        (vec![file("d/.wh..wh..opq", ""), hard_link("d/a", "f")], &["d/a -> f"], &["d/ opaque"]),
    ] {
        let tree = apply(&items);
        assert_eq!(lower_links(&tree), links, "{items:?}");
        assert_eq!(tree.shape(), shape, "{items:?}");
        assert_eq!(tree.usage().inodes, 1 + shape.len() as u64 - tree.names_of_links(), "{items:?}");
    }
}

#[test]
fn a_hard_link_that_comes_before_its_target_is_one() {
    let tree = apply(&[hard_link("a", "d/f"), hard_link("b", "a"), dir("d"), file("d/f", "data")]);
    let snapshot = tree.snapshot();
    assert_eq!(snapshot.at("b").link_of.as_deref(), Some(&b"a"[..]));
    assert_eq!(snapshot.at("d/f").link_of.as_deref(), Some(&b"a"[..]));
    assert_eq!(std::fs::read(tree.path("b")).unwrap(), b"data");
}

#[test]
fn hard_links_to_nothing_are_refused() {
    for items in [
        vec![dir("d"), hard_link("a", "d")],
        vec![hard_link("a", "d"), dir("d")],
        vec![hard_link("a", ".")],
        vec![hard_link("a", "/")],
        vec![hard_link("a", "x/../f")],
        vec![hard_link("a", "")],
        vec![hard_link("a", "f"), file("a/below", "")],
        vec![hard_link("a", "f"), file("f", ""), file("a/below", "")],
    ] {
        assert!(refusal(&items).contains(if items.len() == 1 { "`" } else { "`a`" }));
    }
    for items in [
        vec![hard_link("a", "a")],
        vec![hard_link("a", "b"), hard_link("b", "a")],
        vec![symlink("l", "d"), hard_link("d/a", "l/b"), hard_link("l/b", "d/a")],
    ] {
        assert!(matches!(try_apply(&items), Err(Error::CircularLink { .. })), "{items:?}");
    }
}

#[test]
fn links_of_the_layer_lead_to_its_directories() {
    for (links, through) in [
        (vec![symlink("l", "real")], "l"),
        (vec![symlink("l", "/real")], "l"),
        (vec![symlink("l", "./real/")], "l"),
        (vec![symlink("l", "../../../../real")], "l"),
        (vec![symlink("l", "/../real/../real")], "l"),
        (vec![symlink("l", "m"), symlink("m", "/n"), symlink("n", "real")], "l"),
        (vec![symlink("x/l", "../real")], "x/l"),
        (vec![symlink("real/self", ".")], "real/self/self/self"),
    ] {
        let items = [
            vec![dir("real").mode(0o710)],
            links.clone(),
            vec![
                file(format!("{through}/f"), "data"),
                dir(format!("{through}/d")).mode(0o700).mtime(3, 3),
                file(format!("{through}/d/e/g"), ""),
            ],
        ];
        let tree = apply(&items.concat());
        let snapshot = tree.snapshot();
        assert_eq!(snapshot.at("real/f").size, 4, "{links:?}");
        assert_eq!((snapshot.at("real/d").mode, snapshot.at("real/d").mtime), (0o700, (3, 3)));
        assert_eq!(snapshot.at("real").mode, 0o710);
        assert!(tree.implied().contains(&"real/d/e".to_owned()), "{:?}", tree.implied());
    }
}

#[test]
fn what_a_dangling_link_leads_to_is_created_inside() {
    for (target, made) in [
        ("missing", "missing"),
        ("/missing/deeper", "missing/deeper"),
        ("../../missing/x/../y", "missing/y"),
        ("/canary", "canary"),
        ("a/..", ""),
    ] {
        let tree = apply(&[symlink("l", target), file("l/f", "data")]);
        let path = if made.is_empty() { "f".to_owned() } else { format!("{made}/f") };
        assert_eq!(tree.snapshot().at(&path).size, 4, "{target}");
        assert!(tree.implied().contains(&made.to_owned()), "{target}: {:?}", tree.implied());
    }
}

#[test]
fn links_in_a_circle_are_refused() {
    let chain: Vec<_> = (0..50).map(|i| symlink(format!("c{i}"), format!("c{}", i + 1))).collect();
    for (links, through) in [
        (vec![symlink("l", "l")], "l"),
        (vec![symlink("l", "m"), symlink("m", "l")], "l"),
        (vec![symlink("l", "l/x")], "l"),
        (chain, "c0"),
    ] {
        for last in [file(format!("{through}/f"), ""), hard_link("h", format!("{through}/f"))] {
            let items = [links.clone(), vec![last]].concat();
            assert!(refusal(&items).contains("too many symbolic links"));
        }
    }
}

#[test]
fn a_directory_keeps_its_attributes_when_the_link_to_it_goes() {
    let tree = apply(&[
        dir("real"),
        symlink("l", "real"),
        dir("l/d").mode(0o711).mtime(3, 3),
        file("l/implied/f", ""),
        dir("l"),
        file("l/other", ""),
    ]);
    let snapshot = tree.snapshot();
    assert_eq!((snapshot.at("real/d").mode, snapshot.at("real/d").mtime), (0o711, (3, 3)));
    assert_eq!((snapshot.at("real/implied").mode, snapshot.at("real/implied").mtime), (0o755, (0, 0)));
    assert_eq!(tree.implied(), ["", "real/implied"]);
    assert!(snapshot.has("l/other"));
}

#[test]
fn a_link_may_lead_back_to_what_is_made_on_the_way() {
    let tree = apply(&[symlink("l", "m/.."), file("l/m", "data")]);
    assert_eq!(tree.shape(), ["l", "m"]);
    assert_eq!(tree.implied(), [""]);
    assert_eq!(tree.usage(), Usage { bytes: 4, inodes: 3, ..tree.counted() });
}
