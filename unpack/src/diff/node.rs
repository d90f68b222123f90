//! Files of the tree, found without following or disturbing anything.

use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Dir, FileType, Mode, OFlags, ResolveFlags, Stat, fstat, openat, openat2};
use rustix::io::Errno;

use super::error::{DiffError, FileContext as _, changed, refused};

const PATH: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Device and inode number.
pub(super) type Identity = (u64, u64);

pub(super) fn identity(stat: &Stat) -> Identity {
    (stat.st_dev, stat.st_ino)
}

/// A file of any kind, held by a descriptor that does nothing to it: no pipe waits for a writer, no device
/// notices. Whatever becomes of its name, everything below is about this one file.
#[derive(Debug)]
pub(super) struct Node {
    fd: OwnedFd,
    pub(super) stat: Stat,
}

impl Node {
    /// `name` is one component.
    pub(super) fn open(parent: impl AsFd, name: &[u8], path: &[u8]) -> Result<Self, DiffError> {
        // A mount point hides the container's file, and what is mounted is not its own.
        let fd = match openat2(&parent, name, PATH, Mode::empty(), ResolveFlags::NO_XDEV) {
            Err(Errno::XDEV) => return Err(refused(path, "something is mounted there")),
            // Old kernels do not have the call, some seccomp profiles forbid it.
            Err(Errno::NOSYS | Errno::PERM | Errno::AGAIN) => openat(&parent, name, PATH, Mode::empty()),
            other => other,
        };
        Self::of(fd.file("open", path)?, path)
    }

    pub(super) fn root(path: &Path) -> Result<Self, DiffError> {
        let opened = openat(CWD, path, PATH | OFlags::DIRECTORY, Mode::empty());
        let opened = opened.map_err(|errno| DiffError::File {
            action: "open",
            file: path.display().to_string(),
            source: errno.into(),
        })?;
        Self::of(opened, b"")
    }

    /// Of a descriptor that was opened with `O_PATH` and `O_NOFOLLOW`.
    pub(super) fn of(fd: OwnedFd, path: &[u8]) -> Result<Self, DiffError> {
        let stat = fstat(&fd).file("look at", path)?;
        Ok(Self { fd, stat })
    }

    pub(super) fn kind(&self) -> FileType {
        FileType::from_raw_mode(self.stat.st_mode)
    }

    pub(super) fn target(&self, path: &[u8]) -> Result<Vec<u8>, DiffError> {
        let target = rustix::fs::readlinkat(&self.fd, "", Vec::new()).file("read the link", path)?;
        Ok(target.into_bytes())
    }

    /// A path of this very file, for calls that take no descriptor of this kind. A symbolic link at its end is
    /// the file, not followed.
    pub(super) fn proc_path(&self) -> String {
        format!("/proc/self/fd/{}", self.fd.as_raw_fd())
    }

    /// Opens what is known to be a regular file for reading. By its name it could be a device by now.
    pub(super) fn open_file(&self, path: &[u8]) -> Result<OwnedFd, DiffError> {
        // NONBLOCK, because somebody may hold a lease on it.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        openat(CWD, self.proc_path(), flags, Mode::empty()).file("open", path)
    }

    pub(super) fn open_directory(&self, path: &[u8]) -> Result<OwnedFd, DiffError> {
        open_directory(&self.fd, ".", path)
    }
}

/// The directory above `directory`, which must be the one that it was.
pub(super) fn above(directory: &OwnedFd, expected: Identity, path: &[u8]) -> Result<OwnedFd, DiffError> {
    let above = open_directory(directory, "..", path)?;
    // Moved, maybe out of the tree.
    if identity(&fstat(&above).file("look at", path)?) != expected {
        return Err(changed(path));
    }
    Ok(above)
}

fn open_directory(directory: &OwnedFd, name: &str, path: &[u8]) -> Result<OwnedFd, DiffError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(directory, name, flags, Mode::empty()).file("open the directory", path)
}

/// All names in a directory, in an order that does not depend on the filesystem: the last one first, to be taken
/// from the end. `each` is told of their lengths as they come.
pub(super) fn names(
    directory: &OwnedFd,
    path: &[u8],
    mut each: impl FnMut(usize) -> Result<(), DiffError>,
) -> Result<Vec<Box<[u8]>>, DiffError> {
    let mut names: Vec<Box<[u8]>> = Vec::new();
    for found in Dir::read_from(directory).file("read the directory", path)? {
        let found = found.file("read the directory", path)?;
        let name = found.file_name().to_bytes();
        if name != b"." && name != b".." {
            each(name.len())?;
            names.push(name.into());
        }
    }
    names.sort_unstable_by(|a, b| b.cmp(a));
    // A directory that changes meanwhile may be read as having a name twice.
    names.dedup();
    Ok(names)
}
