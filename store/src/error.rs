//! What can go wrong in the store, with the path or digest concerned.

use std::io;
use std::path::{Path, PathBuf};

use layerstore_oci::{Digest, ErrorKind};

/// A failed operation of the store.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// SQLite refused.
    #[error("cannot {action} in the store's database")]
    Database {
        /// What was tried, as a verb with its object.
        action: &'static str,
        /// The reason.
        source: rusqlite::Error,
    },
    /// The database was written by a newer version of this program.
    #[error("the store at {} has format version {found}, this program knows up to {known}", root.display())]
    NewerFormat {
        /// The store's root.
        root: PathBuf,
        /// The version found.
        found: i64,
        /// The newest version this program can read.
        known: i64,
    },
    /// The store needs a feature that this program does not have.
    #[error("the store at {} uses the feature `{feature}`, which this program does not know", root.display())]
    UnknownFeature {
        /// The store's root.
        root: PathBuf,
        /// The feature's name.
        feature: String,
    },
    /// The directory holds a database of something else.
    #[error("{} is not a layerstore database", path.display())]
    NotAStore {
        /// The database file.
        path: PathBuf,
    },
    /// A directory with files that is not a store, or is one no more.
    #[error("{} has files but no layerstore database: it is not a store, or has lost its database", root.display())]
    NoDatabase {
        /// The directory.
        root: PathBuf,
    },
    /// The content is not what its digest says.
    #[error("content does not match its digest: expected {expected}, got {actual}")]
    DigestMismatch {
        /// The digest asked for.
        expected: Digest,
        /// The digest of what came.
        actual: Digest,
    },
    /// The content is not as long as its descriptor says.
    #[error("{digest} has {actual} bytes, its descriptor says {expected}")]
    SizeMismatch {
        /// The blob.
        digest: Digest,
        /// Bytes according to the descriptor.
        expected: u64,
        /// Bytes that came.
        actual: u64,
    },
    /// A blob that the store does not have.
    #[error("the store has no blob {digest}")]
    NoBlob {
        /// The blob.
        digest: Digest,
    },
    /// A blob on disk that is not what its name says.
    #[error("blob {digest} is damaged: {reason}")]
    DamagedBlob {
        /// The blob.
        digest: Digest,
        /// What is wrong with it.
        reason: String,
    },
    /// A row of the database holds what no version of this program writes.
    #[error("the database holds an invalid {what}: `{value}`")]
    InvalidRow {
        /// Which kind of value.
        what: &'static str,
        /// The value.
        value: String,
    },
    /// A name or key that is not there.
    #[error("no such {what}: {name}")]
    NotFound {
        /// Which kind of object.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// The mount point is in use already.
    #[error("{} is already a mount point", target.display())]
    AlreadyMounted {
        /// The mount point.
        target: PathBuf,
    },
    /// The image is mounted where this process cannot unmount it.
    #[error("{} is mounted in another mount namespace, mnt:[{namespace}]", target.display())]
    OtherNamespace {
        /// The mount point there.
        target: PathBuf,
        /// The namespace, as `/proc/PID/ns/mnt` of its processes shows it.
        namespace: i64,
    },
    /// Something still uses the object.
    #[error("{what} is in use by {user}")]
    InUse {
        /// The object.
        what: String,
        /// Its user.
        user: String,
    },
    /// More layers than overlayfs can stack.
    #[error("{count} layers are more than the {max} that overlayfs can stack")]
    TooManyLayers {
        /// Layers wanted.
        count: usize,
        /// The kernel's limit.
        max: usize,
    },
    /// A mount point, or a tree, that is something else.
    #[error("{} is not a directory", path.display())]
    NotADirectory {
        /// What should be one.
        path: PathBuf,
    },
    /// This process must not mount. Root may, and who is in a user namespace with a mount namespace of its
    /// own.
    #[error("no privilege to mount at {}", target.display())]
    NoPrivilege {
        /// The mount point.
        target: PathBuf,
        /// `EPERM` or `EACCES`.
        source: io::Error,
    },
    /// The kernel or the filesystem cannot do it.
    #[error("{what} is not possible: {reason}")]
    NotSupported {
        /// What was asked for.
        what: &'static str,
        /// What is missing, and where.
        reason: String,
    },
    /// A map of user or group IDs that cannot be one.
    #[error("invalid ID map: {reason}")]
    InvalidIdMap {
        /// What is wrong with it.
        reason: String,
    },
    /// An earlier sync failed, so nothing more may be called durable.
    #[error("an earlier write to the disk of {} failed, nothing more is written in this process", root.display())]
    Poisoned {
        /// The store's root.
        root: PathBuf,
    },
}

/// The result of an operation of the store.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// The class of the failure.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Io { source, .. } => ErrorKind::of_io(source),
            Self::Database { source, .. } => kind_of_sqlite(source),
            Self::NewerFormat { .. }
            | Self::UnknownFeature { .. }
            | Self::NoPrivilege { .. }
            | Self::NotSupported { .. } => ErrorKind::Unsupported,
            Self::NotAStore { .. }
            | Self::NoDatabase { .. }
            | Self::TooManyLayers { .. }
            | Self::NotADirectory { .. }
            | Self::InvalidIdMap { .. } => ErrorKind::InvalidInput,
            Self::DigestMismatch { .. }
            | Self::SizeMismatch { .. }
            | Self::DamagedBlob { .. }
            | Self::InvalidRow { .. } => ErrorKind::Corrupt,
            Self::NoBlob { .. } | Self::NotFound { .. } => ErrorKind::NotFound,
            Self::AlreadyMounted { .. } => ErrorKind::AlreadyExists,
            Self::OtherNamespace { .. } | Self::InUse { .. } => ErrorKind::InUse,
            Self::Poisoned { .. } => ErrorKind::Io,
        }
    }
}

fn kind_of_sqlite(error: &rusqlite::Error) -> ErrorKind {
    use rusqlite::ErrorCode;
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => ErrorKind::NoSpace,
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => ErrorKind::Corrupt,
        _ => ErrorKind::Io,
    }
}

/// Adds what was tried, and on which path, to an I/O error.
pub(crate) trait IoContext<T> {
    fn context(self, action: &'static str, path: impl AsRef<Path>) -> Result<T>;
}

impl<T, E: Into<io::Error>> IoContext<T> for Result<T, E> {
    fn context(self, action: &'static str, path: impl AsRef<Path>) -> Result<T> {
        self.map_err(|e| Error::Io { action, path: path.as_ref().to_owned(), source: e.into() })
    }
}

/// Adds what was tried to a database error.
pub(crate) trait DbContext<T> {
    fn db(self, action: &'static str) -> Result<T>;
}

impl<T> DbContext<T> for rusqlite::Result<T> {
    fn db(self, action: &'static str) -> Result<T> {
        self.map_err(|source| Error::Database { action, source })
    }
}
