//! Trees of any depth and any mode, and how much of them is taken.

use std::os::fd::OwnedFd;

use layerstore_oci::ErrorKind;
use layerstore_testkit::disk::Disk;
use layerstore_testkit::require;
use rustix::fs::{CWD, Mode, OFlags, mkdirat, openat};

use super::*;

fn open(parent: &OwnedFd, name: &str) -> OwnedFd {
    openat(parent, name, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).unwrap()
}

#[test]
fn a_tree_may_be_deeper_than_paths_and_than_a_process_has_files() {
    const DEPTH: usize = 3000;
    let upper = Upper::new();
    let mut here = openat(CWD, upper.0.path(), OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).unwrap();
    for _ in 0..DEPTH {
        mkdirat(&here, "d", Mode::RWXU).unwrap();
        // After the directory, so that the way leads up again.
        mkdirat(&here, "e", Mode::RWXU).unwrap();
        here = open(&here, "d");
    }
    let mut options = options();
    options.limits.tar.path = 4096;
    let error = upper.diff_with(&options).map(|_| ()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.to_string().contains("more than 4096 bytes of a path"), "{error}");

    options.limits.tar.path = 2 * DEPTH + 2;
    options.limits.depth = DEPTH;
    let layer = upper.diff_with(&options);
    let removed = std::process::Command::new("rm").arg("-rf").arg(upper.path("d")).status().unwrap();
    assert!(removed.success());
    let layer = layer.unwrap();
    assert_eq!(layer.result.entries, 1 + 2 * DEPTH as u64);
    let mut reader = Reader::with_limits(layer.stream.as_slice(), options.limits.tar);
    let (mut deepest, mut last) = (0, Vec::new());
    while let Some(entry) = reader.next_entry().unwrap() {
        deepest = deepest.max(entry.path.len());
        last = entry.path;
    }
    assert_eq!((deepest, last.as_slice()), (2 * DEPTH, &b"e/"[..]));
}

#[test]
fn privileged_modes_are_no_obstacle() {
    if !require::root() {
        return;
    }
    let upper = Upper::new();
    upper.dir("d").dir("d/e").file("d/e/f", "data").dir("z");
    for path in ["d/e/f", "d/e", "d", ""] {
        rustix::fs::chmod(upper.path(path), Mode::empty()).unwrap();
    }
    let layer = upper.diff();
    assert_eq!(layer.listing(), ["./", "d/", "d/e/", "d/e/f", "z/"]);
    assert!(["./", "d/", "d/e/", "d/e/f"].iter().all(|path| layer.at(path).mode == 0));
}

/// Sets one limit.
type Set = fn(&mut Limits, u64);

#[test]
fn limits_are_those_of_who_reads_the_layer() {
    let upper = Upper::new();
    upper.dir("d").file("d/f", [1; 5000]).symlink("d/s", "target").link("d/f", "d/g");
    upper.xattr("d/f", "user.a", "12345").xattr("d/f", "user.b", "");
    let stream = upper.diff().stream;
    // What is enough, and what is not; exact but for memory and the estimate of a PAX header.
    let cases: [(&str, Set, u64, u64); 9] = [
        ("`d/f`", |limits, n| limits.depth = usize::try_from(n).unwrap(), 1, 0),
        ("`d/g`", |limits, n| limits.entries = n, 5, 3),
        ("`d/f`", |limits, n| limits.tar.path = usize::try_from(n).unwrap(), 3, 2),
        ("`d/s`", |limits, n| limits.tar.link = usize::try_from(n).unwrap(), 6, 5),
        ("`d/f`", |limits, n| limits.tar.xattrs = usize::try_from(n).unwrap(), 2, 1),
        ("`d/f`", |limits, n| limits.tar.xattr_bytes = usize::try_from(n).unwrap(), 17, 16),
        ("`d/s`", |limits, n| limits.output_bytes = n, stream.len() as u64, stream.len() as u64 - 1),
        ("`/`", |limits, n| limits.memory = n, 10_000, 64),
        ("`/`", |limits, n| limits.tar.extension = n, 10_000, 1000),
    ];
    for (i, (file, set, enough, few)) in cases.into_iter().enumerate() {
        let mut options = options();
        set(&mut options.limits, enough);
        let layer = upper.diff_with(&options).unwrap_or_else(|error| panic!("{i}: {error}"));
        assert!(layer.stream == stream, "{i}");
        let mut reader = Reader::with_limits(layer.stream.as_slice(), options.limits.tar);
        while reader.next_entry().unwrap().is_some() {}
        set(&mut options.limits, few);
        let error = upper.diff_with(&options).map(|_| ()).unwrap_err();
        assert!(matches!(error, DiffError::Limit { .. }), "{i}: {error:?}");
        assert!(error.to_string().starts_with(file), "{i}: {error}");
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    }
}

#[test]
fn the_limit_of_link_targets_is_that_of_hard_links_too() {
    let upper = Upper::new();
    upper.file("a-long-name", "").link("a-long-name", "b");
    let mut options = options();
    options.limits.tar.link = 10;
    let error = upper.diff_with(&options).map(|_| ()).unwrap_err();
    assert!(error.to_string().starts_with("`b`"), "{error}");
}

#[test]
fn a_hole_of_terabytes_does_not_fill_the_disk() {
    let upper = Upper::new();
    // As large as this filesystem takes.
    let file = std::fs::File::create(upper.path("f")).unwrap();
    file.set_len(8 << 40).unwrap();
    for holes in [Holes::Keep, Holes::Fill] {
        let error = upper.diff_with(&DiffOptions { holes, ..options() }).map(|_| ()).unwrap_err();
        assert!(matches!(error, DiffError::Limit { limit, .. } if limit == 1 << 40), "{error:?}");
    }
    let limits = Limits { output_bytes: 8 << 40, ..Limits::default() };
    assert!(upper.diff_with(&DiffOptions { limits, ..options() }).unwrap().stream.len() < 10_000);
}

#[test]
fn privileged_what_is_mounted_inside_is_not_the_containers() {
    if !require::root() {
        return;
    }
    let upper = Upper::new();
    upper.dir("d").dir("d/m").file("d/f", "");
    for (source, target) in [("/proc", "d/m"), ("/proc/version", "d/f")] {
        rustix::mount::mount_bind(source, upper.path(target)).unwrap();
        let error = upper.diff_with(&options()).map(|_| ());
        rustix::mount::unmount(upper.path(target), rustix::mount::UnmountFlags::DETACH).unwrap();
        let error = error.unwrap_err();
        assert!(error.to_string().contains(&format!("`{target}`")), "{error}");
        assert!(error.to_string().contains("mounted"), "{error}");
    }
}

#[test]
fn privileged_a_filesystem_may_be_the_whole_tree_and_have_times_from_any_age() {
    if !require::root() {
        return;
    }
    let disk = Disk::tmpfs(4);
    for (name, seconds) in [("first", i64::MIN), ("last", i64::MAX)] {
        std::fs::write(disk.path().join(name), "").unwrap();
        build::set_mtime(&disk.path().join(name), (seconds, 0));
    }
    let layer = layer_of(disk.path(), &options()).unwrap();
    assert_eq!(layer.listing(), ["./", "first", "last"]);
    let found = std::fs::metadata(disk.path().join("first")).unwrap();
    assert_eq!(layer.at("first").mtime.seconds, std::os::unix::fs::MetadataExt::mtime(&found));
}

#[test]
fn what_is_no_directory_is_an_error_that_names_it() {
    let upper = Upper::new();
    upper.file("f", "").dir("d").symlink("l", "d");
    for (path, kind) in [("f", ErrorKind::Io), ("l", ErrorKind::Io), ("nothing", ErrorKind::NotFound)] {
        let error = layer_of(&upper.path(path), &options()).map(|_| ()).unwrap_err();
        assert!(error.to_string().contains(upper.path(path).to_str().unwrap()), "{error}");
        assert_eq!(error.kind(), kind, "{path}");
    }
}
