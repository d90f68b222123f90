//! From overlayfs's form of whiteouts, marks and attributes to the layer's.

use layerstore_oci::ErrorKind;
use layerstore_testkit::require;

use super::*;

#[test]
fn privileged_whiteouts_and_opaque_directories_take_the_form_of_a_layer() {
    if !require::root() {
        return;
    }
    let upper = Upper::new();
    upper.whiteout("gone").dir("new").xattr("new", own("opaque"), "y").file("new/.a", "").dir("new/sub");
    upper.dir("kept").whiteout("kept/gone").file("kept/f", "");
    assert_eq!(
        upper.diff().listing(),
        [
            "./",
            ".wh.gone",
            "kept/",
            "kept/f",
            "kept/.wh.gone",
            "new/",
            "new/.wh..wh..opq",
            "new/.a",
            "new/sub/"
        ]
    );
    let marker = upper.diff().at("kept/.wh.gone");
    assert_eq!((marker.kind, marker.size, marker.mtime.seconds), (EntryKind::Regular, 0, 0));
}

#[test]
fn privileged_in_an_opaque_directory_nothing_is_left_to_hide() {
    if !require::root() {
        return;
    }
    let upper = Upper::new();
    upper.dir("o").xattr("o", own("opaque"), "y").whiteout("o/x").dir("o/d").whiteout("o/d/y");
    // Not even a name that no whiteout can have.
    upper.whiteout("o/.wh.z").dir("p").whiteout("p/x");
    assert_eq!(upper.diff().listing(), ["./", "o/", "o/.wh..wh..opq", "o/d/", "p/", "p/.wh.x"]);
    upper.xattr("", own("opaque"), "y");
    assert_eq!(upper.diff().listing(), ["./", ".wh..wh..opq", "o/", "o/.wh..wh..opq", "o/d/", "p/"]);
}

#[test]
fn privileged_a_whiteout_that_has_many_names_is_many_whiteouts() {
    if !require::root() {
        return;
    }
    let upper = Upper::new();
    upper.whiteout("a").link("a", "b").dir("d").link("a", "d/c");
    assert_eq!(upper.diff().listing(), ["./", ".wh.a", ".wh.b", "d/", "d/.wh.c"]);
}

#[test]
fn an_empty_file_is_a_whiteout_where_its_directory_says_so() {
    let upper = Upper::new();
    upper.dir("d").xattr("d", own("opaque"), "x").file("d/gone", "").xattr("d/gone", own("whiteout"), "");
    upper.file("d/empty", "").file("d/full", "data").xattr("d/full", own("whiteout"), "y");
    upper.dir("d/o").xattr("d/o", own("opaque"), "y");
    assert_eq!(
        upper.diff().listing(),
        ["./", "d/", "d/empty", "d/full", "d/.wh.gone", "d/o/", "d/o/.wh..wh..opq"]
    );
    upper.file("f", "").xattr("f", own("whiteout"), "y");
    let error = upper.error();
    assert!(error.to_string().contains("`f`"), "{error}");
    assert_eq!(error.kind(), ErrorKind::Unsupported);
}

#[test]
fn an_opaque_mark_of_another_value_means_nothing() {
    for value in ["", "n", "yy"] {
        let upper = Upper::new();
        upper.dir("d").xattr("d", own("opaque"), value).file("f", "").xattr("f", own("opaque"), "y");
        assert_eq!(upper.diff().listing(), ["./", "d/", "f"]);
    }
}

#[test]
fn what_overlayfs_keeps_for_itself_is_left_out_and_escaped_names_lose_one_step() {
    let upper = Upper::new();
    upper.file("f", "").dir("d");
    for name in ["origin", "impure", "nlink", "upper", "uuid", "protattr", "unheard-of"] {
        upper.xattr("f", own(name), "1").xattr("d", own(name), "1");
    }
    upper.xattr("f", own("overlay.opaque"), "y").xattr("f", own("overlay.overlay.redirect"), "/x");
    upper.xattr("f", "user.z", "").xattr("f", "user.b", "b").xattr("f", "user.=", "=");
    let layer = upper.diff();
    let mut expected = vec![
        (own("opaque"), "y"),
        (own("overlay.redirect"), "/x"),
        ("user.z".to_owned(), ""),
        ("user.b".to_owned(), "b"),
        ("user.=".to_owned(), "="),
    ];
    expected.sort();
    let mut found = layer.at("f").xattrs;
    // This one is written in a form of its own, and read last.
    found.sort();
    let expected: Vec<_> =
        expected.into_iter().map(|(name, value)| (name.into_bytes(), value.into())).collect();
    assert_eq!(found, expected);
    assert_eq!(layer.at("d/").xattrs, []);
}

#[test]
fn attributes_are_sorted_by_name() {
    let upper = Upper::new();
    upper.file("f", "");
    let names = ["user.b", "user.a", "user.c", "user.B", "user.aa"];
    for name in names {
        upper.xattr("f", name, "");
    }
    let found: Vec<_> = upper.diff().at("f").xattrs.into_iter().map(|(name, _)| name).collect();
    let mut sorted: Vec<_> = names.map(|name| name.as_bytes().to_vec()).into();
    sorted.sort();
    assert_eq!(found, sorted);
}

#[test]
fn privileged_marks_are_looked_for_in_one_place_only() {
    if !require::root() {
        return;
    }
    let upper = Upper::new();
    upper.dir("t").xattr("t", "trusted.overlay.opaque", "y").dir("u").xattr("u", "user.overlay.opaque", "y");
    let user = DiffOptions { overlay: OverlayXattr::User, ..options() };
    let layer = upper.diff_with(&user).unwrap();
    assert_eq!(layer.listing(), ["./", "t/", "u/", "u/.wh..wh..opq"]);
    assert_eq!(layer.at("t/").xattrs, [(b"trusted.overlay.opaque".to_vec(), b"y".to_vec())]);
    let layer = upper.diff();
    assert_eq!(layer.listing(), ["./", "t/", "t/.wh..wh..opq", "u/"]);
    assert_eq!(layer.at("u/").xattrs, [(b"user.overlay.opaque".to_vec(), b"y".to_vec())]);
}

#[test]
fn privileged_labels_of_this_machine_stay_here() {
    if !require::root() {
        return;
    }
    let upper = Upper::new();
    upper.file("f", "").xattr("f", "security.unknown", "v");
    match rustix::fs::setxattr(upper.path("f"), "security.selinux", b"a:b:c:s0", XattrFlags::empty()) {
        Ok(()) | Err(rustix::io::Errno::INVAL) => {}
        Err(errno) => panic!("{errno}"),
    }
    assert_eq!(upper.diff().at("f").xattrs, [(b"security.unknown".to_vec(), b"v".to_vec())]);
}

#[test]
fn what_has_its_content_elsewhere_is_an_error() {
    for (name, word) in [("redirect", "redirect_dir"), ("metacopy", "metacopy")] {
        for path in ["d", "d/f"] {
            let upper = Upper::new();
            upper.dir("d").file("d/f", "").xattr(path, own(name), "/x");
            let error = upper.error();
            assert!(error.to_string().contains(&format!("`{path}`")), "{error}");
            assert!(error.to_string().contains(word), "{error}");
            assert_eq!(error.kind(), ErrorKind::Unsupported);
        }
    }
}

#[test]
fn names_that_would_be_whiteouts_are_an_error() {
    let makes: [fn(&Upper); 5] = [
        |upper| _ = upper.file("d/.wh.x", ""),
        |upper| _ = upper.dir("d/.wh.x"),
        |upper| _ = upper.symlink("d/.wh.x", "y"),
        |upper| _ = upper.file("d/-", "").link("d/-", "d/.wh.x"),
        |upper| if is_root() { _ = upper.whiteout("d/.wh.x") } else { _ = upper.fifo("d/.wh.x") },
    ];
    for make in makes {
        let upper = Upper::new();
        make(upper.dir("d"));
        let error = upper.error();
        assert!(error.to_string().contains("`d/.wh.x`"), "{error}");
    }
    let upper = Upper::new();
    upper.file(".whx", "").file(".wh", "").file("x.wh.y", "");
    assert_eq!(upper.diff().listing(), ["./", ".wh", ".whx", "x.wh.y"]);
}

#[test]
fn sockets_are_left_out_and_hide_what_is_below() {
    let upper = Upper::new();
    upper.dir("d").xattr("d", own("origin"), "").dir("o").xattr("o", own("opaque"), "y").dir("new");
    for i in 0..40 {
        drop(std::os::unix::net::UnixListener::bind(upper.path(format!("o/{i}"))).unwrap());
    }
    drop(std::os::unix::net::UnixListener::bind(upper.path("d/s")).unwrap());
    drop(std::os::unix::net::UnixListener::bind(upper.path("new/s")).unwrap());
    drop(std::os::unix::net::UnixListener::bind(upper.path("top")).unwrap());
    drop(std::os::unix::net::UnixListener::bind(upper.path("d/.wh.s")).unwrap());
    let layer = upper.diff();
    assert_eq!(layer.listing(), ["./", "d/", "d/.wh.s", "new/", "o/", "o/.wh..wh..opq", ".wh.top"]);
    assert_eq!(layer.result.sockets, 44);
    assert_eq!(layer.result.skipped.len(), 32);
    assert_eq!(layer.result.skipped[..4], [&b"d/.wh.s"[..], b"d/s", b"new/s", b"o/0"]);
}
