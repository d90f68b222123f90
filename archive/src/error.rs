use std::fmt;
use std::io;

use layerstore_oci::{Compression, DocumentError, ErrorKind};
use layerstore_tar as tar;

/// Why an archive cannot be read.
///
/// Member names are escaped where they are shown: they may be hostile.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Not a single byte.
    #[error("the archive is empty")]
    Empty,
    /// Not a tar archive.
    #[error("not a tar archive{}", Found(*format))]
    NotTar {
        /// What the first bytes show instead, if they show something known.
        format: Option<&'static str>,
    },
    /// The archive ends before it should.
    #[error("the archive is truncated{}", Inside(member))]
    Truncated {
        /// The member it ends in; empty if that is not known.
        member: String,
    },
    /// A damaged or unsupported tar structure.
    #[error("the archive is damaged")]
    Tar {
        /// Where and why.
        source: tar::Error,
    },
    /// The archive or one of its members cannot be read.
    #[error("cannot read {what}")]
    Read {
        /// `the archive` or a member.
        what: String,
        /// What the system said.
        source: io::Error,
    },
    /// A member stored with holes, which no image archive needs; its bytes are not contiguous.
    #[error("`{}` is stored as a sparse file, which is not supported in an image archive", member.escape_debug())]
    Sparse {
        /// The member.
        member: String,
    },
    /// More members than an image archive has, or too much text in their names.
    #[error("the archive has too many members: more than {limit}")]
    TooManyMembers {
        /// Members, or bytes of names, that are allowed.
        limit: &'static str,
    },
    /// Nothing that says which images there are.
    #[error(
        "not an image archive: it has neither `manifest.json` nor `index.json`{}",
        Contents(found, *rootfs)
    )]
    NotAnImage {
        /// Some of the names at its top.
        found: Vec<String>,
        /// Whether it looks like a root file system, which `import` takes.
        rootfs: bool,
    },
    /// `repositories` without `manifest.json`: written by Docker before 1.10 (2016).
    #[error("docker archives without `manifest.json`, from before Docker 1.10, are not supported")]
    Legacy,
    /// A version of the OCI layout other than 1.0.0.
    #[error("OCI layout version `{}` is not supported, only 1.0.0", version.escape_debug())]
    LayoutVersion {
        /// The version found.
        version: String,
    },
    /// A member that another one names is not there.
    #[error("`{}` is not in the archive, although `{wanted_by}` names it", member.escape_debug())]
    Missing {
        /// The member.
        member: String,
        /// What names it.
        wanted_by: &'static str,
    },
    /// A link, or a name, that leads out of a directory.
    #[error("`{}` leads out of the directory", member.escape_debug())]
    Outside {
        /// The member.
        member: String,
    },
    /// A document that is larger than any real one.
    #[error("`{}` is larger than the {limit} bytes allowed", member.escape_debug())]
    TooLarge {
        /// The member.
        member: String,
        /// The limit in bytes.
        limit: u64,
    },
    /// A document of the archive itself is not what it should be.
    #[error("`{member}` is not valid")]
    Json {
        /// `manifest.json` or `oci-layout`.
        member: &'static str,
        /// Where and why.
        source: serde_json::Error,
    },
    /// `index.json` is not an index.
    #[error("`{member}` is not valid")]
    Document {
        /// `index.json`.
        member: &'static str,
        /// Why.
        source: DocumentError,
    },
}

impl Error {
    /// Something that is not a tar archive, of which these are the first bytes.
    pub fn not_tar(first: &[u8]) -> Self {
        Self::NotTar { format: format_of(first) }
    }

    /// The class of this error.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Truncated { .. } | Self::Missing { .. } => ErrorKind::Corrupt,
            Self::Tar { source } => match source {
                tar::Error::Limit { .. } => ErrorKind::Unsupported,
                _ => ErrorKind::Corrupt,
            },
            Self::Read { source, .. } => ErrorKind::of_io(source),
            Self::Sparse { .. } | Self::Legacy | Self::LayoutVersion { .. } => ErrorKind::Unsupported,
            Self::Document { source, .. } => source.kind(),
            _ => ErrorKind::InvalidInput,
        }
    }

    /// What an I/O error of the whole archive means.
    pub(crate) fn of_stream(source: io::Error) -> Self {
        if source.kind() == io::ErrorKind::UnexpectedEof {
            // Decompressors say so when their input ends early.
            return Self::Truncated { member: String::new() };
        }
        Self::Read { what: "the archive".to_owned(), source }
    }

    /// What an error of the tar reader means for an archive that starts with `first`.
    pub(crate) fn of_tar(error: tar::Error, first: &[u8]) -> Self {
        match Self::from(error) {
            Self::NotTar { .. } => Self::NotTar { format: format_of(first) },
            other => other,
        }
    }
}

impl From<tar::Error> for Error {
    fn from(error: tar::Error) -> Self {
        match error {
            // What ends inside its first header was never a tar archive.
            tar::Error::Checksum { offset: 0 } | tar::Error::Truncated { offset: ..512, .. } => {
                Self::NotTar { format: None }
            }
            tar::Error::Truncated { path, .. } => Self::Truncated { member: path },
            tar::Error::Io { source, .. } => Self::of_stream(source),
            source => Self::Tar { source },
        }
    }
}

fn format_of(first: &[u8]) -> Option<&'static str> {
    match (Compression::detect(first), first) {
        (Compression::Gzip, _) => Some("gzip data"),
        (Compression::Zstd, _) => Some("zstd data"),
        (_, [0xfd, b'7', b'z', b'X', ..]) => Some("xz data"),
        (_, [b'B', b'Z', b'h', ..]) => Some("bzip2 data"),
        (_, [0x04, 0x22, 0x4d, 0x18, ..]) => Some("lz4 data"),
        (_, [b'P', b'K', 3, 4, ..]) => Some("a zip archive"),
        (_, [b'{' | b'[', ..]) => Some("JSON"),
        _ => None,
    }
}

struct Found(Option<&'static str>);

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |format| write!(f, " but {format}"))
    }
}

struct Inside<'a>(&'a str);

impl fmt::Display for Inside<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, ": it ends inside `{}`", self.0.escape_debug()) }
    }
}

struct Contents<'a>(&'a [String], bool);

impl fmt::Display for Contents<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self([], _) => f.write_str(" nor any other file"),
            Self(_, true) => f.write_str(" but looks like a root file system"),
            Self(names, false) => {
                f.write_str(" but")?;
                for (position, name) in names.iter().enumerate() {
                    let comma = if position == 0 { "" } else { "," };
                    write!(f, "{comma} `{}`", name.escape_debug())?;
                }
                Ok(())
            }
        }
    }
}
