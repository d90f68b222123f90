use super::*;

/// Python 3.8 is enough.
fn python(script: &str, args: &[&std::ffi::OsStr]) -> Vec<u8> {
    run(Command::new("python3").args(["-I", "-c", script]).args(args))
}

const WRITE: &str = r#"
import io, sys, tarfile
formats = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}
name = sys.argv[1]
out = io.BytesIO()
tar = tarfile.open(fileobj=out, mode="w", format=formats[name],
                   pax_headers={"comment": "global", "uname": "everyone"} if name == "pax" else {})
def add(path, kind=tarfile.REGTYPE, data=b"", **fields):
    info = tarfile.TarInfo(path)
    info.type, info.size = kind, len(data)
    for key, value in fields.items():
        setattr(info, key, value)
    tar.addfile(info, io.BytesIO(data))
add("dir", tarfile.DIRTYPE, mode=0o1777)
add("d" * 90 + "/" + "n" * 90, data=b"prefix")
add("cont", tarfile.CONTTYPE, data=b"7")
add("old", tarfile.AREGTYPE, data=b"0")
add("null", tarfile.CHRTYPE, devmajor=1, devminor=3)
add("loop", tarfile.BLKTYPE, devmajor=7, devminor=0)
add("pipe", tarfile.FIFOTYPE)
if name != "ustar":
    add("p" * 300, data=b"long")
    add("soft", tarfile.SYMTYPE, linkname="t" * 300)
    add("hard", tarfile.LNKTYPE, linkname="p" * 300)
    add("big", uid=2**31, gid=3000000, mtime=-5)
if name == "pax":
    add("x", data=b"x", mtime=1.25, pax_headers={
        "SCHILY.xattr.user.overlay.origin": "", "SCHILY.xattr.user.n": "two\nlines", "uname": "me"})
tar.close()
sys.stdout.buffer.write(out.getvalue())
"#;

#[test]
fn every_format() {
    for format in ["ustar", "gnu", "pax"] {
        let files = read(&python(WRITE, &[format.as_ref()]));
        let dir = &find(&files, b"dir/").entry;
        assert_eq!((dir.kind, dir.mode), (EntryKind::Directory, 0o1777));
        let prefixed = [&[b'd'; 90][..], b"/", &[b'n'; 90]].concat();
        assert_eq!(find(&files, &prefixed).content, b"prefix");
        for (name, content) in [(&b"cont"[..], b"7"), (b"old", b"0")] {
            let file = find(&files, name);
            assert_eq!((file.entry.kind, &file.content[..]), (EntryKind::Regular, &content[..]));
        }
        let (null, loop0) = (&find(&files, b"null").entry, &find(&files, b"loop").entry);
        assert_eq!((null.kind, null.device), (EntryKind::CharDevice, (1, 3)));
        assert_eq!((loop0.kind, loop0.device), (EntryKind::BlockDevice, (7, 0)));
        assert_eq!(find(&files, b"pipe").entry.kind, EntryKind::Fifo);
        if format == "ustar" {
            continue;
        }
        assert_eq!(find(&files, &[b'p'; 300]).content, b"long");
        let (soft, hard) = (&find(&files, b"soft").entry, &find(&files, b"hard").entry);
        assert_eq!((soft.kind, &soft.link[..]), (EntryKind::Symlink, &[b't'; 300][..]));
        assert_eq!((hard.kind, &hard.link[..]), (EntryKind::HardLink, &[b'p'; 300][..]));
        let big = &find(&files, b"big").entry;
        assert_eq!((big.uid, big.gid, big.mtime.seconds), (1 << 31, 3_000_000, -5), "{format}");
        if format == "pax" {
            assert_eq!(big.uname, b"everyone");
            let x = &find(&files, b"x").entry;
            assert_eq!(
                (&x.uname[..], x.mtime),
                (&b"me"[..], Timestamp { seconds: 1, nanoseconds: 250_000_000 })
            );
            let want = [(&b"user.overlay.origin"[..], &b""[..]), (b"user.n", b"two\nlines")];
            assert_eq!(x.xattrs, want.map(|(name, value)| (name.to_vec(), value.to_vec())));
        }
    }
}

const LIST: &str = r#"
import sys, tarfile, zlib
for info in tarfile.open(sys.argv[1], encoding="utf-8"):
    data = b"" if not info.isreg() else tarfile.open(sys.argv[1], encoding="utf-8").extractfile(info.name).read()
    print(info.name, info.type.decode(), info.size, zlib.crc32(data), oct(info.mode), info.uid, info.gid,
          info.uname, info.gname, info.mtime, info.linkname, info.issparse(),
          info.pax_headers.get("SCHILY.xattr.user.x"), sep="|")
"#;

#[test]
fn python_reads_ours() {
    let root = tempfile::tempdir().unwrap();
    let archive = root.path().join("our.tar");
    let samples = samples();
    std::fs::write(&archive, write(&samples)).unwrap();
    let listing = String::from_utf8(python(LIST, &[archive.as_os_str()])).unwrap();
    let lines: Vec<Vec<&str>> = listing.lines().map(|line| line.split('|').collect()).collect();
    assert_eq!(lines.len(), samples.len());
    for (line, (entry, data)) in lines.iter().zip(&samples) {
        assert_eq!(line[0].as_bytes(), entry.path.strip_suffix(b"/").unwrap_or(&entry.path));
        let content = expand(entry, data);
        assert_eq!(line[2], entry.size.to_string(), "{}", line[0]);
        assert_eq!(line[3], crc32(&content).to_string(), "{}", line[0]);
        assert_eq!(line[4], format!("0o{:o}", entry.mode));
        assert_eq!((line[5], line[6]), (&*entry.uid.to_string(), &*entry.gid.to_string()));
        assert_eq!((line[7].as_bytes(), line[8].as_bytes()), (&entry.uname[..], &entry.gname[..]));
        assert_eq!(line[10].as_bytes(), entry.link);
        assert_eq!(line[11] == "True", entry.sparse.is_some());
        assert_eq!(line[12], if entry.xattrs.is_empty() { "None" } else { "a=b" });
    }
    assert_eq!((lines[1][9], lines[3][9]), ("1500000000.1234567", "-1.25"));
}

fn crc32(data: &[u8]) -> u32 {
    !data.iter().fold(!0, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| crc >> 1 ^ (crc & 1).wrapping_neg() & 0xedb8_8320)
    })
}
