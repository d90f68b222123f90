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
    /// Makes everything written so far to the filesystem of the directory `root` durable. The kernel
    /// reports what failed since `root` was opened.
    fn sync_filesystem(&self, root: &File) -> io::Result<()>;
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

    fn sync_filesystem(&self, root: &File) -> io::Result<()> {
        Ok(rustix::fs::syncfs(root.as_fd())?)
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
    read_only: bool,
    root: PathBuf,
    /// Open as long as the store: `syncfs` tells each open file once of a failed writeback, and one
    /// opened only to sync would not hear of what another process has been told already.
    directory: Arc<File>,
}

impl Durable {
    pub(crate) fn new(disk: Arc<dyn Disk>, root: PathBuf) -> Result<Self> {
        let directory = Arc::new(File::open(&root).context("open", &root)?);
        Ok(Self { disk, poisoned: Arc::default(), read_only: false, root, directory })
    }

    /// The same for a store on which nothing can be written.
    pub(crate) fn read_only(self) -> Self {
        Self { read_only: true, ..self }
    }

    /// Refuses once a sync has failed, and where nothing can be written.
    pub(crate) fn check(&self) -> Result<()> {
        crate::db::assert_outside_write_transaction();
        if self.read_only {
            return Err(Error::ReadOnly { root: self.root.clone() });
        }
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
        self.stop_on_failure(self.disk.sync_filesystem(&self.directory))
            .context("sync the filesystem of", &self.root)
    }

    pub(crate) fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        self.check()?;
        self.disk.rename(from, to).context("rename into place", to)
    }

    /// From now on nothing is written.
    pub(crate) fn poison(&self) {
        self.poisoned.store(true, Ordering::Release);
    }

    fn stop_on_failure(&self, result: io::Result<()>) -> io::Result<()> {
        if result.is_err() {
            self.poison();
        }
        result
    }
}
