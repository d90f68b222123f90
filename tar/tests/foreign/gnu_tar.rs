use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::EntryKind::{Directory, HardLink, Regular, Symlink};
use super::*;

const LONG: &str = "dir/a-name-that-is-longer-than-the-hundred-bytes-of-the-name-field-of-a-tar-header-so-that-it-needs-a-prefix-or-more";

/// A sparse file whose map needs several extension blocks in the old format and two blocks in PAX 1.0.
fn holes(path: &Path) -> Vec<u8> {
    let mut file = fs::File::create(path).unwrap();
    for i in 0..60u64 {
        file.seek(SeekFrom::Start(i * 20_480 + 8192)).unwrap();
        file.write_all(&[u8::try_from(i).unwrap() + 1; 4096]).unwrap();
    }
    file.set_len(1_300_001).unwrap();
    fs::read(path).unwrap()
}

fn tree(root: &Path) {
    fs::create_dir(root.join("dir")).unwrap();
    fs::write(root.join("dir/file"), b"content").unwrap();
    fs::write(root.join("dir/full"), [1; 1024]).unwrap();
    fs::hard_link(root.join("dir/file"), root.join("dir/hard")).unwrap();
    std::os::unix::fs::symlink("../target", root.join("dir/soft")).unwrap();
}

fn pack(root: &Path, args: &[&str]) -> Vec<u8> {
    let base = ["--create", "--file=-", "--sort=name", "--owner=someone:1000"];
    run(Command::new("tar").arg("-C").arg(root).args(base).args(args))
}

#[test]
fn every_format() {
    let root = tempfile::tempdir().unwrap();
    tree(root.path());
    let mtime = fs::metadata(root.path().join("dir/file")).unwrap();
    for format in ["v7", "oldgnu", "gnu", "ustar", "posix"] {
        let format_arg = format!("--format={format}");
        // 3000000 does not fit a ustar header.
        let group = if matches!(format, "v7" | "ustar") { "--group=all:100" } else { "--group=all:3000000" };
        let archive = pack(root.path(), &[&format_arg, group, "dir"]);
        let files = read(&archive);
        let names: Vec<_> = files.iter().map(|f| f.entry.path.escape_ascii().to_string()).collect();
        assert_eq!(names, ["dir/", "dir/file", "dir/full", "dir/hard", "dir/soft"], "{format}");
        let kinds: Vec<_> = files.iter().map(|f| f.entry.kind).collect();
        assert_eq!(kinds, [Directory, Regular, Regular, HardLink, Symlink], "{format}");
        assert_eq!((&files[1].content[..], &files[2].content[..]), (&b"content"[..], &[1; 1024][..]));
        assert_eq!(
            (&files[3].entry.link[..], &files[4].entry.link[..]),
            (&b"dir/file"[..], &b"../target"[..])
        );
        let file = &files[1].entry;
        assert_eq!(file.mode, mtime.mode() & 0o7777);
        assert_eq!(file.mtime.seconds, mtime.mtime());
        if format == "posix" {
            assert_eq!(i64::from(file.mtime.nanoseconds), mtime.mtime_nsec());
            assert!(file.atime.is_some());
        }
        let gid = if matches!(format, "v7" | "ustar") { 100 } else { 3_000_000 };
        assert_eq!((file.uid, file.gid), (1000, gid), "{format}");
        if format != "v7" {
            assert_eq!((&file.uname[..], &file.gname[..]), (&b"someone"[..], &b"all"[..]), "{format}");
        }
    }
}

#[test]
fn long_names_and_links() {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir(root.path().join("dir")).unwrap();
    fs::write(root.path().join(LONG), b"content").unwrap();
    std::os::unix::fs::symlink("x".repeat(300), root.path().join("soft")).unwrap();
    for format in ["--format=oldgnu", "--format=gnu", "--format=posix"] {
        let files = read(&pack(root.path(), &[format, LONG, "soft"]));
        assert_eq!(find(&files, LONG.as_bytes()).content, b"content", "{format}");
        assert_eq!(find(&files, b"soft").entry.link, [b'x'; 300], "{format}");
    }
}

#[test]
fn every_sparse_form() {
    let root = tempfile::tempdir().unwrap();
    let content = holes(&root.path().join("holes"));
    fs::File::create(root.path().join("nothing")).unwrap().set_len(1 << 20).unwrap();
    fs::write(root.path().join("plain"), b"plain").unwrap();
    let forms: [&[&str]; 5] = [
        &["--format=gnu"],
        &["--format=oldgnu"],
        &["--format=posix", "--sparse-version=0.0"],
        &["--format=posix", "--sparse-version=0.1"],
        &["--format=posix", "--sparse-version=1.0"],
    ];
    for form in forms {
        let names = ["--sparse", "--hole-detection=raw", "holes", "nothing", "plain"];
        let files = read(&pack(root.path(), &[form, &names].concat()));
        assert_eq!(files.len(), 3);
        let file = find(&files, b"holes");
        assert!(file.entry.sparse.as_ref().unwrap().len() >= 60, "{form:?}");
        assert!(file.entry.archived_size < 400_000);
        assert_eq!(file.entry.size, 1_300_001);
        assert!(file.content == content, "{form:?}");
        let nothing = find(&files, b"nothing");
        assert_eq!((nothing.entry.size, &nothing.entry.sparse), (1 << 20, &Some(vec![])), "{form:?}");
        assert_eq!(find(&files, b"plain").entry.sparse, None);
    }
}

#[test]
fn incremental_dumps() {
    let root = tempfile::tempdir().unwrap();
    tree(root.path());
    let snapshot = format!("--listed-incremental={}", root.path().join("snapshot").display());
    let archive = pack(root.path(), &["--format=gnu", &snapshot, "dir"]);
    let files = read(&archive);
    let dir = &files[0];
    assert_eq!((dir.entry.kind, dir.entry.size), (Directory, 0));
    assert!(dir.content.windows(5).any(|w| w == b"Yfile"), "{}", dir.content.escape_ascii());
    assert!(files[1].entry.atime.is_some() && files[1].entry.ctime.is_some());
    assert_eq!(files[1].content, b"content");
}

#[test]
fn gnu_tar_unpacks_ours() {
    let root = tempfile::tempdir().unwrap();
    let samples = samples();
    let archive = root.path().join("our.tar");
    fs::write(&archive, write(&samples)).unwrap();
    let out = root.path().join("out");
    fs::create_dir(&out).unwrap();
    // No owners, and thus no need to be root.
    run(Command::new("tar").arg("-C").arg(&out).args(["--no-same-owner", "-pxf"]).arg(&archive));
    for (entry, data) in &samples {
        let path = out.join(str::from_utf8(&entry.path).unwrap());
        let meta = fs::symlink_metadata(&path).unwrap();
        match entry.kind {
            Regular => {
                assert!(fs::read(&path).unwrap() == expand(entry, data), "{}", path.display());
                assert_eq!(meta.mode() & 0o7777, entry.mode);
                let mtime = (meta.mtime(), meta.mtime_nsec());
                assert_eq!(mtime, (entry.mtime.seconds, i64::from(entry.mtime.nanoseconds)));
            }
            Symlink => {
                let target = fs::read_link(&path).unwrap();
                assert_eq!(target.as_os_str().as_encoded_bytes(), entry.link);
            }
            HardLink => {
                let target = out.join(str::from_utf8(&entry.link).unwrap());
                assert_eq!(meta.ino(), fs::metadata(target).unwrap().ino());
            }
            Directory => assert!(meta.is_dir()),
            _ => assert!(!meta.is_file()),
        }
    }
    let listing = run(Command::new("tar").args(["--numeric-owner", "-tvf"]).arg(&archive));
    assert!(String::from_utf8_lossy(&listing).contains("3000000/4000000000"));
}
