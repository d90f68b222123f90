use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::{Limits, Reader};

type Edit = fn(&mut Entry);

fn written(entries: &[(Entry, Vec<u8>)]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for (entry, data) in entries {
        writer.append(entry, &data[..]).unwrap();
    }
    let position = writer.position();
    let archive = writer.finish().unwrap();
    assert_eq!(archive.len() as u64, position.next_multiple_of(512) + 1024);
    archive
}

fn read(archive: &[u8]) -> Vec<(Entry, Vec<u8>)> {
    let mut reader =
        Reader::with_limits(archive, Limits { path: 1 << 16, link: 1 << 16, ..Limits::default() });
    let mut entries = Vec::new();
    while let Some(entry) = reader.next_entry().unwrap() {
        let mut data = Vec::new();
        reader.data().read_to_end(&mut data).unwrap();
        entries.push((entry, data));
    }
    entries
}

fn type_flags(archive: &[u8]) -> Vec<u8> {
    // Small data only: every block with a magic is a header.
    archive.chunks(512).filter(|b| b[257..].starts_with(b"ustar")).map(|b| b[156]).collect()
}

#[test]
fn plain_ustar_where_it_fits() {
    let mut entry = Entry::regular(&[&[b'd'; 155][..], b"/", &[b'n'; 100]].concat(), 3);
    entry.mode = 0o4755;
    entry.uid = 0o777_7777;
    entry.uname = vec![b'u'; 31];
    entry.gname = "größe".into();
    entry.mtime.seconds = 0o777_7777_7777;
    let all = [
        (entry, b"abc".to_vec()),
        (Entry::directory(b"d/"), vec![]),
        (Entry::symlink("ü".as_bytes(), &[b'l'; 100]), vec![]),
        (Entry::hard_link(b"h", b"f"), vec![]),
        (Entry::char_device(b"null", 1, 3), vec![]),
        (Entry::block_device(b"sda", 8, 0o777_7777), vec![]),
        (Entry::fifo(b"pipe"), vec![]),
    ];
    let archive = written(&all);
    assert_eq!(type_flags(&archive), b"0521346");
    assert_eq!(read(&archive), all);
    assert_eq!(&archive[100..108], b"0004755\0");
    assert_eq!(&archive[124..136], b"00000000003\0");
    assert_eq!(&archive[154..156], b"\0 ");
}

#[test]
fn pax_for_the_rest() {
    let time = |seconds, nanoseconds| Timestamp { seconds, nanoseconds };
    let edits: &[(&str, Edit)] = &[
        ("path", |e| e.path = vec![b'p'; 101]),
        ("path", |e| e.path = [&[b'd'; 156][..], b"/n"].concat()),
        ("path", |e| e.path = [b"d/", &[b'n'; 101][..]].concat()),
        ("path", |e| e.path = [&[b'd'; 110][..], b"/"].concat()),
        ("path", |e| e.path = [b"/", &[b'n'; 100][..]].concat()),
        ("linkpath", |e| e.link = vec![b'l'; 101]),
        ("uid", |e| e.uid = 1 << 21),
        ("gid", |e| e.gid = u64::from(u32::MAX)),
        ("uname", |e| e.uname = vec![b'u'; 32]),
        ("gname", |e| e.gname = vec![b'g'; 99]),
        ("mtime", |e| e.mtime.nanoseconds = 1),
        ("mtime", |e| e.mtime.seconds = -1),
        ("mtime", |e| e.mtime.seconds = 1 << 33),
        ("atime", |e| e.atime = Some(Timestamp::default())),
        ("ctime", |e| e.ctime = Some(Timestamp { seconds: -5, nanoseconds: 500 })),
        ("SCHILY.xattr.user.x", |e| e.xattrs = vec![(b"user.x".into(), b"\0\n=".into())]),
        ("LIBARCHIVE.xattr.user.x%3D", |e| e.xattrs = vec![(b"user.x=".into(), b"v".into())]),
        ("SCHILY.devmajor", |e| (e.kind, e.device) = (EntryKind::CharDevice, (u32::MAX, 0))),
        ("SCHILY.devminor", |e| (e.kind, e.device) = (EntryKind::BlockDevice, (0, 1 << 21))),
    ];
    for (key, edit) in edits {
        let mut entry = Entry::regular(b"f", 0);
        edit(&mut entry);
        let archive = written(&[(entry.clone(), vec![])]);
        assert_eq!(type_flags(&archive)[0], b'x', "{key}");
        let record = format!(" {key}=");
        assert!(archive[512..1024].windows(record.len()).any(|w| w == record.as_bytes()), "{key}");
        assert_eq!(read(&archive), [(entry, vec![])], "{key}");
    }
    for (time, text) in [
        (time(-2, 750_000_000), "-1.25"),
        (time(-1, 500_000_000), "-0.5"),
        (time(-1, 0), "-1"),
        (time(0, 1), "0.000000001"),
        (time(i64::MIN, 0), "-9223372036854775808"),
        (time(i64::MIN, 999_999_999), "-9223372036854775807.000000001"),
    ] {
        assert_eq!(decimal_time(time), text);
    }
}

#[test]
fn sizes_past_eight_gigabytes() {
    let mut writer = Writer::new(Vec::new());
    writer.append_entry(&Entry::regular(b"f", 1 << 33)).unwrap();
    assert!(matches!(writer.finish_entry(), Err(Error::Truncated { .. })));
    let archive = writer.inner;
    assert_eq!(Reader::new(&archive[..]).next_entry().unwrap().unwrap().size, 1 << 33);
}

#[test]
fn record_lengths_count_themselves() {
    for len in (0..30).chain(85..105).chain(985..1005) {
        let mut text = Vec::new();
        record(&mut text, b"k", &vec![b'v'; len]);
        assert_eq!(text.split(|&c| c == b' ').next().unwrap(), text.len().to_string().as_bytes());
    }
}

#[test]
fn data_must_match_the_size() {
    let entry = Entry::regular(b"f", 3);
    for data in [&b""[..], b"ab", b"abcd"] {
        assert!(Writer::new(Vec::new()).append(&entry, data).is_err());
    }
    let mut writer = Writer::new(Vec::new());
    writer.append_entry(&entry).unwrap();
    writer.write_data(b"ab").unwrap();
    assert!(writer.write_data(b"cd").is_err());
    assert!(writer.append_entry(&entry).is_err());
    assert!(writer.finish().is_err());
}

#[test]
fn what_cannot_be_written() {
    let edits: &[Edit] = &[
        |e| e.path = vec![],
        |e| e.path = b"a\0".into(),
        |e| e.path = b"a/".into(),
        |e| e.path = [&[b'd'; 120][..], b"\0/n"].concat(),
        |e| e.link = b"\0".into(),
        |e| e.uname = b"a\0b".into(),
        |e| e.size = u64::MAX,
        |e| e.mtime.nanoseconds = 1_000_000_000,
        |e| e.xattrs = vec![(b"".into(), b"".into())],
        |e| e.xattrs = vec![(b"a\0".into(), b"".into())],
        |e| e.kind = EntryKind::Other(b'x'),
        |e| e.sparse = Some(vec![Segment { offset: 0, len: 4 }]),
        |e| e.sparse = Some(vec![Segment { offset: 2, len: 1 }, Segment { offset: 0, len: 1 }]),
        |e| (e.kind, e.sparse) = (EntryKind::Directory, Some(vec![])),
    ];
    for (i, edit) in edits.iter().enumerate() {
        let mut entry = Entry::regular(b"f", 3);
        edit(&mut entry);
        let mut writer = Writer::new(Vec::new());
        assert!(writer.append_entry(&entry).is_err(), "{i}");
        assert_eq!(writer.position(), 0, "{i}");
    }
}

fn name(max: usize) -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        vec(prop_oneof![Just(b'/'), b'a'..=b'c', 1..=255u8], 0..20),
        vec(prop_oneof![9 => Just(b'x'), 1 => Just(b'/')], 90..max),
    ]
}

fn timestamp() -> impl Strategy<Value = Timestamp> {
    let seconds = prop_oneof![0..2_000_000_000i64, any::<i64>(), -3..3i64];
    let nanoseconds = prop_oneof![Just(0), 0..1_000_000_000u32];
    (seconds, nanoseconds).prop_filter_map(
        "the record of i64::MIN has no number",
        |(seconds, nanoseconds)| {
            // "-9223372036854775808" is read as the negative of a number that does not fit.
            (seconds != i64::MIN || nanoseconds > 0).then_some(Timestamp { seconds, nanoseconds })
        },
    )
}

/// Segments with at least a byte between them, and the size of the file.
fn sparse() -> impl Strategy<Value = (Vec<Segment>, u64)> {
    (vec((1..5000u64, 1..700u64), 0..60), 0..9000u64).prop_map(|(gaps, tail)| {
        let mut end = 0;
        let mut segments = Vec::new();
        for (gap, len) in gaps {
            segments.push(Segment { offset: end + gap, len });
            end += gap + len;
        }
        (segments, end + tail)
    })
}

#[derive(Debug, Clone)]
enum Content {
    Plain(Vec<u8>),
    Sparse(Vec<Segment>, u64),
    Kind(EntryKind, Vec<u8>, (u32, u32)),
}

fn content() -> impl Strategy<Value = Content> {
    use EntryKind::{BlockDevice, CharDevice, Directory, Fifo, HardLink, Symlink};
    let kinds = prop_oneof![
        (prop_oneof![Just(HardLink), Just(Symlink)], name(300), Just((0, 0))),
        (prop_oneof![Just(Directory), Just(Fifo)], Just(vec![]), Just((0, 0))),
        (prop_oneof![Just(CharDevice), Just(BlockDevice)], Just(vec![]), any::<(u32, u32)>()),
    ];
    prop_oneof![
        vec(any::<u8>(), 0..1500).prop_map(Content::Plain),
        sparse().prop_map(|(segments, size)| Content::Sparse(segments, size)),
        kinds.prop_map(|(kind, link, device)| Content::Kind(kind, link, device)),
    ]
}

prop_compose! {
    fn entry()(
        path in name(400).prop_filter("cannot be written", |path| !path.is_empty()),
        content in content(),
        mode in 0..=0o7777u32,
        uid in prop_oneof![0..3000u64, 0..=i64::MAX as u64],
        gid in prop_oneof![0..3000u64, 0..=i64::MAX as u64],
        owners in (name(100), name(100)),
        mtime in timestamp(),
        atime in proptest::option::of(timestamp()),
        ctime in proptest::option::of(timestamp()),
        xattrs in proptest::collection::btree_map(
            vec(1..=255u8, 1..30), vec(any::<u8>(), 0..200), 0..4),
    ) -> (Entry, Vec<u8>) {
        let path = [&path[..], if path.ends_with(b"/") { b"f" } else { b"" }].concat();
        let mut entry = Entry::regular(&path, 0);
        let data = match content {
            Content::Plain(data) => {
                (entry.size, entry.archived_size) = (data.len() as u64, data.len() as u64);
                data
            }
            Content::Sparse(segments, size) => {
                entry.size = size;
                entry.archived_size = segments.iter().map(|s| s.len).sum();
                entry.sparse = Some(segments);
                (0..entry.archived_size).map(|i| i.to_le_bytes()[0]).collect()
            }
            Content::Kind(kind, link, device) => {
                (entry.kind, entry.link, entry.device) = (kind, link, device);
                vec![]
            }
        };
        (entry.uname, entry.gname) = owners;
        let mut libarchive = Vec::new();
        for (name, value) in xattrs {
            // They are read back after the others.
            if name.contains(&b'=') { &mut libarchive } else { &mut entry.xattrs }.push((name, value));
        }
        entry.xattrs.append(&mut libarchive);
        (Entry { mode, uid, gid, mtime, atime, ctime, ..entry }, data)
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_is_read_back(entries in vec(entry(), 0..5)) {
        let archive = written(&entries);
        prop_assert_eq!(&archive, &written(&entries));
        prop_assert_eq!(read(&archive), entries);
    }
}
