//! Which data belongs to which entry; archives in which Go and GNU tar find different entries are refused.

use super::*;

type Edit = fn(&mut Block);

/// GNU tar skips as many bytes as the size says, Go none.
#[test]
fn sizes_of_what_has_no_data() {
    for (flag, name) in
        [(0, &b"d/"[..]), (b'2', b"l"), (b'3', b"c"), (b'4', b"b"), (b'5', b"d"), (b'6', b"p")]
    {
        let message = refused(Raw::default().header(flag, name, 5).file(b"next", b""));
        assert!(message.contains("not 0, although the type has no data"), "{message}");
        let raw = Raw::default().pax(b'x', &[("size", "0")]).header(flag, name, 5);
        assert_eq!(paths(&raw.file(b"next", b"").end()).len(), 2);
    }
    // Of a hard link the header's size is nobody's business, a record's is GNU tar's.
    assert_eq!(paths(&Raw::default().header(b'1', b"h", 5).file(b"next", b"").end()), [&b"h"[..], b"next"]);
    refused(Raw::default().pax(b'x', &[("size", "5")]).header(b'1', b"h", 0).file(b"next", b""));
}

/// GNU tar knows sparse files by the format of their header.
#[test]
fn sparse_records_need_a_ustar_header() {
    let records =
        [("GNU.sparse.size", "1024"), ("GNU.sparse.numblocks", "2"), ("GNU.sparse.map", "0,0,1024,0")];
    let edits: [(bool, Edit); 5] = [
        (true, |_| ()),
        (false, |b| put(b, header::MAGIC, b"ustar  \0")),
        (false, |b| put(b, header::MAGIC, &[0; 8])),
        (false, |b| put(b, 508..512, b"tar\0")),
        (false, |b| put(b, 476..500, b"00000000001 00000000001 ")),
    ];
    for (good, edit) in edits {
        let raw = Raw::default().pax(b'x', &records).block(b'0', b"f", 0, edit);
        assert_eq!(read(&raw.end()).is_ok(), good);
    }
    let lone = |size| Raw::default().pax(b'x', &[("GNU.sparse.size", size)]).file(b"f", b"12345");
    assert_eq!(one(lone("5")).size, 5);
    assert!(refused(lone("6")).contains("no map"));
}

/// Go looks at these only where there is a map in the records too.
#[test]
fn sparse_records_need_a_map() {
    let name = ("GNU.sparse.name", "real");
    assert!(refused(Raw::default().pax(b'x', &[name]).file(b"f", b"")).contains("no map"));
    for record in [name, ("GNU.sparse.size", "0"), ("GNU.sparse.map", "0,0")] {
        let raw = Raw::default().pax(b'x', &[record]).gnu(b'S', b"f", 0, |_| ());
        assert!(refused(raw).contains("map in the header"), "{record:?}");
    }
    assert_eq!(one(Raw::default().gnu(b'S', b"f", 0, |_| ())).path, b"f");
}

/// GNU tar ends the file where its map does, Go and Python at its size.
#[test]
fn sparse_maps_end_where_the_file_does() {
    for (map, good) in [("0,512,1024,0", true), ("0,512,1023,0", false), ("0,512,512,0", false)] {
        let records = [("GNU.sparse.size", "1024"), ("GNU.sparse.numblocks", "2"), ("GNU.sparse.map", map)];
        let raw = Raw::default().pax(b'x', &records).file(b"f", &[b'd'; 512]);
        assert_eq!(read(&raw.end()).is_ok(), good, "{map}");
    }
    let old = |last| {
        let raw = Raw::default().gnu(b'S', b"f", 512, |b| {
            gnu_map(&mut b[header::GNU_SPARSE], &[(0, 512), (last, 0)]);
            put(b, header::GNU_REAL_SIZE, b"00000002000");
        });
        read(&raw.data(&[b'd'; 512]).end())
    };
    assert!(old(1024).is_ok());
    assert!(old(1000).unwrap_err().to_string().contains("ends before the file does"));
    let none = Raw::default().gnu(b'S', b"f", 0, |b| put(b, header::GNU_REAL_SIZE, b"00000002000"));
    refused(none);
}

/// GNU tar unpacks a directory and takes the data for headers: files that no one else sees.
#[test]
fn names_of_files_with_data_do_not_end_in_a_slash() {
    let hidden = Raw::default().file(b"hidden", b"").0;
    for flag in *b"07" {
        let message = refused(Raw::default().header(flag, b"d/", 512).data(&hidden));
        assert!(message.contains("ends in a slash"), "{message}");
        refused(Raw::default().pax(b'x', &[("path", "d/")]).header(flag, b"f", 512).data(&hidden));
        refused(Raw::default().pax(b'g', &[("path", "d/")]).header(flag, b"f", 512).data(&hidden));
        refused(Raw::default().long(b'L', b"d/").header(flag, b"f", 512).data(&hidden));
        refused(Raw::default().pax(b'x', &[("size", "512")]).header(flag, b"d/", 0).data(&hidden));
        let other = Raw::default().pax(b'x', &[("path", "f")]).header(flag, b"d/", 512).data(&hidden);
        assert_eq!(paths(&other.end()), [b"f"]);
        assert_eq!(one(Raw::default().header(flag, b"d/", 0)).kind, EntryKind::Regular);
    }
}

/// GNU tar and Python read on to the NUL, or take the name that is not there.
#[test]
fn long_names_that_readers_differ_on() {
    for flag in *b"LK" {
        let mut raw = Raw::default().gnu(flag, b"././@LongLink", 3, |_| ()).data(b"abc");
        assert!(read(&Raw(raw.0.clone()).file(b"f", b"").end()).is_ok());
        raw.0[BLOCK + 3] = b'd';
        assert!(refused(raw.file(b"f", b"")).contains("goes on in the padding"));
        let empty = Raw::default().gnu(flag, b"././@LongLink", 3, |_| ()).data(b"\0bc");
        assert!(refused(empty.file(b"f", b"")).contains("empty"));
        refused(Raw::default().gnu(flag, b"././@LongLink", 0, |_| ()).file(b"f", b""));
    }
}

/// RUSTSEC-2026-0068 and RUSTSEC-2026-0112: a size record that is applied to an extension header in between
/// makes a reader see other entries than everyone else does.
#[test]
fn size_records_belong_to_their_entry() {
    let hidden = Raw::default().file(b"hidden", b"").0;
    for flag in *b"LKg" {
        let raw = Raw::default().pax(b'x', &[("size", "1024")]);
        let raw = match flag {
            b'g' => raw.pax(b'g', &[("comment", "x")]),
            flag => raw.long(flag, b"name"),
        };
        let data = [&hidden[..], &[0; BLOCK]].concat();
        let archive = raw.header(b'0', b"f", 0).data(&data).file(b"next", b"").end();
        let files = read(&archive).unwrap();
        assert_eq!(files.len(), 2);
        assert_eq!((files[0].0.size, &files[0].1), (1024, &data));
    }
    // A second PAX header ends what the first one said.
    let raw = Raw::default().pax(b'x', &[("size", "512")]).pax(b'x', &[("uid", "1")]);
    assert_eq!(paths(&raw.header(b'0', b"a", 0).file(b"b", b"").end()), [b"a", b"b"]);
    let deleted = Raw::default().pax(b'x', &[("size", "512"), ("size", "")]).file(b"a", b"12345");
    assert_eq!(one(deleted).size, 5);
}

/// Go reads them all; GNU tar goes on elsewhere after a size that it cannot read.
#[test]
fn numbers_count_even_where_they_mean_nothing() {
    let records = [("uid", "1"), ("gid", "1"), ("size", "0"), ("mtime", "1")];
    let edit = |range: &Range<usize>| {
        let range = range.clone();
        move |b: &mut Block| put(b, range, b"x")
    };
    for range in [header::UID, header::GID, header::SIZE, header::MTIME, header::MAJOR, header::MINOR] {
        let overridden = Raw::default().pax(b'x', &records).block(b'0', b"f", 0, edit(&range));
        assert!(refused(overridden).contains("not an octal"), "{range:?}");
        refused(Raw::default().block(b'1', b"h", 0, edit(&range)));
        refused(Raw::default().block(b'x', b"PaxHeaders", 0, edit(&range)).file(b"f", b""));
    }
    let negative = |b: &mut Block| put(b, header::SIZE, &[0xff; 12]);
    assert!(refused(Raw::default().block(b'1', b"h", 0, negative)).contains("negative"));
    let star = |b: &mut Block| {
        put(b, 476..500, b"00000000001 x");
        put(b, 508..512, b"tar\0");
    };
    refused(Raw::default().block(b'0', b"f", 0, star));
    // Version 7 has no device numbers.
    let v7 = |b: &mut Block| {
        put(b, header::MAGIC, &[0; 8]);
        put(b, header::MAJOR, b"x");
    };
    assert_eq!(paths(&Raw::default().block(b'0', b"f", 0, v7).end()), [b"f"]);
}
