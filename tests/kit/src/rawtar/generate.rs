//! Random archives that no reader has an excuse for.

use std::collections::BTreeMap;

use super::{BLOCK, Format, Kind, Member, append, extension, record};
use crate::rng::Rng;

/// What the paths of an archive are like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Names {
    /// Anything: to be listed only.
    Any,
    /// Each directory comes before what is in it, and nothing takes the place of a directory, where unpackers
    /// have options of their own.
    Tree,
}

/// A complete archive of up to a dozen members.
pub fn archive(rng: &mut Rng, names: Names) -> Vec<u8> {
    let formats = [Format::V7, Format::Ustar, Format::Pax, Format::Gnu, Format::Star];
    let one = *rng.pick(&formats);
    let mixed = rng.one_in(3);
    let mut out = Vec::new();
    // Old GNU times are where Python looks for a prefix, so most archives have none.
    let times = rng.one_in(6);
    let mut has_global = false;
    for mut member in members(rng, names) {
        let format = if mixed { *rng.pick(&formats) } else { one };
        if !times && format == Format::Gnu {
            member.atime = None;
        }
        // At a second one GNU tar forgets the first.
        if format == Format::Pax && !has_global && rng.one_in(20) {
            has_global = true;
            out.extend(global(rng));
        }
        append(&mut out, &member, format, rng);
    }
    end(&mut out, rng);
    out
}

/// Two blocks of zeros, and what writers and pipes make of that.
fn end(out: &mut Vec<u8>, rng: &mut Rng) {
    match rng.below(8) {
        0 if !out.is_empty() => {}
        1 => out.extend([0; BLOCK]),
        2 => out.extend([0; 2 * BLOCK]),
        3 => {
            out.extend([0; 2 * BLOCK]);
            let blocks = 1 + rng.index(5);
            let garbage = if rng.one_in(2) { rng.bytes(blocks * BLOCK) } else { vec![b'x'; blocks * BLOCK] };
            out.extend(garbage);
        }
        _ => {
            out.extend([0; 2 * BLOCK]);
            out.resize(out.len().next_multiple_of(20 * BLOCK), 0);
        }
    }
}

fn global(rng: &mut Rng) -> Vec<u8> {
    let mut body = Vec::new();
    for (key, value) in [
        ("comment", &b"e7a26c9"[..]),
        ("mtime", b"1234567890.5"),
        ("uid", b"4321"),
        ("gid", b"1234"),
        ("uname", b"everyone"),
        ("VENDOR.unknown", b"x"),
    ] {
        if rng.one_in(3) {
            body.extend(record(key.as_bytes(), value));
        }
    }
    extension(b'g', b"pax_global_header", b"ustar\x0000", &body)
}

/// The members of one archive.
pub fn members(rng: &mut Rng, names: Names) -> Vec<Member> {
    match names {
        Names::Any => {
            let mut members: Vec<Member> = Vec::new();
            for _ in 0..rng.below(12) {
                let path = any_name(rng);
                let kind = any_kind(rng);
                let link = match rng.index(members.len() + 1) {
                    i if kind == Kind::HardLink && i < members.len() => members[i].path.clone(),
                    _ => any_name(rng),
                };
                members.push(member(rng, path, kind, link, names));
            }
            members
        }
        Names::Tree => tree(rng),
    }
}

fn any_kind(rng: &mut Rng) -> Kind {
    use Kind::{BlockDevice, CharDevice, Directory, Fifo, File, HardLink, Symlink};
    *rng.pick(&[
        File,
        File,
        File,
        File,
        Directory,
        Directory,
        Symlink,
        HardLink,
        CharDevice,
        BlockDevice,
        Fifo,
    ])
}

fn tree(rng: &mut Rng) -> Vec<Member> {
    let mut is_directory: BTreeMap<Vec<u8>, bool> = BTreeMap::new();
    let mut spellings: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    let mut members = vec![member(rng, b".".to_vec(), Kind::Directory, Vec::new(), Names::Tree)];
    let long = vec![b'l'; 120];
    let parts: [&[u8]; 6] = [b"a", b"b\xff", b"c c", b"d\n", "\u{fc}".as_bytes(), &long];
    for _ in 0..rng.below(14) {
        let depth = 1 + rng.index(3);
        let names: Vec<&[u8]> = (0..depth).map(|_| *rng.pick(&parts)).collect();
        let path = names.join(&b'/');
        let above: Vec<_> = (1..depth).map(|count| names[..count].join(&b'/')).collect();
        if above.iter().any(|directory| is_directory.get(directory) == Some(&false)) {
            continue;
        }
        for directory in above {
            if is_directory.insert(directory.clone(), true).is_none() {
                let path = spelled(rng, &directory);
                spellings.insert(directory, path.clone());
                members.push(member(rng, path, Kind::Directory, Vec::new(), Names::Tree));
            }
        }
        let mut kind = any_kind(rng);
        if is_directory.get(&path).is_some_and(|is| *is != (kind == Kind::Directory)) {
            continue;
        }
        let files: Vec<_> =
            is_directory.iter().filter(|(_, is)| !**is).map(|(path, _)| path.clone()).collect();
        let link = match kind {
            Kind::HardLink if files.is_empty() => {
                kind = Kind::File;
                Vec::new()
            }
            Kind::HardLink => {
                let target = rng.pick(&files).clone();
                spelled(rng, &target)
            }
            Kind::Symlink => rng.pick(&[&b"a"[..], b"a/b", b"\xff", &[b't'; 130]]).to_vec(),
            _ => Vec::new(),
        };
        is_directory.insert(path.clone(), kind == Kind::Directory);
        // Of a directory that comes twice in two spellings, GNU tar keeps what the first says.
        let path = match spellings.get(&path) {
            Some(spelling) if kind == Kind::Directory => spelling.clone(),
            _ => {
                let spelling = spelled(rng, &path);
                spellings.insert(path, spelling.clone());
                spelling
            }
        };
        members.push(member(rng, path, kind, link, Names::Tree));
    }
    members
}

/// The same path in another way.
fn spelled(rng: &mut Rng, path: &[u8]) -> Vec<u8> {
    match rng.below(6) {
        0 => [b"./", path].concat(),
        1 => path.split(|&c| c == b'/').collect::<Vec<_>>().join(&b"//"[..]),
        2 => path.split(|&c| c == b'/').collect::<Vec<_>>().join(&b"/./"[..]),
        _ => path.to_vec(),
    }
}

fn any_name(rng: &mut Rng) -> Vec<u8> {
    let len = match rng.below(8) {
        0 => *rng.pick(&[99, 100, 101, 154, 155, 156, 255, 256, 257, 300]),
        1 => rng.index(600),
        _ => rng.index(30),
    };
    let alphabet: &[u8] = match rng.below(4) {
        0 => b"ab/c",
        1 => b"a\xff\xc3\xa4/ \n\t\\\"'-.=",
        2 => b"abcdefghijklmnopqrstuvwxyz/././",
        _ => b"abcdefghijklmnopqrstuvwxyz0123456789_",
    };
    let mut name = rng.pick(&[&b""[..], b"", b"", b"./", b"/", b"a//", b"../"]).to_vec();
    while name.len() < len.max(1) {
        name.push(*rng.pick(alphabet));
    }
    // A slash at the end makes a directory of a file for some readers.
    while name.ends_with(b"/") {
        name.pop();
    }
    if name.is_empty() { b"n".to_vec() } else { name }
}

fn member(rng: &mut Rng, path: Vec<u8>, kind: Kind, link: Vec<u8>, names: Names) -> Member {
    let sparse = (kind == Kind::File && rng.one_in(6)).then(|| sparse(rng));
    let len = match &sparse {
        Some((_, segments)) => usize::try_from(segments.iter().map(|(_, len)| len).sum::<u64>()).unwrap(),
        None => *rng.pick(&[0, 1, 5, 511, 512, 513, 1024, 3000]),
    };
    let data = if kind == Kind::File { vec![rng.byte(); len] } else { Vec::new() };
    let has_link = matches!(kind, Kind::Symlink | Kind::HardLink);
    let seconds = match rng.below(6) {
        0 => 0,
        1 => *rng.pick(&[1, (1 << 33) - 1]),
        2 => *rng.pick(&[-1, -2, 1 << 33, -1_000_000_000]),
        _ => i64::try_from(rng.below(1 << 32)).unwrap(),
    };
    let nanoseconds = if rng.one_in(2) { 0 } else { u32::try_from(rng.below(1_000_000_000)).unwrap() };
    let id = |rng: &mut Rng| match rng.below(6) {
        0 => *rng.pick(&[0o7_777_777, 0o10_000_000, 3_000_000_000, u64::from(u32::MAX) - 1]),
        _ => rng.below(5000),
    };
    let devices = matches!(kind, Kind::CharDevice | Kind::BlockDevice);
    let xattrs = match kind {
        Kind::File | Kind::Directory if rng.one_in(5) => {
            let values = [&b"Zm9v"[..], b"", b"a=b\n", b"\0\x01\xff"];
            vec![(b"user.k".to_vec(), rng.pick(&values).to_vec()), (b"user.n".to_vec(), rng.bytes(9))]
        }
        _ => Vec::new(),
    };
    Member {
        path,
        kind,
        link: if has_link { link } else { Vec::new() },
        mode: u32::try_from(rng.below(0o10000)).unwrap(),
        uid: id(rng),
        gid: id(rng),
        mtime: (seconds, nanoseconds),
        atime: rng.one_in(3).then(|| (i64::try_from(rng.below(1 << 32)).unwrap(), 0)),
        names: match rng.below(3) {
            0 => (b"root".to_vec(), b"root".to_vec()),
            1 if names == Names::Any => (vec![b'u'; 1 + rng.index(40)], "gr\u{fc}ppe".into()),
            _ => (Vec::new(), Vec::new()),
        },
        device: if devices { *rng.pick(&[(1, 3), (7, 0), (10, 229), (259, 70_000)]) } else { (0, 0) },
        xattrs,
        data,
        sparse,
    }
}

fn sparse(rng: &mut Rng) -> (u64, Vec<(u64, u64)>) {
    let mut end = 0;
    let mut segments = Vec::new();
    let count = if rng.one_in(8) { 20 + rng.below(20) } else { rng.below(6) };
    for _ in 0..count {
        end += rng.below(3) * BLOCK as u64;
        let len = (1 + rng.below(2)) * BLOCK as u64;
        segments.push((end, len));
        end += len;
    }
    if let (Some((_, len)), true) = (segments.last_mut(), rng.one_in(2)) {
        *len -= 100;
        end -= 100;
    }
    (end + rng.below(3) * 700, segments)
}
