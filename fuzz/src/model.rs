//! What a layer should become, worked out in memory from the documentation of `layerstore-unpack`.
//!
//! The model knows nothing of errors: it is asked only about layers that were unpacked.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use layerstore_oci::Digest;
use layerstore_tar::{Entry, EntryKind};
use layerstore_testkit::tree::{self, Snapshot};
use rustix::fs::{FileType, makedev};

use crate::Item;

/// Files up to this size are compared byte by byte.
const MAX_HASHED: u64 = 128 << 10;

#[derive(Debug)]
struct Node {
    record: tree::Entry,
    children: BTreeMap<Vec<u8>, usize>,
}

/// The tree of a layer.
#[derive(Debug)]
pub struct Model {
    /// The first is the root. What is replaced stays, but is not reached any more.
    nodes: Vec<Node>,
    /// Whether owners and devices can be as the layer says.
    privileged: bool,
}

type Names = Vec<Vec<u8>>;

impl Model {
    /// The tree that `items` become.
    pub fn new(items: &[Item], privileged: bool) -> Self {
        let mut model = Self { nodes: vec![directory()], privileged };
        let (mut whiteouts, mut opaque) = (BTreeSet::new(), BTreeSet::new());
        for item in items {
            let mut names = names(&item.entry.path);
            if item.entry.kind == EntryKind::Other(b'V') {
                continue;
            }
            let Some(name) = names.pop() else {
                let record = model.record(item);
                model.nodes[0].record = record;
                continue;
            };
            if names.iter().any(|name| name.starts_with(b".wh..wh.")) {
                continue;
            }
            match name.strip_prefix(b".wh.") {
                Some(b".wh..opq") => drop(opaque.insert(names)),
                Some(rest) if rest.starts_with(b".wh.") => {}
                Some(hidden) => drop(whiteouts.insert((names, hidden.to_vec()))),
                None => model.add(&names, name, item),
            }
        }
        model.hide(&whiteouts, &opaque);
        model
    }

    fn add(&mut self, names: &[Vec<u8>], name: Vec<u8>, item: &Item) {
        let entry = &item.entry;
        let source = (entry.kind == EntryKind::HardLink).then(|| {
            let mut names = self::names(&entry.link);
            let name = names.pop().expect("a hard link names something");
            let parent = self.walk(&names, false).0.expect("what a hard link names is there");
            self.nodes[parent].children[&name]
        });
        let parent = self.walk(names, true).0.expect("it is made");
        let existing = self.nodes[parent].children.get(&name).copied();
        if let (EntryKind::Directory, Some(existing)) = (entry.kind, existing)
            && self.nodes[existing].record.kind == FileType::Directory
        {
            self.nodes[existing].record = self.record(item);
            return;
        }
        let device = matches!(entry.kind, EntryKind::CharDevice | EntryKind::BlockDevice);
        if device && !self.privileged {
            self.nodes[parent].children.remove(&name);
            return;
        }
        let node = source.unwrap_or_else(|| {
            self.nodes.push(Node { record: self.record(item), children: BTreeMap::new() });
            self.nodes.len() - 1
        });
        self.nodes[parent].children.insert(name, node);
    }

    /// Whiteouts come last, wherever they stand in the layer.
    fn hide(&mut self, whiteouts: &BTreeSet<(Names, Vec<u8>)>, opaque: &BTreeSet<Names>) {
        let opaque: BTreeSet<Names> = opaque.iter().map(|names| self.walk(names, false).1).collect();
        let whiteouts: BTreeSet<Names> = whiteouts
            .iter()
            .map(|(names, hidden)| [self.walk(names, false).1, vec![hidden.clone()]].concat())
            .collect();
        let covered = |names: &[Vec<u8>]| {
            (0..names.len())
                .any(|n| opaque.contains(&names[..n]) || (n > 0 && whiteouts.contains(&names[..n])))
        };
        for names in &opaque {
            // In what is gone, nothing has to be hidden.
            let gone = whiteouts.contains(names) || covered(names);
            if !gone || self.walk(names, false).0.is_some() {
                self.mark(names);
            }
        }
        for names in &whiteouts {
            let (name, above) = names.split_last().expect("a whiteout has a name");
            let parent = self.walk(above, false).0;
            let existing = parent.and_then(|parent| self.nodes[parent].children.get(name).copied());
            match existing {
                Some(node) if self.nodes[node].record.kind == FileType::Directory => self.mark(names),
                Some(_) => {}
                None if covered(names) => {}
                None => {
                    let parent = self.walk(above, true).0.expect("it is made");
                    let mut node = directory();
                    (node.record.kind, node.record.mode) = (FileType::CharacterDevice, 0);
                    self.nodes.push(node);
                    let node = self.nodes.len() - 1;
                    self.nodes[parent].children.insert(name.clone(), node);
                }
            }
        }
    }

    /// The mark itself is an extended attribute, which the comparison puts there again.
    fn mark(&mut self, names: &[Vec<u8>]) {
        let node = self.walk(names, true).0.expect("it is made");
        self.nodes[node].record.xattrs.insert(b"opaque".to_vec(), b"y".to_vec());
    }

    /// Goes to a directory as if the tree were the whole system. Returns also its path without links; what is
    /// missing is made if `make` says so.
    fn walk(&mut self, names: &[Vec<u8>], make: bool) -> (Option<usize>, Names) {
        let mut ahead: VecDeque<Vec<u8>> = names.iter().cloned().collect();
        let mut way: Vec<(Vec<u8>, Option<usize>)> = Vec::new();
        while let Some(name) = ahead.pop_front() {
            if name == b".." {
                way.pop();
                continue;
            }
            let here = way.last().map_or(Some(0), |(_, node)| *node);
            let next = here.and_then(|here| self.nodes[here].children.get(&name).copied());
            match (next, here) {
                (Some(next), _) => match self.nodes[next].record.kind {
                    FileType::Symlink => {
                        let target = self.nodes[next].record.target.clone();
                        if target.starts_with(b"/") {
                            way.clear();
                        }
                        self::names(&target).into_iter().rev().for_each(|name| ahead.push_front(name));
                    }
                    FileType::Directory => way.push((name, Some(next))),
                    _ => way.push((name, None)),
                },
                (None, Some(here)) if make => {
                    self.nodes.push(directory());
                    let next = self.nodes.len() - 1;
                    self.nodes[here].children.insert(name.clone(), next);
                    way.push((name, Some(next)));
                }
                (None, _) => way.push((name, None)),
            }
        }
        let node = way.last().map_or(Some(0), |(_, node)| *node);
        (node, way.into_iter().map(|(name, _)| name).collect())
    }

    fn record(&self, Item { entry, data }: &Item) -> tree::Entry {
        let kind = match entry.kind {
            EntryKind::Directory => FileType::Directory,
            EntryKind::Symlink => FileType::Symlink,
            EntryKind::CharDevice => FileType::CharacterDevice,
            EntryKind::BlockDevice => FileType::BlockDevice,
            EntryKind::Fifo => FileType::Fifo,
            _ => FileType::RegularFile,
        };
        let id = |id: u64| if self.privileged { u32::try_from(id).unwrap_or(u32::MAX) } else { 0 };
        let regular = kind == FileType::RegularFile;
        tree::Entry {
            kind,
            mode: if kind == FileType::Symlink { 0o777 } else { entry.mode },
            uid: id(entry.uid),
            gid: id(entry.gid),
            mtime: (entry.mtime.seconds, entry.mtime.nanoseconds.into()),
            size: if regular { entry.size } else { 0 },
            target: if kind == FileType::Symlink { entry.link.clone() } else { Vec::new() },
            rdev: makedev(entry.device.0, entry.device.1),
            xattrs: BTreeMap::new(),
            sha256: if regular && entry.size <= MAX_HASHED { hash(entry, data) } else { String::new() },
            link_of: None,
        }
    }

    /// Panics unless `snapshot` is this tree. Of extended attributes only the marks of opaque directories are
    /// compared, of which `is_opaque` knows.
    pub fn assert_is(&self, snapshot: &Snapshot, is_opaque: impl Fn(&[u8]) -> bool) {
        let mut entries = BTreeMap::new();
        let mut first = BTreeMap::new();
        // In byte order of the whole path, as the snapshot has the first name of a file.
        let mut ahead = vec![(Vec::new(), 0)];
        while let Some((path, node)) = ahead.pop() {
            for (name, child) in &self.nodes[node].children {
                let slash: &[u8] = if path.is_empty() { b"" } else { b"/" };
                ahead.push(([&path, slash, name].concat(), *child));
            }
            entries.insert(path, node);
        }
        let expected = entries.into_iter().map(|(path, node)| {
            let mut record = self.nodes[node].record.clone();
            let one = first.entry(node).or_insert_with(|| path.clone());
            record.link_of = (*one != path).then(|| one.clone());
            (path, record)
        });
        let expected = Snapshot { entries: expected.collect() };
        let mut found = snapshot.clone();
        for (path, entry) in &mut found.entries {
            entry.xattrs.clear();
            if is_opaque(path) {
                entry.xattrs.insert(b"opaque".to_vec(), b"y".to_vec());
            }
            if entry.size > MAX_HASHED {
                entry.sha256.clear();
            }
        }
        expected.assert_same(&found);
    }
}

fn directory() -> Node {
    let entry = Entry::directory(b"./");
    let model = Model { nodes: Vec::new(), privileged: true };
    Node { record: model.record(&Item { entry, data: Vec::new() }), children: BTreeMap::new() }
}

fn names(path: &[u8]) -> Names {
    let names = path.split(|byte| *byte == b'/').filter(|name| !matches!(*name, b"" | b"."));
    names.map(<[u8]>::to_vec).collect()
}

fn hash(entry: &Entry, data: &[u8]) -> String {
    let Some(segments) = &entry.sparse else { return Digest::sha256_of(data).hex().to_owned() };
    let number = |number: u64| usize::try_from(number).expect("it is small");
    let (mut content, mut rest) = (vec![0; number(entry.size)], data);
    for segment in segments {
        let (start, length) = (number(segment.offset), number(segment.len));
        let (own, after) = rest.split_at(length);
        content[start..start + length].copy_from_slice(own);
        rest = after;
    }
    Digest::sha256_of(&content).hex().to_owned()
}
