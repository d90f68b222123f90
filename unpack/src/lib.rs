//! Unpacks a container image layer into a directory in overlay form, and makes a layer of such a directory.
//! Knows nothing of the store.
//!
//! A layer is a tar stream, compressed or not, that a stranger made. [`unpack`] decompresses it, hashes
//! all of it and creates its files below one directory and nowhere else, in one pass and bounded
//! memory. The result depends on the layer alone, not on what is below it: whiteouts become overlayfs's
//! own, and what only the layers below could tell is reported ([`Unpacked::implied`]).
//!
//! [`diff`](fn@diff) is the way back: from the upper directory of an overlay mount, which a container filled, to a
//! layer that says the same, always in the same bytes; [`encode`](fn@encode) compresses it, with the same promise.
//! [`FlatArchive`] takes files one by one, of a tree that is merged from several, and [`Comparer`] says whether two are
//! the same to programs.

mod apply;
mod attributes;
mod decode;
mod diff;
mod encode;
mod error;
mod fixup;
mod hard_link;
mod options;
mod pipeline;
mod remove;
mod root;
mod sandbox;
mod umask;
mod whiteout;

use std::io::Read;
use std::path::Path;

use layerstore_oci::{Compression, DiffId};

pub use attributes::Lost;
pub use decode::Decoder;
pub use diff::{Comparer, DiffError, DiffOptions, Diffed, FlatArchive, Holes, diff, usage};
pub use encode::{Encoded, EncodedReader, Encoder, encode};
pub use error::{Error, Result, lossy as shown};
pub use fixup::Fixup;
pub use hard_link::LowerLink;
pub use options::{Devices, Limits, Options, OverlayXattr, Ownership};
pub use sandbox::{Confinement, confine, is_available as sandbox_is_available};
pub use umask::PrivateUmask;

/// What an unpacked layer takes on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Lengths of all regular files, holes included; a file with several names counts once.
    pub bytes: u64,
    /// Bytes of the blocks of everything, holes excluded, as `du` counts them: also those of directories, and of links and
    /// extended attributes that do not fit into the inode. The filesystem may change some of them when it writes them back.
    pub allocated: u64,
    /// Files, directories, links, devices and whiteouts, the root included.
    pub inodes: u64,
}

/// Programs of a layer that run with more rights than whoever starts them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Privileged {
    /// Files with set-user-ID or set-group-ID.
    pub set_id: u64,
    /// Files with capabilities.
    pub capabilities: u64,
    /// The paths of the first [`Self::EXAMPLES`] of both.
    pub examples: Vec<Vec<u8>>,
}

impl Privileged {
    /// How many are named.
    pub const EXAMPLES: usize = 16;
}

/// What came out of a layer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Unpacked {
    /// What it takes.
    pub usage: Usage,
    /// Directories that the layer implies but does not list, from the root (the empty path) down: they are
    /// root's with mode 0755, and should have what a layer below says of them.
    pub implied: Vec<Vec<u8>>,
    /// Hard links to files of layers below, which are not in the tree.
    pub lower_links: Vec<LowerLink>,
    /// Programs that give rights.
    pub privileged: Privileged,
    /// Device nodes that the layer lists.
    pub devices: u64,
    /// Whiteouts and opaque directories in the tree. Without any, it looks by itself as the layer does on its own.
    pub whiteouts: u64,
    /// What could not be kept.
    pub lost: Lost,
}

/// A verified stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stream {
    /// The digest of the whole uncompressed stream.
    pub diff_id: DiffId,
    /// Its length in bytes.
    pub bytes: u64,
    /// How it was compressed.
    pub compression: Compression,
}

/// Unpacks the layer `source`, of which `size` is the length if it is known, into the empty directory
/// `target`.
///
/// Success says that all of the stream was read and that `target` holds all of it; whether it is the
/// layer that was asked for is for the caller to judge by [`Stream::diff_id`]. After an error `target`
/// holds anything.
pub fn unpack<R: Read + Send>(
    source: R,
    size: Option<u64>,
    target: &Path,
    options: &Options,
    umask: &PrivateUmask,
) -> Result<(Unpacked, Stream)> {
    let streamed = pipeline::run(source, size, &options.limits, |stream| {
        apply::Applier::new(target, options, umask)?.apply(stream)
    })?;
    let stream =
        Stream { diff_id: streamed.diff_id, bytes: streamed.bytes, compression: streamed.compression };
    Ok((streamed.value, stream))
}

/// Decompresses and hashes a layer without unpacking it. Whether it is an archive is not looked at.
pub fn digest<R: Read + Send>(source: R, size: Option<u64>, limits: &Limits) -> Result<Stream> {
    let streamed = pipeline::run(source, size, limits, |_| Ok(()))?;
    Ok(Stream { diff_id: streamed.diff_id, bytes: streamed.bytes, compression: streamed.compression })
}
