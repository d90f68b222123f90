//! Files as entries of an archive, and what the limits say of each.

use std::io::Write;

use layerstore_tar::{Entry, EntryKind, Segment, Timestamp, Writer};
use rustix::fs::{FileType, Stat, major, minor};

use super::content::{check_unchanged, read, segments};
use super::error::{DiffError, changed, refused, too_much};
use super::links::{Links, Name};
use super::node::Node;
use super::xattrs::{Source, Xattrs};
use super::{DiffOptions, Diffed, Holes};
use crate::options::Devices;

/// Bytes read at once.
pub(super) const BUFFER: usize = 256 * 1024;

/// Memory that a name takes besides its bytes.
const NAME: u64 = 64;

/// The same for the first name of a hard-linked file.
const LINK: u64 = 256;

/// PAX records other than attributes and paths: numbers and times.
const RECORDS: usize = 1024;

/// An archive that is being written. Paths are from the root, which has the empty one.
pub(super) struct Entries<W> {
    options: DiffOptions,
    writer: Writer<W>,
    xattrs: Source,
    links: Links,
    /// What [`Limits::memory`](crate::Limits::memory) limits.
    memory: u64,
    /// Lengths of all files so far, holes included.
    file_bytes: u64,
    buffer: Vec<u8>,
    result: Diffed,
}

impl<W: Write> Entries<W> {
    pub(super) fn new(out: W, options: &DiffOptions) -> Self {
        Self {
            options: *options,
            writer: Writer::new(out),
            xattrs: Source::new(options.overlay, options.limits.tar),
            links: Links::default(),
            memory: 0,
            file_bytes: 0,
            buffer: vec![0; BUFFER],
            result: Diffed::default(),
        }
    }

    pub(super) fn finish(self) -> Result<(Diffed, W), DiffError> {
        let (mut result, end) = (self.result, self.writer.position());
        // Data of the last entry is padded only now.
        result.bytes = end.next_multiple_of(512) + 1024;
        Ok((result, self.writer.finish()?))
    }

    pub(super) fn xattrs(&mut self, node: &Node, path: &[u8]) -> Result<Xattrs, DiffError> {
        self.xattrs.read(node, path)
    }

    /// Counts a file that no archive can hold.
    pub(super) fn skip(&mut self, path: &[u8]) {
        self.result.skip(path);
    }

    /// A name of `len` bytes is kept in memory from now on.
    pub(super) fn keep_name(&mut self, len: usize, path: &[u8]) -> Result<(), DiffError> {
        self.keep(len as u64 + NAME, path)
    }

    /// A name of `len` bytes is no longer kept.
    pub(super) fn drop_name(&mut self, len: usize) {
        self.memory = self.memory.saturating_sub(len as u64 + NAME);
    }

    fn keep(&mut self, bytes: u64, path: &[u8]) -> Result<(), DiffError> {
        self.memory = self.memory.saturating_add(bytes);
        let limit = self.options.limits.memory;
        if self.memory > limit {
            return Err(too_much(path, "bytes of names to be kept in memory", limit));
        }
        Ok(())
    }

    /// The entry of what is not a directory, if its file is in the archive under another name.
    pub(super) fn further_name(&mut self, node: &Node, path: &[u8]) -> Result<Option<Entry>, DiffError> {
        let Name::Further { first, more } = self.links.name(path, &node.stat)? else { return Ok(None) };
        if !more {
            self.memory = self.memory.saturating_sub(first.len() as u64 + LINK);
        }
        Ok(Some(self.with(Entry::hard_link(path, &first), &node.stat)))
    }

    pub(super) fn directory(&mut self, node: &Node, xattrs: Xattrs, path: &[u8]) -> Result<(), DiffError> {
        let name = if path.is_empty() { b"./".to_vec() } else { [path, b"/"].concat() };
        self.check_records(&xattrs, path)?;
        let entry = Entry { xattrs: xattrs.exported, ..self.with(Entry::directory(&name), &node.stat) };
        self.append(&entry, path)
    }

    /// Whatever is neither a directory nor overlayfs's own, under its first name.
    pub(super) fn file(&mut self, node: &Node, xattrs: Xattrs, path: &[u8]) -> Result<(), DiffError> {
        self.check_records(&xattrs, path)?;
        let device = (major(node.stat.st_rdev), minor(node.stat.st_rdev));
        let entry = match node.kind() {
            FileType::RegularFile => {
                self.regular(node, xattrs, path)?;
                return self.remember(node, path);
            }
            FileType::Symlink => {
                let target = node.target(path)?;
                Entry::symlink(path, &target)
            }
            FileType::CharacterDevice => Entry::char_device(path, device.0, device.1),
            FileType::BlockDevice => Entry::block_device(path, device.0, device.1),
            FileType::Fifo => Entry::fifo(path),
            _ => return Err(refused(path, "its type is not known")),
        };
        self.append(&Entry { xattrs: xattrs.exported, ..self.with(entry, &node.stat) }, path)?;
        self.remember(node, path)
    }

    fn remember(&mut self, node: &Node, path: &[u8]) -> Result<(), DiffError> {
        if self.links.remember(path, &node.stat) {
            self.keep(path.len() as u64 + LINK, path)?;
        }
        Ok(())
    }

    fn regular(&mut self, node: &Node, xattrs: Xattrs, path: &[u8]) -> Result<(), DiffError> {
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
        self.append(&entry, path)?;
        let writer = &mut self.writer;
        for segment in data {
            read(&file, segment, &mut self.buffer, path, |bytes| Ok(writer.write_data(bytes)?))?;
        }
        check_unchanged(&file, &node.stat, path)
    }

    /// Writes one entry's headers, for the file `path`. Fails if there is no room for it and its data.
    pub(super) fn append(&mut self, entry: &Entry, path: &[u8]) -> Result<(), DiffError> {
        let limits = &self.options.limits;
        if entry.path.len() > limits.tar.path {
            return Err(too_much(path, "bytes of a path", limits.tar.path as u64));
        }
        if entry.link.len() > limits.tar.link {
            return Err(too_much(path, "bytes of a link's target", limits.tar.link as u64));
        }
        if self.result.entries >= limits.entries {
            return Err(too_much(path, "entries", limits.entries));
        }
        let above =
            entry.path.split(|byte| *byte == b'/').filter(|name| !name.is_empty() && *name != b".").skip(1);
        if above.count() > limits.depth {
            return Err(too_much(path, "directories on the way to it", limits.depth as u64));
        }
        let device = matches!(entry.kind, EntryKind::CharDevice | EntryKind::BlockDevice);
        if device && limits.devices == Devices::Refuse {
            return Err(refused(path, "it is a device node, and the limits allow none"));
        }
        self.file_bytes = self.file_bytes.saturating_add(entry.size);
        if self.file_bytes > limits.output_bytes {
            return Err(too_much(path, "bytes of files", limits.output_bytes));
        }
        self.result.entries += 1;
        self.writer.append_entry(entry)?;
        // With the padding and the end of the archive, so that the limit is exact.
        let end = self.writer.position().saturating_add(entry.archived_size);
        let end = end.checked_next_multiple_of(512).and_then(|end| end.checked_add(1024));
        if end.is_none_or(|end| end > limits.output_bytes) {
            return Err(too_much(path, "bytes", limits.output_bytes));
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
    fn check_records(&self, xattrs: &Xattrs, path: &[u8]) -> Result<(), DiffError> {
        let limit = self.options.limits.tar.extension;
        let paths = 2 * path.len() + self.options.limits.tar.link.min(4096);
        if (xattrs.records() + paths + RECORDS) as u64 > limit {
            return Err(too_much(path, "bytes of a PAX header", limit));
        }
        Ok(())
    }
}
