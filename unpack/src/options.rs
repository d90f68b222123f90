//! What an unpacked layer looks like on disk, and how much of it is accepted.

/// Which extended attributes overlayfs reads its marks from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OverlayXattr {
    /// `trusted.overlay.*`, the kernel's default; needs `CAP_SYS_ADMIN` in the initial user namespace.
    Trusted,
    /// `user.overlay.*`, for mounts with the option `userxattr` in a user namespace.
    User,
}

impl OverlayXattr {
    /// The prefix of the names that overlayfs acts on.
    pub(crate) fn prefix(self) -> &'static [u8] {
        match self {
            Self::Trusted => b"trusted.overlay.",
            Self::User => b"user.overlay.",
        }
    }

    /// The attribute that tells of what a directory was copied up from.
    pub(crate) fn origin(self) -> &'static str {
        match self {
            Self::Trusted => "trusted.overlay.origin",
            Self::User => "user.overlay.origin",
        }
    }

    /// The attribute that makes a directory opaque when its value is `y`.
    pub fn opaque(self) -> &'static str {
        match self {
            Self::Trusted => "trusted.overlay.opaque",
            Self::User => "user.overlay.opaque",
        }
    }
}

/// Who owns the files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ownership {
    /// As the layer says. An owner that cannot be set is an error.
    Layer,
    /// Whoever unpacks, where owners, devices and privileged attributes cannot be set. What is lost is
    /// counted in [`Unpacked::lost`](crate::Unpacked).
    Current,
}

/// Whether a layer may have device nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Devices {
    /// They are made, where the process may.
    #[default]
    Allow,
    /// A layer with one is refused. A container gets its devices from its runtime, so an image needs none.
    Refuse,
}

/// How much of a layer is accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the uncompressed stream, and of all files together with their holes. Default 1 TiB.
    pub output_bytes: u64,
    /// Bytes that may come out for each byte of the compressed stream, once more than `ratio_from` have come out.
    /// Default 1200: gzip cannot make more than 1032, so by default this stops only zstd bombs.
    pub ratio: u64,
    /// Bytes that may come out whatever the ratio. Default 4 GiB, so that large files of zeros are no bomb.
    pub ratio_from: u64,
    /// Entries. Default 10 million, a hundred times what large images have.
    pub entries: u64,
    /// Directories on the way to a file. Default 2048: no path that can be opened at once has more.
    pub depth: usize,
    /// Bytes that are kept in memory until the end: the paths of directories, whiteouts and hard links to what is
    /// not there, the extended attributes of directories, and some for each. Default 128 MiB, enough for a million
    /// directories that are listed. Does not count the window of a zstd stream, 128 MiB at most.
    pub memory: u64,
    /// Device nodes.
    pub devices: Devices,
    /// What the tar reader accepts: lengths of paths, links and extended attributes.
    pub tar: layerstore_tar::Limits,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            output_bytes: 1 << 40,
            ratio: 1200,
            ratio_from: 4 << 30,
            entries: 10_000_000,
            depth: 2048,
            memory: 128 << 20,
            devices: Devices::Allow,
            tar: layerstore_tar::Limits::default(),
        }
    }
}

/// How to unpack.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// The form of opaque marks.
    pub overlay: OverlayXattr,
    /// Who owns the files.
    pub ownership: Ownership,
    /// What is accepted.
    pub limits: Limits,
}
