//! The system calls for project IDs and quotas.

use std::ffi::{CString, OsStr};
use std::fmt;
use std::fs;
use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use nix::libc;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxFlags, openat, statx};
use rustix::io::Errno;
use rustix::ioctl::{Getter, Opcode, Setter, ioctl, opcode};

use super::{Quota, QuotaUsage};
use crate::overlay::unescape;

/// Opens a directory itself; `O_PATH` would not do for an `ioctl`.
pub(super) fn open(path: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(CWD, path, flags, Mode::empty())
}

/// `struct fsxattr` of `linux/fs.h`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
struct Attributes {
    flags: u32,
    extent_size: u32,
    extents: u32,
    project: u32,
    copy_extent_size: u32,
    padding: [u8; 8],
}

const GET: Opcode = opcode::read::<Attributes>(b'X', 31);
const SET: Opcode = opcode::write::<Attributes>(b'X', 32);
const PROJECT_INHERIT: u32 = 0x200;

#[expect(unsafe_code, reason = "nothing safe offers this ioctl")]
fn attributes(directory: &OwnedFd) -> Result<Attributes, Errno> {
    // SAFETY: FS_IOC_FSGETXATTR writes this structure, all of which may have any bits.
    unsafe { ioctl(directory, Getter::<GET, Attributes>::new()) }
}

/// The project of a directory.
pub(super) fn project(directory: &OwnedFd) -> Result<u32, Errno> {
    attributes(directory).map(|attributes| attributes.project)
}

/// Sets the project of a directory and of what will be created in it.
#[expect(unsafe_code, reason = "nothing safe offers this ioctl")]
pub(super) fn set_project(directory: &OwnedFd, project: u32) -> Result<(), Errno> {
    let before = attributes(directory)?;
    let attributes = Attributes { flags: before.flags | PROJECT_INHERIT, project, ..before };
    // SAFETY: FS_IOC_FSSETXATTR reads this structure.
    unsafe { ioctl(directory, Setter::<SET, Attributes>::new(attributes)) }
}

const PROJECT_QUOTA: i32 = 2;
/// `XQM_CMD(8)` of `linux/dqblk_xfs.h`, understood for every filesystem.
const GET_STATE: i32 = ((b'X' as i32) << 8) + 8;
const LIMITS_ARE_KEPT: u16 = 1 << 5;
/// `QIF_DQBLKSIZE`: limits are in blocks of that many bytes.
const BLOCK: u64 = 1024;

/// `struct fs_quota_statv` of `linux/dqblk_xfs.h`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
struct State {
    version: i8,
    padding: u8,
    flags: u16,
    /// What it says about each kind of quota is not asked for.
    rest: [u32; 39],
}

/// A filesystem that may have quotas.
#[derive(Debug)]
pub(super) struct Filesystem {
    directory: OwnedFd,
    /// Where the mount table tells.
    mount: Option<MountLine>,
}

impl fmt::Display for Filesystem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.mount {
            Some(MountLine { kind, source }) => {
                write!(f, "the {kind} filesystem on {}", OsStr::from_bytes(source.as_bytes()).display())
            }
            None => f.write_str("the filesystem"),
        }
    }
}

impl Filesystem {
    pub(super) fn of(path: &Path, directory: OwnedFd) -> Self {
        Self { directory, mount: mount_line(path) }
    }

    /// Its type, as the kernel calls it.
    pub(super) fn kind(&self) -> &str {
        self.mount.as_ref().map_or("", |mount| &mount.kind)
    }

    /// Whether limits of projects hold; they may also only be counted.
    pub(super) fn keeps_limits(&self) -> Result<bool, Errno> {
        let mut state = State { version: 1, padding: 0, flags: 0, rest: [0; 39] };
        self.control(GET_STATE, 0, &mut state)?;
        Ok(state.flags & LIMITS_ARE_KEPT != 0)
    }

    pub(super) fn set_limits(&self, project: u32, quota: &Quota) -> Result<(), Errno> {
        // The kernel takes 0 for no limit.
        let limit = |limit: Option<u64>, unit: u64| limit.map_or(0, |limit| (limit / unit).max(1));
        let mut block = empty();
        block.dqb_bhardlimit = limit(quota.bytes, BLOCK);
        block.dqb_ihardlimit = limit(quota.inodes, 1);
        block.dqb_valid = libc::QIF_BLIMITS | libc::QIF_ILIMITS;
        self.control(libc::Q_SETQUOTA, project, &mut block)
    }

    pub(super) fn usage(&self, project: u32) -> Result<QuotaUsage, Errno> {
        let mut block = empty();
        self.control(libc::Q_GETQUOTA, project, &mut block)?;
        Ok(QuotaUsage { bytes: block.dqb_curspace, inodes: block.dqb_curinodes })
    }

    /// `T` is what the command reads or writes.
    #[expect(unsafe_code, reason = "no crate has quotactl for projects")]
    fn control<T: Copy>(&self, command: i32, project: u32, data: &mut T) -> Result<(), Errno> {
        let get = libc::QCMD(libc::Q_GETQUOTA, PROJECT_QUOTA);
        let command = libc::QCMD(command, PROJECT_QUOTA);
        let data = std::ptr::from_mut(data);
        // SAFETY: the callers pass the structure of the command, which outlives the call.
        let outcome = unsafe {
            libc::syscall(libc::SYS_quotactl_fd, self.directory.as_raw_fd(), command, project, data)
        };
        match (last_errno(outcome), &self.mount) {
            // For kernels without `quotactl_fd`.
            (Err(Errno::NOSYS), Some(mount)) => {
                // SAFETY: as above; the device is a C string.
                let outcome = unsafe {
                    libc::syscall(libc::SYS_quotactl, command, mount.source.as_ptr(), project, data)
                };
                match last_errno(outcome) {
                    // Also a filesystem without quotas answers as if there were no such call.
                    Err(Errno::NOENT | Errno::NOTBLK | Errno::NODEV) if command != get => Err(Errno::NOSYS),
                    other => other,
                }
            }
            (outcome, _) => outcome,
        }
    }
}

fn last_errno(outcome: libc::c_long) -> Result<(), Errno> {
    if outcome == 0 {
        return Ok(());
    }
    Err(Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO))
}

fn empty() -> libc::dqblk {
    libc::dqblk {
        dqb_bhardlimit: 0,
        dqb_bsoftlimit: 0,
        dqb_curspace: 0,
        dqb_ihardlimit: 0,
        dqb_isoftlimit: 0,
        dqb_curinodes: 0,
        dqb_btime: 0,
        dqb_itime: 0,
        dqb_valid: 0,
    }
}

/// What `/proc/self/mountinfo` says about the mount that holds a path.
#[derive(Debug)]
struct MountLine {
    kind: String,
    source: CString,
}

fn mount_line(path: &Path) -> Option<MountLine> {
    let found = statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::MNT_ID).ok()?;
    let id = found.stx_mnt_id.to_string();
    let table = fs::read("/proc/self/mountinfo").ok()?;
    let line = table
        .split(|byte| *byte == b'\n')
        .find(|line| line.split(|b| *b == b' ').next() == Some(id.as_bytes()))?;
    let mut rest = line.split(|byte| *byte == b' ').skip_while(|field| *field != b"-").skip(1);
    let kind = String::from_utf8_lossy(rest.next()?).into_owned();
    Some(MountLine { kind, source: CString::new(unescape(rest.next()?)).ok()? })
}

// The sizes are part of the kernel's interface.
const _: () = assert!(size_of::<Attributes>() == 28 && size_of::<State>() == 160);
