//! Time, the boot and the mount: what the store asks its surroundings, replaceable in tests.

use std::fmt::Debug;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Statx, StatxFlags, statx};
use rustix::io::Errno;

/// Seconds since 1970-01-01 00:00 UTC.
pub type UnixSeconds = i64;

/// Where the store gets the time from.
pub trait Clock: Send + Sync + Debug {
    /// Now.
    fn now(&self) -> UnixSeconds;
}

/// The system's wall clock.
#[derive(Debug, Default, Clone, Copy)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> UnixSeconds {
        jiff::Timestamp::now().as_second()
    }
}

/// Which life of the filesystem something was written in: the kernel's boot and the mount.
///
/// What was written, but not synced, under the same boot and mount is still there as the kernel's
/// page cache has it; under any other it may be half there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Life {
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot: String,
    /// The unique ID of the mount that holds the root (`STATX_MNT_ID_UNIQUE`, Linux 6.8), else its
    /// reusable ID.
    pub mount: i64,
}

impl Life {
    /// The life of the filesystem that holds `path`, now.
    pub fn of(path: &Path) -> io::Result<Self> {
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned();
        Ok(Self { boot, mount: mount_id(&stat_mount(path)?) })
    }
}

/// What the kernel knows about `path`, which is not followed, and about the mount that holds it.
pub(crate) fn stat_mount(path: &Path) -> Result<Statx, Errno> {
    const STATX_MNT_ID_UNIQUE: u32 = 0x4000;
    let mask =
        StatxFlags::BASIC_STATS | StatxFlags::MNT_ID | StatxFlags::from_bits_retain(STATX_MNT_ID_UNIQUE);
    statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, mask)
}

/// The unique ID of the mount (Linux 6.8), else its reusable one.
pub(crate) fn mount_id(found: &Statx) -> i64 {
    found.stx_mnt_id.cast_signed()
}

/// The mount namespace of this process: the inode of `/proc/self/ns/mnt`.
pub(crate) fn mount_namespace() -> io::Result<i64> {
    Ok(std::fs::metadata("/proc/self/ns/mnt")?.ino().cast_signed())
}
