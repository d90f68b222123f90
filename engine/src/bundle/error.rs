//! Why a bundle cannot be made.

use std::io;
use std::path::PathBuf;

use layerstore_oci::ErrorKind;

/// A bundle, or its config, that cannot be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BundleError {
    /// Neither the image nor the caller says what to run.
    #[error("there is nothing to run: the image has no command, and none is given")]
    NoCommand,
    /// A text that no process can be started with.
    #[error("{what} contains a NUL byte")]
    Nul {
        /// Which text.
        what: String,
    },
    /// A directory to start in that is not absolute.
    #[error("the working directory `{path}` is not an absolute path")]
    RelativeWorkdir {
        /// As given, by the image or by the caller.
        path: String,
    },
    /// A hostname that no system takes.
    #[error("`{hostname}` is not a hostname: it is empty or has more than 64 bytes")]
    Hostname {
        /// As given.
        hostname: String,
    },
    /// A user that the root filesystem does not know.
    #[error("there is no user `{name}` in {file} of the image")]
    NoUser {
        /// As given, by the image or by the caller.
        name: String,
        /// Where it should be.
        file: &'static str,
    },
    /// A group that the root filesystem does not know.
    #[error("there is no group `{name}` in {file} of the image")]
    NoGroup {
        /// As given, by the image or by the caller.
        name: String,
        /// Where it should be.
        file: &'static str,
    },
    /// A user or group ID that Docker and the runtimes do not take.
    #[error("the {what} ID `{id}` is out of range: it is at most {}", i32::MAX)]
    IdOutOfRange {
        /// `user` or `group`.
        what: &'static str,
        /// As given.
        id: String,
    },
    /// A user or group ID that the container's user namespace has not.
    #[error("the {what} ID {id} is in no range of the {what} ID map")]
    NotMapped {
        /// `user` or `group`.
        what: &'static str,
        /// The ID.
        id: u32,
    },
    /// A map of IDs that the kernel would refuse.
    #[error("the {what} ID map is not usable: {reason}")]
    IdMap {
        /// `user` or `group`.
        what: &'static str,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A list of users or groups that is larger than any real one.
    #[error("{file} of the image {reason}")]
    Accounts {
        /// Which.
        file: &'static str,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A list of users or groups that cannot be read.
    #[error("cannot read {file} of the image")]
    ReadAccounts {
        /// Which.
        file: &'static str,
        /// The reason.
        source: io::Error,
    },
    /// A volume that is no place for one.
    #[error("the image's volume `{path}` cannot be mounted: {reason}")]
    Volume {
        /// As the image has it.
        path: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// More volumes than any real image has.
    #[error("the image has {count} volumes, more than the {limit} that a bundle may have")]
    TooManyVolumes {
        /// How many.
        count: usize,
        /// How many are allowed.
        limit: usize,
    },
    /// A path of the host that JSON cannot hold.
    #[error("{} is not UTF-8, as all text in a config.json is", path.display())]
    NotUtf8 {
        /// The path.
        path: PathBuf,
    },
    /// A place for a bundle where there is something already.
    #[error("{} exists already and is not an empty directory", path.display())]
    Exists {
        /// The path.
        path: PathBuf,
    },
    /// A directory for volumes that is something else.
    #[error("{} is not a directory", path.display())]
    NotADirectory {
        /// The path.
        path: PathBuf,
    },
    /// A file or directory of the bundle that cannot be made.
    #[error("cannot {action} {}", path.display())]
    File {
        /// What was tried, as a verb.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
}

impl BundleError {
    /// The class of the failure.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Exists { .. } => ErrorKind::AlreadyExists,
            Self::NoUser { .. } | Self::NoGroup { .. } => ErrorKind::NotFound,
            Self::ReadAccounts { source, .. } | Self::File { source, .. } => ErrorKind::of_io(source),
            _ => ErrorKind::InvalidInput,
        }
    }
}
