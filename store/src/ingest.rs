//! Receiving a blob: bytes go to a temporary file and a hasher, while others may read behind.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use layerstore_oci::{Algorithm, Digest, Hasher};
use rustix::fs::OFlags;

use crate::disk::Durable;
use crate::error::{Error, IoContext as _, Result};

/// A blob that is being received.
///
/// Dropped unfinished, it makes its readers fail; its file goes with the session.
#[derive(Debug)]
pub struct Ingest {
    durable: Durable,
    path: PathBuf,
    hasher: Hasher,
    written: u64,
    shared: Arc<Shared>,
    failed: bool,
    finished: bool,
    /// The file outlives the session.
    lasting: bool,
}

#[derive(Debug)]
struct Shared {
    file: File,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Clone, Copy)]
struct State {
    written: u64,
    end: End,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Open,
    Complete,
    Abandoned,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, state: State) {
        *self.state() = state;
        self.changed.notify_all();
    }
}

impl Ingest {
    pub(crate) fn create(durable: Durable, path: PathBuf, algorithm: Algorithm) -> Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            // Blobs are never changed again.
            .mode(0o444)
            .open(&path)
            .context("create", &path)?;
        let state = Mutex::new(State { written: 0, end: End::Open });
        Ok(Self {
            durable,
            path,
            hasher: Hasher::new(algorithm),
            written: 0,
            shared: Arc::new(Shared { file, state, changed: Condvar::new() }),
            failed: false,
            finished: false,
            lasting: false,
        })
    }

    /// Goes on where the file at `path` ends.
    pub(crate) fn resume(durable: Durable, path: PathBuf, digest: &Digest, size: u64) -> Result<Self> {
        let open = || {
            OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .custom_flags(i32::try_from(OFlags::NOFOLLOW.bits()).unwrap_or(0))
                .open(&path)
        };
        let mut file = match open() {
            // It was complete, and its session died before it was published.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                let writable = Permissions::from_mode(0o600);
                std::fs::set_permissions(&path, writable).and_then(|()| open())
            }
            other => other,
        }
        .context("open", &path)?;
        if file.metadata().context("examine", &path)?.len() > size {
            file.set_len(0).context("truncate", &path)?;
        }
        let mut hasher = Hasher::new(digest.algorithm());
        let mut buffer = vec![0; 256 << 10];
        let mut written = 0;
        loop {
            match file.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => {
                    hasher.update(&buffer[..count]);
                    written += count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error).context("read", &path),
            }
        }
        let state = Mutex::new(State { written, end: End::Open });
        Ok(Self {
            durable,
            path,
            hasher,
            written,
            shared: Arc::new(Shared { file, state, changed: Condvar::new() }),
            failed: false,
            finished: false,
            lasting: true,
        })
    }

    /// Appends `bytes`.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        if self.failed {
            // The file may hold a part of what was not counted.
            return Err(io::Error::other("an earlier write failed")).context("write", &self.path);
        }
        self.failed = true;
        self.durable.write(&self.shared.file, &self.path, bytes)?;
        self.failed = false;
        self.written += bytes.len() as u64;
        self.shared.set(State { written: self.written, end: End::Open });
        self.hasher.update(bytes);
        Ok(())
    }

    /// Bytes received so far.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// A reader from the first byte, which waits for bytes that are not there yet. It sees the end
    /// only when the blob is finished, and an error when it is given up.
    pub fn reader(&self) -> IngestReader {
        IngestReader { shared: Arc::clone(&self.shared), position: 0, known: 0 }
    }

    /// Ends the blob, and compares it with what it should be. It is complete, but neither durable
    /// nor part of the store yet.
    pub fn finish(mut self, expected: Option<(&Digest, u64)>) -> Result<Received> {
        // Refused after a failed write.
        self.write(&[])?;
        let digest = std::mem::replace(&mut self.hasher, Hasher::new(Algorithm::Sha256)).finish();
        if let Some((wanted, size)) = expected {
            let error = if self.written != size {
                let (digest, actual) = (wanted.clone(), self.written);
                Some(Error::SizeMismatch { digest, expected: size, actual })
            } else if *wanted != digest {
                Some(Error::DigestMismatch { expected: wanted.clone(), actual: digest.clone() })
            } else {
                None
            };
            if let Some(error) = error {
                if self.lasting {
                    // It would be wrong for the next one too.
                    std::fs::remove_file(&self.path).context("delete", &self.path)?;
                }
                return Err(error);
            }
        }
        if self.lasting {
            let read_only = Permissions::from_mode(0o444);
            self.shared.file.set_permissions(read_only).context("make read-only", &self.path)?;
        }
        self.finished = true;
        self.shared.set(State { written: self.written, end: End::Complete });
        Ok(Received { digest, size: self.written, path: self.path.clone(), shared: Arc::clone(&self.shared) })
    }
}

impl Drop for Ingest {
    fn drop(&mut self) {
        if !self.finished {
            if self.lasting && self.written == 0 {
                // Nothing that would be worth keeping.
                drop(std::fs::remove_file(&self.path));
            }
            self.shared.set(State { written: self.written, end: End::Abandoned });
        }
    }
}

/// A complete blob with a known digest, in the session's directory.
#[derive(Debug)]
pub struct Received {
    digest: Digest,
    size: u64,
    path: PathBuf,
    shared: Arc<Shared>,
}

impl Received {
    /// The digest of the bytes received.
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// How many bytes were received.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// A reader from the first byte.
    pub fn reader(&self) -> IngestReader {
        IngestReader { shared: Arc::clone(&self.shared), position: 0, known: 0 }
    }

    pub(crate) fn path(&self) -> &std::path::Path {
        &self.path
    }

    pub(crate) fn file(&self) -> &File {
        &self.shared.file
    }
}

/// Tells what becomes of a blob that is being received.
#[derive(Debug, Clone)]
pub struct Fate {
    shared: Arc<Shared>,
}

impl Fate {
    /// Whether it was given up: readers fail for this reason.
    pub fn is_given_up(&self) -> bool {
        self.shared.state().end == End::Abandoned
    }
}

/// Reads a blob while it is being received.
#[derive(Debug)]
pub struct IngestReader {
    shared: Arc<Shared>,
    position: u64,
    known: u64,
}

impl IngestReader {
    /// What becomes of the blob.
    pub fn fate(&self) -> Fate {
        Fate { shared: Arc::clone(&self.shared) }
    }
}

impl Read for IngestReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.position == self.known {
            let mut state = self.shared.state();
            while state.written == self.position && state.end == End::Open {
                state = self.shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            if state.end == End::Abandoned {
                return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the transfer was given up"));
            }
            self.known = state.written;
            if self.position == self.known {
                return Ok(0);
            }
        }
        let available = usize::try_from(self.known - self.position).unwrap_or(usize::MAX);
        let wanted = buffer.len().min(available);
        let count = self.shared.file.read_at(&mut buffer[..wanted], self.position)?;
        if count == 0 && wanted != 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file shrank"));
        }
        self.position += count as u64;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::SystemDisk;

    fn ingest(dir: &tempfile::TempDir) -> Ingest {
        let durable = Durable::new(Arc::new(SystemDisk), dir.path().to_owned()).unwrap();
        Ingest::create(durable, dir.path().join("blob"), Algorithm::Sha256).unwrap()
    }

    #[test]
    fn a_reader_follows_the_writer_to_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let mut ingest = ingest(&dir);
        let mut reader = ingest.reader();
        let follower = std::thread::spawn(move || {
            let mut all = Vec::new();
            reader.read_to_end(&mut all).map(|_| all)
        });
        for part in [b"one ".as_slice(), b"two ", b"three"] {
            ingest.write(part).unwrap();
        }
        let digest = Digest::sha256_of(b"one two three");
        let received = ingest.finish(Some((&digest, 13))).unwrap();
        assert_eq!(received.digest(), &digest);
        assert_eq!(follower.join().unwrap().unwrap(), b"one two three");
    }

    #[test]
    fn a_reader_fails_when_the_writer_gives_up() {
        let dir = tempfile::tempdir().unwrap();
        let mut ingest = ingest(&dir);
        ingest.write(b"half").unwrap();
        let mut reader = ingest.reader();
        drop(ingest);
        assert!(reader.read_to_end(&mut Vec::new()).is_err());
    }

    #[test]
    fn a_download_goes_on_where_it_was_interrupted() {
        let dir = tempfile::tempdir().unwrap();
        let digest = Digest::sha256_of(b"one two three");
        let resume = |digest: &Digest, size| {
            let durable = Durable::new(Arc::new(SystemDisk), dir.path().to_owned()).unwrap();
            Ingest::resume(durable, dir.path().join("partial"), digest, size).unwrap()
        };
        resume(&digest, 13).write(b"one ").unwrap();
        let mut second = resume(&digest, 13);
        assert_eq!(second.written(), 4);
        let mut reader = second.reader();
        second.write(b"two three").unwrap();
        let received = second.finish(Some((&digest, 13))).unwrap();
        assert_eq!(received.size(), 13);
        let mut all = Vec::new();
        reader.read_to_end(&mut all).unwrap();
        assert_eq!(all, b"one two three");
        // What is longer than it may be is begun anew, and wrong content is not kept.
        std::fs::remove_file(dir.path().join("partial")).unwrap();
        resume(&digest, 20).write(b"something much longer").unwrap();
        let mut third = resume(&digest, 13);
        assert_eq!(third.written(), 0);
        third.write(b"one two THREE").unwrap();
        assert!(matches!(third.finish(Some((&digest, 13))), Err(Error::DigestMismatch { .. })));
        assert_eq!(resume(&digest, 13).written(), 0);
    }

    #[test]
    fn wrong_bytes_and_wrong_lengths_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let wanted = Digest::sha256_of(b"right");
        let mut wrong = ingest(&dir);
        wrong.write(b"wrong").unwrap();
        assert!(matches!(wrong.finish(Some((&wanted, 5))), Err(Error::DigestMismatch { .. })));
        std::fs::remove_file(dir.path().join("blob")).unwrap();
        let mut short = ingest(&dir);
        short.write(b"righ").unwrap();
        assert!(matches!(short.finish(Some((&wanted, 5))), Err(Error::SizeMismatch { .. })));
    }
}
