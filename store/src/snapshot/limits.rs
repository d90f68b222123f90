//! Limits on what is written to a snapshot.

use rusqlite::OptionalExtension as _;

use super::{no_snapshot, required};
use crate::error::{DbContext as _, Result};
use crate::layout::TreeId;
use crate::overlay::Upper;
use crate::quota::{self, Quota};
use crate::store::Store;

impl Store {
    /// Whether the store's filesystem can limit what is written to a snapshot; the error says what is missing.
    pub fn check_quota_support(&self) -> Result<()> {
        quota::quota_support(&self.layout().overlay2())
    }

    /// Puts the limits of a snapshot in force, if it has any.
    pub fn limit_snapshot(&self, owner: &str, key: &str) -> Result<()> {
        let action = "look up the project of a snapshot";
        let (settings, found) = self.database().read(action, |db| {
            let settings = required(db, owner, key)?.settings;
            let found: Option<(Option<u32>, Option<String>)> = db
                .prepare_cached("SELECT project, tree FROM snapshot WHERE owner = ?1 AND key = ?2")
                .and_then(|mut query| {
                    query.query_row((owner, key), |row| Ok((row.get(0)?, row.get(1)?))).optional()
                })
                .db(action)?;
            Ok((settings, found.ok_or_else(|| no_snapshot(key))?))
        })?;
        let (Some(project), Some(tree)) = found else { return Ok(()) };
        let tree: TreeId = tree.parse()?;
        let quota = Quota { bytes: settings.quota_bytes, inodes: settings.quota_inodes };
        quota::set_quota(&Upper { tree: self.layout().tree(&tree) }, project, &quota)
    }

    /// Takes the limits of what is no snapshot any more, or none that is written to, back.
    pub(super) fn clear_limits(&self, project: Option<u32>) {
        let Some(project) = project else { return };
        if let Err(error) = quota::clear_quota(&self.layout().overlay2(), project) {
            tracing::warn!(%error, project, "the limits of a project that nothing counts for any more stay");
        }
    }
}
