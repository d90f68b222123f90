//! Any bytes as an archive: bounded memory, the same however the bytes arrive, and what is written is read back.
#![no_main]

use std::io::{BufReader, Cursor};

use layerstore_fuzz::memory::bounded;
use layerstore_fuzz::{Item, mutate, read_all};
use layerstore_tar::{EntryKind, Error, Reader, Writer};
use libfuzzer_sys::{fuzz_mutator, fuzz_target};

fuzz_target!(|archive: &[u8]| {
    let (items, result) = bounded(64 * archive.len() + (64 << 10), || read_all(&mut Reader::new(archive)));

    // A few bytes at a time.
    let (pieces, in_pieces) = read_all(&mut Reader::new(BufReader::with_capacity(7, archive)));
    assert_eq!(items, pieces);
    assert_eq!(format!("{result:?}"), format!("{in_pieces:?}"));

    // Over the data rather than through it.
    let mut reader = Reader::new(Cursor::new(archive));
    let mut skipped = Vec::new();
    let at_end = loop {
        match reader.next_entry() {
            Ok(Some(entry)) => match reader.seek_data() {
                Ok(()) => skipped.push(entry),
                Err(error) => break Err(error),
            },
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    assert!(skipped.iter().eq(items.iter().map(|item| &item.entry)));
    assert_eq!(result.is_ok(), at_end.is_ok(), "{result:?}, {at_end:?}");

    for item in items {
        let Some(written) = write(&item) else { continue };
        let (again, result) = read_all(&mut Reader::new(&written[..]));
        result.expect("what was written is valid");
        assert_eq!(again, [expected(item)]);
    }
});

fn write(Item { entry, data }: &Item) -> Option<Vec<u8>> {
    let mut writer = Writer::new(Vec::new());
    match writer.append(entry, data.as_slice()) {
        Ok(()) => Some(writer.finish().expect("a vector takes everything")),
        // No tool can name these.
        Err(Error::Invalid { field: "path" | "typeflag", .. }) => None,
        // A dump directory's list has no place in other formats.
        Err(Error::Invalid { field: "data", .. }) if entry.kind == EntryKind::Directory => None,
        Err(error) => panic!("{error}: {entry:?}"),
    }
}

/// What comes back of an entry.
fn expected(mut item: Item) -> Item {
    if item.entry.kind == EntryKind::Directory {
        item.entry.archived_size = 0;
        item.data.clear();
    }
    item
}

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    mutate::archive(data, size, max_size, seed)
});
