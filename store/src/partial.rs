//! Downloads that were interrupted and may be continued.

use std::fs;
use std::io;

use layerstore_oci::{Algorithm, Digest};

use crate::clock::UnixSeconds;
use crate::error::{DbContext as _, IoContext as _, Result};
use crate::lock::Key;
use crate::recover::entries;
use crate::store::Store;

/// The beginning of a blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partial {
    /// The blob that it will be.
    pub digest: Digest,
    /// Bytes that are there.
    pub bytes: u64,
    /// When the last of them came.
    pub modified: UnixSeconds,
}

impl Store {
    /// How many bytes of a blob an interrupted download left.
    pub fn partial_size(&self, digest: &Digest) -> u64 {
        fs::symlink_metadata(self.layout().partial_blob(digest)).map_or(0, |metadata| metadata.len())
    }

    /// Downloads under way and interrupted ones.
    pub fn partials(&self) -> Result<Vec<Partial>> {
        let mut partials = Vec::new();
        for path in entries(&self.layout().partial())? {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let Some(digest) = parse_name(name) else { continue };
            let metadata = match fs::symlink_metadata(&path) {
                Ok(metadata) => metadata,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error).context("examine", &path),
            };
            let modified = std::os::unix::fs::MetadataExt::mtime(&metadata);
            partials.push(Partial { digest, bytes: metadata.len(), modified });
        }
        Ok(partials)
    }

    /// Throws an interrupted download away. One under way stays, then this returns false.
    pub fn discard_partial(&self, digest: &Digest) -> Result<bool> {
        let Some(_claim) = self.try_claim(&Key::Blob(digest.clone()))? else { return Ok(false) };
        self.throw_away(&self.layout().partial_blob(digest))?;
        Ok(true)
    }

    /// The leases of interrupted pulls.
    pub(crate) fn lasting_leases(&self) -> Result<Vec<String>> {
        let action = "list lasting leases";
        self.database().read(action, |db| {
            let mut statement =
                db.prepare_cached("SELECT id FROM lease WHERE expires_at IS NOT NULL").db(action)?;
            let ids = statement.query_map([], |row| row.get(0)).db(action)?;
            ids.collect::<rusqlite::Result<_>>().db(action)
        })
    }

    /// Ends the leases of interrupted pulls before their time.
    pub fn forget_lasting_leases(&self) -> Result<()> {
        let action = "forget lasting leases";
        self.database().write(crate::db::Durability::Process, action, |tx| {
            tx.execute("DELETE FROM lease WHERE expires_at IS NOT NULL", []).db(action)?;
            Ok(())
        })
    }
}

pub(crate) fn parse_name(name: &str) -> Option<Digest> {
    let (algorithm, hex) = name.split_once('-')?;
    let algorithm = [Algorithm::Sha256, Algorithm::Sha512].into_iter().find(|a| a.as_str() == algorithm)?;
    Digest::from_hex(algorithm, hex).ok()
}
