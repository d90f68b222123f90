//! One header block of 512 bytes: where its fields are and how they are written.

use std::ops::Range;

use crate::error::Flaw;

pub(crate) const NOT_A_NUMBER: &str = "not an octal or base-256 number that fits";

pub(crate) const BLOCK: usize = 512;
pub(crate) type Block = [u8; BLOCK];

pub(crate) const NAME: Range<usize> = 0..100;
pub(crate) const MODE: Range<usize> = 100..108;
pub(crate) const UID: Range<usize> = 108..116;
pub(crate) const GID: Range<usize> = 116..124;
pub(crate) const SIZE: Range<usize> = 124..136;
pub(crate) const MTIME: Range<usize> = 136..148;
pub(crate) const CHECKSUM: Range<usize> = 148..156;
pub(crate) const TYPE: usize = 156;
pub(crate) const LINK: Range<usize> = 157..257;
pub(crate) const MAGIC: Range<usize> = 257..265;
pub(crate) const UNAME: Range<usize> = 265..297;
pub(crate) const GNAME: Range<usize> = 297..329;
pub(crate) const MAJOR: Range<usize> = 329..337;
pub(crate) const MINOR: Range<usize> = 337..345;
pub(crate) const PREFIX: Range<usize> = 345..500;

const STAR_PREFIX: Range<usize> = 345..476;
const STAR_ATIME: Range<usize> = 476..488;
const STAR_CTIME: Range<usize> = 488..500;
const STAR_TRAILER: Range<usize> = 508..512;

const GNU_ATIME: Range<usize> = 345..357;
const GNU_CTIME: Range<usize> = 357..369;
/// Four entries of the sparse map.
pub(crate) const GNU_SPARSE: Range<usize> = 386..482;
/// Not zero: a block with more of the map follows.
pub(crate) const GNU_SPARSE_MORE: usize = 482;
pub(crate) const GNU_REAL_SIZE: Range<usize> = 483..495;
/// The same for the blocks that follow: 21 entries.
pub(crate) const GNU_SPARSE_NEXT: Range<usize> = 0..504;
pub(crate) const GNU_SPARSE_NEXT_MORE: usize = 504;

/// GNU tar unpacks such a file as a directory, and then reads the data as further headers.
pub(crate) const SLASH_AND_DATA: &str = "a file with data whose name ends in a slash";

pub(crate) const USTAR_MAGIC: &[u8; 8] = b"ustar\x0000";
const GNU_MAGIC: &[u8; 8] = b"ustar  \0";

/// Which fields a block has beyond those of Unix version 7.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    V7,
    Ustar,
    Star,
    Gnu,
}

impl Format {
    pub(crate) fn of(block: &Block) -> Self {
        let magic = &block[MAGIC];
        if magic == GNU_MAGIC {
            Self::Gnu
        } else if !magic.starts_with(b"ustar\0") {
            Self::V7
        } else if &block[STAR_TRAILER] == b"tar\0" {
            Self::Star
        } else {
            Self::Ustar
        }
    }
}

/// Whether GNU tar takes a ustar header for one of star: it looks at the times instead of the trailer.
pub(crate) fn is_star_for_gnu(block: &Block) -> bool {
    let is_time = |field: &[u8]| matches!(field, [b'0'..=b'7', .., b' ']);
    block[STAR_PREFIX.end - 1] == 0 && is_time(&block[STAR_ATIME]) && is_time(&block[STAR_CTIME])
}

/// Refuses what is no number where the format has one, even if it means nothing for the type or a record says
/// otherwise: Go does, and GNU tar complains or looks for the next header, as it does after a negative size.
pub(crate) fn check_numbers(block: &Block, format: Format) -> Result<(), Flaw> {
    let v7 = [("mode", MODE), ("uid", UID), ("gid", GID), ("size", SIZE), ("mtime", MTIME)];
    let device = [("devmajor", MAJOR), ("devminor", MINOR)];
    let times = [("atime", STAR_ATIME), ("ctime", STAR_CTIME)];
    let (device, times) = match format {
        Format::V7 => (&device[..0], &times[..0]),
        // The times of GNU headers may be a prefix.
        Format::Ustar | Format::Gnu => (&device[..], &times[..0]),
        Format::Star => (&device[..], &times[..]),
    };
    for (field, range) in v7.iter().chain(device).chain(times) {
        match numeric(&block[range.clone()]) {
            None => return Err(Flaw::invalid(field, NOT_A_NUMBER)),
            Some(..0) if *range == SIZE => return Err(Flaw::invalid(field, "negative")),
            Some(_) => {}
        }
    }
    Ok(())
}

/// What stands before the name, without the slash between.
pub(crate) fn prefix(block: &Block, format: Format) -> &[u8] {
    match format {
        Format::V7 => b"",
        Format::Ustar => text(&block[PREFIX]),
        Format::Star => text(&block[STAR_PREFIX]),
        // Go before 1.8 wrote a ustar prefix into GNU headers, where the times are, and Docker layers of that
        // age exist. Go reads them back with the same guess: what is no time is a prefix.
        Format::Gnu => match gnu_times(block) {
            Some(_) => b"",
            None => Some(text(&block[PREFIX])).filter(|prefix| prefix.is_ascii()).unwrap_or_default(),
        },
    }
}

/// Access and change time in seconds, where the format has them. They are optional, so what is no number
/// is taken as absent.
pub(crate) fn times(block: &Block, format: Format) -> (Option<i64>, Option<i64>) {
    match format {
        Format::V7 | Format::Ustar => (None, None),
        Format::Star => {
            (time(&block[STAR_ATIME]).unwrap_or_default(), time(&block[STAR_CTIME]).unwrap_or_default())
        }
        Format::Gnu => gnu_times(block).unwrap_or_default(),
    }
}

fn gnu_times(block: &Block) -> Option<(Option<i64>, Option<i64>)> {
    Some((time(&block[GNU_ATIME])?, time(&block[GNU_CTIME])?))
}

/// `None` if it is no number, `Some(None)` if it is not there.
#[expect(clippy::option_option, reason = "the two ways of having no time mean different things")]
fn time(field: &[u8]) -> Option<Option<i64>> {
    if field[0] == 0 { Some(None) } else { numeric(field).map(Some) }
}

/// A text field, which a NUL ends unless it is full.
pub(crate) fn text(field: &[u8]) -> &[u8] {
    let end = field.iter().position(|&c| c == 0).unwrap_or(field.len());
    &field[..end]
}

/// A number in octal, or in base-256 where the first byte's top bit is set (two's complement, big endian).
/// `None` if it is neither or does not fit.
pub(crate) fn numeric(field: &[u8]) -> Option<i64> {
    match field.first() {
        Some(&first) if first & 0x80 != 0 => base256(field, first),
        _ => octal(field),
    }
}

fn base256(field: &[u8], first: u8) -> Option<i64> {
    let negative = first & 0x40 != 0;
    // -a - 1 is !a, so that a negative number is read as the inverse of a positive one.
    let invert = if negative { 0xff } else { 0 };
    let mut value = i64::from((first ^ invert) & 0x7f);
    for &byte in &field[1..] {
        if value >> 55 != 0 {
            return None;
        }
        value = value << 8 | i64::from(byte ^ invert);
    }
    Some(if negative { !value } else { value })
}

/// Spaces may stand before the digits, and spaces or a NUL after them; a field without digits is 0. A NUL before
/// digits is not skipped as Go does: GNU tar and Python stop there.
fn octal(field: &[u8]) -> Option<i64> {
    let start = field.iter().position(|&c| c != b' ').unwrap_or(field.len());
    if field.get(start) == Some(&0) {
        return field[start..].iter().all(|&c| c == b' ' || c == 0).then_some(0);
    }
    let mut value: i64 = 0;
    let mut rest = field[start..].iter();
    for &c in rest.by_ref() {
        match c {
            b'0'..=b'7' if value >> 60 == 0 => value = value << 3 | i64::from(c - b'0'),
            0 => return Some(value),
            b' ' => return rest.all(|&c| c == b' ' || c == 0).then_some(value),
            _ => return None,
        }
    }
    Some(value)
}

/// Bytes from the end of `size` bytes of data to the next block.
pub(crate) fn padding(size: u64) -> u64 {
    size.wrapping_neg() % BLOCK as u64
}

/// Whether the block's checksum is that of its bytes. Historic writers summed signed bytes.
pub(crate) fn checksum_matches(block: &Block) -> bool {
    octal(&block[CHECKSUM])
        .is_some_and(|stored| stored == i64::from(checksum(block)) || stored == signed_checksum(block))
}

/// The sum of all bytes, those of the checksum field counted as spaces.
pub(crate) fn checksum(block: &Block) -> u32 {
    let sum = |bytes: &[u8]| bytes.iter().map(|&b| u32::from(b)).sum::<u32>();
    sum(block) - sum(&block[CHECKSUM]) + 8 * u32::from(b' ')
}

fn signed_checksum(block: &Block) -> i64 {
    let sum = |bytes: &[u8]| bytes.iter().map(|&b| i64::from(b.cast_signed())).sum::<i64>();
    sum(block) - sum(&block[CHECKSUM]) + 8 * i64::from(b' ')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        let table: &[(&[u8], Option<i64>)] = &[
            (b"0000644\0", Some(0o644)),
            (b"000644 \0", Some(0o644)),
            (b"   644 \0", Some(0o644)),
            (b"\0\0 644  ", None),
            (b"  \x00644\0 ", None),
            (b"\0 \0  \0 \0", Some(0)),
            (b"644\0junk", Some(0o644)),
            (b"77777777", Some(0o7777_7777)),
            (b"777777777777", Some(0o7777_7777_7777)),
            (b"\0\0\0\0\0\0\0\0", Some(0)),
            (b"        ", Some(0)),
            (b"", Some(0)),
            (b"0000648\0", None),
            (b"-000001\0", None),
            (b"0644 x \0", None),
            (b"6 44   \0", None),
            (b"7777777777777777777777777", None),
            (b"\x80\0\0\0\0\0\0\x01", Some(1)),
            (b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff", Some(i64::MAX)),
            (b"\x80\0\0\0\x80\0\0\0\0\0\0\0", None),
            (b"\x80\0\0\x01\0\0\0\0\0\0\0\0", None),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff", Some(-1)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfe", Some(-2)),
            (b"\xff\xff\xff\xff\x80\0\0\0\0\0\0\0", Some(i64::MIN)),
            (b"\xff\xff\xff\xff\x7f\xff\xff\xff\xff\xff\xff\xff", None),
            (b"\xbf\xff\xff\xff\xff\xff\xff\xff", Some(0x3fff_ffff_ffff_ffff)),
        ];
        for (field, value) in table {
            assert_eq!(numeric(field), *value, "{}", field.escape_ascii());
        }
    }

    #[test]
    fn both_checksums() {
        let mut block = [0; BLOCK];
        block[..3].copy_from_slice(b"\xc3\xa4x");
        for sum in [i64::from(checksum(&block)), signed_checksum(&block)] {
            block[CHECKSUM].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
            assert!(checksum_matches(&block));
        }
        assert_eq!(i64::from(checksum(&block)) - signed_checksum(&block), 512);
        block[5] = 1;
        assert!(!checksum_matches(&block));
    }

    #[test]
    fn texts() {
        assert_eq!(text(b"abc\0def"), b"abc");
        assert_eq!(text(b"abc"), b"abc");
        assert_eq!(text(b"\0abc"), b"");
    }
}
