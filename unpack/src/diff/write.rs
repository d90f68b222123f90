//! The walk through the tree, and its entries.

use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::Path;

use layerstore_tar::{Entry, EntryKind, Segment, Timestamp, Writer};
use rustix::fs::{FileType, Stat, major, minor};

use super::content::{check_unchanged, read, segments};
use super::error::{DiffError, changed, refused, too_much};
use super::links::{Links, Name};
use super::node::{Identity, Node, above, identity, names};
use super::xattrs::{Opaque, Source, Xattrs};
use super::{DiffOptions, Diffed, Holes};
use crate::options::Devices;
use crate::whiteout::{OPAQUE, PREFIX};

/// Bytes read at once.
const BUFFER: usize = 256 * 1024;

/// Memory that a name takes besides its bytes.
const NAME: u64 = 64;

/// The same for the first name of a hard-linked file.
const LINK: u64 = 256;

/// PAX records other than attributes and paths: numbers and times.
const RECORDS: usize = 1024;

/// A directory on the way from the root to where the walk is.
#[derive(Debug)]
struct Frame {
    identity: Identity,
    /// What is still to do there, from the end.
    names: Vec<Box<[u8]>>,
    /// Length of its path.
    path: usize,
    /// Nothing of the layers below is seen in it, so nothing needs hiding.
    hidden: bool,
    /// Regular files in it may be whiteouts.
    whiteouts: bool,
    /// A layer below certainly has the directory, too.
    merged: bool,
}

pub(super) struct Differ<'a, W> {
    options: &'a DiffOptions,
    writer: Writer<W>,
    xattrs: Source,
    links: Links,
    /// What [`Limits::memory`](crate::Limits::memory) limits.
    memory: u64,
    /// Lengths of all files so far, holes included.
    file_bytes: u64,
    buffer: Vec<u8>,
    /// Of the file at hand, from the root, which has the empty one.
    path: Vec<u8>,
    result: Diffed,
}

impl<'a, W: Write> Differ<'a, W> {
    pub(super) fn new(out: W, options: &'a DiffOptions) -> Self {
        Self {
            options,
            writer: Writer::new(out),
            xattrs: Source::new(options.overlay, options.limits.tar),
            links: Links::default(),
            memory: 0,
            file_bytes: 0,
            buffer: vec![0; BUFFER],
            path: Vec::new(),
            result: Diffed::default(),
        }
    }

    /// A tree may be deeper than a process may have files, so this goes down and up with one descriptor.
    pub(super) fn run(mut self, upper: &Path) -> Result<(Diffed, W), DiffError> {
        let root = Node::root(upper)?;
        let xattrs = self.xattrs.read(&root, b"")?;
        let (mut here, frame) = self.directory(&root, xattrs, false)?;
        let mut way = vec![frame];
        while let Some(frame) = way.last_mut() {
            self.path.truncate(frame.path);
            if let Some(name) = frame.names.pop() {
                self.memory = self.memory.saturating_sub(name.len() as u64 + NAME);
                if !self.path.is_empty() {
                    self.path.push(b'/');
                }
                self.path.extend_from_slice(&name);
                if let Some((directory, frame)) = self.node(&here, &name, frame)? {
                    here = directory;
                    way.push(frame);
                }
            } else {
                way.pop();
                if let Some(parent) = way.last() {
                    here = above(&here, parent.identity, &self.path)?;
                }
            }
        }
        let (mut result, end) = (self.result, self.writer.position());
        // Data of the last entry is padded only now.
        result.bytes = end.next_multiple_of(512) + 1024;
        Ok((result, self.writer.finish()?))
    }

    /// Writes what is at `self.path`; a directory is returned to be walked.
    fn node(
        &mut self,
        here: &OwnedFd,
        name: &[u8],
        parent: &Frame,
    ) -> Result<Option<(OwnedFd, Frame)>, DiffError> {
        let node = Node::open(here, name, &self.path)?;
        let kind = node.kind();
        if kind == FileType::CharacterDevice && node.stat.st_rdev == 0 {
            return self.whiteout(name, parent.hidden).map(|()| None);
        }
        if kind == FileType::Socket {
            self.result.skip(&self.path);
            // It may hide a file of a layer below, which must not come back. Not so if the name is one that no
            // layer can have, or the directory is new: there a program would see the whiteout.
            if parent.merged && !name.starts_with(PREFIX) {
                self.whiteout(name, parent.hidden)?;
            }
            return Ok(None);
        }
        if kind == FileType::Directory {
            self.check_name(name)?;
            let xattrs = self.xattrs.read(&node, &self.path)?;
            return self.directory(&node, xattrs, parent.hidden).map(Some);
        }
        if let Name::Further { first, more } = self.links.name(&self.path, &node.stat)? {
            self.check_name(name)?;
            if !more {
                self.memory = self.memory.saturating_sub(first.len() as u64 + LINK);
            }
            let entry = Entry::hard_link(&self.path, &first);
            return self.append(&self.with(entry, &node.stat)).map(|()| None);
        }
        let xattrs = self.xattrs.read(&node, &self.path)?;
        if xattrs.whiteout && kind == FileType::RegularFile && node.stat.st_size == 0 {
            if !parent.whiteouts {
                let reason = "it is marked as a whiteout in a directory that is not marked to have such";
                return Err(refused(&self.path, reason));
            }
            return self.whiteout(name, parent.hidden).map(|()| None);
        }
        self.check_name(name)?;
        self.file(&node, xattrs)?;
        if self.links.remember(&self.path, &node.stat) {
            let (len, limit) = (self.path.len() as u64, self.options.limits.memory);
            count(&mut self.memory, len + LINK, limit, &self.path)?;
        }
        Ok(None)
    }

    /// A name that would become a whiteout, or be taken for AUFS's own bookkeeping.
    fn check_name(&self, name: &[u8]) -> Result<(), DiffError> {
        if name.starts_with(PREFIX) {
            return Err(refused(
                &self.path,
                "a name that starts with `.wh.` means that another file is gone",
            ));
        }
        Ok(())
    }

    fn whiteout(&mut self, name: &[u8], hidden: bool) -> Result<(), DiffError> {
        if hidden {
            return Ok(());
        }
        self.check_name(name)?;
        let directory = &self.path[..self.path.len() - name.len()];
        // Nobody sees its attributes.
        self.append(&Entry::regular(&[directory, PREFIX, name].concat(), 0))
    }

    fn directory(
        &mut self,
        node: &Node,
        xattrs: Xattrs,
        hidden: bool,
    ) -> Result<(OwnedFd, Frame), DiffError> {
        let directory = node.open_directory(&self.path)?;
        let prefix = if self.path.is_empty() { Vec::new() } else { [&self.path[..], b"/"].concat() };
        let name: &[u8] = if prefix.is_empty() { b"./" } else { &prefix };
        let (opaque, copied) = (xattrs.opaque, xattrs.copied);
        self.check_records(&xattrs)?;
        self.append(&Entry { xattrs: xattrs.exported, ..self.with(Entry::directory(name), &node.stat) })?;
        if opaque == Opaque::Yes {
            self.append(&Entry::regular(&[&prefix, OPAQUE].concat(), 0))?;
        }
        let (memory, limit) = (&mut self.memory, self.options.limits.memory);
        let names = names(&directory, &self.path, |len| count(memory, len as u64 + NAME, limit, &self.path))?;
        check_unchanged(&directory, &node.stat, &self.path)?;
        let frame = Frame {
            identity: identity(&node.stat),
            names,
            path: self.path.len(),
            hidden: hidden || opaque == Opaque::Yes,
            whiteouts: opaque == Opaque::Whiteouts,
            merged: copied || self.path.is_empty(),
        };
        Ok((directory, frame))
    }

    /// Whatever is neither a directory nor overlayfs's own.
    fn file(&mut self, node: &Node, xattrs: Xattrs) -> Result<(), DiffError> {
        self.check_records(&xattrs)?;
        let device = (major(node.stat.st_rdev), minor(node.stat.st_rdev));
        let entry = match node.kind() {
            FileType::RegularFile => return self.regular(node, xattrs),
            FileType::Symlink => {
                let target = node.target(&self.path)?;
                Entry::symlink(&self.path, &target)
            }
            FileType::CharacterDevice => Entry::char_device(&self.path, device.0, device.1),
            FileType::BlockDevice => Entry::block_device(&self.path, device.0, device.1),
            FileType::Fifo => Entry::fifo(&self.path),
            _ => return Err(refused(&self.path, "its type is not known")),
        };
        self.append(&Entry { xattrs: xattrs.exported, ..self.with(entry, &node.stat) })
    }

    fn regular(&mut self, node: &Node, xattrs: Xattrs) -> Result<(), DiffError> {
        let path = self.path.as_slice();
        let file = node.open_file(path)?;
        let size = u64::try_from(node.stat.st_size).map_err(|_| changed(path))?;
        let sparse = match self.options.holes {
            Holes::Keep => segments(&file, size, self.options.limits.tar.sparse_segments, path)?,
            Holes::Fill => None,
        };
        let whole = [Segment { offset: 0, len: size }];
        let data = sparse.as_deref().unwrap_or(&whole).to_vec();
        let archived_size = data.iter().map(|segment| segment.len).sum();
        let entry = Entry::regular(path, size);
        let entry = Entry { archived_size, sparse, xattrs: xattrs.exported, ..self.with(entry, &node.stat) };
        self.append(&entry)?;
        let (path, writer) = (self.path.as_slice(), &mut self.writer);
        for segment in data {
            read(&file, segment, &mut self.buffer, path, |bytes| Ok(writer.write_data(bytes)?))?;
        }
        check_unchanged(&file, &node.stat, path)
    }

    /// Writes one entry's headers. Fails if there is no room for it and its data.
    fn append(&mut self, entry: &Entry) -> Result<(), DiffError> {
        let limits = &self.options.limits;
        if entry.path.len() > limits.tar.path {
            return Err(too_much(&self.path, "bytes of a path", limits.tar.path as u64));
        }
        if entry.link.len() > limits.tar.link {
            return Err(too_much(&self.path, "bytes of a link's target", limits.tar.link as u64));
        }
        if self.result.entries >= limits.entries {
            return Err(too_much(&self.path, "entries", limits.entries));
        }
        let above =
            entry.path.split(|byte| *byte == b'/').filter(|name| !name.is_empty() && *name != b".").skip(1);
        if above.count() > limits.depth {
            return Err(too_much(&self.path, "directories on the way to it", limits.depth as u64));
        }
        let device = matches!(entry.kind, EntryKind::CharDevice | EntryKind::BlockDevice);
        if device && limits.devices == Devices::Refuse {
            return Err(refused(&self.path, "it is a device node, and the limits allow none"));
        }
        self.file_bytes = self.file_bytes.saturating_add(entry.size);
        if self.file_bytes > limits.output_bytes {
            return Err(too_much(&self.path, "bytes of files", limits.output_bytes));
        }
        self.result.entries += 1;
        self.writer.append_entry(entry)?;
        // With the padding and the end of the archive, so that the limit is exact.
        let end = self.writer.position().saturating_add(entry.archived_size);
        let end = end.checked_next_multiple_of(512).and_then(|end| end.checked_add(1024));
        if end.is_none_or(|end| end > limits.output_bytes) {
            return Err(too_much(&self.path, "bytes", limits.output_bytes));
        }
        Ok(())
    }

    /// The attributes that all kinds of entries have.
    fn with(&self, entry: Entry, stat: &Stat) -> Entry {
        let mtime = Timestamp {
            seconds: stat.st_mtime,
            // Less than a second, whatever its type.
            nanoseconds: u32::try_from(stat.st_mtime_nsec).unwrap_or(0),
        };
        let newest = self.options.newest.map(|seconds| Timestamp { seconds, nanoseconds: 0 });
        let later =
            |newest: &Timestamp| (mtime.seconds, mtime.nanoseconds) > (newest.seconds, newest.nanoseconds);
        Entry {
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid.into(),
            gid: stat.st_gid.into(),
            mtime: newest.filter(later).unwrap_or(mtime),
            ..entry
        }
    }

    /// All of them are in one PAX header with the paths.
    fn check_records(&self, xattrs: &Xattrs) -> Result<(), DiffError> {
        let limit = self.options.limits.tar.extension;
        let paths = 2 * self.path.len() + self.options.limits.tar.link.min(4096);
        if (xattrs.records() + paths + RECORDS) as u64 > limit {
            return Err(too_much(&self.path, "bytes of a PAX header", limit));
        }
        Ok(())
    }
}

fn count(memory: &mut u64, bytes: u64, limit: u64, path: &[u8]) -> Result<(), DiffError> {
    *memory = memory.saturating_add(bytes);
    if *memory > limit {
        return Err(too_much(path, "bytes of names to be kept in memory", limit));
    }
    Ok(())
}
