//! Why a layer was not unpacked, with the entry concerned.

use std::io;

use layerstore_oci::ErrorKind;
use rustix::io::Errno;

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
    /// The layer has more of something than allowed.
    #[error("the layer is refused{}: more than {limit} {what}", if entry.is_empty() { String::new() } else { format!(" at its entry `{entry}`") })]
    Limit {
        /// The entry that was too much; empty before the first.
        entry: String,
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
    /// A device node, where none is accepted.
    #[error("the layer's entry `{entry}` is refused: it is a device node, and the limits allow none")]
    Device {
        /// The entry's path.
        entry: String,
    },
    /// Hard links that lead to each other and to no file.
    #[error("the layer's entry `{entry}` is a hard link to `{target}`, which leads back to it")]
    CircularLink {
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
    /// Whether the layer would be accepted with other [`Limits`](crate::Limits).
    pub fn is_limit(&self) -> bool {
        matches!(
            self,
            Self::Limit { .. } | Self::Device { .. } | Self::Tar(layerstore_tar::Error::Limit { .. })
        )
    }

    /// The class of the failure.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Stream { source, .. } => match ErrorKind::of_io(source) {
                ErrorKind::NoSpace => ErrorKind::NoSpace,
                _ => ErrorKind::Corrupt,
            },
            Self::Tar(layerstore_tar::Error::Limit { .. })
            | Self::Limit { .. }
            | Self::Refused { .. }
            | Self::Device { .. }
            | Self::CircularLink { .. } => ErrorKind::InvalidInput,
            Self::Tar(_) => ErrorKind::Corrupt,
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
        self.map_err(|error| {
            let source = error.into();
            if source.raw_os_error() == Some(Errno::NAMETOOLONG.raw_os_error()) {
                return refused(path, "a name in it is longer than the filesystem allows");
            }
            Error::Entry { action, entry: lossy(path), source }
        })
    }
}

pub(crate) fn refused(path: &[u8], reason: &'static str) -> Error {
    Error::Refused { entry: lossy(path), reason }
}

pub(crate) fn limit(path: &[u8], what: &'static str, limit: u64) -> Error {
    Error::Limit { entry: lossy(path), what, limit }
}

/// Characters of a path that are shown.
const SHOWN: usize = 300;

/// A path for a message: printable and of a bearable length, whatever the archive says.
pub fn lossy(path: &[u8]) -> String {
    let text = String::from_utf8_lossy(path);
    let shown = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    if text.chars().count() <= SHOWN {
        return text.chars().map(shown).collect();
    }
    let tail: Vec<char> = text.chars().rev().take(SHOWN / 2).map(shown).collect();
    text.chars().take(SHOWN / 2).map(shown).chain(['…']).chain(tail.into_iter().rev()).collect()
}
