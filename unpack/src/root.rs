//! The directory below which everything happens, and finding places in it.
//!
//! Nothing here ever resolves a path of the archive from outside the root: parents are opened with
//! `openat2(RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS)`, which treats the root as `chroot` would, also
//! against somebody who renames directories meanwhile; where the kernel lacks it, a directory is
//! missing or a symbolic link is on the way, they are walked one component at a time, and links are
//! resolved here, below the root. The last component is never followed.
//!
//! A path that is longer than a system call takes (`PATH_MAX`) is opened in several steps.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{
    CWD, FileType, Mode, OFlags, ResolveFlags, fchmod, fchown, fremovexattr, fstat, mkdirat, openat, openat2,
    readlinkat,
};
use rustix::io::Errno;

use crate::error::{EntryContext as _, Result, limit, refused};

/// As many symbolic links as the kernel follows in one path.
const MAX_LINKS: usize = 40;

const DIRECTORY: OFlags =
    OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Longest path that one system call takes, without the NUL at its end.
pub(crate) const PATH_MAX: usize = 4095;

/// Steps of one component along paths that cannot be opened at once: so many for a layer, and so many more for each
/// of its entries. Real layers take a few for each file below a link; one hostile entry can ask for eighty thousand.
const STEPS: u64 = 1_000_000;
const STEPS_PER_ENTRY: u64 = 20;

const TOO_MANY_STEPS: &str = "the layer's long paths and links take too many steps to follow";

/// A directory that was created because the layer has something in it.
#[derive(Debug)]
pub(crate) struct Implied {
    pub(crate) inode: u64,
    /// From the root, without symbolic links.
    pub(crate) path: Vec<u8>,
}

/// A directory that was found.
#[derive(Debug)]
pub(crate) struct Place {
    /// What it was looked up as.
    asked: Vec<u8>,
    /// From the root, without symbolic links: where it is found again, whatever becomes of the links.
    pub(crate) path: Vec<u8>,
    pub(crate) directory: OwnedFd,
}

impl Place {
    /// The path of something in this directory.
    pub(crate) fn join(&self, name: &[u8]) -> Vec<u8> {
        if self.path.is_empty() { name.to_vec() } else { [self.path.as_slice(), b"/", name].concat() }
    }
}

/// What to do where a component is missing.
enum Missing<'a> {
    Stop,
    Create(&'a mut Vec<Implied>),
}

/// The root, and the directory that was used last: entries of one directory follow each other.
#[derive(Debug)]
pub(crate) struct Root {
    directory: OwnedFd,
    last: Option<Place>,
    openat2: bool,
    /// The most directories on a path, links resolved.
    depth: usize,
    steps_left: u64,
}

impl Root {
    pub(crate) fn new(directory: OwnedFd, depth: usize) -> Self {
        Self { directory, last: None, openat2: true, depth, steps_left: STEPS }
    }

    pub(crate) fn directory(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }

    /// One more entry comes.
    pub(crate) fn next_entry(&mut self) {
        self.steps_left += STEPS_PER_ENTRY;
    }

    /// Forgets what was found: something that a path could lead through was removed.
    pub(crate) fn forget(&mut self) {
        self.last = None;
    }

    /// The directory `path`, of which every component exists. `path` is clean and may be empty.
    pub(crate) fn existing(&mut self, path: &[u8]) -> Result<Option<&Place>> {
        self.find(path, Missing::Stop)
    }

    /// The directory `path`; what is missing of it is created and added to `implied`.
    pub(crate) fn created(&mut self, path: &[u8], implied: &mut Vec<Implied>) -> Result<&Place> {
        self.find(path, Missing::Create(implied))?
            .ok_or_else(|| refused(path, "its directory cannot be created"))
    }

    /// Where `path` would be if what is missing of it were created, without symbolic links.
    pub(crate) fn resolved(&mut self, path: &[u8]) -> Result<Vec<u8>> {
        if let Some(place) = self.existing(path)? {
            return Ok(place.path.clone());
        }
        let mut way = Way::new(self.directory())?;
        let mut steps = Steps::new(path);
        // Components that do not exist.
        let mut missing: usize = 0;
        while let Some(name) = steps.next() {
            self.step(path, way.names.len())?;
            match (name.as_slice(), missing) {
                (b"..", 0) => way.up(path)?,
                (b"..", _) => {
                    way.names.pop();
                    missing -= 1;
                }
                (_, 0) => match way.look(&name, path)? {
                    Next::Directory(next) => way.down(name, next, path)?,
                    Next::Link(target) => {
                        if steps.follow(&target, path)? {
                            way = Way::new(self.directory())?;
                        }
                    }
                    Next::Nothing | Next::Other => {
                        way.names.push((name, (0, 0)));
                        missing = 1;
                    }
                },
                _ => {
                    way.names.push((name, (0, 0)));
                    missing += 1;
                }
            }
        }
        Ok(way.path())
    }

    fn find(&mut self, path: &[u8], missing: Missing<'_>) -> Result<Option<&Place>> {
        if self.last.as_ref().is_none_or(|last| last.asked != path) {
            self.last = match self.open_at_once(path)? {
                Some(directory) => Some(Place { asked: path.to_vec(), path: path.to_vec(), directory }),
                None => self.walk(path, missing)?,
            };
        }
        Ok(self.last.as_ref())
    }

    /// Counts work that grows with the length of `path`.
    pub(crate) fn charge(&mut self, path: &[u8]) -> Result<()> {
        let steps = 1 + components(path).count() as u64;
        self.steps_left = self.steps_left.checked_sub(steps).ok_or_else(|| refused(path, TOO_MANY_STEPS))?;
        Ok(())
    }

    /// Counts one step of a walk, to a directory `depth` below the root.
    fn step(&mut self, path: &[u8], depth: usize) -> Result<()> {
        self.steps_left = self.steps_left.checked_sub(1).ok_or_else(|| refused(path, TOO_MANY_STEPS))?;
        if depth > self.depth {
            return Err(too_deep(path, self.depth));
        }
        Ok(())
    }

    /// `None` when the way has to be walked.
    fn open_at_once(&mut self, path: &[u8]) -> Result<Option<OwnedFd>> {
        if path.is_empty() {
            return openat(&self.directory, ".", DIRECTORY, Mode::empty()).entry("open", b"/").map(Some);
        }
        let (mut here, mut rest) = (None, path);
        while !rest.is_empty() {
            let (part, after) = first_part(rest);
            let from = here.as_ref().map_or(self.directory.as_fd(), OwnedFd::as_fd);
            match open_part(from, part, self.openat2) {
                Ok(found) => here = Some(found),
                Err(Errno::NOSYS | Errno::PERM) => {
                    self.openat2 = false;
                    return Ok(None);
                }
                // The walk creates what is missing, follows links and says what is in the way. Every rename on
                // the system may make the kernel give up with EAGAIN.
                Err(
                    Errno::NOENT
                    | Errno::NOTDIR
                    | Errno::LOOP
                    | Errno::NAMETOOLONG
                    | Errno::AGAIN
                    | Errno::INTR,
                ) => return Ok(None),
                Err(errno) => return Err(errno).entry("open the directory", path),
            }
            rest = after;
        }
        Ok(here)
    }

    /// Goes to `path` step by step, following symbolic links inside the root.
    fn walk(&mut self, path: &[u8], mut missing: Missing<'_>) -> Result<Option<Place>> {
        let mut way = Way::new(self.directory())?;
        let mut steps = Steps::new(path);
        while let Some(name) = steps.next() {
            self.step(path, way.names.len() + 1)?;
            if name == b".." {
                way.up(path)?;
                continue;
            }
            match (way.look(&name, path)?, &mut missing) {
                (Next::Directory(next), _) => way.down(name, next, path)?,
                (Next::Link(target), _) => {
                    if steps.follow(&target, path)? {
                        way = Way::new(self.directory())?;
                    }
                }
                (Next::Nothing, Missing::Create(implied)) => {
                    // Only the owner until the end, so that nothing is inherited by what is created below.
                    mkdirat(&way.here, &name, Mode::RWXU).entry("create the directory of", path)?;
                    let next = openat(&way.here, &name, DIRECTORY, Mode::empty()).entry("open", path)?;
                    way.down(name, next, path)?;
                    implied.push(Implied { inode: way.identity(path)?.1, path: way.path() });
                }
                (Next::Other, Missing::Create(_)) => {
                    return Err(refused(path, "a part of its path is not a directory"));
                }
                (Next::Nothing | Next::Other, Missing::Stop) => return Ok(None),
            }
        }
        Ok(Some(Place { asked: path.to_vec(), path: way.path(), directory: way.here }))
    }
}

/// The components that are still to go.
struct Steps {
    ahead: VecDeque<Vec<u8>>,
    links: usize,
}

impl Steps {
    fn new(path: &[u8]) -> Self {
        Self { ahead: components(path).map(<[u8]>::to_vec).collect(), links: 0 }
    }

    fn next(&mut self) -> Option<Vec<u8>> {
        self.ahead.pop_front()
    }

    /// Goes on at `target`; true if that is absolute.
    fn follow(&mut self, target: &[u8], path: &[u8]) -> Result<bool> {
        self.links += 1;
        if self.links > MAX_LINKS {
            return Err(refused(path, "too many symbolic links on its path"));
        }
        for component in components(target).rev() {
            self.ahead.push_front(component.to_vec());
        }
        Ok(target.starts_with(b"/"))
    }
}

/// Device and inode number.
type Identity = (u64, u64);

/// What a name stands for.
enum Next {
    Directory(OwnedFd),
    Link(Vec<u8>),
    Other,
    Nothing,
}

/// A directory and how it was reached. Only its own descriptor is kept, as a path may have more components than
/// a process may have files.
struct Way {
    /// The names from the root, and the directory above each.
    names: Vec<(Vec<u8>, Identity)>,
    here: OwnedFd,
}

impl Way {
    fn new(root: BorrowedFd<'_>) -> Result<Self> {
        let here = openat(root, ".", DIRECTORY, Mode::empty()).entry("open", b"/")?;
        Ok(Self { names: Vec::new(), here })
    }

    fn look(&self, name: &[u8], path: &[u8]) -> Result<Next> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let next = match openat(&self.here, name, flags, Mode::empty()) {
            Err(Errno::NOENT) => return Ok(Next::Nothing),
            other => other.entry("open the directory", path)?,
        };
        let stat = fstat(&next).entry("look at", path)?;
        Ok(match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => Next::Directory(next),
            FileType::Symlink => {
                let target = readlinkat(&next, "", Vec::new()).entry("read a link on the path of", path)?;
                Next::Link(target.into_bytes())
            }
            _ => Next::Other,
        })
    }

    fn down(&mut self, name: Vec<u8>, next: OwnedFd, path: &[u8]) -> Result<()> {
        let above = self.identity(path)?;
        self.names.push((name, above));
        self.here = next;
        Ok(())
    }

    /// To the directory above; at the root, nowhere. Somebody may have moved this one, even out of the root.
    fn up(&mut self, path: &[u8]) -> Result<()> {
        if let Some((_, above)) = self.names.pop() {
            self.here = openat(&self.here, "..", DIRECTORY, Mode::empty()).entry("open", path)?;
            if self.identity(path)? != above {
                return Err(refused(path, "a directory on its path was moved meanwhile"));
            }
        }
        Ok(())
    }

    fn identity(&self, path: &[u8]) -> Result<Identity> {
        let stat = fstat(&self.here).entry("look at", path)?;
        Ok((stat.st_dev, stat.st_ino))
    }

    fn path(&self) -> Vec<u8> {
        self.names.iter().map(|(name, _)| name.as_slice()).collect::<Vec<_>>().join(&b'/')
    }
}

/// As much of a clean path as one system call takes, and what is left of it.
fn first_part(path: &[u8]) -> (&[u8], &[u8]) {
    if path.len() <= PATH_MAX {
        return (path, b"");
    }
    match path[..=PATH_MAX].iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        // A name of such a length exists nowhere.
        None => (path, b""),
    }
}

fn open_part(from: BorrowedFd<'_>, path: &[u8], openat2_works: bool) -> Result<OwnedFd, Errno> {
    const ATTEMPTS: usize = 16;
    if !openat2_works {
        return Err(Errno::NOSYS);
    }
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    for _ in 1..ATTEMPTS {
        match openat2(from, path, DIRECTORY, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return other,
        }
    }
    openat2(from, path, DIRECTORY, Mode::empty(), resolve)
}

fn too_deep(path: &[u8], depth: usize) -> crate::Error {
    limit(path, "directories on the way to it", depth as u64)
}

fn components(path: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/').filter(|component| !component.is_empty() && *component != b".")
}

/// A path of the archive without leading slashes, `.` and doubled slashes. Empty for the root.
///
/// `..` is refused: no tool that makes layers writes it, and tools disagree on what it means. So is a path of more
/// than `depth` directories.
pub(crate) fn clean(path: &[u8], depth: usize) -> Result<Vec<u8>> {
    let mut clean = Vec::with_capacity(path.len());
    for (number, component) in components(path).enumerate() {
        if number > depth {
            return Err(too_deep(path, depth));
        }
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

/// Opens the root of a tree that is to be written: an empty directory, from which nothing is inherited. The group of a
/// set-group-ID directory would be by everything below, as the store's directory may have done already, and so would a
/// default ACL.
pub(crate) fn open_root(target: &Path) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let root =
        openat(CWD, target, flags, Mode::empty()).entry("open", target.as_os_str().as_encoded_bytes())?;
    let group = rustix::process::getegid();
    if fstat(&root).entry("look at", b"/")?.st_gid != group.as_raw() {
        fchown(&root, None, Some(group)).entry("set the group of", b"/")?;
    }
    for acl in ["system.posix_acl_default", "system.posix_acl_access"] {
        match fremovexattr(&root, acl) {
            Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP) => {}
            Err(errno) => return Err(errno).entry("clear the ACL of", b"/"),
        }
    }
    fchmod(&root, Mode::RWXU).entry("set the mode of", b"/")?;
    Ok(root)
}
