//! The directories of an overlay, as descriptors.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;

use super::idmap::{IdMap, unsupported};
use super::{Attempt, Upper};
use crate::error::IoContext as _;

/// What an overlay is made of.
#[derive(Debug)]
pub(super) struct Layers<'a> {
    /// At least one, or two without an upper one.
    pub(super) lowers: &'a [PathBuf],
    pub(super) upper: Option<&'a Upper>,
    pub(super) read_only: bool,
}

/// Opens directories of trees: directly, or by id-mapped clones of the mounts they are on.
///
/// A clone is made of the directory that holds the trees, so that one serves nearly all of them, and the
/// two directories of an upper tree come from one mount, as overlayfs wants it.
#[derive(Debug, Default)]
pub(super) struct Opener {
    /// By the directory that was cloned.
    pub(super) clones: HashMap<PathBuf, OwnedFd>,
}

impl Opener {
    pub(super) fn new(layers: &Layers<'_>, id_map: Option<&IdMap>) -> Result<Self, Attempt> {
        let mut opener = Self::default();
        let Some(id_map) = id_map else { return Ok(opener) };
        let mut mapper = id_map.mapper();
        let work = layers.upper.map(Upper::work);
        for directory in layers.lowers.iter().chain(&work) {
            let (holder, _) = split(directory);
            if !opener.clones.contains_key(holder) {
                let clone = mapper.clone_of(holder)?;
                opener.clones.insert(holder.to_owned(), clone);
            }
        }
        Ok(opener)
    }

    /// A descriptor that only stands for the directory; its last component is not followed.
    pub(super) fn open(&self, directory: &Path) -> Result<OwnedFd, Attempt> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let (holder, rest) = split(directory);
        let Some(clone) = self.clones.get(holder) else {
            return Ok(openat(CWD, directory, flags, Mode::empty()).context("open", directory)?);
        };
        match openat(clone, rest, flags, Mode::empty()) {
            // Where an owner is nobody, even root is a stranger.
            Err(Errno::ACCESS) => Err(unsupported(directory, Errno::OVERFLOW).into()),
            other => Ok(other.context("open", directory)?),
        }
    }
}

/// The directory that holds the tree of `directory`, and the rest of the path.
pub(super) fn split(directory: &Path) -> (&Path, &Path) {
    let holder = directory.parent().and_then(Path::parent).unwrap_or(directory);
    (
        holder,
        directory.strip_prefix(holder).ok().filter(|rest| *rest != Path::new("")).unwrap_or(Path::new(".")),
    )
}
