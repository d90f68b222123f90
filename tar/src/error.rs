use std::fmt;
use std::io;

/// Why an archive cannot be read or written.
///
/// `offset` counts bytes from the start of the tar stream; `path` is the entry's path, with bytes that are not
/// UTF-8 replaced, and empty where no entry is known.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The stream below failed, for instance because a decompressor found damage.
    #[error("tar stream failed at byte {offset}")]
    Io {
        /// Bytes read or written before.
        offset: u64,
        /// What the stream said.
        source: io::Error,
    },
    /// The stream ended too early.
    #[error("tar archive ends inside {what}{}", Place(path, *offset))]
    Truncated {
        /// What was being read.
        what: &'static str,
        /// The entry, where known.
        path: String,
        /// Where the stream ended.
        offset: u64,
    },
    /// A block that should be a header is none: its checksum does not match. At offset 0 this means that the
    /// input is not a tar archive.
    #[error("no tar header{}: checksum mismatch", Place("", *offset))]
    Checksum {
        /// Where the block starts.
        offset: u64,
    },
    /// The archive asks for more than [`Limits`](crate::Limits) allows.
    #[error("{what} exceeds the limit of {limit}{}", Place(path, *offset))]
    Limit {
        /// What is too large.
        what: &'static str,
        /// The limit, in bytes or pieces.
        limit: u64,
        /// The entry, where known.
        path: String,
        /// Start of the header that says so.
        offset: u64,
    },
    /// A header, or an entry that was to be written, contradicts the format.
    #[error("invalid tar field `{field}`{}: {reason}", Place(path, *offset))]
    Invalid {
        /// Header field or PAX keyword.
        field: &'static str,
        /// What is wrong with it.
        reason: &'static str,
        /// The entry, where known.
        path: String,
        /// Start of the header that says so.
        offset: u64,
    },
}

impl Error {
    /// Whether the stream failed, rather than the archive being wrong.
    pub fn is_io(&self) -> bool {
        matches!(self, Self::Io { .. })
    }
}

/// Characters of a path that are shown: it may be as long as the archive likes.
const SHOWN: usize = 300;

/// Escaped, so that a hostile name cannot play with a terminal.
struct Place<'a>(&'a str, u64);

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.char_indices().nth(SHOWN) {
            None if self.0.is_empty() => {}
            None => write!(f, " of {:?}", self.0)?,
            Some((end, _)) => write!(f, " of {:?}…", self.0.get(..end).unwrap_or_default())?,
        }
        write!(f, " at byte {}", self.1)
    }
}

/// What is wrong, before it is known where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flaw {
    Limit { what: &'static str, limit: u64 },
    Invalid { field: &'static str, reason: &'static str },
}

impl Flaw {
    pub(crate) fn limit(what: &'static str, limit: usize) -> Self {
        Self::Limit { what, limit: limit as u64 }
    }

    pub(crate) fn invalid(field: &'static str, reason: &'static str) -> Self {
        Self::Invalid { field, reason }
    }

    pub(crate) fn at(self, path: &[u8], offset: u64) -> Error {
        let path = String::from_utf8_lossy(path).into_owned();
        match self {
            Self::Limit { what, limit } => Error::Limit { what, limit, path, offset },
            Self::Invalid { field, reason } => Error::Invalid { field, reason, path, offset },
        }
    }
}
