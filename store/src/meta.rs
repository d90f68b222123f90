//! Facts about the store as a whole.

use crate::db::Durability;
use crate::error::{DbContext as _, Result};
use crate::store::Store;

impl Store {
    /// The value of a fact that is settled once: `value` if nothing is known of it yet.
    pub fn settled_fact(&self, key: &str, value: &str) -> Result<String> {
        let action = "look up a fact";
        let known = |db: &rusqlite::Connection| -> Result<Option<String>> {
            use rusqlite::OptionalExtension as _;
            db.prepare_cached("SELECT value FROM meta WHERE key = ?1")
                .and_then(|mut statement| statement.query_row([key], |row| row.get(0)).optional())
                .db(action)
        };
        if let Some(known) = self.database().read(action, |db| known(db))? {
            return Ok(known);
        }
        self.database().write(Durability::Process, action, |tx| {
            tx.execute("INSERT OR IGNORE INTO meta (key, value) VALUES (?1, ?2)", (key, value)).db(action)?;
            Ok(known(tx)?.unwrap_or_else(|| value.to_owned()))
        })
    }
}
