//! Which snapshots anybody has mounted, whoever mounted them.

use std::collections::{BTreeMap, HashMap};

use crate::error::{DbContext as _, Result};
use crate::layout::TreeId;
use crate::store::Store;
use crate::tables::Tables;

impl Store {
    /// The snapshots of an owner whose writable tree somebody has mounted, in whatever mount namespace, and who that is, in
    /// words. What this namespace has mounted through the store is among them.
    ///
    /// The mount tables are read once, and not at all if no snapshot was ever mounted. What begins or ends meanwhile may be
    /// missing or too much: who is to delete something looks at it once more.
    pub fn snapshots_in_use(&self, owner: &str) -> Result<BTreeMap<String, String>> {
        let action = "look for snapshots in use";
        let mounted_once = self.database().read(action, |db| {
            let query = "SELECT tree, key FROM snapshot WHERE owner = ?1 AND used AND kind = 'active' AND tree IS NOT NULL";
            let mut query = db.prepare_cached(query).db(action)?;
            let rows = query
                .query_map([owner], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)))
                .db(action)?;
            rows.map(|row| {
                let (tree, key) = row.db(action)?;
                Ok((tree.parse::<TreeId>()?, key))
            })
            .collect::<Result<HashMap<TreeId, String>>>()
        })?;
        if mounted_once.is_empty() {
            return Ok(BTreeMap::new());
        }
        let namespace = self.namespace();
        let users = Tables::read().users(|tree| mounted_once.contains_key(tree));
        let named = users.into_iter().filter_map(|(tree, user)| {
            let key = mounted_once.get(&tree)?;
            Some((key.clone(), user.describe(namespace)))
        });
        Ok(named.collect())
    }
}
