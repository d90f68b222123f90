//! Owners, modes, extended attributes and times: the one place that decides them.
//!
//! The order is fixed by the kernel: `chown` clears set-user-ID and file capabilities, so it comes
//! first; setting an access ACL changes the mode, so extended attributes come before `chmod`; and
//! everything but `utimensat` itself may change times.

use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd as _, BorrowedFd};

use layerstore_tar::Entry;
use rustix::fs::{
    AtFlags, Gid, Mode, Stat, Timespec, Timestamps, Uid, XattrFlags, chownat, fchmod, fchown, fsetxattr,
    fstatvfs, futimens, utimensat,
};
use rustix::io::Errno;

use crate::error::{EntryContext as _, Result, refused};
use crate::options::{Options, OverlayXattr, Ownership};

/// What could not be kept, because the filesystem or the lack of privilege does not allow it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Lost {
    /// Files that belong to whoever unpacked them instead of to their owner.
    pub owners: u64,
    /// Extended attributes.
    pub xattrs: u64,
    /// Device nodes.
    pub devices: u64,
}

/// The times of what the layer says none for: the same on every machine.
pub(crate) const EPOCH: Timestamps = Timestamps {
    last_access: Timespec { tv_sec: 0, tv_nsec: 0 },
    last_modification: Timespec { tv_sec: 0, tv_nsec: 0 },
};

#[derive(Debug)]
pub(crate) struct Attributes {
    owner: Option<(Uid, Gid)>,
    mode: Mode,
    xattrs: Vec<(CString, Vec<u8>)>,
    times: Timestamps,
}

impl Attributes {
    /// Bytes of memory that grow with what the layer says.
    pub(crate) fn size(&self) -> usize {
        self.xattrs.iter().map(|(name, value)| name.as_bytes().len() + value.len()).sum()
    }

    /// Whether the mode must be set although the file was created with it: `chown` clears set-user-ID, and an
    /// access ACL carries a mode of its own.
    pub(crate) fn change_mode(&self) -> bool {
        let acl = |(name, _): &(CString, Vec<u8>)| name.as_bytes() == b"system.posix_acl_access";
        self.mode.as_raw_mode() & 0o7000 != 0 || self.xattrs.iter().any(acl)
    }

    pub(crate) fn new(entry: &Entry, options: &Options) -> Result<Self> {
        let id = |id: u64| -> Result<u32> {
            // -1 means "leave it" to chown.
            u32::try_from(id)
                .ok()
                .filter(|id| *id != u32::MAX)
                .ok_or_else(|| refused(&entry.path, "its owner or group ID is too large"))
        };
        let (uid, gid) = (id(entry.uid)?, id(entry.gid)?);
        let current = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        // What is created belongs to the current user and group: no directory has set-group-ID yet.
        let owner = ((uid, gid) != current).then(|| (Uid::from_raw(uid), Gid::from_raw(gid)));
        let xattrs = entry
            .xattrs
            .iter()
            .map(|(name, value)| {
                let name = CString::new(escape(name, options.overlay))
                    .map_err(|_| refused(&entry.path, "an extended attribute's name contains NUL"))?;
                Ok((name, value.clone()))
            })
            .collect::<Result<_>>()?;
        let mtime = timespec(entry.mtime);
        Ok(Self {
            owner,
            mode: Mode::from_raw_mode(entry.mode),
            xattrs,
            times: Timestamps { last_access: entry.atime.map_or(mtime, timespec), last_modification: mtime },
        })
    }

    /// As given, with no name escaped: of a file that was unpacked before.
    pub(crate) fn exactly(
        stat: &Stat,
        xattrs: Vec<(Vec<u8>, Vec<u8>)>,
        times: Timestamps,
        path: &[u8],
    ) -> Result<Self> {
        let named = |(name, value)| {
            let name =
                CString::new(name).map_err(|_| refused(path, "an extended attribute's name contains NUL"))?;
            Ok((name, value))
        };
        Ok(Self {
            owner: Some((Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid))),
            mode: Mode::from_raw_mode(stat.st_mode & 0o7777),
            xattrs: xattrs.into_iter().map(named).collect::<Result<_>>()?,
            times,
        })
    }

    /// Of a directory that the layer does not list: root's, mode 0755, and a time that is the same on every
    /// machine.
    pub(crate) fn implied() -> Self {
        Self { owner: None, mode: Mode::from_raw_mode(0o755), xattrs: Vec::new(), times: EPOCH }
    }

    pub(crate) fn set_owner_and_xattrs(
        &self,
        file: &Opened<'_>,
        path: &[u8],
        options: &Options,
    ) -> Result<Lost> {
        let mut lost = Lost::default();
        if let Some((uid, gid)) = self.owner {
            lost.owners += allowed(file.set_owner(uid, gid), options).entry("set the owner of", path)?;
        }
        for (name, value) in &self.xattrs {
            match file.set_xattr(name, value) {
                // ext4 says that it is full where an inode has no room for more.
                Err(Errno::TOOBIG) => return Err(refused(path, XATTR_TOO_LARGE)),
                Err(Errno::NOSPC) if file.has_space() => return Err(refused(path, XATTR_TOO_LARGE)),
                result => {
                    lost.xattrs +=
                        xattr_allowed(result, options).entry("set an extended attribute of", path)?;
                }
            }
        }
        Ok(lost)
    }

    pub(crate) fn set_mode(&self, file: &Opened<'_>, path: &[u8]) -> Result<()> {
        file.set_mode(self.mode).entry("set the mode of", path)
    }

    pub(crate) fn set_times(&self, file: &Opened<'_>, path: &[u8]) -> Result<()> {
        file.set_times(&self.times).entry("set the times of", path)
    }
}

/// An open file, in one of two ways that the kernel treats differently.
#[derive(Debug)]
pub(crate) enum Opened<'a> {
    /// Open for reading or writing.
    File(BorrowedFd<'a>),
    /// Open as a path only (`O_PATH`): a link, a device, a pipe.
    Path(BorrowedFd<'a>),
}

impl Opened<'_> {
    fn set_owner(&self, uid: Uid, gid: Gid) -> Result<(), Errno> {
        match self {
            Self::File(file) => fchown(file, Some(uid), Some(gid)),
            Self::Path(file) => chownat(file, "", Some(uid), Some(gid), AtFlags::EMPTY_PATH),
        }
    }

    fn set_xattr(&self, name: &CStr, value: &[u8]) -> Result<(), Errno> {
        match self {
            Self::File(file) => fsetxattr(file, name, value, XattrFlags::empty()),
            Self::Path(file) => rustix::fs::setxattr(proc_path(*file), name, value, XattrFlags::empty()),
        }
    }

    /// Whether the filesystem has room for a few blocks more.
    fn has_space(&self) -> bool {
        let (Self::File(file) | Self::Path(file)) = self;
        fstatvfs(file).is_ok_and(|stat| stat.f_bavail > 64)
    }

    fn set_mode(&self, mode: Mode) -> Result<(), Errno> {
        match self {
            Self::File(file) => fchmod(file, mode),
            Self::Path(file) => rustix::fs::chmod(proc_path(*file), mode),
        }
    }

    fn set_times(&self, times: &Timestamps) -> Result<(), Errno> {
        match self {
            Self::File(file) => futimens(file, times),
            Self::Path(file) => utimensat(file, "", times, AtFlags::EMPTY_PATH),
        }
    }
}

const XATTR_TOO_LARGE: &str = "its extended attributes are larger than this filesystem can store";

/// The magic link leads to this very file; if that is a symbolic link, it is not followed.
fn proc_path(file: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", file.as_raw_fd())
}

fn timespec(time: layerstore_tar::Timestamp) -> Timespec {
    Timespec { tv_sec: time.seconds, tv_nsec: time.nanoseconds.into() }
}

/// Names that overlayfs would act on get one more `overlay.`, which overlayfs takes off again (Linux 6.7), so
/// that they neither act nor vanish.
fn escape(name: &[u8], overlay: OverlayXattr) -> Vec<u8> {
    match name.strip_prefix(overlay.prefix()) {
        Some(rest) => [overlay.prefix(), b"overlay.", rest].concat(),
        None => name.to_vec(),
    }
}

/// Counts what may not be set without privilege, if that is to be tolerated.
fn allowed(result: Result<(), Errno>, options: &Options) -> Result<u64, Errno> {
    match result {
        Ok(()) => Ok(0),
        Err(Errno::PERM | Errno::INVAL) if options.ownership == Ownership::Current => Ok(1),
        Err(errno) => Err(errno),
    }
}

/// "Not supported" is the one failure of an extended attribute that is always tolerated.
fn xattr_allowed(result: Result<(), Errno>, options: &Options) -> Result<u64, Errno> {
    match result {
        Err(Errno::OPNOTSUPP) => Ok(1),
        other => allowed(other, options),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_overlayfs_acts_on_are_escaped() {
        let trusted = OverlayXattr::Trusted;
        assert_eq!(escape(b"trusted.overlay.opaque", trusted), b"trusted.overlay.overlay.opaque");
        assert_eq!(
            escape(b"trusted.overlay.overlay.opaque", trusted),
            b"trusted.overlay.overlay.overlay.opaque"
        );
        assert_eq!(escape(b"user.overlay.origin", trusted), b"user.overlay.origin");
        assert_eq!(escape(b"user.overlay.origin", OverlayXattr::User), b"user.overlay.overlay.origin");
        assert_eq!(escape(b"security.capability", trusted), b"security.capability");
    }
}
