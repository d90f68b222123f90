//! An archive that can be read only once, from its beginning: a pipe, or what is compressed as a
//! whole.

use std::fmt;
use std::io::{self, BufRead, BufReader, Cursor, Read};

use flate2::bufread::MultiGzDecoder;
use layerstore_oci::Compression;
use layerstore_tar::{Entry, EntryKind, Reader};

use crate::member::normalise_member;
use crate::{Error, MemberMap};

/// One read of this size takes as long as the system calls around it many times over.
const BUFFER: usize = 256 << 10;
/// What may follow the end-of-archive mark: tar pads to its record size, 10 KiB unless asked for
/// more. Beyond this, whoever writes the pipe is not waited for.
const MAX_TRAILER: u64 = 16 << 20;

/// The tar stream of an archive, decompressed if the whole of it is compressed.
pub struct Stream {
    compression: Compression,
    inner: Box<dyn BufRead + Send>,
}

impl Stream {
    /// Looks at the first bytes of `input` and decompresses gzip (any number of members) and zstd
    /// (any number of frames).
    ///
    /// What a decompressor does not like is an I/O error of kind [`io::ErrorKind::InvalidData`] or
    /// [`io::ErrorKind::UnexpectedEof`]; errors of `input` itself pass unchanged.
    pub fn new(input: impl Read + Send + 'static) -> io::Result<Self> {
        let mut input = BufReader::with_capacity(BUFFER, input);
        let mut first = Vec::with_capacity(Compression::MAGIC_LEN);
        input.by_ref().take(Compression::MAGIC_LEN as u64).read_to_end(&mut first)?;
        let compression = Compression::detect(&first);
        let input = Cursor::new(first).chain(input);
        let inner: Box<dyn BufRead + Send> = match compression {
            Compression::None => Box::new(input),
            Compression::Gzip => buffered(MultiGzDecoder::new(input)),
            Compression::Zstd => buffered(zstd::stream::read::Decoder::with_buffer(input)?),
        };
        Ok(Self { compression, inner })
    }

    /// How the archive as a whole is compressed.
    pub fn compression(&self) -> Compression {
        self.compression
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream").field("compression", &self.compression).finish_non_exhaustive()
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.inner.read(buffer)
    }
}

impl BufRead for Stream {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.inner.fill_buf()
    }

    fn consume(&mut self, count: usize) {
        self.inner.consume(count);
    }
}

fn buffered(decoder: impl Read + Send + 'static) -> Box<dyn BufRead + Send> {
    Box::new(BufReader::with_capacity(BUFFER, Decoder(decoder)))
}

/// Gives the errors of a decompressor one kind; libraries differ in what they choose.
struct Decoder<D>(D);

impl<D: Read> Read for Decoder<D> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer).map_err(|error| match error.kind() {
            io::ErrorKind::InvalidInput | io::ErrorKind::Other if error.raw_os_error().is_none() => {
                io::Error::new(io::ErrorKind::InvalidData, error)
            }
            _ => error,
        })
    }
}

/// Reads an archive in one pass and hands every regular member to `take`, in order of arrival,
/// with its normalised name and the reader to get its data from.
///
/// Members with names that cannot be referred to are skipped (see [`normalise_member`]), and so is
/// what `take` leaves of a member's data. What `take` returns is kept with the name in the result;
/// of members with the same name only the last one's is, the others are dropped.
///
/// Reads on to the end of `input`, so that a checksum there is verified and the writer of a pipe
/// is not killed.
pub fn scan_stream<R: BufRead, T, E: From<Error>>(
    input: R,
    take: impl FnMut(&str, &Entry, &mut Reader<R>) -> Result<T, E>,
) -> Result<MemberMap<T>, E> {
    let (members, rest) = scan(input, take)?;
    io::copy(&mut rest.take(MAX_TRAILER), &mut io::sink()).map_err(Error::of_stream)?;
    Ok(members)
}

/// [`scan_stream`] up to the end of the archive.
pub(crate) fn scan<R: BufRead, T, E: From<Error>>(
    mut input: R,
    mut take: impl FnMut(&str, &Entry, &mut Reader<R>) -> Result<T, E>,
) -> Result<(MemberMap<T>, R), E> {
    let first = loop {
        match input.fill_buf() {
            Ok([]) => return Err(Error::Empty.into()),
            Ok(bytes) => break bytes[..bytes.len().min(Compression::MAGIC_LEN)].to_vec(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Error::of_stream(error).into()),
        }
    };
    let mut reader = Reader::new(input);
    let mut members = MemberMap::default();
    while let Some(entry) = reader.next_entry().map_err(|error| Error::of_tar(error, &first))? {
        let Some(name) = normalise_member(&entry.path) else { continue };
        if entry.kind != EntryKind::Regular {
            members.insert_other(name, &entry)?;
        } else if entry.sparse.is_some() {
            return Err(Error::Sparse { member: name }.into());
        } else {
            let value = take(&name, &entry, &mut reader)?;
            members.insert_file(name, value)?;
        }
    }
    Ok((members, reader.into_inner()))
}
