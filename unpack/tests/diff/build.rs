//! Random trees on disk.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::fs::FileExt as _;

use proptest::collection::vec;
use proptest::prelude::*;
use rustix::fs::{AtFlags, CWD, Gid, Mode, Timespec, Timestamps, Uid};

use super::*;

pub(crate) const NAMES: [&[u8]; 6] = [b"a", b"a.b", b"b\xff", b"c c\n", b".wh", &[b'n'; 120]];

/// What a tree may contain besides plain files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Menu {
    /// Everything.
    All,
    /// What GNU tar takes as we write it, and a lower layer may have.
    Plain,
}

#[derive(Debug, Clone)]
pub(crate) enum Kind {
    Dir {
        opaque: bool,
    },
    File(Vec<u8>),
    /// 64 KiB each: data or hole; then so many bytes.
    Sparse(Vec<bool>, u16),
    HardLink(u8),
    Symlink(u8),
    Fifo,
    Device(FileType, u32, u32),
    Whiteout,
}

#[derive(Debug, Clone)]
pub(crate) struct Choice {
    pub(crate) path: Vec<u8>,
    pub(crate) kind: Kind,
    mode: u32,
    owner: (u32, u32),
    mtime: (i64, i64),
    /// Bits of what there is.
    xattrs: u16,
}

pub(crate) fn path() -> impl Strategy<Value = Vec<u8>> {
    vec(0..NAMES.len(), 1..4)
        .prop_map(|names| names.iter().map(|i| NAMES[*i]).collect::<Vec<_>>().join(&b'/'))
}

fn kind() -> impl Strategy<Value = Kind> {
    let device = prop_oneof![Just(FileType::CharacterDevice), Just(FileType::BlockDevice)];
    prop_oneof![
        4 => any::<bool>().prop_map(|opaque| Kind::Dir { opaque }),
        4 => vec(any::<u8>(), 0..1200).prop_map(Kind::File),
        2 => (vec(any::<bool>(), 0..6), any::<u16>()).prop_map(|(mut parts, tail)| {
            // `cp` looks for holes only where they are many, and counts the blocks of attributes as data.
            parts.push(false);
            Kind::Sparse(parts, tail)
        }),
        3 => any::<u8>().prop_map(Kind::HardLink),
        2 => any::<u8>().prop_map(Kind::Symlink),
        1 => Just(Kind::Fifo),
        1 => (device, 1..4096u32, 0..1_048_576u32).prop_map(|(kind, major, minor)| Kind::Device(kind, major, minor)),
        3 => Just(Kind::Whiteout),
    ]
}

fn choice() -> impl Strategy<Value = Choice> {
    (
        path(),
        kind(),
        0..0o10000u32,
        (0..5000u32, prop_oneof![0..3u32, Just(3_000_000_000)]),
        (-2_000_000_000..15_000_000_000i64, prop_oneof![Just(0), 0..1_000_000_000i64]),
        prop_oneof![3 => Just(0), 2 => any::<u16>()],
    )
        .prop_map(|(path, kind, mode, owner, mtime, xattrs)| Choice {
            path,
            kind,
            mode,
            owner,
            mtime,
            xattrs,
        })
}

pub(crate) fn choices() -> impl Strategy<Value = Vec<Choice>> {
    vec(choice(), 0..30)
}

/// Builds what of the choices is possible in the empty directory `root`.
pub(crate) fn build(root: &Path, choices: &[Choice], menu: Menu) {
    let mut directories = vec![];
    let mut files: Vec<PathBuf> = vec![];
    let mut made = BTreeSet::new();
    for choice in choices {
        let path = join(root, &choice.path);
        let parent = path.parent().unwrap();
        let plain = menu == Menu::Plain;
        if made.contains(&path) || std::fs::create_dir_all(parent).is_err() || path.symlink_metadata().is_ok()
        {
            continue;
        }
        match &choice.kind {
            Kind::Dir { .. } => std::fs::create_dir(&path).unwrap(),
            Kind::File(data) => std::fs::write(&path, data).unwrap(),
            Kind::Sparse(parts, tail) => sparse(&path, parts, *tail),
            Kind::HardLink(_) if files.is_empty() => continue,
            Kind::HardLink(target) => {
                rustix::fs::link(&files[usize::from(*target) % files.len()], &path).unwrap();
                continue;
            }
            Kind::Symlink(target) => {
                let long = [b'l'; 300];
                let targets: [&[u8]; 4] = [b"a", b"../\xff", b"/etc/passwd", &long];
                rustix::fs::symlink(targets[usize::from(*target % 4)], &path).unwrap();
            }
            Kind::Fifo => node(&path, FileType::Fifo, 0),
            Kind::Device(kind, major, minor) => node(&path, *kind, rustix::fs::makedev(*major, *minor)),
            Kind::Whiteout if plain => continue,
            Kind::Whiteout => {
                node(&path, FileType::CharacterDevice, 0);
                made.insert(path);
                continue;
            }
        }
        if matches!(choice.kind, Kind::Dir { .. }) {
            directories.push((path, choice));
            continue;
        }
        finish(&path, choice, menu);
        files.push(path);
    }
    directories.sort_by(|(one, _), (other, _)| other.cmp(one));
    for (path, choice) in directories {
        finish(&path, choice, menu);
    }
}

/// Sets the attributes, in the order that the kernel asks for.
fn finish(path: &Path, choice: &Choice, menu: Menu) {
    let (uid, gid) = (Some(Uid::from_raw(choice.owner.0)), Some(Gid::from_raw(choice.owner.1)));
    rustix::fs::chownat(CWD, path, uid, gid, AtFlags::SYMLINK_NOFOLLOW).unwrap();
    let has = |bit: u16| choice.xattrs & (1 << bit) != 0;
    let set = |name: &str, value: &[u8]| {
        rustix::fs::lsetxattr(path, name, value, XattrFlags::empty()).unwrap();
    };
    let directory = matches!(choice.kind, Kind::Dir { .. });
    let regular = matches!(choice.kind, Kind::File(_) | Kind::Sparse(..));
    let symlink = matches!(choice.kind, Kind::Symlink(_));
    let all = menu == Menu::All;
    if (regular || directory) && has(0) {
        set("user.k", b"v\0\n=");
        set("user.empty", b"");
    }
    if (regular || directory) && has(1) && all {
        set("user.with=sign", b"\xff");
    }
    if has(2) {
        set("trusted.k", &[b'v'; 600]);
    }
    if !symlink && has(3) && all {
        set("system.posix_acl_access", &acl());
    }
    if directory && has(4) && all {
        set("system.posix_acl_default", &acl());
    }
    if has(5) && all {
        set("trusted.overlay.overlay.opaque", b"y");
        set("trusted.overlay.overlay.overlay.redirect", b"/x");
    }
    if has(6) && all {
        set("trusted.overlay.origin", b"\0\xfb\x1d");
        set("trusted.overlay.impure", b"y");
    }
    if regular && has(7) && all {
        set("security.capability", &[1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    }
    if matches!(choice.kind, Kind::Dir { opaque: true }) && all {
        set("trusted.overlay.opaque", b"y");
    }
    if !symlink {
        rustix::fs::chmod(path, Mode::from_raw_mode(choice.mode)).unwrap();
    }
    set_mtime(path, choice.mtime);
}

pub(crate) fn set_mtime(path: &Path, (seconds, nanoseconds): (i64, i64)) {
    let time = Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

pub(crate) fn node(path: &Path, kind: FileType, device: u64) {
    rustix::fs::mknodat(CWD, path, kind, Mode::RWXU, device).unwrap();
}

pub(crate) fn sparse(path: &Path, parts: &[bool], tail: u16) {
    let file = File::create(path).unwrap();
    for (i, data) in parts.iter().enumerate() {
        if *data {
            file.write_all_at(&[7; 5000], i as u64 * 65536).unwrap();
        }
    }
    file.set_len(parts.len() as u64 * 65536 + u64::from(tail)).unwrap();
}
