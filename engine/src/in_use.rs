//! Which containers anybody uses.

use std::collections::BTreeMap;

use layerstore_store::LOCAL;

use crate::Layerstore;
use crate::error::Result;

impl Layerstore {
    /// The containers whose files somebody has mounted, be it in another mount namespace as a runtime does, by ID, and who
    /// that is, in words: `process 7 (nginx)`, `a mount at /mnt`. Those are not removed without force.
    ///
    /// # Errors
    ///
    /// Only those of the store itself.
    pub fn containers_in_use(&self) -> Result<BTreeMap<String, String>> {
        Ok(self.store.snapshots_in_use(LOCAL)?)
    }
}
