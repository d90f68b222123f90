//! A tar reader and writer for image layers.
//!
//! Layers come from strangers and are large, so the [`Reader`] holds a bounded amount of memory whatever the
//! archive says ([`Limits`]), never panics, and hands out file data as slices of the buffer it reads from,
//! without a copy. It never looks for the next header after a bad one: what other tools would find there
//! is anyone's guess, and two tools that disagree about an archive's content are a way to smuggle files.
//!
//! # Formats
//!
//! v7, ustar (with the prefix), PAX (`x`, `g`, Solaris `X`), old GNU (`L`, `K`, `S` with extension blocks,
//! `D`, access and change times in the header), star (its shorter prefix and its times), and all GNU sparse
//! forms: old GNU, PAX 0.0, 0.1 and 1.0. Numbers may be octal or base-256.
//!
//! Where the formats leave room, the rules are those of Go's `archive/tar`, because containerd, Docker and
//! Podman read layers with it, and of GNU tar:
//!
//! * A name is taken from `GNU.sparse.name`, then PAX `path`, then the GNU long name, then the header: GNU tar's
//!   order. Go takes the GNU long name where an archive has both.
//! * A second PAX header before one entry replaces the first. A global one applies until overridden, which Go
//!   leaves to its caller and GNU tar does.
//! * A global `size` or sparse map is refused: it would frame every later entry, and readers disagree on it.
//! * PAX `size` counts for the entry it precedes, never for an extension header in between.
//! * Hard links, symbolic links, devices, directories (`5`) and fifos have no data, whatever their size field
//!   says. POSIX lets `pax` archives carry data for hard links; Go and GNU tar read none.
//! * The archive ends at two zero blocks, at an end of file between entries or inside an entry's padding, or
//!   at one zero block and an end of file.
//!
//! # Example
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use layerstore_tar::{Entry, Reader, Writer};
//!
//! let mut writer = Writer::new(Vec::new());
//! writer.append(&Entry::regular(b"etc/hostname", 4), &b"box\n"[..])?;
//! let archive = writer.finish()?;
//!
//! let mut reader = Reader::new(&archive[..]);
//! while let Some(entry) = reader.next_entry()? {
//!     assert_eq!(entry.path, b"etc/hostname");
//!     loop {
//!         let data = reader.fill_data()?;
//!         if data.is_empty() {
//!             break;
//!         }
//!         let taken = data.len();
//!         reader.consume_data(taken);
//!     }
//! }
//! # Ok(())
//! # }
//! ```

mod encoding;
mod entry;
mod error;
mod header;
mod limits;
mod pax;
mod reader;
mod sparse;
mod writer;

pub use entry::{Entry, EntryKind, Segment, Timestamp, Xattr};
pub use error::Error;
pub use limits::Limits;
pub use reader::{Data, Reader};
pub use writer::Writer;
