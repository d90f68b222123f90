//! Regular files, their holes and their other names.

use std::os::unix::fs::MetadataExt as _;

use layerstore_tar::Segment;

use super::*;

fn map(layer: &Layer, path: &str) -> Option<Vec<(u64, u64)>> {
    let pairs = |map: Vec<Segment>| map.iter().map(|segment| (segment.offset, segment.len)).collect();
    layer.at(path).sparse.map(pairs)
}

#[test]
fn holes_are_kept_or_filled() {
    let upper = Upper::new();
    let cases: [(&str, &[bool], u16); 6] = [
        ("all", &[], 4097),
        ("end", &[true], 0),
        ("full", &[], 0),
        ("middle", &[true, false, true, true], 5000),
        ("none", &[], 0),
        ("start", &[false, true], 1),
    ];
    for (name, parts, tail) in cases {
        build::sparse(&upper.path(name), parts, tail);
    }
    upper.file("full", vec![1; 70_000]);
    if upper.path("all").metadata().unwrap().blocks() > 0 {
        return; // This filesystem has no holes.
    }
    let kept = upper.diff();
    assert_eq!(map(&kept, "all"), Some(vec![(4096, 1)]));
    assert_eq!(map(&kept, "end"), Some(vec![(0, 8192)]));
    assert_eq!(map(&kept, "full"), None);
    assert_eq!(map(&kept, "middle"), Some(vec![(0, 8192), (131_072, 8192), (196_608, 8192), (266_240, 904)]));
    assert_eq!(map(&kept, "none"), None);
    assert_eq!(map(&kept, "start"), Some(vec![(65536, 8192), (131_072, 1)]));
    let unpacked = kept.unpack();
    let filled = upper.diff_with(&DiffOptions { holes: Holes::Fill, ..options() }).unwrap();
    for (name, _, _) in cases {
        let content = std::fs::read(upper.path(name)).unwrap();
        assert_eq!(std::fs::read(unpacked.path().join(name)).unwrap(), content, "{name}");
        let blocks = |path: PathBuf| path.metadata().unwrap().blocks();
        // The last block was not there before.
        assert!(blocks(unpacked.path().join(name)) <= blocks(upper.path(name)) + 8, "{name}");
        let found = filled.entries().into_iter().find(|(entry, _)| entry.path == name.as_bytes()).unwrap();
        assert!(found.0.sparse.is_none() && found.1 == content, "{name}");
    }
}

#[test]
fn holes_that_do_not_fit_into_a_map_are_filled() {
    let upper = Upper::new();
    build::sparse(&upper.path("f"), &[false, true, false, true, false, true, false], 0);
    let content = std::fs::read(upper.path("f")).unwrap();
    let end = content.len() as u64;
    let expected: [&[(u64, u64)]; 5] = [
        &[(65536, end - 65536)],
        &[(65536, 8192), (196_608, end - 196_608)],
        &[(65536, 8192), (196_608, 8192), (327_680, end - 327_680)],
        &[(65536, 8192), (196_608, 8192), (327_680, 8192)],
        &[(65536, 8192), (196_608, 8192), (327_680, 8192)],
    ];
    for (limit, expected) in (1..).zip(expected) {
        let mut options = options();
        options.limits.tar.sparse_segments = limit;
        let layer = upper.diff_with(&options).unwrap();
        assert_eq!(map(&layer, "f").as_deref(), Some(expected), "{limit}");
        // Whoever has the same limit reads it.
        let mut reader = Reader::with_limits(layer.stream.as_slice(), options.limits.tar);
        while reader.next_entry().unwrap().is_some() {}
        assert_eq!(std::fs::read(layer.unpack().path().join("f")).unwrap(), content, "{limit}");
    }
    let mut options = options();
    options.limits.tar.sparse_segments = 0;
    assert_eq!(map(&upper.diff_with(&options).unwrap(), "f"), None);
}

#[test]
fn the_first_name_is_the_file_and_the_others_are_links() {
    let upper = Upper::new();
    let outside = tempfile::tempdir().unwrap();
    upper.dir("z").file("z/f", "data").link("z/f", "b").link("z/f", "a.b").dir("a").link("z/f", "a/c");
    upper.symlink("s", "t").link("s", "r").fifo("p").link("p", "o");
    upper.file("also-outside", "x");
    std::fs::hard_link(upper.path("also-outside"), outside.path().join("name")).unwrap();
    assert_eq!(
        upper.diff().listing(),
        [
            "./",
            "a/",
            "a/c",
            "a.b = a/c",
            "also-outside",
            "b = a/c",
            "o",
            "p = o",
            "r -> t",
            "s = r",
            "z/",
            "z/f = a/c"
        ]
    );
}

#[test]
fn directories_come_before_what_is_in_them_and_names_in_the_order_of_their_bytes() {
    let upper = Upper::new();
    for name in ["b", "a", "a-", "a0", "B", "\u{e9}"] {
        upper.dir(name).file(format!("{name}/f"), "");
    }
    upper.file(b"\xff", "").file("a.", "");
    assert_eq!(
        upper.diff().listing(),
        [
            "./",
            "B/",
            "B/f",
            "a/",
            "a/f",
            "a-/",
            "a-/f",
            "a.",
            "a0/",
            "a0/f",
            "b/",
            "b/f",
            "\\xc3\\xa9/",
            "\\xc3\\xa9/f",
            "\\xff"
        ]
    );
}

#[test]
fn attributes_are_numbers_and_times_are_exact() {
    let upper = Upper::new();
    upper.file("f", "data").dir("d");
    for (path, mtime) in [("f", (-2, 999_999_999)), ("d", (15_032_385_000, 1)), ("", (5, 0))] {
        build::set_mtime(&upper.path(path), mtime);
    }
    let layer = upper.diff();
    for (path, mtime) in [("f", (-2, 999_999_999)), ("d/", (15_032_385_000, 1)), ("./", (5, 0))] {
        let entry = layer.at(path);
        assert_eq!((entry.mtime.seconds, entry.mtime.nanoseconds), mtime, "{path}");
        assert_eq!((entry.atime, entry.ctime), (None, None));
        assert_eq!((entry.uname.as_slice(), entry.gname.as_slice()), (&b""[..], &b""[..]));
        assert_eq!(entry.uid, u64::from(rustix::process::geteuid().as_raw()));
    }
    let found = layer.entries().into_iter().find(|(entry, _)| entry.path == b"f").unwrap();
    assert_eq!(found.1, b"data");
    // A look at the file changes nothing.
    assert_eq!(std::fs::read(upper.path("f")).unwrap(), b"data");
    assert_eq!(upper.diff().stream, layer.stream);
}

#[test]
fn what_is_newer_than_allowed_counts_as_the_newest() {
    let upper = Upper::new();
    upper
        .dir("d")
        .file("d/new", "")
        .file("d/old", "")
        .file("d/same", "")
        .link("d/new", "d/other")
        .symlink("l", "x");
    let set = |path: &str, seconds, nanoseconds| {
        let time = rustix::fs::Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
        let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
        let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
        rustix::fs::utimensat(rustix::fs::CWD, upper.path(path), &times, flags).unwrap();
    };
    for (path, seconds, nanoseconds) in
        [("d/new", 1000, 1), ("d/old", 999, 7), ("d/same", 1000, 0), ("d", 1001, 0), ("l", 5000, 0)]
    {
        set(path, seconds, nanoseconds);
    }
    let layer = upper.diff_with(&DiffOptions { newest: Some(1000), ..options() }).unwrap();
    let time = |path: &str| {
        let mtime = layer.at(path).mtime;
        (mtime.seconds, mtime.nanoseconds)
    };
    for path in ["./", "d/", "d/new", "d/other", "d/same", "l"] {
        assert_eq!(time(path), (1000, 0), "{path}");
    }
    assert_eq!(time("d/old"), (999, 7));
}
