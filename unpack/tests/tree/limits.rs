//! What is too much, and that finding out is cheap.

use std::io::Read as _;
use std::time::{Duration, Instant};

use layerstore_testkit::layer::Compression as Kit;
use layerstore_unpack::Devices;

use super::streams::{both, sample};
use super::*;

fn with(change: impl FnOnce(&mut Limits)) -> Options {
    let mut options = options();
    change(&mut options.limits);
    options
}

/// The entry that is named, what there is too much of, and how much is allowed.
#[track_caller]
fn excess(result: Result<Tree, Error>) -> (String, &'static str, u64) {
    match result {
        Err(Error::Limit { entry, what, limit }) => (entry, what, limit),
        Err(error) => panic!("not a limit: {error:?}"),
        Ok(tree) => panic!("this was accepted: {:?}", tree.shape()),
    }
}

#[test]
fn the_length_of_the_stream_is_limited() {
    let plain = sample();
    let length = plain.len() as u64;
    for kit in [Kit::None, Kit::Gzip, Kit::Zstd] {
        let stream = kit.compress(&plain);
        both(&stream, &with(|limits| limits.output_bytes = length)).unwrap();
        for limit in [0, 1, 5000, length - 1] {
            let options = with(|limits| limits.output_bytes = limit);
            let found = excess(both(&stream, &options));
            assert_eq!((found.1, found.2), ("bytes of uncompressed data", limit), "{kit:?}");
            let result = layerstore_unpack::digest(stream.as_slice(), None, &options.limits);
            assert!(matches!(result, Err(Error::Limit { .. })), "{kit:?}");
        }
    }
}

#[test]
fn the_entry_that_is_too_much_is_named() {
    let items = [dir("a"), file("a/b", "12345"), file("a/c", "12345")];
    let stream = tar(&items);
    both(&stream, &with(|limits| limits.entries = 3)).unwrap();
    assert_eq!(excess(both(&stream, &with(|l| l.entries = 2))), ("a/c".to_owned(), "entries", 2));
    let deep = [file("a/b/c/d", ""), file("x/y/z/f/g", "")];
    both(&tar(&deep), &with(|limits| limits.depth = 4)).unwrap();
    let found = excess(both(&tar(&deep), &with(|limits| limits.depth = 3)));
    assert_eq!((found.0.as_str(), found.2), ("x/y/z/f/g", 3));
    // Also through a link, for a hard link's target, and for a whiteout.
    let through = [file("a/b/f", ""), symlink("l", "a/b"), file("l/c/d/e", "")];
    both(&tar(&through), &with(|limits| limits.depth = 4)).unwrap();
    for items in [&through[..], &[hard_link("h", "a/b/c/d/e")], &[file("a/b/c/d/.wh.e", "")]] {
        excess(both(&tar(items), &with(|limits| limits.depth = 3)));
    }
    // The stream ends in the middle of a file.
    let large = [file("first", ""), file("second", vec![1; 3 << 20]), file("third", "")];
    let found = excess(both(&tar(&large), &with(|limits| limits.output_bytes = 2 << 20)));
    assert_eq!(found.0, if found.1.contains("files") { "second" } else { "first" });
}

#[test]
fn holes_count_as_bytes() {
    let mut sparse = Entry::regular(b"holes", 1 << 30);
    (sparse.sparse, sparse.archived_size) = (Some(Vec::new()), 0);
    let items = [Item::from(sparse.clone()), Item::from(Entry { path: b"more".to_vec(), ..sparse })];
    both(&tar(&items), &with(|limits| limits.output_bytes = 2 << 30)).unwrap();
    let found = excess(both(&tar(&items), &with(|limits| limits.output_bytes = (2 << 30) - 1)));
    assert_eq!((found.0.as_str(), found.1), ("more", "bytes of files"));
}

#[test]
fn lengths_of_names_links_and_attributes_are_limited() {
    let long = "d/".repeat(60) + "f";
    let tar_limit = |change: &dyn Fn(&mut layerstore_tar::Limits)| with(|limits| change(&mut limits.tar));
    for (items, options) in [
        (vec![file(&long, "")], tar_limit(&|tar| tar.path = 120)),
        (vec![symlink("l", &long)], tar_limit(&|tar| tar.link = 120)),
        (vec![file("f", "").xattr("user.k", vec![b'v'; 200])], tar_limit(&|tar| tar.xattr_bytes = 205)),
        (vec![file("f", "").xattr("user.a", "").xattr("user.b", "")], tar_limit(&|tar| tar.xattrs = 1)),
    ] {
        unpack_with(&tar(&items), None, &super::options()).unwrap();
        let Err(error) = both(&tar(&items), &options) else { panic!("{items:?}") };
        assert!(matches!(error, Error::Tar(layerstore_tar::Error::Limit { .. })), "{error:?}");
        assert_eq!(error.kind(), layerstore_oci::ErrorKind::InvalidInput);
    }
    assert!(refusal(&[symlink("l", "t".repeat(4096))]).contains("`l`"));
}

#[test]
fn device_nodes_can_be_refused() {
    let device = Item::from(Entry::char_device(b"dev/null", 1, 3));
    let refuse = with(|limits| limits.devices = Devices::Refuse);
    both(&tar(&[fifo("p"), file(".wh.f", "")]), &refuse).unwrap();
    for item in [device.clone(), Item::from(Entry::block_device(b"dev/sda", 8, 0))] {
        let Err(error) = both(&tar(&[item]), &refuse) else { panic!("accepted") };
        assert!(matches!(&error, Error::Device { entry } if entry.starts_with("dev/")), "{error:?}");
    }
    assert_eq!(apply(&[device]).unpacked.devices, 1);
}

#[test]
fn programs_that_give_rights_are_reported() {
    let capability = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let mut items = vec![
        file("plain", "").mode(0o755),
        file("su", "").mode(0o4755),
        file("wall", "").mode(0o2755),
        // On a directory it means another thing.
        dir("mail").mode(0o2775),
        file("ping", "").mode(0o755).xattr("security.capability", capability),
    ];
    let found = apply(&items).unpacked.privileged;
    assert_eq!((found.set_id, found.capabilities), (2, 1));
    assert_eq!(found.examples, [b"su".to_vec(), b"wall".to_vec(), b"ping".to_vec()]);
    items.extend((0..20).map(|i| file(format!("f{i}"), "").mode(0o4711)));
    let found = apply(&items).unpacked.privileged;
    assert_eq!((found.set_id, found.examples.len()), (22, 16));
}

#[test]
fn memory_is_limited() {
    let options = with(|limits| limits.memory = 1 << 20);
    let long = "x".repeat(200);
    let directories: Vec<_> = (0..5000).map(|i| dir(format!("{long}{i}"))).collect();
    let whiteouts: Vec<_> = (0..5000).map(|i| file(format!(".wh.{long}{i}"), "")).collect();
    let links: Vec<_> = (0..5000).map(|i| hard_link(format!("{long}{i}"), &long)).collect();
    let attributes: Vec<_> =
        (0..50).map(|i| dir(format!("d{i}")).xattr("nobody.knows", vec![b'x'; 50_000])).collect();
    // A link makes a long path of a short one.
    let mut through = vec![dir("a/".repeat(2000)), symlink("l", "a/".repeat(2000))];
    through.extend((0..500).map(|i| file(format!("l/.wh.{i}"), "")));
    for items in [directories, whiteouts, links, attributes, through] {
        assert_eq!(excess(unpack_with(&tar(&items), None, &options)).2, 1 << 20);
        unpack_with(&tar(&items), None, &super::options()).unwrap();
    }
}

/// Runs what must end soon, whatever the archive says.
#[track_caller]
fn soon<T>(work: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let result = work();
    assert!(start.elapsed() < Duration::from_secs(20), "it took {:?}", start.elapsed());
    result
}

#[test]
fn links_that_lead_to_one_long_name_are_limited() {
    let long = "a-rather-long-name/".repeat(1700) + "f";
    let mut items = vec![hard_link("x", &long)];
    items.extend((0..2000).map(|i| hard_link(format!("l{i}"), "x")));
    let found = excess(soon(|| unpack_with(&tar(&items), None, &options())));
    assert_eq!((found.1, found.2), ("bytes of hard links to layers below", 16 << 20));
}

#[test]
fn whiteouts_below_a_long_link_end_soon() {
    let deep = "a/".repeat(2000);
    let mut items = vec![dir(&deep), symlink("l", &deep)];
    items.extend((0..15_000).map(|i| file(format!("l/.wh.{i}"), "")));
    let dir_with = tempfile::tempdir().unwrap();
    let path = dir_with.path().to_owned();
    soon(|| drop(unpack_in(dir_with, &tar(&items), None, &options())));
    assert!(std::process::Command::new("rm").arg("-rf").arg(path).status().unwrap().success());
}

#[test]
fn bombs_of_zeros_end_soon() {
    let options = with(|limits| limits.output_bytes = 4 << 20);
    let mut small = Entry::regular(b"large", 64 << 20);
    small.mode = 0o600;
    let mut stream = Vec::new();
    // The header alone: `writer` cannot be finished.
    Writer::new(&mut stream).append_entry(&small).unwrap();
    std::io::repeat(0).take(64 << 20).read_to_end(&mut stream).unwrap();
    for kit in [Kit::None, Kit::Gzip, Kit::Zstd] {
        let bomb = kit.compress(&stream);
        assert_eq!(excess(soon(|| both(&bomb, &options))).2, 4 << 20, "{kit:?}");
    }
    // A file that is larger than allowed is not even begun.
    let mut stream = Vec::new();
    Writer::new(&mut stream).append_entry(&Entry::regular(b"huge", 1 << 41)).unwrap();
    assert_eq!(excess(both(&stream, &super::options())).0, "huge");
}

#[test]
fn a_ratio_that_no_gzip_reaches_ends_a_bomb() {
    let frame = |bytes: u64| {
        let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
        std::io::copy(&mut std::io::repeat(0).take(bytes), &mut encoder).unwrap();
        encoder.finish().unwrap()
    };
    let bomb = frame(64 << 20).repeat(5);
    let limits = Limits { ratio_from: 256 << 20, ..Limits::default() };
    let result = soon(|| layerstore_unpack::digest(bomb.as_slice(), None, &limits));
    assert!(matches!(result, Err(Error::Limit { limit: 1200, .. })), "{result:?}");
    // A few large files of zeros are none.
    let files = frame(64 << 20).repeat(4);
    layerstore_unpack::digest(files.as_slice(), None, &limits).unwrap();
    for other in [Limits { ratio: u64::MAX, ..limits }, Limits { ratio_from: 320 << 20, ..limits }] {
        layerstore_unpack::digest(bomb.as_slice(), None, &other).unwrap();
    }
}

#[test]
fn a_window_that_needs_too_much_memory_is_refused() {
    // Magic number, then a frame header that asks for a window of 2 GiB.
    let frame = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 21 << 3, 0x01, 0, 0];
    let result = layerstore_unpack::digest(&frame[..], None, &Limits::default());
    assert!(matches!(result, Err(Error::Stream { .. })), "{result:?}");
}

#[test]
fn a_header_of_ten_gigabytes_is_not_read() {
    let mut header = layerstore_testkit::layer::LayerBuilder::new(Kit::None);
    header = header
        .entry(layerstore_testkit::layer::Entry::new(layerstore_testkit::layer::EntryType::XHeader, "pax"));
    let mut stream = header.finish().blob;
    stream[124..136].copy_from_slice(b"112402762000");
    stream[148..156].fill(b' ');
    let sum: u32 = stream[..512].iter().map(|byte| u32::from(*byte)).sum();
    stream[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let source = std::io::Cursor::new(&stream[..512]).chain(std::io::repeat(b'x'));
    let dir = tempfile::tempdir().unwrap();
    let (options, target) = (options(), dir.path());
    let result = soon(|| {
        std::thread::scope(|scope| {
            let unpack = || {
                layerstore_unpack::unpack(source, None, target, &options, &PrivateUmask::enter()).unwrap_err()
            };
            scope.spawn(unpack).join().unwrap()
        })
    });
    assert!(matches!(result, Error::Tar(layerstore_tar::Error::Limit { .. })), "{result:?}");
}

#[test]
fn links_that_make_every_path_long_end_soon() {
    // Each path takes eighty thousand steps, and no two that follow each other are alike.
    let way = "d/".repeat(2000);
    let mut items = vec![dir(&way)];
    for set in ["l", "m"] {
        for i in 0..39 {
            items.push(symlink(format!("{set}{i}"), format!("{}{set}{}", "d/../".repeat(700), i + 1)));
        }
        items.push(symlink(format!("{set}39"), "d"));
    }
    for i in 0..200 {
        items.push(file(format!("l0/f{i}"), ""));
        items.push(file(format!("m0/g{i}"), ""));
    }
    let dir_with = tempfile::tempdir().unwrap();
    let path = dir_with.path().to_owned();
    let Err(error) = soon(|| unpack_in(dir_with, &tar(&items), None, &options())) else { panic!("accepted") };
    let refused = matches!(&error, Error::Refused { entry, .. } if entry.contains("0/"));
    assert!(refused && !error.is_limit(), "{error:?}");
    assert!(std::process::Command::new("rm").arg("-rf").arg(path).status().unwrap().success());
}

#[test]
fn ten_thousand_directories_in_each_other_end_soon() {
    let path = "d/".repeat(10_000);
    let found = excess(soon(|| unpack_with(&tar(&[dir(&path)]), None, &options())));
    assert_eq!(found.2, 2048);
    // One at a time, which a link shortens.
    let mut items = Vec::new();
    let mut here = String::new();
    for i in 0..20 {
        items.push(dir(format!("{here}{}", "d/".repeat(500))));
        items.push(symlink(format!("l{i}"), format!("{here}{}", "d/".repeat(500))));
        here = format!("l{i}/");
    }
    let dir_with = tempfile::tempdir().unwrap();
    let path = dir_with.path().to_owned();
    assert_eq!(excess(soon(|| unpack_in(dir_with, &tar(&items), None, &options()))).2, 2048);
    assert!(std::process::Command::new("rm").arg("-rf").arg(path).status().unwrap().success());
}

#[test]
fn a_million_entries_are_a_matter_of_seconds() {
    if !layerstore_testkit::require::long() {
        return;
    }
    let mut writer = Writer::new(Vec::new());
    for i in 0..1_000_000 {
        writer
            .append(&Entry::regular(format!("d{}/f{i}", i / 1000).as_bytes(), 0), std::io::empty())
            .unwrap();
    }
    let stream = writer.finish().unwrap();
    let start = Instant::now();
    let tree = unpack_with(&stream, None, &options()).unwrap();
    assert_eq!(tree.usage().inodes, 1_001_001);
    assert!(start.elapsed() < Duration::from_mins(2), "it took {:?}", start.elapsed());
}
