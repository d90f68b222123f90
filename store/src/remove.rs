//! Deleting what may hold anything that an archive can say.
//!
//! A layer's directories may nest thousands deep, where a walk with an open descriptor for each level
//! runs out of them, and may have modes that keep even their owner out.
//!
//! What is mounted below belongs to others: the walk does not leave the mount that it began on, and the directory stays.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, IFlags, Mode, OFlags, chmodat, ioctl_getflags, ioctl_setflags, openat,
    renameat, unlinkat,
};
use rustix::io::Errno;
use rustix::path::Arg;

use crate::layout::random_name;
use crate::walk::Home;

/// Directories that are open at the same time; two descriptors each.
const MAX_OPEN: usize = 64;

/// Deletes `path`, whatever it is. What nests too deep is moved to `attic` on the way, a directory of the
/// same mount. Something that has gone already, or goes at the same time, is as good.
pub(crate) fn remove(path: &Path, attic: &Path) -> io::Result<()> {
    remove_while(vec![path.to_owned()], attic, &mut |_| Ok(true)).map(drop)
}

/// The same for several, and asks `go_on` after each name that has gone, with the directory that it was in. Returns what is
/// left when it was told to stop; that may be deleted later.
pub(crate) fn remove_while(
    paths: Vec<PathBuf>,
    attic: &Path,
    go_on: &mut dyn FnMut(&OwnedFd) -> io::Result<bool>,
) -> io::Result<Vec<PathBuf>> {
    let privileged = rustix::process::geteuid().is_root();
    let home = Home::of(attic).map_err(io::Error::other)?;
    let mut removal = Removal { home, attic, moved: paths, privileged, go_on };
    while let Some(path) = removal.moved.pop() {
        match removal.unlink(CWD, path.as_path()) {
            Err(Errno::ISDIR | Errno::PERM) => match removal.directory(CWD, &path, 0) {
                Err(Stop::Asked) => {
                    removal.moved.push(path);
                    return Ok(removal.moved);
                }
                Err(Stop::Failed(error)) => return Err(error),
                Ok(()) => {}
            },
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(removal.moved)
}

struct Removal<'a> {
    home: Home,
    attic: &'a Path,
    moved: Vec<PathBuf>,
    privileged: bool,
    go_on: &'a mut dyn FnMut(&OwnedFd) -> io::Result<bool>,
}

/// Why a removal ends before the end.
enum Stop {
    Asked,
    Failed(io::Error),
}

impl From<Errno> for Stop {
    fn from(errno: Errno) -> Self {
        Self::Failed(errno.into())
    }
}

impl Removal<'_> {
    fn directory(
        &mut self,
        parent: impl AsFd + Copy,
        name: impl Arg + Copy,
        depth: usize,
    ) -> Result<(), Stop> {
        if !self.privileged {
            absent_is_fine(chmodat(parent, name, Mode::RWXU, AtFlags::empty()))?;
        }
        if depth == MAX_OPEN {
            let moved = self.attic.join(random_name());
            absent_is_fine(renameat(parent, name, CWD, &moved))?;
            self.moved.push(moved);
            return Ok(());
        }
        // The way to the first may lead over mounts.
        let opened = if depth == 0 { self.home.open(parent, name) } else { self.home.open_in(parent, name) };
        // Of what is not opened, as something is mounted there, taking it away says why not.
        if let Some(directory) = opened? {
            self.unlock_directory(&directory);
            self.contents(&directory, depth)?;
        }
        Ok(absent_is_fine(unlinkat(parent, name, AtFlags::REMOVEDIR))?)
    }

    /// Lets entries be taken out of a directory that is immutable or append-only.
    fn unlock_directory(&self, directory: &OwnedFd) {
        if self.privileged
            && let Ok(flags) = ioctl_getflags(directory)
            && flags.intersects(LOCKED)
        {
            // If it does not work, unlinking says why.
            ioctl_setflags(directory, flags.difference(LOCKED)).unwrap_or_default();
        }
    }

    /// Root may take away what keeps even root from it: attributes that a program in a container can set.
    fn unlink(&self, directory: impl AsFd, name: impl Arg + Copy) -> Result<(), Errno> {
        match unlinkat(&directory, name, AtFlags::empty()) {
            Err(Errno::PERM) if self.privileged => {
                unlock(&directory, name)?;
                unlinkat(directory, name, AtFlags::empty())
            }
            other => other,
        }
    }

    fn contents(&mut self, directory: &OwnedFd, depth: usize) -> Result<(), Stop> {
        for entry in Dir::read_from(directory)? {
            let entry = entry?;
            let name = entry.file_name();
            if [c".", c".."].contains(&name) {
                continue;
            }
            // Some filesystems do not tell the type; unlinking does.
            if entry.file_type() != FileType::Directory {
                match self.unlink(directory, name) {
                    Err(Errno::ISDIR) => {}
                    other => {
                        absent_is_fine(other)?;
                        self.ask(directory)?;
                        continue;
                    }
                }
            }
            self.directory(directory.as_fd(), name, depth + 1)?;
            self.ask(directory)?;
        }
        Ok(())
    }

    fn ask(&mut self, directory: &OwnedFd) -> Result<(), Stop> {
        match (self.go_on)(directory) {
            Ok(true) => Ok(()),
            Ok(false) => Err(Stop::Asked),
            Err(error) => Err(Stop::Failed(error)),
        }
    }
}

/// `chattr +i` and `+a`.
const LOCKED: IFlags = IFlags::IMMUTABLE.union(IFlags::APPEND);

/// Lets root rename or unlink what is immutable or append-only. If it is not that, or cannot be changed, `PERM` is all there is
/// to say.
pub(crate) fn unlock(directory: impl AsFd, name: impl Arg) -> Result<(), Errno> {
    // NONBLOCK, as it may be a pipe by now; only regular files and directories have such attributes.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = openat(directory, name, flags, Mode::empty()).map_err(|_| Errno::PERM)?;
    let attributes = ioctl_getflags(&file).map_err(|_| Errno::PERM)?;
    ioctl_setflags(&file, attributes.difference(LOCKED)).map_err(|_| Errno::PERM)
}

fn absent_is_fine(result: Result<(), Errno>) -> Result<(), Errno> {
    if result == Err(Errno::NOENT) { Ok(()) } else { result }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_tree_deeper_than_the_limit_of_open_files_and_paths_goes() {
        let dir = tempfile::tempdir().unwrap();
        let [attic, deep] = ["attic", "deep"].map(|name| dir.path().join(name));
        fs::create_dir(&attic).unwrap();
        fs::create_dir(&deep).unwrap();
        let mut at = OwnedFd::from(fs::File::open(&deep).unwrap());
        for _ in 0..2200 {
            rustix::fs::mkdirat(&at, "d", Mode::RWXU).unwrap();
            fs::write(format!("/proc/self/fd/{}/f", std::os::fd::AsRawFd::as_raw_fd(&at)), "x").unwrap();
            at = openat(&at, "d", OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).unwrap();
        }
        remove(&deep, &attic).unwrap();
        assert!(!deep.exists());
        assert_eq!(fs::read_dir(&attic).unwrap().count(), 0);
    }

    #[test]
    fn links_are_not_followed_and_modes_do_not_matter() {
        let dir = tempfile::tempdir().unwrap();
        let [attic, tree, outside] = ["attic", "tree", "outside"].map(|name| dir.path().join(name));
        for path in [&attic, &tree, &outside] {
            fs::create_dir(path).unwrap();
        }
        fs::write(outside.join("kept"), "x").unwrap();
        std::os::unix::fs::symlink(&outside, tree.join("link")).unwrap();
        fs::create_dir_all(tree.join("closed/inner")).unwrap();
        fs::set_permissions(tree.join("closed"), fs::Permissions::from_mode(0o000)).unwrap();
        let link = dir.path().join("to-outside");
        std::os::unix::fs::symlink(&outside, &link).unwrap();
        for path in [&tree, &link, &dir.path().join("absent")] {
            remove(path, &attic).unwrap();
        }
        assert!(!tree.exists() && fs::symlink_metadata(&link).is_err());
        assert!(outside.join("kept").exists());
    }

    #[test]
    fn privileged_what_is_mounted_below_stays() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let [attic, tree, others] = ["attic", "tree", "others"].map(|name| dir.path().join(name));
        for path in [&attic, &others, &tree.join("a/volume"), &tree.join("b")] {
            fs::create_dir_all(path).unwrap();
        }
        fs::write(others.join("kept"), "x").unwrap();
        let volume = tree.join("a/volume");
        rustix::mount::mount_bind(&others, &volume).unwrap();
        let below = remove(&tree, &attic);
        let at = remove(&volume, &attic);
        rustix::mount::unmount(&volume, rustix::mount::UnmountFlags::empty()).unwrap();
        for removed in [below, at] {
            assert_eq!(removed.unwrap_err().kind(), io::ErrorKind::ResourceBusy);
        }
        assert!(others.join("kept").exists());
        remove(&tree, &attic).unwrap();
        assert!(!tree.exists());
    }

    #[test]
    fn privileged_what_a_container_has_made_immutable_goes() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let [attic, tree] = ["attic", "tree"].map(|name| dir.path().join(name));
        fs::create_dir(&attic).unwrap();
        fs::create_dir_all(tree.join("inner")).unwrap();
        fs::write(tree.join("inner/file"), "x").unwrap();
        for path in [tree.join("inner/file"), tree.join("inner")] {
            let file = fs::File::open(&path).unwrap();
            let Ok(flags) = ioctl_getflags(&file) else { return };
            if ioctl_setflags(&file, flags | IFlags::IMMUTABLE).is_err() {
                return;
            }
        }
        remove(&tree, &attic).unwrap();
        assert!(!tree.exists());
        for path in [dir.path().join("file"), dir.path().join("directory")] {
            let made = if path.ends_with("file") { fs::write(&path, "x") } else { fs::create_dir(&path) };
            made.unwrap();
            let file = fs::File::open(&path).unwrap();
            ioctl_setflags(&file, ioctl_getflags(&file).unwrap() | IFlags::IMMUTABLE).unwrap();
            remove(&path, &attic).unwrap();
            assert!(!path.exists());
        }
    }
}
