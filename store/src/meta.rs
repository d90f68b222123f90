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

    /// The settings whose key begins with `prefix`, without it.
    pub fn settings(&self, prefix: &str) -> Result<Vec<(String, String)>> {
        let action = "look up settings";
        self.database().read(action, |db| {
            let mut statement = db
                .prepare_cached("SELECT substr(key, length(?1) + 1), value FROM meta WHERE key GLOB ?1 || '*' ORDER BY key")
                .db(action)?;
            let rows = statement.query_map([prefix], |row| Ok((row.get(0)?, row.get(1)?))).db(action)?;
            rows.collect::<rusqlite::Result<_>>().db(action)
        })
    }

    /// Sets, or with no value takes back, settings under `prefix`: all of them, durably, or none.
    pub fn set_settings(&self, prefix: &str, settings: &[(&str, Option<String>)]) -> Result<()> {
        let action = "record settings";
        self.database().write(Durability::Power, action, |tx| {
            for (name, value) in settings {
                let key = format!("{prefix}{name}");
                match value {
                    Some(value) => {
                        tx.execute("INSERT OR REPLACE INTO meta (key, value) VALUES (?1, ?2)", (key, value))
                    }
                    None => tx.execute("DELETE FROM meta WHERE key = ?1", [key]),
                }
                .db(action)?;
            }
            Ok(())
        })
    }
}
