//! Whether two files are the same to programs.

use std::os::fd::OwnedFd;

use layerstore_tar::Segment;
use rustix::fs::{FileType, Stat};

use super::content::fill;
use super::entries::BUFFER;
use super::error::DiffError;
use super::node::{Node, identity};
use super::xattrs::Source;
use crate::options::OverlayXattr;

/// Compares files by all that programs see of them but inode numbers, numbers of links, and times of access and of
/// status change. Works with buffers of fixed size, which are used again.
#[derive(Debug)]
pub struct Comparer {
    xattrs: Source,
    one: Vec<u8>,
    other: Vec<u8>,
}

impl Comparer {
    /// `overlay` says which attributes are overlayfs's own and do not count.
    pub fn new(overlay: OverlayXattr) -> Self {
        let xattrs = Source::new(overlay, layerstore_tar::Limits::default());
        Self { xattrs, one: vec![0; BUFFER], other: vec![0; BUFFER] }
    }

    /// Whether two files, each opened with `O_PATH` and `O_NOFOLLOW`, agree in type, mode, owner, group, time of
    /// modification, extended attributes, size, target of a link, number of a device, and content. Of directories,
    /// content and size do not count. The content is read only where all else is equal. `path` is for errors.
    ///
    /// Fails with [`DiffError::Changed`] if a file gets shorter meanwhile.
    pub fn same(&mut self, one: OwnedFd, other: OwnedFd, path: &[u8]) -> Result<bool, DiffError> {
        let (one, other) = (Node::of(one, path)?, Node::of(other, path)?);
        if identity(&one.stat) == identity(&other.stat) {
            return Ok(true);
        }
        if key(&one.stat) != key(&other.stat) {
            return Ok(false);
        }
        if one.kind() == FileType::Symlink && one.target(path)? != other.target(path)? {
            return Ok(false);
        }
        if self.xattrs.read(&one, path)?.exported != self.xattrs.read(&other, path)?.exported {
            return Ok(false);
        }
        Ok(one.kind() != FileType::RegularFile || self.same_content(&one, &other, path)?)
    }

    fn same_content(&mut self, one: &Node, other: &Node, path: &[u8]) -> Result<bool, DiffError> {
        let size = u64::try_from(one.stat.st_size).unwrap_or(0);
        if size == 0 {
            return Ok(true);
        }
        let (one, other) = (one.open_file(path)?, other.open_file(path)?);
        let mut offset = 0;
        while offset < size {
            let segment = Segment { offset, len: (size - offset).min(BUFFER as u64) };
            let one = fill(&one, segment, &mut self.one, path)?;
            if one != fill(&other, segment, &mut self.other, path)? {
                return Ok(false);
            }
            offset += segment.len;
        }
        Ok(true)
    }
}

/// All that is in the inode itself.
fn key(stat: &Stat) -> impl PartialEq + use<> {
    let kind = FileType::from_raw_mode(stat.st_mode);
    let size = if kind == FileType::RegularFile { stat.st_size } else { 0 };
    let device = match kind {
        FileType::CharacterDevice | FileType::BlockDevice => stat.st_rdev,
        _ => 0,
    };
    (stat.st_mode, stat.st_uid, stat.st_gid, stat.st_mtime, stat.st_mtime_nsec, size, device)
}
