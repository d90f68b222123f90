//! Time, the boot and the mount: what the store asks its surroundings, replaceable in tests.

use std::fmt::Debug;
use std::io;
use std::path::Path;

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
        use rustix::fs::{AtFlags, CWD, StatxFlags, statx};
        const STATX_MNT_ID_UNIQUE: u32 = 0x4000;
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned();
        let mask = StatxFlags::MNT_ID | StatxFlags::from_bits_retain(STATX_MNT_ID_UNIQUE);
        let mount = statx(CWD, path, AtFlags::empty(), mask)?.stx_mnt_id;
        Ok(Self { boot, mount: mount.cast_signed() })
    }
}
