//! Damage and malice: changes after which an archive may still be one.

use super::{BLOCK, extension, is_header, record, seal};
use crate::rng::Rng;

/// Fields of a header: start and width.
const FIELDS: [(usize, usize); 21] = [
    (0, 100),
    (100, 8),
    (108, 8),
    (116, 8),
    (124, 12),
    (124, 12),
    (136, 12),
    (148, 8),
    (157, 100),
    (257, 8),
    (265, 32),
    (297, 32),
    (329, 8),
    (337, 8),
    (345, 12),
    (345, 155),
    (386, 12),
    (398, 12),
    (482, 1),
    (483, 12),
    (500, 12),
];

const VALUES: [&[u8]; 24] = [
    b"",
    b"0",
    b"00000000000",
    b"00000001000",
    b"00000000777\0",
    b"77777777777",
    b"777777777777",
    b"-1",
    b"-0000001",
    b"0x10",
    b" 12 ",
    b"1 2",
    b"12\x003",
    b"9",
    b"\x80\0\0\0\0\0\0\0\0\0\x02\0",
    b"\x80\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
    b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
    b"ustar\x0000",
    b"ustar  \0",
    b"ustar\0\0\0",
    b"a/b/",
    b"../x",
    b"/",
    b"tar\0",
];

/// Changes `archive` once to three times, mostly so that checksums are right again. `other` is where foreign
/// pieces come from.
pub fn mutate(archive: &mut Vec<u8>, other: &[u8], rng: &mut Rng) {
    for _ in 0..=rng.below(3) {
        once(archive, other, rng);
    }
}

fn once(archive: &mut Vec<u8>, other: &[u8], rng: &mut Rng) {
    let blocks = archive.len() / BLOCK;
    if blocks == 0 {
        return;
    }
    let headers: Vec<usize> =
        (0..blocks).map(|i| i * BLOCK).filter(|&at| is_header(&archive[at..at + BLOCK])).collect();
    let block = rng.index(blocks) * BLOCK;
    let header = if headers.is_empty() { block } else { *rng.pick(&headers) };
    let keep_checksum = rng.one_in(8);
    match rng.below(16) {
        0 => {
            let at = block + rng.index(BLOCK);
            let change = 1 << rng.below(8);
            edit(archive, at, keep_checksum, |bytes| bytes[0] ^= change);
        }
        1 | 2 => {
            let at = header + rng.index(BLOCK);
            let value = rng.byte();
            edit(archive, at, keep_checksum, |bytes| bytes[0] = value);
        }
        3..=5 => digit(archive, rng, keep_checksum),
        6..=8 => {
            let (at, width) = *rng.pick(&FIELDS);
            let value = *rng.pick(&VALUES);
            edit(archive, header + at, keep_checksum, |bytes| {
                bytes[..width].fill(0);
                let len = width.min(value.len());
                bytes[..len].copy_from_slice(&value[..len]);
            });
        }
        9 | 10 => {
            let flag = *rng.pick(b"\x00000123456777xXgLKSDMVNA\xff");
            edit(archive, header + 156, keep_checksum, |bytes| bytes[0] = flag);
        }
        11 => {
            let copy = archive[block..block + BLOCK].to_vec();
            let to = rng.index(blocks + 1) * BLOCK;
            archive.splice(to..to, copy);
        }
        12 => drop(archive.drain(block..block + BLOCK)),
        13 => archive.truncate(if rng.one_in(3) { rng.index(archive.len()) } else { block }),
        14 if other.len() >= BLOCK => {
            let from = rng.index(other.len() / BLOCK) * BLOCK;
            let to = rng.index(blocks + 1) * BLOCK;
            let end = if rng.one_in(2) { archive.len() } else { to };
            archive.splice(to..end, other[from..].iter().copied());
        }
        _ => {
            let extension = strange(rng);
            archive.splice(header..header, extension);
        }
    }
}

/// Changes what starts at `at`, and makes the checksum right if it was.
fn edit(archive: &mut [u8], at: usize, keep_checksum: bool, change: impl FnOnce(&mut [u8])) {
    let start = at / BLOCK * BLOCK;
    let block = &mut archive[start..start + BLOCK];
    let sealed = is_header(block);
    change(&mut block[at - start..]);
    if sealed && !keep_checksum {
        seal(block);
    }
}

/// Changes a digit or what follows it, where numbers are.
fn digit(archive: &mut [u8], rng: &mut Rng, keep_checksum: bool) {
    let len = archive.len() / BLOCK * BLOCK;
    let start = rng.index(len);
    let places = (start..len).chain(0..start);
    let Some(at) = { places }.find(|&i| archive[i].is_ascii_digit()) else {
        return;
    };
    let value = *rng.pick(b"0123456789,-\n =.\0");
    let after = if at + 1 < len && rng.one_in(4) { at + 1 } else { at };
    edit(archive, after, keep_checksum, |bytes| bytes[0] = value);
}

/// An extension header that says something dubious of the entry that follows.
fn strange(rng: &mut Rng) -> Vec<u8> {
    const KEYS: [&str; 20] = [
        "path",
        "linkpath",
        "size",
        "uid",
        "gid",
        "mtime",
        "atime",
        "uname",
        "hdrcharset",
        "SCHILY.xattr.user.z",
        "SCHILY.devmajor",
        "SCHILY.realsize",
        "GNU.sparse.name",
        "GNU.sparse.size",
        "GNU.sparse.realsize",
        "GNU.sparse.major",
        "GNU.sparse.minor",
        "GNU.sparse.map",
        "GNU.sparse.numblocks",
        "GNU.sparse.offset",
    ];
    const VALUES: [&str; 16] = [
        "",
        "0",
        "1",
        "5",
        "512",
        "1024",
        "-1",
        "+1",
        " 1",
        "1.5",
        "0,5",
        "0,0",
        "0,512,600,1",
        "q/r/",
        "../s",
        "BINARY",
    ];
    let magic = *rng.pick(&[b"ustar\x0000", b"ustar  \0"]);
    let flag = *rng.pick(b"xxxxXgLK");
    if matches!(flag, b'L' | b'K') {
        let name =
            *rng.pick(&[&b"long\0"[..], b"long", b"", b"\0", b"a\0b", b"dir/\0", b"../t\0", b"/abs\0"]);
        return extension(flag, b"././@LongLink", magic, name);
    }
    let mut body = Vec::new();
    for _ in 0..=rng.below(3) {
        body.extend(record(rng.pick(&KEYS).as_bytes(), rng.pick(&VALUES).as_bytes()));
    }
    match rng.below(12) {
        0 => body.extend(b"12 path=abc\n"),
        1 => body.extend(b"\0\0\0"),
        2 => body.extend(b"7 path\n"),
        3 => body.extend(record(b"pa\0th", b"x")),
        4 => body.extend(record(b"path", b"a\0b")),
        _ => {}
    }
    extension(flag, b"PaxHeaders.8/entry", magic, &body)
}
