//! The bytes of a blob on their way out: counted, hashed, and held back at the end if they are not what they should be.

use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use layerstore_oci::{Digest, Hasher};
use reqwest::blocking::Body;

use crate::push::Outgoing;
use crate::watch::Watch;

/// How often the progress of an upload is told.
const TELL_EVERY: Duration = Duration::from_millis(100);
/// What is read at once of what is hashed without being sent.
const BUFFER: usize = 64 << 10;

/// Makes the bodies of one upload.
pub(crate) struct Source<'a> {
    blob: &'a Outgoing<'a>,
    state: Arc<State>,
}

struct State {
    /// How far the blob has been hashed in one go from its beginning.
    hashed: Mutex<(u64, Hasher)>,
    /// Why a body broke off, if it is not the network's fault.
    failure: Mutex<Option<io::Error>>,
    /// Up to where the blob has been sent.
    position: AtomicU64,
    stopped: AtomicBool,
}

impl<'a> Source<'a> {
    pub(crate) fn new(blob: &'a Outgoing<'a>) -> Self {
        let hashed = Mutex::new((0, Hasher::new(blob.digest.algorithm())));
        let (position, stopped) = (AtomicU64::new(0), AtomicBool::new(false));
        let state = State { hashed, failure: Mutex::default(), position, stopped };
        Self { blob, state: Arc::new(state) }
    }

    /// `length` bytes from `offset`. The blob's last bytes are sent only if all of it has the right digest; for that,
    /// what comes before `offset` is read again where it has to be.
    pub(crate) fn body(&self, offset: u64, length: u64) -> io::Result<Body> {
        let (mut from, mut hasher) = self.state.hashed.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if from > offset {
            (from, hasher) = (0, Hasher::new(self.blob.digest.algorithm()));
        }
        let mut inner = (self.blob.open)(from)?;
        hash(&mut inner, offset - from, &mut hasher)?;
        self.state.position.store(offset, Ordering::Relaxed);
        let reader = Reader {
            inner,
            hasher,
            digest: self.blob.digest.clone(),
            size: self.blob.size,
            position: offset,
            end: offset + length,
            state: Arc::clone(&self.state),
        };
        Ok(Body::sized(reader, length))
    }

    /// Why the last body broke off, if that was its own doing.
    pub(crate) fn failure(&self) -> Option<io::Error> {
        self.state.failure.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Whether the body that was being sent was stopped.
    pub(crate) fn is_stopped(&self) -> bool {
        self.state.stopped.load(Ordering::Acquire)
    }

    /// Does `work`; meanwhile tells every now and then what has been sent, and stops that when `watch` says so.
    pub(crate) fn telling<T>(
        &self,
        watch: &dyn Watch,
        tell: &(dyn Fn(u64) + Sync),
        work: impl FnOnce() -> T,
    ) -> T {
        let done = AtomicBool::new(false);
        let state = &*self.state;
        thread::scope(|scope| {
            let teller = scope.spawn(|| {
                let mut told = 0;
                while !done.load(Ordering::Acquire) {
                    thread::park_timeout(TELL_EVERY);
                    if watch.is_stopped() {
                        state.stopped.store(true, Ordering::Release);
                    }
                    let position = state.position.load(Ordering::Relaxed);
                    if position != told {
                        told = position;
                        tell(position);
                    }
                }
            });
            // Also if `work` panics: the scope waits for the teller.
            let _end = End { done: &done, teller: teller.thread() };
            work()
        })
    }
}

struct End<'a> {
    done: &'a AtomicBool,
    teller: &'a thread::Thread,
}

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.done.store(true, Ordering::Release);
        self.teller.unpark();
    }
}

fn hash(inner: &mut dyn Read, mut count: u64, hasher: &mut Hasher) -> io::Result<()> {
    if count == 0 {
        return Ok(());
    }
    let mut buffer = vec![0; BUFFER];
    while count > 0 {
        let most = buffer.len().min(usize::try_from(count).unwrap_or(usize::MAX));
        match inner.read(&mut buffer[..most]) {
            Ok(0) => {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it is shorter than it should be"));
            }
            Ok(read) => {
                hasher.update(&buffer[..read]);
                count -= read as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// One body. It belongs to the client that sends it and must not borrow.
struct Reader {
    inner: Box<dyn Read + Send>,
    hasher: Hasher,
    digest: Digest,
    size: u64,
    position: u64,
    end: u64,
    state: Arc<State>,
}

impl Reader {
    fn read_some(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end - self.position).unwrap_or(usize::MAX);
        let most = buffer.len().min(left);
        if most == 0 {
            return Ok(0);
        }
        let count = loop {
            match self.inner.read(&mut buffer[..most]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                done => break done?,
            }
        };
        if count == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it is shorter than it should be"));
        }
        self.hasher.update(&buffer[..count]);
        self.position += count as u64;
        // Before the last bytes go out: without them the registry takes nothing.
        if self.position == self.size && self.hasher.clone().finish() != self.digest {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "its content is not what its digest says",
            ));
        }
        if self.position == self.end {
            let hashed = (self.position, self.hasher.clone());
            *self.state.hashed.lock().unwrap_or_else(PoisonError::into_inner) = hashed;
        }
        self.state.position.store(self.position, Ordering::Relaxed);
        Ok(count)
    }
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.state.stopped.load(Ordering::Acquire) {
            return Err(io::Error::other("stopped"));
        }
        self.read_some(buffer).map_err(|error| {
            let told = io::Error::new(error.kind(), "the source failed");
            *self.state.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
            told
        })
    }
}
