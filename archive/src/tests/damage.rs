//! Archives as they should not be.

use layerstore_oci::ErrorKind;
use proptest::prelude::*;

use super::*;

fn error(parts: &[Part]) -> Error {
    images_of(parts).expect_err("the archive was accepted")
}

fn scan_error(bytes: &[u8]) -> Error {
    let error = TarFile::scan(on_disk(bytes)).expect_err("the archive was accepted");
    let streamed = Spool::read(std::io::Cursor::new(bytes.to_vec())).err();
    assert_eq!(streamed.map(|e| e.to_string()), Some(error.to_string()));
    error
}

#[test]
fn what_is_no_archive_is_told_apart() {
    let mut garbage = vec![7; 2000];
    for (bytes, message) in [
        (&b""[..], "the archive is empty"),
        (b"hello", "not a tar archive"),
        (&garbage, "not a tar archive"),
        (br#"{"schemaVersion":2}"#, "not a tar archive but JSON"),
    ] {
        let error = scan_error(bytes);
        assert_eq!((error.to_string().as_str(), error.kind()), (message, ErrorKind::InvalidInput));
    }
    garbage[..6].copy_from_slice(b"\xfd7zXZ\0");
    assert_eq!(scan_error(&garbage).to_string(), "not a tar archive but xz data");
    assert!(matches!(Source::open(on_disk(b"")), Err(Error::Empty)));
}

#[test]
fn a_tar_without_images_says_what_it_holds() {
    let found = error(&[file("x/y", "1"), file("a\nb", "2")]);
    assert_eq!(
        found.to_string(),
        r"not an image archive: it has neither `manifest.json` nor `index.json` but `a\nb`, `x`"
    );
    let rootfs = error(&[file("./etc/passwd", ""), file("./bin/sh", ""), file("./usr/bin/env", "")]);
    assert!(matches!(rootfs, Error::NotAnImage { rootfs: true, .. }));
    assert!(rootfs.to_string().ends_with("but looks like a root file system"));
    let empty = error(&[]);
    assert!(empty.to_string().ends_with("nor any other file"), "{empty}");
    assert_eq!(empty.kind(), ErrorKind::InvalidInput);
    assert!(matches!(error(&[file("repositories", "{}")]), Error::Legacy));
}

#[test]
fn documents_that_are_none_are_named() {
    for json in ["", "null", "{}", "[null]", "garbage", r#"[{"RepoTags":[]}]"#, r#"[{"Config":1}]"#] {
        let error = error(&[file("manifest.json", json)]);
        assert!(matches!(error, Error::Json { member: "manifest.json", .. }), "{json}: {error:?}");
    }
    for json in ["", "null", "[]", "{}", r#"{"schemaVersion":1}"#] {
        let error = error(&[layout(), file("index.json", json)]);
        assert!(matches!(error, Error::Document { member: "index.json", .. }), "{json}: {error:?}");
    }
    let manifest = manifest(b"", b"");
    assert!(matches!(error(&[layout(), file("index.json", manifest)]), Error::Document { .. }));
    for json in ["", "null", "{}", r#"{"imageLayoutVersion":1}"#] {
        assert!(matches!(error(&[file("oci-layout", json)]), Error::Json { member: "oci-layout", .. }));
    }
    let other = error(&[file("oci-layout", r#"{"imageLayoutVersion":"2.0.0"}"#)]);
    assert_eq!(other.kind(), ErrorKind::Unsupported);
    let large = tar(&[file("manifest.json", vec![b' '; (4 << 20) + 1])]);
    let large = images(&TarFile::scan(on_disk(&large)).unwrap()).unwrap_err();
    assert!(matches!(large, Error::TooLarge { .. }));
}

#[test]
fn what_a_manifest_names_must_be_there() {
    for name in ["absent", "../config.json", "/config.json", "loop", "out", "", "dir"] {
        let error = error(&[
            file("config.json", "{}"),
            directory("dir/"),
            symlink("loop", "loop"),
            symlink("out", "../../etc/passwd"),
            file("manifest.json", format!(r#"[{{"Config":"{name}","Layers":[]}}]"#)),
        ]);
        assert!(matches!(&error, Error::Missing { member, .. } if member == name), "{name}: {error:?}");
        assert_eq!(error.kind(), ErrorKind::Corrupt);
    }
    let error = error(&[layout()]);
    assert_eq!(error.to_string(), "`index.json` is not in the archive, although `oci-layout` names it");
}

#[test]
fn truncation_is_noticed_wherever_it_is() {
    let parts = [file("a", vec![1; 1000]), file("manifest.json", "[]")];
    let bytes = tar(&parts);
    for cut in [512, 513, 1000, 1511, 1537, 2047, 2048, 2049] {
        let error = scan_error(&bytes[..cut]);
        assert!(matches!(error, Error::Truncated { .. }), "{cut}: {error:?}");
        assert_eq!(error.kind(), ErrorKind::Corrupt);
    }
    let error = scan_error(&bytes[..900]);
    assert_eq!(error.to_string(), "the archive is truncated: it ends inside `a`");
    // Complete members without the mark at the end are fine.
    assert!(TarFile::scan(on_disk(&bytes[..bytes.len() - 1024])).is_ok());
}

#[test]
fn damage_behind_the_start_is_not_taken_for_another_format() {
    let mut bytes = tar(&[file("a", "1"), file("manifest.json", "[]")]);
    bytes[1024] ^= 1;
    let error = scan_error(&bytes);
    assert!(matches!(error, Error::Tar { .. }), "{error:?}");
    assert_eq!(error.kind(), ErrorKind::Corrupt);
}

#[test]
fn sparse_members_are_refused() {
    let mut entry = Entry::regular(b"layer.tar", 1000);
    entry.archived_size = 4;
    entry.sparse = Some(vec![layerstore_tar::Segment { offset: 0, len: 4 }]);
    let error = scan_error(&tar(&[(entry, b"data".to_vec())]));
    assert!(matches!(error, Error::Sparse { .. }), "{error:?}");
}

#[test]
fn nothing_outside_a_directory_is_read() {
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("secret"), "secret").unwrap();
    let root = unpack(&[
        file("inside", "1"),
        symlink("ok", "./inside"),
        symlink("absolute", outside.path().join("secret").to_str().unwrap()),
        symlink("relative", "../../../../../../../../etc/hostname"),
        symlink("dir", outside.path().to_str().unwrap()),
        symlink("magic", "/proc/self/fd/0"),
        symlink("loop", "loop"),
        directory("d"),
    ]);
    rustix::fs::mknodat(
        rustix::fs::CWD,
        root.path().join("fifo"),
        rustix::fs::FileType::Fifo,
        0o600.into(),
        0,
    )
    .unwrap();
    let directory = Directory::new(File::open(root.path()).unwrap());
    for name in ["absolute", "relative", "dir/secret", "magic"] {
        for result in [directory.resolve(name).map(|_| ()), directory.open(name).map(|_| ())] {
            assert!(matches!(&result, Err(Error::Outside { .. })), "{name}: {result:?}");
        }
    }
    for name in ["absent", "loop", "d", "fifo", "../secret", "/etc/passwd", "inside/x", "."] {
        assert_eq!(directory.resolve(name).unwrap(), None, "{name}");
        assert!(directory.open(name).unwrap().is_none(), "{name}");
    }
    assert_eq!(directory.resolve("ok").unwrap().as_deref(), Some("inside"));
    assert_eq!(directory.read_small("ok", 1).unwrap().unwrap(), b"1");
    assert!(matches!(directory.read_small("ok", 0), Err(Error::TooLarge { .. })));
}

#[test]
fn an_endless_trailer_is_left() {
    let archive = tar(&[file("manifest.json", "[]")]);
    let endless = std::io::Cursor::new(archive).chain(std::io::repeat(0));
    assert!(Spool::read(endless).is_ok());
}

fn any_archive() -> Vec<u8> {
    let manifest = manifest(b"{}", b"layer");
    tar(&[
        blob(b"{}"),
        blob(b"layer"),
        symlink("x/layer.tar", "../y"),
        hard_link("y", "z"),
        file("manifest.json", r#"[{"Config":"z","RepoTags":["a"],"Layers":["x/layer.tar"]}]"#),
        file("z", "{}"),
        file("index.json", index(vec![describe(media_type::OCI_MANIFEST, &manifest)])),
        blob(&manifest),
        layout(),
    ])
}

/// Both ways through an archive; errors are fine, differences and panics are not.
fn through(bytes: Vec<u8>) -> Result<(), TestCaseError> {
    let indexed = TarFile::scan(on_disk(&bytes)).and_then(|tar| images(&tar));
    // A first byte that looks compressed would make the stream something else.
    if layerstore_oci::Compression::detect(&bytes) == layerstore_oci::Compression::None {
        let streamed = Spool::read(std::io::Cursor::new(bytes)).and_then(|spool| images(&spool));
        prop_assert_eq!(indexed.is_ok(), streamed.is_ok(), "{:?} {:?}", indexed, streamed);
    }
    Ok(())
}

proptest! {
    #[test]
    fn random_bytes_do_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..3000)) {
        through(bytes.clone())?;
        // Nor compressed ones.
        let gzip = [b"\x1f\x8b\x08", bytes.as_slice()].concat();
        prop_assert!(Spool::read(std::io::Cursor::new(gzip)).is_err());
        let zstd = [b"\x28\xb5\x2f\xfd", bytes.as_slice()].concat();
        prop_assert!(Spool::read(std::io::Cursor::new(zstd)).is_err());
    }

    #[test]
    fn mutated_archives_do_not_panic(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut in any::<prop::sample::Index>(),
        truncate in any::<bool>(),
    ) {
        let mut bytes = any_archive();
        for (at, with) in changes {
            let at = at.index(bytes.len());
            bytes[at] = with;
        }
        if truncate {
            bytes.truncate(cut.index(bytes.len()));
        }
        through(bytes)?;
    }

    #[test]
    fn mutated_documents_do_not_panic(at in any::<prop::sample::Index>(), with in any::<u8>(), which in 0usize..3) {
        let mut parts = vec![layout(), file("index.json", index(vec![describe("x", b"y")])),
            file("manifest.json", r#"[{"Config":"a","RepoTags":["a"],"Layers":["a"]}]"#), file("a", "")];
        // With the first two gone, the manifest decides.
        parts.drain(..if which == 2 { 2 } else { 0 });
        let data = &mut parts[which % 2].1;
        let at = at.index(data.len());
        data[at] = with;
        through(tar(&parts))?;
    }
}
