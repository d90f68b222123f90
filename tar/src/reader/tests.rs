use std::io::{BufReader, Cursor, Write as _};

use super::*;

mod disagreements;

/// An archive put together by hand, so that it can be wrong.
#[derive(Default)]
struct Raw(Vec<u8>);

impl Raw {
    /// A header block with the fields `edit` sets, then its checksum.
    fn block(mut self, flag: u8, name: &[u8], size: u64, edit: impl FnOnce(&mut Block)) -> Self {
        let mut block = [0; BLOCK];
        block[..name.len()].copy_from_slice(name);
        put(&mut block, header::MODE, b"0000644");
        put(&mut block, header::SIZE, format!("{size:011o}").as_bytes());
        put(&mut block, header::MTIME, b"00000000012");
        put(&mut block, header::MAGIC, b"ustar\x0000");
        block[header::TYPE] = flag;
        edit(&mut block);
        seal(&mut block);
        self.0.extend_from_slice(&block);
        self
    }

    fn gnu(self, flag: u8, name: &[u8], size: u64, edit: impl FnOnce(&mut Block)) -> Self {
        self.block(flag, name, size, |block| {
            put(block, header::MAGIC, b"ustar  \0");
            edit(block);
        })
    }

    fn header(self, flag: u8, name: &[u8], size: u64) -> Self {
        self.block(flag, name, size, |_| ())
    }

    fn data(mut self, data: &[u8]) -> Self {
        self.0.extend_from_slice(data);
        self.0.resize(self.0.len().next_multiple_of(BLOCK), 0);
        self
    }

    fn file(self, name: &[u8], data: &[u8]) -> Self {
        self.header(b'0', name, data.len() as u64).data(data)
    }

    fn pax(self, flag: u8, records: &[(&str, &str)]) -> Self {
        let mut body = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let len = (1..10_000).find(|len| rest + len.to_string().len() == *len).unwrap();
            writeln!(body, "{len} {key}={value}").unwrap();
        }
        self.header(flag, b"PaxHeaders", body.len() as u64).data(&body)
    }

    fn long(self, flag: u8, name: &[u8]) -> Self {
        let body = [name, b"\0"].concat();
        self.gnu(flag, b"././@LongLink", body.len() as u64, |_| ()).data(&body)
    }

    fn end(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 2 * BLOCK, 0);
        self.0
    }
}

fn put(block: &mut Block, field: Range<usize>, value: &[u8]) {
    block[field][..value.len()].copy_from_slice(value);
}

fn seal(block: &mut Block) {
    let sum = header::checksum(block);
    put(block, header::CHECKSUM, format!("{sum:06o}\0 ").as_bytes());
}

type Files = Vec<(Entry, Vec<u8>)>;

fn read_with<R: BufRead>(reader: &mut Reader<R>) -> Result<Files, Error> {
    let mut files = Vec::new();
    while let Some(entry) = reader.next_entry()? {
        let mut data = Vec::new();
        loop {
            let piece = reader.fill_data()?;
            if piece.is_empty() {
                break;
            }
            data.extend_from_slice(piece);
            let len = piece.len();
            reader.consume_data(len);
        }
        assert_eq!(data.len() as u64, entry.archived_size);
        files.push((entry, data));
    }
    Ok(files)
}

/// Reads through buffers of several sizes, which must make no difference.
fn read(archive: &[u8]) -> Result<Files, Error> {
    let whole = read_with(&mut Reader::new(archive));
    for capacity in [1, 100, 513, 8192] {
        let part = read_with(&mut Reader::new(BufReader::with_capacity(capacity, archive)));
        assert_eq!(format!("{part:?}"), format!("{whole:?}"), "with a buffer of {capacity}");
    }
    whole
}

fn one(raw: Raw) -> Entry {
    let mut files = read(&raw.end()).unwrap();
    assert_eq!(files.len(), 1);
    files.remove(0).0
}

fn paths(archive: &[u8]) -> Vec<Vec<u8>> {
    read(archive).unwrap().into_iter().map(|(entry, _)| entry.path).collect()
}

#[track_caller]
fn refused(raw: Raw) -> String {
    read(&raw.end()).unwrap_err().to_string()
}

fn time(seconds: i64, nanoseconds: u32) -> Timestamp {
    Timestamp { seconds, nanoseconds }
}

#[test]
fn type_flags() {
    let table: &[(u8, &[u8], EntryKind, bool)] = &[
        (b'0', b"f", EntryKind::Regular, true),
        (b'0', b"f/", EntryKind::Regular, false),
        (0, b"f", EntryKind::Regular, true),
        (0, b"f/", EntryKind::Directory, false),
        (b'7', b"f", EntryKind::Regular, true),
        (b'1', b"f", EntryKind::HardLink, false),
        (b'2', b"f", EntryKind::Symlink, false),
        (b'3', b"f", EntryKind::CharDevice, false),
        (b'4', b"f", EntryKind::BlockDevice, false),
        (b'5', b"f", EntryKind::Directory, false),
        (b'6', b"f", EntryKind::Fifo, false),
        (b'D', b"f", EntryKind::Directory, true),
        (b'M', b"f", EntryKind::Other(b'M'), true),
        (b'V', b"f", EntryKind::Other(b'V'), true),
        (b'N', b"f", EntryKind::Other(b'N'), true),
        (0xff, b"f", EntryKind::Other(0xff), true),
    ];
    for &(flag, name, kind, has_data) in table {
        let size = if has_data { 5 } else { 0 };
        let raw = Raw::default().header(flag, name, size);
        let raw = if has_data { raw.data(b"12345") } else { raw };
        let files = read(&raw.file(b"next", b"").end()).unwrap();
        let (entry, data) = &files[0];
        assert_eq!(entry.kind, kind, "{flag}");
        assert_eq!(data, if has_data { &b"12345"[..] } else { b"" }, "{flag}");
        let size = if has_data && kind != EntryKind::Directory { 5 } else { 0 };
        assert_eq!(entry.size, size, "{flag}");
        assert_eq!(files[1].0.path, b"next", "{flag}");
    }
}

#[test]
fn header_fields() {
    let entry = one(Raw::default().block(b'3', b"dev/null", 0, |b| {
        put(b, header::MODE, b"0107666");
        put(b, header::UID, b"   12 \0");
        put(b, header::GID, b"\x80\0\0\0\x01\0\0\0");
        put(b, header::MTIME, b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfe");
        put(b, header::UNAME, b"root\0junk");
        put(b, header::GNAME, &[b'g'; 32]);
        put(b, header::MAJOR, b"0000001");
        put(b, header::MINOR, b"0000003");
        put(b, header::LINK, b"anything");
    }));
    assert_eq!(entry.mode, 0o7666);
    assert_eq!((entry.uid, entry.gid), (10, 1 << 24));
    assert_eq!(entry.mtime, time(-2, 0));
    assert_eq!((&entry.uname[..], &entry.gname[..]), (&b"root"[..], &[b'g'; 32][..]));
    assert_eq!(entry.device, (1, 3));
    assert_eq!(entry.link, b"anything");
    assert_eq!((entry.atime, entry.ctime), (None, None));

    for (field, range, value) in [
        ("mode", header::MODE, &b"rw-r--r"[..]),
        ("mode", header::MODE, b"\xff\xff\xff\xff\xff\xff\xff\xff"),
        ("uid", header::UID, b"\xff\xff\xff\xff\xff\xff\xff\xff"),
        ("gid", header::GID, b"8"),
        ("size", header::SIZE, b"\x80\0\0\0\x80\0\0\0\0\0\0\0"),
        ("size", header::SIZE, b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"),
        ("mtime", header::MTIME, b"1.5"),
    ] {
        let message = refused(Raw::default().block(b'0', b"f", 0, |b| put(b, range, value)));
        assert!(message.starts_with(&format!("invalid tar field `{field}` of \"f\" at byte 0")), "{message}");
    }
    let device = |b: &mut Block| put(b, header::MAJOR, b"\x80\0\0\x01\0\0\0\0");
    assert!(refused(Raw::default().block(b'4', b"f", 0, device)).contains("devmajor"));
    // No device: the field means nothing.
    assert_eq!(one(Raw::default().block(b'0', b"f", 0, device)).device, (0, 0));
}

#[test]
fn names_and_prefixes_of_each_format() {
    let prefixed = |b: &mut Block| put(b, header::PREFIX, b"some/dir");
    assert_eq!(one(Raw::default().block(b'0', b"f", 0, prefixed)).path, b"some/dir/f");
    let full = [b'n'; 100];
    let path = one(Raw::default().block(b'0', &full, 0, |b| put(b, header::PREFIX, &[b'p'; 155]))).path;
    assert_eq!(path, [&[b'p'; 155][..], b"/", &full].concat());

    let v7 = one(Raw::default().block(b'0', b"f", 0, |b| {
        prefixed(b);
        put(b, header::MAGIC, &[0; 8]);
        put(b, header::UNAME, b"junk");
    }));
    assert_eq!((&v7.path[..], &v7.uname[..]), (&b"f"[..], &b""[..]));
    let v7_device = one(Raw::default().block(b'3', b"f", 0, |b| {
        put(b, header::MAGIC, &[0; 8]);
        put(b, header::MAJOR, b"junk");
    }));
    assert_eq!(v7_device.device, (0, 0));

    let star = one(Raw::default().block(b'0', b"f", 0, |b| {
        put(b, 345..476, b"star");
        put(b, 476..488, b"00000000007");
        put(b, 488..500, b"00000000010");
        put(b, 508..512, b"tar\0");
    }));
    assert_eq!(star.path, b"star/f");
    assert_eq!((star.atime, star.ctime), (Some(time(7, 0)), Some(time(8, 0))));

    let gnu = one(Raw::default().gnu(b'0', b"f", 0, |b| {
        put(b, 345..357, b"00000000007");
        put(b, 357..369, b"\x80\0\0\0\0\0\0\0\0\0\0\x08");
    }));
    assert_eq!(gnu.path, b"f");
    assert_eq!((gnu.atime, gnu.ctime), (Some(time(7, 0)), Some(time(8, 0))));

    // https://github.com/golang/go/issues/12594: Go before 1.8 put a prefix there.
    let old_go = one(Raw::default().gnu(b'0', b"f", 0, prefixed));
    assert_eq!((&old_go.path[..], old_go.atime), (&b"some/dir/f"[..], None));
    let not_ascii = one(Raw::default().gnu(b'0', b"f", 0, |b| put(b, header::PREFIX, b"x\xffy")));
    assert_eq!(not_ascii.path, b"f");
}

#[test]
fn precedence_of_names() {
    let prefixed = |b: &mut Block| put(b, header::PREFIX, b"prefix");
    let file = |raw: Raw| {
        raw.block(b'2', b"header", 0, |b| {
            prefixed(b);
            put(b, header::LINK, b"link-header");
        })
    };
    let names = |raw: Raw| {
        let entry = one(raw);
        (String::from_utf8(entry.path).unwrap(), String::from_utf8(entry.link).unwrap())
    };
    let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
    let pax = [("path", "pax"), ("linkpath", "link-pax")];
    assert_eq!(names(file(Raw::default())), pair("prefix/header", "link-header"));
    assert_eq!(names(file(Raw::default().long(b'L', b"gnu"))), pair("gnu", "link-header"));
    let gnu = || Raw::default().long(b'K', b"link-gnu").long(b'L', b"gnu");
    assert_eq!(names(file(gnu())), pair("gnu", "link-gnu"));
    // GNU tar's order; it does not matter which comes first.
    assert_eq!(names(file(gnu().pax(b'x', &pax))), pair("pax", "link-pax"));
    assert_eq!(names(file(Raw::default().pax(b'X', &pax).long(b'L', b"gnu"))), pair("pax", "link-pax"));
    assert_eq!(names(file(Raw::default().pax(b'g', &pax).long(b'L', b"gnu"))), pair("pax", "link-pax"));
    // Deleted.
    assert_eq!(
        names(file(Raw::default().pax(b'g', &pax).pax(b'x', &[("path", ""), ("linkpath", "")]))),
        pair("prefix/header", "link-header")
    );
    assert_eq!(names(file(Raw::default().long(b'L', b"one").long(b'L', b"two"))).0, "two");
    // The second header replaces the first.
    assert_eq!(
        names(file(Raw::default().pax(b'x', &pax).pax(b'x', &[("path", "other")]))),
        pair("other", "link-header")
    );
}

#[test]
fn global_records_last_and_local_ones_do_not() {
    let archive = Raw::default()
        .pax(b'g', &[("uid", "7"), ("mtime", "1.5"), ("comment", "git")])
        .file(b"a", b"1")
        .pax(b'x', &[("uid", "8"), ("SCHILY.xattr.user.x", "")])
        .file(b"b", b"2")
        .file(b"c", b"3")
        .pax(b'g', &[("uid", "")])
        .file(b"d", b"4")
        .pax(b'g', &[("gid", "9")])
        .end();
    let files = read(&archive).unwrap();
    assert_eq!(files.iter().map(|(e, _)| e.uid).collect::<Vec<_>>(), [7, 8, 7, 0]);
    assert!(files.iter().all(|(e, _)| e.mtime == time(1, 500_000_000)));
    assert_eq!(files[1].0.xattrs, [(b"user.x".to_vec(), vec![])]);
    assert!(files[2].0.xattrs.is_empty());
    assert!(refused(Raw::default().pax(b'g', &[("size", "512")]).file(b"a", b"")).contains("global"));
}

#[test]
fn ends() {
    let file = || Raw::default().file(b"f", b"12345");
    let with_end = file().end();
    let full = file().0;
    // Two blocks, whatever follows; one; none; not even padding.
    let followed = [&with_end[..], b"more"].concat();
    let mut reader = Reader::new(&followed[..]);
    assert_eq!(read_with(&mut reader).unwrap().len(), 1);
    assert!(reader.next_entry().unwrap().is_none());
    assert_eq!(reader.position(), 4 * BLOCK as u64);
    assert_eq!(reader.into_inner(), b"more");
    for len in [full.len() + BLOCK, full.len(), full.len() - 1, BLOCK + 5] {
        assert_eq!(read(&with_end[..len]).unwrap().len(), 1, "{len}");
    }
    assert!(read(b"").unwrap().is_empty());
    assert!(read(&[0; BLOCK]).unwrap().is_empty());
    assert!(read(&Raw::default().end()).unwrap().is_empty());

    let message = |archive: &[u8]| read(archive).unwrap_err().to_string();
    assert_eq!(message(&with_end[..BLOCK + 4]), "tar archive ends inside data of \"f\" at byte 516");
    assert_eq!(message(&with_end[..100]), "tar archive ends inside a header at byte 100");
    assert_eq!(
        message(&[&full[..], &[0; 600]].concat()),
        "tar archive ends inside the end of the archive at byte 1624"
    );
    let lone = [&full[..], &[0; BLOCK], &full[..]].concat();
    assert!(message(&lone).contains("lone block of zeros"), "{}", message(&lone));
    assert_eq!(message(&[b'x'; 1024]), "no tar header at byte 0: checksum mismatch");
    assert_eq!(
        message(&[&full[..], &[b'x'; 1024]].concat()),
        "no tar header at byte 1024: checksum mismatch"
    );

    let pax = Raw::default().pax(b'x', &[("path", "x")]).0;
    assert_eq!(message(&pax), "tar archive ends inside an entry after its extension header at byte 1024");
    assert!(message(&[&pax[..], &[0; 1024]].concat()).contains("no entry follows"));
    assert_eq!(message(&pax[..600]), "tar archive ends inside an extension header at byte 600");
    assert_eq!(message(&pax[..515]), "tar archive ends inside an extension header at byte 515");
}

#[test]
fn an_error_is_final() {
    let archive = [&[b'x'; BLOCK][..], &Raw::default().file(b"f", b"").end()].concat();
    let mut reader = Reader::new(&archive[..]);
    assert!(matches!(reader.next_entry(), Err(Error::Checksum { offset: 0 })));
    assert!(matches!(reader.next_entry(), Err(Error::Invalid { .. })));
}

#[test]
fn limits() {
    let limits =
        Limits { path: 10, link: 10, extension: 100, extensions: 2, sparse_segments: 2, ..Limits::default() };
    let check = |raw: Raw| match read_with(&mut Reader::with_limits(&raw.end()[..], limits)) {
        Ok(_) => "fine".to_owned(),
        Err(Error::Limit { what, .. }) => what.to_owned(),
        Err(other) => panic!("{other}"),
    };
    assert_eq!(check(Raw::default().file(b"0123456789", b"")), "fine");
    assert_eq!(check(Raw::default().file(b"0123456789x", b"")), "length of a path");
    assert_eq!(check(Raw::default().long(b'L', b"0123456789").file(b"", b"")), "fine");
    assert_eq!(check(Raw::default().long(b'L', b"0123456789x").file(b"", b"")), "length of a path");
    assert_eq!(check(Raw::default().long(b'K', b"0123456789x").file(b"", b"")), "length of a link target");
    assert_eq!(
        check(Raw::default().pax(b'x', &[("path", "0123456789x")]).file(b"", b"")),
        "length of a path"
    );
    // Refused by its size, before any of it is read: nothing else is there.
    for flag in *b"xXgLK" {
        let huge = Raw::default().header(flag, b"", 10_000_000_000).0;
        let error = Reader::with_limits(&huge[..], limits).next_entry().unwrap_err();
        assert_eq!(error.to_string(), "size of an extension header exceeds the limit of 100 at byte 0");
    }
    let row = |n| (0..n).fold(Raw::default(), |raw, _| raw.long(b'L', b"x")).file(b"", b"");
    assert_eq!((check(row(2)), check(row(3))), ("fine".into(), "number of extension headers".into()));
    // Each entry may have its own.
    assert_eq!(check(Raw(([row(2).0, row(2).0]).concat())), "fine");

    let map = "3\n0\n1\n";
    let one_zero = |map: &str| {
        Raw::default()
            .pax(b'x', &[("GNU.sparse.major", "1"), ("GNU.sparse.minor", "0")])
            .header(b'0', b"f", BLOCK as u64)
            .data(map.as_bytes())
    };
    assert_eq!(check(one_zero(map)), "sparse map");
    assert_eq!(check(one_zero("1844674407370955161\n")), "sparse map");
}

#[test]
fn positions_and_skipping() {
    let archive = Raw::default()
        .file(b"a", &[1; 1000])
        .pax(b'x', &[("uid", "1")])
        .file(b"b", b"12345")
        .file(b"c", &[])
        .file(b"d", &[4; 512])
        .end();
    let starts = [512, 512 + 1024 + 1536, 512 + 1024 + 1536 + 1024, 512 + 1024 + 1536 + 1024 + 512];
    let visit = |seek: bool, part: usize| {
        let mut reader = Reader::new(BufReader::with_capacity(700, Cursor::new(&archive)));
        let mut seen = Vec::new();
        while let Some(entry) = reader.next_entry().unwrap() {
            seen.push((reader.position(), entry.path));
            assert_eq!(reader.data_left(), entry.size);
            let len = reader.fill_data().unwrap().len();
            reader.consume_data(len.min(part));
            if seek {
                reader.seek_data().unwrap();
                assert_eq!(reader.data_left(), 0);
            }
        }
        assert_eq!(reader.position(), archive.len() as u64);
        assert_eq!(reader.get_mut().stream_position().unwrap(), archive.len() as u64);
        seen
    };
    let want: Vec<_> = starts.into_iter().zip([b"a", b"b", b"c", b"d"].map(|p| p.to_vec())).collect();
    for part in [0, 1, 5, 700, 1000] {
        assert_eq!(visit(false, part), want);
        assert_eq!(visit(true, part), want);
    }
}

#[test]
fn seeking_notices_missing_data() {
    for (size, there, fine) in [
        (1000, 1000, true),
        (1000, 999, false),
        (1000, 0, false),
        (1, 0, false),
        (1 << 40, 10_000, false),
        (i64::MAX as u64, 1000, false),
    ] {
        let mut archive = Raw::default()
            .block(b'0', b"f", 0, |b| {
                put(b, header::SIZE, b"\x80\0\0\0");
                put(b, header::SIZE.start + 4..header::SIZE.end, &u64::to_be_bytes(size));
            })
            .0;
        archive.resize(BLOCK + there, 7);
        let mut reader = Reader::new(BufReader::new(Cursor::new(&archive)));
        assert_eq!(reader.next_entry().unwrap().unwrap().size, size);
        match reader.seek_data() {
            Ok(()) => assert!(fine && reader.next_entry().unwrap().is_none()),
            Err(error) => assert!(!fine && matches!(error, Error::Truncated { .. }), "{error}"),
        }
    }
}

fn segments(pairs: &[(u64, u64)]) -> Vec<Segment> {
    pairs.iter().map(|&(offset, len)| Segment { offset, len }).collect()
}

fn gnu_map(field: &mut [u8], pairs: &[(u64, u64)]) {
    for (entry, (offset, len)) in field.chunks_exact_mut(24).zip(pairs) {
        entry[..12].copy_from_slice(format!("{offset:011o}\0").as_bytes());
        entry[12..].copy_from_slice(format!("{len:011o}\0").as_bytes());
    }
}

#[test]
fn old_gnu_sparse_with_extension_blocks() {
    let pairs: Vec<(u64, u64)> = (0..30).map(|i| (i * 1000, 1)).chain([(50_000, 0)]).collect();
    let mut raw = Raw::default().gnu(b'S', b"f", 30, |b| {
        gnu_map(&mut b[header::GNU_SPARSE], &pairs[..4]);
        b[header::GNU_SPARSE_MORE] = 1;
        put(b, header::GNU_REAL_SIZE, b"00000141520");
    });
    for (part, more) in [(&pairs[4..25], 1), (&pairs[25..], 0)] {
        let mut block = [0; BLOCK];
        gnu_map(&mut block[header::GNU_SPARSE_NEXT], part);
        block[header::GNU_SPARSE_NEXT_MORE] = more;
        raw = raw.data(&block);
    }
    let archive = raw.data(&[b'd'; 30]).file(b"next", b"").end();
    let files = read(&archive).unwrap();
    let (entry, data) = &files[0];
    assert_eq!((entry.kind, entry.size, entry.archived_size), (EntryKind::Regular, 50_000, 30));
    assert_eq!(entry.sparse, Some(segments(&pairs[..30])));
    assert_eq!((&data[..], files.len()), (&[b'd'; 30][..], 2));

    let limits = Limits { sparse_segments: 30, ..Limits::default() };
    let error = Reader::with_limits(&archive[..], limits).next_entry().unwrap_err();
    assert_eq!(error.to_string(), "sparse map exceeds the limit of 30 of \"f\" at byte 0");
    assert!(matches!(read(&archive[..BLOCK]), Err(Error::Truncated { what: "a sparse map", .. })));
    assert!(refused(Raw::default().header(b'S', b"f", 0)).contains("another format"));
    // Blocks without an entry that always announce one more.
    let mut endless = Raw::default().gnu(b'S', b"f", 0, |b| b[header::GNU_SPARSE_MORE] = 1);
    for _ in 0..40 {
        let mut block = [0; BLOCK];
        block[header::GNU_SPARSE_NEXT_MORE] = 1;
        endless = endless.data(&block);
    }
    let error = Reader::with_limits(&endless.0[..], limits).next_entry().unwrap_err();
    assert!(matches!(error, Error::Limit { .. }), "{error}");
}

#[test]
fn pax_sparse() {
    let zero_one = |map: &str, size: u64| {
        let blocks = map.split(',').count().div_ceil(2).to_string();
        let (blocks, size_record) = (("GNU.sparse.numblocks", &blocks[..]), ("GNU.sparse.size", "100"));
        Raw::default()
            .pax(b'x', &[size_record, blocks, ("GNU.sparse.map", map), ("GNU.sparse.name", "real")])
            .header(b'0', b"placeholder", size)
            .data(&vec![b'd'; usize::try_from(size).unwrap()])
    };
    let entry = one(zero_one("0,5,90,10,100,0", 15));
    assert_eq!((&entry.path[..], entry.size, entry.archived_size), (&b"real"[..], 100, 15));
    assert_eq!(entry.sparse, Some(segments(&[(0, 5), (90, 10)])));
    for (map, size) in
        [("0,5,4,10", 15), ("0,5,100,0", 6), ("90,11", 11), ("9223372036854775807,9223372036854775807", 0)]
    {
        assert!(refused(zero_one(map, size)).contains("sparse map"), "{map}");
    }
    let link = Raw::default()
        .pax(b'x', &[("GNU.sparse.numblocks", "1"), ("GNU.sparse.map", "0,0")])
        .header(b'2', b"l", 0);
    assert!(refused(link).contains("not a regular file"));

    // 1.0; more than a block of map.
    let numbers = (0..200).flat_map(|i| [i * 10, 1]).map(|n| n.to_string());
    let map = ["200".to_owned()].into_iter().chain(numbers).collect::<Vec<_>>().join("\n") + "\n";
    let padded = map.len().next_multiple_of(BLOCK);
    let one_zero = |map: &[u8], data: &[u8], size: usize| {
        Raw::default()
            .pax(
                b'x',
                &[("GNU.sparse.major", "1"), ("GNU.sparse.minor", "0"), ("GNU.sparse.realsize", "1991")],
            )
            .header(b'0', b"f", size as u64)
            .data(map)
            .data(data)
    };
    let files = read(&one_zero(map.as_bytes(), &[b'd'; 200], padded + 200).file(b"next", b"").end()).unwrap();
    let (entry, data) = &files[0];
    assert_eq!((entry.size, entry.archived_size, entry.sparse.as_ref().unwrap().len()), (1991, 200, 200));
    assert_eq!((&data[..], files.len()), (&[b'd'; 200][..], 2));
    // The map goes past the data the entry has, or the stream ends inside it.
    assert!(refused(one_zero(map.as_bytes(), b"", padded - 1)).contains("goes past the end"));
    let cut = one_zero(map.as_bytes(), b"", padded).0;
    assert!(matches!(read(&cut[..cut.len() - BLOCK]), Err(Error::Truncated { what: "a sparse map", .. })));
    assert!(refused(one_zero(b"x\n", b"", BLOCK)).contains("decimal lines"));
}

#[test]
fn data_as_a_stream() {
    let archive = Raw::default().file(b"a", b"inner").file(b"b", &[]).end();
    let mut reader = Reader::new(BufReader::with_capacity(3, &archive[..]));
    reader.next_entry().unwrap().unwrap();
    let mut text = String::new();
    reader.data().read_to_string(&mut text).unwrap();
    assert_eq!(text, "inner");
    assert_eq!(reader.next_entry().unwrap().unwrap().path, b"b");

    let mut reader = Reader::new(&archive[..BLOCK + 2]);
    reader.next_entry().unwrap().unwrap();
    let error = reader.data().read_to_string(&mut text).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
}

/// A stream that is interrupted before each read and fails at its end.
struct Moody<'a>(&'a [u8], bool);

impl Read for Moody<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.1 = !self.1;
        if self.1 {
            return Err(io::ErrorKind::Interrupted.into());
        }
        match self.0.read(buffer)? {
            0 => Err(io::Error::other("damaged")),
            n => Ok(n),
        }
    }
}

#[test]
fn stream_errors() {
    let archive = Raw::default().file(b"a", b"inner").0;
    let mut reader = Reader::new(BufReader::new(Moody(&archive, false)));
    reader.next_entry().unwrap().unwrap();
    let error = reader.next_entry().unwrap_err();
    assert!(error.is_io());
    assert_eq!(error.to_string(), "tar stream failed at byte 1024");
    assert_eq!(std::error::Error::source(&error).unwrap().to_string(), "damaged");
}

#[test]
fn errors_escape_names() {
    let message = refused(Raw::default().block(b'0', b"a\x1b[31m\xff", 0, |b| put(b, header::UID, b"x")));
    assert_eq!(
        message,
        "invalid tar field `uid` of \"a\\u{1b}[31m\u{fffd}\" at byte 0: not an octal or base-256 number that fits"
    );
}
