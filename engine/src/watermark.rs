//! When a filesystem is too full.

use layerstore_gc::Goal;
use layerstore_store::Space;

use crate::Layerstore;
use crate::error::Result;

impl Layerstore {
    /// How large the filesystem is that the store is on, and how much of it is free.
    ///
    /// # Errors
    ///
    /// `Io` if the filesystem does not say.
    pub fn space(&self) -> Result<Space> {
        Ok(self.store.space()?)
    }

    /// What a collection has to free when at least `high` percent of the filesystem are in use: as much as makes it
    /// `low` percent. `None` if less is in use. These are the rules of the kubelet's image collection; in use is what is
    /// not available to ordinary users, so that what is reserved for root counts.
    ///
    /// # Errors
    ///
    /// As for [`Layerstore::space`].
    ///
    /// # Example
    ///
    /// ```no_run
    /// # fn main() -> layerstore::Result<()> {
    /// use layerstore::{Policy, Scope};
    /// let store = layerstore::Layerstore::open("/var/lib/layerstore".as_ref())?;
    /// let goal = store.watermark(85, 70)?;
    /// let scope = if goal.is_some() { Scope::Unused } else { Scope::Garbage };
    /// store.collect(&Policy { scope, goal, ..Policy::default() })?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn watermark(&self, high: u8, low: u8) -> Result<Option<Goal>> {
        Ok(goal(&self.space()?, high, low))
    }
}

fn goal(space: &Space, high: u8, low: u8) -> Option<Goal> {
    let (total, available) = (u128::from(space.total), u128::from(space.available));
    let used = total.saturating_sub(available);
    if total == 0 || used * 100 < total * u128::from(high) {
        return None;
    }
    let wanted = total * u128::from(100_u8.saturating_sub(low)) / 100;
    Some(Goal::Free(u64::try_from(wanted.saturating_sub(available)).unwrap_or(u64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_filesystem_is_emptied_to_the_lower_mark() {
        let goal = |available, high, low| {
            goal(&Space { filesystem: "ext4".to_owned(), total: 1000, available }, high, low)
        };
        assert_eq!(goal(151, 85, 70), None);
        assert_eq!(goal(150, 85, 70), Some(Goal::Free(150)));
        assert_eq!(goal(0, 85, 70), Some(Goal::Free(300)));
        assert_eq!(goal(0, 100, 100), Some(Goal::Free(0)));
        assert_eq!(goal(1, 100, 0), None);
        assert_eq!(goal(1000, 0, 0), Some(Goal::Free(0)));
        assert_eq!(goal(500, 40, 60), Some(Goal::Free(0)), "nothing to do is no goal below nothing");
    }
}
