//! Mutations that know tar: blind ones end at the checksum of the first header.

use std::ops::Range;

use layerstore_tar::{Reader, Writer};
use libfuzzer_sys::fuzzer_mutate;

use crate::{Item, read_all};

const BLOCK: usize = 512;
const SIZE: Range<usize> = 124..136;
const CHECKSUM: Range<usize> = 148..156;
const TYPE: usize = 156;

/// Changes the archive in the first `size` bytes of `data`; returns its new size, at most `max_size`.
pub fn archive(data: &mut [u8], size: usize, max_size: usize, seed: u32) -> usize {
    // What is compressed, or wrong everywhere, is as good as any bytes.
    match seed % 8 {
        0 => fuzzer_mutate(data, size, max_size),
        1..=3 => {
            let size = fuzzer_mutate(data, size, max_size);
            seal(&mut data[..size]);
            size
        }
        _ => member(data, size, max_size, seed / 8).unwrap_or_else(|| {
            let size = fuzzer_mutate(data, size, max_size);
            seal(&mut data[..size]);
            size
        }),
    }
}

/// Changes, repeats, moves or drops one entry and writes the archive again.
fn member(data: &mut [u8], size: usize, max_size: usize, seed: u32) -> Option<usize> {
    let (mut items, _) = read_all(&mut Reader::new(&data[..size]));
    if items.is_empty() {
        return None;
    }
    let choice = seed as usize / 8;
    let (at, other) = (choice % items.len(), choice / 7 % items.len());
    match seed % 8 {
        0 => drop(items.remove(at)),
        1 => items.insert(other, items[at].clone()),
        2 => items.swap(at, other),
        3 => change(&mut items[at].entry.path),
        4 => change(&mut items[at].entry.link),
        _ => {
            let Item { entry, data } = &mut items[at];
            change(data);
            entry.size = data.len() as u64;
            entry.archived_size = entry.size;
            entry.sparse = None;
        }
    }
    let mut writer = Writer::new(Vec::new());
    for Item { entry, data } in &items {
        writer.append(entry, data.as_slice()).ok()?;
    }
    let archive = writer.finish().ok()?;
    (archive.len() <= max_size).then(|| {
        data[..archive.len()].copy_from_slice(&archive);
        archive.len()
    })
}

fn change(bytes: &mut Vec<u8>) {
    let size = bytes.len();
    let room = size * 2 + 64;
    bytes.resize(room, 0);
    let size = fuzzer_mutate(bytes, size, room);
    bytes.truncate(size);
}

/// Gives every header the checksum that its bytes have.
fn seal(archive: &mut [u8]) {
    let mut at = 0;
    while let Some(block) = archive.get_mut(at..at + BLOCK) {
        at += BLOCK;
        if block.iter().all(|byte| *byte == 0) {
            continue;
        }
        block[CHECKSUM].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[CHECKSUM].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        if !matches!(block[TYPE], b'1'..=b'6') {
            let digits = block[SIZE].iter().filter(|byte| (b'0'..=b'7').contains(*byte));
            let size = digits.fold(0usize, |size, digit| size << 3 | usize::from(digit - b'0'));
            at = at.saturating_add(size).checked_next_multiple_of(BLOCK).unwrap_or(usize::MAX - BLOCK);
        }
    }
}
