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
    let records = [("GNU.sparse.size", "1024"), ("GNU.sparse.map", "0,0,1024,0")];
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
