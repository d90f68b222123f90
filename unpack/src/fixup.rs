//! Writing a fix-up: a small tree above an image's own, with what only the stack as a whole can tell.
//!
//! A layer may have files in a directory that it does not list. Its tree has that directory with made-up
//! attributes, which would hide those that a layer below gives it. A fix-up repeats the directory, with the right
//! attributes and nothing else in it; overlayfs takes a merged directory's attributes from the topmost tree.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{
    Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, XattrFlags, fchmod, fchown, fgetxattr,
    flistxattr, fsetxattr, fstat, futimens, mkdirat, openat2,
};
use rustix::io::Errno;

use crate::Usage;
use crate::error::{EntryContext as _, Result};
use crate::options::{Options, OverlayXattr, Ownership};
use crate::root::{open_root, split};

/// What a directory takes on disk.
const BLOCK: u64 = 4096;

/// A fix-up that is being written.
#[derive(Debug)]
pub struct Fixup {
    root: OwnedFd,
    /// Paths in the order in which they came, each with the directory that it repeats.
    directories: Vec<(Vec<u8>, OwnedFd)>,
}

impl Fixup {
    /// Starts with an empty directory.
    pub fn new(target: &Path) -> Result<Self> {
        let root = open_root(target).entry("open", target.as_os_str().as_encoded_bytes())?;
        Ok(Self { root, directories: Vec::new() })
    }

    /// Repeats the directory `like`, open for reading, at `path`; the empty path is the root. A directory comes after
    /// the one that it is in.
    pub fn directory(&mut self, path: &[u8], like: OwnedFd) -> Result<()> {
        if !path.is_empty() {
            let (parent, name) = split(path);
            let parent = self.open(parent)?;
            mkdirat(&parent, name, Mode::RWXU).entry("create", path)?;
        }
        self.directories.push((path.to_vec(), like));
        Ok(())
    }

    /// Gives all directories their attributes.
    pub fn finish(self, options: &Options) -> Result<Usage> {
        let mut usage = Usage::default();
        for (path, like) in self.directories.iter().rev() {
            let directory = self.open(path)?;
            copy_attributes(like.as_fd(), directory.as_fd(), path, options)?;
            usage.inodes += 1;
            usage.allocated += BLOCK;
        }
        Ok(usage)
    }

    fn open(&self, path: &[u8]) -> Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let name = if path.is_empty() { b"." } else { path };
        loop {
            match openat2(&self.root, name, flags, Mode::empty(), resolve) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                other => return other.entry("open", path),
            }
        }
    }
}

/// Makes `to` like `from` in owner, extended attributes, mode and times, in the order that the kernel asks for
/// (see the module on attributes).
fn copy_attributes(from: BorrowedFd<'_>, to: BorrowedFd<'_>, path: &[u8], options: &Options) -> Result<()> {
    let stat = fstat(from).entry("look at", path)?;
    let owner = (Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)));
    match fchown(to, owner.0, owner.1) {
        Err(Errno::PERM | Errno::INVAL) if options.ownership == Ownership::Current => {}
        other => other.entry("set the owner of", path)?,
    }
    for name in xattr_names(from, path)? {
        if is_mark(&name, options.overlay) {
            continue;
        }
        let value = xattr(from, &name, path)?;
        match fsetxattr(to, name.as_slice(), &value, XattrFlags::empty()) {
            Err(Errno::OPNOTSUPP) => {}
            Err(Errno::PERM) if options.ownership == Ownership::Current => {}
            other => other.entry("set an extended attribute of", path)?,
        }
    }
    fchmod(to, Mode::from_raw_mode(stat.st_mode & 0o7777)).entry("set the mode of", path)?;
    let time = |seconds, nanoseconds: u64| Timespec {
        tv_sec: seconds,
        tv_nsec: nanoseconds.try_into().unwrap_or(0),
    };
    let times = Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    };
    futimens(to, &times).entry("set the times of", path)
}

/// Overlayfs's own marks belong to the one tree that has them. What it unescapes is the image's.
fn is_mark(name: &[u8], overlay: OverlayXattr) -> bool {
    name.strip_prefix(overlay.prefix()).is_some_and(|rest| !rest.starts_with(b"overlay."))
}

fn xattr_names(file: BorrowedFd<'_>, path: &[u8]) -> Result<Vec<Vec<u8>>> {
    let list = sized(|buffer| flistxattr(file, buffer));
    match list {
        Err(Errno::OPNOTSUPP) => Ok(Vec::new()),
        other => {
            let names = other.entry("list the extended attributes of", path)?;
            Ok(names.split(|byte| *byte == 0).filter(|name| !name.is_empty()).map(<[u8]>::to_vec).collect())
        }
    }
}

fn xattr(file: BorrowedFd<'_>, name: &[u8], path: &[u8]) -> Result<Vec<u8>> {
    sized(|buffer| fgetxattr(file, name, buffer)).entry("read an extended attribute of", path)
}

/// The kernel's limit for the list of names and for a value (`XATTR_LIST_MAX`, `XATTR_SIZE_MAX`).
const XATTR_MAX: usize = 65536;

fn sized(call: impl FnOnce(&mut [u8]) -> Result<usize, Errno>) -> Result<Vec<u8>, Errno> {
    let mut buffer = vec![0; XATTR_MAX];
    let length = call(&mut buffer)?;
    buffer.truncate(length);
    Ok(buffer)
}
