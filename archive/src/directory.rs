//! A directory that holds an OCI layout or an unpacked docker-archive.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::member::{MAX_LINKS, MAX_TOP_LEVEL, follow};
use crate::tar_file::read_small;
use crate::{Error, Members, normalise_member};

/// An archive as a directory. Links in it are followed, but never out of it.
#[derive(Debug)]
pub struct Directory(OwnedFd);

impl Directory {
    /// Takes an open directory.
    pub fn new(directory: File) -> Self {
        Self(directory.into())
    }

    /// Opens a member, links followed; none if there is no regular file of that name.
    pub fn open(&self, name: &str) -> Result<Option<File>, Error> {
        let Some(name) = normalise_member(name.as_bytes()) else { return Ok(None) };
        // Not blocking, or a fifo would never return.
        let Some(file) = self.open_at(&name, OFlags::RDONLY | OFlags::NONBLOCK)? else { return Ok(None) };
        let kind = rustix::fs::fstat(&file).map_err(|errno| failed(&name, errno))?.st_mode;
        Ok((FileType::from_raw_mode(kind) == FileType::RegularFile).then(|| file.into()))
    }

    /// `openat2` refuses what leaves the directory in the kernel, where nothing can change
    /// between the check and the use.
    fn open_at(&self, name: &str, flags: OFlags) -> Result<Option<OwnedFd>, Error> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        for _ in 0..MAX_LINKS {
            match rustix::fs::openat2(&self.0, name, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
                Ok(file) => return Ok(Some(file)),
                Err(Errno::NOENT | Errno::NOTDIR | Errno::NAMETOOLONG | Errno::LOOP) => return Ok(None),
                Err(Errno::XDEV) => return Err(Error::Outside { member: name.to_owned() }),
                // A rename somewhere on the system got in the way of the check.
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(errno) => return Err(failed(name, errno)),
            }
        }
        Err(failed(name, Errno::AGAIN))
    }
}

fn failed(name: &str, errno: Errno) -> Error {
    Error::Read { what: format!("`{}`", name.escape_debug()), source: io::Error::from(errno) }
}

impl Members for Directory {
    fn resolve(&self, name: &str) -> Result<Option<String>, Error> {
        let Some(mut name) = normalise_member(name.as_bytes()) else { return Ok(None) };
        for _ in 0..MAX_LINKS {
            let Some(file) = self.open_at(&name, OFlags::PATH | OFlags::NOFOLLOW)? else { return Ok(None) };
            let mode = rustix::fs::fstat(&file).map_err(|errno| failed(&name, errno))?.st_mode;
            match FileType::from_raw_mode(mode) {
                FileType::RegularFile => return Ok(Some(name)),
                FileType::Symlink => {
                    let target = rustix::fs::readlinkat(&file, "", Vec::new())
                        .map_err(|errno| failed(&name, errno))?;
                    name = follow(&name, target.as_bytes()).ok_or(Error::Outside { member: name })?;
                }
                _ => return Ok(None),
            }
        }
        Ok(None)
    }

    fn read_small(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>, Error> {
        self.open(name)?.map(|file| read_small(file, name, limit)).transpose()
    }

    fn top_level(&self) -> Vec<String> {
        let names = || -> io::Result<Vec<String>> {
            let entries = rustix::fs::Dir::read_from(&self.0)?.take(MAX_TOP_LEVEL + 2);
            let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
            names.collect()
        };
        // Only for a message: a name less does not matter.
        let mut names = names().unwrap_or_default();
        names.retain(|name| name != "." && name != "..");
        names.sort();
        names
    }
}
