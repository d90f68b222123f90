//! Figures about the whole store.

use rustix::fs::statvfs;

use crate::error::{DbContext as _, IoContext as _, Result};
use crate::store::Store;

/// How much there is of what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// Blobs and their bytes.
    pub blobs: (u64, u64),
    /// Trees and the bytes of their blocks.
    pub trees: (u64, u64),
}

/// The filesystem that the store is on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Space {
    /// Its type as in `/proc/self/mountinfo`, or `unknown`.
    pub filesystem: String,
    /// Bytes that it has.
    pub total: u64,
    /// Bytes that this user may still use.
    pub available: u64,
}

impl Store {
    /// Counts blobs and trees.
    pub fn totals(&self) -> Result<Totals> {
        let action = "count blobs and trees";
        self.database().read(action, |db| {
            let count = |query: &str| {
                db.query_row(query, [], |row| Ok((row.get::<_, u64>(0)?, row.get::<_, u64>(1)?))).db(action)
            };
            Ok(Totals {
                blobs: count("SELECT count(*), coalesce(sum(size), 0) FROM blob")?,
                trees: count("SELECT count(*), coalesce(sum(allocated), 0) FROM tree")?,
            })
        })
    }

    /// Asks the filesystem.
    pub fn space(&self) -> Result<Space> {
        let root = self.layout().root();
        let stat = statvfs(root).context("ask the filesystem of", root)?;
        let available = stat.f_bavail.saturating_mul(stat.f_frsize);
        let total = stat.f_blocks.saturating_mul(stat.f_frsize);
        Ok(Space { filesystem: filesystem(root).unwrap_or_else(|| "unknown".to_owned()), total, available })
    }
}

/// The type of the filesystem with the device number of `path`. Fields as in proc(5): the third is the
/// device, the one behind `-` the type.
fn filesystem(path: &std::path::Path) -> Option<String> {
    let device = rustix::fs::stat(path).ok()?.st_dev;
    let number = format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device));
    let table = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
    let line = table.lines().find(|line| line.split(' ').nth(2) == Some(&number))?;
    line.split_once(" - ")?.1.split(' ').next().map(str::to_owned)
}
