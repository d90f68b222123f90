//! Maps of sparse files.

use crate::entry::Segment;
use crate::error::Flaw;
use crate::header;

pub(crate) const FIELD: &str = "sparse map";

/// Adds one segment, as the archive has it: not checked, possibly empty.
pub(crate) fn push(map: &mut Vec<Segment>, segment: Segment, limit: usize) -> Result<(), Flaw> {
    if map.len() >= limit {
        return Err(Flaw::limit("sparse map", limit));
    }
    map.push(segment);
    Ok(())
}

/// Checks a complete map and drops its empty segments: writers end it with one at the file's size.
pub(crate) fn check(map: &mut Vec<Segment>, size: u64, archived: u64) -> Result<(), Flaw> {
    let bad = |reason| Err(Flaw::invalid(FIELD, reason));
    let mut end = 0;
    let mut total: u64 = 0;
    for segment in map.iter() {
        if segment.offset < end {
            return bad("segments overlap or are not sorted");
        }
        end = match segment.offset.checked_add(segment.len) {
            Some(end) if end <= size => end,
            _ => return bad("a segment ends past the end of the file"),
        };
        // Segments do not overlap, so their sum is at most `size`.
        total += segment.len;
    }
    if total != archived {
        return bad("segments add up to another length than the archived data");
    }
    map.retain(|segment| segment.len > 0);
    Ok(())
}

/// Adds the entries of an old GNU map: pairs of 12-byte numbers, ended by one that is not there.
pub(crate) fn push_gnu(map: &mut Vec<Segment>, entries: &[u8], limit: usize) -> Result<(), Flaw> {
    for entry in entries.chunks_exact(24) {
        if entry[0] == 0 {
            break;
        }
        let number = |field| {
            header::numeric(field)
                .and_then(|n| u64::try_from(n).ok())
                .ok_or(Flaw::invalid(FIELD, "not a number that fits"))
        };
        push(map, Segment { offset: number(&entry[..12])?, len: number(&entry[12..])? }, limit)?;
    }
    Ok(())
}

/// Takes the decimal lines at the start of a PAX 1.0 file's data: the number of segments, then offset and
/// length of each.
#[derive(Default)]
pub(crate) struct MapLines {
    value: u64,
    digits: u8,
    /// Numbers still to come, once the first line said how many.
    left: Option<u64>,
    offset: Option<u64>,
    map: Vec<Segment>,
}

impl MapLines {
    /// Takes one block; `Some` is the complete map. The rest of its last block means nothing.
    pub(crate) fn take(&mut self, block: &[u8], limit: usize) -> Result<Option<Vec<Segment>>, Flaw> {
        for &c in block {
            match c {
                // 19 digits cannot overflow; no offset needs more.
                b'0'..=b'9' if self.digits < 19 => {
                    self.value = self.value * 10 + u64::from(c - b'0');
                    self.digits += 1;
                }
                b'\n' if self.digits > 0 => {
                    let value = std::mem::take(&mut self.value);
                    self.digits = 0;
                    self.line(value, limit)?;
                    if self.left == Some(0) {
                        return Ok(Some(std::mem::take(&mut self.map)));
                    }
                }
                _ => return Err(Flaw::invalid(FIELD, "not a list of decimal lines")),
            }
        }
        Ok(None)
    }

    fn line(&mut self, value: u64, limit: usize) -> Result<(), Flaw> {
        let Some(left) = &mut self.left else {
            if value > limit as u64 {
                return Err(Flaw::limit("sparse map", limit));
            }
            self.left = Some(2 * value);
            return Ok(());
        };
        *left -= 1;
        match self.offset.take() {
            None => self.offset = Some(value),
            Some(offset) => push(&mut self.map, Segment { offset, len: value }, limit)?,
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(u64, u64)]) -> Vec<Segment> {
        pairs.iter().map(|&(offset, len)| Segment { offset, len }).collect()
    }

    #[test]
    fn maps() {
        let mut good = map(&[(0, 0), (0, 5), (5, 5), (20, 1), (30, 0)]);
        check(&mut good, 30, 11).unwrap();
        assert_eq!(good, map(&[(0, 5), (5, 5), (20, 1)]));
        for (pairs, size, archived) in [
            (&[(0, 5), (4, 1)][..], 30, 6),
            (&[(10, 5), (0, 5)], 30, 10),
            (&[(10, 21)], 30, 21),
            (&[(u64::MAX, 1)], u64::MAX, 1),
            (&[(0, 5)], 30, 6),
            (&[], 30, 1),
        ] {
            assert!(check(&mut map(pairs), size, archived).is_err(), "{pairs:?}");
        }
    }

    #[test]
    fn lines_across_blocks() {
        let mut lines = MapLines::default();
        assert_eq!(lines.take(b"2\n0\n5\n1", 9).unwrap(), None);
        assert_eq!(lines.take(b"00\n7\n\0\0\0", 9).unwrap(), Some(map(&[(0, 5), (100, 7)])));
        assert_eq!(MapLines::default().take(b"0\n\0", 9).unwrap(), Some(vec![]));
        for bad in [&b"\n"[..], b"1\n-1\n", b"x", b"\0", b"10\n", b"00000000000000000001\n", b"1 \n"] {
            assert!(MapLines::default().take(bad, 9).is_err(), "{}", bad.escape_ascii());
        }
    }
}
