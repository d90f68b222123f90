//! Why no layer was made of a directory, with the file concerned.

use std::io;

use layerstore_oci::ErrorKind;
use rustix::io::Errno;

use crate::error::lossy;

/// A directory that no layer can be made of.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DiffError {
    /// The operating system refused to read a file.
    #[error("cannot {action} `{file}`")]
    File {
        /// What was tried, as a verb.
        action: &'static str,
        /// The file's path in the directory.
        file: String,
        /// The reason.
        source: io::Error,
    },
    /// A file that a layer cannot say.
    #[error("`{file}` cannot be put into a layer: {reason}")]
    Refused {
        /// The file's path in the directory.
        file: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A file is not what it was a moment ago.
    #[error("`{file}` changed while it was read")]
    Changed {
        /// The file's path in the directory.
        file: String,
    },
    /// The layer would be larger than allowed.
    #[error("`{file}` does not fit into the layer: more than {limit} {what}")]
    Limit {
        /// The file's path in the directory.
        file: String,
        /// What there is too much of.
        what: &'static str,
        /// How much is allowed.
        limit: u64,
    },
    /// The archive could not be written.
    #[error("cannot write the layer")]
    Output(#[from] layerstore_tar::Error),
}

impl DiffError {
    /// The class of the failure.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::File { source, .. } | Self::Output(layerstore_tar::Error::Io { source, .. }) => {
                ErrorKind::of_io(source)
            }
            Self::Refused { .. } => ErrorKind::Unsupported,
            Self::Changed { .. } => ErrorKind::InUse,
            Self::Limit { .. } => ErrorKind::InvalidInput,
            Self::Output(_) => ErrorKind::Io,
        }
    }
}

/// Names the file in an operating system's error.
pub(super) trait FileContext<T> {
    fn file(self, action: &'static str, path: &[u8]) -> Result<T, DiffError>;
}

impl<T> FileContext<T> for Result<T, Errno> {
    fn file(self, action: &'static str, path: &[u8]) -> Result<T, DiffError> {
        self.map_err(|errno| match errno {
            // It was there when its directory was read.
            Errno::NOENT | Errno::NODATA | Errno::STALE => changed(path),
            errno => DiffError::File { action, file: shown(path), source: errno.into() },
        })
    }
}

pub(super) fn refused(path: &[u8], reason: &'static str) -> DiffError {
    DiffError::Refused { file: shown(path), reason }
}

pub(super) fn changed(path: &[u8]) -> DiffError {
    DiffError::Changed { file: shown(path) }
}

pub(super) fn too_much(path: &[u8], what: &'static str, limit: u64) -> DiffError {
    DiffError::Limit { file: shown(path), what, limit }
}

/// The root has no name of its own.
fn shown(path: &[u8]) -> String {
    if path.is_empty() { "/".to_owned() } else { lossy(path) }
}
