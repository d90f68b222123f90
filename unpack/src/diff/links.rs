//! Files with several names.

use std::collections::HashMap;

use rustix::fs::Stat;

use super::content::same;
use super::error::{DiffError, changed};
use super::node::{Identity, identity};

#[derive(Debug)]
struct First {
    path: Vec<u8>,
    stat: Stat,
    /// Names that were not seen yet. Some may be outside of the tree.
    left: u64,
}

/// The first name of each file that has more.
#[derive(Debug, Default)]
pub(super) struct Links(HashMap<Identity, First>);

/// What a name is to its file.
pub(super) enum Name {
    /// The only one, or the first.
    First,
    /// Another one.
    Further {
        /// The path of the first.
        first: Vec<u8>,
        /// Whether more may come. If not, the first is forgotten.
        more: bool,
    },
}

impl Links {
    /// Judges the name `path` of what is not a directory.
    pub(super) fn name(&mut self, path: &[u8], stat: &Stat) -> Result<Name, DiffError> {
        let Some(first) = self.0.get_mut(&identity(stat)) else {
            return Ok(Name::First);
        };
        // Or the inode's number has another file by now.
        if !same(&first.stat, stat) {
            return Err(changed(path));
        }
        first.left = first.left.saturating_sub(1);
        if first.left > 0 {
            return Ok(Name::Further { first: first.path.clone(), more: true });
        }
        let first = std::mem::take(&mut first.path);
        self.0.remove(&identity(stat));
        Ok(Name::Further { first, more: false })
    }

    /// Remembers the first name once its file is in the layer; true if that took memory.
    pub(super) fn remember(&mut self, path: &[u8], stat: &Stat) -> bool {
        // `st_nlink` is not a `u64` everywhere.
        #[allow(clippy::useless_conversion, reason = "its type differs between architectures")]
        let names = u64::from(stat.st_nlink);
        let several = names > 1;
        if several {
            self.0.insert(identity(stat), First { path: path.to_vec(), stat: *stat, left: names - 1 });
        }
        several
    }
}
