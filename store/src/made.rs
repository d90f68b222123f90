//! When objects were made.

use rusqlite::OptionalExtension as _;

use crate::clock::UnixSeconds;
use crate::error::{DbContext as _, Result};
use crate::graph::Object;
use crate::store::Store;

impl Store {
    /// When an object got its row and the media type under which it came; `None` where it has no row.
    pub fn made(&self, object: &Object) -> Result<Option<(UnixSeconds, Option<String>)>> {
        let action = "look up an object";
        self.database().read(action, |db| {
            let row = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
            match object {
                Object::Blob(digest) => db
                    .prepare_cached("SELECT created_at, media_type FROM blob WHERE digest = ?1")
                    .and_then(|mut query| query.query_row([digest.to_string()], row).optional()),
                Object::Tree(id) => db
                    .prepare_cached("SELECT created_at, NULL FROM tree WHERE id = ?1")
                    .and_then(|mut query| query.query_row([id.as_str()], row).optional()),
                Object::Snapshot { owner, key } => db
                    .prepare_cached("SELECT created_at, NULL FROM snapshot WHERE owner = ?1 AND key = ?2")
                    .and_then(|mut query| query.query_row([owner, key], row).optional()),
            }
            .db(action)
        })
    }
}
