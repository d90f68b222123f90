//! Removing what an earlier entry of the same layer made.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat, fstat, openat, statat, unlinkat};
use rustix::io::Errno;

/// Removes whatever is at `name`, without following it, and tells `gone` of each file before its name goes.
///
/// A tree may be deeper than there is stack or than a process may have files, so this goes down and up with one
/// descriptor. On the way up it checks that nobody moved the directory meanwhile.
pub(crate) fn remove(parent: BorrowedFd<'_>, name: &[u8], gone: &mut impl FnMut(&Stat)) -> Result<(), Errno> {
    if !unlink(parent, name, gone)? {
        return Ok(());
    }
    let mut here = open(parent, name)?;
    // The names from the top to here, and the inode number of the directory above each.
    let mut way: Vec<(Vec<u8>, u64)> = Vec::new();
    loop {
        if let Some(child) = unlink_files(&here, gone)? {
            let next = open(here.as_fd(), &child)?;
            way.push((child, fstat(&here)?.st_ino));
            here = next;
            continue;
        }
        gone(&fstat(&here)?);
        let Some((name, inode)) = way.pop() else { break };
        here = open(here.as_fd(), b"..")?;
        if fstat(&here)?.st_ino != inode {
            return Err(Errno::STALE);
        }
        unlinkat(&here, &name, AtFlags::REMOVEDIR)?;
    }
    unlinkat(parent, name, AtFlags::REMOVEDIR)
}

/// Removes all that is not a directory; returns the first directory.
fn unlink_files(directory: &OwnedFd, gone: &mut impl FnMut(&Stat)) -> Result<Option<Vec<u8>>, Errno> {
    for child in Dir::read_from(directory)? {
        let child = child?;
        let name = child.file_name().to_bytes();
        if name != b"." && name != b".." && unlink(directory.as_fd(), name, gone)? {
            return Ok(Some(name.to_vec()));
        }
    }
    Ok(None)
}

/// True if it is a directory, which is left.
fn unlink(parent: BorrowedFd<'_>, name: &[u8], gone: &mut impl FnMut(&Stat)) -> Result<bool, Errno> {
    let stat = statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
    if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
        return Ok(true);
    }
    unlinkat(parent, name, AtFlags::empty())?;
    gone(&stat);
    Ok(false)
}

fn open(parent: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(parent, name, flags, Mode::empty())
}
