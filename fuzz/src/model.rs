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
    /// Not listed by the layer.
    implied: bool,
    children: BTreeMap<Vec<u8>, usize>,
}

/// The tree of a layer.
#[derive(Debug)]
pub struct Model {
    /// The first is the root. What is replaced stays, but is not reached any more.
    nodes: Vec<Node>,
    /// Hard links to what is not there, both ends without symbolic links. An empty target stands for nothing.
    links: BTreeMap<Names, Names>,
    /// Paths of what whiteouts hide, and of opaque directories, as the layer says them.
    whiteouts: BTreeSet<(Names, Vec<u8>)>,
    opaque: BTreeSet<Names>,
    /// Whether owners and devices can be as the layer says.
    privileged: bool,
}

type Names = Vec<Vec<u8>>;

impl Model {
    /// The tree that `items` become.
    pub fn new(items: &[Item], privileged: bool) -> Self {
        let mut model = Self { privileged, nodes: vec![directory()], ..Self::empty() };
        for item in items {
            let mut names = names(&item.entry.path);
            if item.entry.kind == EntryKind::Other(b'V') {
                continue;
            }
            let Some(name) = names.pop() else {
                let record = model.record(item);
                (model.nodes[0].record, model.nodes[0].implied) = (record, false);
                continue;
            };
            if names.iter().any(|name| name.starts_with(b".wh..wh.")) {
                continue;
            }
            match name.strip_prefix(b".wh.") {
                Some(b".wh..opq") => drop(model.opaque.insert(names)),
                Some(rest) if rest.starts_with(b".wh.") => {}
                Some(hidden) => drop(model.whiteouts.insert((names, hidden.to_vec()))),
                None => model.add(&names, name, item),
            }
        }
        model.settle_links();
        model.hide();
        model
    }

    fn empty() -> Self {
        let (links, whiteouts, opaque) = (BTreeMap::new(), BTreeSet::new(), BTreeSet::new());
        Self { nodes: Vec::new(), links, whiteouts, opaque, privileged: true }
    }

    fn add(&mut self, names: &[Vec<u8>], name: Vec<u8>, item: &Item) {
        let entry = &item.entry;
        let target = (entry.kind == EntryKind::HardLink).then(|| self::names(&entry.link));
        let source = target.as_ref().and_then(|target| self.find(target));
        let (parent, place) = self.walk(names, true);
        let parent = parent.expect("it is made");
        let place = [place, vec![name.clone()]].concat();
        let existing = self.nodes[parent].children.get(&name).copied();
        if let (EntryKind::Directory, Some(existing)) = (entry.kind, existing)
            && self.nodes[existing].record.kind == FileType::Directory
        {
            self.links.remove(&place);
            let record = self.record(item);
            (self.nodes[existing].record, self.nodes[existing].implied) = (record, false);
            return;
        }
        self.links.retain(|link, _| !link.starts_with(&place));
        if entry.kind == EntryKind::CharDevice && entry.device == (0, 0) {
            // A whiteout that is not called one: a link to nothing, until something else takes its place.
            self.nodes[parent].children.remove(&name);
            self.links.insert(place, Vec::new());
            return;
        }
        let device = matches!(entry.kind, EntryKind::CharDevice | EntryKind::BlockDevice);
        if device && !self.privileged {
            self.nodes[parent].children.remove(&name);
            return;
        }
        match (target, source) {
            (Some(target), None) => {
                // What an earlier entry put there goes all the same.
                self.nodes[parent].children.remove(&name);
                let (name, above) = target.split_last().expect("a hard link names something");
                let target = [self.walk(above, false).1, vec![name.clone()]].concat();
                self.links.insert(place, target);
            }
            (_, Some(source)) => drop(self.nodes[parent].children.insert(name, source)),
            (None, None) => {
                let record = self.record(item);
                self.put(parent, name, Node { record, implied: false, children: BTreeMap::new() });
            }
        }
    }

    fn put(&mut self, parent: usize, name: Vec<u8>, node: Node) -> usize {
        let number = self.nodes.len();
        self.nodes.push(node);
        self.nodes[parent].children.insert(name, number);
        number
    }

    /// What is at a path, which is not followed if it is a link.
    fn find(&mut self, names: &[Vec<u8>]) -> Option<usize> {
        let (name, above) = names.split_last()?;
        let parent = self.walk(above, false).0?;
        self.nodes[parent].children.get(name).copied()
    }

    /// Makes the links whose target came after them; those that are left lead to a layer below, and replace what is
    /// there.
    fn settle_links(&mut self) {
        let links = self.links.clone();
        for (link, mut target) in links.clone() {
            while let Some(next) = links.get(&target) {
                target.clone_from(next);
            }
            if target.is_empty() {
                self.whiteouts.insert(split(&link));
                self.links.remove(&link);
                continue;
            }
            let Some(source) = self.find(&target) else {
                self.whiteouts.insert(split(&link));
                self.links.insert(link, target);
                continue;
            };
            let (name, above) = link.split_last().expect("a link has a name");
            let parent = self.walk(above, true).0.expect("it is made");
            self.nodes[parent].children.insert(name.clone(), source);
            self.links.remove(&link);
        }
    }

    /// Whiteouts come last, wherever they stand in the layer.
    fn hide(&mut self) {
        let (opaque, whiteouts) = (self.opaque.clone(), self.whiteouts.clone());
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
                Some(node) if self.nodes[node].record.kind == FileType::Directory => {
                    self.mark(names);
                    // What was below says nothing of it.
                    self.nodes[node].implied = false;
                }
                Some(_) => {}
                None if covered(names) => {}
                None => {
                    let parent = self.walk(above, true).0.expect("it is made");
                    let mut node = directory();
                    (node.record.kind, node.record.mode) = (FileType::CharacterDevice, 0);
                    self.put(parent, name.clone(), node);
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
        // Not even `..` leads out of what is not there.
        let mut lost = false;
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
                    _ => {
                        lost = true;
                        way.push((name, None));
                    }
                },
                (None, Some(here)) if make => {
                    let next = self.put(here, name.clone(), directory());
                    way.push((name, Some(next)));
                }
                (None, _) => {
                    lost = true;
                    way.push((name, None));
                }
            }
        }
        let node = way.last().map_or(Some(0), |(_, node)| *node).filter(|_| !lost);
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

    /// All paths with what is there, in byte order.
    fn paths(&self) -> BTreeMap<Vec<u8>, usize> {
        let mut paths = BTreeMap::new();
        let mut ahead = vec![(Vec::new(), 0)];
        while let Some((path, node)) = ahead.pop() {
            for (name, child) in &self.nodes[node].children {
                let slash: &[u8] = if path.is_empty() { b"" } else { b"/" };
                ahead.push(([&path, slash, name].concat(), *child));
            }
            paths.insert(path, node);
        }
        paths
    }

    /// The directories that the layer does not list, in byte order.
    pub fn implied(&self) -> Vec<Vec<u8>> {
        let implied = |node: &Node| node.implied && node.record.kind == FileType::Directory;
        self.paths()
            .into_iter()
            .filter(|(_, node)| implied(&self.nodes[*node]))
            .map(|(path, _)| path)
            .collect()
    }

    /// Hard links to files of layers below: path and target.
    pub fn lower_links(&self) -> BTreeMap<Vec<u8>, Vec<u8>> {
        self.links.iter().map(|(link, target)| (link.join(&b'/'), target.join(&b'/'))).collect()
    }

    /// Panics unless `snapshot` is this tree. Of extended attributes only the marks of opaque directories are
    /// compared, of which `is_opaque` knows.
    pub fn assert_is(&self, snapshot: &Snapshot, is_opaque: impl Fn(&[u8]) -> bool) {
        let mut first = BTreeMap::new();
        let expected = self.paths().into_iter().map(|(path, node)| {
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
    let record = Model::empty().record(&Item { entry, data: Vec::new() });
    Node { record, implied: true, children: BTreeMap::new() }
}

fn split(names: &[Vec<u8>]) -> (Names, Vec<u8>) {
    let (name, above) = names.split_last().expect("it is not the root");
    (above.to_vec(), name.clone())
}

fn names(path: &[u8]) -> Names {
    let names = path.split(|byte| *byte == b'/').filter(|name| !matches!(*name, b"" | b"."));
    names.map(<[u8]>::to_vec).collect()
}

fn hash(entry: &Entry, data: &[u8]) -> String {
    let Some(segments) = &entry.sparse else { return Digest::sha256_of(data).hex() };
    let number = |number: u64| usize::try_from(number).expect("it is small");
    let (mut content, mut rest) = (vec![0; number(entry.size)], data);
    for segment in segments {
        let (start, length) = (number(segment.offset), number(segment.len));
        let (own, after) = rest.split_at(length);
        content[start..start + length].copy_from_slice(own);
        rest = after;
    }
    Digest::sha256_of(&content).hex()
}
