use super::*;

/// `%d key=value\n` with the right length.
fn rec(key: &str, value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let len = (1..10_000).find(|len| rest + len.to_string().len() == *len).unwrap();
    [len.to_string().as_bytes(), b" ", key.as_bytes(), b"=", value, b"\n"].concat()
}

fn records(list: &[(&str, &[u8])]) -> Result<Records, Flaw> {
    let body: Vec<u8> = list.iter().flat_map(|(key, value)| rec(key, value)).collect();
    let mut records = Records::default();
    parse(&body, &mut records, &Limits::default(), Scope::Local).map(|()| records)
}

fn time(seconds: i64, nanoseconds: u32) -> Timestamp {
    Timestamp { seconds, nanoseconds }
}

#[test]
fn framing_by_length() {
    let good = [
        (&b"6 k=v\n"[..], &b"k"[..], &b"v"[..], &b""[..]),
        (b"5 k=\n", b"k", b"", b""),
        (b"008 k=v\nx", b"k", b"v", b"x"),
        (b"10 k=a\nb\0\nrest", b"k", b"a\nb\0", b"rest"),
        (b"10 k=a=b=\nx", b"k", b"a=b=", b"x"),
    ];
    for (text, key, value, rest) in good {
        let got = record(text).unwrap_or_else(|e| panic!("{}: {e}", text.escape_ascii()));
        assert_eq!((got.key, got.value, got.rest), (key, value, rest), "{}", text.escape_ascii());
    }
    for bad in [
        &b"6"[..],
        b"6 k=v",
        b"7 k=v\n",
        b"5 k=v\n",
        b"0 k=v\n",
        b"1 k=v\n",
        b"2 k=v\n",
        b" k=v\n",
        b"-6 k=v\n",
        b"+6 k=v\n",
        b"0x6 k=v\n",
        b"6\tk=v\n",
        b"99999999999999999999 k=v\n",
        b"18446744073709551615 k=v\n",
        b"6 kkv\n",
        b"5 =v\n",
        b"7 k\0=v\n",
        b"\0\0\0\0",
    ] {
        assert!(record(bad).is_err(), "{}", bad.escape_ascii());
    }
}

#[test]
fn times() {
    for (text, want) in [
        ("0", time(0, 0)),
        ("1350244992", time(1_350_244_992, 0)),
        ("1350244992.", time(1_350_244_992, 0)),
        ("1350244992.3", time(1_350_244_992, 300_000_000)),
        ("1350244992.02396009999", time(1_350_244_992, 23_960_099)),
        ("1.9999999999999", time(1, 999_999_999)),
        ("-1", time(-1, 0)),
        ("-1.25", time(-2, 750_000_000)),
        ("-0.5", time(-1, 500_000_000)),
        ("-0", time(0, 0)),
        ("-0.0000000001", time(0, 0)),
        ("9223372036854775807.5", time(i64::MAX, 500_000_000)),
        ("-9223372036854775807.5", time(i64::MIN, 500_000_000)),
        ("-9223372036854775808", time(i64::MIN, 0)),
    ] {
        assert_eq!(timestamp(text.as_bytes()), Ok(want), "{text}");
    }
    for bad in [
        "-",
        ".5",
        "+1",
        "1e3",
        "1.2e3",
        "1.-2",
        "1.2.3",
        " 1",
        "1 ",
        "0x1",
        "9223372036854775808",
        "-9223372036854775808.1",
        "--1",
        "1,5",
    ] {
        assert!(timestamp(bad.as_bytes()).is_err(), "{bad}");
    }
}

#[test]
fn keywords() {
    let got = records(&[
        ("path", b"a/\xff\nb"),
        ("linkpath", b"target"),
        ("size", b"9223372036854775807"),
        ("uid", b"4294967296"),
        ("gid", b"7"),
        ("uname", "ä".as_bytes()),
        ("gname", b"g"),
        ("mtime", b"1.5"),
        ("SCHILY.devmajor", b"4294967295"),
        ("SCHILY.devminor", b"0"),
        ("hdrcharset", b"BINARY"),
        ("comment", b"\0"),
        ("SCHILY.acl.access", b"user::rwx"),
        ("made.up", b""),
    ])
    .unwrap();
    assert_eq!(got.path, Field::Set(b"a/\xff\nb".to_vec()));
    assert_eq!(got.link, Field::Set(b"target".to_vec()));
    assert_eq!(got.size, Field::Set(i64::MAX as u64));
    assert_eq!(got.uid, Field::Set(1 << 32));
    assert_eq!(got.uname, Field::Set("ä".into()));
    assert_eq!(got.mtime, Field::Set(time(1, 500_000_000)));
    assert_eq!(got.atime, Field::Unset);
    assert_eq!((got.major, got.minor), (Field::Set(u32::MAX), Field::Set(0)));
    for (key, value) in [
        ("path", &b"a\0b"[..]),
        ("linkpath", b"\0"),
        ("uname", b"x\0"),
        ("gname", b"x\0"),
        ("size", b"-1"),
        ("size", b"9223372036854775808"),
        ("size", b"1 "),
        ("size", b"+1"),
        ("uid", b"0x1"),
        ("uid", b"-2"),
        ("gid", b"99999999999999999999999"),
        ("mtime", b"yesterday"),
        ("SCHILY.devmajor", b"4294967296"),
        ("GNU.sparse.major", b"one"),
        ("GNU.sparse.name", b"a\0"),
        ("SCHILY.xattr.", b"x"),
        ("SCHILY.xattr.a\0b", b"x"),
        ("LIBARCHIVE.xattr.a%0", b"eA"),
        ("LIBARCHIVE.xattr.a%00", b"eA"),
        ("LIBARCHIVE.xattr.a", b"e"),
    ] {
        assert!(records(&[(key, value)]).is_err(), "{key}={}", value.escape_ascii());
    }
}

#[test]
fn the_last_record_counts_and_an_empty_one_deletes() {
    let got = records(&[("path", b"a"), ("path", b"b"), ("uid", b"1"), ("uid", b""), ("gid", b"")]).unwrap();
    assert_eq!(got.path, Field::Set(b"b".to_vec()));
    assert_eq!((&got.uid, &got.gid, &got.size), (&Field::Deleted, &Field::Deleted, &Field::Unset));
    assert_eq!(got.uid.or(&Field::Set(5)), None);
    assert_eq!(got.size.or(&Field::Set(5)), Some(5));
    assert_eq!(Field::Set(6).or(&Field::Set(5)), Some(6));
}

#[test]
fn extended_attributes() {
    let local = records(&[
        ("LIBARCHIVE.xattr.user.both", b"bGliYXJjaGl2ZQ"),
        ("SCHILY.xattr.user.both", b"schily"),
        ("SCHILY.xattr.user.overlay.origin", b""),
        ("SCHILY.xattr.security.capability", b"\x01\0\0\x02\n\0=\n"),
        ("LIBARCHIVE.xattr.user.a%3Db", b"YQ=="),
        ("SCHILY.xattr.user.twice", b"1"),
        ("SCHILY.xattr.user.twice", b"2"),
    ])
    .unwrap();
    let global = records(&[("SCHILY.xattr.user.twice", b"global"), ("SCHILY.xattr.user.g", b"g")]).unwrap();
    let got = local.xattrs.or(&global.xattrs, &Limits::default()).unwrap();
    let want: &[(&[u8], &[u8])] = &[
        (b"user.both", b"schily"),
        (b"user.overlay.origin", b""),
        (b"security.capability", b"\x01\0\0\x02\n\0=\n"),
        (b"user.twice", b"2"),
        (b"user.a=b", b"a"),
        (b"user.g", b"g"),
    ];
    assert_eq!(got.iter().map(|(n, v)| (&n[..], &v[..])).collect::<Vec<_>>(), want);
}

#[test]
fn attribute_limits() {
    let limits = Limits { xattrs: 2, xattr_bytes: 11, ..Limits::default() };
    let check = |list: &[(&str, &[u8])], target: &mut Records, scope| {
        let body: Vec<u8> = list.iter().flat_map(|(key, value)| rec(key, value)).collect();
        parse(&body, target, &limits, scope)
    };
    let fresh = || Records::default();
    let (a, b, c) =
        (("SCHILY.xattr.a", &b"1234"[..]), ("SCHILY.xattr.b", &b"5678"[..]), ("SCHILY.xattr.c", &b""[..]));
    check(&[a, b], &mut fresh(), Scope::Local).unwrap();
    let too_many = Err(Flaw::limit("number of extended attributes", 2));
    assert_eq!(check(&[a, b, c], &mut fresh(), Scope::Local), too_many);
    assert_eq!(check(&[c, c, c], &mut fresh(), Scope::Local), too_many, "repeats count");
    let too_large = Err(Flaw::limit("size of extended attributes", 11));
    assert_eq!(check(&[("SCHILY.xattr.a", b"12345678901")], &mut fresh(), Scope::Local), too_large);

    // Global ones pile up over headers, but replacing one frees it.
    let mut global = fresh();
    for _ in 0..10 {
        check(&[a, b], &mut global, Scope::Global).unwrap();
    }
    assert_eq!(check(&[c], &mut global, Scope::Global), too_many);
    let mut global = fresh();
    check(&[a, b], &mut global, Scope::Global).unwrap();
    let mut local = fresh();
    check(&[c], &mut local, Scope::Local).unwrap();
    assert_eq!(
        local.xattrs.or(&global.xattrs, &limits),
        Err(Flaw::limit("number of extended attributes", 2))
    );
}

#[test]
fn global_headers_do_not_frame() {
    for key in ["size", "GNU.sparse.major", "GNU.sparse.map"] {
        let mut records = Records::default();
        assert!(parse(&rec(key, b"1"), &mut records, &Limits::default(), Scope::Global).is_err(), "{key}");
    }
}

#[test]
fn sparse_versions() {
    let two = [Segment { offset: 0, len: 5 }, Segment { offset: 9, len: 1 }];
    let zero_zero: &[(&str, &[u8])] = &[
        ("GNU.sparse.size", b"10"),
        ("GNU.sparse.numblocks", b"2"),
        ("GNU.sparse.offset", b"0"),
        ("GNU.sparse.numbytes", b"5"),
        ("GNU.sparse.offset", b"9"),
        ("GNU.sparse.numbytes", b"1"),
    ];
    let zero_one: &[(&str, &[u8])] = &[
        ("GNU.sparse.size", b"10"),
        ("GNU.sparse.numblocks", b"2"),
        ("GNU.sparse.map", b"0,5,9,1"),
        ("GNU.sparse.name", b"real"),
    ];
    for list in [zero_zero, zero_one] {
        let got = records(list).unwrap().sparse;
        assert_eq!(got.map_in_data(), Ok(Some(false)));
        assert_eq!((got.real_size(), &got.map[..]), (Ok(Some(10)), &two[..]));
    }
    let one =
        records(&[("GNU.sparse.major", b"1"), ("GNU.sparse.minor", b"0"), ("GNU.sparse.realsize", b"7")]);
    let one = one.unwrap().sparse;
    assert_eq!((one.map_in_data(), one.real_size()), (Ok(Some(true)), Ok(Some(7))));
    assert_eq!(records(&[]).unwrap().sparse.map_in_data(), Ok(None));
    // Go and GNU tar take this for a plain file too.
    assert_eq!(records(&[("GNU.sparse.realsize", b"7")]).unwrap().sparse.map_in_data(), Ok(None));
    let empty: &[(&str, &[u8])] =
        &[("GNU.sparse.major", b"0"), ("GNU.sparse.minor", b"1"), ("GNU.sparse.numblocks", b"0")];
    assert_eq!(records(empty).unwrap().sparse.map_in_data(), Ok(Some(false)));

    for bad in [
        &[("GNU.sparse.major", &b"2"[..]), ("GNU.sparse.minor", b"0")][..],
        &[("GNU.sparse.major", b"1")],
        &[("GNU.sparse.numblocks", b"3"), ("GNU.sparse.map", b"0,1")],
        &[("GNU.sparse.numblocks", b"1"), ("GNU.sparse.map", b"0,1,2")],
        &[("GNU.sparse.numblocks", b"1"), ("GNU.sparse.map", b"0,1,")],
        &[("GNU.sparse.numblocks", b"1"), ("GNU.sparse.map", b"0,-1")],
        &[("GNU.sparse.numblocks", b"1"), ("GNU.sparse.offset", b"0")],
        &[("GNU.sparse.numblocks", b"1"), ("GNU.sparse.numbytes", b"0")],
        &[("GNU.sparse.numblocks", b"1"), ("GNU.sparse.offset", b"0"), ("GNU.sparse.offset", b"1")],
    ] {
        assert!(records(bad).and_then(|r| r.sparse.map_in_data()).is_err(), "{bad:?}");
    }
    let limits = Limits { sparse_segments: 1, ..Limits::default() };
    let limit = Err(Flaw::limit("sparse map", 1));
    assert_eq!(
        parse(&rec("GNU.sparse.map", b"0,5,9,1"), &mut Records::default(), &limits, Scope::Local),
        limit
    );
}

/// GNU tar counts from `numblocks` on, Go needs it, and of two maps each takes another one.
#[test]
fn sparse_records_that_readers_differ_on() {
    let blocks = ("GNU.sparse.numblocks", &b"1"[..]);
    let map = ("GNU.sparse.map", &b"0,5"[..]);
    let pair = [("GNU.sparse.offset", &b"0"[..]), ("GNU.sparse.numbytes", b"5")];
    let one_zero = [("GNU.sparse.major", &b"1"[..]), ("GNU.sparse.minor", b"0")];
    let check = |list: &[_]| records(list).and_then(|r| r.sparse.map_in_data().and(r.sparse.real_size()));
    assert_eq!(check(&[blocks, map]), Ok(None));
    for bad in [
        &[map][..],
        &pair,
        &[map, blocks],
        &[blocks, map, blocks],
        &[blocks, pair[0], blocks, pair[1]],
        &[blocks, map, map],
        &[("GNU.sparse.numblocks", b"2"), map, pair[0], pair[1]],
        &[("GNU.sparse.numblocks", b"2"), pair[0], pair[1], map],
        &[blocks, map, one_zero[0], one_zero[1]],
        &[one_zero[0], one_zero[1], blocks, pair[0], pair[1]],
        &[("GNU.sparse.major", b"01"), one_zero[1]],
        &[one_zero[0], ("GNU.sparse.minor", b"00")],
        &[blocks, map, ("GNU.sparse.size", b"5"), ("GNU.sparse.realsize", b"6")],
    ] {
        assert!(check(bad).is_err(), "{bad:?}");
    }
}
