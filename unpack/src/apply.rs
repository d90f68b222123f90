//! From tar entries to files.

use std::collections::{BTreeSet, HashMap};
use std::io::BufRead;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use layerstore_tar::{Entry, EntryKind, Reader};
use rustix::fs::{
    Advice, AtFlags, FileType, Mode, OFlags, Stat, fadvise, fchmod, fstat, ftruncate, makedev, mkdirat,
    mknodat, openat, statat, symlinkat,
};
use rustix::io::{Errno, pwrite, write};

use crate::attributes::{Attributes, Lost, Opened};
use crate::error::{EntryContext as _, Error, Result, limit, lossy, refused};
use crate::hard_link::Links;
use crate::options::{Devices, Options, Ownership};
use crate::remove::remove;
use crate::root::{Implied, PATH_MAX, Root, clean, open_root, split};
use crate::umask::PrivateUmask;
use crate::whiteout::{self, Marker, Markers};
use crate::{Privileged, Unpacked, Usage};

/// So many runs of blocks fit into an inode of ext4 (its documentation, "The Contents of `inode.i_block`"). For
/// more it takes a block, when it writes the file back: so it is told to begin with that, and the block is counted.
const INLINE_EXTENTS: usize = 4;

/// A directory whose attributes are set at the end: creating something in it would change its time, its
/// mode may forbid to create anything, and set-group-ID and default ACLs would be inherited.
#[derive(Debug)]
struct Pending {
    path: Vec<u8>,
    attributes: Attributes,
}

pub(crate) struct Applier<'a> {
    pub(crate) root: Root,
    pub(crate) options: &'a Options,
    umask: &'a PrivateUmask,
    /// By inode number, because one directory may be reached by several paths.
    directories: HashMap<u64, Pending>,
    pub(crate) implied: BTreeSet<Vec<u8>>,
    pub(crate) markers: Markers,
    pub(crate) links: Links,
    /// Lengths of all files so far, those that were replaced included.
    file_bytes: u64,
    /// What [`Limits::memory`](crate::Limits::memory) limits.
    memory: u64,
    pub(crate) result: Unpacked,
}

impl<'a> Applier<'a> {
    pub(crate) fn new(target: &Path, options: &'a Options, umask: &'a PrivateUmask) -> Result<Self> {
        let root = open_root(target)?;
        let inode = fstat(&root).entry("look at", b"/")?.st_ino;
        let mut applier = Self {
            root: Root::new(root, options.limits.depth),
            options,
            umask,
            directories: HashMap::new(),
            implied: BTreeSet::new(),
            markers: Markers::default(),
            links: Links::default(),
            file_bytes: 0,
            memory: 0,
            result: Unpacked::default(),
        };
        applier.note_implied(vec![Implied { inode, path: Vec::new() }])?;
        Ok(applier)
    }

    pub(crate) fn apply(mut self, stream: &mut dyn BufRead) -> Result<Unpacked> {
        let mut reader = Reader::with_limits(stream, self.options.limits.tar);
        let (mut entries, mut last) = (0, Vec::new());
        while let Some(entry) = reader.next_entry().map_err(|error| Error::from(error).at(&last))? {
            entries += 1;
            if entries > self.options.limits.entries {
                return Err(limit(&entry.path, "entries", self.options.limits.entries));
            }
            self.root.next_entry();
            self.entry(&mut reader, &entry).map_err(|error| error.at(&entry.path))?;
            last = entry.path;
        }
        self.settle_links()?;
        let markers = std::mem::take(&mut self.markers);
        whiteout::write(&mut self, markers)?;
        self.finish_directories()?;
        self.result.implied = self.implied.into_iter().collect();
        Ok(self.result)
    }

    fn entry(&mut self, reader: &mut Reader<&mut dyn BufRead>, entry: &Entry) -> Result<()> {
        // A volume label names the archive, nothing in it.
        if entry.kind == EntryKind::Other(b'V') {
            return Ok(());
        }
        let path = clean(&entry.path, self.options.limits.depth)?;
        match whiteout::marker(&path)? {
            Marker::None => {}
            Marker::Ignored => return Ok(()),
            marker => {
                self.remember(&path, path.len())?;
                return self.markers.add(&path, &marker);
            }
        }
        if path.is_empty() {
            return self.root_entry(entry);
        }
        match entry.kind {
            EntryKind::Directory => self.directory(&path, entry),
            EntryKind::Regular => self.regular(reader, &path, entry),
            EntryKind::HardLink => self.hard_link(&path, entry),
            EntryKind::Symlink => self.symlink(&path, entry),
            EntryKind::CharDevice | EntryKind::BlockDevice | EntryKind::Fifo => self.node(&path, entry),
            EntryKind::Other(_) => Err(refused(&entry.path, "its type is not known")),
        }
    }

    fn root_entry(&mut self, entry: &Entry) -> Result<()> {
        if entry.kind != EntryKind::Directory {
            return Err(refused(&entry.path, "the root of a layer must be a directory"));
        }
        let inode = fstat(self.root.directory()).entry("look at", b"/")?.st_ino;
        let attributes = self.attributes(entry)?;
        self.note_listed(inode, Vec::new(), attributes)
    }

    fn directory(&mut self, path: &[u8], entry: &Entry) -> Result<()> {
        let attributes = self.attributes(entry)?;
        let (place, inode) = self.create(path, |parent, name| match mkdirat(parent, name, Mode::RWXU) {
            Err(Errno::EXIST) => {
                let stat = statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
                // Listed twice, or implied before: what is in it stays.
                if is_directory(&stat) {
                    return Ok(stat.st_ino);
                }
                Err(Errno::EXIST)
            }
            Err(errno) => Err(errno),
            Ok(()) => Ok(statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?.st_ino),
        })?;
        self.note_listed(inode, place, attributes)
    }

    fn regular(&mut self, reader: &mut Reader<&mut dyn BufRead>, path: &[u8], entry: &Entry) -> Result<()> {
        let attributes = self.attributes(entry)?;
        self.file_bytes = self.file_bytes.saturating_add(entry.size);
        if self.file_bytes > self.options.limits.output_bytes {
            return Err(limit(&entry.path, "bytes of files", self.options.limits.output_bytes));
        }
        // Until the owner is right nobody gains anything from set-user-ID, and chown clears it.
        let mode = Mode::from_raw_mode(entry.mode & 0o777);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let (_, file) = self.create(path, |parent, name| openat(parent, name, flags, mode))?;
        match &entry.sparse {
            None => copy(reader, &file, path)?,
            Some(segments) => {
                for segment in segments {
                    copy_segment(reader, &file, path, segment.offset, segment.len)?;
                }
                ftruncate(&file, entry.size).entry("set the size of", path)?;
                if segments.len() > INLINE_EXTENTS {
                    // Only a wish, of which the kernel makes as much as it can.
                    fadvise(&file, 0, None, Advice::DontNeed).unwrap_or_default();
                }
            }
        }
        let opened = Opened::File(file.as_fd());
        let lost = attributes.set_owner_and_xattrs(&opened, path, self.options)?;
        self.result.lost += lost;
        if attributes.change_mode() || !self.umask.exact() {
            fchmod(&file, Mode::from_raw_mode(entry.mode)).entry("set the mode of", path)?;
        }
        attributes.set_times(&opened, path)?;
        self.result.privileged.note(path, entry);
        // A few sparse files can be longer together than a number can say.
        self.result.usage.bytes = self.result.usage.bytes.saturating_add(entry.size);
        self.count_blocks(file.as_fd(), path)
    }

    fn symlink(&mut self, path: &[u8], entry: &Entry) -> Result<()> {
        if entry.link.is_empty() {
            return Err(refused(&entry.path, "it is a symbolic link to nothing"));
        }
        if entry.link.len() > PATH_MAX {
            return Err(refused(&entry.path, "its target is longer than a symbolic link can hold"));
        }
        let attributes = self.attributes(entry)?;
        let (_, link) = self.create(path, |parent, name| {
            symlinkat(entry.link.as_slice(), parent, name)?;
            openat(parent, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
        })?;
        let opened = Opened::Path(link.as_fd());
        self.result.lost += attributes.set_owner_and_xattrs(&opened, path, self.options)?;
        attributes.set_times(&opened, path)?;
        self.count_blocks(link.as_fd(), path)
    }

    fn node(&mut self, path: &[u8], entry: &Entry) -> Result<()> {
        if entry.kind != EntryKind::Fifo {
            if self.options.limits.devices == Devices::Refuse {
                return Err(Error::Device { entry: lossy(&entry.path) });
            }
            self.result.devices += 1;
        }
        let attributes = self.attributes(entry)?;
        let (kind, device) = match entry.kind {
            EntryKind::CharDevice if entry.device == (0, 0) => return self.hidden_device(path),
            EntryKind::CharDevice => (FileType::CharacterDevice, entry.device),
            EntryKind::BlockDevice => (FileType::BlockDevice, entry.device),
            _ => (FileType::Fifo, (0, 0)),
        };
        // The kernel's device numbers have 12 and 20 bits; makedev makes another device of what is larger.
        if device.0 > 0xfff || device.1 > 0xf_ffff {
            return Err(refused(&entry.path, "its device number is larger than those of the kernel"));
        }
        let mode = Mode::from_raw_mode(entry.mode);
        let number = makedev(device.0, device.1);
        let (_, created) = self.create(path, |parent, name| {
            match mknodat(parent, name, kind, mode, number) {
                Err(Errno::PERM) if self_is_lenient(self.options) && kind != FileType::Fifo => {
                    return Ok(None);
                }
                other => other?,
            }
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            openat(parent, name, flags, Mode::empty()).map(Some)
        })?;
        let Some(created) = created else {
            self.result.usage.inodes -= 1;
            self.result.lost.devices += 1;
            return Ok(());
        };
        let opened = Opened::Path(created.as_fd());
        let lost = attributes.set_owner_and_xattrs(&opened, path, self.options)?;
        self.result.lost += lost;
        if attributes.change_mode() || !self.umask.exact() {
            attributes.set_mode(&opened, path)?;
        }
        attributes.set_times(&opened, path)?;
        self.count_blocks(created.as_fd(), path)
    }

    /// Counts the blocks of a file that is complete. Directories still grow: theirs are counted at the end.
    pub(crate) fn count_blocks(&mut self, file: BorrowedFd<'_>, path: &[u8]) -> Result<()> {
        let stat = fstat(file).entry("look at", path)?;
        if is_larger_than_its_content(&stat) && has_room_behind_files(file) {
            self.result.usage.allocated = self.result.usage.allocated.saturating_add(content_blocks(&stat));
        } else {
            self.result.usage.add_blocks(&stat);
        }
        Ok(())
    }

    /// A character device 0/0 is overlayfs's whiteout, so no overlay shows one. Archives of whole machines have them
    /// all the same. What is in its place is gone, here and in the layers below.
    fn hidden_device(&mut self, path: &[u8]) -> Result<()> {
        let place = self.make_room(path)?;
        self.remember(path, place.len())?;
        self.links.hide(place);
        self.result.lost.devices += 1;
        Ok(())
    }

    /// Removes what an earlier entry put at `path`, as if something were created there. Returns where it is without
    /// symbolic links.
    pub(crate) fn make_room(&mut self, path: &[u8]) -> Result<Vec<u8>> {
        let (place, ()) =
            self.create(path, |parent, name| match statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(_) => Err(Errno::EXIST),
                Err(Errno::NOENT) => Ok(()),
                Err(errno) => Err(errno),
            })?;
        self.result.usage.inodes -= 1;
        Ok(place)
    }

    /// Creates something at `path`, in the place of what an earlier entry put there. Returns also where it is
    /// without symbolic links.
    pub(crate) fn create<T>(
        &mut self,
        path: &[u8],
        make: impl Fn(BorrowedFd<'_>, &[u8]) -> Result<T, Errno>,
    ) -> Result<(Vec<u8>, T)> {
        let (directory, name) = split(path);
        let mut implied = Vec::new();
        self.root.created(directory, &mut implied)?;
        // Before anything is removed: a link may lead back to what was made on the way to its end.
        self.note_implied(implied)?;
        let place = self.root.created(directory, &mut Vec::new())?;
        let created = place.join(name);
        let parent = place.directory.as_fd();
        let outcome = match make(parent, name) {
            Err(Errno::EXIST) => {
                let (directories, implied) = (&mut self.directories, &mut self.implied);
                let usage = &mut self.result.usage;
                remove(parent, name, &mut |stat| {
                    usage.subtract(stat);
                    // Its inode number may be another directory's next.
                    if is_directory(stat)
                        && let Some(pending) = directories.remove(&stat.st_ino)
                    {
                        implied.remove(&pending.path);
                    }
                })
                .entry("replace", path)?;
                let outcome = make(parent, name).entry("create", path)?;
                self.root.forget();
                self.links.forget_below(&created);
                outcome
            }
            other => other.entry("create", path)?,
        };
        self.links.forget(&created);
        self.result.usage.inodes += 1;
        Ok((created, outcome))
    }

    fn attributes(&mut self, entry: &Entry) -> Result<Attributes> {
        Attributes::new(entry, self.options)
    }

    /// Counts what is kept until the end.
    pub(crate) fn remember(&mut self, path: &[u8], bytes: usize) -> Result<()> {
        self.memory = self.memory.saturating_add(bytes as u64 + 64);
        let most = self.options.limits.memory;
        if self.memory > most {
            return Err(limit(path, "bytes of names and attributes that are kept until the end", most));
        }
        Ok(())
    }

    pub(crate) fn note_implied(&mut self, implied: Vec<Implied>) -> Result<()> {
        for Implied { inode, path } in implied {
            // Kept three times: here, for its attributes, and for whoever stacks trees.
            self.remember(&path, 3 * path.len() + 128)?;
            self.implied.insert(path.clone());
            self.directories.insert(inode, Pending { path, attributes: Attributes::implied() });
            self.result.usage.inodes += 1;
        }
        Ok(())
    }

    fn note_listed(&mut self, inode: u64, path: Vec<u8>, attributes: Attributes) -> Result<()> {
        self.remember(&path, path.len() + attributes.size())?;
        match self.directories.get_mut(&inode) {
            Some(pending) => {
                self.implied.remove(&pending.path);
                pending.attributes = attributes;
                // Counted when it was created.
                if !path.is_empty() {
                    self.result.usage.inodes -= 1;
                }
            }
            None => {
                self.directories.insert(inode, Pending { path, attributes });
            }
        }
        Ok(())
    }

    fn finish_directories(&mut self) -> Result<()> {
        let mut directories: Vec<(u64, Pending)> =
            std::mem::take(&mut self.directories).into_iter().collect();
        // Children before parents: a parent's mode may forbid the way to its children.
        directories.sort_unstable_by(|(_, a), (_, b)| b.path.cmp(&a.path));
        for (inode, Pending { path, attributes }) in directories {
            let directory = match self.root.existing(&path)? {
                Some(place) => {
                    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
                    openat(&place.directory, ".", flags, Mode::empty()).entry("open", &path)?
                }
                None => continue,
            };
            // Replaced by another entry since.
            if fstat(&directory).entry("look at", &path)?.st_ino != inode {
                continue;
            }
            let opened = Opened::File(directory.as_fd());
            self.result.lost += attributes.set_owner_and_xattrs(&opened, &path, self.options)?;
            attributes.set_mode(&opened, &path)?;
            attributes.set_times(&opened, &path)?;
            // All that is in it is there, and its extended attributes may have taken a block.
            self.count_blocks(directory.as_fd(), &path)?;
        }
        Ok(())
    }
}

impl Usage {
    pub(crate) fn add_blocks(&mut self, stat: &Stat) {
        self.allocated = self.allocated.saturating_add(blocks(stat));
    }

    /// Forgets a file of which one name was removed. The blocks of directories are not counted before the end.
    fn subtract(&mut self, stat: &Stat) {
        if !is_directory(stat) {
            if stat.st_nlink > 1 {
                return;
            }
            if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile {
                self.bytes = self.bytes.saturating_sub(u64::try_from(stat.st_size).unwrap_or(0));
            }
            let counted = if is_larger_than_its_content(stat) { content_blocks(stat) } else { blocks(stat) };
            self.allocated = self.allocated.saturating_sub(counted);
        }
        self.inodes = self.inodes.saturating_sub(1);
    }
}

/// The bytes of a file's blocks: as `du` counts, in units of 512 bytes whatever the filesystem's are (stat(2)).
pub(crate) fn blocks(stat: &Stat) -> u64 {
    u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(512)
}

/// Whether a file has more blocks than its content needs. XFS gives those that are written to some more, which it takes back
/// when they are closed (xfs(5), `allocsize`); others may need some to keep track of the file.
fn is_larger_than_its_content(stat: &Stat) -> bool {
    let is_file = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
    is_file && stat.st_size >= 64 << 10 && blocks(stat) > content_blocks(stat)
}

fn content_blocks(stat: &Stat) -> u64 {
    let block = u64::try_from(stat.st_blksize).unwrap_or(0).clamp(512, 4096);
    u64::try_from(stat.st_size).unwrap_or(0).next_multiple_of(block)
}

fn has_room_behind_files(file: BorrowedFd<'_>) -> bool {
    /// `XFS_SUPER_MAGIC` of linux/magic.h.
    const XFS: u64 = 0x5846_5342;
    rustix::fs::fstatfs(file).is_ok_and(|found| u64::try_from(found.f_type) == Ok(XFS))
}

impl Privileged {
    fn note(&mut self, path: &[u8], entry: &Entry) {
        let set_id = entry.mode & 0o6000 != 0;
        let capable = entry.xattrs.iter().any(|(name, _)| name == b"security.capability");
        self.set_id += u64::from(set_id);
        self.capabilities += u64::from(capable);
        if (set_id || capable) && self.examples.len() < Self::EXAMPLES {
            self.examples.push(path.to_vec());
        }
    }
}

pub(crate) fn is_directory(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}

fn self_is_lenient(options: &Options) -> bool {
    options.ownership == Ownership::Current
}

fn copy(reader: &mut Reader<&mut dyn BufRead>, file: &OwnedFd, path: &[u8]) -> Result<()> {
    loop {
        let data = reader.fill_data()?;
        if data.is_empty() {
            return Ok(());
        }
        match write(file, data) {
            Ok(count) => reader.consume_data(count),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno).entry("write", path),
        }
    }
}

fn copy_segment(
    reader: &mut Reader<&mut dyn BufRead>,
    file: &OwnedFd,
    path: &[u8],
    mut offset: u64,
    mut left: u64,
) -> Result<()> {
    while left > 0 {
        let data = reader.fill_data()?;
        let wanted = data.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        if wanted == 0 {
            return Err(refused(path, "its sparse map names more data than there is"));
        }
        match pwrite(file, &data[..wanted], offset) {
            Ok(count) => {
                offset += count as u64;
                left -= count as u64;
                reader.consume_data(count);
            }
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno).entry("write", path),
        }
    }
    Ok(())
}

impl std::ops::AddAssign for Lost {
    fn add_assign(&mut self, other: Self) {
        self.owners += other.owners;
        self.xattrs += other.xattrs;
        self.devices += other.devices;
    }
}
