//! What is in a directory of the merged view.
//!
//! Layer by layer, with one open directory at a time: a stack may have as many layers as a process may have open
//! files.

use std::collections::BTreeMap;
use std::ops::Range;
use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, openat, statat};
use rustix::io::Errno;

use super::{Rootfs, is_whiteout};
use crate::error::Result;

/// One component of a path.
pub(crate) type Name = Box<[u8]>;

/// A file of the merged view, at a path that who found it knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) kind: FileType,
    /// The layers that have it: one for a file, all that are merged for a directory, topmost first.
    pub(crate) layers: Vec<usize>,
}

impl Found {
    /// The layer that has the file, and a directory's attributes.
    pub(crate) fn top(&self) -> usize {
        self.layers.first().copied().unwrap_or(0)
    }
}

/// What the layers that were looked at say of a name.
#[derive(Debug, Default)]
struct Seen {
    found: Option<Found>,
    /// What is further down does not count.
    settled: bool,
}

/// The entries of one directory, to be asked for from the topmost layer down.
///
/// In a layer that changes meanwhile, what has gone when its turn comes is as if it had never been there.
pub(crate) struct Merge<'a> {
    rootfs: &'a Rootfs,
    path: &'a [u8],
    layers: &'a [usize],
    names: BTreeMap<Name, Seen>,
}

impl<'a> Merge<'a> {
    /// Of the directory `path`, which `layers` have, topmost first.
    pub(crate) fn new(rootfs: &'a Rootfs, path: &'a [u8], layers: &'a [usize]) -> Self {
        Self { rootfs, path, layers, names: BTreeMap::new() }
    }

    /// All that is in the directory, in the order of names' bytes.
    pub(crate) fn all(mut self) -> Result<impl DoubleEndedIterator<Item = (Name, Found)>> {
        self.read(0..self.layers.len())?;
        Ok(self.names.into_iter().filter_map(|(name, seen)| Some((name, seen.found?))))
    }

    /// Takes all names that some of the layers have.
    pub(crate) fn read(&mut self, layers: Range<usize>) -> Result<()> {
        for number in layers {
            let Some((layer, directory)) = self.open(number)? else { continue };
            for entry in Dir::read_from(&directory).map_err(|errno| self.rootfs.failed(self.path, errno))? {
                let entry = match entry {
                    // A directory that was removed meanwhile.
                    Err(Errno::NOENT) => break,
                    other => other.map_err(|errno| self.rootfs.failed(self.path, errno))?,
                };
                let name = entry.file_name().to_bytes();
                if name == b"." || name == b".." || self.names.get(name).is_some_and(|seen| seen.settled) {
                    continue;
                }
                // A directory that changes meanwhile may be read as having a name twice.
                let twice =
                    |seen: &Seen| seen.found.as_ref().and_then(|found| found.layers.last()) == Some(&layer);
                if !self.names.get(name).is_some_and(twice) {
                    self.add(number, &directory, name, entry.file_type())?;
                }
            }
        }
        Ok(())
    }

    /// Looks into some of the layers for the names that are known already, and no others.
    pub(crate) fn look(&mut self, layers: Range<usize>) -> Result<()> {
        for number in layers {
            let open = self.names.iter().filter(|(_, seen)| !seen.settled);
            let open: Vec<Name> = open.map(|(name, _)| name.clone()).collect();
            if open.is_empty() {
                break;
            }
            let Some((_, directory)) = self.open(number)? else { continue };
            for name in open {
                self.add(number, &directory, &name, FileType::Unknown)?;
            }
        }
        Ok(())
    }

    /// Takes all names that `other` knows.
    pub(crate) fn learn(&mut self, other: &Self) {
        for name in other.names.keys() {
            if !self.names.contains_key(name) {
                self.names.insert(name.clone(), Seen::default());
            }
        }
    }

    /// All names that are known with what there is, in the order of their bytes.
    pub(crate) fn found(self) -> impl DoubleEndedIterator<Item = (Name, Option<Found>)> + ExactSizeIterator {
        self.names.into_iter().map(|(name, seen)| (name, seen.found))
    }

    fn open(&self, number: usize) -> Result<Option<(usize, OwnedFd)>> {
        let Some(&layer) = self.layers.get(number) else { return Ok(None) };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match self.rootfs.open_raw(layer, self.path, flags) {
            Ok(directory) => Ok(Some((layer, directory))),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
            Err(errno) => Err(self.rootfs.failed(self.path, errno)),
        }
    }

    /// Takes what a layer has under a name that is not settled.
    fn add(&mut self, number: usize, directory: &OwnedFd, name: &[u8], mut kind: FileType) -> Result<()> {
        let failed = |errno| self.rootfs.failed(&super::join(self.path, name), errno);
        let mut whiteout = false;
        // Not all filesystems tell types with names.
        if matches!(kind, FileType::Unknown | FileType::CharacterDevice) {
            let stat = match statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
                Err(Errno::NOENT) => return Ok(()),
                other => other.map_err(failed)?,
            };
            kind = FileType::from_raw_mode(stat.st_mode);
            whiteout = is_whiteout(kind, &stat);
        }
        let layer = self.layers.get(number).copied().unwrap_or(0);
        // Below the last layer nothing is left to hide.
        let last = number + 1 >= self.layers.len();
        let opaque =
            kind == FileType::Directory && !last && self.is_opaque(directory, name).map_err(failed)?;
        let seen = match self.names.get_mut(name) {
            Some(seen) => seen,
            None => self.names.entry(name.into()).or_default(),
        };
        seen.settled = whiteout || kind != FileType::Directory || opaque;
        match &mut seen.found {
            _ if whiteout => {}
            None => seen.found = Some(Found { kind, layers: vec![layer] }),
            // A file below a directory ends what is merged.
            Some(found) if kind == FileType::Directory => found.layers.push(layer),
            Some(_) => {}
        }
        Ok(())
    }

    fn is_opaque(&self, directory: &OwnedFd, name: &[u8]) -> Result<bool, Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = match openat(directory, name, flags, Mode::empty()) {
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(false),
            other => other?,
        };
        super::is_opaque(&directory, self.rootfs.overlay)
    }
}
