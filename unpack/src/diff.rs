//! The way back: from a directory that overlayfs wrote into to a layer.
//!
//! [`diff`] reads the writable upper directory of an overlay mount and writes the layer that says the same:
//! unpacked above the same layers it shows the same files. Whiteouts and opaque directories take the form of
//! the OCI image spec; overlayfs's own attributes stay behind.
//!
//! The directory belongs to a container, which may be hostile and may still run. So nothing is followed,
//! nothing but regular files and directories is opened, a directory of any depth is walked with one
//! descriptor, and what changes meanwhile is an error. What is kept in memory depends on the names in the
//! tree, never on the sizes of files, and is limited.
//!
//! The same tree gives the same bytes. Entries come in the order of their names' bytes, a directory before
//! what is in it; only what the layer says counts, not inode numbers, link counts or times of access. One
//! thing is the filesystem's: where the holes of a sparse file are, in steps of its block size.

mod compare;
mod content;
mod entries;
mod error;
mod flat;
mod links;
mod node;
mod usage;
mod write;
mod xattrs;

use std::io::Write;
use std::path::Path;

pub use compare::Comparer;
pub use error::DiffError;
pub use flat::FlatArchive;
pub use usage::usage;
pub(crate) use xattrs::LOCAL;

use crate::options::{Limits, OverlayXattr};

/// How many skipped sockets are named in [`Diffed::skipped`].
const NAMED: usize = 32;

/// What to do with holes in files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holes {
    /// Keep them, as sparse entries in the form PAX 1.0. Not all tools read those.
    Keep,
    /// Write zeros. "Sparse files SHOULD NOT be used" in layers, says the OCI image spec.
    Fill,
}

/// How to make a layer.
#[derive(Debug, Clone, Copy)]
pub struct DiffOptions {
    /// Which attributes overlayfs kept its marks in.
    pub overlay: OverlayXattr,
    /// What becomes of holes.
    pub holes: Holes,
    /// The newest time that the layer has: what was changed later counts as changed then. In seconds since 1970. So
    /// the same content made at different times gives the same layer, see
    /// <https://reproducible-builds.org/specs/source-date-epoch/>. Without it times are as they are.
    pub newest: Option<i64>,
    /// How large the layer may become, so that who reads it with the same limits takes it: paths, links and
    /// attributes that [`Limits::tar`] does not allow are refused, holes that do not fit into a sparse map are
    /// filled. `memory` counts something else than for unpacking: the names that are still to do in the
    /// directories on the way, and the first names of files of which other names are still to come.
    pub limits: Limits,
}

/// What a layer that was made contains.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Diffed {
    /// Entries of the archive, the root and whiteouts included.
    pub entries: u64,
    /// Length of the archive in bytes.
    pub bytes: u64,
    /// Sockets, which no archive can hold. In a directory that layers below have, too, the layer says that
    /// what they may have of the same name is gone.
    pub sockets: u64,
    /// Paths of the first 32 of them.
    pub skipped: Vec<Vec<u8>>,
}

/// Writes the layer that the upper directory `upper` amounts to, uncompressed, to `out`, and returns that.
///
/// The upper directory should be at rest: a file that changes while it is read is an error, but what changes
/// in between belongs to no point in time. Small pieces are written, so `out` should be buffered. After an
/// error it holds an incomplete archive.
pub fn diff<W: Write>(upper: &Path, out: W, options: &DiffOptions) -> Result<(Diffed, W), DiffError> {
    write::Differ::new(out, options).run(upper)
}

impl Diffed {
    fn skip(&mut self, path: &[u8]) {
        self.sockets += 1;
        if self.skipped.len() < NAMED {
            self.skipped.push(path.to_vec());
        }
    }
}
