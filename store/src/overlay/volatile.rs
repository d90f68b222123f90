//! The mark that a `volatile` overlay leaves behind.
//!
//! After a crash nobody knows what of an upper tree has reached the disk, so overlayfs creates
//! `work/work/incompat/volatile/dirty` and refuses to mount the tree again (`overlayfs.rst`, "Volatile mount";
//! `ovl_create_volatile_dirty` in `fs/overlayfs/super.c`; Linux 5.10). Whoever knows that there was no crash
//! takes the mark away.

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, openat, unlinkat};
use rustix::io::Errno;

use super::{Upper, WORK};
use crate::error::{IoContext as _, Result};

const MARK: &str = "volatile";
const DIRTY: &str = "dirty";

/// Whether an upper tree was mounted `volatile`. Fails with an error of its I/O.
pub fn has_volatile_mark(upper: &Upper) -> Result<bool> {
    let found = incompat(&upper.tree).and_then(|incompat| match incompat {
        Some(incompat) => open(&incompat, MARK),
        None => Ok(None),
    });
    Ok(found.context("look for the mark of a volatile mount in", &upper.tree)?.is_some())
}

/// Takes the mark away, and nothing else, and tells whether there was one.
///
/// The tree must not be mounted. What was written is then as durable as the filesystem has made it: after a
/// crash it may be half there.
pub fn clear_volatile(upper: &Upper) -> Result<bool> {
    clear(&upper.tree).context("take the mark of a volatile mount from", &upper.tree)
}

fn clear(tree: &Path) -> Result<bool, Errno> {
    let Some(incompat) = incompat(tree)? else { return Ok(false) };
    let Some(mark) = open(&incompat, MARK)? else { return Ok(false) };
    match unlinkat(&mark, DIRTY, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(errno) => return Err(errno),
    }
    unlinkat(&incompat, MARK, AtFlags::REMOVEDIR)?;
    Ok(true)
}

/// The directory of marks that forbid a mount.
fn incompat(tree: &Path) -> Result<Option<OwnedFd>, Errno> {
    let mut directory = match openat(CWD, tree, FLAGS, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(None),
        other => other?,
    };
    // The second one is overlayfs's own.
    for name in [WORK, "work", "incompat"] {
        match open(&directory, name)? {
            Some(next) => directory = next,
            None => return Ok(None),
        }
    }
    Ok(Some(directory))
}

const FLAGS: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

fn open(at: &OwnedFd, name: &str) -> Result<Option<OwnedFd>, Errno> {
    match openat(at, name, FLAGS, Mode::empty()) {
        Ok(directory) => Ok(Some(directory)),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}
