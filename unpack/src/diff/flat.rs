//! An archive of a tree as programs see it, merged from several directories.

use std::io::Write;
use std::os::fd::OwnedFd;

use rustix::fs::FileType;

use super::entries::Entries;
use super::error::DiffError;
use super::node::Node;
use super::{DiffOptions, Diffed};

/// Writes files one by one into an uncompressed archive, as exactly as [`diff`](fn@crate::diff) does: times with
/// nanoseconds, extended attributes, devices, hard links by inode.
///
/// Nothing in it stands for something else. A name that starts with `.wh.` is a name; overlayfs's own attributes
/// stay behind, and those that it has escaped get back the name that programs see. Which files there are, and
/// which of several directories has them, is for the caller to say.
///
/// Small pieces are written, so `out` should be buffered. After an error it holds an incomplete archive.
pub struct FlatArchive<W> {
    entries: Entries<W>,
}

impl<W: Write> FlatArchive<W> {
    /// An archive without entries, to be written to `out`. [`Limits::memory`](crate::Limits::memory) counts only the
    /// first names of files of which other names are still to come.
    pub fn new(out: W, options: &DiffOptions) -> Self {
        Self { entries: Entries::new(out, options) }
    }

    /// Appends the file that `file` holds, opened with `O_PATH` and `O_NOFOLLOW`, under the name `path`: from the
    /// root, without a slash at either end; empty for the root itself. A directory comes without what is in it.
    ///
    /// A file that changes while it is read is an error, as is one that overlayfs keeps in two places (`metacopy`,
    /// `redirect_dir`). A socket is skipped and counted.
    pub fn append(&mut self, path: &[u8], file: OwnedFd) -> Result<(), DiffError> {
        let node = Node::of(file, path)?;
        match node.kind() {
            FileType::Socket => {
                self.entries.skip(path);
                return Ok(());
            }
            FileType::Directory => {
                let xattrs = self.entries.xattrs(&node, path)?;
                return self.entries.directory(&node, xattrs, path);
            }
            _ => {}
        }
        if let Some(entry) = self.entries.further_name(&node, path)? {
            return self.entries.append(&entry, path);
        }
        let xattrs = self.entries.xattrs(&node, path)?;
        self.entries.file(&node, xattrs, path)
    }

    /// Ends the archive and returns what it contains, and what it was written to.
    pub fn finish(self) -> Result<(Diffed, W), DiffError> {
        self.entries.finish()
    }
}
