//! A reader that trusts nothing until the last byte: size and digest are checked as data streams.

use std::io::{self, Read};
use std::sync::Arc;

use crate::{Digest, ErrorKind, Hasher};

/// Why bytes are not the blob they were said to be.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// The stream ended early.
    #[error("{digest} ends after {actual} of {expected} bytes")]
    TooShort {
        /// The digest expected.
        digest: Digest,
        /// The size expected, in bytes.
        expected: u64,
        /// The bytes there were.
        actual: u64,
    },
    /// The stream goes on past its size.
    #[error("{digest} has more than the expected {expected} bytes")]
    TooLong {
        /// The digest expected.
        digest: Digest,
        /// The size expected, in bytes.
        expected: u64,
    },
    /// The size is right and the content is not.
    #[error("content does not match its digest: expected {expected}, got {actual}")]
    Digest {
        /// The digest expected.
        expected: Digest,
        /// The digest of what was read.
        actual: Digest,
    },
    /// The stream could not be read to its end.
    #[error("cannot read {digest}")]
    Read {
        /// The digest expected.
        digest: Digest,
        /// The failure of the inner reader.
        source: Arc<io::Error>,
    },
}

impl VerifyError {
    /// The class of this error.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Read { source, .. } => ErrorKind::of_io(source),
            _ => ErrorKind::Corrupt,
        }
    }
}

impl From<VerifyError> for io::Error {
    fn from(error: VerifyError) -> Self {
        Self::new(io::ErrorKind::InvalidData, error)
    }
}

#[derive(Debug)]
enum State {
    Reading(Hasher),
    Verified,
    Failed(VerifyError),
}

/// Hashes what is read through it and never passes on more than the expected size.
///
/// End of file (`Ok(0)` for a non-empty buffer) is reported only after size and digest matched; a
/// mismatch is an [`io::Error`] that carries a [`VerifyError`], again on every later read. Bytes
/// handed out before that are not verified: only end of file or [`VerifiedReader::finish`] is.
#[derive(Debug)]
pub struct VerifiedReader<R> {
    inner: R,
    digest: Digest,
    size: u64,
    read: u64,
    state: State,
}

impl<R: Read> VerifiedReader<R> {
    /// Reads from `inner` what should be `size` bytes with this `digest`.
    pub fn new(inner: R, digest: Digest, size: u64) -> Self {
        let state = State::Reading(Hasher::new(digest.algorithm()));
        Self { inner, digest, size, read: 0, state }
    }

    /// Bytes handed out so far.
    pub fn bytes_read(&self) -> u64 {
        self.read
    }

    /// Reads to the end, checks size and digest, and gives the inner reader back.
    ///
    /// At most one byte more than the expected size is taken from the inner reader.
    pub fn finish(mut self) -> Result<R, VerifyError> {
        let mut buffer = [0; 8192];
        loop {
            match self.read(&mut buffer) {
                Ok(0) => return Ok(self.inner),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    return Err(match self.state {
                        State::Failed(error) => error,
                        _ => VerifyError::Read { digest: self.digest, source: Arc::new(error) },
                    });
                }
            }
        }
    }

    fn fail(&mut self, error: VerifyError) -> io::Error {
        self.state = State::Failed(error.clone());
        error.into()
    }

    /// The inner reader is at its end, after `self.read` bytes.
    fn end(&mut self) -> io::Result<usize> {
        let State::Reading(hasher) = &self.state else { return Ok(0) };
        if self.read < self.size {
            let error =
                VerifyError::TooShort { digest: self.digest.clone(), expected: self.size, actual: self.read };
            return Err(self.fail(error));
        }
        let actual = hasher.clone().finish();
        if actual != self.digest {
            let error = VerifyError::Digest { expected: self.digest.clone(), actual };
            return Err(self.fail(error));
        }
        self.state = State::Verified;
        Ok(0)
    }
}

impl<R: Read> Read for VerifiedReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let hasher = match &mut self.state {
            State::Reading(hasher) => hasher,
            State::Verified => return Ok(0),
            State::Failed(error) => return Err(error.clone().into()),
        };
        if buffer.is_empty() {
            return Ok(0);
        }
        let left = self.size - self.read;
        if left == 0 {
            if self.inner.read(&mut [0])? == 0 {
                return self.end();
            }
            let error = VerifyError::TooLong { digest: self.digest.clone(), expected: self.size };
            return Err(self.fail(error));
        }
        let limit = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
        let count = self.inner.read(&mut buffer[..limit])?;
        if count == 0 {
            return self.end();
        }
        hasher.update(&buffer[..count]);
        self.read += count as u64;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATA: &[u8] = b"the quick brown fox";

    fn reader(data: &'static [u8], size: u64) -> VerifiedReader<&'static [u8]> {
        VerifiedReader::new(data, Digest::sha256_of(DATA), size)
    }

    #[test]
    fn the_right_bytes_pass() {
        let mut reader = reader(DATA, DATA.len() as u64);
        let mut read = Vec::new();
        reader.read_to_end(&mut read).unwrap();
        assert_eq!(read, DATA);
        assert!(reader.finish().is_ok());
    }

    #[test]
    fn finish_reads_what_is_left() {
        let mut reader = reader(DATA, DATA.len() as u64);
        let mut some = [0; 4];
        reader.read_exact(&mut some).unwrap();
        assert!(reader.finish().is_ok());
    }

    #[test]
    fn a_reader_that_took_every_byte_is_not_yet_verified() {
        let mut reader = reader(b"THE quick brown fox", DATA.len() as u64);
        let mut all = [0; DATA.len()];
        reader.read_exact(&mut all).unwrap();
        assert!(matches!(reader.finish(), Err(VerifyError::Digest { .. })));
    }

    #[test]
    fn excess_is_never_handed_out() {
        let mut reader = reader(DATA, 4);
        let mut read = Vec::new();
        let error = reader.read_to_end(&mut read).unwrap_err();
        assert_eq!(read, b"the ");
        assert_eq!(ErrorKind::of_io(&error), ErrorKind::Corrupt);
        assert!(reader.read(&mut [0]).is_err(), "a failure must not turn into an end of file");
        assert!(matches!(reader.finish(), Err(VerifyError::TooLong { expected: 4, .. })));
    }

    #[test]
    fn a_short_stream_is_named() {
        let error = reader(&DATA[..7], DATA.len() as u64).finish().unwrap_err();
        assert!(matches!(error, VerifyError::TooShort { expected: 19, actual: 7, .. }), "{error}");
    }

    #[test]
    fn nothing_is_a_blob_too() {
        assert!(VerifiedReader::new(io::empty(), Digest::sha256_of(b""), 0).finish().is_ok());
        assert!(VerifiedReader::new(io::empty(), Digest::sha256_of(b"x"), 0).finish().is_err());
        assert!(VerifiedReader::new(DATA, Digest::sha256_of(b""), 0).finish().is_err());
    }

    #[test]
    fn errors_of_the_inner_reader_keep_their_kind() {
        #[derive(Debug)]
        struct Full;
        impl Read for Full {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::from_raw_os_error(28))
            }
        }
        let error = VerifiedReader::new(Full, Digest::sha256_of(b"x"), 1).finish().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NoSpace);
    }
}
