//! What is in a regular file, and where it has holes.

use std::os::fd::OwnedFd;

use layerstore_tar::Segment;
use rustix::fs::{SeekFrom, Stat, fstat, seek};
use rustix::io::{Errno, pread};

use super::error::{DiffError, FileContext as _, changed};
use super::node::identity;

/// Segments start and end on multiples of this, as most filesystems have them. The tar writer asks for
/// multiples of 512.
const STEP: u64 = 4096;

/// The stretches of a file of `size` bytes that have data; `None` if that is all of it, or if the filesystem
/// cannot tell. When the map would have more than `limit` lines, the last one stands for all that is left.
pub(super) fn segments(
    file: &OwnedFd,
    size: u64,
    limit: usize,
    path: &[u8],
) -> Result<Option<Vec<Segment>>, DiffError> {
    if size == 0 || limit == 0 {
        return Ok(None);
    }
    let mut segments: Vec<Segment> = Vec::new();
    let mut at = 0;
    while at < size {
        let data = match seek(file, SeekFrom::Data(at)) {
            // A hole until the end.
            Err(Errno::NXIO) => break,
            Err(Errno::INVAL | Errno::OPNOTSUPP) => return Ok(None),
            other => other.file("find the holes of", path)?,
        };
        if data >= size {
            break;
        }
        let hole = match seek(file, SeekFrom::Hole(data)) {
            Err(Errno::NXIO) => return Err(changed(path)),
            other => other.file("find the holes of", path)?.min(size),
        };
        if data < at || hole <= data {
            return Err(changed(path));
        }
        add(&mut segments, data, hole, size);
        // One more line would be another segment's, or that of the hole at the end.
        if segments.len() >= limit {
            rest(&mut segments, size);
            break;
        }
        at = hole;
    }
    // Less than a step at the end is no hole: it saves nothing, and tools that copy trees do not keep it.
    let tail = size / STEP * STEP;
    if tail < size {
        add(&mut segments, tail, size, size);
    }
    let whole = |segment: &Segment| segment.offset == 0 && segment.len == size;
    Ok((!segments.first().is_some_and(whole)).then_some(segments))
}

/// Adds the data from `start` to `end`, rounded outwards.
fn add(segments: &mut Vec<Segment>, start: u64, end: u64, size: u64) {
    let start = start / STEP * STEP;
    let end = end.checked_next_multiple_of(STEP).map_or(size, |end| end.min(size));
    match segments.last_mut() {
        Some(last) if start <= last.offset + last.len => last.len = end - last.offset,
        _ => segments.push(Segment { offset: start, len: end - start }),
    }
}

/// Lets the last segment reach to the end of the file.
fn rest(segments: &mut [Segment], size: u64) {
    if let Some(last) = segments.last_mut() {
        last.len = size - last.offset;
    }
}

/// Hands out the bytes from `offset`, `len` of them.
pub(super) fn read(
    file: &OwnedFd,
    segment: Segment,
    buffer: &mut [u8],
    path: &[u8],
    mut each: impl FnMut(&[u8]) -> Result<(), DiffError>,
) -> Result<(), DiffError> {
    let Segment { mut offset, mut len } = segment;
    while len > 0 {
        let wanted = buffer.len().min(usize::try_from(len).unwrap_or(usize::MAX));
        match pread(file, &mut buffer[..wanted], offset) {
            Ok(0) => return Err(changed(path)),
            Ok(count) => {
                each(&buffer[..count])?;
                offset += count as u64;
                len -= count as u64;
            }
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno).file("read", path),
        }
    }
    Ok(())
}

/// Reads the bytes of a segment that fits into `buffer`.
pub(super) fn fill<'a>(
    file: &OwnedFd,
    segment: Segment,
    buffer: &'a mut [u8],
    path: &[u8],
) -> Result<&'a [u8], DiffError> {
    let wanted = buffer.len().min(usize::try_from(segment.len).unwrap_or(usize::MAX));
    let mut done = 0;
    while done < wanted {
        match pread(file, &mut buffer[done..wanted], segment.offset + done as u64) {
            Ok(0) => return Err(changed(path)),
            Ok(count) => done += count,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno).file("read", path),
        }
    }
    Ok(&buffer[..wanted])
}

/// Whether two looks at one file saw the same. The time of status change tells also of changes whose time of
/// modification was set back.
pub(super) fn same(one: &Stat, other: &Stat) -> bool {
    let key = |stat: &Stat| {
        let times = (stat.st_mtime, stat.st_mtime_nsec, stat.st_ctime, stat.st_ctime_nsec);
        (identity(stat), stat.st_mode, stat.st_size, times)
    };
    key(one) == key(other)
}

pub(super) fn check_unchanged(file: &OwnedFd, before: &Stat, path: &[u8]) -> Result<(), DiffError> {
    if same(&fstat(file).file("look at", path)?, before) { Ok(()) } else { Err(changed(path)) }
}
