//! How much something takes.

use std::iter::Sum;
use std::ops::{Add, AddAssign};

/// What something takes on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Size {
    /// Lengths of files, in bytes, holes included.
    pub apparent: u64,
    /// Bytes of the blocks in use, of directories as well: what `du` counts.
    pub allocated: u64,
    /// Files, directories and everything else.
    pub inodes: u64,
}

impl Add for Size {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            apparent: self.apparent.saturating_add(other.apparent),
            allocated: self.allocated.saturating_add(other.allocated),
            inodes: self.inodes.saturating_add(other.inodes),
        }
    }
}

impl AddAssign for Size {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Sum for Size {
    fn sum<I: Iterator<Item = Self>>(sizes: I) -> Self {
        sizes.fold(Self::default(), Add::add)
    }
}
