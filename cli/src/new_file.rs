//! A file that is there complete or not at all.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, linkat, openat};
use rustix::io::Errno;

/// Where a command writes its result.
#[derive(Debug)]
pub(crate) enum Destination {
    /// A file that gets its name when it is complete.
    File(NewFile),
    /// A device or pipe, which takes what comes.
    Stream(File),
}

/// A file that has no name yet, or one that will not stay.
#[derive(Debug)]
pub(crate) struct NewFile {
    file: File,
    /// Where it will be.
    path: PathBuf,
    /// Its name meanwhile, where the filesystem has no files without one.
    temporary: Option<PathBuf>,
}

impl Destination {
    /// Opens `path`: what is no regular file is written to directly, and if it is a link to a file, that is replaced.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let path = match fs::metadata(path) {
            Ok(found) if found.is_dir() => return Err(Errno::ISDIR.into()),
            Ok(found) if !found.is_file() => {
                return Ok(Self::Stream(OpenOptions::new().write(true).open(path)?));
            }
            Ok(_) => fs::canonicalize(path)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => path.to_owned(),
            Err(error) => return Err(error),
        };
        if path.file_name().is_none() {
            return Err(Errno::INVAL.into());
        }
        NewFile::create(path).map(Self::File)
    }

    /// What is written to.
    pub(crate) fn file(&mut self) -> &mut File {
        match self {
            Self::File(new) => &mut new.file,
            Self::Stream(file) => file,
        }
    }

    /// Says that all is written: now the file gets its name. Without this call nothing is left.
    pub(crate) fn finish(self) -> io::Result<()> {
        match self {
            Self::File(new) => new.finish(),
            Self::Stream(_) => Ok(()),
        }
    }
}

impl NewFile {
    fn create(path: PathBuf) -> io::Result<Self> {
        // As Docker has it: a root filesystem has files that only root may read.
        let mode = Mode::from_raw_mode(0o600);
        // Without a name, so that not even a killed process leaves it.
        match openat(CWD, directory(&path), OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC, mode) {
            Ok(file) if Path::new(&itself(&file)).exists() => {
                return Ok(Self { file: file.into(), path, temporary: None });
            }
            // Without /proc it could not be given one later. Kernels and filesystems that have no such files say one of
            // these.
            Ok(_) | Err(Errno::OPNOTSUPP | Errno::INVAL | Errno::ISDIR | Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
        for attempt in 0..u32::MAX {
            let temporary = beside(&path, attempt);
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
            match openat(CWD, &temporary, flags, mode) {
                Ok(file) => return Ok(Self { file: file.into(), path, temporary: Some(temporary) }),
                Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(Errno::EXIST.into())
    }

    fn finish(mut self) -> io::Result<()> {
        if self.path.exists() {
            // What is replaced must not be lost to a power cut.
            self.file.sync_data()?;
        }
        let temporary = match self.temporary.take() {
            Some(temporary) => temporary,
            None => name_it(&self.file, &self.path)?,
        };
        // A link cannot replace a file, a rename can.
        fs::rename(self.temporary.insert(temporary), &self.path)?;
        self.temporary = None;
        Ok(())
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if let Some(temporary) = &self.temporary {
            // That it could not be written has been said; there is no more to do.
            drop(fs::remove_file(temporary));
        }
    }
}

/// Gives a file without a name one beside `path`.
fn name_it(file: &File, path: &Path) -> io::Result<PathBuf> {
    let itself = itself(file);
    for attempt in 0..u32::MAX {
        let temporary = beside(path, attempt);
        match linkat(CWD, &itself, CWD, &temporary, AtFlags::SYMLINK_FOLLOW) {
            Ok(()) => return Ok(temporary),
            Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(Errno::EXIST.into())
}

/// A path that leads to an open file.
fn itself(file: &impl AsRawFd) -> String {
    format!("/proc/self/fd/{}", file.as_raw_fd())
}

fn directory(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A hidden name in the same directory; with a long name of the file, the beginning of it.
fn beside(path: &Path, attempt: u32) -> PathBuf {
    let name = path.file_name().unwrap_or_default().as_bytes();
    let name = String::from_utf8_lossy(&name[..name.len().min(100)]).into_owned();
    directory(path).join(format!(".{name}.{}-{attempt}", std::process::id()))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_is_replaced_when_it_is_complete() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out");
        for content in ["one", "two"] {
            let mut destination = Destination::open(&path).unwrap();
            destination.file().write_all(content.as_bytes()).unwrap();
            assert_ne!(fs::read_to_string(&path).unwrap_or_default(), content);
            destination.finish().unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), content);
        }
        assert_eq!(names(dir.path()), ["out"]);
    }

    #[test]
    fn without_an_end_nothing_is_left_and_the_old_file_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out");
        drop(Destination::open(&path).unwrap());
        assert_eq!(names(dir.path()), [""; 0]);
        fs::write(&path, "old").unwrap();
        let mut destination = Destination::open(&path).unwrap();
        destination.file().write_all(b"new").unwrap();
        drop(destination);
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");
        assert_eq!(names(dir.path()), ["out"]);
    }

    #[test]
    fn a_file_with_a_temporary_name_does_not_leave_it() {
        let dir = tempfile::tempdir().unwrap();
        let (path, temporary) = (dir.path().join("out"), dir.path().join(".out"));
        let new = || {
            let file = File::create(&temporary).unwrap();
            NewFile { file, path: path.clone(), temporary: Some(temporary.clone()) }
        };
        drop(new());
        assert_eq!(names(dir.path()), [""; 0]);
        new().finish().unwrap();
        assert_eq!(names(dir.path()), ["out"]);
    }

    #[test]
    fn a_link_is_followed_and_what_is_no_file_is_written_to() {
        let dir = tempfile::tempdir().unwrap();
        let (path, link) = (dir.path().join("out"), dir.path().join("link"));
        fs::write(&path, "old").unwrap();
        std::os::unix::fs::symlink("out", &link).unwrap();
        Destination::open(&link).unwrap().finish().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "");
        assert!(link.is_symlink());
        assert!(matches!(Destination::open(Path::new("/dev/null")).unwrap(), Destination::Stream(_)));
        assert_eq!(Destination::open(dir.path()).unwrap_err().kind(), io::ErrorKind::IsADirectory);
        let nowhere = dir.path().join("no/out");
        assert_eq!(Destination::open(&nowhere).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
