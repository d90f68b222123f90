//! What a directory takes on disk.

use std::collections::HashSet;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat, fstat, openat, statat};
use rustix::io::Errno;

use super::error::{DiffError, FileContext as _};
use super::node::{Identity, above, identity, names};
use crate::Usage;

/// A directory on the way from the root.
struct Frame {
    identity: Identity,
    names: Vec<Box<[u8]>>,
    /// Length of its path.
    path: usize,
}

/// Counts what `root` and everything below it take.
///
/// The directory may be in use: what comes and goes meanwhile is counted or not. Nothing is followed, and any depth is
/// walked with two descriptors. What is kept in memory are the names in the directories on the way, and the inode
/// numbers of files with several names.
pub fn usage(root: &Path) -> Result<Usage, DiffError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut here = openat(CWD, root, flags, Mode::empty()).map_err(|errno| DiffError::File {
        action: "open",
        file: root.display().to_string(),
        source: errno.into(),
    })?;
    let mut usage = Usage::default();
    let mut seen: HashSet<Identity> = HashSet::new();
    let mut path = Vec::new();
    let stat = fstat(&here).file("look at", &path)?;
    add(&mut usage, &mut seen, &stat);
    let mut way = vec![Frame { identity: identity(&stat), names: names(&here, &path, |_| Ok(()))?, path: 0 }];
    while let Some(frame) = way.last_mut() {
        path.truncate(frame.path);
        let Some(name) = frame.names.pop() else {
            way.pop();
            if let Some(parent) = way.last() {
                path.truncate(parent.path);
                here = match above(&here, parent.identity, &path) {
                    Ok(directory) => directory,
                    // Moved meanwhile: the way down from the root leads to what is there now.
                    Err(_) => match again(root, &path, &mut way)? {
                        Some(directory) => directory,
                        None => break,
                    },
                };
            }
            continue;
        };
        let stat = match statat(&here, &*name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => continue,
            other => other.file("look at", &path)?,
        };
        add(&mut usage, &mut seen, &stat);
        if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
            continue;
        }
        let directory = match openat(&here, &*name, flags, Mode::empty()) {
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
            other => other.file("open the directory", &path)?,
        };
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(&name);
        let names = match names(&directory, &path, |_| Ok(())) {
            // It has been removed.
            Err(DiffError::Changed { .. }) => Vec::new(),
            other => other?,
        };
        way.push(Frame {
            identity: identity(&fstat(&directory).file("look at", &path)?),
            names,
            path: path.len(),
        });
        here = directory;
    }
    Ok(usage)
}

/// Opens the last directory of the way by its path, or the last above it that is still there.
fn again(root: &Path, path: &[u8], way: &mut Vec<Frame>) -> Result<Option<OwnedFd>, DiffError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut here = openat(CWD, root, flags, Mode::empty()).file("open", b"")?;
    let mut depth = 1;
    for name in path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
        let next = openat(&here, name, flags, Mode::empty());
        let same = |fd: &OwnedFd| {
            way.get(depth).is_some_and(|frame| fstat(fd).is_ok_and(|stat| identity(&stat) == frame.identity))
        };
        match next {
            Ok(directory) if same(&directory) => here = directory,
            _ => break,
        }
        depth += 1;
    }
    way.truncate(depth);
    Ok((!way.is_empty()).then_some(here))
}

fn add(usage: &mut Usage, seen: &mut HashSet<Identity>, stat: &Stat) {
    let kind = FileType::from_raw_mode(stat.st_mode);
    if kind != FileType::Directory && stat.st_nlink > 1 && !seen.insert(identity(stat)) {
        return;
    }
    if kind == FileType::RegularFile {
        usage.bytes = usage.bytes.saturating_add(stat.st_size.cast_unsigned());
    }
    usage.allocated = usage.allocated.saturating_add(stat.st_blocks.cast_unsigned().saturating_mul(512));
    usage.inodes += 1;
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn links_count_once_and_holes_do_not_count_as_allocated() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        fs::create_dir_all(root.join("a/b")).unwrap();
        fs::write(root.join("a/one"), vec![1; 10_000]).unwrap();
        fs::hard_link(root.join("a/one"), root.join("a/b/two")).unwrap();
        fs::File::create(root.join("sparse")).unwrap().set_len(1 << 30).unwrap();
        std::os::unix::fs::symlink("/etc", root.join("link")).unwrap();
        let usage = usage(&root).unwrap();
        assert_eq!(usage.bytes, (1 << 30) + 10_000);
        // The root, a, b, the file, the sparse file, the link.
        assert_eq!(usage.inodes, 6);
        assert!((10_000..1 << 20).contains(&usage.allocated), "{usage:?}");
    }

    #[test]
    fn any_depth_is_counted() {
        let dir = tempfile::tempdir().unwrap();
        let mut here = OwnedFd::from(fs::File::open(dir.path()).unwrap());
        for _ in 0..3000 {
            rustix::fs::mkdirat(&here, "d", Mode::RWXU).unwrap();
            here = openat(&here, "d", OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).unwrap();
        }
        assert_eq!(usage(dir.path()).unwrap().inodes, 3001);
        // The temporary directory itself could not be removed with this in it.
        let top = fs::File::open(dir.path()).unwrap();
        crate::remove::remove(std::os::fd::AsFd::as_fd(&top), b"d", &mut |_| {}).unwrap();
    }
}
