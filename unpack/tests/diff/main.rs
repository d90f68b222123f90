//! What layer becomes of a directory that overlayfs wrote into, and that nothing is lost on the way back.
#![allow(
    clippy::unwrap_used,
    clippy::format_collect,
    reason = "a panic is how a test fails, and a test need not be fast"
)]

mod build;
mod content;
mod flat;
mod form;
mod gnu_tar;
mod hostile;
mod mount;
mod round_trip;
mod walk;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use layerstore_tar::{Entry, EntryKind, Reader};
use layerstore_testkit::tree::Snapshot;
use layerstore_unpack::{
    DiffError, DiffOptions, Diffed, Holes, Limits, Options, OverlayXattr, Ownership, PrivateUmask, diff,
    unpack,
};
use rustix::fs::{FileType, XattrFlags};

fn options() -> DiffOptions {
    DiffOptions { overlay: overlay(), holes: Holes::Keep, newest: None, limits: Limits::default() }
}

fn overlay() -> OverlayXattr {
    if is_root() { OverlayXattr::Trusted } else { OverlayXattr::User }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The name of one of overlayfs's attributes.
fn own(name: &str) -> String {
    format!("{}.overlay.{name}", if is_root() { "trusted" } else { "user" })
}

/// A directory that a test fills.
struct Upper(tempfile::TempDir);

impl Upper {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, path: impl AsRef<[u8]>) -> PathBuf {
        join(self.0.path(), path.as_ref())
    }

    fn dir(&self, path: impl AsRef<[u8]>) -> &Self {
        std::fs::create_dir(self.path(path)).unwrap();
        self
    }

    fn file(&self, path: impl AsRef<[u8]>, data: impl AsRef<[u8]>) -> &Self {
        std::fs::write(self.path(path), data).unwrap();
        self
    }

    fn link(&self, old: &str, new: &str) -> &Self {
        rustix::fs::link(self.path(old), self.path(new)).unwrap();
        self
    }

    fn symlink(&self, path: &str, target: impl AsRef<[u8]>) -> &Self {
        rustix::fs::symlink(target.as_ref(), self.path(path)).unwrap();
        self
    }

    fn fifo(&self, path: &str) -> &Self {
        build::node(&self.path(path), FileType::Fifo, 0);
        self
    }

    fn whiteout(&self, path: &str) -> &Self {
        build::node(&self.path(path), FileType::CharacterDevice, 0);
        self
    }

    fn xattr(&self, path: &str, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> &Self {
        let flags = XattrFlags::empty();
        rustix::fs::lsetxattr(self.path(path), name.as_ref(), value.as_ref(), flags).unwrap();
        self
    }

    fn diff(&self) -> Layer {
        self.diff_with(&options()).unwrap()
    }

    fn diff_with(&self, options: &DiffOptions) -> Result<Layer, DiffError> {
        layer_of(self.0.path(), options)
    }

    #[track_caller]
    fn error(&self) -> DiffError {
        match self.diff_with(&options()) {
            Ok(layer) => panic!("a layer was made: {:?}", layer.listing()),
            Err(error) => error,
        }
    }
}

fn join(root: &Path, path: &[u8]) -> PathBuf {
    root.join(OsStr::from_bytes(path))
}

struct Layer {
    stream: Vec<u8>,
    result: Diffed,
}

fn layer_of(path: &Path, options: &DiffOptions) -> Result<Layer, DiffError> {
    let (result, stream) = diff(path, Vec::new(), options)?;
    assert_eq!(result.bytes, stream.len() as u64);
    let layer = Layer { stream, result };
    if options.limits == Limits::default() {
        assert_eq!(layer.result.entries, layer.entries().len() as u64);
    }
    Ok(layer)
}

impl Layer {
    /// As anybody reads it.
    fn entries(&self) -> Vec<(Entry, Vec<u8>)> {
        let mut reader = Reader::new(self.stream.as_slice());
        let mut entries = Vec::new();
        while let Some(entry) = reader.next_entry().unwrap() {
            let mut data = Vec::new();
            std::io::Read::read_to_end(&mut reader.data(), &mut data).unwrap();
            entries.push((entry, data));
        }
        entries
    }

    fn at(&self, path: &str) -> Entry {
        let found = self.entries().into_iter().find(|(entry, _)| entry.path == path.as_bytes());
        found.unwrap_or_else(|| panic!("no `{path}` in {:?}", self.listing())).0
    }

    /// The entries in their order, each as its path and, for links, target.
    fn listing(&self) -> Vec<String> {
        let line = |(entry, _): (Entry, Vec<u8>)| {
            let path = entry.path.escape_ascii();
            match entry.kind {
                EntryKind::HardLink => format!("{path} = {}", entry.link.escape_ascii()),
                EntryKind::Symlink => format!("{path} -> {}", entry.link.escape_ascii()),
                _ => path.to_string(),
            }
        };
        self.entries().into_iter().map(line).collect()
    }

    fn unpack(&self) -> tempfile::TempDir {
        let target = tempfile::tempdir().unwrap();
        self.unpack_to(target.path());
        target
    }

    fn unpack_to(&self, target: &Path) {
        self.unpack_to_with(target, overlay());
    }

    fn unpack_to_with(&self, target: &Path, overlay: OverlayXattr) {
        let ownership = if is_root() { Ownership::Layer } else { Ownership::Current };
        let options = Options { overlay, ownership, limits: Limits::default() };
        // On a thread of its own, which gets a umask of its own.
        std::thread::scope(|scope| {
            let unpack =
                || unpack(self.stream.as_slice(), Some(1), target, &options, &PrivateUmask::enter()).unwrap();
            scope.spawn(unpack).join().unwrap()
        });
    }
}

/// All attributes with overlayfs's prefix, by path and name.
fn marks(root: &Path, snapshot: &Snapshot) -> BTreeMap<(Vec<u8>, String), Vec<u8>> {
    let mut marks = BTreeMap::new();
    let (mut names, mut value) = (vec![0; 65536], vec![0; 65536]);
    for path in snapshot.entries.keys() {
        let file = join(root, path);
        let length = rustix::fs::llistxattr(&file, &mut names[..]).unwrap();
        for name in names[..length].split(|byte| *byte == 0) {
            if name.starts_with(own("").as_bytes()) {
                let length = rustix::fs::lgetxattr(&file, name, &mut value[..]).unwrap();
                let name = String::from_utf8(name.to_vec()).unwrap();
                marks.insert((path.clone(), name), value[..length].to_vec());
            }
        }
    }
    marks
}

/// An access ACL: user 1234 may do everything.
fn acl() -> Vec<u8> {
    let mut acl = vec![2, 0, 0, 0];
    for (tag, permissions, id) in
        [(1u8, 7u8, u32::MAX), (2, 7, 1234), (4, 5, u32::MAX), (0x10, 7, u32::MAX), (0x20, 0, u32::MAX)]
    {
        acl.extend_from_slice(&[tag, 0, permissions, 0]);
        acl.extend_from_slice(&id.to_le_bytes());
    }
    acl
}
