//! The directory of a bundle, which is there whole or not at all.

use std::ffi::OsString;
use std::fs::File;
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, Dir, Mode, OFlags, fchmod, fchown, fsync, mkdirat, openat, renameat, unlinkat,
};
use rustix::io::Errno;

use super::RuntimeConfig;
use super::error::BundleError;
use crate::error::Result;

const CONFIG: &str = "config.json";
const CONFIG_PARTIAL: &str = ".config.json.partial";
const ROOTFS: &str = "rootfs";

const OPEN_DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// A bundle that is being made.
///
/// Unless [`commit`](Self::commit) is called, dropping the value removes what it has made, and nothing else: a root
/// filesystem that is still mounted, or files that somebody put there, stay, and so do the directories around them.
/// Whoever mounts at [`rootfs`](Self::rootfs) unmounts first.
#[derive(Debug)]
#[must_use = "dropping a bundle that is not committed removes it"]
pub struct BundleDirectory {
    path: PathBuf,
    directory: OwnedFd,
    /// What was made, in this order: where, its name, and whether it is a directory.
    made: Vec<(OwnedFd, OsString, AtFlags)>,
}

impl BundleDirectory {
    /// Makes the directory and an empty `rootfs` in it. The directory may exist if it is empty, and then keeps its
    /// mode; a new one is its owner's alone, because a root filesystem has set-user-ID programs. If the container has
    /// a user namespace, the group `group` may pass through: that of the namespace's root.
    ///
    /// Fails with [`BundleError::Exists`] where there is a file, or anything in the directory.
    ///
    /// # Errors
    ///
    /// [`BundleError::Exists`] where there is a file, or anything in the directory; `NotFound` without the
    /// directory above.
    ///
    /// # Example
    ///
    /// ```no_run
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let bundle = layerstore::BundleDirectory::create("/run/web".as_ref(), None)?;
    /// println!("mount it at {}", bundle.rootfs().display());
    /// // Dropped without `commit`, it takes back what it made.
    /// # Ok(())
    /// # }
    /// ```
    pub fn create(path: &Path, group: Option<u32>) -> Result<Self> {
        let path = std::path::absolute(path).map_err(|source| failed("make", path, source))?;
        let made = match path.file_name() {
            Some(name) => make_directory(&path, name, if group.is_some() { 0o710 } else { 0o700 })?,
            // It ends in `..` or is `/`: there is something already.
            None => None,
        };
        let directory = match openat(CWD, &path, OPEN_DIRECTORY, Mode::empty()) {
            Err(Errno::NOTDIR | Errno::LOOP) => return Err(BundleError::Exists { path }.into()),
            result => result.map_err(|errno| failed("open", &path, errno))?,
        };
        if let Some(group) = group.filter(|_| made.is_some()) {
            let group = rustix::fs::Gid::from_raw(group);
            fchown(&directory, None, Some(group))
                .map_err(|errno| failed("change the group of", &path, errno))?;
        }
        // From here on, what was made is removed with the value.
        let mut bundle = Self { path, directory, made: made.into_iter().collect() };
        if !bundle.is_empty()? {
            return Err(BundleError::Exists { path: bundle.path.clone() }.into());
        }
        let at = bundle.handle()?;
        match mkdirat(&at, ROOTFS, Mode::from_raw_mode(0o755)) {
            // Another process makes the same bundle.
            Err(Errno::EXIST) => return Err(BundleError::Exists { path: bundle.path.clone() }.into()),
            result => result.map_err(|errno| failed("make", &bundle.rootfs(), errno))?,
        }
        bundle.made.push((at, ROOTFS.into(), AtFlags::REMOVEDIR));
        Ok(bundle)
    }

    /// The bundle's directory, as an absolute path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the root filesystem is to be mounted.
    pub fn rootfs(&self) -> PathBuf {
        self.path.join(ROOTFS)
    }

    /// Makes the directories of the container's volumes, and those that hold them. Directories that are there are
    /// used as they are. New ones may be written to by everyone, as `/tmp` may: only the container knows who will.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for a file where a directory should be; those of the operating system.
    pub fn make_volumes(&mut self, config: &RuntimeConfig) -> Result<()> {
        for volume in &config.volumes {
            let parent = self.path.join(&volume.parent);
            if let Some(name) = parent.file_name()
                && let Some(made) = make_directory(&parent, name, 0o711)?
            {
                self.made.push(made);
            }
            let path = parent.join(&volume.name);
            if let Some(made) = make_directory(&path, volume.name.as_ref(), 0o700)? {
                self.made.push(made);
                let directory = openat(CWD, &path, OPEN_DIRECTORY | OFlags::NOFOLLOW, Mode::empty())
                    .map_err(|errno| failed("open", &path, errno))?;
                // Not by `mkdir`, which the umask changes.
                fchmod(&directory, Mode::from_raw_mode(0o1777))
                    .map_err(|errno| failed("change the mode of", &path, errno))?;
            } else if !path.symlink_metadata().is_ok_and(|found| found.is_dir()) {
                return Err(BundleError::NotADirectory { path }.into());
            }
        }
        Ok(())
    }

    /// Writes `config.json`, which everyone may read: it appears whole, and in the place of one that is there.
    ///
    /// # Errors
    ///
    /// Those of the operating system, with the path.
    pub fn write_config(&mut self, config: &RuntimeConfig) -> Result<()> {
        let path = self.path.join(CONFIG);
        let io = |errno| failed("write", &path, errno);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let at = self.handle()?;
        let file = openat(&at, CONFIG_PARTIAL, flags, Mode::from_raw_mode(0o600)).map_err(io)?;
        let mut file = File::from(file);
        let written = file.write_all(&config.to_bytes()).map_err(|error| failed("write", &path, error));
        let renamed = written.and_then(|()| {
            fchmod(&file, Mode::from_raw_mode(0o644)).map_err(io)?;
            fsync(&file).map_err(io)?;
            renameat(&at, CONFIG_PARTIAL, &at, CONFIG).map_err(io)
        });
        if let Err(error) = renamed {
            // The failure itself says more than that of clearing up after it.
            let _ = unlinkat(&at, CONFIG_PARTIAL, AtFlags::empty());
            return Err(error.into());
        }
        if !self.made.iter().any(|(_, name, _)| name == CONFIG) {
            self.made.push((at, CONFIG.into(), AtFlags::empty()));
        }
        Ok(())
    }

    /// Keeps the bundle. Returns its path.
    pub fn commit(mut self) -> PathBuf {
        self.made.clear();
        std::mem::take(&mut self.path)
    }

    fn is_empty(&self) -> Result<bool> {
        let io = |errno| failed("read", &self.path, errno);
        for entry in Dir::read_from(&self.directory).map_err(io)? {
            let entry = entry.map_err(io)?;
            if ![&b"."[..], b".."].contains(&entry.file_name().to_bytes()) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn handle(&self) -> Result<OwnedFd> {
        rustix::io::fcntl_dupfd_cloexec(&self.directory, 0)
            .map_err(|errno| failed("open", &self.path, errno).into())
    }
}

impl Drop for BundleDirectory {
    fn drop(&mut self) {
        for (at, name, kind) in self.made.drain(..).rev() {
            // What is no longer there, or no longer empty, is somebody else's.
            let _ = unlinkat(&at, &name, kind);
        }
    }
}

/// Makes a directory, and returns where and what it has made; nothing if there is something of this name.
fn make_directory(
    path: &Path,
    name: &std::ffi::OsStr,
    mode: u32,
) -> Result<Option<(OwnedFd, OsString, AtFlags)>> {
    let parent = path.parent().unwrap_or(path);
    let at = openat(CWD, parent, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|errno| failed("open", parent, errno))?;
    match mkdirat(&at, name, Mode::from_raw_mode(mode)) {
        Ok(()) => Ok(Some((at, name.to_owned(), AtFlags::REMOVEDIR))),
        Err(Errno::EXIST) => Ok(None),
        Err(errno) => Err(failed("make", path, errno).into()),
    }
}

fn failed(action: &'static str, path: &Path, source: impl Into<std::io::Error>) -> BundleError {
    BundleError::File { action, path: path.to_owned(), source: source.into() }
}

#[cfg(test)]
mod tests;
