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
//! * A second PAX header before one entry replaces the first. A global one applies until overridden, as POSIX
//!   says, and a second one adds to it. Go leaves that to its caller; GNU tar forgets the first at the second.
//! * A GNU long name that is empty, or goes on in the padding behind it, is refused: Go takes the header's name and
//!   cuts the other one off, GNU tar and Python do neither.
//! * So is an octal number with a NUL before its digits, which Go skips, and which is 0 for GNU tar and Python.
//! * Every number in a header must be one, even where it means nothing or a record says otherwise, and in the headers of
//!   extensions: Go refuses others, GNU tar complains or looks for the next header elsewhere. Only the times in GNU
//!   headers are optional.
//! * A PAX sparse map needs a header in ustar format, as all writers give it: with another one GNU tar does not know
//!   what to make of it and looks for the next header elsewhere.
//! * Sparse records without a map are refused if they give a name or another size than the entry's, and all of them
//!   before a header that has a map itself: GNU tar and Python follow them, Go does not.
//! * A sparse map in records is there once, after the number of its segments, and in one version. Go needs that number,
//!   GNU tar begins anew at each, and of two maps they take different ones.
//! * A sparse map must go to the end of the file, as all writers make it with an empty segment there: GNU tar cuts the
//!   file off where its map ends, Go and Python do not.
//! * A global `size` or sparse map is refused: it would frame every later entry, and readers disagree on it.
//! * PAX `size` counts for the entry it precedes, never for an extension header in between.
//! * Hard links, symbolic links, devices, directories and fifos have no data. The size field of a hard link means
//!   nothing, as in Go and GNU tar, although POSIX lets `pax` archives carry data there. A size of the others that
//!   is not 0, or of a hard link in a PAX record, is refused: GNU tar skips so many bytes, Go does not, and so they
//!   would find different entries.
//! * A regular file (`0`, `7`) whose name ends in a slash is one, as in Go; GNU tar makes a directory. If it has data
//!   it is refused, because GNU tar does not skip that but unpacks the entries that it finds there. Of type NUL it is
//!   a directory for all.
//! * Where a GNU header has no times but text in their place, that is a prefix of the name, as Go once wrote it and
//!   still reads it; GNU tar ignores it.
//! * Device numbers may be in `SCHILY.devmajor` and `SCHILY.devminor`, as star and libarchive write them; GNU tar and
//!   Go do not know those.
//! * The archive ends at two zero blocks, at an end of file between entries or inside an entry's padding, or
//!   at one zero block and an end of file.
//!
//! `tests/differential` compares all that with Python's `tarfile` and GNU tar, and lists every known difference.
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
