//! The records of PAX extended headers.

use crate::encoding;
use crate::entry::{Segment, Timestamp, Xattr};
use crate::error::Flaw;
use crate::limits::Limits;
use crate::sparse;

/// What the records of a header say about one keyword.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum Field<T> {
    #[default]
    Unset,
    /// An empty value: neither a global record nor an earlier one counts. The header block's field does, as in
    /// Go and libarchive, although POSIX would delete that too: there is nothing else to take.
    Deleted,
    Set(T),
}

impl<T: Clone> Field<T> {
    /// The value of a local record, else that of a global one.
    pub(crate) fn or(self, global: &Self) -> Option<T> {
        match (self, global) {
            (Self::Set(value), _) => Some(value),
            (Self::Unset, Self::Set(value)) => Some(value.clone()),
            _ => None,
        }
    }

    fn set(
        &mut self,
        value: &[u8],
        parse: impl FnOnce(&[u8]) -> Result<T, &'static str>,
    ) -> Result<(), &'static str> {
        *self = if value.is_empty() { Self::Deleted } else { Self::Set(parse(value)?) };
        Ok(())
    }
}

/// The records of a local header, or of all global ones so far.
#[derive(Debug, Default)]
pub(crate) struct Records {
    pub(crate) path: Field<Vec<u8>>,
    pub(crate) link: Field<Vec<u8>>,
    pub(crate) uname: Field<Vec<u8>>,
    pub(crate) gname: Field<Vec<u8>>,
    pub(crate) size: Field<u64>,
    pub(crate) uid: Field<u64>,
    pub(crate) gid: Field<u64>,
    pub(crate) mtime: Field<Timestamp>,
    pub(crate) atime: Field<Timestamp>,
    pub(crate) ctime: Field<Timestamp>,
    pub(crate) major: Field<u32>,
    pub(crate) minor: Field<u32>,
    pub(crate) xattrs: Xattrs,
    pub(crate) sparse: Sparse,
}

/// Extended attributes in both spellings. bsdtar writes each twice; the `SCHILY` one, which is all that
/// container engines know, wins.
#[derive(Debug, Default)]
pub(crate) struct Xattrs {
    pub(crate) schily: Vec<Xattr>,
    pub(crate) libarchive: Vec<Xattr>,
    bytes: usize,
}

/// The `GNU.sparse.` records.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Sparse {
    major: Option<u64>,
    minor: Option<u64>,
    pub(crate) name: Option<Vec<u8>>,
    size: Option<u64>,
    real_size: Option<u64>,
    blocks: Option<u64>,
    /// The offset of a segment whose length is the next record.
    offset: Option<u64>,
    pub(crate) map: Vec<Segment>,
    /// Whether the map is that of version 0.1.
    in_one: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    Local,
    Global,
}

impl Sparse {
    /// Whether the file is sparse, and then whether its map is in the data (version 1.0).
    pub(crate) fn map_in_data(&self) -> Result<Option<bool>, Flaw> {
        match (self.major, self.minor) {
            (Some(1), Some(0)) if self.map.is_empty() && self.offset.is_none() => Ok(Some(true)),
            (Some(1), Some(0)) => {
                Err(Flaw::invalid("GNU.sparse.map", "in version 1.0, which has it in the data"))
            }
            (Some(0), Some(0 | 1)) => self.complete().map(|()| Some(false)),
            // Versions 0.0 and 0.1 need not say which they are.
            (None, None) if self.map.is_empty() && self.offset.is_none() => Ok(None),
            (None, None) => self.complete().map(|()| Some(false)),
            _ => Err(Flaw::invalid("GNU.sparse.major", "unknown version of sparse files")),
        }
    }

    fn complete(&self) -> Result<(), Flaw> {
        if self.offset.is_some() {
            return Err(Flaw::invalid("GNU.sparse.offset", "no GNU.sparse.numbytes follows"));
        }
        // Go and GNU tar cannot do without it.
        if self.blocks != Some(self.map.len() as u64) {
            return Err(Flaw::invalid(
                "GNU.sparse.numblocks",
                "another number of segments follows, or it is missing",
            ));
        }
        Ok(())
    }

    /// Size of the file with its holes.
    pub(crate) fn real_size(&self) -> Result<Option<u64>, Flaw> {
        match (self.size, self.real_size) {
            (Some(size), Some(other)) if size != other => {
                Err(Flaw::invalid("GNU.sparse.size", "another one than GNU.sparse.realsize"))
            }
            (size, other) => Ok(size.or(other)),
        }
    }
}

/// Adds the records of one extended header to `records`; later ones replace earlier ones.
pub(crate) fn parse(body: &[u8], records: &mut Records, limits: &Limits, scope: Scope) -> Result<(), Flaw> {
    let mut rest = body;
    let mut xattrs = 0;
    while !rest.is_empty() {
        let Record { key, value, rest: after } =
            record(rest).map_err(|reason| Flaw::invalid("PAX record", reason))?;
        rest = after;
        if let Some(name) = key.strip_prefix(b"GNU.sparse.") {
            if scope == Scope::Global {
                return Err(Flaw::invalid("GNU.sparse", "in a global header"));
            }
            records.sparse.set(name, value, limits)?;
        } else if key.starts_with(b"SCHILY.xattr.") || key.starts_with(b"LIBARCHIVE.xattr.") {
            // Counted before repeated names replace each other, which bounds the comparisons too.
            xattrs += 1;
            if xattrs > limits.xattrs {
                return Err(Flaw::limit("number of extended attributes", limits.xattrs));
            }
            records.xattrs.set(key, value, limits)?;
        } else {
            records.set(key, value, scope)?;
        }
    }
    Ok(())
}

struct Record<'a> {
    key: &'a [u8],
    value: &'a [u8],
    rest: &'a [u8],
}

/// Splits `%d key=value\n` off, where the number is the length of all that.
fn record(text: &[u8]) -> Result<Record<'_>, &'static str> {
    let space = text.iter().position(|&c| c == b' ').ok_or("no space after the length")?;
    let len = decimal(&text[..space])?;
    let len = usize::try_from(len).ok().filter(|&len| len <= text.len()).ok_or("length past the end")?;
    let (record, rest) = text.split_at(len);
    let body = record.get(space + 1..).and_then(|r| r.strip_suffix(b"\n")).ok_or("no newline at its end")?;
    let equals = body.iter().position(|&c| c == b'=').ok_or("no equals sign")?;
    if equals == 0 || body[..equals].contains(&0) {
        return Err("bad keyword");
    }
    Ok(Record { key: &body[..equals], value: &body[equals + 1..], rest })
}

impl Records {
    fn set(&mut self, key: &[u8], value: &[u8], scope: Scope) -> Result<(), Flaw> {
        let (field, result) = match key {
            b"path" => ("path", self.path.set(value, string)),
            b"linkpath" => ("linkpath", self.link.set(value, string)),
            b"uname" => ("uname", self.uname.set(value, string)),
            b"gname" => ("gname", self.gname.set(value, string)),
            b"size" if scope == Scope::Global => ("size", Err("in a global header")),
            b"size" => ("size", self.size.set(value, decimal)),
            b"uid" => ("uid", self.uid.set(value, decimal)),
            b"gid" => ("gid", self.gid.set(value, decimal)),
            b"mtime" => ("mtime", self.mtime.set(value, timestamp)),
            b"atime" => ("atime", self.atime.set(value, timestamp)),
            b"ctime" => ("ctime", self.ctime.set(value, timestamp)),
            b"SCHILY.devmajor" => ("SCHILY.devmajor", self.major.set(value, device)),
            b"SCHILY.devminor" => ("SCHILY.devminor", self.minor.set(value, device)),
            _ => return Ok(()),
        };
        result.map_err(|reason| Flaw::invalid(field, reason))
    }
}

impl Xattrs {
    fn set(&mut self, key: &[u8], value: &[u8], limits: &Limits) -> Result<(), Flaw> {
        let (name, value, list) = if let Some(name) = key.strip_prefix(b"LIBARCHIVE.xattr.") {
            let bad = |reason| Flaw::invalid("LIBARCHIVE.xattr", reason);
            let name = encoding::percent_decode(name).ok_or(bad("name is not percent-encoded"))?;
            let value = encoding::base64_decode(value).ok_or(bad("value is not base64"))?;
            (name, value, &mut self.libarchive)
        } else {
            let name = key.strip_prefix(b"SCHILY.xattr.").unwrap_or_default();
            (name.to_vec(), value.to_vec(), &mut self.schily)
        };
        if name.is_empty() || name.contains(&0) {
            return Err(Flaw::invalid("extended attribute", "name is empty or has a NUL"));
        }
        self.bytes += name.len() + value.len();
        if let Some((_, old)) = list.iter_mut().find(|(n, _)| *n == name) {
            self.bytes -= name.len() + old.len();
            *old = value;
        } else {
            list.push((name, value));
        }
        self.check(limits)
    }

    fn check(&self, limits: &Limits) -> Result<(), Flaw> {
        if self.bytes > limits.xattr_bytes {
            return Err(Flaw::limit("size of extended attributes", limits.xattr_bytes));
        }
        // Both spellings of one attribute count once.
        if self.schily.len().max(self.libarchive.len()) > limits.xattrs {
            return Err(Flaw::limit("number of extended attributes", limits.xattrs));
        }
        Ok(())
    }

    /// The attributes of one entry: its own, then the global ones it does not override.
    pub(crate) fn or(self, global: &Self, limits: &Limits) -> Result<Vec<Xattr>, Flaw> {
        let mut all = self.schily;
        for (name, value) in self.libarchive {
            add(&mut all, name, || value);
        }
        for (name, value) in global.schily.iter().chain(&global.libarchive) {
            add(&mut all, name.clone(), || value.clone());
        }
        if all.len() > limits.xattrs {
            return Err(Flaw::limit("number of extended attributes", limits.xattrs));
        }
        if all.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>() > limits.xattr_bytes {
            return Err(Flaw::limit("size of extended attributes", limits.xattr_bytes));
        }
        Ok(all)
    }
}

fn add(all: &mut Vec<Xattr>, name: Vec<u8>, value: impl FnOnce() -> Vec<u8>) {
    if !all.iter().any(|(n, _)| *n == name) {
        all.push((name, value()));
    }
}

impl Sparse {
    fn set(&mut self, name: &[u8], value: &[u8], limits: &Limits) -> Result<(), Flaw> {
        let number = |field| decimal(value).map_err(|reason| Flaw::invalid(field, reason));
        match name {
            // As text: for Go, `01` is no version that it knows.
            b"major" | b"minor" if value.len() > 1 => {
                return Err(Flaw::invalid("GNU.sparse.major", "unknown version of sparse files"));
            }
            b"major" => self.major = Some(number("GNU.sparse.major")?),
            b"minor" => self.minor = Some(number("GNU.sparse.minor")?),
            b"size" => self.size = Some(number("GNU.sparse.size")?),
            b"realsize" => self.real_size = Some(number("GNU.sparse.realsize")?),
            // GNU tar begins the map anew at each of these.
            b"numblocks" if self.blocks.is_some() || self.offset.is_some() || !self.map.is_empty() => {
                return Err(Flaw::invalid("GNU.sparse.numblocks", "not once before the map"));
            }
            b"numblocks" => self.blocks = Some(number("GNU.sparse.numblocks")?),
            b"name" if value.is_empty() => self.name = None,
            b"name" => {
                self.name = Some(string(value).map_err(|reason| Flaw::invalid("GNU.sparse.name", reason))?);
            }
            // Version 0.0: these two by turns, once for each segment.
            b"offset" if self.in_one => return Err(Flaw::invalid("GNU.sparse.offset", "a second map")),
            b"offset" => {
                let before = self.offset.replace(number("GNU.sparse.offset")?);
                if before.is_some() {
                    return Err(Flaw::invalid("GNU.sparse.offset", "no GNU.sparse.numbytes between"));
                }
            }
            b"numbytes" => {
                let len = number("GNU.sparse.numbytes")?;
                let offset = self
                    .offset
                    .take()
                    .ok_or(Flaw::invalid("GNU.sparse.numbytes", "no GNU.sparse.offset before"))?;
                sparse::push(&mut self.map, Segment { offset, len }, limits.sparse_segments)?;
            }
            // Version 0.1: all in one. With both, Go takes 0.0 and others the last, or all.
            b"map" if self.offset.is_some() || !self.map.is_empty() => {
                return Err(Flaw::invalid("GNU.sparse.map", "a second map"));
            }
            b"map" => {
                self.in_one = true;
                let mut numbers = value.split(|&c| c == b',').filter(|_| !value.is_empty());
                while let Some(offset) = numbers.next() {
                    let bad = |reason| Flaw::invalid("GNU.sparse.map", reason);
                    let offset = decimal(offset).map_err(bad)?;
                    let len = numbers.next().ok_or(bad("an offset without a length"))?;
                    let len = decimal(len).map_err(bad)?;
                    sparse::push(&mut self.map, Segment { offset, len }, limits.sparse_segments)?;
                }
            }
            _ => {}
        }
        Ok(())
    }
}

fn string(value: &[u8]) -> Result<Vec<u8>, &'static str> {
    if value.contains(&0) { Err("has a NUL") } else { Ok(value.to_vec()) }
}

/// Digits alone, at most `i64::MAX`: no file offset is larger, and sums of two cannot overflow.
fn decimal(text: &[u8]) -> Result<u64, &'static str> {
    if text.is_empty() {
        return Err("not a decimal number");
    }
    let mut value: u64 = 0;
    for &c in text {
        if !c.is_ascii_digit() {
            return Err("not a decimal number");
        }
        value = value
            .checked_mul(10)
            .and_then(|value| value.checked_add(u64::from(c - b'0')))
            .filter(|&value| i64::try_from(value).is_ok())
            .ok_or("number too large")?;
    }
    Ok(value)
}

fn device(text: &[u8]) -> Result<u32, &'static str> {
    u32::try_from(decimal(text)?).map_err(|_| "number too large")
}

/// Decimal seconds with an optional minus and fraction; what is finer than a nanosecond is cut off.
fn timestamp(text: &[u8]) -> Result<Timestamp, &'static str> {
    let (whole, fraction) = match text.iter().position(|&c| c == b'.') {
        Some(dot) => (&text[..dot], &text[dot + 1..]),
        None => (text, &b""[..]),
    };
    let negative = whole.first() == Some(&b'-');
    let digits = &whole[usize::from(negative)..];
    if digits.is_empty() || !digits.iter().chain(fraction).all(u8::is_ascii_digit) {
        return Err("not a decimal number");
    }
    let too_large = "number too large";
    let seconds: i64 = str::from_utf8(whole).ok().and_then(|whole| whole.parse().ok()).ok_or(too_large)?;
    let digit = |i| fraction.get(i).map_or(0, |&c: &u8| u32::from(c - b'0'));
    let nanoseconds = (0..9).fold(0, |sum, i| sum * 10 + digit(i));
    if negative && nanoseconds > 0 {
        let seconds = seconds.checked_sub(1).ok_or(too_large)?;
        return Ok(Timestamp { seconds, nanoseconds: 1_000_000_000 - nanoseconds });
    }
    Ok(Timestamp { seconds, nanoseconds })
}

#[cfg(test)]
mod tests;
