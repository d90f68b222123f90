//! Writing a fix-up: a small tree above an image's own, with what only the stack as a whole can tell.
//!
//! A layer may have files in a directory that it does not list. Its tree has that directory with made-up
//! attributes, which would hide those that a layer below gives it. A fix-up repeats the directory, with the right
//! attributes and nothing else in it; overlayfs takes a merged directory's attributes from the topmost tree.
//!
//! A layer may also have hard links to files of the layers below ([`LowerLink`](crate::LowerLink)), which no tree can
//! have alone. A fix-up has the file, under its own name and those of the links: what copying it up would make of it in
//! a container.

use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, SeekFrom, Stat, Timespec, Timestamps, fstat, ftruncate, getxattr,
    ioctl_ficlone, linkat, listxattr, mkdirat, mknodat, openat, readlinkat, seek, symlinkat,
};
use rustix::io::{Errno, pread, pwrite, retry_on_intr};

use crate::Usage;
use crate::attributes::{Attributes, Opened};
use crate::diff::LOCAL;
use crate::error::{EntryContext as _, Result, refused};
use crate::options::{Options, OverlayXattr};
use crate::root::{Root, open_root, split};

/// A fix-up that is being written.
#[derive(Debug)]
pub struct Fixup<'a> {
    root: Root,
    options: &'a Options,
    /// Paths in the order in which they came, each with what it will have.
    directories: Vec<(Vec<u8>, Attributes)>,
    usage: Usage,
}

impl<'a> Fixup<'a> {
    /// Starts with an empty directory.
    pub fn new(target: &Path, options: &'a Options) -> Result<Self> {
        let root = Root::new(open_root(target)?, options.limits.depth);
        Ok(Self { root, options, directories: Vec::new(), usage: Usage::default() })
    }

    /// Repeats the directory `like`, open for reading, at `path`; the empty path is the root. A directory comes after
    /// the one that it is in.
    pub fn directory(&mut self, path: &[u8], like: &OwnedFd) -> Result<()> {
        if !path.is_empty() {
            let (parent, name) = split(path);
            let parent = self.place(parent)?;
            mkdirat(&parent, name, Mode::RWXU).entry("create", path)?;
        }
        self.directories.push((path.to_vec(), attributes_of(like.as_fd(), path, self.options)?));
        self.usage.inodes += 1;
        Ok(())
    }

    /// Repeats the file `like`, of any type but a directory and open as a path (`O_PATH`), under all of `names`. The
    /// directories that they are in come before.
    pub fn file(&mut self, names: &[Vec<u8>], like: &OwnedFd) -> Result<()> {
        let Some((first, others)) = names.split_first() else { return Ok(()) };
        let (parent, name) = split(first);
        let parent = self.place(parent)?;
        let stat = fstat(like).entry("look at", first)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        let made = match kind {
            FileType::RegularFile => {
                let flags =
                    OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let file = openat(&parent, name, flags, Mode::RUSR | Mode::WUSR).entry("create", first)?;
                copy(like, &file, &stat).entry("copy", first)?;
                self.usage.bytes += stat.st_size.cast_unsigned();
                file
            }
            FileType::Directory => return Err(refused(first, "it is a hard link to a directory")),
            _ => {
                if kind == FileType::Symlink {
                    let target = readlinkat(like, "", Vec::new()).entry("read the link", first)?;
                    symlinkat(&target, &parent, name).entry("create", first)?;
                } else {
                    mknodat(&parent, name, kind, Mode::RUSR | Mode::WUSR, stat.st_rdev)
                        .entry("create", first)?;
                }
                let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                openat(&parent, name, flags, Mode::empty()).entry("open", first)?
            }
        };
        self.usage.inodes += 1;
        for other in others {
            let (directory, other_name) = split(other);
            let directory = self.place(directory)?;
            linkat(&parent, name, &directory, other_name, AtFlags::empty()).entry("link", other)?;
        }
        let attributes = attributes_of(like.as_fd(), first, self.options)?;
        let opened = match kind {
            FileType::RegularFile => Opened::File(made.as_fd()),
            _ => Opened::Path(made.as_fd()),
        };
        attributes.set_owner_and_xattrs(&opened, first, self.options)?;
        if kind != FileType::Symlink {
            attributes.set_mode(&opened, first)?;
        }
        attributes.set_times(&opened, first)?;
        self.usage.add_blocks(&fstat(&made).entry("look at", first)?);
        Ok(())
    }

    /// Gives all directories their attributes.
    pub fn finish(mut self) -> Result<Usage> {
        for (path, attributes) in std::mem::take(&mut self.directories).iter().rev() {
            let place = self.place(path)?;
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let directory = openat(&place, ".", flags, Mode::empty()).entry("open", path)?;
            let opened = Opened::File(directory.as_fd());
            attributes.set_owner_and_xattrs(&opened, path, self.options)?;
            attributes.set_mode(&opened, path)?;
            attributes.set_times(&opened, path)?;
            self.usage.add_blocks(&fstat(&directory).entry("look at", path)?);
        }
        Ok(self.usage)
    }

    fn place(&mut self, path: &[u8]) -> Result<OwnedFd> {
        self.root.next_entry();
        match self.root.existing(path)? {
            Some(place) => place.directory.try_clone().entry("open", path),
            None => Err(Errno::NOENT).entry("open", path),
        }
    }
}

/// What a file of a tree has, without overlayfs's marks.
fn attributes_of(file: BorrowedFd<'_>, path: &[u8], options: &Options) -> Result<Attributes> {
    let stat = fstat(file).entry("look at", path)?;
    // Only the magic link reaches the attributes of what is open as a path; a symbolic link is not followed.
    let magic = format!("/proc/self/fd/{}", file.as_raw_fd());
    let mut xattrs = Vec::new();
    for name in xattr_names(&magic, path)? {
        if is_mark(&name, options.overlay) || LOCAL.contains(&name.as_slice()) {
            continue;
        }
        let value = sized(|buffer| getxattr(&magic, name.as_slice(), buffer))
            .entry("read an extended attribute of", path)?;
        xattrs.push((name, value));
    }
    let time = |seconds, nanoseconds: u64| Timespec {
        tv_sec: seconds,
        tv_nsec: nanoseconds.try_into().unwrap_or(0),
    };
    let times = Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    };
    Attributes::exactly(&stat, xattrs, times, path)
}

/// Copies a regular file with its holes; shares its blocks where the filesystem can.
fn copy(like: &OwnedFd, to: &OwnedFd, stat: &Stat) -> Result<(), Errno> {
    // What is open as a path cannot be read; its magic link opens this very file.
    let magic = format!("/proc/self/fd/{}", like.as_raw_fd());
    let from = rustix::fs::open(&magic, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let size = stat.st_size.cast_unsigned();
    if ioctl_ficlone(to, &from).is_err() {
        copy_data(&from, to, size)?;
        ftruncate(to, size)?;
    }
    Ok(())
}

fn copy_data(from: &OwnedFd, to: &OwnedFd, size: u64) -> Result<(), Errno> {
    let mut buffer = vec![0; 1 << 17];
    let mut at = 0;
    while at < size {
        let start = match seek(from, SeekFrom::Data(at)) {
            Ok(start) => start,
            // No more data.
            Err(Errno::NXIO) => return Ok(()),
            Err(errno) => return Err(errno),
        };
        let end = seek(from, SeekFrom::Hole(start))?;
        at = start;
        while at < end {
            let wanted = usize::try_from(end - at).unwrap_or(usize::MAX).min(buffer.len());
            let read = retry_on_intr(|| pread(from, &mut buffer[..wanted], at))?;
            if read == 0 {
                return Ok(());
            }
            let mut done = 0;
            while done < read {
                done += retry_on_intr(|| pwrite(to, &buffer[done..read], at + done as u64))?;
            }
            at += read as u64;
        }
    }
    Ok(())
}

/// Overlayfs's own marks belong to the one tree that has them. What it unescapes is the image's.
fn is_mark(name: &[u8], overlay: OverlayXattr) -> bool {
    name.strip_prefix(overlay.prefix()).is_some_and(|rest| !rest.starts_with(b"overlay."))
}

fn xattr_names(magic: &str, path: &[u8]) -> Result<Vec<Vec<u8>>> {
    match sized(|buffer| listxattr(magic, buffer)) {
        Err(Errno::OPNOTSUPP) => Ok(Vec::new()),
        other => {
            let names = other.entry("list the extended attributes of", path)?;
            Ok(names.split(|byte| *byte == 0).filter(|name| !name.is_empty()).map(<[u8]>::to_vec).collect())
        }
    }
}

/// The kernel's limit for the list of names and for a value (`XATTR_LIST_MAX`, `XATTR_SIZE_MAX`).
const XATTR_MAX: usize = 65536;

fn sized(call: impl FnOnce(&mut [u8]) -> Result<usize, Errno>) -> Result<Vec<u8>, Errno> {
    let mut buffer = vec![0; XATTR_MAX];
    let length = call(&mut buffer)?;
    buffer.truncate(length);
    Ok(buffer)
}
