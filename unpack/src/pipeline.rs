//! The stages of one layer: read and decompress, hash, write.
//!
//! A small layer passes through all stages on one thread. A larger one has a thread for decompression
//! and one for hashing, which run ahead of the writer by at most [`BUFFERS`] buffers; the buffers go
//! round and are never allocated again, so memory does not grow with the layer.

use std::io::{self, BufRead, BufReader, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use layerstore_oci::{Algorithm, Compression, DiffId, Hasher};

use crate::decode::Decoder;
use crate::error::{Error, Result, limit, refused};
use crate::options::Limits;

/// Large enough that a typical file is written in one call, small enough to stay in a core's cache.
const BUFFER_SIZE: usize = 256 << 10;
/// Buffers of one layer.
const BUFFERS: usize = 12;
/// What is read at once of the compressed stream.
const SOURCE_BUFFER_SIZE: usize = 128 << 10;
/// Layers up to this many compressed bytes are not worth two threads.
const INLINE_SIZE: u64 = 192 << 10;
/// The buffer of such a layer.
const INLINE_BUFFER_SIZE: usize = 64 << 10;

/// What the stages found out.
#[derive(Debug)]
pub(crate) struct Streamed<T> {
    pub(crate) value: T,
    pub(crate) diff_id: DiffId,
    pub(crate) bytes: u64,
    pub(crate) compression: Compression,
}

/// Lets `consume` read the uncompressed stream, and hashes all of it, what `consume` leaves unread
/// included. `size` is the length of `source`, if it is known.
pub(crate) fn run<R: Read + Send, T>(
    source: R,
    size: Option<u64>,
    limits: &Limits,
    consume: impl FnOnce(&mut dyn BufRead) -> Result<T>,
) -> Result<Streamed<T>> {
    let small = size.is_some_and(|size| size <= INLINE_SIZE);
    let capacity = if small { INLINE_BUFFER_SIZE } else { SOURCE_BUFFER_SIZE };
    let taken = Arc::new(AtomicU64::new(0));
    let source = Counted { source, count: Arc::clone(&taken) };
    let decoder = Decoder::new(BufReader::with_capacity(capacity, source))
        .map_err(|source| Error::Stream { form: "compressed", source })?;
    let compression = decoder.compression();
    let stream = Limited { decoder, taken, given: 0, limits: *limits };
    let result = if small { run_inline(stream, consume) } else { run_threaded(stream, consume) };
    match result {
        Ok((value, Hashed { diff_id, bytes })) => Ok(Streamed { value, diff_id, bytes, compression }),
        Err(error) => Err(name_cause(error, compression)),
    }
}

/// The digest of a whole stream.
struct Hashed {
    diff_id: DiffId,
    bytes: u64,
}

fn run_inline<R: Read, T>(
    source: R,
    consume: impl FnOnce(&mut dyn BufRead) -> Result<T>,
) -> Result<(T, Hashed)> {
    let mut stream = Inline {
        source,
        hasher: Hasher::new(Algorithm::Sha256),
        buffer: vec![0; INLINE_BUFFER_SIZE],
        position: 0,
        filled: 0,
        bytes: 0,
    };
    let value = consume(&mut stream)?;
    drain(&mut stream)?;
    Ok((value, Hashed { diff_id: stream.hasher.finish().into(), bytes: stream.bytes }))
}

fn run_threaded<R: Read + Send, T>(
    mut source: R,
    consume: impl FnOnce(&mut dyn BufRead) -> Result<T>,
) -> Result<(T, Hashed)> {
    let (give_back, free) = channel();
    for _ in 0..BUFFERS {
        // Cannot fail: the receiver is at hand.
        give_back.send(vec![0; BUFFER_SIZE]).unwrap_or_default();
    }
    thread::scope(|scope| {
        let (to_hasher, to_hash) = channel::<Arc<Chunk>>();
        let (to_writer, written) = channel();
        scope.spawn(move || {
            // Ends when the stream does, or when the writer has gone.
            while let Some(chunk) = fill(&mut source, &free, &give_back).transpose() {
                let chunk = chunk.map(Arc::new);
                if let Ok(chunk) = &chunk {
                    to_hasher.send(Arc::clone(chunk)).unwrap_or_default();
                }
                let failed = chunk.is_err();
                if to_writer.send(chunk).is_err() || failed {
                    break;
                }
            }
        });
        let hasher = scope.spawn(move || {
            let mut hasher = Hasher::new(Algorithm::Sha256);
            let mut bytes = 0;
            for chunk in to_hash {
                hasher.update(chunk.bytes());
                bytes += chunk.length as u64;
            }
            Hashed { diff_id: hasher.finish().into(), bytes }
        });
        let mut stream = Threaded { chunks: written, current: None, position: 0 };
        let value = consume(&mut stream)?;
        drain(&mut stream)?;
        drop(stream);
        let digest = hasher.join().map_err(|_| Error::Stream {
            form: "tar",
            source: io::Error::other("the hashing thread panicked"),
        })?;
        Ok((value, digest))
    })
}

/// Reads a buffer full. `None` at the end of the stream, and when nobody gives buffers back any more.
fn fill(
    source: &mut impl Read,
    free: &Receiver<Vec<u8>>,
    give_back: &Sender<Vec<u8>>,
) -> io::Result<Option<Chunk>> {
    let Ok(buffer) = free.recv() else { return Ok(None) };
    let mut chunk = Chunk { buffer, length: 0, give_back: give_back.clone() };
    chunk.length = read_full(source, &mut chunk.buffer)?;
    Ok((chunk.length > 0).then_some(chunk))
}

fn read_full(source: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match source.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// A buffer that goes back to be filled again when its last user is done with it.
struct Chunk {
    buffer: Vec<u8>,
    length: usize,
    give_back: Sender<Vec<u8>>,
}

impl Chunk {
    fn bytes(&self) -> &[u8] {
        &self.buffer[..self.length]
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        // Nobody fills it any more: then it is simply freed.
        self.give_back.send(std::mem::take(&mut self.buffer)).unwrap_or_default();
    }
}

/// The writer's end of the stages.
struct Threaded {
    chunks: Receiver<io::Result<Arc<Chunk>>>,
    current: Option<Arc<Chunk>>,
    position: usize,
}

impl BufRead for Threaded {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.current.as_ref().is_none_or(|chunk| self.position == chunk.length) {
            self.position = 0;
            // Given back before the next is waited for.
            self.current = None;
            self.current = self.chunks.recv().ok().transpose()?;
        }
        Ok(self.current.as_ref().map_or(&[], |chunk| &chunk.bytes()[self.position..]))
    }

    fn consume(&mut self, count: usize) {
        self.position += count;
    }
}

impl Read for Threaded {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        read_buffered(self, buffer)
    }
}

/// All stages on one thread.
struct Inline<R> {
    source: R,
    hasher: Hasher,
    buffer: Vec<u8>,
    position: usize,
    filled: usize,
    bytes: u64,
}

impl<R: Read> BufRead for Inline<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.position == self.filled {
            self.filled = 0;
            self.position = 0;
            self.filled = read_full(&mut self.source, &mut self.buffer)?;
            self.hasher.update(&self.buffer[..self.filled]);
            self.bytes += self.filled as u64;
        }
        Ok(&self.buffer[self.position..self.filled])
    }

    fn consume(&mut self, count: usize) {
        self.position += count;
    }
}

impl<R: Read> Read for Inline<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        read_buffered(self, buffer)
    }
}

fn read_buffered(reader: &mut impl BufRead, buffer: &mut [u8]) -> io::Result<usize> {
    let available = reader.fill_buf()?;
    let count = available.len().min(buffer.len());
    buffer[..count].copy_from_slice(&available[..count]);
    reader.consume(count);
    Ok(count)
}

/// The diff ID covers every byte, also what stands behind the end of the archive.
fn drain(reader: &mut dyn BufRead) -> Result<()> {
    loop {
        let count = reader.fill_buf().map_err(|source| Error::Stream { form: "tar", source })?.len();
        if count == 0 {
            return Ok(());
        }
        reader.consume(count);
    }
}

/// Counts what is taken from the source.
struct Counted<R> {
    source: R,
    count: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read(buffer)?;
        self.count.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}

/// Fails when too much has come out.
struct Limited<R: BufRead> {
    decoder: Decoder<R>,
    taken: Arc<AtomicU64>,
    given: u64,
    limits: Limits,
}

impl<R: BufRead> Read for Limited<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.decoder.read(buffer)?;
        self.given = self.given.saturating_add(count as u64);
        let Limits { output_bytes, ratio, ratio_from, .. } = self.limits;
        if self.given > output_bytes {
            return Err(io::Error::other(Excess { what: "bytes of uncompressed data", limit: output_bytes }));
        }
        if self.given > ratio_from && self.given / ratio.max(1) > self.taken.load(Ordering::Relaxed) {
            let what = "times as many bytes as it is compressed to";
            return Err(io::Error::other(Excess { what, limit: ratio }));
        }
        Ok(count)
    }
}

/// How a limit of the stream passes through the tar reader.
#[derive(Debug, thiserror::Error)]
#[error("more than {limit} {what}")]
struct Excess {
    what: &'static str,
    limit: u64,
}

impl Error {
    /// The same error, with the entry at which there was too much.
    pub(crate) fn at(self, path: &[u8]) -> Self {
        match self {
            Self::Limit { what, limit: most, .. } => return limit(path, what, most),
            Self::Refused { reason, .. } => return refused(path, reason),
            _ => {}
        }
        let (Self::Tar(layerstore_tar::Error::Io { source, .. }) | Self::Stream { source, .. }) = &self
        else {
            return self;
        };
        match source.get_ref().and_then(|inner| inner.downcast_ref::<Excess>()) {
            Some(excess) => limit(path, excess.what, excess.limit),
            None => self,
        }
    }
}

/// An error of the stream reaches the caller through the tar reader; this brings it back to the front.
fn name_cause(error: Error, compression: Compression) -> Error {
    let error = match error {
        Error::Tar(_) | Error::Stream { .. } => error.at(b""),
        named => named,
    };
    match error {
        Error::Tar(layerstore_tar::Error::Io { source, .. }) | Error::Stream { source, .. } => {
            Error::Stream { form: form(compression), source }
        }
        other => other,
    }
}

fn form(compression: Compression) -> &'static str {
    match compression {
        Compression::None => "tar",
        Compression::Gzip => "gzip",
        Compression::Zstd => "zstd",
    }
}
