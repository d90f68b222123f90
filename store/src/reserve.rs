//! Room that is kept for when the disk is full.
//!
//! SQLite needs a little space to do anything, even to read: the file of its index of the log is made anew by the first
//! process. Without it nobody could unmount or remove what has filled the disk. So a store keeps a file that holds some, and
//! gives it up when there is nothing else.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::OpenOptionsExt as _;

use rustix::fs::{FallocateFlags, fallocate, statvfs};

use crate::layout::Layout;

/// What is kept: enough for the index of the log, and for some transactions.
const RESERVE: u64 = 512 << 10;
/// The index of the log, with as much again for what is done then.
const INDEX: u64 = 64 << 10;
/// From so much free space on nobody misses it.
const PLENTY: u64 = 8 << 20;

/// Makes the reserve if it is not there and there is plenty of space. Whatever fails here shows elsewhere.
pub(crate) fn keep(layout: &Layout) {
    let path = layout.reserve();
    if path.exists() {
        return;
    }
    if is_plenty(layout) {
        make(layout);
    }
}

fn make(layout: &Layout) {
    let path = layout.reserve();
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
    if let Ok(file) = made
        && fallocate(&file, FallocateFlags::empty(), 0, RESERVE).is_err()
    {
        // A filesystem that cannot, or that is full by now.
        fs::remove_file(&path).unwrap_or_default();
    }
}

/// Whether there is so much free space that nobody misses a little.
pub(crate) fn is_plenty(layout: &Layout) -> bool {
    statvfs(layout.root()).is_ok_and(|space| space.f_bavail.saturating_mul(space.f_frsize) >= PLENTY)
}

/// Takes the space back that was given up, if it is still there: what looks at a full disk, again and again perhaps, leaves it
/// to what clears it.
pub(crate) fn take_back(layout: &Layout) {
    let free = statvfs(layout.root()).map_or(0, |space| space.f_bavail.saturating_mul(space.f_frsize));
    if free >= RESERVE + INDEX {
        make(layout);
    }
}

/// Gives the reserve up for what has failed. Tells whether it was there, so that trying again makes sense.
pub(crate) fn give_up(layout: &Layout) -> bool {
    let path = layout.reserve();
    let was_there = fs::remove_file(&path).is_ok();
    if was_there {
        tracing::info!(path = %path.display(), "the disk is full: the space that was kept for this is given up");
    }
    was_there
}
