//! What becomes of layers on disk, honest and hostile ones.
#![allow(
    clippy::unwrap_used,
    clippy::naive_bytecount,
    clippy::format_collect,
    reason = "a panic is how a test fails, and a test need not be fast"
)]

mod attributes;
mod contain;
mod gnu_tar;
mod limits;
mod links;
mod race;
mod replace;
mod sandbox;
mod sparse;
mod streams;
mod usage;
mod whiteouts;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use layerstore_tar::{Entry, Timestamp, Writer};
use layerstore_testkit::tree::Snapshot;
use layerstore_unpack::{
    Error, Limits, Options, OverlayXattr, Ownership, PrivateUmask, Stream, Unpacked, Usage,
};
use rustix::fs::{FileType, XattrFlags};

/// An entry of a layer and its data.
#[derive(Debug, Clone)]
struct Item {
    entry: Entry,
    data: Vec<u8>,
}

impl From<Entry> for Item {
    fn from(mut entry: Entry) -> Self {
        (entry.uid, entry.gid) = own_ids();
        Self { entry, data: Vec::new() }
    }
}

impl Item {
    fn mode(mut self, mode: u32) -> Self {
        self.entry.mode = mode;
        self
    }

    fn owner(mut self, uid: u64, gid: u64) -> Self {
        (self.entry.uid, self.entry.gid) = (uid, gid);
        self
    }

    fn mtime(mut self, seconds: i64, nanoseconds: u32) -> Self {
        self.entry.mtime = Timestamp { seconds, nanoseconds };
        self
    }

    fn xattr(mut self, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Self {
        self.entry.xattrs.push((name.as_ref().to_vec(), value.as_ref().to_vec()));
        self
    }
}

/// Of whoever runs the tests, so that most of them need no privilege.
fn own_ids() -> (u64, u64) {
    (rustix::process::geteuid().as_raw().into(), rustix::process::getegid().as_raw().into())
}

fn file(path: impl AsRef<[u8]>, data: impl AsRef<[u8]>) -> Item {
    let data = data.as_ref().to_vec();
    Item { data: data.clone(), ..Entry::regular(path.as_ref(), data.len() as u64).into() }
}

fn dir(path: impl AsRef<[u8]>) -> Item {
    Entry::directory(path.as_ref()).into()
}

fn symlink(path: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Item {
    Entry::symlink(path.as_ref(), target.as_ref()).into()
}

fn hard_link(path: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Item {
    Entry::hard_link(path.as_ref(), target.as_ref()).into()
}

fn fifo(path: impl AsRef<[u8]>) -> Item {
    Entry::fifo(path.as_ref()).into()
}

fn tar(items: &[Item]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for Item { entry, data } in items {
        writer.append(entry, data.as_slice()).unwrap();
    }
    writer.finish().unwrap()
}

/// As the layer says where that is allowed.
fn options() -> Options {
    let root = rustix::process::geteuid().is_root();
    Options {
        overlay: if root { OverlayXattr::Trusted } else { OverlayXattr::User },
        ownership: if root { Ownership::Layer } else { Ownership::Current },
        limits: Limits::default(),
    }
}

/// A layer that was unpacked, and a directory beside it that nobody may touch.
struct Tree {
    dir: tempfile::TempDir,
    unpacked: Unpacked,
    stream: Stream,
}

impl Tree {
    fn path(&self, path: impl AsRef<[u8]>) -> PathBuf {
        self.dir.path().join("tree").join(OsStr::from_bytes(path.as_ref()))
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot::of(self.path(""))
    }

    fn usage(&self) -> Usage {
        self.unpacked.usage
    }

    /// What the tree takes, by the kernel's word.
    fn counted(&self) -> Usage {
        let mut usage = Usage::default();
        for (path, entry) in &self.snapshot().entries {
            if entry.link_of.is_none() {
                usage.inodes += 1;
                usage.bytes += entry.size;
                usage.allocated += std::fs::symlink_metadata(self.path(path)).unwrap().blocks() * 512;
            }
        }
        usage
    }

    fn implied(&self) -> Vec<String> {
        self.unpacked.implied.iter().map(|path| path.escape_ascii().to_string()).collect()
    }

    /// Names beyond the first of each file.
    fn names_of_links(&self) -> u64 {
        self.snapshot().entries.values().filter(|entry| entry.link_of.is_some()).count() as u64
    }

    /// Everything below the root in a word: `path/` is a directory, `path/ opaque` an opaque one,
    /// `path -` a whiteout.
    fn shape(&self) -> Vec<String> {
        let mut shape = Vec::new();
        for (path, entry) in self.snapshot().entries {
            let whiteout = entry.kind == FileType::CharacterDevice && entry.rdev == 0;
            let mut line = path.escape_ascii().to_string();
            match entry.kind {
                FileType::Directory if is_opaque(&self.path(&path)) => line.push_str("/ opaque"),
                FileType::Directory if path.is_empty() => continue,
                FileType::Directory => line.push('/'),
                _ if whiteout => line.push_str(" -"),
                _ => {}
            }
            shape.push(line);
        }
        shape
    }
}

fn is_opaque(path: &Path) -> bool {
    let name = match options().overlay {
        OverlayXattr::Trusted => "trusted.overlay.opaque",
        OverlayXattr::User => "user.overlay.opaque",
    };
    let mut value = [0; 8];
    rustix::fs::lgetxattr(path, name, &mut value[..]).is_ok_and(|length| &value[..length] == b"y")
}

fn unpack_with(stream: &[u8], size: Option<u64>, options: &Options) -> Result<Tree, Error> {
    let dir = tempfile::tempdir().unwrap();
    unpack_in(dir, stream, size, options)
}

/// Checks that nothing outside the tree is touched, come what may.
fn unpack_in(
    dir: tempfile::TempDir,
    stream: &[u8],
    size: Option<u64>,
    options: &Options,
) -> Result<Tree, Error> {
    let canary = dir.path().join("canary");
    std::fs::create_dir_all(canary.join("dir")).unwrap();
    std::fs::write(canary.join("file"), "untouched").unwrap();
    std::fs::write(canary.join("dir/file"), "untouched").unwrap();
    std::os::unix::fs::symlink("dir", canary.join("link")).unwrap();
    if let Err(errno) = rustix::fs::setxattr(canary.join("file"), "user.k", b"v", XattrFlags::empty()) {
        assert_eq!(errno, rustix::io::Errno::OPNOTSUPP);
    }
    let before = Snapshot::of(&canary);
    let target = dir.path().join("tree");
    if !target.exists() {
        std::fs::create_dir(&target).unwrap();
    }
    // On a thread of its own, as the umask of this one is for the test to choose.
    let result = std::thread::scope(|scope| {
        let unpack = || layerstore_unpack::unpack(stream, size, &target, options, &PrivateUmask::enter());
        scope.spawn(unpack).join().unwrap()
    });
    before.assert_same(&Snapshot::of(&canary));
    let mut beside: Vec<_> =
        std::fs::read_dir(dir.path()).unwrap().map(|found| found.unwrap().file_name()).collect();
    beside.sort();
    assert_eq!(beside, ["canary", "tree"], "something appeared outside of the tree");
    result.map(|(unpacked, stream)| Tree { dir, unpacked, stream })
}

/// Unpacks on one thread and on three, which must make no difference.
fn try_apply(items: &[Item]) -> Result<Tree, Error> {
    let stream = tar(items);
    let inline = unpack_with(&stream, Some(1), &options());
    let threaded = unpack_with(&stream, None, &options());
    match (&inline, &threaded) {
        (Ok(inline), Ok(threaded)) => {
            inline.snapshot().assert_same(&threaded.snapshot());
            assert_eq!(inline.unpacked, threaded.unpacked);
            assert_eq!(inline.stream, threaded.stream);
        }
        (Err(inline), Err(threaded)) => assert_eq!(inline.to_string(), threaded.to_string()),
        (inline, threaded) => {
            panic!("one failed: {:?}, {:?}", inline.as_ref().err(), threaded.as_ref().err())
        }
    }
    inline
}

#[track_caller]
fn apply(items: &[Item]) -> Tree {
    try_apply(items).unwrap_or_else(|error| panic!("{error}: {:?}", std::error::Error::source(&error)))
}

/// The message of the refusal, which must be one.
#[track_caller]
fn refusal(items: &[Item]) -> String {
    match try_apply(items) {
        Ok(tree) => panic!("this was accepted: {:?}", tree.shape()),
        Err(error @ Error::Refused { .. }) => error.to_string(),
        Err(error) => panic!("not refused for what it says: {error:?}"),
    }
}
