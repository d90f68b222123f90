//! Damaged and made-up archives: reading ends, in bounded memory and time, without a panic.

#![expect(clippy::unwrap_used, reason = "a panic is a failed test")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::{BufReader, Cursor, Read};

use layerstore_tar::{Entry, Error, Limits, Reader, Segment, Timestamp, Writer};
use proptest::collection::vec;
use proptest::prelude::*;

/// Knows how much memory the current thread holds and has held at most.
struct Counting;

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
    static COUNT: Cell<usize> = const { Cell::new(0) };
}

fn count(by: isize) {
    // Gone while the thread ends; nothing is measured then.
    let _ = HELD.try_with(|held| {
        held.set(held.get() + by);
        PEAK.with(|peak| peak.set(peak.get().max(held.get())));
        COUNT.with(|count| count.set(count.get() + usize::from(by > 0)));
    });
}

#[expect(unsafe_code, reason = "an allocator is an unsafe trait; this one leaves everything to the system's")]
// SAFETY: every call goes to `System` unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size().cast_signed());
        // SAFETY: the caller's promises are those `System` asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        count(-layout.size().cast_signed());
        // SAFETY: as above.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What `work` holds at its peak, beyond what was held before, in bytes; and how often it allocates.
fn measure<T>(work: impl FnOnce() -> T) -> (T, usize, usize) {
    let (before, count) = (HELD.get(), COUNT.get());
    PEAK.set(before);
    let result = work();
    (result, (PEAK.get() - before).cast_unsigned(), COUNT.get() - count)
}

/// Small, so that exceeding them shows.
const LIMITS: Limits = Limits {
    path: 300,
    link: 300,
    extension: 4096,
    xattr_bytes: 1024,
    xattrs: 8,
    sparse_segments: 64,
    extensions: 4,
};

/// Body of an extension header (twice while its buffer grows), its values for a local and a global header and
/// once more in the entry, the sparse map (again twice), and errors.
const MEMORY: usize = 6 * 4096 + 2 * 64 * size_of::<Segment>() + 4096;

/// Reads everything, returns the number of entries.
fn walk(archive: &[u8]) -> Result<usize, Error> {
    let mut reader = Reader::with_limits(archive, LIMITS);
    let mut entries = 0;
    while let Some(entry) = reader.next_entry()? {
        entries += 1;
        assert!(entry.path.len() <= LIMITS.path && entry.link.len() <= LIMITS.link);
        assert!(entry.xattrs.len() <= LIMITS.xattrs && entry.mode <= 0o7777);
        if let Some(segments) = &entry.sparse {
            assert!(segments.len() <= LIMITS.sparse_segments);
            assert_eq!(segments.iter().map(|s| s.len).sum::<u64>(), entry.archived_size);
            assert!(segments.iter().all(|s| s.len > 0 && s.offset + s.len <= entry.size));
            assert!(segments.windows(2).all(|w| w[0].offset + w[0].len <= w[1].offset));
        }
        let mut data = 0;
        loop {
            let len = reader.fill_data()?.len();
            if len == 0 {
                break;
            }
            data += len as u64;
            reader.consume_data(len);
        }
        assert_eq!(data, entry.archived_size);
        assert!(reader.position() <= archive.len() as u64);
    }
    Ok(entries)
}

/// Seeks instead; must come to the same end.
fn seek(archive: &[u8]) -> Result<usize, Error> {
    let mut reader = Reader::with_limits(BufReader::with_capacity(512, Cursor::new(archive)), LIMITS);
    let mut entries = 0;
    while reader.next_entry()?.is_some() {
        entries += 1;
        reader.seek_data()?;
    }
    Ok(entries)
}

fn samples() -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    let mut add = |entry: Entry, len: usize| writer.append(&entry, &vec![b'd'; len][..]).unwrap();
    let mut file = Entry::regular(&[b'p'; 150], 600);
    file.xattrs = vec![(b"user.x".to_vec(), b"value".to_vec()), (b"user.a=b".to_vec(), vec![0; 9])];
    file.mtime = Timestamp { seconds: -7, nanoseconds: 5 };
    (file.uid, file.uname) = (1 << 40, b"someone".to_vec());
    add(file, 600);
    add(Entry::directory(b"dir/"), 0);
    let mut sparse = Entry::regular(b"sparse", 90_000);
    sparse.sparse = Some((0..60).map(|i| Segment { offset: i * 1000, len: 10 }).collect());
    add(sparse, 600);
    add(Entry::symlink(b"link", &[b't'; 200]), 0);
    add(Entry::char_device(b"null", 1, u32::MAX), 0);
    let ours = writer.finish().unwrap();

    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(5);
    builder.append_data(&mut header, "gnu/".repeat(40) + "name", &b"12345"[..]).unwrap();
    // An old GNU sparse file with an extension block.
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::GNUSparse);
    header.set_path("old").unwrap();
    header.set_size(512);
    let gnu = header.as_gnu_mut().unwrap();
    gnu.set_is_extended(true);
    gnu.set_real_size(4096);
    for (i, entry) in gnu.sparse.iter_mut().enumerate() {
        entry.offset = *format!("{:011o}\0", i * 512).as_bytes().first_chunk().unwrap();
        entry.numbytes = *b"00000000144\0";
    }
    header.set_cksum();
    let mut theirs = builder.into_inner().unwrap();
    theirs.truncate(theirs.len() - 1024);
    theirs.extend_from_slice(header.as_bytes());
    let mut extension = [0; 512];
    extension[..48].copy_from_slice(b"00000007000\x0000000000160\x0000000010000\x0000000000000\0");
    theirs.extend_from_slice(&extension);
    theirs.extend_from_slice(&[b's'; 512]);
    [theirs, ours].concat()
}

/// Makes every block a header with a right checksum that was meant to be one, so that damage goes deeper.
fn reseal(archive: &mut [u8]) {
    for block in archive.chunks_exact_mut(512) {
        if block[257..].starts_with(b"ustar") || block[148..156].ends_with(b"\0 ") {
            block[148..156].fill(b' ');
            let sum: u32 = block.iter().map(|&b| u32::from(b)).sum();
            block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
    }
}

fn check(archive: &[u8]) -> Result<(), TestCaseError> {
    let (walked, peak, _) = measure(|| walk(archive));
    prop_assert!(peak <= MEMORY, "held {peak} bytes of {MEMORY}");
    let sought = seek(archive);
    prop_assert_eq!(walked.as_ref().ok(), sought.as_ref().ok(), "{:?} {:?}", walked, sought);
    Ok(())
}

#[derive(Debug, Clone)]
enum Damage {
    Byte(usize, u8),
    Digit(usize, u8),
    Copy(usize, usize, usize),
    Remove(usize),
    Repeat(usize),
    Flag(usize, u8),
    Cut(usize),
}

fn damage() -> impl Strategy<Value = Damage> {
    use Damage::{Byte, Copy, Cut, Digit, Flag, Remove, Repeat};
    let at = any::<usize>();
    prop_oneof![
        4 => (at, any::<u8>()).prop_map(|(at, byte)| Byte(at, byte)),
        4 => (at, prop_oneof![b'0'..=b'9', Just(b','), Just(b'-'), Just(b'\n'), Just(b' '), Just(0)])
            .prop_map(|(at, byte)| Digit(at, byte)),
        2 => (at, at, 1..64usize).prop_map(|(from, to, len)| Copy(from, to, len)),
        1 => at.prop_map(Remove),
        1 => at.prop_map(Repeat),
        2 => (at, prop::sample::select(&b"\x0001234567xXgLKSDMV"[..])).prop_map(|(at, flag)| Flag(at, flag)),
        1 => at.prop_map(Cut),
    ]
}

fn apply(archive: &mut Vec<u8>, damage: &Damage) {
    let len = archive.len();
    if len < 1024 {
        return;
    }
    let block = |at: usize| at % (len / 512) * 512;
    match *damage {
        Damage::Byte(at, byte) => archive[at % len] = byte,
        Damage::Digit(at, byte) => {
            // Only where text or numbers are, that is outside of zeros.
            let places: Vec<usize> = (0..len).filter(|&i| archive[i].is_ascii_digit()).collect();
            if let Some(&place) = places.get(at % places.len().max(1)) {
                archive[place] = byte;
            }
        }
        Damage::Copy(from, to, n) => {
            let (from, to) = (from % (len - n), to % (len - n));
            archive.copy_within(from..from + n, to);
        }
        Damage::Remove(at) => drop(archive.drain(block(at)..block(at) + 512)),
        Damage::Repeat(at) => {
            let copy = archive[block(at)..block(at) + 512].to_vec();
            drop(archive.splice(block(at)..block(at), copy));
        }
        Damage::Flag(at, flag) => {
            let headers: Vec<usize> = (0..len / 512)
                .map(|i| i * 512)
                .filter(|&i| archive[i + 257..].starts_with(b"ustar"))
                .collect();
            if let Some(&header) = headers.get(at % headers.len().max(1)) {
                archive[header + 156] = flag;
            }
        }
        Damage::Cut(at) => archive.truncate(at % len),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn damaged_archives(list in vec(damage(), 1..6), seal in any::<bool>()) {
        let mut archive = samples();
        for damage in &list {
            apply(&mut archive, damage);
        }
        if seal {
            reseal(&mut archive);
        }
        check(&archive)?;
    }

    #[test]
    fn random_headers(blocks in vec((vec(any::<u8>(), 512), prop::sample::select(&b"\x00015xgLKSD"[..])), 1..6)) {
        let mut archive = Vec::new();
        for (mut block, flag) in blocks {
            block[156] = flag;
            block[124..136].copy_from_slice(b"00000001000\0");
            block[257..265].copy_from_slice(b"ustar  \0");
            archive.extend_from_slice(&block);
        }
        reseal(&mut archive);
        check(&archive)?;
    }
}

#[test]
fn the_samples_are_sound() {
    assert_eq!(walk(&samples()).unwrap(), 7);
    let mut resealed = samples();
    reseal(&mut resealed);
    assert_eq!(walk(&resealed).unwrap(), 7);
}

/// A stream without end, of which nothing may be kept.
#[test]
fn endless_streams() {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(tar::EntryType::XHeader);
    header.set_size(10 << 30);
    header.set_cksum();
    let stream = header.as_bytes().chain(std::io::repeat(b'1'));
    let mut reader = Reader::new(BufReader::new(stream));
    let (result, peak, _) = measure(|| reader.next_entry());
    assert!(matches!(result, Err(Error::Limit { limit: 1_048_576, .. })), "{result:?}");
    assert!(peak < 1000, "{peak}");

    // Headers that never come to an entry.
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(tar::EntryType::XGlobalHeader);
    header.set_size(0);
    header.set_cksum();
    let stream = header.as_bytes().repeat(1000);
    assert!(matches!(Reader::new(&stream[..]).next_entry(), Err(Error::Limit { limit: 16, .. })));
}

/// Nothing is allocated but what is returned, and data is not copied.
#[test]
fn allocations_of_plain_entries() {
    let mut writer = Writer::new(Vec::new());
    for i in 0..1000 {
        writer.append(&Entry::regular(format!("dir/file-{i}").as_bytes(), 1000), &[1; 1000][..]).unwrap();
    }
    let archive = writer.finish().unwrap();
    let mut reader = Reader::new(&archive[..]);
    reader.next_entry().unwrap();
    let ((), _, count) = measure(|| {
        while reader.next_entry().unwrap().is_some() {
            let position = usize::try_from(reader.position()).unwrap();
            assert!(std::ptr::eq(reader.fill_data().unwrap().as_ptr(), &raw const archive[position]));
        }
    });
    // The path, and once the reader's own copy of a longer one.
    assert!((999..=1005).contains(&count), "{count}");
}
