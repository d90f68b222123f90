//! Opening a store, and what its parts share.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use layerstore_oci::Algorithm;

use crate::clock::{Clock, Life, SystemClock, mount_namespace};
use crate::db::Database;
use crate::disk::{Disk, Durable, SystemDisk};
use crate::error::{Error, IoContext as _, Result};
use crate::layout::Layout;
use crate::lock::{Claim, Key, Mode};
use crate::log_index;
use crate::look;
use crate::recover::entries;
use crate::reserve;
use crate::session::Session;

/// What a store gets from its surroundings.
#[derive(Debug, Clone)]
pub struct Surroundings {
    /// The operations of the durable path.
    pub disk: Arc<dyn Disk>,
    /// The time.
    pub clock: Arc<dyn Clock>,
}

impl Default for Surroundings {
    fn default() -> Self {
        Self { disk: Arc::new(SystemDisk), clock: Arc::new(SystemClock) }
    }
}

/// An open store. Clones share one database connection.
#[derive(Debug, Clone)]
pub struct Store(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    layout: Layout,
    database: Database,
    durable: Durable,
    clock: Arc<dyn Clock>,
    life: Life,
    namespace: i64,
    lock_salt: String,
    /// Whether the disk was so full that the reserve had to go for this to be opened.
    given_up: bool,
}

impl Drop for Inner {
    fn drop(&mut self) {
        if self.given_up {
            reserve::take_back(&self.layout);
        }
    }
}

impl Store {
    /// Opens the store below `root`, which is created where it does not exist.
    ///
    /// Where the filesystem is read-only, everything that only looks works as ever, and what writes fails with
    /// [`Error::ReadOnly`].
    pub fn open(root: &Path, surroundings: Surroundings) -> Result<Self> {
        let root = create_root(root)?;
        let layout = Layout::new(root.clone());
        refuse_strangers(&layout)?;
        let durable = Durable::new(surroundings.disk, root)?;
        if look::is_read_only(&layout) {
            let durable = durable.read_only();
            let database = Database::look(&layout, durable.clone())?;
            return Self::with(layout, database, durable, surroundings.clock, false);
        }
        create_directories(&layout)?;
        let had_reserve = layout.reserve().exists();
        let open = || log_index::with_space(&layout, || Database::open(&layout, durable.clone()));
        let database = match open() {
            // A file that has to be made does not even find an inode, which SQLite does not tell apart.
            Err(error) if error.is_full_or_no_file() && reserve::give_up(&layout) => open()?,
            opened => opened?,
        };
        let given_up = had_reserve && !layout.reserve().exists();
        reserve::keep(&layout);
        Self::with(layout, database, durable, surroundings.clock, given_up)
    }

    fn with(
        layout: Layout,
        database: Database,
        durable: Durable,
        clock: Arc<dyn Clock>,
        given_up: bool,
    ) -> Result<Self> {
        let root = layout.root();
        let lock_salt = database.lock_salt()?;
        let life = Life::of(root).context("identify the mount of", root)?;
        let namespace = mount_namespace().context("look at", "/proc/self/ns/mnt")?;
        Ok(Self(Arc::new(Inner { layout, database, durable, clock, life, namespace, lock_salt, given_up })))
    }

    /// Refuses a store on which nothing can be written: [`Error::ReadOnly`].
    pub fn check_writable(&self) -> Result<()> {
        self.durable().check()
    }

    /// Where things are.
    pub fn layout(&self) -> &Layout {
        &self.0.layout
    }

    /// Starts a session for a command of `owner`.
    pub fn session(&self, owner: &str) -> Result<Session> {
        self.durable().check()?;
        Session::begin(self, owner)
    }

    /// Takes a lock between processes and threads, waiting for its holder.
    pub fn claim(&self, key: &Key) -> Result<Claim> {
        Claim::acquire(&self.0.layout, &self.0.lock_salt, key, Mode::Exclusive)
    }

    /// Takes a lock if nobody holds it.
    pub fn try_claim(&self, key: &Key) -> Result<Option<Claim>> {
        Claim::try_acquire(&self.0.layout, &self.0.lock_salt, key)
    }

    pub(crate) fn claim_shared(&self, key: &Key) -> Result<Claim> {
        Claim::acquire(&self.0.layout, &self.0.lock_salt, key, Mode::Shared)
    }

    pub(crate) fn database(&self) -> &Database {
        &self.0.database
    }

    pub(crate) fn durable(&self) -> &Durable {
        &self.0.durable
    }

    /// The clock by which times are recorded.
    pub fn clock(&self) -> &dyn Clock {
        &*self.0.clock
    }

    pub(crate) fn life(&self) -> &Life {
        &self.0.life
    }

    /// The mount namespace that the store was opened in.
    pub(crate) fn namespace(&self) -> i64 {
        self.0.namespace
    }
}

/// Only the owner may look in: trees hold set-user-ID files of strangers.
const ROOT_MODE: u32 = 0o700;

fn create_root(root: &Path) -> Result<PathBuf> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true).mode(ROOT_MODE).create(root).context("create the store", root)?;
    // Mounts and lower directories need paths that do not depend on the working directory.
    root.canonicalize().context("resolve", root)
}

/// Directories of a store.
const OWN: [&str; 7] = ["blobs", "empty", "ingest", "mnt", "overlay2", "partial", "trash"];
/// Files that may be there without a store, or before there is one.
const ALONE: [&str; 7] = [
    "reserve",
    "layerstore.db",
    "layerstore.db-journal",
    "layerstore.db-shm",
    "layerstore.db-wal",
    "lock",
    "lost+found",
];

/// Refuses a directory that has files but no database: it is somebody else's, or a store whose database is
/// lost. In both a new store would take what is there for debris.
fn refuse_strangers(layout: &Layout) -> Result<()> {
    let has_database = || fs::metadata(layout.database()).is_ok_and(|metadata| metadata.len() > 0);
    if has_database() {
        return Ok(());
    }
    for path in entries(layout.root())? {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        // Who was killed while creating a store leaves it empty.
        let expected = ALONE.contains(&name) || (OWN.contains(&name) && is_empty(&path, 2)?);
        // Somebody may be creating a store at this moment.
        if !expected && !has_database() {
            return Err(Error::NoDatabase { root: layout.root().to_owned() });
        }
    }
    Ok(())
}

/// Whether there are no files below a directory of directories.
fn is_empty(directory: &Path, depth: usize) -> Result<bool> {
    for path in entries(directory)? {
        if depth == 0 || !path.is_dir() || !is_empty(&path, depth - 1)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Creates what is missing.
fn create_directories(layout: &Layout) -> Result<()> {
    let [empty0, empty1] = layout.empty();
    for (path, mode) in [
        (layout.root().join("blobs"), 0o700),
        (layout.blobs(Algorithm::Sha256), 0o700),
        (layout.blobs(Algorithm::Sha512), 0o700),
        (layout.ingest(), 0o700),
        (layout.partial(), 0o700),
        (layout.overlay2(), 0o700),
        (layout.trash(), 0o700),
        (layout.mounts(), 0o700),
        (layout.root().join("empty"), 0o700),
        (empty0, 0o755),
        (empty1, 0o755),
    ] {
        match fs::DirBuilder::new().mode(mode).create(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error).context("create", &path),
        }
    }
    Ok(())
}
