/// One file of an archive: everything its headers say.
///
/// Names are bytes exactly as archived: `./`, `..`, a leading or a trailing slash are left for the caller to
/// judge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Path in the archive. Holds no NUL; may be empty.
    pub path: Vec<u8>,
    /// What is created.
    pub kind: EntryKind,
    /// Target of a symbolic link, or the path of the entry a hard link repeats. Empty for other kinds, unless
    /// the archive says something there all the same.
    pub link: Vec<u8>,
    /// Bytes of the file once unpacked, holes included; 0 for what has no content.
    pub size: u64,
    /// Bytes of data the archive holds for the entry: `size`, without holes. A GNU dump directory has some
    /// although its `size` is 0.
    pub archived_size: u64,
    /// Permission bits with set-user-ID, set-group-ID and sticky: `0o7777` at most.
    pub mode: u32,
    /// Owner.
    pub uid: u64,
    /// Group.
    pub gid: u64,
    /// Name of the owner, or empty.
    pub uname: Vec<u8>,
    /// Name of the group, or empty.
    pub gname: Vec<u8>,
    /// Time of last modification.
    pub mtime: Timestamp,
    /// Time of last access, where the archive has one.
    pub atime: Option<Timestamp>,
    /// Time of last status change, where the archive has one.
    pub ctime: Option<Timestamp>,
    /// Major and minor number of a device; zeros for other kinds.
    pub device: (u32, u32),
    /// Extended attributes: full name (`user.x`, `security.capability`) and value, each name once.
    pub xattrs: Vec<Xattr>,
    /// The segments of a sparse file that have data: sorted, apart, not empty, inside `size`, together
    /// `archived_size` bytes long. Everything else is a hole.
    pub sparse: Option<Vec<Segment>>,
}

/// An extended attribute: its full name and its value.
pub type Xattr = (Vec<u8>, Vec<u8>);

/// Type of an [`Entry`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EntryKind {
    /// A file with data, sparse or not.
    Regular,
    /// Another name for an earlier entry.
    HardLink,
    /// A symbolic link.
    Symlink,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// A directory.
    Directory,
    /// A named pipe.
    Fifo,
    /// A type this crate does not know, with its type flag: a volume label (`V`), a continued file (`M`),
    /// some vendor's own.
    Other(u8),
}

/// A point in time: `seconds` since 1970 in UTC plus `nanoseconds`, which always count forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp {
    /// Whole seconds since the epoch, rounded down.
    pub seconds: i64,
    /// Nanoseconds since then: less than 1,000,000,000.
    pub nanoseconds: u32,
}

/// A stretch of a sparse file that has data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Where in the file it starts, in bytes.
    pub offset: u64,
    /// Its length in bytes.
    pub len: u64,
}

/// For writing archives: a name and the least that kind needs. Owner root, time 0, mode 0755 for directories,
/// 0777 for symbolic links and 0644 for the others; set the other fields with `..` or by assignment.
impl Entry {
    fn new(path: &[u8], kind: EntryKind, mode: u32) -> Self {
        Self {
            path: path.to_vec(),
            kind,
            link: Vec::new(),
            size: 0,
            archived_size: 0,
            mode,
            uid: 0,
            gid: 0,
            uname: Vec::new(),
            gname: Vec::new(),
            mtime: Timestamp::default(),
            atime: None,
            ctime: None,
            device: (0, 0),
            xattrs: Vec::new(),
            sparse: None,
        }
    }

    /// A file of `size` bytes without holes.
    pub fn regular(path: &[u8], size: u64) -> Self {
        Self { size, archived_size: size, ..Self::new(path, EntryKind::Regular, 0o644) }
    }

    /// A directory. Tar tradition ends its path in a slash; nothing adds one.
    pub fn directory(path: &[u8]) -> Self {
        Self::new(path, EntryKind::Directory, 0o755)
    }

    /// A symbolic link to `target`.
    pub fn symlink(path: &[u8], target: &[u8]) -> Self {
        Self { link: target.to_vec(), ..Self::new(path, EntryKind::Symlink, 0o777) }
    }

    /// Another name for the entry whose path is `target`.
    pub fn hard_link(path: &[u8], target: &[u8]) -> Self {
        Self { link: target.to_vec(), ..Self::new(path, EntryKind::HardLink, 0o644) }
    }

    /// A character device.
    pub fn char_device(path: &[u8], major: u32, minor: u32) -> Self {
        Self { device: (major, minor), ..Self::new(path, EntryKind::CharDevice, 0o644) }
    }

    /// A block device.
    pub fn block_device(path: &[u8], major: u32, minor: u32) -> Self {
        Self { device: (major, minor), ..Self::new(path, EntryKind::BlockDevice, 0o644) }
    }

    /// A named pipe.
    pub fn fifo(path: &[u8]) -> Self {
        Self::new(path, EntryKind::Fifo, 0o644)
    }
}
