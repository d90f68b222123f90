//! What a caller hears, and how it stops things.

use std::time::{Duration, Instant};

/// Something that a person who waits wants to know.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Notice {
    /// It is tried again.
    Retry {
        /// What failed, and why.
        reason: String,
        /// Until the next attempt.
        wait: Duration,
    },
    /// The next host is asked.
    NextHost {
        /// The one that did not help.
        host: String,
        /// Why.
        reason: String,
        /// The one that is asked now.
        next: String,
    },
}

/// Whoever waits for requests. All methods may be called from several threads.
pub trait Watch: Sync {
    /// Takes news.
    fn notice(&self, _notice: Notice) {}

    /// Whether there is no use in going on. Asked while nothing else is to be done.
    fn is_stopped(&self) -> bool {
        false
    }
}

/// Nobody.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unwatched;

impl Watch for Unwatched {}

/// Waits for `time` unless it is stopped before. Tells whether the time is up.
pub(crate) fn pause(watch: &dyn Watch, time: Duration) -> bool {
    const STEP: Duration = Duration::from_millis(50);
    let end = Instant::now() + time;
    loop {
        if watch.is_stopped() {
            return false;
        }
        match end.checked_duration_since(Instant::now()) {
            None | Some(Duration::ZERO) => return true,
            Some(left) => std::thread::sleep(left.min(STEP)),
        }
    }
}
