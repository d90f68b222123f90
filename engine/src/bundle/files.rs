//! Files of a root filesystem, of which nothing leads outside.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsRawFd as _;
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fstat, openat, openat2};
use rustix::io::Errno;

use super::Files;
use super::error::BundleError;
use crate::error::{Error, Result};
use crate::rootfs::Rootfs;

/// A file in the merged view of an image's trees.
pub(super) fn in_rootfs(rootfs: &Rootfs, path: &str) -> Result<Option<Box<dyn Read>>> {
    match rootfs.open_regular(path.as_bytes()) {
        Ok(file) => Ok(Some(Box::new(file))),
        Err(Error::NoPath { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Files below a directory where a root filesystem is mounted, such as that of a container.
pub(super) fn files_below(root: &Path) -> Result<Box<Files<'static>>> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = openat(CWD, root, flags, Mode::empty()).map_err(|errno| BundleError::File {
        action: "open",
        path: root.to_owned(),
        source: errno.into(),
    })?;
    let root = root.to_owned();
    Ok(Box::new(move |path| {
        let failed = |source: io::Error| BundleError::File {
            action: "read",
            path: root.join(path.trim_start_matches('/')),
            source,
        };
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let place = loop {
            match openat2(&directory, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve) {
                Ok(place) => break place,
                // Something was renamed at the same time.
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
                Err(errno) => return Err(failed(errno.into()).into()),
            }
        };
        let stat = fstat(&place).map_err(|errno| failed(errno.into()))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(failed(io::Error::other("it is not a regular file")).into());
        }
        // Only now that it is known to be a file is it opened: a pipe would block, a device would do what it does.
        let file = File::open(format!("/proc/self/fd/{}", place.as_raw_fd())).map_err(failed)?;
        Ok(Some(Box::new(file)))
    }))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn read(files: &Files<'_>, path: &str) -> Option<String> {
        let mut text = String::new();
        files(path).unwrap()?.read_to_string(&mut text).unwrap();
        Some(text)
    }

    #[test]
    fn links_stay_inside_the_root() {
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("passwd"), "outside").unwrap();
        let root = outside.path().join("root");
        std::fs::create_dir_all(root.join("etc")).unwrap();
        std::fs::write(root.join("passwd"), "inside").unwrap();
        let files = files_below(&root).unwrap();
        assert_eq!(read(&*files, "/etc/passwd"), None);
        for target in ["/passwd", "../passwd", "../../../passwd", "/../passwd"] {
            symlink(target, root.join("etc/passwd")).unwrap();
            assert_eq!(read(&*files, "/etc/passwd").as_deref(), Some("inside"), "{target}");
            std::fs::remove_file(root.join("etc/passwd")).unwrap();
        }
        symlink(outside.path().join("passwd"), root.join("etc/passwd")).unwrap();
        assert_eq!(read(&*files, "/etc/passwd"), None);
        symlink("group", root.join("etc/group")).unwrap();
        assert_eq!(read(&*files, "/etc/group"), None, "a link in a circle");
    }

    #[test]
    fn what_is_no_file_is_not_opened() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("directory")).unwrap();
        rustix::fs::mknodat(CWD, root.path().join("pipe"), FileType::Fifo, Mode::RUSR, 0).unwrap();
        let files = files_below(root.path()).unwrap();
        for name in ["/directory", "/pipe"] {
            let error = files(name).map(|_| ()).unwrap_err();
            assert!(error.to_string().contains(name), "{error}");
        }
        assert!(files("/pipe/passwd").unwrap().is_none());
        assert!(files_below(&root.path().join("absent")).is_err());
    }
}
