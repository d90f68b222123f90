//! How many layers are under way at the same time.

use std::sync::{Arc, Condvar, Mutex, PoisonError};

use rustix::process::{Resource, getrlimit};

/// Limits how many layers are between the feeder and the publisher: each holds open files.
#[derive(Debug, Default)]
pub(super) struct Gate {
    inside: Mutex<usize>,
    left: Condvar,
}

impl Gate {
    /// Waits for a place. Everybody inside leaves without waiting for the feeder.
    pub(super) fn enter(self: &Arc<Self>, limit: usize) -> Slot {
        let mut inside = self.inside.lock().unwrap_or_else(PoisonError::into_inner);
        while *inside >= limit {
            inside = self.left.wait(inside).unwrap_or_else(PoisonError::into_inner);
        }
        *inside += 1;
        Slot(Arc::clone(self))
    }
}

/// A layer's place, left when dropped.
#[derive(Debug)]
pub(super) struct Slot(Arc<Gate>);

impl Drop for Slot {
    fn drop(&mut self) {
        *self.0.inside.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        self.0.left.notify_one();
    }
}

/// Open files that a layer may need: its blob and two claims, and some while it is unpacked.
const FILES_PER_LAYER: u64 = 8;

/// How many layers may be under way with the files that this process may open.
pub(super) fn most_layers() -> usize {
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    usize::try_from(files / FILES_PER_LAYER).unwrap_or(usize::MAX).clamp(4, 128)
}
