//! The walk through the tree, and what overlayfs's marks become.

use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::Path;

use layerstore_tar::Entry;
use rustix::fs::FileType;

use super::content::check_unchanged;
use super::entries::Entries;
use super::error::{DiffError, refused};
use super::node::{Identity, Node, above, identity, names};
use super::xattrs::{Opaque, Xattrs};
use super::{DiffOptions, Diffed};
use crate::whiteout::{OPAQUE, PREFIX};

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

pub(super) struct Differ<W> {
    entries: Entries<W>,
    /// Of the file at hand, from the root, which has the empty one.
    path: Vec<u8>,
}

impl<W: Write> Differ<W> {
    pub(super) fn new(out: W, options: &DiffOptions) -> Self {
        Self { entries: Entries::new(out, options), path: Vec::new() }
    }

    /// A tree may be deeper than a process may have files, so this goes down and up with one descriptor.
    pub(super) fn run(mut self, upper: &Path) -> Result<(Diffed, W), DiffError> {
        let root = Node::root(upper)?;
        let xattrs = self.entries.xattrs(&root, b"")?;
        let (mut here, frame) = self.directory(&root, xattrs, false)?;
        let mut way = vec![frame];
        while let Some(frame) = way.last_mut() {
            self.path.truncate(frame.path);
            if let Some(name) = frame.names.pop() {
                self.entries.drop_name(name.len());
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
        self.entries.finish()
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
            self.entries.skip(&self.path);
            // It may hide a file of a layer below, which must not come back. Not so if the name is one that no
            // layer can have, or the directory is new: there a program would see the whiteout.
            if parent.merged && !name.starts_with(PREFIX) {
                self.whiteout(name, parent.hidden)?;
            }
            return Ok(None);
        }
        if kind == FileType::Directory {
            self.check_name(name)?;
            let xattrs = self.entries.xattrs(&node, &self.path)?;
            return self.directory(&node, xattrs, parent.hidden).map(Some);
        }
        if let Some(entry) = self.entries.further_name(&node, &self.path)? {
            self.check_name(name)?;
            return self.entries.append(&entry, &self.path).map(|()| None);
        }
        let xattrs = self.entries.xattrs(&node, &self.path)?;
        if xattrs.whiteout && kind == FileType::RegularFile && node.stat.st_size == 0 {
            if !parent.whiteouts {
                let reason = "it is marked as a whiteout in a directory that is not marked to have such";
                return Err(refused(&self.path, reason));
            }
            return self.whiteout(name, parent.hidden).map(|()| None);
        }
        self.check_name(name)?;
        self.entries.file(&node, xattrs, &self.path)?;
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
        self.entries.append(&Entry::regular(&[directory, PREFIX, name].concat(), 0), &self.path)
    }

    fn directory(
        &mut self,
        node: &Node,
        xattrs: Xattrs,
        hidden: bool,
    ) -> Result<(OwnedFd, Frame), DiffError> {
        let directory = node.open_directory(&self.path)?;
        let (opaque, copied) = (xattrs.opaque, xattrs.copied);
        self.entries.directory(node, xattrs, &self.path)?;
        if opaque == Opaque::Yes {
            let prefix = if self.path.is_empty() { Vec::new() } else { [&self.path[..], b"/"].concat() };
            self.entries.append(&Entry::regular(&[&prefix, OPAQUE].concat(), 0), &self.path)?;
        }
        let names = names(&directory, &self.path, |len| self.entries.keep_name(len, &self.path))?;
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
}
