//! Files with holes.

use std::io::{Seek as _, SeekFrom, Write as _};
use std::process::Command;

use layerstore_tar::Segment;

use super::*;

/// Data of 4 KiB every 64 KiB, and a hole at the end.
fn holes(path: &Path) -> Vec<u8> {
    let mut file = std::fs::File::create(path).unwrap();
    for i in 1..40u64 {
        file.seek(SeekFrom::Start(i * 65536)).unwrap();
        file.write_all(&[u8::try_from(i).unwrap(); 4096]).unwrap();
    }
    file.set_len(40 * 65536 + 4097).unwrap();
    file.sync_all().unwrap();
    std::fs::read(path).unwrap()
}

#[test]
fn every_form_of_gnu_tar_keeps_its_holes() {
    let source = tempfile::tempdir().unwrap();
    let content = holes(&source.path().join("f"));
    for format in [
        &["--format=gnu"][..],
        &["--format=posix", "--sparse-version=0.0"],
        &["--format=posix", "--sparse-version=0.1"],
        &["--format=posix", "--sparse-version=1.0"],
    ] {
        let output = Command::new("tar")
            .args(["--create", "--sparse", "--file=-", "-C"])
            .arg(source.path())
            .args(format)
            .arg("f")
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        for size in [Some(1), None] {
            let tree = unpack_with(&output.stdout, size, &options()).unwrap();
            assert_eq!(std::fs::read(tree.path("f")).unwrap(), content, "{format:?}");
            let allocated = std::fs::metadata(tree.path("f")).unwrap().blocks() * 512;
            assert!(allocated <= 41 * 4096, "{format:?}: {allocated} bytes are allocated");
            let expected = Usage { bytes: content.len() as u64, inodes: 2, ..tree.counted() };
            assert_eq!(tree.usage(), expected, "{format:?}");
        }
    }
}

#[test]
fn holes_may_be_anywhere_and_everything() {
    let segments = |list: &[(u64, u64)]| -> Vec<Segment> {
        list.iter().map(|&(offset, len)| Segment { offset, len }).collect()
    };
    for (list, size, blocks) in [
        (&[][..], 0, 0),
        (&[], 1 << 26, 0),
        (&[(0, 1)], 1, 1),
        (&[(0, 1)], 1 << 26, 1),
        (&[((1 << 26) - 1, 1)], 1 << 26, 1),
        (&[(1, 1), (4095, 2), (8191, 1)], 10_000, 2),
        (&[(4095, 2), (100_000, 5000)], 200_000, 4),
    ] {
        let map = segments(list);
        let length: u64 = map.iter().map(|segment| segment.len).sum();
        let entry = Entry { size, archived_size: length, sparse: Some(map), ..Entry::regular(b"f", 0) };
        let data = vec![7; usize::try_from(length).unwrap()];
        let tree = apply(&[Item { data, ..entry.into() }, file("after", "data")]);
        assert_eq!(std::fs::metadata(tree.path("f")).unwrap().len(), size);
        assert_eq!(std::fs::read(tree.path("after")).unwrap(), b"data");
        assert!(tree.path("f").metadata().unwrap().blocks() * 512 <= 4096 * blocks, "{list:?}");
        assert_eq!(tree.usage(), Usage { bytes: size + 4, inodes: 3, ..tree.counted() }, "{list:?}");
    }
}

#[test]
fn a_file_longer_than_any_filesystem_stores_is_an_error() {
    let size = i64::MAX as u64;
    let entry = Entry { size, sparse: Some(Vec::new()), ..Entry::regular(b"f", 0) };
    let mut options = options();
    options.limits.output_bytes = u64::MAX;
    let result = unpack_with(&tar(&[entry.into()]), None, &options);
    assert!(matches!(result, Err(Error::Entry { entry, .. }) if entry == "f"));
}
