//! A root filesystem that is to be imported, as it comes.

use std::fs::File;
use std::io::{self, Cursor, Read};
use std::path::Path;

use layerstore_archive::Error as ArchiveError;
use layerstore_oci::Compression;

use crate::error::{Error, Result};
use crate::load::Source;

/// The length of a tar header: enough to tell what is no tar archive.
const LOOK: u64 = 512;

/// An open source whose first bytes are known.
#[derive(Debug)]
pub(super) struct Opened {
    /// What to call it: the path, or `-`.
    pub(super) name: String,
    first: Vec<u8>,
    rest: File,
}

impl Opened {
    pub(super) fn new(source: Source) -> Result<Self> {
        let (name, path, mut rest) = match source {
            Source::File(file) => ("-".to_owned(), None, file),
            Source::Path(path) => match File::open(&path) {
                Ok(file) => (path.display().to_string(), Some(path), file),
                Err(source) => return Err(Error::File { action: "open", path, source }),
            },
        };
        let failed = |source| match &path {
            Some(path) => Error::File { action: "read", path: path.clone(), source },
            None => Error::Read { what: "the root filesystem".to_owned(), source },
        };
        let mut first = Vec::new();
        rest.by_ref().take(LOOK).read_to_end(&mut first).map_err(failed)?;
        if first.is_empty() {
            return Err(ArchiveError::Empty.into());
        }
        Ok(Self { name, first, rest })
    }

    /// How it is compressed, if it is a tar archive at all.
    pub(super) fn compression(&self) -> Compression {
        Compression::detect(&self.first)
    }

    /// All of it, and its first bytes once more.
    pub(super) fn into_reader(self) -> (impl Read + Send, Vec<u8>) {
        (Cursor::new(self.first.clone()).chain(self.rest), self.first)
    }
}

/// Says in words of its own what is wrong with something that is no tar archive.
pub(super) fn explained(error: Error, first: &[u8]) -> Error {
    use layerstore_tar::Error as TarError;
    use layerstore_unpack::Error as UnpackError;

    match error {
        Error::Unpack {
            source:
                UnpackError::Tar(TarError::Checksum { offset: 0 } | TarError::Truncated { offset: ..512, .. }),
            ..
        } => ArchiveError::not_tar(first).into(),
        Error::Unpack { source: UnpackError::Tar(TarError::Truncated { path, .. }), .. } => {
            ArchiveError::Truncated { member: path }.into()
        }
        Error::Unpack { source: UnpackError::Stream { source, .. }, .. }
            if source.kind() == io::ErrorKind::UnexpectedEof =>
        {
            ArchiveError::Truncated { member: String::new() }.into()
        }
        other => other,
    }
}

/// Whether the directory has what an archive of images has at its top, and nothing else.
pub(super) fn is_image_archive(directory: &Path) -> io::Result<bool> {
    let (mut marked, mut count) = (false, 0);
    for entry in std::fs::read_dir(directory)? {
        let name = entry?.file_name();
        let Some(name) = name.to_str() else { return Ok(false) };
        count += 1;
        let known = match name {
            "manifest.json" | "index.json" | "repositories" => {
                marked = true;
                true
            }
            "oci-layout" | "blobs" => true,
            name => is_digest(name.split('.').next().unwrap_or_default()),
        };
        // A root filesystem with a lot of files is told apart with the first of them.
        if !known {
            return Ok(false);
        }
    }
    Ok(marked && count > 1)
}

/// Layers and configs in the archives of older tools: `<digest>/`, `<digest>.json`, `<digest>.tar`.
fn is_digest(name: &str) -> bool {
    name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}
