use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use layerstore_tar::{Entry, EntryKind, Reader};
use layerstore_testkit::require;
use layerstore_testkit::tree::Snapshot;
use proptest::collection::vec;
use proptest::prelude::*;
use rustix::fs::makedev;

use super::*;
use crate::changes::tests::random::{build, choice};
use crate::rootfs::trees::Trees;

fn archive(rootfs: &Rootfs, holes: Holes) -> (Diffed, Vec<u8>) {
    let (exported, bytes) = export(rootfs, holes, Vec::new()).unwrap();
    assert_eq!(exported.bytes, bytes.len() as u64);
    (exported, bytes)
}

fn entries(bytes: &[u8]) -> Vec<Entry> {
    let mut reader = Reader::with_limits(bytes, limits().tar);
    let mut entries = Vec::new();
    while let Some(entry) = reader.next_entry().unwrap() {
        entries.push(entry);
    }
    entries
}

fn names(bytes: &[u8]) -> Vec<String> {
    let name = |entry: &Entry| {
        let path = String::from_utf8(entry.path.clone()).unwrap();
        match entry.kind {
            EntryKind::HardLink => format!("{path} = {}", String::from_utf8_lossy(&entry.link)),
            _ => path,
        }
    };
    entries(bytes).iter().map(name).collect()
}

fn gnu_tar(bytes: &[u8], target: &Path) {
    let arguments = ["--extract", "--preserve-permissions", "--numeric-owner", "--same-owner", "--xattrs"];
    let more =
        ["--xattrs-include=*", "--warning=no-timestamp", "--delay-directory-restore", "--file=-", "-C"];
    let mut command = Command::new("tar");
    let mut child = command.args(arguments).args(more).arg(target).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(bytes).unwrap();
    assert!(child.wait().unwrap().success());
}

#[test]
fn everything_that_is_seen_and_nothing_else() {
    let trees = Trees::new();
    trees.tree("base").dir("a").file("a/f", "1").file("a/gone", "").file("a-b", "").dir("o").file("o/x", "");
    let upper = trees.tree("upper");
    upper.dir("a").whiteout("a/gone").file("a/new", "").dir("o").opaque("o").file(".wh.x", "");
    upper.file("a/one", "").link("a/one", "z");
    let (exported, bytes) = archive(&trees.rootfs(&["upper", "base"]), Holes::Fill);
    let expected = ["./", ".wh.x", "a/", "a/f", "a/new", "a/one", "a-b", "o/", "z = a/one"];
    assert_eq!(names(&bytes), expected);
    assert_eq!(exported.entries, expected.len() as u64);
    assert!(entries(&bytes).iter().all(|entry| entry.xattrs.is_empty()), "nothing of overlayfs");
}

#[test]
fn sockets_are_left_out_and_counted() {
    let trees = Trees::new();
    trees.tree("base").node("s", FileType::Socket, 0).dir("d").node("d/s", FileType::Socket, 0);
    let (exported, bytes) = archive(&trees.rootfs(&["base"]), Holes::Fill);
    assert_eq!(names(&bytes), ["./", "d/"]);
    assert_eq!((exported.sockets, exported.skipped), (2, vec![b"d/s".to_vec(), b"s".to_vec()]));
}

#[test]
fn trees_may_be_deeper_than_paths_and_than_a_process_has_files() {
    const DEPTH: usize = 1500;
    let trees = Trees::new();
    trees.tree("base").file("z", "").deep("some-name", DEPTH, "end");
    let (_, bytes) = archive(&trees.rootfs(&["base"]), Holes::Fill);
    let names = names(&bytes);
    assert_eq!(names.len(), DEPTH + 3);
    assert_eq!(names[DEPTH + 1], format!("{}file", "some-name/".repeat(DEPTH)));
    assert_eq!(names[DEPTH + 2], "z");
}

#[test]
fn a_file_that_is_kept_elsewhere_is_an_error_that_names_it() {
    let trees = Trees::new();
    let mark = crate::rootfs::trees::overlay().opaque().replace("opaque", "redirect");
    trees.tree("base").dir("moved").xattr("moved", &mark, "elsewhere");
    let error = export(&trees.rootfs(&["base"]), Holes::Fill, Vec::new()).map(|_| ()).unwrap_err();
    let Error::Tree { source, .. } = error else { panic!("{error}") };
    assert!(source.to_string().contains("`moved`"), "{source}");
}

#[test]
fn privileged_what_tar_unpacks_is_what_was_mounted() {
    if !require::root() {
        return;
    }
    let trees = Trees::new();
    let capability = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let base = trees.tree("base");
    base.dir("usr").file("usr/ping", "ping").mode("usr/ping", 0o755);
    base.xattr("usr/ping", "security.capability", capability).file("usr/su", "su").mode("usr/su", 0o4755);
    base.dir("dev").node("dev/null", FileType::CharacterDevice, makedev(1, 3));
    base.node("dev/sda", FileType::BlockDevice, makedev(8, 1)).node("dev/fifo", FileType::Fifo, 0);
    base.dir("home")
        .owner("home", 3_000_000_000, 7)
        .xattr("home", "user.k", b"v\0\n")
        .time("home", 999_999_999);
    base.dir("home/gone").file("home/gone/f", "").file("home/holes", "").symlink("home/s", "x".repeat(300));
    base.file("usr/linked", "")
        .link("usr/linked", "usr/linked-too")
        .file("usr/split", "")
        .link("usr/split", "usr/split-too");
    std::fs::File::options().write(true).open(base.path("home/holes")).unwrap().set_len(1 << 20).unwrap();
    trees.tree("upper");
    let mounted = trees.mount(Some("upper"), &["base"]);
    let merged = mounted.tree();
    std::fs::write(merged.path("usr/split"), "no longer the same").unwrap();
    std::fs::remove_dir_all(merged.path("home/gone")).unwrap();
    merged
        .dir("home/gone")
        .dir(format!("home/{}", "n".repeat(200)))
        .file(b"home/\xff", "x")
        .time("home/gone", 1);
    merged.file("new", "new").link("new", "new-too").mode("usr/su", 0o2711).file(".wh.f", "");
    // The kernel escapes it since 6.7, and refuses it before.
    _ = rustix::fs::setxattr(merged.path("home"), "trusted.overlay.k", b"v", rustix::fs::XattrFlags::empty());
    merged.time("home", 999_999_999).owner("", 5, 6).mode("", 0o700).time("", 123_456_789);
    let expected = Snapshot::of(mounted.path());
    drop(mounted);
    let rootfs = trees.rootfs(&["upper", "base"]);
    for (i, holes) in [Holes::Keep, Holes::Fill].into_iter().enumerate() {
        let (_, bytes) = archive(&rootfs, holes);
        assert_eq!(archive(&rootfs, holes).1, bytes, "the same view gives the same bytes");
        let target = trees.path(&format!("out-{i}"));
        std::fs::create_dir(&target).unwrap();
        gnu_tar(&bytes, &target);
        expected.assert_same(&Snapshot::of(&target));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, max_shrink_iters: 300, ..ProptestConfig::with_cases(30) })]

    #[test]
    fn privileged_any_stack_is_exported_as_it_is_mounted(
        layers in [vec(choice(), 0..15), vec(choice(), 0..15), vec(choice(), 0..15)],
    ) {
        if !require::root() {
            return Ok(());
        }
        let trees = Trees::new();
        let stack = ["x", "y", "z"];
        for (name, choices) in stack.iter().zip(&layers) {
            build(&trees.tree(name), choices);
        }
        let expected = Snapshot::of(trees.mount(None, &stack).path());
        let target = trees.path("out");
        std::fs::create_dir(&target).unwrap();
        gnu_tar(&archive(&trees.rootfs(&stack), Holes::Fill).1, &target);
        let found = expected.compare(&Snapshot::of(&target));
        let found: Vec<String> = found.iter().map(ToString::to_string).collect();
        prop_assert_eq!(found, Vec::<String>::new());
    }
}
