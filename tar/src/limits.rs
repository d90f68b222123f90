/// What a [`Reader`](crate::Reader) accepts, and so how much memory an archive can make it hold.
///
/// Everything else it keeps is of fixed size; data is never buffered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Longest path of an entry, in bytes. Default 32,768: files whose path is longer than Linux's `PATH_MAX`
    /// (4096) exist, and are opened step by step.
    pub path: usize,
    /// Longest link target, in bytes. Default 32,768, as for `path`: a hard link names another entry.
    pub link: usize,
    /// Largest body of one PAX header, GNU long name or long link, in bytes. Default 1 MiB, the limit of Go's
    /// `archive/tar`: what is larger, no container engine written in Go can read either.
    pub extension: u64,
    /// Most bytes of extended attributes, names and values together, in one PAX header and in the entry that
    /// results from it. Default 1 MiB: `extension` allows no more in one header.
    pub xattr_bytes: usize,
    /// Most extended attributes of one PAX header and one entry. Default 256. Files carry a handful; Linux
    /// lists at most 64 KiB of names (`XATTR_LIST_MAX`).
    pub xattrs: usize,
    /// Most segments in a sparse file's map. Default 1,048,576, which take 16 MiB.
    pub sparse_segments: usize,
    /// Most extension headers before one entry. Default 16. Real archives have at most four: a global and a
    /// local PAX header, a long name and a long link.
    pub extensions: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            path: 32_768,
            link: 32_768,
            extension: 1 << 20,
            xattr_bytes: 1 << 20,
            xattrs: 256,
            sparse_segments: 1 << 20,
            extensions: 16,
        }
    }
}
