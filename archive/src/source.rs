use std::fs::File;
use std::io::{self, Seek};
use std::os::unix::fs::FileExt;

use layerstore_oci::Compression;

use crate::{Directory, Error, Stream, TarFile};

/// An archive in the way it arrived.
#[derive(Debug)]
pub enum Source {
    /// A tar in a regular file, indexed.
    Tar(TarFile),
    /// A tar that can be read only once, for [`crate::scan_stream`].
    Stream(Stream),
    /// A directory.
    Directory(Directory),
}

impl Source {
    /// Opens an archive that starts where `file` is: an open file, directory or pipe.
    pub fn open(file: File) -> Result<Self, Error> {
        let kind = file.metadata().map_err(Error::of_stream)?.file_type();
        if kind.is_dir() {
            return Ok(Self::Directory(Directory::new(file)));
        }
        if kind.is_file() && compression(&file).map_err(Error::of_stream)? == Compression::None {
            return TarFile::scan(file).map(Self::Tar);
        }
        Stream::new(file).map(Self::Stream).map_err(Error::of_stream)
    }
}

fn compression(mut file: &File) -> io::Result<Compression> {
    let start = file.stream_position()?;
    let mut first = [0; Compression::MAGIC_LEN];
    let mut len = 0;
    while len < first.len() {
        match file.read_at(&mut first[len..], start + len as u64) {
            Ok(0) => break,
            Ok(count) => len += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Compression::detect(&first[..len]))
}
