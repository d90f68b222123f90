//! Layers from a small hostile alphabet.
//!
//! Random bytes are hardly ever a layer whose entries have to do with each other. So an input is read as a
//! program: a byte that chooses the checks, then 17 bytes for each entry. All entries are well-formed, names
//! are few and meet often, and what hurts is rare enough that long layers come through.

use std::path::Path;

use arbitrary::{Arbitrary, Unstructured};
use layerstore_tar::{Entry, EntryKind, Segment, Timestamp, Writer};

use crate::Item;

/// Entries of one layer; the rest of an input is ignored.
const MAX_ENTRIES: usize = 200;

/// One entry as an input says it.
#[derive(Debug, Clone, Copy, Arbitrary)]
struct Op {
    kind: u8,
    path: [u8; 4],
    link: [u8; 4],
    mode: u16,
    owner: u8,
    time: u8,
    xattrs: [u8; 2],
    data: u8,
    style: u8,
}

/// A layer, and which of the costly checks to make on it.
#[derive(Debug)]
pub struct Plan {
    /// The first byte of the input.
    pub checks: u8,
    /// The entries in their order.
    pub items: Vec<Item>,
}

impl Plan {
    /// Reads an input; `canary` is the directory that links try to reach.
    pub fn new(input: &[u8], canary: &Path) -> Self {
        let mut input = Unstructured::new(input);
        let checks = input.arbitrary().unwrap_or_default();
        let mut items = Vec::new();
        while !input.is_empty() && items.len() < MAX_ENTRIES {
            // At the end of the input the rest is zeros.
            let Ok(op) = Op::arbitrary(&mut input) else { break };
            items.push(op.item(canary));
        }
        Self { checks, items }
    }

    /// Shows the entries to whoever looks for the cause of a failure.
    pub fn print(&self) {
        for Item { entry, data } in &self.items {
            let (path, link) = (entry.path.escape_ascii(), entry.link.escape_ascii());
            let Entry { kind, mode, uid, gid, mtime, device, sparse, .. } = entry;
            eprint!("{kind:?} `{path}` link `{link}` mode {mode:04o} owner {uid}:{gid} device {device:?} ");
            eprintln!(
                "time {}.{:09} size {} of {}",
                mtime.seconds,
                mtime.nanoseconds,
                data.len(),
                entry.size
            );
            for (name, value) in &entry.xattrs {
                eprintln!("    {} of {} bytes", name.escape_ascii(), value.len());
            }
            if let Some(segments) = sparse {
                eprintln!("    {segments:?}");
            }
        }
    }

    /// The same entries, those first whose name makes them a whiteout.
    pub fn whiteouts_first(&self) -> Vec<Item> {
        let marker = |item: &&Item| {
            let mut names = item.entry.path.split(|byte| *byte == b'/').filter(|name| !is_nothing(name));
            names.any(|name| name.starts_with(b".wh."))
        };
        let (mut first, rest): (Vec<&Item>, Vec<&Item>) = self.items.iter().partition(marker);
        first.extend(rest);
        first.into_iter().cloned().collect()
    }
}

fn is_nothing(name: &[u8]) -> bool {
    matches!(name, b"" | b".")
}

/// Writes an archive.
pub fn archive(items: &[Item]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for Item { entry, data } in items {
        writer.append(entry, data.as_slice()).unwrap_or_else(|error| panic!("{error}: {entry:?}"));
    }
    writer.finish().expect("a vector takes everything")
}

impl Op {
    fn item(self, canary: &Path) -> Item {
        let path = self.name();
        let mut data = Vec::new();
        let mut entry = match self.kind % 32 {
            0..=7 => {
                data = self.contents();
                Entry::regular(&path, data.len() as u64)
            }
            8..=13 => Entry::directory(&path),
            14..=18 => Entry::symlink(&path, &self.target(canary)),
            19..=22 => Entry::hard_link(&path, &self.source(canary)),
            23 => Entry::char_device(&path, self.device().0, self.device().1),
            24 => Entry::block_device(&path, self.device().0, self.device().1),
            25 => Entry::fifo(&path),
            26..=28 => {
                let map = self.map();
                data = vec![self.data; map.1.iter().map(|s| usize::try_from(s.len).unwrap_or(0)).sum()];
                let archived_size = data.len() as u64;
                Entry { sparse: Some(map.1), archived_size, ..Entry::regular(&path, map.0) }
            }
            // Whiteouts of every kind come as empty files, as the specification wants them.
            29 | 30 => Entry::regular(&path, 0),
            _ => Entry { kind: EntryKind::Other(self.data), ..Entry::regular(&path, 0) },
        };
        if let EntryKind::Other(flag) = entry.kind
            && !matches!(flag, b'V' | b'M' | b'A')
        {
            entry.kind = EntryKind::Other(b'V');
        }
        if matches!(self.kind % 32, 29 | 30) {
            entry.path = whiteout(&entry.path, self.link[0]);
        }
        // GNU tar and Go disagree on files with data whose names end in a slash, so none are read or written.
        while entry.kind == EntryKind::Regular && entry.path.ends_with(b"/") && entry.path.len() > 1 {
            entry.path.pop();
        }
        entry.mode = u32::from(self.mode) & 0o7777;
        (entry.uid, entry.gid) = match self.owner {
            0..=99 => (0, 0),
            100..=149 => (1000, 1000),
            150..=199 => (0, 8),
            200..=249 => (65_534, 1),
            250..=252 => (u64::from(u32::MAX) - 1, 5),
            253 => (u64::from(u32::MAX), 5),
            254 => (5, u64::from(u32::MAX)),
            255 => (1 << 40, 0),
        };
        entry.mtime = time(self.time);
        entry.atime = (self.style & 0x40 != 0).then(|| time(self.time.wrapping_add(1)));
        for choice in self.xattrs {
            if let Some((name, value)) = xattr(choice)
                && entry.xattrs.iter().all(|(other, _)| *other != name)
            {
                entry.xattrs.push((name, value));
            }
        }
        Item { entry, data }
    }

    fn name(self) -> Vec<u8> {
        let names = self.path.iter().enumerate();
        // A byte in the upper half ends the path, except at its start.
        let names = names.take_while(|(i, byte)| *i == 0 || **byte < 128).map(|(_, byte)| component(*byte));
        self.decorate(&names.collect::<Vec<_>>())
    }

    fn decorate(self, names: &[Vec<u8>]) -> Vec<u8> {
        let separator: &[u8] = if self.style & 1 != 0 { b"//" } else { b"/" };
        let before: &[u8] = match self.style >> 1 & 3 {
            0 | 1 => b"",
            2 => b"./",
            _ => b"/",
        };
        let after: &[u8] = if self.style & 0x18 == 0x18 { b"/" } else { b"" };
        let path = [before, &names.join(separator), after].concat();
        if path.is_empty() { b"./".to_vec() } else { path }
    }

    /// What a symbolic link leads to.
    fn target(self, canary: &Path) -> Vec<u8> {
        let canary = canary.as_os_str().as_encoded_bytes();
        let target = match self.link[0] {
            224..=227 => b"/".to_vec(),
            228..=231 => b"..".to_vec(),
            232..=235 => b".".to_vec(),
            236..=239 => canary.to_vec(),
            240..=243 => [canary, b"/a"].concat(),
            244 => b"../canary".to_vec(),
            245 => b"../canary/file".to_vec(),
            246 => b"/proc/self/root".to_vec(),
            247 => b"/proc/self/cwd".to_vec(),
            248 => b"/proc/self/fd/3".to_vec(),
            249 => [b"../../../../../..", canary].concat(),
            250 => b"/a".to_vec(),
            251 => b"/a/b".to_vec(),
            252 => vec![b'x'; 4000],
            253 => b"a/".repeat(2000),
            254 => b"a//.//b".to_vec(),
            _ => {
                let names = self.link.iter().enumerate().take_while(|(i, byte)| *i == 0 || **byte < 128);
                let names: Vec<Vec<u8>> = names
                    .map(|(_, byte)| if byte % 8 == 7 { b"..".to_vec() } else { component(*byte) })
                    .collect();
                let before: &[u8] = if self.style & 0x20 != 0 { b"/" } else { b"" };
                [before, &names.join(&b'/')].concat()
            }
        };
        if target.is_empty() { b".".to_vec() } else { target }
    }

    /// What a hard link names.
    fn source(self, canary: &Path) -> Vec<u8> {
        match self.link[0] {
            254 => canary.join("file").into_os_string().into_encoded_bytes(),
            255 => b"../canary/file".to_vec(),
            _ => Self { path: self.link, ..self }.name(),
        }
    }

    fn contents(self) -> Vec<u8> {
        const LENGTHS: [usize; 10] = [0, 1, 511, 512, 513, 4095, 4096, 4097, 10_000, 70_000];
        // Small ones mostly: what is long takes long.
        let length =
            if self.data < 200 { usize::from(self.data % 7) } else { LENGTHS[usize::from(self.data % 10)] };
        vec![self.data; length]
    }

    fn device(self) -> (u32, u32) {
        match self.data % 8 {
            0..=2 => (511, 77),
            3 => (1, 3),
            4 => (0, 1),
            // These have no room in Linux's device numbers.
            5 => (1 << 12, 1 << 20),
            6 => (0, 0),
            _ => (259, 1_000_000),
        }
    }

    /// Size and segments of a sparse file.
    fn map(self) -> (u64, Vec<Segment>) {
        let segment = |offset, len| Segment { offset, len };
        match self.data % 16 {
            0 => (0, vec![]),
            1 => (100_000, vec![]),
            2 => (1, vec![segment(0, 1)]),
            3 => (8192, vec![segment(4096, 512)]),
            4 => (10_000, vec![segment(0, 512), segment(4096, 512), segment(9000, 1000)]),
            5 => (5000, vec![segment(512, 512), segment(1024, 512), segment(4999, 1)]),
            6 => (4096, vec![segment(0, 4096)]),
            7 => (1 << 40, vec![segment((1 << 40) - 1, 1)]),
            8 => ((1 << 63) - 1, vec![segment(0, 1)]),
            _ => (1 << 16, vec![segment(u64::from(self.data) * 64, 1024), segment(40_000, 7)]),
        }
    }
}

/// The name of a path's last component as a whiteout.
fn whiteout(path: &[u8], choice: u8) -> Vec<u8> {
    let end = path.iter().rposition(|byte| *byte != b'/').map_or(0, |last| last + 1);
    let start = path[..end].iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
    let (above, name) = path[..end].split_at(start);
    let (marker, name): (&[u8], &[u8]) =
        if choice.is_multiple_of(3) { (b".wh..wh..opq", b"") } else { (b".wh.", name) };
    [above, marker, name].concat()
}

fn component(choice: u8) -> Vec<u8> {
    let name: &[u8] = match choice % 64 {
        0..=14 => b"a",
        15..=28 => b"b",
        29..=40 => b"c",
        41..=48 => b"d",
        49..=51 => b".",
        52 => b"..",
        53 => b".wh.a",
        54 => b".wh.b",
        55 => b".wh..wh..opq",
        56 => b".wh..wh.plnk",
        57 => b".wh.",
        58 => b"canary",
        59 => b"\xff\xfe",
        60 => b"file",
        61 => &[b'n'; 255],
        62 => &[b'n'; 256],
        _ => b"\x1b[2J\n",
    };
    name.to_vec()
}

fn time(choice: u8) -> Timestamp {
    let (seconds, nanoseconds) = match choice {
        0..=127 => (1_700_000_000 + i64::from(choice), u32::from(choice) * 1_000_001),
        128..=191 => (i64::from(choice), 0),
        192..=222 => (-i64::from(choice), 999_999_999),
        223..=239 => (1 << 33, 1),
        240..=247 => (-(1 << 33), 0),
        248..=251 => (1 << 40, 1),
        252 => (i64::MAX - 1, 999_999_999),
        253 => (i64::MIN, 0),
        254 => (i64::MIN + 1, 1),
        255 => (-1, 1),
    };
    Timestamp { seconds, nanoseconds }
}

fn xattr(choice: u8) -> Option<(Vec<u8>, Vec<u8>)> {
    // Version, then one entry each for the owner, the group and the others.
    const ACL: &[u8] =
        b"\x02\0\0\0\x01\0\x07\0\xff\xff\xff\xff\x04\0\x05\0\xff\xff\xff\xff\x20\0\x05\0\xff\xff\xff\xff";
    const CAPABILITY: &[u8] = b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    let (name, value): (&[u8], &[u8]) = match choice {
        0..=159 => return None,
        160..=175 => (b"user.a", b"1"),
        176..=183 => (b"user.a", b""),
        184..=191 => (b"trusted.overlay.opaque", b"y"),
        192..=195 => (b"trusted.overlay.redirect", b"/a"),
        196..=199 => (b"trusted.overlay.overlay.opaque", b"y"),
        200..=203 => (b"trusted.overlay.metacopy", b""),
        204..=205 => (b"trusted.overlay.", b""),
        206..=209 => (b"user.overlay.opaque", b"y"),
        210..=213 => (b"user.overlay.redirect", b"/canary"),
        214..=217 => (b"user.overlay.overlay.metacopy", b""),
        218..=225 => (b"security.capability", CAPABILITY),
        226..=231 => (b"system.posix_acl_access", ACL),
        232..=237 => (b"system.posix_acl_default", ACL),
        238..=243 => (b"trusted.k", b"\0\n=\xff"),
        244 => (b"user.with=equals", b"v"),
        245 => (b"user.", b"nothing"),
        246 => (b"none", b"namespace"),
        247 => (b"system.posix_acl_access", b"bad"),
        248 => (b"security.capability", b"bad"),
        249 => return Some((b"user.large".to_vec(), vec![7; 60_000])),
        250 => return Some((b"user.too.large".to_vec(), vec![7; 70_000])),
        251 => return Some(([b"user.", &[b'n'; 250][..]].concat(), b"v".to_vec())),
        252 => return Some(([b"user.", &[b'n'; 251][..]].concat(), b"v".to_vec())),
        _ => (b"security.other", b"v"),
    };
    Some((name.to_vec(), value.to_vec()))
}
