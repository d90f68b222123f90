//! Single files: into an archive as programs see them, and compared with each other.

use std::os::fd::OwnedFd;

use layerstore_unpack::{Comparer, FlatArchive};
use rustix::fs::{CWD, Mode, OFlags, openat};

use super::*;

fn open(upper: &Upper, path: &str) -> OwnedFd {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(CWD, upper.path(path), flags, Mode::empty()).unwrap()
}

fn same(upper: &Upper, one: &str, other: &str) -> bool {
    let files = (open(upper, one), open(upper, other));
    Comparer::new(overlay()).same(files.0, files.1, one.as_bytes()).unwrap()
}

#[test]
fn names_and_attributes_are_what_programs_see() {
    let upper = Upper::new();
    upper.dir("d").xattr("d", own("opaque"), "y").xattr("d", own("overlay.opaque"), "seen");
    upper.file(".wh.f", "data").link(".wh.f", "g");
    let mut archive = FlatArchive::new(Vec::new(), &options());
    for path in ["", "d", ".wh.f", "g"] {
        let file = open(&upper, if path.is_empty() { "." } else { path });
        archive.append(path.as_bytes(), file).unwrap();
    }
    let (result, bytes) = archive.finish().unwrap();
    assert_eq!((result.entries, result.bytes), (4, bytes.len() as u64));
    let mut reader = Reader::new(bytes.as_slice());
    let mut entries = Vec::new();
    while let Some(entry) = reader.next_entry().unwrap() {
        entries.push(entry);
    }
    let paths: Vec<_> = entries.iter().map(|entry| String::from_utf8_lossy(&entry.path)).collect();
    assert_eq!(paths, ["./", "d/", ".wh.f", "g"]);
    assert_eq!(entries[1].xattrs, [(own("opaque").into_bytes(), b"seen".to_vec())]);
    assert_eq!((entries[3].kind, entries[3].link.as_slice()), (EntryKind::HardLink, &b".wh.f"[..]));
}

#[test]
fn the_last_byte_of_a_large_file_counts() {
    let upper = Upper::new();
    let mut data = vec![7; 700_000];
    upper.file("one", &data).file("like", &data);
    data[699_999] = 8;
    upper.file("other", &data);
    for name in ["one", "like", "other"] {
        build::set_mtime(&upper.path(name), (1, 1));
    }
    assert!(same(&upper, "one", "like"));
    assert!(!same(&upper, "one", "other"));
}

#[test]
fn marks_of_overlayfs_do_not_count_but_those_that_it_escaped_do() {
    let upper = Upper::new();
    upper.dir("a").dir("b").dir("c");
    upper.xattr("a", own("opaque"), "y").xattr("b", own("impure"), "y").xattr(
        "c",
        own("overlay.opaque"),
        "y",
    );
    for name in ["a", "b", "c"] {
        build::set_mtime(&upper.path(name), (1, 1));
    }
    assert!(same(&upper, "a", "b"));
    assert!(!same(&upper, "a", "c"));
}
