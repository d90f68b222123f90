//! What something takes on disk.

use std::iter::Sum;
use std::ops::{Add, AddAssign, Sub};

/// What something takes on disk. Sums end at the largest number: a few sparse files can be longer together than one can
/// say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Size {
    /// Lengths of all regular files, holes included, in bytes; a file with several names once.
    pub apparent: u64,
    /// Bytes of the blocks of everything, as `du` counts them: links and directories have some too, holes none.
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

/// What is left without a part of it; never less than nothing.
impl Sub for Size {
    type Output = Self;

    fn sub(self, part: Self) -> Self {
        Self {
            apparent: self.apparent.saturating_sub(part.apparent),
            allocated: self.allocated.saturating_sub(part.allocated),
            inodes: self.inodes.saturating_sub(part.inodes),
        }
    }
}

impl Sum for Size {
    fn sum<I: Iterator<Item = Self>>(sizes: I) -> Self {
        sizes.fold(Self::default(), Add::add)
    }
}

impl<'a> Sum<&'a Self> for Size {
    fn sum<I: Iterator<Item = &'a Self>>(sizes: I) -> Self {
        sizes.copied().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_neither_wrap_nor_go_below_nothing() {
        let large = Size { apparent: u64::MAX, allocated: 1, inodes: 1 };
        let sum: Size = [large, large].iter().sum();
        assert_eq!(sum, Size { apparent: u64::MAX, allocated: 2, inodes: 2 });
        assert_eq!(Size::default() - large, Size::default());
    }
}
