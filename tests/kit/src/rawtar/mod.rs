//! Tar archives byte by byte, in all the forms that writers have produced: for comparing readers.
//!
//! Nothing here uses `layerstore-tar`, so that its reader and what it is tested with cannot share a mistake.
//! Sources: POSIX.1-2017 `pax`, the GNU tar manual ("Basic Tar Format", "Sparse Formats"), `star(5)`.

mod encode;
mod generate;
mod mutate;

pub use encode::append;
pub use generate::{Names, archive, members};
pub use mutate::mutate;

/// Size of everything in an archive.
pub const BLOCK: usize = 512;

/// What a header is written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Unix version 7: no magic.
    V7,
    /// POSIX.1-1988, with the prefix.
    Ustar,
    /// POSIX.1-2001: ustar with records.
    Pax,
    /// Old GNU: base-256 numbers, long names, times and sparse maps in the header.
    Gnu,
    /// star: ustar with a shorter prefix and times behind it; records as in PAX.
    Star,
}

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Kind {
    File,
    HardLink,
    Symlink,
    CharDevice,
    BlockDevice,
    Directory,
    Fifo,
}

/// Seconds since 1970 and nanoseconds, which count forward.
pub type Time = (i64, u32);

/// One entry, before anyone has decided how to write it.
#[derive(Debug, Clone)]
pub struct Member {
    /// Path, without the slash at a directory's end.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// Target of a link.
    pub link: Vec<u8>,
    /// `0o7777` at most.
    pub mode: u32,
    /// Owner.
    pub uid: u64,
    /// Group.
    pub gid: u64,
    /// Last modification. A format that has no fractions drops the nanoseconds.
    pub mtime: Time,
    /// Last access, for formats that have it.
    pub atime: Option<Time>,
    /// Name of the owner and of the group.
    pub names: (Vec<u8>, Vec<u8>),
    /// Major and minor number.
    pub device: (u32, u32),
    /// Extended attributes, for formats that have them.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// What is in a file: of a sparse one its segments, one after the other.
    pub data: Vec<u8>,
    /// Size of a sparse file, and offset and length of its segments: all but the last a multiple of 512.
    pub sparse: Option<(u64, Vec<(u64, u64)>)>,
}

/// Makes the checksum of the header at the start of `block` right.
pub fn seal(block: &mut [u8]) {
    let sum = checksum(block);
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

/// Whether the block is a header with the usual checksum.
pub fn is_header(block: &[u8]) -> bool {
    let digits = block[148..156].iter().skip_while(|&&c| c == b' ').take_while(|c| c.is_ascii_digit());
    let written = digits.fold(0u32, |sum, &c| (sum << 3).wrapping_add(u32::from(c - b'0')));
    written != 0 && written == checksum(block)
}

fn checksum(block: &[u8]) -> u32 {
    let sum: u32 = block[..BLOCK].iter().map(|&byte| u32::from(byte)).sum();
    let field: u32 = block[148..156].iter().map(|&byte| u32::from(byte)).sum();
    sum - field + 8 * u32::from(b' ')
}

/// `%d key=value\n`, where the number is the length of it all.
pub fn record(key: &[u8], value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut len = rest + 1;
    while len != rest + len.to_string().len() {
        len = rest + len.to_string().len();
    }
    [len.to_string().as_bytes(), b" ", key, b"=", value, b"\n"].concat()
}

/// An extension header of type `flag` with its body.
pub fn extension(flag: u8, name: &[u8], magic: &[u8; 8], body: &[u8]) -> Vec<u8> {
    let mut block = vec![0; BLOCK];
    block[..name.len()].copy_from_slice(name);
    for (at, width) in [(100, 8), (108, 8), (116, 8), (136, 12)] {
        block[at..at + width - 1].fill(b'0');
    }
    block[124..136].copy_from_slice(format!("{:011o}\0", body.len()).as_bytes());
    block[156] = flag;
    block[257..265].copy_from_slice(magic);
    seal(&mut block);
    block.extend_from_slice(body);
    pad(&mut block);
    block
}

fn pad(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(BLOCK), 0);
}
