//! A tar archive in a regular file: indexed by its headers, its members read by position.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;

use crate::stream::scan;
use crate::{Error, MemberMap, Members};

/// Enough for the headers between two large members; what is read ahead into data is wasted.
const BUFFER: usize = 32 << 10;

/// Where the bytes of a member are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Position in the file, in bytes.
    pub offset: u64,
    /// Length in bytes.
    pub len: u64,
}

/// An archive in a regular file.
#[derive(Debug)]
pub struct TarFile {
    file: File,
    members: MemberMap<Extent>,
}

impl TarFile {
    /// Indexes the archive that starts where `file` is, reading headers only.
    ///
    /// Every member's last byte was there; a file without an end-of-archive mark after complete
    /// members is accepted, as GNU tar does. The file's own position is not moved.
    pub fn scan(file: File) -> Result<Self, Error> {
        let start = (&file).stream_position().map_err(Error::of_stream)?;
        let window = Section { file: &file, start, offset: start, end: u64::MAX };
        let (members, _) = scan(BufReader::with_capacity(BUFFER, window), |_, entry, reader| {
            let offset = start.saturating_add(reader.position());
            reader.seek_data()?;
            Ok::<_, Error>(Extent { offset, len: entry.archived_size })
        })?;
        Ok(Self { file, members })
    }

    /// The file; use it only with positions.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Every regular member and where it is.
    pub fn members(&self) -> &MemberMap<Extent> {
        &self.members
    }

    /// Where a member is, links followed.
    pub fn extent(&self, name: &str) -> Option<Extent> {
        self.members.get(name).map(|(_, extent)| *extent)
    }

    /// Reads a member from its start. Several may be read at once.
    pub fn open(&self, name: &str) -> Option<Section<'_>> {
        self.extent(name).map(|extent| Section {
            file: &self.file,
            start: extent.offset,
            offset: extent.offset,
            end: extent.offset.saturating_add(extent.len),
        })
    }
}

impl Members for TarFile {
    fn resolve(&self, name: &str) -> Result<Option<String>, Error> {
        Ok(self.members.get(name).map(|(name, _)| name.to_owned()))
    }

    fn read_small(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>, Error> {
        self.open(name).map(|section| read_small(section, name, limit)).transpose()
    }

    fn top_level(&self) -> Vec<String> {
        self.members.top_level()
    }
}

/// Reads all of `member`, which must have no more than `limit` bytes.
pub(crate) fn read_small(member: impl Read, name: &str, limit: u64) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    member
        .take(limit.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(|source| Error::Read { what: format!("`{}`", name.escape_debug()), source })?;
    if bytes.len() as u64 > limit {
        return Err(Error::TooLarge { member: name.to_owned(), limit });
    }
    Ok(bytes)
}

/// A stretch of a file as a stream of its own, which leaves the file's position alone.
#[derive(Debug)]
pub struct Section<'a> {
    file: &'a File,
    start: u64,
    offset: u64,
    end: u64,
}

impl Read for Section<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.end.saturating_sub(self.offset);
        let len = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
        let count = self.file.read_at(&mut buffer[..len], self.offset)?;
        self.offset += count as u64;
        Ok(count)
    }
}

impl Seek for Section<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let target = match to {
            SeekFrom::Start(offset) => self.start.checked_add(offset),
            SeekFrom::Current(by) => self.offset.checked_add_signed(by),
            SeekFrom::End(by) => self.end.checked_add_signed(by),
        };
        self.offset = target
            .filter(|target| *target >= self.start)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "seek out of range"))?;
        Ok(self.offset - self.start)
    }
}
