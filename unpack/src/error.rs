//! Why a layer was not unpacked, with the entry concerned.

use std::io;

use layerstore_oci::ErrorKind;

/// A layer that was refused, or could not be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The compressed stream could not be read or decompressed.
    #[error("cannot read the layer's {form} stream")]
    Stream {
        /// `gzip`, `zstd` or `tar`.
        form: &'static str,
        /// The reason.
        source: io::Error,
    },
    /// The stream is not a valid tar archive.
    #[error("the layer is not a valid tar archive")]
    Tar(#[from] layerstore_tar::Error),
    /// The layer is larger than allowed.
    #[error("the layer is refused: more than {limit} {what}")]
    Limit {
        /// What there is too much of.
        what: &'static str,
        /// How much is allowed.
        limit: u64,
    },
    /// An entry that no layer may have.
    #[error("the layer's entry `{entry}` is refused: {reason}")]
    Refused {
        /// The entry's path.
        entry: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A hard link to something that the layer does not contain.
    #[error("the layer's entry `{entry}` is a hard link to `{target}`, which the layer does not contain")]
    MissingLinkTarget {
        /// The entry's path.
        entry: String,
        /// What it links to.
        target: String,
    },
    /// The operating system refused to create an entry.
    #[error("cannot {action} `{entry}` of the layer")]
    Entry {
        /// What was tried, as a verb.
        action: &'static str,
        /// The entry's path.
        entry: String,
        /// The reason.
        source: io::Error,
    },
}

impl Error {
    /// The class of the failure.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Stream { source, .. } => match ErrorKind::of_io(source) {
                ErrorKind::NoSpace => ErrorKind::NoSpace,
                _ => ErrorKind::Corrupt,
            },
            Self::Tar(_) => ErrorKind::Corrupt,
            Self::Limit { .. } | Self::Refused { .. } => ErrorKind::InvalidInput,
            Self::MissingLinkTarget { .. } => ErrorKind::Unsupported,
            Self::Entry { source, .. } => ErrorKind::of_io(source),
        }
    }
}

/// The result of unpacking.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Names the entry in an operating system's error.
pub(crate) trait EntryContext<T> {
    fn entry(self, action: &'static str, path: &[u8]) -> Result<T>;
}

impl<T, E: Into<io::Error>> EntryContext<T> for std::result::Result<T, E> {
    fn entry(self, action: &'static str, path: &[u8]) -> Result<T> {
        self.map_err(|error| Error::Entry { action, entry: lossy(path), source: error.into() })
    }
}

pub(crate) fn refused(path: &[u8], reason: &'static str) -> Error {
    Error::Refused { entry: lossy(path), reason }
}

/// A path for a message: printable, whatever the archive says.
pub(crate) fn lossy(path: &[u8]) -> String {
    String::from_utf8_lossy(path).chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}
