use std::io::{self, BufRead, Read, Seek};
use std::ops::Range;

use crate::entry::{Entry, EntryKind, Segment, Timestamp};
use crate::error::{Error, Flaw};
use crate::header::{self, BLOCK, Block, Format, padding};
use crate::limits::Limits;
use crate::pax::{self, Records, Scope};
use crate::sparse;

/// Reads an archive entry by entry. See the [crate documentation](crate) for the rules.
///
/// After an error the archive's structure is lost: every later [`next_entry`](Self::next_entry) fails.
#[derive(Debug)]
pub struct Reader<R> {
    inner: R,
    limits: Limits,
    /// Bytes consumed from `inner`.
    offset: u64,
    /// Archived data of the current entry that is still to come, and the padding after it.
    remaining: u64,
    padding: u64,
    state: State,
    block: Block,
    /// Path of the current entry and start of its header, for errors.
    path: Vec<u8>,
    header_at: u64,
    global: Records,
    /// For the entry to come: the last PAX header's records and the GNU long names. `pending` if there are any.
    local: Records,
    long_name: Vec<u8>,
    long_link: Vec<u8>,
    pending: bool,
    /// Body of an extension header.
    body: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Reading,
    AtEnd,
    Failed,
}

impl<R: BufRead> Reader<R> {
    /// Reads the archive that starts where `inner` is, with the default [`Limits`].
    pub fn new(inner: R) -> Self {
        Self::with_limits(inner, Limits::default())
    }

    /// Reads the archive that starts where `inner` is.
    pub fn with_limits(inner: R, limits: Limits) -> Self {
        Self {
            inner,
            limits,
            offset: 0,
            remaining: 0,
            padding: 0,
            state: State::Reading,
            block: [0; BLOCK],
            path: Vec::new(),
            header_at: 0,
            global: Records::default(),
            local: Records::default(),
            long_name: Vec::new(),
            long_link: Vec::new(),
            pending: false,
            body: Vec::new(),
        }
    }

    /// The next entry, after skipping what is left of the current one. `None` at the end of the archive, which
    /// need not be the end of the stream: see [`into_inner`](Self::into_inner).
    pub fn next_entry(&mut self) -> Result<Option<Entry>, Error> {
        match self.state {
            State::Reading => {}
            State::AtEnd => return Ok(None),
            State::Failed => {
                let flaw = Flaw::invalid("header", "an earlier error ended the archive");
                return Err(flaw.at(b"", self.offset));
            }
        }
        let result = self.advance();
        match result {
            Ok(Some(_)) => {}
            Ok(None) => self.state = State::AtEnd,
            Err(_) => self.state = State::Failed,
        }
        result
    }

    /// The next bytes of the current entry's archived data, straight from the stream's buffer; empty at their
    /// end. For a sparse file this is the data of one segment after the other.
    ///
    /// Fails with [`Error::Truncated`] where the stream ends before the data does.
    pub fn fill_data(&mut self) -> Result<&[u8], Error> {
        if self.remaining == 0 {
            return Ok(&[]);
        }
        let buffer = fill(&mut self.inner, self.offset)?;
        if buffer.is_empty() {
            return Err(truncated("data", &self.path, self.offset));
        }
        let len = usize::try_from(self.remaining).unwrap_or(usize::MAX).min(buffer.len());
        Ok(&buffer[..len])
    }

    /// Moves on by `n` bytes, at most what [`fill_data`](Self::fill_data) returned.
    pub fn consume_data(&mut self, n: usize) {
        let n = usize::try_from(self.remaining).unwrap_or(usize::MAX).min(n);
        self.inner.consume(n);
        self.offset += n as u64;
        self.remaining -= n as u64;
    }

    /// Archived data of the current entry that is not consumed yet, in bytes.
    pub fn data_left(&self) -> u64 {
        self.remaining
    }

    /// The current entry's archived data as a stream of its own.
    pub fn data(&mut self) -> Data<'_, R> {
        Data(self)
    }

    /// Bytes of the stream consumed so far. Right after [`next_entry`](Self::next_entry) this is where the
    /// entry's data starts.
    pub fn position(&self) -> u64 {
        self.offset
    }

    /// The stream, where the archive ended: a layer's diff ID covers whatever follows, so read on to its end.
    pub fn into_inner(self) -> R {
        self.inner
    }

    /// The stream. Reading from it moves it away from what this reader expects.
    pub fn get_mut(&mut self) -> &mut R {
        &mut self.inner
    }

    fn advance(&mut self) -> Result<Option<Entry>, Error> {
        loop {
            let available = self.fill_data()?.len();
            if available == 0 {
                break;
            }
            self.consume_data(available);
        }
        if !self.skip_padding()? {
            return Ok(None);
        }
        let mut extensions = 0;
        loop {
            self.path.clear();
            self.header_at = self.offset;
            if !self.read_block("a header")? {
                if self.pending {
                    return Err(truncated("an entry after its extension header", b"", self.offset));
                }
                return Ok(None);
            }
            if is_zero(&self.block) {
                return self.end().map(|()| None);
            }
            if !header::checksum_matches(&self.block) {
                return Err(Error::Checksum { offset: self.header_at });
            }
            let flag = self.block[header::TYPE];
            if !matches!(flag, b'x' | b'X' | b'g' | b'L' | b'K') {
                return self.entry(flag).map(Some);
            }
            extensions += 1;
            if extensions > self.limits.extensions {
                let excess = Flaw::limit("number of extension headers", self.limits.extensions);
                return Err(self.locate(excess));
            }
            self.extension(flag)?;
        }
    }

    /// After a block of zeros: another one or the end of the file must follow.
    fn end(&mut self) -> Result<(), Error> {
        if self.pending {
            return Err(self.locate(Flaw::invalid("extension header", "no entry follows")));
        }
        if self.read_block("the end of the archive")? && !is_zero(&self.block) {
            return Err(self.locate(Flaw::invalid("header", "a lone block of zeros before the end")));
        }
        Ok(())
    }

    fn extension(&mut self, flag: u8) -> Result<(), Error> {
        header::check_numbers(&self.block, Format::of(&self.block)).map_err(|flaw| self.locate(flaw))?;
        let size = self.header_number("size", &header::SIZE)?;
        if size > self.limits.extension {
            let limit = self.limits.extension;
            return Err(self.locate(Flaw::Limit { what: "size of an extension header", limit }));
        }
        self.remaining = size;
        self.padding = padding(size);
        self.body.clear();
        while self.remaining > 0 {
            let buffer = fill(&mut self.inner, self.offset)?;
            if buffer.is_empty() {
                return Err(truncated("an extension header", b"", self.offset));
            }
            let len = usize::try_from(self.remaining).unwrap_or(usize::MAX).min(buffer.len());
            self.body.extend_from_slice(&buffer[..len]);
            self.consume_data(len);
        }
        let long = matches!(flag, b'L' | b'K');
        if long && header::text(&self.body).is_empty() {
            return Err(self.locate(Flaw::invalid("GNU long name", "empty")));
        }
        if long && self.padding > 0 && !self.body.contains(&0) {
            let next = fill(&mut self.inner, self.offset)?.first().copied();
            if next.is_some_and(|byte| byte != 0) {
                return Err(self.locate(Flaw::invalid("GNU long name", "goes on in the padding")));
            }
        }
        if !self.skip_padding()? {
            return Err(truncated("an extension header", b"", self.offset));
        }
        let parsed = match flag {
            b'L' => {
                replace(&mut self.long_name, header::text(&self.body));
                Ok(())
            }
            b'K' => {
                replace(&mut self.long_link, header::text(&self.body));
                Ok(())
            }
            b'g' => pax::parse(&self.body, &mut self.global, &self.limits, Scope::Global),
            _ => {
                self.local = Records::default();
                pax::parse(&self.body, &mut self.local, &self.limits, Scope::Local)
            }
        };
        self.pending |= flag != b'g';
        parsed.map_err(|flaw| self.locate(flaw))
    }

    /// The entry whose header is in `block`.
    fn entry(&mut self, flag: u8) -> Result<Entry, Error> {
        self.pending = false;
        let mut local = std::mem::take(&mut self.local);
        let format = Format::of(&self.block);
        let (path, link) = self.names(&mut local, format);
        replace(&mut self.path, &path);
        header::check_numbers(&self.block, format).map_err(|flaw| self.locate(flaw))?;
        if path.len() > self.limits.path {
            return Err(self.locate(Flaw::limit("length of a path", self.limits.path)));
        }
        if link.len() > self.limits.link {
            return Err(self.locate(Flaw::limit("length of a link target", self.limits.link)));
        }

        let kind = kind(flag, &path);
        let archived_size = match local.size {
            // Both Go and GNU tar disregard this field, and only here.
            pax::Field::Unset | pax::Field::Deleted if kind == EntryKind::HardLink => 0,
            pax::Field::Set(size) => size,
            _ => self.header_number("size", &header::SIZE)?,
        };
        if archived_size > 0 && !has_data(flag, kind) {
            return Err(self.locate(Flaw::invalid("size", "not 0, although the type has no data")));
        }
        if archived_size > 0 && matches!(flag, b'0' | b'7') && path.ends_with(b"/") {
            return Err(self.locate(Flaw::invalid("path", header::SLASH_AND_DATA)));
        }
        let device = match kind {
            EntryKind::CharDevice | EntryKind::BlockDevice => self.device(&local, format)?,
            _ => (0, 0),
        };
        let uid = match local.uid.or(&self.global.uid) {
            Some(uid) => uid,
            None => self.header_number("uid", &header::UID)?,
        };
        let gid = match local.gid.or(&self.global.gid) {
            Some(gid) => gid,
            None => self.header_number("gid", &header::GID)?,
        };
        let owner_name = |range: Range<usize>| match format {
            Format::V7 => Vec::new(),
            _ => header::text(&self.block[range]).to_vec(),
        };
        let seconds = |seconds| Timestamp { seconds, nanoseconds: 0 };
        let mtime = match local.mtime.or(&self.global.mtime) {
            Some(time) => time,
            None => seconds(self.header_signed("mtime", &header::MTIME)?),
        };
        let (accessed, changed) = header::times(&self.block, format);
        let xattrs = local.xattrs.or(&self.global.xattrs, &self.limits).map_err(|flaw| self.locate(flaw))?;
        let mut entry = Entry {
            path,
            kind,
            link,
            size: if kind == EntryKind::Directory { 0 } else { archived_size },
            archived_size,
            // Twelve bits of a number that is not negative always fit.
            mode: u32::try_from(self.header_number("mode", &header::MODE)? & 0o7777).unwrap_or(0),
            uid,
            gid,
            uname: local.uname.or(&self.global.uname).unwrap_or_else(|| owner_name(header::UNAME)),
            gname: local.gname.or(&self.global.gname).unwrap_or_else(|| owner_name(header::GNAME)),
            mtime,
            atime: local.atime.or(&self.global.atime).or(accessed.map(seconds)),
            ctime: local.ctime.or(&self.global.ctime).or(changed.map(seconds)),
            device,
            xattrs,
            sparse: None,
        };
        self.remaining = archived_size;
        self.padding = padding(archived_size);
        if flag == b'S' {
            if local.sparse != pax::Sparse::default() {
                return Err(self.locate(Flaw::invalid("GNU.sparse", "with a map in the header")));
            }
            self.gnu_sparse(format, &mut entry)?;
        } else {
            self.pax_sparse(local.sparse, format, &mut entry)?;
        }
        Ok(entry)
    }

    /// Path and link target, each from the first place that has one.
    fn names(&mut self, local: &mut Records, format: Format) -> (Vec<u8>, Vec<u8>) {
        let long_name = std::mem::take(&mut self.long_name);
        let long_link = std::mem::take(&mut self.long_link);
        let path =
            local.sparse.name.clone().or_else(|| std::mem::take(&mut local.path).or(&self.global.path));
        let path = path.or((!long_name.is_empty()).then_some(long_name)).unwrap_or_else(|| {
            let name = header::text(&self.block[header::NAME]);
            match header::prefix(&self.block, format) {
                b"" => name.to_vec(),
                prefix => [prefix, b"/", name].concat(),
            }
        });
        let link = std::mem::take(&mut local.link).or(&self.global.link);
        let link = link
            .or((!long_link.is_empty()).then_some(long_link))
            .unwrap_or_else(|| header::text(&self.block[header::LINK]).to_vec());
        (path, link)
    }

    fn device(&self, local: &Records, format: Format) -> Result<(u32, u32), Error> {
        let number = |field, record: &pax::Field<u32>, global, range| match record.clone().or(global) {
            Some(number) => Ok(number),
            None if format == Format::V7 => Ok(0),
            None => u32::try_from(self.header_number(field, range)?)
                .map_err(|_| self.locate(Flaw::invalid(field, "number too large"))),
        };
        Ok((
            number("devmajor", &local.major, &self.global.major, &header::MAJOR)?,
            number("devminor", &local.minor, &self.global.minor, &header::MINOR)?,
        ))
    }

    /// Old GNU form: the map starts in the header and goes on in blocks before the data.
    fn gnu_sparse(&mut self, format: Format, entry: &mut Entry) -> Result<(), Error> {
        if format != Format::Gnu {
            return Err(self.locate(Flaw::invalid("typeflag", "a sparse file in another format than GNU")));
        }
        let limit = self.limits.sparse_segments;
        entry.size = self.header_number("realsize", &header::GNU_REAL_SIZE)?;
        let mut map = Vec::new();
        sparse::push_gnu(&mut map, &self.block[header::GNU_SPARSE], limit).map_err(|f| self.locate(f))?;
        let mut more = self.block[header::GNU_SPARSE_MORE] != 0;
        let mut blocks = 0;
        while more {
            blocks += 1;
            // Blocks may be empty; an endless row of them is no map.
            if blocks > limit {
                return Err(self.locate(Flaw::limit("sparse map", limit)));
            }
            if !self.read_block("a sparse map")? {
                return Err(truncated("a sparse map", &self.path, self.offset));
            }
            sparse::push_gnu(&mut map, &self.block[header::GNU_SPARSE_NEXT], limit)
                .map_err(|flaw| self.locate(flaw))?;
            more = self.block[header::GNU_SPARSE_NEXT_MORE] != 0;
        }
        self.set_map(map, entry)
    }

    fn pax_sparse(&mut self, records: pax::Sparse, format: Format, entry: &mut Entry) -> Result<(), Error> {
        let Some(map_in_data) = records.map_in_data().map_err(|flaw| self.locate(flaw))? else {
            // Without a map, GNU tar and Python take these for name and size of the data, and Go does not.
            if records.name.is_some() {
                return Err(self.locate(Flaw::invalid("GNU.sparse.name", "another name and no map")));
            }
            let size = records.real_size().map_err(|flaw| self.locate(flaw))?;
            if size.is_some_and(|size| size != entry.size) {
                return Err(self.locate(Flaw::invalid("GNU.sparse.size", "another size and no map")));
            }
            return Ok(());
        };
        if entry.kind != EntryKind::Regular {
            return Err(self.locate(Flaw::invalid("GNU.sparse", "on what is not a regular file")));
        }
        // GNU tar then skips as many bytes as the file has with its holes, and so finds other entries than Go.
        if format != Format::Ustar || header::is_star_for_gnu(&self.block) {
            return Err(self.locate(Flaw::invalid("GNU.sparse", "with a header of another format")));
        }
        if let Some(size) = records.real_size().map_err(|flaw| self.locate(flaw))? {
            entry.size = size;
        }
        let map = if map_in_data { self.map_in_data()? } else { records.map };
        self.set_map(map, entry)
    }

    /// PAX 1.0: the map is at the start of the data, in whole blocks.
    fn map_in_data(&mut self) -> Result<Vec<Segment>, Error> {
        let mut lines = sparse::MapLines::default();
        loop {
            if self.remaining < BLOCK as u64 {
                return Err(self.locate(Flaw::invalid(sparse::FIELD, "goes past the end of the data")));
            }
            if !self.read_block("a sparse map")? {
                return Err(truncated("a sparse map", &self.path, self.offset));
            }
            self.remaining -= BLOCK as u64;
            let map = lines.take(&self.block, self.limits.sparse_segments);
            if let Some(map) = map.map_err(|flaw| self.locate(flaw))? {
                return Ok(map);
            }
        }
    }

    fn set_map(&self, mut map: Vec<Segment>, entry: &mut Entry) -> Result<(), Error> {
        entry.archived_size = self.remaining;
        let end = map.last().map_or(0, |segment| segment.offset.saturating_add(segment.len));
        sparse::check(&mut map, entry.size, self.remaining).map_err(|flaw| self.locate(flaw))?;
        // GNU tar cuts the file off there, and all writers say where it ends.
        if end != entry.size {
            return Err(self.locate(Flaw::invalid(sparse::FIELD, "ends before the file does")));
        }
        entry.sparse = Some(map);
        Ok(())
    }

    fn header_signed(&self, field: &'static str, range: &Range<usize>) -> Result<i64, Error> {
        header::numeric(&self.block[range.clone()])
            .ok_or_else(|| self.locate(Flaw::invalid(field, header::NOT_A_NUMBER)))
    }

    fn header_number(&self, field: &'static str, range: &Range<usize>) -> Result<u64, Error> {
        u64::try_from(self.header_signed(field, range)?)
            .map_err(|_| self.locate(Flaw::invalid(field, "negative")))
    }

    fn locate(&self, flaw: Flaw) -> Error {
        flaw.at(&self.path, self.header_at)
    }

    /// Reads a block into `self.block`; false at the end of the file.
    fn read_block(&mut self, what: &'static str) -> Result<bool, Error> {
        let mut filled = 0;
        while filled < BLOCK {
            let buffer = fill(&mut self.inner, self.offset)?;
            if buffer.is_empty() {
                if filled == 0 {
                    return Ok(false);
                }
                return Err(truncated(what, &self.path, self.offset));
            }
            let len = buffer.len().min(BLOCK - filled);
            self.block[filled..filled + len].copy_from_slice(&buffer[..len]);
            self.inner.consume(len);
            self.offset += len as u64;
            filled += len;
        }
        Ok(true)
    }

    /// False if the file ends first: some writers never pad their last entry, and Go accepts that.
    fn skip_padding(&mut self) -> Result<bool, Error> {
        while self.padding > 0 {
            let available = fill(&mut self.inner, self.offset)?.len();
            if available == 0 {
                return Ok(false);
            }
            // Less than a block.
            let len = available.min(usize::try_from(self.padding).unwrap_or(BLOCK));
            self.inner.consume(len);
            self.offset += len as u64;
            self.padding -= len as u64;
        }
        Ok(true)
    }
}

impl<R: BufRead + Seek> Reader<R> {
    /// Seeks over what is left of the current entry's data rather than read it. Fails with
    /// [`Error::Truncated`] if the file ends before the data does.
    pub fn seek_data(&mut self) -> Result<(), Error> {
        if self.remaining == 0 {
            return Ok(());
        }
        // Seeking past the end of a file succeeds, so stop at the last byte and read that one.
        let jump = self.remaining - 1;
        let at = self.offset;
        match (i64::try_from(jump), i64::try_from(at.saturating_add(jump))) {
            (Ok(0), _) => {}
            (Ok(by), Ok(_)) => {
                self.inner.seek_relative(by).map_err(|source| Error::Io { offset: at, source })?;
            }
            _ => return Err(truncated("data", &self.path, at)),
        }
        self.offset += jump;
        self.remaining = 1;
        self.fill_data()?;
        self.consume_data(1);
        Ok(())
    }
}

/// The archived data of one entry as a stream, from [`Reader::data`].
///
/// An [`Error`] becomes an [`io::Error`]: the stream's own one as it was, any other one wrapped.
#[derive(Debug)]
pub struct Data<'a, R>(&'a mut Reader<R>);

impl<R: BufRead> Read for Data<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let data = self.fill_buf()?;
        let len = data.len().min(buffer.len());
        buffer[..len].copy_from_slice(&data[..len]);
        self.consume(len);
        Ok(len)
    }
}

impl<R: BufRead> BufRead for Data<'_, R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.0.fill_data().map_err(|error| match error {
            Error::Io { source, .. } => source,
            error => io::Error::new(io::ErrorKind::UnexpectedEof, error),
        })
    }

    fn consume(&mut self, n: usize) {
        self.0.consume_data(n);
    }
}

fn fill<R: BufRead>(inner: &mut R, offset: u64) -> Result<&[u8], Error> {
    loop {
        match inner.fill_buf() {
            Ok(_) => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(source) => return Err(Error::Io { offset, source }),
        }
    }
    // What is buffered now: the borrow checker cannot return it from within the loop.
    inner.fill_buf().map_err(|source| Error::Io { offset, source })
}

fn kind(flag: u8, path: &[u8]) -> EntryKind {
    match flag {
        // Version 7 had no other way to say that something is a directory.
        0 if path.ends_with(b"/") => EntryKind::Directory,
        0 | b'0' | b'7' | b'S' => EntryKind::Regular,
        b'1' => EntryKind::HardLink,
        b'2' => EntryKind::Symlink,
        b'3' => EntryKind::CharDevice,
        b'4' => EntryKind::BlockDevice,
        b'5' | b'D' => EntryKind::Directory,
        b'6' => EntryKind::Fifo,
        other => EntryKind::Other(other),
    }
}

/// Whether the type can have data; a GNU dump directory lists its files there.
fn has_data(flag: u8, kind: EntryKind) -> bool {
    matches!(kind, EntryKind::Regular | EntryKind::Other(_)) || flag == b'D'
}

fn truncated(what: &'static str, path: &[u8], offset: u64) -> Error {
    Error::Truncated { what, path: String::from_utf8_lossy(path).into_owned(), offset }
}

fn replace(target: &mut Vec<u8>, bytes: &[u8]) {
    target.clear();
    target.extend_from_slice(bytes);
}

fn is_zero(block: &Block) -> bool {
    block.iter().all(|&b| b == 0)
}

#[cfg(test)]
mod tests;
