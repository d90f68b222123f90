//! From a member to bytes, in one of the many ways in which that can be done.

use super::{BLOCK, Format, Kind, Member, Time, extension, pad, record, seal};
use crate::rng::Rng;

const USTAR: &[u8; 8] = b"ustar\x0000";
const GNU: &[u8; 8] = b"ustar  \0";

/// Writes `member`, in `format` if that can hold it and else as PAX.
pub fn append(out: &mut Vec<u8>, member: &Member, format: Format, rng: &mut Rng) {
    let format = if fits(member, format) { format } else { Format::Pax };
    Encoder { out, member, format, rng, records: Vec::new(), map: Vec::new() }.write();
}

fn fits(member: &Member, format: Format) -> bool {
    let Member { uid, gid, mtime, device, .. } = member;
    let in_octal = |number: u64| number < 1 << 21;
    let numbers = in_octal(*uid) && in_octal(*gid) && (0..1 << 33).contains(&mtime.0);
    let devices = in_octal(device.0.into()) && in_octal(device.1.into());
    let path = member.archived_path();
    match format {
        Format::V7 => {
            let special = matches!(member.kind, Kind::CharDevice | Kind::BlockDevice | Kind::Fifo);
            numbers && !special && path.len() <= 100 && member.link.len() <= 100 && member.sparse.is_none()
        }
        Format::Ustar => {
            numbers
                && devices
                && member.sparse.is_none()
                && split(&path, 155).is_some()
                && member.link.len() <= 100
        }
        // star has a form of its own for sparse files.
        Format::Star => member.sparse.is_none(),
        Format::Pax | Format::Gnu => true,
    }
}

/// Prefix and name. Nothing is left of a slash at the start, and the name is never empty.
fn split(path: &[u8], prefix: usize) -> Option<(&[u8], &[u8])> {
    if path.len() <= 100 {
        return Some((b"", path));
    }
    let at = |&i: &usize| path[i] == b'/' && path.len() - i - 1 <= 100 && i + 1 < path.len();
    let slash = (1..path.len().min(prefix + 1)).find(at)?;
    Some((&path[..slash], &path[slash + 1..]))
}

impl Member {
    fn archived_path(&self) -> Vec<u8> {
        let slash = if self.kind == Kind::Directory { &b"/"[..] } else { b"" };
        [&self.path[..], slash].concat()
    }
}

struct Encoder<'a> {
    out: &'a mut Vec<u8>,
    member: &'a Member,
    format: Format,
    rng: &'a mut Rng,
    records: Vec<u8>,
    /// A sparse map between header and data.
    map: Vec<u8>,
}

impl Encoder<'_> {
    fn write(mut self) {
        let member = self.member;
        let mut block = [0; BLOCK];
        let has_data = member.kind == Kind::File;
        let sparse = member.sparse.clone();
        if let Some((size, segments)) = &sparse {
            self.sparse(&mut block, *size, segments);
        }
        let size = if has_data { member.data.len() + self.map_in_data() } else { 0 };
        self.path(&mut block);
        self.link(&mut block);
        self.number(&mut block, 100, 8, i64::from(member.mode), "");
        self.number(&mut block, 108, 8, member.uid.cast_signed(), "uid");
        self.number(&mut block, 116, 8, member.gid.cast_signed(), "gid");
        self.number(&mut block, 124, 12, i64::try_from(size).unwrap(), "size");
        self.time(&mut block);
        if self.format != Format::V7 {
            self.beyond_v7(&mut block);
        }
        block[156] = self.flag(&block);
        seal(&mut block);
        if !self.records.is_empty() {
            let flag = if self.rng.one_in(8) { b'X' } else { b'x' };
            self.out.extend(extension(flag, b"PaxHeaders.7/entry", USTAR, &self.records));
        }
        self.out.extend_from_slice(&block);
        self.out.extend_from_slice(&self.map);
        if has_data {
            self.out.extend_from_slice(&member.data);
            pad(self.out);
        }
    }

    fn pax(&self) -> bool {
        matches!(self.format, Format::Pax | Format::Star)
    }

    /// Of PAX 1.0, whose map the size counts.
    fn map_in_data(&self) -> usize {
        if self.pax() { self.map.len() } else { 0 }
    }

    fn record(&mut self, key: &str, value: &[u8]) {
        self.records.extend(record(key.as_bytes(), value));
    }

    fn flag(&mut self, block: &[u8]) -> u8 {
        match self.member.kind {
            Kind::File if block[156] == b'S' => b'S',
            Kind::File if self.format == Format::V7 => 0,
            // The start of a long name may end in a slash: a directory, says Python.
            Kind::File if block[99] == b'/' => b'0',
            Kind::File => *self.rng.pick(b"0000\x007"),
            Kind::HardLink => b'1',
            Kind::Symlink => b'2',
            Kind::CharDevice => b'3',
            Kind::BlockDevice => b'4',
            // Version 7 had no flag for it, only the slash, which a long name may hide from Python.
            Kind::Directory if self.format == Format::V7 && self.rng.one_in(2) => 0,
            Kind::Directory => b'5',
            Kind::Fifo => b'6',
        }
    }

    fn path(&mut self, block: &mut [u8]) {
        let mut path = self.member.archived_path();
        if self.member.kind == Kind::Directory && self.format != Format::V7 && self.rng.one_in(8) {
            path.pop();
        }
        let sparse_name = self.pax() && self.member.sparse.is_some() && self.rng.one_in(2);
        let prefix = if self.format == Format::Star { 130 } else { 155 };
        match split(&path, prefix) {
            _ if sparse_name => {
                self.record("GNU.sparse.name", &path);
                put(block, 0, b"GNUSparseFile.7/elsewhere");
            }
            // Not an empty value, which means something else.
            _ if self.pax() && !path.is_empty() && self.rng.one_in(3) => {
                self.record("path", &path);
                put(block, 0, b"elsewhere");
            }
            Some((b"", name)) => put(block, 0, name),
            Some((prefix, name)) if self.format != Format::Gnu => {
                put(block, 0, name);
                put(block, 345, prefix);
            }
            _ if self.format == Format::Gnu => {
                self.out.extend(extension(b'L', b"././@LongLink", GNU, &[&path[..], b"\0"].concat()));
                put(block, 0, &path[..100]);
            }
            _ => {
                self.record("path", &path);
                put(block, 0, &path[..100]);
            }
        }
    }

    fn link(&mut self, block: &mut [u8]) {
        let link = &self.member.link;
        match link.len() {
            0..=100 if self.pax() && !link.is_empty() && self.rng.one_in(4) => {
                self.record("linkpath", link);
                put(block, 157, b"elsewhere");
            }
            0..=100 => put(block, 157, link),
            _ if self.format == Format::Gnu => {
                self.out.extend(extension(b'K', b"././@LongLink", GNU, &[&link[..], b"\0"].concat()));
                put(block, 157, &link[..100]);
            }
            _ => {
                self.record("linkpath", link);
                put(block, 157, &link[..100]);
            }
        }
    }

    /// As text if that fits, and it does for what has no `key`.
    fn number(&mut self, block: &mut [u8], at: usize, width: usize, value: i64, key: &str) {
        let fits = value >= 0 && value >> (3 * (width - 1)) == 0;
        if self.pax() && !key.is_empty() && (!fits || self.rng.one_in(5)) {
            self.record(key, value.to_string().as_bytes());
            // What must be ignored.
            put(block, at, &b"0000777\0"[..]);
            return;
        }
        if !fits || (self.format == Format::Gnu && self.rng.one_in(6)) {
            let bytes = i128::from(value).to_be_bytes();
            block[at..at + width].copy_from_slice(&bytes[16 - width..]);
            block[at] = if value < 0 { 0xff } else { 0x80 };
            return;
        }
        let digits = width - 1;
        let text = match self.rng.below(5) {
            0 => format!("{value:0digits$o} "),
            1 if value >> (3 * (width - 2)) == 0 => format!("{value:>0$o} \0", digits - 1),
            2 => format!("{value:0width$o}"),
            _ => format!("{value:0digits$o}\0"),
        };
        put(block, at, text.as_bytes());
    }

    fn time(&mut self, block: &mut [u8]) {
        let (seconds, nanoseconds) = self.member.mtime;
        if !self.pax() || (nanoseconds == 0 && seconds >= 0 && !self.rng.one_in(4)) {
            return self.number(block, 136, 12, seconds, "mtime");
        }
        let text = decimal((seconds, nanoseconds), self.rng);
        self.record("mtime", text.as_bytes());
        put(block, 136, b"00000000001\0");
    }

    fn beyond_v7(&mut self, block: &mut [u8]) {
        let member = self.member;
        put(block, 257, if self.format == Format::Gnu { GNU } else { USTAR });
        let (uname, gname) = &member.names;
        for (at, key, name) in [(265, "uname", uname), (297, "gname", gname)] {
            if self.pax() && name.len() > 31 {
                self.record(key, name);
            } else {
                put(block, at, &name[..name.len().min(31)]);
            }
        }
        if matches!(member.kind, Kind::CharDevice | Kind::BlockDevice) || self.rng.one_in(2) {
            let (major, minor) = member.device;
            for (at, number, key) in [(329, major, "SCHILY.devmajor"), (337, minor, "SCHILY.devminor")] {
                // Python does not know these records.
                let key = if number < 1 << 21 { "" } else { key };
                self.number(block, at, 8, i64::from(number), key);
            }
        }
        if self.format == Format::Star {
            put(block, 508, b"tar\0");
        }
        if let Some(time) = member.atime {
            match self.format {
                Format::Pax => {
                    let text = decimal(time, self.rng);
                    self.record("atime", text.as_bytes());
                }
                Format::Gnu => self.number(block, 345, 12, time.0, ""),
                Format::Star => {
                    put(block, 476, format!("{:011o} ", time.0).as_bytes());
                    put(block, 488, format!("{:011o} ", time.0 + 1).as_bytes());
                }
                _ => {}
            }
        }
        if self.pax() {
            for (name, value) in &member.xattrs {
                let key = [b"SCHILY.xattr.", &name[..]].concat();
                self.records.extend(record(&key, value));
                // bsdtar writes both; this name and value are their own encoding.
                if value == b"Zm9v" {
                    let key = [b"LIBARCHIVE.xattr.", &name[..]].concat();
                    self.records.extend(record(&key, b"Wm05dg"));
                }
            }
            if self.rng.one_in(8) {
                let key = *self.rng.pick(&["comment", "VENDOR.thing", "LIBARCHIVE.creationtime"]);
                let value = *self.rng.pick(&[&b"1"[..], b"a=b", b"two\nlines", b""]);
                self.record(key, value);
            }
        }
    }

    fn sparse(&mut self, block: &mut [u8], size: u64, segments: &[(u64, u64)]) {
        // Writers end the map with an empty segment at the file's size, so that a hole there shows.
        let mut segments = segments.to_vec();
        segments.push((size, 0));
        if self.format == Format::Gnu {
            return self.gnu_sparse(block, size, &segments);
        }
        let list = |between: &str, after: &str| {
            let pairs = segments.iter().map(|(offset, len)| format!("{offset}{between}{len}{after}"));
            pairs.collect::<String>()
        };
        let count = segments.len().to_string();
        match self.rng.below(3) {
            0 => {
                self.record("GNU.sparse.size", size.to_string().as_bytes());
                self.record("GNU.sparse.numblocks", count.as_bytes());
                for (offset, len) in &segments {
                    self.record("GNU.sparse.offset", offset.to_string().as_bytes());
                    self.record("GNU.sparse.numbytes", len.to_string().as_bytes());
                }
            }
            1 => {
                self.record("GNU.sparse.size", size.to_string().as_bytes());
                self.record("GNU.sparse.numblocks", count.as_bytes());
                let map = list(",", ",");
                self.record("GNU.sparse.map", map.trim_end_matches(',').as_bytes());
            }
            _ => {
                self.record("GNU.sparse.major", b"1");
                self.record("GNU.sparse.minor", b"0");
                self.record("GNU.sparse.realsize", size.to_string().as_bytes());
                self.map = format!("{count}\n{}", list("\n", "\n")).into_bytes();
                pad(&mut self.map);
            }
        }
    }

    fn gnu_sparse(&mut self, block: &mut [u8], size: u64, segments: &[(u64, u64)]) {
        block[156] = b'S';
        put(block, 483, format!("{size:011o}\0").as_bytes());
        let text = |(offset, len): &(u64, u64)| format!("{offset:011o}\0{len:011o}\0").into_bytes();
        let (first, rest) = segments.split_at(segments.len().min(4));
        put(block, 386, &first.iter().flat_map(text).collect::<Vec<_>>());
        block[482] = u8::from(!rest.is_empty());
        let count = rest.chunks(21).count();
        for (i, part) in rest.chunks(21).enumerate() {
            let mut extension = [0; BLOCK];
            put(&mut extension, 0, &part.iter().flat_map(text).collect::<Vec<_>>());
            extension[504] = u8::from(i + 1 < count);
            self.map.extend_from_slice(&extension);
        }
    }
}

/// Decimal seconds, with more digits than needed or none.
fn decimal((seconds, nanoseconds): Time, rng: &mut Rng) -> String {
    let more = if rng.one_in(4) { "9871" } else { "" };
    match (seconds, nanoseconds) {
        (_, 0) => seconds.to_string() + *rng.pick(&["", ".0", ".000"]),
        (0.., _) => format!("{seconds}.{nanoseconds:09}{more}"),
        // -1.5 is two seconds before and half a second after that.
        _ => format!("-{}.{:09}", (seconds + 1).unsigned_abs(), 1_000_000_000 - nanoseconds),
    }
}

fn put(block: &mut [u8], at: usize, bytes: &[u8]) {
    block[at..at + bytes.len()].copy_from_slice(bytes);
}
