//! What can go wrong in the store, with the path or digest concerned.

use std::io;
use std::path::{Path, PathBuf};

use layerstore_oci::{Digest, ErrorKind};

use crate::snapshot::SnapshotKind;

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
    /// A row refers to one that is not there. Collection stops here: who knows what else is lost.
    #[error("the database refers to a {what} that it does not hold: {name}")]
    DanglingRow {
        /// Which kind of object.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// A name or key that is not there.
    #[error("no such {what}: {name}")]
    NotFound {
        /// Which kind of object.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// A name or key that is taken.
    #[error("{what} {name} exists already")]
    Exists {
        /// Which kind of object.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// The name of another container.
    #[error("the name `{name}` is taken by container {}", id.get(..12).unwrap_or(id))]
    NameTaken {
        /// The name.
        name: String,
        /// Who has it.
        id: String,
    },
    /// A key that no snapshot can have.
    #[error("`{}` cannot be the key of a snapshot: {reason}", key.chars().take(64).collect::<String>())]
    InvalidKey {
        /// As given.
        key: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A label that is too long.
    #[error("label `{name}` and its value have more than {limit} bytes")]
    LabelTooLong {
        /// The beginning of its name.
        name: String,
        /// How many are allowed.
        limit: usize,
    },
    /// A parent that is not committed.
    #[error("snapshot {key} cannot be a parent: it is {}", article(*kind))]
    ParentNotCommitted {
        /// The parent's key.
        key: String,
        /// What it is.
        kind: SnapshotKind,
    },
    /// A snapshot of the wrong kind.
    #[error("snapshot {key} is {}: {wanted}", article(*kind))]
    WrongKind {
        /// Its key.
        key: String,
        /// What it is.
        kind: SnapshotKind,
        /// What it would have to be.
        wanted: &'static str,
    },
    /// A snapshot that is to be committed above another parent than it was prepared for.
    #[error("snapshot {key} is above {present} and cannot be committed above {wanted}")]
    OtherParent {
        /// Its key.
        key: String,
        /// Its parent.
        present: String,
        /// The parent asked for.
        wanted: String,
    },
    /// The directory of a tree is not there: somebody has deleted it.
    #[error("the files of {what} are gone: {} is missing", path.display())]
    LostTree {
        /// The container or snapshot.
        what: String,
        /// The directory.
        path: PathBuf,
    },
    /// What was written shortly before a power cut, or without being synced at all.
    #[error("the files of {what} cannot be trusted: {reason}")]
    Untrusted {
        /// The container or snapshot.
        what: String,
        /// What has happened.
        reason: &'static str,
    },
    /// The mount point is in use already.
    #[error("{} is already a mount point", target.display())]
    AlreadyMounted {
        /// The mount point.
        target: PathBuf,
    },
    /// A snapshot that is mounted already.
    #[error("{key} is mounted at {}", target.display())]
    SnapshotMounted {
        /// Its key.
        key: String,
        /// Where.
        target: PathBuf,
    },
    /// A snapshot that is not to be committed or removed while it is mounted.
    #[error("{key} is mounted at {}", target.display())]
    SnapshotInUse {
        /// Its key.
        key: String,
        /// Where.
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
    /// Nothing can be written.
    #[error("the filesystem of the store at {} is read-only", root.display())]
    ReadOnly {
        /// The store's root.
        root: PathBuf,
    },
    /// What is committed cannot be told without writing.
    #[error("the store at {} cannot be read while its filesystem is read-only: {reason}", root.display())]
    Unreadable {
        /// The store's root.
        root: PathBuf,
        /// What is to be written, or is missing.
        reason: &'static str,
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
            | Self::InvalidIdMap { .. }
            | Self::InvalidKey { .. }
            | Self::NotADirectory { .. }
            | Self::LabelTooLong { .. }
            | Self::ParentNotCommitted { .. }
            | Self::OtherParent { .. } => ErrorKind::InvalidInput,
            Self::DigestMismatch { .. }
            | Self::SizeMismatch { .. }
            | Self::DamagedBlob { .. }
            | Self::InvalidRow { .. }
            | Self::DanglingRow { .. }
            | Self::LostTree { .. }
            | Self::Untrusted { .. } => ErrorKind::Corrupt,
            Self::NoBlob { .. } | Self::NotFound { .. } => ErrorKind::NotFound,
            Self::AlreadyMounted { .. }
            | Self::SnapshotMounted { .. }
            | Self::Exists { .. }
            | Self::NameTaken { .. } => ErrorKind::AlreadyExists,
            Self::WrongKind { .. } => ErrorKind::WrongState,
            Self::OtherNamespace { .. } | Self::InUse { .. } | Self::SnapshotInUse { .. } => ErrorKind::InUse,
            Self::ReadOnly { .. } | Self::Unreadable { .. } | Self::Poisoned { .. } => ErrorKind::Io,
        }
    }
}

fn article(kind: SnapshotKind) -> &'static str {
    match kind {
        SnapshotKind::Active => "an active one",
        SnapshotKind::View => "a view",
        SnapshotKind::Committed => "a committed one",
    }
}

impl Error {
    /// Whether there is no space, or a file of the database could not be made.
    pub(crate) fn is_full_or_no_file(&self) -> bool {
        let Self::Database { source, .. } = self else { return self.kind() == ErrorKind::NoSpace };
        self.kind() == ErrorKind::NoSpace
            || source.sqlite_error_code() == Some(rusqlite::ErrorCode::CannotOpen)
    }
}

fn kind_of_sqlite(error: &rusqlite::Error) -> ErrorKind {
    use rusqlite::ErrorCode;
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => ErrorKind::NoSpace,
        // The file of the index of the log cannot grow, or be made.
        _ if error.sqlite_error().is_some_and(|e| e.extended_code == rusqlite::ffi::SQLITE_IOERR_SHMSIZE) => {
            ErrorKind::NoSpace
        }
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => ErrorKind::Corrupt,
        _ => match error {
            // No version of this program writes such a value.
            rusqlite::Error::IntegralValueOutOfRange(..)
            | rusqlite::Error::FromSqlConversionFailure(..)
            | rusqlite::Error::InvalidColumnType(..)
            | rusqlite::Error::Utf8Error(..) => ErrorKind::Corrupt,
            _ => ErrorKind::Io,
        },
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
