//! A session: the temporary directory and the lease of one running command.
//!
//! `ingest/<id>/` holds everything that is not complete: blobs being written and trees being
//! unpacked. The session's process keeps an exclusive `flock` on `ingest/<id>/lock`; the kernel
//! releases it when the process dies, however it dies, and the next session throws the directory
//! away ([`crate::Store::recover`]). The session's lease protects what the command found present or
//! has published, until the references that keep it are committed.
//!
//! A pull has a second lease, which outlives it: what it has fetched before it was interrupted is there
//! for the next one, for a time.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use layerstore_oci::{Algorithm, Digest};
use rusqlite::Transaction;
use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;

use crate::clock::UnixSeconds;
use crate::db::Durability;
use crate::error::{DbContext as _, IoContext as _, Result};
use crate::ingest::Ingest;
use crate::layout::random_name;
use crate::lock::Key;
use crate::remove::remove;
use crate::store::Store;

const LOCK_NAME: &str = "lock";
/// No session's name begins like this.
const LASTING_PREFIX: &str = "pull-";

/// A live command's claim on temporary space. Dropping it discards whatever is still in it.
#[derive(Debug)]
pub struct Session {
    store: Store,
    id: String,
    directory: PathBuf,
    /// The lease that outlives it.
    lasting: Option<LastingLease>,
    owner: String,
    next: AtomicU64,
    _lock: File,
}

/// A lease that ends by itself.
#[derive(Debug)]
struct LastingLease {
    id: String,
    expires_at: UnixSeconds,
}

impl Session {
    pub(crate) fn begin(store: &Store, owner: &str) -> Result<Self> {
        let id = random_name();
        let directory = store.layout().ingest().join(&id);
        let lock = {
            // Between mkdir and flock the directory would look like a dead session's.
            let _claim = store.claim(&Key::Sessions)?;
            fs::DirBuilder::new().mode(0o700).create(&directory).context("create", &directory)?;
            let path = directory.join(LOCK_NAME);
            let lock = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&path)
                .context("create", &path)?;
            flock(&lock, FlockOperation::NonBlockingLockExclusive).context("lock", &path)?;
            lock
        };
        let session = Self {
            store: store.clone(),
            id,
            directory,
            lasting: None,
            owner: owner.to_owned(),
            next: AtomicU64::new(0),
            _lock: lock,
        };
        store.database().write(Durability::Process, "record the lease", |tx| {
            tx.execute(
                "INSERT INTO lease (id, owner, pid, boot_id, created_at) VALUES (?1, ?2, ?3, ?4, ?5)",
                (&session.id, owner, std::process::id(), &store.life().boot, store.clock().now()),
            )
            .db("record the lease")?;
            Ok(())
        })?;
        Ok(session)
    }

    /// The lease's ID.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// From now on keeps what it leases for `seconds`, even if it ends or dies without [`Session::complete`].
    /// All sessions with the same `purpose` share that lease, so that the one that succeeds ends it for all.
    pub fn outlast(&mut self, purpose: &str, seconds: i64) -> Result<()> {
        let id = format!("{LASTING_PREFIX}{}", &Digest::sha256_of(purpose.as_bytes()).hex()[..32]);
        let lasting = LastingLease { id, expires_at: self.store.clock().now() + seconds };
        // From the beginning, since it also says that what is found half published is worth keeping.
        let action = "record a lasting lease";
        self.store.database().write(Durability::Process, action, |tx| self.record_lasting(tx, &lasting))?;
        self.lasting = Some(lasting);
        Ok(())
    }

    fn record_lasting(&self, tx: &Transaction<'_>, lasting: &LastingLease) -> Result<()> {
        tx.prepare_cached(
            "INSERT INTO lease (id, owner, pid, boot_id, created_at, expires_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6) \
             ON CONFLICT (id) DO UPDATE SET expires_at = max(expires_at, excluded.expires_at)",
        )
        .and_then(|mut upsert| {
            let (pid, boot, now) = (std::process::id(), &self.store.life().boot, self.store.clock().now());
            upsert.execute((&lasting.id, &self.owner, pid, boot, now, lasting.expires_at))
        })
        .db("record a lasting lease")?;
        Ok(())
    }

    /// Says that what was fetched is kept by names now: nothing needs to outlast the session.
    pub fn complete(&self) -> Result<()> {
        let Some(LastingLease { id, .. }) = &self.lasting else { return Ok(()) };
        self.store.database().write(Durability::Process, "end a lasting lease", |tx| {
            tx.execute("DELETE FROM lease WHERE id = ?1", [id]).db("end a lasting lease")?;
            Ok(())
        })
    }

    /// Puts an object under the lease, inside a transaction.
    pub(crate) fn lease(&self, tx: &Transaction<'_>, kind: &str, key: &str) -> Result<()> {
        let action = "lease what is needed";
        let mut insert = tx
            .prepare_cached("INSERT OR IGNORE INTO lease_item (lease, kind, key) VALUES (?1, ?2, ?3)")
            .db(action)?;
        insert.execute((&self.id, kind, key)).db(action)?;
        if let Some(lasting) = &self.lasting {
            // Another session may have ended it meanwhile.
            self.record_lasting(tx, lasting)?;
            insert.execute((&lasting.id, kind, key)).db(action)?;
        }
        Ok(())
    }

    /// The directories in which trees are made, and thrown away if they are not published.
    pub fn directories(&self) -> [PathBuf; 2] {
        [self.directory.clone(), self.store.layout().trash()]
    }

    /// Starts to receive a blob. The digest is computed with `algorithm`.
    pub fn ingest(&self, algorithm: Algorithm) -> Result<Ingest> {
        Ingest::create(self.store.durable().clone(), self.fresh("blob"), algorithm)
    }

    /// Goes on receiving the blob `digest` of `size` bytes where an earlier session had to stop; what it has is read
    /// and hashed before this returns. Whatever becomes of the session, what was received stays for the next, unless
    /// it turns out to be other content.
    ///
    /// The caller holds the claim of the blob.
    pub fn resume(&self, digest: &Digest, size: u64) -> Result<Ingest> {
        Ingest::resume(self.store.durable().clone(), self.store.layout().partial_blob(digest), digest, size)
    }

    /// An empty directory for a tree that is about to be unpacked: a `diff` directory in one of its
    /// own. The `diff` directory has mode 0700 until the unpacker sets it.
    pub fn tree_directory(&self) -> Result<TreeDirectory> {
        let path = self.fresh("tree");
        let mut builder = fs::DirBuilder::new();
        builder.mode(0o700);
        builder.create(&path).context("create", &path)?;
        let diff = path.join("diff");
        builder.create(&diff).context("create", &diff)?;
        Ok(TreeDirectory { path: Some(path), trash: self.store.layout().trash() })
    }

    fn fresh(&self, kind: &str) -> PathBuf {
        self.directory.join(format!("{kind}-{}", self.next.fetch_add(1, Ordering::Relaxed)))
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let forgotten = self.store.database().write(Durability::Process, "drop the lease", |tx| {
            tx.execute("DELETE FROM lease WHERE id = ?1", [&self.id]).db("drop the lease")?;
            Ok(())
        });
        if let Err(error) = forgotten {
            tracing::warn!(%error, session = self.id, "the lease stays until the next collection");
        }
        // Out of sight in one step, while it is locked: half removed, it would look like a dead session's.
        let removed = self
            .store
            .move_to_trash(&self.directory)
            .and_then(|trashed| trashed.map_or(Ok(()), |path| self.store.unlink_trashed(&path)));
        if let Err(error) = removed {
            tracing::warn!(%error, session = self.id, "temporary files stay until the next session");
        }
    }
}

/// A tree that is being unpacked, in the session's directory; deleted when dropped unpublished.
#[derive(Debug)]
pub struct TreeDirectory {
    path: Option<PathBuf>,
    trash: PathBuf,
}

impl TreeDirectory {
    /// Where the layer's files go.
    pub fn diff(&self) -> PathBuf {
        self.path.as_deref().unwrap_or(Path::new("")).join("diff")
    }

    /// Hands the directory over to whoever renames it into place.
    pub(crate) fn into_path(mut self) -> PathBuf {
        self.path.take().unwrap_or_default()
    }
}

impl Drop for TreeDirectory {
    fn drop(&mut self) {
        if let Some(path) = self.path.take()
            && let Err(error) = remove(&path, &self.trash)
        {
            tracing::warn!(%error, path = %path.display(), "an unfinished tree stays until the session ends");
        }
    }
}

fn is_strange(error: &io::Error) -> bool {
    let strange = [Errno::NOTDIR, Errno::LOOP, Errno::NXIO];
    strange.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

/// Whether the session whose directory this is has died: nobody holds its lock.
///
/// The caller holds [`Key::Sessions`].
pub(crate) fn is_dead(directory: &Path) -> Result<bool> {
    let path = directory.join(LOCK_NAME);
    // A session's lock is a file: nobody waits for the other end of a pipe, or follows a link.
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let opened =
        OpenOptions::new().read(true).custom_flags(i32::try_from(flags.bits()).unwrap_or(0)).open(&path);
    let lock = match opened {
        Ok(lock) => lock,
        // Its session may have ended meanwhile.
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(directory.exists()),
        // A stray file is nobody's session, nor is a directory whose lock is a link or a socket.
        Err(error) if is_strange(&error) => return Ok(true),
        Err(error) => return Err(error).context("open", &path),
    };
    match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(errno) => Err(errno).context("lock", &path),
    }
}
