use std::io::{self, Read, Write};
use std::ops::Range;

use crate::encoding;
use crate::entry::{Entry, EntryKind, Segment, Timestamp};
use crate::error::{Error, Flaw};
use crate::header::{self, BLOCK, Block, padding};
use crate::sparse;

/// Writes an archive: ustar headers, and PAX records only for what those cannot say (long names, large numbers,
/// fractions of seconds, access and change times, extended attributes, sparse files as PAX 1.0).
///
/// Of a sparse file, all segments but the last should be a multiple of 512 bytes long, as those that file systems
/// report are: Go, Python and this crate read the others back, but GNU tar expects padding after them.
///
/// The same entries and data give the same bytes. An archive is complete only after [`finish`](Self::finish);
/// after an error it cannot be completed.
#[derive(Debug)]
#[must_use = "an archive is complete only after `finish`"]
pub struct Writer<W> {
    inner: W,
    /// Bytes written.
    offset: u64,
    /// Data of the current entry that is still to come, and the padding after it.
    remaining: u64,
    padding: u64,
    path: Vec<u8>,
    records: Vec<u8>,
}

impl<W: Write> Writer<W> {
    /// Writes to `inner`, in pieces of at least 512 bytes except for data; nothing is buffered.
    pub fn new(inner: W) -> Self {
        Self { inner, offset: 0, remaining: 0, padding: 0, path: Vec::new(), records: Vec::new() }
    }

    /// Writes one entry with its data: `entry.size` bytes for a regular file, those of its segments for a
    /// sparse one, `entry.archived_size` for an unknown type. Of the other kinds, `data` is not read.
    pub fn append(&mut self, entry: &Entry, data: impl Read) -> Result<(), Error> {
        self.append_entry(entry)?;
        let at = self.offset;
        // One byte more than fits, so that too much is noticed.
        let mut data = data.take(self.remaining.saturating_add(u64::from(self.remaining > 0)));
        let mut buffer = [0; 16 * 1024];
        while data.limit() > 0 {
            match data.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => self.write_data(&buffer[..n])?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(Error::Io { offset: at, source }),
            }
        }
        self.finish_entry()
    }

    /// Writes the headers of an entry, after finishing the one before. Its data follows with
    /// [`write_data`](Self::write_data).
    pub fn append_entry(&mut self, entry: &Entry) -> Result<(), Error> {
        self.finish_entry()?;
        self.path.clear();
        self.path.extend_from_slice(&entry.path);
        let at = self.offset;
        let mut records = std::mem::take(&mut self.records);
        records.clear();
        let prepared = prepare(entry, &mut records).map_err(|flaw| flaw.at(&entry.path, at))?;
        if !records.is_empty() {
            let name = placeholder(b"PaxHeaders.0/", &entry.path);
            let mut block = [0; BLOCK];
            block[header::NAME][..name.len()].copy_from_slice(&name);
            fill_numbers(&mut block, &[(header::MODE, 0o644), (header::SIZE, records.len() as u64)]);
            fill_numbers(&mut block, &[(header::UID, 0), (header::GID, 0), (header::MTIME, 0)]);
            block[header::TYPE] = b'x';
            seal(&mut block);
            self.write(&block)?;
            self.write(&records)?;
            self.write_zeros(padding(records.len() as u64))?;
        }
        self.records = records;
        self.write(&prepared.block)?;
        self.write(&prepared.map)?;
        self.remaining = prepared.data;
        self.padding = padding(prepared.data);
        Ok(())
    }

    /// Writes the next bytes of the current entry's data; for a sparse file its segments, one after the other.
    pub fn write_data(&mut self, data: &[u8]) -> Result<(), Error> {
        let len = data.len() as u64;
        if len > self.remaining {
            return Err(Flaw::invalid("data", "longer than the entry says").at(&self.path, self.offset));
        }
        self.write(data)?;
        self.remaining -= len;
        Ok(())
    }

    /// Pads the current entry. Fails with [`Error::Truncated`] if data is missing.
    pub fn finish_entry(&mut self) -> Result<(), Error> {
        if self.remaining > 0 {
            let path = String::from_utf8_lossy(&self.path).into_owned();
            return Err(Error::Truncated { what: "data", path, offset: self.offset });
        }
        let padding = std::mem::take(&mut self.padding);
        self.write_zeros(padding)
    }

    /// Ends the archive with two blocks of zeros, flushes and returns the stream.
    pub fn finish(mut self) -> Result<W, Error> {
        self.finish_entry()?;
        self.write(&[0; 2 * BLOCK])?;
        let offset = self.offset;
        self.inner.flush().map_err(|source| Error::Io { offset, source })?;
        Ok(self.inner)
    }

    /// Bytes written so far.
    pub fn position(&self) -> u64 {
        self.offset
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let offset = self.offset;
        self.inner.write_all(bytes).map_err(|source| Error::Io { offset, source })?;
        self.offset += bytes.len() as u64;
        Ok(())
    }

    /// Less than a block.
    fn write_zeros(&mut self, len: u64) -> Result<(), Error> {
        self.write(&[0; BLOCK][..usize::try_from(len).unwrap_or(BLOCK)])
    }
}

struct Prepared {
    block: Block,
    /// Map of a sparse file with its padding.
    map: Vec<u8>,
    /// Data the caller has to write.
    data: u64,
}

/// Builds the header block, and `records` for what does not fit.
fn prepare(entry: &Entry, records: &mut Vec<u8>) -> Result<Prepared, Flaw> {
    if entry.path.is_empty() {
        return Err(Flaw::invalid("path", "empty"));
    }
    let mut block = [0; BLOCK];
    block[header::MAGIC].copy_from_slice(header::USTAR_MAGIC);
    block[header::TYPE] = match entry.kind {
        EntryKind::Regular => b'0',
        EntryKind::HardLink => b'1',
        EntryKind::Symlink => b'2',
        EntryKind::CharDevice => b'3',
        EntryKind::BlockDevice => b'4',
        EntryKind::Directory => b'5',
        EntryKind::Fifo => b'6',
        EntryKind::Other(0 | b'0'..=b'7' | b'x' | b'X' | b'g' | b'L' | b'K' | b'S' | b'D') => {
            return Err(Flaw::invalid("typeflag", "it means another kind of entry"));
        }
        EntryKind::Other(flag) => flag,
    };
    let (map, data) = match &entry.sparse {
        None => match entry.kind {
            EntryKind::Regular => (Vec::new(), entry.size),
            EntryKind::Other(_) => (Vec::new(), entry.archived_size),
            _ => (Vec::new(), 0),
        },
        Some(_) if entry.kind != EntryKind::Regular => {
            return Err(Flaw::invalid(sparse::FIELD, "on what is not a regular file"));
        }
        Some(segments) => {
            let data = segments.iter().map(|s| s.len).fold(0u64, u64::saturating_add);
            sparse::check(&mut segments.clone(), entry.size, data)?;
            (sparse_map(segments, entry.size), data)
        }
    };
    let size = data.checked_add(map.len() as u64).filter(|&size| i64::try_from(size).is_ok());
    let size = size.ok_or(Flaw::invalid("size", "too large"))?;
    if entry.kind == EntryKind::Regular && size > 0 && entry.path.ends_with(b"/") {
        return Err(Flaw::invalid("path", header::SLASH_AND_DATA));
    }
    if i64::try_from(entry.size).is_err() {
        return Err(Flaw::invalid("size", "too large"));
    }

    if entry.sparse.is_some() {
        record(records, b"GNU.sparse.major", b"1");
        record(records, b"GNU.sparse.minor", b"0");
        record(records, b"GNU.sparse.name", &entry.path);
        record(records, b"GNU.sparse.realsize", entry.size.to_string().as_bytes());
        no_nul("path", &entry.path)?;
        let name = placeholder(b"GNUSparseFile.0/", &entry.path);
        block[header::NAME][..name.len()].copy_from_slice(&name);
    } else if let Some((prefix, name)) = split_path(&entry.path) {
        no_nul("path", &entry.path)?;
        block[header::PREFIX][..prefix.len()].copy_from_slice(prefix);
        block[header::NAME][..name.len()].copy_from_slice(name);
    } else {
        text(&mut block, records, header::NAME, "path", &entry.path)?;
    }
    text(&mut block, records, header::LINK, "linkpath", &entry.link)?;
    // These two end in a NUL even if full.
    text(&mut block, records, header::UNAME.start..header::UNAME.end - 1, "uname", &entry.uname)?;
    text(&mut block, records, header::GNAME.start..header::GNAME.end - 1, "gname", &entry.gname)?;

    fill_numbers(&mut block, &[(header::MODE, u64::from(entry.mode & 0o7777))]);
    number(&mut block, records, header::SIZE, "size", size);
    number(&mut block, records, header::UID, "uid", entry.uid);
    number(&mut block, records, header::GID, "gid", entry.gid);
    number(&mut block, records, header::MAJOR, "SCHILY.devmajor", u64::from(entry.device.0));
    number(&mut block, records, header::MINOR, "SCHILY.devminor", u64::from(entry.device.1));

    let times = [("mtime", Some(entry.mtime)), ("atime", entry.atime), ("ctime", entry.ctime)];
    for (key, time) in times {
        let Some(time) = time else { continue };
        if time.nanoseconds > 999_999_999 {
            return Err(Flaw::invalid(key, "more than a second of nanoseconds"));
        }
        let seconds = u64::try_from(time.seconds).ok().filter(|&s| fits(s, &header::MTIME));
        if key == "mtime" {
            fill_numbers(&mut block, &[(header::MTIME, seconds.unwrap_or(0))]);
        }
        if key != "mtime" || seconds.is_none() || time.nanoseconds != 0 {
            record(records, key.as_bytes(), decimal_time(time).as_bytes());
        }
    }
    for (name, value) in &entry.xattrs {
        no_nul("extended attribute", name)?;
        if name.is_empty() {
            return Err(Flaw::invalid("extended attribute", "no name"));
        }
        if name.contains(&b'=') {
            // The first one ends a record's keyword, and only libarchive's spelling can escape it.
            let key = [b"LIBARCHIVE.xattr.", &encoding::percent_encode(name)[..]].concat();
            record(records, &key, &encoding::base64_encode(value));
        } else {
            record(records, &[b"SCHILY.xattr.", &name[..]].concat(), value);
        }
    }
    seal(&mut block);
    Ok(Prepared { block, map, data })
}

/// Prefix and name for a ustar header: whole if it fits, else split at a slash, which neither part holds.
fn split_path(path: &[u8]) -> Option<(&[u8], &[u8])> {
    if path.len() <= header::NAME.len() {
        return Some((b"", path));
    }
    let earliest = (path.len() - header::NAME.len() - 1).max(1);
    let slash = earliest + path.get(earliest..)?.iter().position(|&c| c == b'/')?;
    let (prefix, name) = (&path[..slash], &path[slash + 1..]);
    (prefix.len() <= header::PREFIX.len() && !name.is_empty()).then_some((prefix, name))
}

/// The name of a header or file that only readers without PAX show.
fn placeholder(folder: &[u8], path: &[u8]) -> Vec<u8> {
    let end = path.iter().rposition(|&c| c != b'/').map_or(0, |last| last + 1);
    let base = path[..end].rsplit(|&c| c == b'/' || c == 0).next().unwrap_or_default();
    let mut name = [folder, base].concat();
    name.truncate(header::NAME.len());
    name
}

/// The map in whole blocks. A hole at the end needs an empty segment after it, from which GNU tar takes the
/// file's size.
fn sparse_map(segments: &[Segment], size: u64) -> Vec<u8> {
    let end = segments.last().map_or(0, |last| last.offset + last.len);
    let tail = (end < size).then_some(Segment { offset: size, len: 0 });
    let mut map = format!("{}\n", segments.len() + usize::from(tail.is_some())).into_bytes();
    for segment in segments.iter().chain(&tail) {
        map.extend_from_slice(format!("{}\n{}\n", segment.offset, segment.len).as_bytes());
    }
    map.resize(map.len().next_multiple_of(BLOCK), 0);
    map
}

fn text(
    block: &mut Block,
    records: &mut Vec<u8>,
    field: Range<usize>,
    key: &'static str,
    value: &[u8],
) -> Result<(), Flaw> {
    no_nul(key, value)?;
    if value.len() <= field.len() {
        block[field][..value.len()].copy_from_slice(value);
    } else {
        record(records, key.as_bytes(), value);
    }
    Ok(())
}

fn no_nul(field: &'static str, value: &[u8]) -> Result<(), Flaw> {
    if value.contains(&0) { Err(Flaw::invalid(field, "has a NUL")) } else { Ok(()) }
}

/// Writes a number in octal, or 0 there and a record if it does not fit.
fn number(block: &mut Block, records: &mut Vec<u8>, field: Range<usize>, key: &str, value: u64) {
    let fits = fits(value, &field);
    fill_numbers(block, &[(field, if fits { value } else { 0 })]);
    if !fits {
        record(records, key.as_bytes(), value.to_string().as_bytes());
    }
}

/// One byte of the field is for the NUL at its end.
fn fits(value: u64, field: &Range<usize>) -> bool {
    value >> (3 * (field.len() - 1)) == 0
}

fn fill_numbers(block: &mut Block, numbers: &[(Range<usize>, u64)]) {
    for (field, value) in numbers {
        let mut value = *value;
        for digit in block[field.start..field.end - 1].iter_mut().rev() {
            *digit = b'0' + (value & 7) as u8;
            value >>= 3;
        }
    }
}

fn seal(block: &mut Block) {
    block[header::MAGIC].copy_from_slice(header::USTAR_MAGIC);
    let sum = header::checksum(block);
    // Six digits, a NUL and a space: the one field that ends like that.
    let field = header::CHECKSUM.start..header::CHECKSUM.end - 1;
    block[header::CHECKSUM.end - 1] = b' ';
    fill_numbers(block, &[(field, u64::from(sum))]);
}

/// Adds `%d key=value\n`; the length counts its own digits.
fn record(records: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let digits = |n: usize| n.ilog10() as usize + 1;
    let mut len = rest + digits(rest);
    if digits(len) > digits(rest) {
        len += 1;
    }
    records.extend_from_slice(len.to_string().as_bytes());
    for part in [b" ", key, b"=", value, b"\n"] {
        records.extend_from_slice(part);
    }
}

fn decimal_time(time: Timestamp) -> String {
    let (sign, whole, nanoseconds) = match (time.seconds, time.nanoseconds) {
        (0.., nanoseconds) => ("", time.seconds.unsigned_abs(), nanoseconds),
        (_, 0) => ("-", time.seconds.unsigned_abs(), 0),
        (_, nanoseconds) => ("-", (time.seconds + 1).unsigned_abs(), 1_000_000_000 - nanoseconds),
    };
    if nanoseconds == 0 {
        return format!("{sign}{whole}");
    }
    let fraction = format!("{nanoseconds:09}");
    format!("{sign}{whole}.{}", fraction.trim_end_matches('0'))
}

#[cfg(test)]
mod tests;
