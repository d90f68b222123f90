//! Walking through files that may come and go meanwhile, of any depth, on one mount.
//!
//! Names are looked up below open directories and never followed, so that nobody who changes a path leads the walk
//! elsewhere. Only directories are opened: SQLite's locks would be lost when its file is closed.

use std::ffi::{CStr, CString};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, RawDir, ResolveFlags, Statx, StatxFlags, Timespec, Timestamps,
    UTIME_OMIT, openat, openat2, statx, utimensat,
};
use rustix::io::Errno;

use crate::error::{IoContext as _, Result};
use crate::size::Size;

/// The mount that a walk does not leave.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Home {
    mount: u64,
    device: (u32, u32),
}

/// What a name stands for.
#[expect(clippy::large_enum_variant, reason = "it lives for a moment, and mostly it is the large one")]
#[derive(Debug, Clone, Copy)]
pub(crate) enum Found {
    /// Nothing, any more.
    Gone,
    /// What is mounted there.
    Elsewhere,
    Here(Statx),
}

/// A name in a directory.
#[derive(Debug)]
pub(crate) struct Name {
    pub(crate) name: CString,
    /// Some filesystems do not tell.
    pub(crate) kind: Option<FileType>,
}

/// A directory on the way down.
struct Frame {
    /// Its name in the one before; not of the first.
    name: CString,
    inode: u64,
    names: Vec<Name>,
}

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

impl Home {
    /// The mount that holds `path`.
    pub(crate) fn of(path: &Path) -> Result<Self> {
        let found = stat(CWD, path).context("examine", path)?;
        Ok(Self { mount: found.stx_mnt_id, device: device(&found) })
    }

    /// The same, if there is anything.
    pub(crate) fn find(path: &Path) -> Result<Option<Self>> {
        match stat(CWD, path) {
            Ok(found) => Ok(Some(Self { mount: found.stx_mnt_id, device: device(&found) })),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(errno) => Err(errno).context("examine", path),
        }
    }

    /// Looks at a name without following it.
    pub(crate) fn look(&self, at: impl AsFd, name: impl rustix::path::Arg) -> Result<Found, Errno> {
        match stat(at, name) {
            Ok(found) if (found.stx_mnt_id, device(&found)) == (self.mount, self.device) => {
                Ok(Found::Here(found))
            }
            Ok(_) => Ok(Found::Elsewhere),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(Found::Gone),
            Err(errno) => Err(errno),
        }
    }

    /// Opens a directory; `None` if it is not there any more, or something is mounted there by now.
    pub(crate) fn open(&self, at: impl AsFd, name: impl rustix::path::Arg) -> Result<Option<OwnedFd>, Errno> {
        let opened = match openat(at, name, DIRECTORY, Mode::empty()) {
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
            opened => opened?,
        };
        Ok(matches!(self.look_at(&opened)?, Found::Here(_)).then_some(opened))
    }

    /// The same in one call, for a name in an open directory of this mount.
    pub(crate) fn open_in(
        &self,
        at: impl AsFd,
        name: impl rustix::path::Arg + Copy,
    ) -> Result<Option<OwnedFd>, Errno> {
        let on_this_mount = ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS;
        match openat2(&at, name, DIRECTORY, Mode::empty(), on_this_mount) {
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV) => Ok(None),
            // Linux before 5.6, and sandboxes that have not heard of it.
            Err(Errno::NOSYS | Errno::PERM) => self.open(at, name),
            opened => opened.map(Some),
        }
    }

    fn look_at(&self, opened: &OwnedFd) -> Result<Found, Errno> {
        self.look(opened, c"")
    }

    /// Shows `each` what is at `top` and everything below, in no particular order. Whatever has several names is shown
    /// several times.
    pub(crate) fn walk(&self, top: &Path, mut each: impl FnMut(&Statx)) -> Result<()> {
        self.walk_tree(top, &mut each).context("examine what is in", top)
    }

    fn walk_tree(&self, top: &Path, each: &mut impl FnMut(&Statx)) -> Result<(), Errno> {
        let Found::Here(found) = self.look(CWD, top)? else { return Ok(()) };
        each(&found);
        if !is_directory(&found) {
            return Ok(());
        }
        let Some(mut here) = self.open(CWD, top)? else { return Ok(()) };
        let mut way = vec![self.frame(&here, CString::default())?];
        while let Some(frame) = way.last_mut() {
            let Some(Name { name, kind }) = frame.names.pop() else {
                way.pop();
                let Some(above) = way.last() else { break };
                here = match self.up(&here, above.inode)? {
                    Some(directory) => directory,
                    None => match self.again(top, &mut way)? {
                        Some(directory) => directory,
                        None => break,
                    },
                };
                continue;
            };
            let Found::Here(found) = self.look(&here, &*name)? else { continue };
            each(&found);
            if kind.is_some_and(|kind| kind != FileType::Directory) || !is_directory(&found) {
                continue;
            }
            let Some(directory) = self.open(&here, &*name)? else { continue };
            way.push(self.frame(&directory, name)?);
            here = directory;
        }
        Ok(())
    }

    fn frame(&self, directory: &OwnedFd, name: CString) -> Result<Frame, Errno> {
        let names = list(directory)?;
        match self.look_at(directory)? {
            Found::Here(found) => Ok(Frame { name, inode: found.stx_ino, names }),
            Found::Gone | Found::Elsewhere => Ok(Frame { name, inode: 0, names: Vec::new() }),
        }
    }

    /// The directory above, if it is still the one that the walk came from.
    fn up(&self, here: &OwnedFd, inode: u64) -> Result<Option<OwnedFd>, Errno> {
        let Some(above) = self.open(here, c"..")? else { return Ok(None) };
        let same = matches!(self.look_at(&above)?, Found::Here(found) if found.stx_ino == inode);
        Ok(same.then_some(above))
    }

    /// Goes down again to the last directory of the way that is still there; what was moved out is left.
    fn again(&self, top: &Path, way: &mut Vec<Frame>) -> Result<Option<OwnedFd>, Errno> {
        let Some(mut here) = self.open(CWD, top)? else { return Ok(None) };
        let mut depth = 0;
        for (index, frame) in way.iter().enumerate() {
            let next = if index == 0 {
                Some(here.try_clone().map_err(|_| Errno::MFILE)?)
            } else {
                self.open(&here, &*frame.name)?
            };
            let Some(next) = next else { break };
            match self.look_at(&next)? {
                Found::Here(found) if found.stx_ino == frame.inode => here = next,
                _ => break,
            }
            depth = index + 1;
        }
        way.truncate(depth);
        Ok((depth > 0).then_some(here))
    }
}

/// Marks the directory of a tree as one in which there is only what belongs there. Whoever adds or removes a name changes its
/// time, so that a scan need not look into thousands of them.
pub(crate) fn mark_untouched(tree: &Path) -> Result<()> {
    let times = Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: 0, tv_nsec: 0 },
    };
    utimensat(CWD, tree, &times, AtFlags::SYMLINK_NOFOLLOW).context("set the times of", tree)
}

/// Whether a directory is still as it was marked.
pub(crate) fn is_untouched(found: &Statx) -> bool {
    (found.stx_mtime.tv_sec, found.stx_mtime.tv_nsec) == (0, 0)
}

/// The names in a directory that was just opened. One that was removed has none.
pub(crate) fn list(directory: &OwnedFd) -> Result<Vec<Name>, Errno> {
    let mut names = Vec::new();
    // Not by way of a stream, which opens every directory a second time.
    let mut buffer = [const { MaybeUninit::uninit() }; 8192];
    let mut entries = RawDir::new(directory, &mut buffer);
    while let Some(entry) = entries.next() {
        let entry = match entry {
            Err(Errno::NOENT) => break,
            entry => entry?,
        };
        let name: &CStr = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let kind = Some(entry.file_type()).filter(|kind| *kind != FileType::Unknown);
        names.push(Name { name: name.to_owned(), kind });
    }
    Ok(names)
}

fn stat(at: impl AsFd, name: impl rustix::path::Arg) -> Result<Statx, Errno> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT | AtFlags::EMPTY_PATH;
    statx(at, name, flags, StatxFlags::BASIC_STATS | StatxFlags::MNT_ID)
}

fn device(found: &Statx) -> (u32, u32) {
    (found.stx_dev_major, found.stx_dev_minor)
}

pub(crate) fn is_directory(found: &Statx) -> bool {
    kind_of(found) == FileType::Directory
}

pub(crate) fn kind_of(found: &Statx) -> FileType {
    FileType::from_raw_mode(found.stx_mode.into())
}

/// What one inode takes.
pub(crate) fn size_of(found: &Statx) -> Size {
    let apparent = if kind_of(found) == FileType::RegularFile { found.stx_size } else { 0 };
    Size { apparent, allocated: found.stx_blocks.saturating_mul(512), inodes: 1 }
}

/// Bytes of a file's blocks, which stat(2) counts in units of 512 whatever the filesystem does.
pub(crate) fn blocks(stat: &rustix::fs::Stat) -> u64 {
    u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(512)
}

/// The same of a file that is complete and still open: XFS has given it some more, which it takes back when it is closed
/// (xfs(5), `allocsize`).
pub(crate) fn blocks_of_open(file: impl AsFd, stat: &rustix::fs::Stat) -> u64 {
    /// `XFS_SUPER_MAGIC` of linux/magic.h.
    const XFS: u64 = 0x5846_5342;
    let content = u64::try_from(stat.st_size).unwrap_or(0).next_multiple_of(4096);
    let is_xfs = || rustix::fs::fstatfs(file).is_ok_and(|found| u64::try_from(found.f_type) == Ok(XFS));
    let blocks = blocks(stat);
    if blocks > content && is_xfs() { content } else { blocks }
}

/// Whether it may have other names.
pub(crate) fn is_linked(found: &Statx) -> bool {
    found.stx_nlink > 1 && !is_directory(found)
}

/// Does `work` on all of `items`, on two threads if there are several: while one waits for the disk or the kernel's locks,
/// the other goes on. The results are in the order of the items.
pub(crate) fn in_parallel<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    if items.len() < 2 {
        return items.iter().map(work).collect();
    }
    let next = AtomicUsize::new(0);
    let run = || {
        let mut done = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(index) else { return done };
            done.push((index, work(item)));
        }
    };
    let mut done = std::thread::scope(|scope| {
        let other = scope.spawn(run);
        let mut done = run();
        match other.join() {
            Ok(more) => done.extend(more),
            Err(panic) => std::panic::resume_unwind(panic),
        }
        done
    });
    done.sort_unstable_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, result)| result).collect()
}

/// Opens one of the store's own directories.
pub(crate) fn open_own(home: &Home, path: &Path) -> Result<Option<OwnedFd>> {
    home.open(CWD, path).context("open", path)
}

#[cfg(test)]
mod tests;
