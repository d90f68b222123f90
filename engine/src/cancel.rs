//! Giving an operation up.

use std::fmt;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use layerstore_store::{Claim, Key};

use crate::Layerstore;
use crate::error::{Error, Result};

/// Ends the operations of the [`Layerstore`] that it was given to, see [`Layerstore::with_cancel`]. Clones are one.
///
/// What is given up leaves the store as a failure does: nothing half-done, and a pull that is tried again goes on where it
/// was. It ends at the next piece of data or the next wait, not in a read that blocks, such as one from an empty pipe.
///
/// # Example
///
/// ```no_run
/// # fn main() -> layerstore::Result<()> {
/// use layerstore::{Cancel, Layerstore, LoadOptions, Source};
///
/// let store = Layerstore::open("/var/lib/layerstore".as_ref())?;
/// let cancel = Cancel::default();
/// let loading = store.with_cancel(&cancel);
/// std::thread::scope(|scope| {
///     scope.spawn(|| loading.load(Source::Path("app.tar".into()), &LoadOptions::default(), &|_| {}));
///     cancel.cancel();
/// });
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Default)]
pub struct Cancel {
    flag: Arc<AtomicBool>,
    parent: Option<Arc<Cancel>>,
}

impl Cancel {
    /// Ends what is under way, and what is begun later. It cannot be taken back.
    pub fn cancel(&self) {
        self.flag.store(true, Ordering::Release);
    }

    /// One that ends together with this one, or alone.
    #[must_use]
    pub fn child(&self) -> Self {
        Self { flag: Arc::default(), parent: Some(Arc::new(self.clone())) }
    }

    /// Whether it was cancelled.
    pub fn is_cancelled(&self) -> bool {
        self.flag.load(Ordering::Acquire) || self.parent.as_ref().is_some_and(|parent| parent.is_cancelled())
    }
}

impl fmt::Debug for Cancel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Cancel").field(&self.is_cancelled()).finish()
    }
}

/// How often it is asked whether another process is done with something.
const ASK_EVERY: Duration = Duration::from_millis(20);

impl Layerstore {
    /// The same store; its operations end with [`Error::Cancelled`] once `cancel` says so.
    #[must_use]
    pub fn with_cancel(&self, cancel: &Cancel) -> Self {
        Self { cancel: cancel.clone(), ..self.clone() }
    }

    pub(crate) fn check_cancelled(&self) -> Result<()> {
        if self.cancel.is_cancelled() { Err(Error::Cancelled) } else { Ok(()) }
    }

    /// Waits for a claim that another process may hold for hours.
    pub(crate) fn claim(&self, key: &Key) -> Result<Claim> {
        loop {
            self.check_cancelled()?;
            match self.store.try_claim(key)? {
                Some(claim) => return Ok(claim),
                None => thread::sleep(ASK_EVERY),
            }
        }
    }

    /// Lets `write` write to `out` until it is cancelled.
    pub(crate) fn writing<T>(
        &self,
        out: &mut dyn Write,
        write: impl FnOnce(&mut dyn Write) -> Result<T>,
    ) -> Result<T> {
        let result = write(&mut Cancellable { out, cancel: &self.cancel });
        // Whatever is made of it on the way, the refusal to write on has this cause.
        if result.is_err() { self.check_cancelled().and(result) } else { result }
    }
}

/// Writes until it is cancelled.
pub(crate) struct Cancellable<'a, W> {
    pub(crate) out: W,
    pub(crate) cancel: &'a Cancel,
}

impl<W: Write> Write for Cancellable<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.cancel.is_cancelled() {
            return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "cancelled"));
        }
        self.out.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use layerstore_testkit::image::{Image, Layout};
    use layerstore_testkit::layer::LayerBuilder;

    use super::*;
    use crate::{LoadOptions, Source};

    #[test]
    fn a_child_ends_with_its_parent_and_not_the_other_way_round() {
        let parent = Cancel::default();
        let (one, two) = (parent.child(), parent.child());
        one.cancel();
        assert!(one.is_cancelled() && !two.is_cancelled() && !parent.is_cancelled());
        parent.cancel();
        assert!(two.is_cancelled() && two.child().is_cancelled());
    }

    /// At each piece of news of a load, so that it is cut off at every point, and the store is as it was.
    #[test]
    fn a_cancelled_load_leaves_nothing() {
        let (dir, store) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let layers = [
            LayerBuilder::gzip().file("a", vec![7; 3 << 20]).finish(),
            LayerBuilder::gzip().file("b", "b").finish(),
        ];
        let path = dir.path().join("image.tar");
        std::fs::write(&path, Layout::of("localhost/a:1", &Image::new(layers)).archive()).unwrap();
        let engine = Layerstore::open(store.path()).unwrap();
        for news in 0.. {
            let cancel = Cancel::default();
            let seen = std::sync::atomic::AtomicU32::new(0);
            let count = |_| {
                if seen.fetch_add(1, Ordering::Relaxed) == news {
                    cancel.cancel();
                }
            };
            let options = LoadOptions::default();
            match engine.with_cancel(&cancel).load(Source::Path(path.clone()), &options, &count) {
                Err(error) => assert!(matches!(error, Error::Cancelled), "{error}"),
                Ok(_) => {
                    assert!(news > 2, "cancelled at least at some of the news");
                    break;
                }
            }
            assert!(engine.images().unwrap().is_empty());
            for place in ["overlay2", "blobs/sha256", "ingest", "trash"] {
                let left: Vec<_> = std::fs::read_dir(store.path().join(place)).unwrap().collect();
                assert!(left.is_empty(), "{place} after {news}: {left:?}");
            }
        }
        assert_eq!(engine.images().unwrap().len(), 1);
    }
}
