//! Opening files of one layer by their paths, however long these are.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};
use rustix::io::Errno;

use super::Rootfs;
use crate::error::Result;

/// Longest path that one system call takes, without the NUL at its end.
pub(super) const PATH_MAX: usize = 4095;

/// How many directories on the way to a long path stay open. Who walks a tree goes up and down near one place.
const KEPT: usize = 16;

/// How many layers of a stack stay open. A stack has up to five hundred, and a process may often have no more than
/// a thousand files, with two stacks to compare.
const OPEN: usize = 64;

/// The root of a layer.
#[derive(Debug, Clone)]
pub(crate) enum Layer {
    Open(Rc<OwnedFd>),
    /// To be opened each time.
    At(PathBuf),
}

impl Layer {
    /// The layer at `path`, for a stack that has opened so many before.
    pub(crate) fn new(path: &Path, before: usize) -> Result<Self, Errno> {
        let here = Self::At(path.to_owned());
        let directory = here.directory()?;
        Ok(if before < OPEN { Self::Open(directory) } else { here })
    }

    pub(super) fn directory(&self) -> Result<Rc<OwnedFd>, Errno> {
        match self {
            Self::Open(directory) => Ok(Rc::clone(directory)),
            Self::At(path) => {
                let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                openat(CWD, path, flags, Mode::empty()).map(Rc::new)
            }
        }
    }
}

/// Directories on the way to the long path that was opened last, so that the next one starts from there. Without
/// them a walk through a very deep tree would go all the way for each file.
#[derive(Debug, Default)]
pub(super) struct Deep {
    path: Vec<u8>,
    /// Where in `path` the name of each ends, the shortest first.
    open: VecDeque<(usize, Rc<OwnedFd>)>,
}

impl Deep {
    /// The directory of the last part of `path`, and where that begins.
    fn directory(&mut self, layer: &Rc<OwnedFd>, path: &[u8]) -> Result<(Rc<OwnedFd>, usize), Errno> {
        while self.open.back().is_some_and(|(end, _)| {
            self.path.get(..*end) != path.get(..*end) || path.get(*end) != Some(&b'/')
        }) {
            self.open.pop_back();
        }
        let (mut start, mut here) = match self.open.back() {
            Some((end, directory)) => (end + 1, Rc::clone(directory)),
            None => (0, Rc::clone(layer)),
        };
        let mut rest = path.get(start..).unwrap_or_default();
        while rest.len() > PATH_MAX {
            let head = rest.get(..=PATH_MAX).unwrap_or_default();
            let slash = head.iter().rposition(|byte| *byte == b'/').ok_or(Errno::NAMETOOLONG)?;
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            here = Rc::new(open_below(&here, &rest[..slash], flags)?);
            self.open.push_back((start + slash, Rc::clone(&here)));
            if self.open.len() > KEPT {
                self.open.pop_front();
            }
            start += slash + 1;
            rest = &rest[slash + 1..];
        }
        self.path.clear();
        self.path.extend_from_slice(&path[..start]);
        Ok((here, start))
    }
}

impl Rootfs {
    /// Opens a file of a layer by its path from the layer's root. Nothing on its way is followed, so what is opened
    /// is below that root, whatever somebody does to the layer meanwhile.
    pub(crate) fn open(&self, layer: usize, path: &[u8], flags: OFlags) -> Result<OwnedFd> {
        self.open_raw(layer, path, flags).map_err(|errno| self.failed(path, errno))
    }

    /// One component that is a link leads nowhere.
    pub(super) fn open_raw(&self, layer: usize, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
        let (root, _) = self.layers.get(layer).ok_or(Errno::NOENT)?;
        let root = &root.directory()?;
        if path.is_empty() {
            return openat(&**root, ".", flags, Mode::empty());
        }
        if path.len() <= PATH_MAX {
            return open_below(root, path, flags);
        }
        let mut deep = self.deep.borrow_mut();
        let deep = deep.entry(layer).or_default();
        let opened = deep.directory(root, path);
        if opened.is_err() {
            // Half of it may be new.
            *deep = Deep::default();
        }
        let (here, start) = opened?;
        open_below(&here, &path[start..], flags)
    }
}

/// Opens something below `layer`, of which no component but the last may be a link.
fn open_below(layer: &OwnedFd, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    loop {
        match openat2(layer, path, flags, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            // A link in the last place can be opened as a path, one before it is in another layer's place.
            Err(Errno::LOOP) if flags.contains(OFlags::PATH | OFlags::NOFOLLOW) => {
                let (directory, name) = match path.iter().rposition(|byte| *byte == b'/') {
                    Some(slash) => (&path[..slash], &path[slash + 1..]),
                    None => (&b"."[..], path),
                };
                let parent = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
                return match openat2(layer, directory, parent, Mode::empty(), resolve) {
                    Ok(directory) => openat(directory, name, flags, Mode::empty()),
                    Err(Errno::LOOP) => Err(Errno::NOENT),
                    Err(errno) => Err(errno),
                };
            }
            other => return other,
        }
    }
}
