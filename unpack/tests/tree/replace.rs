//! Several entries of one path: the last one counts.

use super::*;

#[test]
fn the_last_entry_wins_and_leaves_nothing_of_the_one_before() {
    let kinds: [(&str, Vec<Item>); 6] = [
        ("file", vec![file("x", "new").mode(0o600).mtime(2, 2)]),
        ("dir", vec![dir("x").mode(0o711).mtime(2, 2)]),
        ("tree", vec![dir("x"), dir("x/a"), file("x/a/f", "data"), symlink("x/a/s", "f"), file("x/i/j", "")]),
        ("symlink", vec![symlink("x", "d").mtime(2, 2)]),
        ("fifo", vec![fifo("x").mtime(2, 2)]),
        ("hard link", vec![hard_link("x", "d/f")]),
    ];
    for (first_name, first) in &kinds {
        for (second_name, second) in &kinds {
            // What follows gets the inode numbers of what was removed.
            let before = vec![dir("d"), file("d/f", "other")];
            let after = vec![dir("y").mode(0o700).mtime(9, 9), dir("y/z").mode(0o701), file("w/f", "")];
            let tree = apply(&[before.clone(), first.clone(), second.clone(), after.clone()].concat());
            let context = format!("{first_name}, then {second_name}");
            assert_eq!(tree.usage(), tree.counted(), "{context}");
            // Directories merge, and so keep what the first had.
            let merged = *first_name == "tree" && matches!(*second_name, "dir" | "tree");
            if !merged {
                let expected = apply(&[before, second.clone(), after].concat());
                let found = tree.snapshot().compare(&expected.snapshot());
                assert!(found.is_empty(), "{context}: {found:?}");
                assert_eq!(tree.implied(), expected.implied(), "{context}");
            }
        }
    }
}

#[test]
fn a_directory_listed_twice_keeps_its_children_and_takes_the_last_attributes() {
    let tree = apply(&[
        dir("d").mode(0o700).xattr("user.first", "1"),
        file("d/f", "data"),
        dir("d").mode(0o711).mtime(8, 8).xattr("user.second", "2"),
        file("d/g", ""),
    ]);
    let snapshot = tree.snapshot();
    assert_eq!((snapshot.at("d").mode, snapshot.at("d").mtime), (0o711, (8, 8)));
    assert_eq!(snapshot.at("d").xattrs.keys().collect::<Vec<_>>(), [b"user.second"]);
    assert!(snapshot.has("d/f") && snapshot.has("d/g"));
    assert_eq!(tree.usage(), tree.counted());
}

#[test]
fn nothing_is_created_below_a_file() {
    for top in [file("x", ""), fifo("x")] {
        for child in [file("x/f", ""), dir("x/d"), symlink("x/s", "y"), fifo("x/y/p"), hard_link("x/h", "g")]
        {
            let message = refusal(&[file("g", ""), top.clone(), child]);
            assert!(message.contains("`x") && message.contains("not a directory"), "{message}");
        }
    }
}

#[test]
fn a_link_that_becomes_a_directory_leads_nowhere_any_more() {
    let tree = apply(&[
        dir("real"),
        symlink("x", "real"),
        file("x/one", ""),
        dir("x"),
        file("x/two", ""),
        symlink("x", "real"),
        file("x/three", ""),
    ]);
    assert_eq!(tree.shape(), ["real/", "real/one", "real/three", "x"]);
}

#[test]
fn a_deep_tree_is_replaced_in_bounded_memory() {
    // Links make each step short however deep it is.
    let deep = "d/".repeat(300);
    let mut items = vec![file(format!("top/{deep}f"), "")];
    let mut link = format!("top/{deep}");
    for i in 0..3 {
        items.push(symlink(format!("l{i}"), link));
        items.push(file(format!("l{i}/{deep}f"), ""));
        link = format!("l{i}/{deep}");
    }
    items.push(file("top", "data"));
    items.extend((0..3).map(|i| symlink(format!("l{i}"), "gone")));
    let tree = apply(&items);
    assert_eq!(tree.usage(), tree.counted());
    assert_eq!(tree.shape(), ["l0", "l1", "l2", "top"]);
}

#[test]
fn links_do_not_lead_deeper_than_is_allowed() {
    let mut items = Vec::new();
    let mut link = String::new();
    for i in 0..4 {
        items.push(file(format!("{link}{}f", "d/".repeat(1000)), ""));
        items.push(symlink(format!("l{i}"), format!("{link}{}", "d/".repeat(1000))));
        link = format!("l{i}/");
    }
    let dir_with = tempfile::tempdir().unwrap();
    let path = dir_with.path().to_owned();
    let Err(error) = unpack_in(dir_with, &tar(&items), None, &options()) else { panic!("it was accepted") };
    assert!(matches!(error, Error::Limit { limit: 2048, .. }), "{error}");
    // Too deep for what removes a temporary directory.
    assert!(std::process::Command::new("rm").arg("-rf").arg(path).status().unwrap().success());
}
