//! The directory below which everything happens, and finding places in it.
//!
//! Nothing here ever resolves a path of the archive from outside the root: parents are opened with
//! `openat2(RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)`, which treats the root as `chroot` would, also
//! against somebody who renames directories meanwhile; where the kernel lacks it, or a directory is
//! missing, they are walked one component at a time without following links. The last component is
//! never followed.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fstat, mkdirat, openat, openat2, readlinkat};
use rustix::io::Errno;

use crate::error::{EntryContext as _, Result, refused};

/// As many symbolic links as the kernel follows in one path.
const MAX_LINKS: usize = 40;

const DIRECTORY: OFlags =
    OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// A directory that was created because the layer has something in it.
#[derive(Debug)]
pub(crate) struct Implied {
    pub(crate) inode: u64,
    /// From the root, without symbolic links.
    pub(crate) path: Vec<u8>,
}

/// The root, and the directory that was used last: entries of one directory follow each other.
#[derive(Debug)]
pub(crate) struct Root {
    directory: OwnedFd,
    last: Option<(Vec<u8>, OwnedFd)>,
    openat2: bool,
}

impl Root {
    pub(crate) fn new(directory: OwnedFd) -> Self {
        Self { directory, last: None, openat2: true }
    }

    pub(crate) fn directory(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }

    /// Forgets what was found: something that a path could lead through was removed.
    pub(crate) fn forget(&mut self) {
        self.last = None;
    }

    /// The directory `path`, of which every component exists. `path` is clean and may be empty.
    pub(crate) fn existing(&mut self, path: &[u8]) -> Result<Option<BorrowedFd<'_>>> {
        self.find(path, false, &mut Vec::new())
    }

    /// The directory `path`; what is missing of it is created and added to `implied`.
    pub(crate) fn created(&mut self, path: &[u8], implied: &mut Vec<Implied>) -> Result<BorrowedFd<'_>> {
        match self.find(path, true, implied)? {
            Some(_) => Ok(self.last.as_ref().map_or(self.directory.as_fd(), |(_, fd)| fd.as_fd())),
            None => Err(refused(path, "its directory cannot be created")),
        }
    }

    fn find(
        &mut self,
        path: &[u8],
        create: bool,
        implied: &mut Vec<Implied>,
    ) -> Result<Option<BorrowedFd<'_>>> {
        if path.is_empty() {
            self.last = None;
            return Ok(Some(self.directory.as_fd()));
        }
        if self.last.as_ref().is_none_or(|(last, _)| last != path) {
            let found = match self.open_at_once(path)? {
                Some(found) => Some(found),
                None => self.walk(path, create, implied)?,
            };
            self.last = found.map(|found| (path.to_vec(), found));
        }
        Ok(self.last.as_ref().map(|(_, fd)| fd.as_fd()))
    }

    /// `None` when the way has to be walked.
    fn open_at_once(&mut self, path: &[u8]) -> Result<Option<OwnedFd>> {
        // Every rename on the system makes the kernel give up with EAGAIN.
        const ATTEMPTS: usize = 16;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        for _ in 0..ATTEMPTS {
            if !self.openat2 {
                return Ok(None);
            }
            match openat2(&self.directory, path, flags, Mode::empty(), resolve) {
                Ok(found) => return Ok(Some(found)),
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(Errno::NOSYS | Errno::PERM) => self.openat2 = false,
                // The walk creates what is missing, takes paths of any length and says what is in the way.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NAMETOOLONG) => return Ok(None),
                Err(errno) => return Err(errno).entry("open the directory", path),
            }
        }
        Ok(None)
    }

    /// Goes to `path` step by step, following symbolic links inside the root.
    fn walk(&self, path: &[u8], create: bool, implied: &mut Vec<Implied>) -> Result<Option<OwnedFd>> {
        let mut way: Vec<(Vec<u8>, OwnedFd)> = Vec::new();
        let mut ahead: VecDeque<Vec<u8>> = components(path).map(<[u8]>::to_vec).collect();
        let mut links = 0;
        while let Some(name) = ahead.pop_front() {
            if name == b".." {
                way.pop();
                continue;
            }
            let here = way.last().map_or(self.directory.as_fd(), |(_, fd)| fd.as_fd());
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let next = match openat(here, &name, flags, Mode::empty()) {
                Err(Errno::NOENT) if create => {
                    // Only the owner until the end, so that nothing is inherited by what is created below.
                    mkdirat(here, &name, Mode::RWXU).entry("create the directory of", path)?;
                    let next = openat(here, &name, DIRECTORY, Mode::empty()).entry("open", path)?;
                    let inode = fstat(&next).entry("look at", path)?.st_ino;
                    let names = way.iter().map(|(name, _)| name.as_slice()).chain([name.as_slice()]);
                    implied.push(Implied { inode, path: names.collect::<Vec<_>>().join(&b'/') });
                    next
                }
                Err(Errno::NOENT) => return Ok(None),
                other => other.entry("open the directory", path)?,
            };
            let stat = fstat(&next).entry("look at", path)?;
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => way.push((name, next)),
                FileType::Symlink => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(refused(path, "too many symbolic links on its path"));
                    }
                    let target =
                        readlinkat(&next, "", Vec::new()).entry("read a link on the path of", path)?;
                    let target = target.as_bytes();
                    if target.starts_with(b"/") {
                        way.clear();
                    }
                    for component in components(target).rev() {
                        ahead.push_front(component.to_vec());
                    }
                }
                _ if create => return Err(refused(path, "a part of its path is not a directory")),
                _ => return Ok(None),
            }
        }
        match way.pop() {
            Some((_, found)) => Ok(Some(found)),
            None => openat(&self.directory, ".", DIRECTORY, Mode::empty()).entry("open", path).map(Some),
        }
    }
}

fn components(path: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/').filter(|component| !component.is_empty() && *component != b".")
}

/// A path of the archive without leading slashes, `.` and doubled slashes. Empty for the root.
///
/// `..` is refused: no tool that makes layers writes it, and tools disagree on what it means.
pub(crate) fn clean(path: &[u8]) -> Result<Vec<u8>> {
    let mut clean = Vec::with_capacity(path.len());
    for component in components(path) {
        if component == b".." {
            return Err(refused(path, "its path contains `..`"));
        }
        if !clean.is_empty() {
            clean.push(b'/');
        }
        clean.extend_from_slice(component);
    }
    Ok(clean)
}

/// A clean path's directory and last component.
pub(crate) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (&[], path),
    }
}

/// Opens the root of a tree.
pub(crate) fn open_root(path: &std::path::Path) -> rustix::io::Result<OwnedFd> {
    openat(CWD, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}
