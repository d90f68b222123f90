//! The seam through which everything goes that must survive a power cut.
//!
//! Five operations, so that a test can make any step of the durable path fail. After a failed sync
//! the kernel may have dropped the dirty pages and marked them clean: a second sync would succeed
//! and mean nothing. So the first failure ends all writing by this process ([`Durable`]).

use std::fmt::Debug;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::{Error, IoContext as _, Result};

/// The operations of the durable path.
pub trait Disk: Send + Sync + Debug {
    /// Appends all of `bytes` to `file`.
    fn write(&self, file: &File, bytes: &[u8]) -> io::Result<()>;
    /// Makes the data and size of `file` durable.
    fn sync_file(&self, file: &File) -> io::Result<()>;
    /// Makes the names in the directory `path` durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// Makes everything written so far to the filesystem of `path` durable.
    fn sync_filesystem(&self, path: &Path) -> io::Result<()>;
    /// Renames `from` to `to`, replacing a file that is there.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
}

/// The operations as the operating system does them.
#[derive(Debug, Default, Clone, Copy)]
pub struct SystemDisk;

impl Disk for SystemDisk {
    fn write(&self, mut file: &File, bytes: &[u8]) -> io::Result<()> {
        file.write_all(bytes)
    }

    fn sync_file(&self, file: &File) -> io::Result<()> {
        file.sync_all()
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn sync_filesystem(&self, path: &Path) -> io::Result<()> {
        Ok(rustix::fs::syncfs(File::open(path)?.as_fd())?)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        Ok(rustix::fs::rename(from, to)?)
    }
}

/// A [`Disk`] with error context that stops for good at the first failed sync.
#[derive(Debug, Clone)]
pub(crate) struct Durable {
    disk: Arc<dyn Disk>,
    poisoned: Arc<AtomicBool>,
    root: PathBuf,
}

impl Durable {
    pub(crate) fn new(disk: Arc<dyn Disk>, root: PathBuf) -> Self {
        Self { disk, poisoned: Arc::default(), root }
    }

    /// Refuses once a sync has failed.
    pub(crate) fn check(&self) -> Result<()> {
        crate::db::assert_outside_write_transaction();
        if self.poisoned.load(Ordering::Acquire) {
            return Err(Error::Poisoned { root: self.root.clone() });
        }
        Ok(())
    }

    pub(crate) fn write(&self, file: &File, path: &Path, bytes: &[u8]) -> Result<()> {
        self.check()?;
        self.disk.write(file, bytes).context("write", path)
    }

    pub(crate) fn sync_file(&self, file: &File, path: &Path) -> Result<()> {
        self.check()?;
        self.stop_on_failure(self.disk.sync_file(file)).context("sync", path)
    }

    pub(crate) fn sync_dir(&self, path: &Path) -> Result<()> {
        self.check()?;
        self.stop_on_failure(self.disk.sync_dir(path)).context("sync directory", path)
    }

    pub(crate) fn sync_filesystem(&self) -> Result<()> {
        self.check()?;
        self.stop_on_failure(self.disk.sync_filesystem(&self.root))
            .context("sync the filesystem of", &self.root)
    }

    pub(crate) fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        self.check()?;
        self.disk.rename(from, to).context("rename into place", to)
    }

    fn stop_on_failure(&self, result: io::Result<()>) -> io::Result<()> {
        if result.is_err() {
            self.poisoned.store(true, Ordering::Release);
        }
        result
    }
}
