//! Unpacks a layer beside a canary and checks what must hold whatever the layer says.
//!
//! Whoever starts a target that unpacks should give it a tmpfs of its own and a root that cannot be written,
//! as `scripts/fuzz` does: the checks here notice an escape, they do not prevent one.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Once;

use layerstore_testkit::tree::{Entry, Snapshot};
use layerstore_unpack::{
    DiffError, DiffOptions, Error, Fixup, Holes, Limits, Options, OverlayXattr, Ownership, PrivateUmask,
    Stream, Unpacked, diff,
};
use rustix::fs::{CWD, FileType, Mode, OFlags, Timespec, Timestamps};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::model::Model;

/// Files that are longer than this together, which only holes can make them, are not compared byte by byte.
const MAX_COMPARED: u64 = 32 << 20;

/// Names that hostile layers use, which must not appear at the root of the machine.
const STRAYS: [&str; 6] = ["/a", "/b", "/c", "/d", "/canary", "/file"];

/// A directory with a canary in it, in which layers are unpacked.
#[derive(Debug)]
pub struct Sandbox {
    base: PathBuf,
    before: Snapshot,
    strays: Vec<bool>,
    options: Options,
    thorough: bool,
}

/// A layer that was unpacked.
#[derive(Debug)]
pub struct Outcome {
    /// What `unpack` says of it.
    pub unpacked: Unpacked,
    /// What `unpack` says of the stream.
    pub stream: Stream,
    /// What is on disk, unless it is too large.
    pub tree: Option<Tree>,
}

/// An exact record of a tree.
#[derive(Debug)]
pub struct Tree {
    snapshot: Snapshot,
    /// overlayfs's marks, which the snapshot leaves out: by path, names and values.
    marks: BTreeMap<Vec<u8>, BTreeMap<Vec<u8>, Vec<u8>>>,
}

impl Sandbox {
    /// Makes a new one in `LAYERSTORE_FUZZ_DIR`, or in `/dev/shm`. It is left behind when something fails. If it is
    /// `thorough`, trees are also copied as fix-ups and made into layers again.
    pub fn new(thorough: bool) -> Self {
        static ONCE: Once = Once::new();
        ONCE.call_once(allow_many_files);
        let parent = std::env::var_os("LAYERSTORE_FUZZ_DIR").map_or_else(|| "/dev/shm".into(), PathBuf::from);
        let base = parent.join(format!("layerstore-fuzz-{}", std::process::id()));
        drop(fs::remove_dir_all(&base));
        let canary = base.join("canary");
        // Names that hostile layers use, two levels of them.
        fs::create_dir_all(canary.join("a/b")).expect("the canary is made");
        for file in ["file", "b", "a/file", "a/b/c"] {
            fs::write(canary.join(file), "untouched").expect("the canary is made");
        }
        std::os::unix::fs::symlink("a", canary.join("c")).expect("the canary is made");
        let time = Timespec { tv_sec: 1, tv_nsec: 2 };
        let times = Timestamps { last_access: time, last_modification: time };
        for path in ["a/b/c", "a/b", "a/file", "a", "b", "file", "."] {
            rustix::fs::utimensat(CWD, canary.join(path), &times, rustix::fs::AtFlags::empty())
                .expect("the canary's times are set");
        }
        let before = Snapshot::of(&canary);
        Self { base, before, strays: strays(), options: options(), thorough }
    }

    /// The directory that must stay as it is.
    pub fn canary(&self) -> PathBuf {
        self.base.join("canary")
    }

    /// Whether owners and devices can be as the layer says.
    pub fn is_privileged(&self) -> bool {
        self.options.ownership == Ownership::Layer
    }

    /// Unpacks `stream` on one thread and on three, which must make no difference.
    pub fn unpack(&self, stream: &[u8]) -> Result<Outcome, Error> {
        let inline = self.unpack_once(stream, Some(1));
        let threaded = self.unpack_once(stream, None);
        match (&inline, &threaded) {
            (Ok(inline), Ok(threaded)) => inline.assert_same(threaded),
            (Err(_), Err(_)) => {}
            (inline, threaded) => {
                panic!("one failed, one did not: {:?}, {:?}", inline.as_ref().err(), threaded.as_ref().err())
            }
        }
        inline
    }

    /// Unpacks `stream`, of which `size` is the length if it is known, and removes the tree.
    pub fn unpack_once(&self, stream: &[u8], size: Option<u64>) -> Result<Outcome, Error> {
        let target = self.base.join("tree");
        fs::create_dir(&target).expect("the target is made");
        let umask = PrivateUmask::enter();
        let result = layerstore_unpack::unpack(stream, size, &target, &self.options, &umask);
        self.before.assert_same(&Snapshot::of(self.canary()));
        let result = result.map(|(unpacked, stream)| {
            let tree = (unpacked.usage.bytes <= MAX_COMPARED).then(|| self.record(&target));
            if let Some(tree) = &tree {
                tree.check(&unpacked, &target, self.options.overlay);
                if self.thorough {
                    self.check_fixup(tree, &target);
                    self.check_way_back(tree, &target);
                }
            }
            Outcome { unpacked, stream, tree }
        });
        if let Err(error) = &result {
            check_message(error);
        }
        fs::remove_dir_all(&target).expect("the tree is removable");
        let beside: Vec<_> = fs::read_dir(&self.base).expect("the sandbox is there").collect();
        assert_eq!(beside.len(), 1, "something appeared outside of the tree: {beside:?}");
        assert_eq!(self.strays, strays(), "something appeared at the root of the machine");
        result
    }

    fn record(&self, target: &Path) -> Tree {
        let snapshot = Snapshot::of(target);
        let mut marks: BTreeMap<Vec<u8>, BTreeMap<_, _>> = BTreeMap::new();
        for (path, entry) in &snapshot.entries {
            let mut found = match self.options.overlay {
                OverlayXattr::Trusted => trusted_marks(&at(target, path)),
                OverlayXattr::User => entry.xattrs.clone(),
            };
            found.retain(|name, _| name.starts_with(prefix(self.options.overlay)));
            if !found.is_empty() {
                marks.insert(path.clone(), found);
            }
        }
        Tree { snapshot, marks }
    }

    /// The layer that is made of a tree gives the same tree, and that the same layer.
    fn check_way_back(&self, tree: &Tree, target: &Path) {
        let limits = Limits::default();
        let options = DiffOptions { overlay: self.options.overlay, holes: Holes::Keep, newest: None, limits };
        // By way of a symbolic link a layer can make directories that no layer can name.
        let whiteout = |name: &[u8]| name.starts_with(b".wh.");
        if tree.snapshot.entries.keys().any(|path| path.split(|byte| *byte == b'/').any(whiteout)) {
            let result = diff(target, Vec::new(), &options);
            assert!(matches!(result, Err(DiffError::Refused { .. })), "{:?}", result.map(|(made, _)| made));
            return;
        }
        let layer = |upper: &Path| diff(upper, Vec::new(), &options).expect("a layer is made of a tree");
        let (made, bytes) = layer(target);
        assert_eq!(made.bytes, bytes.len() as u64);
        let copy = self.base.join("back");
        fs::create_dir(&copy).expect("the copy's directory is made");
        let options = Options { limits, ..self.options };
        let unpacked = layerstore_unpack::unpack(&*bytes, None, &copy, &options, &PrivateUmask::enter());
        let (unpacked, _) = unpacked.expect("what was made is accepted");
        assert!(unpacked.implied.is_empty() && unpacked.lower_links.is_empty());
        let back = self.record(&copy);
        tree.snapshot.assert_same(&back.snapshot);
        assert_eq!(tree.marks, back.marks);
        assert!(layer(&copy).1 == bytes, "the same tree gave another layer");
        fs::remove_dir_all(&copy).expect("the copy is removable");
    }

    /// A fix-up that repeats all of a tree is like it, without overlayfs's marks.
    fn check_fixup(&self, tree: &Tree, target: &Path) {
        let copy = self.base.join("fixup");
        fs::create_dir(&copy).expect("the fix-up's directory is made");
        let mut fixup = Fixup::new(&copy, &self.options).expect("the fix-up is begun");
        let open = |path: &[u8], flags| {
            let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
            rustix::fs::open(at(target, path), flags, Mode::empty()).expect("it is there")
        };
        let entries: BTreeMap<_, _> =
            tree.snapshot.entries.iter().filter(|(_, entry)| !is_whiteout(entry)).collect();
        for (path, entry) in &entries {
            if entry.kind == FileType::Directory {
                fixup
                    .directory(path, &open(path, OFlags::RDONLY | OFlags::DIRECTORY))
                    .expect("it is repeated");
            }
        }
        for (path, entry) in &entries {
            if entry.kind != FileType::Directory && entry.link_of.is_none() {
                let other = |(other, entry): (&&Vec<u8>, &&Entry)| {
                    (entry.link_of.as_ref() == Some(*path)).then(|| (*other).clone())
                };
                let mut names = vec![(*path).clone()];
                names.extend(entries.iter().filter_map(other));
                fixup.file(&names, &open(path, OFlags::PATH)).expect("it is repeated");
            }
        }
        let usage = fixup.finish().expect("the fix-up is finished");
        assert_eq!(usage.inodes, entries.values().filter(|entry| entry.link_of.is_none()).count() as u64);
        let mut expected = BTreeMap::new();
        for (path, entry) in entries {
            let mut entry = entry.clone();
            let mark = prefix(self.options.overlay);
            entry
                .xattrs
                .retain(|name, _| name.strip_prefix(mark).is_none_or(|rest| rest.starts_with(b"overlay.")));
            expected.insert(path.clone(), entry);
        }
        Snapshot { entries: expected }.assert_same(&Snapshot::of(&copy));
        fs::remove_dir_all(&copy).expect("the fix-up is removable");
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            drop(fs::remove_dir_all(&self.base));
        }
    }
}

impl Outcome {
    /// Panics unless both are the same layer.
    #[track_caller]
    pub fn assert_same(&self, other: &Self) {
        assert_eq!(self.stream, other.stream);
        self.assert_same_tree(other);
    }

    /// Panics unless both streams gave the same tree.
    #[track_caller]
    pub fn assert_same_tree(&self, other: &Self) {
        assert_eq!(self.unpacked, other.unpacked);
        if let (Some(one), Some(other)) = (&self.tree, &other.tree) {
            one.snapshot.assert_same(&other.snapshot);
            assert_eq!(one.marks, other.marks);
        }
    }
}

impl Outcome {
    /// Panics unless the layer became what `model` says.
    pub fn assert_is(&self, model: &Model) {
        assert_eq!(self.unpacked.implied, model.implied());
        let links = self.unpacked.lower_links.iter().map(|link| (link.path.clone(), link.target.clone()));
        assert_eq!(links.collect::<BTreeMap<_, _>>(), model.lower_links());
        if let Some(tree) = &self.tree {
            tree.assert_is(model);
        }
    }
}

impl Tree {
    fn assert_is(&self, model: &Model) {
        let opaque = |path: &[u8]| {
            let marks = self.marks.get(path);
            marks.is_some_and(|marks| {
                marks.keys().any(|name| {
                    name.ends_with(b".overlay.opaque") && !name.ends_with(b".overlay.overlay.opaque")
                })
            })
        };
        model.assert_is(&self.snapshot, opaque);
    }

    fn list(&self) -> String {
        self.snapshot.entries.iter().fold(String::new(), |list, (path, entry)| {
            let link = if entry.link_of.is_some() { ", a hard link" } else { "" };
            format!("{list}\n  /{} {:?} of {} bytes{link}", path.escape_ascii(), entry.kind, entry.size)
        })
    }

    /// What `unpack` says of a tree must be so, and nothing in it may make overlayfs do what only the unpacker
    /// decides.
    fn check(&self, unpacked: &Unpacked, target: &Path, overlay: OverlayXattr) {
        let (mut inodes, mut bytes, mut allocated) = (0, 0u64, 0);
        for (path, entry) in &self.snapshot.entries {
            if entry.link_of.is_some() {
                continue;
            }
            inodes += 1;
            allocated += fs::symlink_metadata(at(target, path)).expect("it is there").blocks() * 512;
            if entry.kind == FileType::RegularFile {
                bytes += entry.size;
            }
            if is_whiteout(entry) {
                assert_eq!(
                    (entry.mode, entry.mtime),
                    (0, (0, 0)),
                    "a whiteout that a layer brought: {entry:?}"
                );
            }
        }
        let usage = unpacked.usage;
        assert_eq!((usage.inodes, usage.bytes), (inodes, bytes), "of {}", self.list());
        // Other file systems have other blocks.
        if is_tmpfs(target) {
            assert_eq!(usage.allocated, allocated, "of {}", self.list());
        }
        for path in &unpacked.implied {
            let entry = self.snapshot.entries.get(path).expect("an implied directory is there");
            assert_eq!((entry.kind, entry.mode, entry.mtime), (FileType::Directory, 0o755, (0, 0)));
        }
        // The marks of overlayfs that are there are those that the unpacker makes: no other acts.
        let mut origins = BTreeSet::new();
        for (path, marks) in &self.marks {
            for (name, value) in marks {
                let rest = &name[prefix(overlay).len()..];
                let directory = self.snapshot.entries[path].kind == FileType::Directory;
                match (rest, value.as_slice()) {
                    (b"opaque", b"y") if directory => {}
                    (b"origin", b"") if directory => drop(origins.insert(path.clone())),
                    _ => assert!(rest.starts_with(b"overlay."), "{} of {path:?}", name.escape_ascii()),
                }
            }
        }
        let whiteouts = self.snapshot.entries.iter().filter(|(_, entry)| is_whiteout(entry));
        let mut places: BTreeSet<_> = whiteouts.map(|(path, _)| parent(path).to_vec()).collect();
        // The root of a mount is looked through without a mark.
        places.remove(&[][..]);
        assert_eq!(origins, places, "marks of places of whiteouts");
    }
}

fn is_whiteout(entry: &Entry) -> bool {
    entry.kind == FileType::CharacterDevice && entry.rdev == 0
}

fn parent(path: &[u8]) -> &[u8] {
    path.iter().rposition(|byte| *byte == b'/').map_or(&[], |slash| &path[..slash])
}

/// Messages go to a terminal.
fn check_message(error: &Error) {
    let mut error: Option<&dyn std::error::Error> = Some(error);
    while let Some(cause) = error {
        let text = cause.to_string();
        assert!(!text.chars().any(char::is_control), "control characters in {text:?}");
        error = cause.source();
    }
}

fn options() -> Options {
    // In a user namespace of its own, root is not the one that the kernel means.
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let root =
        rustix::process::geteuid().is_root() && map.split_whitespace().eq(["0", "0", &u32::MAX.to_string()]);
    Options {
        overlay: if root { OverlayXattr::Trusted } else { OverlayXattr::User },
        ownership: if root { Ownership::Layer } else { Ownership::Current },
        limits: Limits {
            output_bytes: 4 << 20,
            entries: 300,
            memory: 1 << 20,
            depth: 300,
            tar: layerstore_tar::Limits { sparse_segments: 1000, xattrs: 16, ..Default::default() },
            ..Default::default()
        },
    }
}

fn prefix(overlay: OverlayXattr) -> &'static [u8] {
    match overlay {
        OverlayXattr::Trusted => b"trusted.overlay.",
        OverlayXattr::User => b"user.overlay.",
    }
}

fn at(target: &Path, path: &[u8]) -> PathBuf {
    target.join(std::ffi::OsStr::from_bytes(path))
}

fn trusted_marks(path: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut names = vec![0; 65536];
    let length = rustix::fs::llistxattr(path, &mut names[..]).expect("attributes are listed");
    let names = names[..length].split(|byte| *byte == 0);
    let mut value = vec![0; 65536];
    names
        .filter(|name| name.starts_with(b"trusted.overlay."))
        .map(|name| {
            let length = rustix::fs::lgetxattr(path, name, &mut value[..]).expect("an attribute is read");
            (name.to_vec(), value[..length].to_vec())
        })
        .collect()
}

fn is_tmpfs(path: &Path) -> bool {
    const TMPFS_MAGIC: u64 = 0x0102_1994;
    rustix::fs::statfs(path).is_ok_and(|found| u64::try_from(found.f_type) == Ok(TMPFS_MAGIC))
}

fn strays() -> Vec<bool> {
    STRAYS.iter().map(|path| fs::symlink_metadata(path).is_ok()).collect()
}

/// A tree may be deep, and looking at it holds every directory on the way open.
fn allow_many_files() {
    let limit = getrlimit(Resource::Nofile);
    let limit = Rlimit { current: limit.maximum, maximum: limit.maximum };
    setrlimit(Resource::Nofile, limit).expect("the limit of open files can be raised");
}
