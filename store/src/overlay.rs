//! Mounting trees: a read-only overlay of any number of layers.
//!
//! With the new mount API each lower directory is passed by itself (`lowerdir+`, Linux 6.8, as a
//! file descriptor since 6.13), so nothing has to be escaped and nothing is too long. `mount(2)`
//! takes all of its options in one page of memory; there the lower directories are given as short
//! relative symbolic links, which the kernel resolves while mounting.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, StatxAttributes};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags, UnmountFlags, fsconfig_create,
    fsconfig_set_fd, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, mount, move_mount, unmount,
};

use crate::clock::{mount_id, stat_mount};
use crate::error::{Error, IoContext as _, Result};
use crate::layout::random_name;
#[cfg(doc)]
use crate::lock::Key;
use crate::recover::entries;
use crate::store::Store;

/// What the names of directories with the links of one mount begin with.
const LINKS: &str = ".links-";

/// What the mount table shows as the source.
const SOURCE: &str = "layerstore";

/// `OVL_MAX_STACK` of the kernel's overlayfs.
pub const MAX_LAYERS: usize = 500;

/// How to ask the kernel for a mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MountApi {
    /// The newest that the kernel has.
    #[default]
    Newest,
    /// `mount(2)`, as before Linux 6.8.
    Classic,
}

/// How to mount trees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MountOptions {
    /// How to ask the kernel.
    pub api: MountApi,
    /// Whether overlayfs reads its marks from `user.overlay.*`, as a user namespace must have it (Linux 5.11).
    pub user_xattrs: bool,
}

impl From<MountApi> for MountOptions {
    fn from(api: MountApi) -> Self {
        Self { api, ..Self::default() }
    }
}

impl Store {
    /// Mounts `lowers` (topmost first) read-only at `target`, an existing directory.
    pub(crate) fn mount_read_only(
        &self,
        lowers: &[PathBuf],
        target: &Path,
        options: MountOptions,
    ) -> Result<()> {
        if lowers.len() > MAX_LAYERS {
            return Err(Error::TooManyLayers { count: lowers.len(), max: MAX_LAYERS });
        }
        let mut lowers = lowers.to_vec();
        // Without an upper directory overlayfs wants two lower ones. A bind mount would do for a
        // single layer, but would show its whiteouts as devices.
        for empty in self.layout().empty() {
            if lowers.len() < 2 {
                lowers.push(empty);
            }
        }
        if options.api == MountApi::Newest {
            match mount_with_descriptors(&lowers, target, options) {
                Err(Errno::NOSYS | Errno::INVAL | Errno::OPNOTSUPP) => {}
                other => return other.context("mount an overlay at", target),
            }
        }
        self.mount_classic(&lowers, target, options)
    }

    fn mount_classic(&self, lowers: &[PathBuf], target: &Path, options: MountOptions) -> Result<()> {
        let more = if options.user_xattrs { ",userxattr" } else { "" };
        let links = self.layout().mounts().join(format!("{LINKS}{}", random_name()));
        fs::create_dir(&links).context("create", &links)?;
        let mounted = link_all(lowers, &links)
            .and_then(|lowers| mount_in(&links, target, &(lowers + more)))
            .context("mount an overlay at", target);
        if let Err(error) = fs::remove_dir_all(&links) {
            tracing::warn!(%error, path = %links.display(), "temporary links stay");
        }
        mounted
    }
}

impl Store {
    /// Removes the links of killed mounts. The caller holds [`Key::Mounts`].
    pub(crate) fn remove_links(&self) -> Result<()> {
        for path in entries(&self.layout().mounts())? {
            if path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(LINKS.as_bytes())) {
                fs::remove_dir_all(&path).context("delete", &path)?;
            }
        }
        Ok(())
    }
}

/// Takes a mount away. A mount that is busy is refused by the kernel.
pub(crate) fn unmount_at(target: &Path) -> Result<()> {
    unmount(target, UnmountFlags::NOFOLLOW).context("unmount", target)
}

fn mount_with_descriptors(lowers: &[PathBuf], target: &Path, options: MountOptions) -> Result<(), Errno> {
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(context.as_fd(), "source", SOURCE)?;
    for lower in lowers {
        let directory = rustix::fs::openat(
            CWD,
            lower,
            OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        fsconfig_set_fd(context.as_fd(), "lowerdir+", directory.as_fd())?;
    }
    if options.user_xattrs {
        fsconfig_set_flag(context.as_fd(), "userxattr")?;
    }
    fsconfig_set_flag(context.as_fd(), "ro")?;
    fsconfig_create(context.as_fd())?;
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY;
    let mounted = fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
    move_mount(mounted.as_fd(), "", CWD, target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
}

fn link_all(lowers: &[PathBuf], links: &Path) -> io::Result<String> {
    let mut options = String::from("lowerdir=");
    for (index, lower) in lowers.iter().enumerate() {
        if index > 0 {
            options.push(':');
        }
        let name = index.to_string();
        std::os::unix::fs::symlink(lower, links.join(&name))?;
        options.push_str(&name);
    }
    Ok(options)
}

/// Relative lower directories are looked up from the working directory, which belongs to the
/// process; a thread of its own gets one of its own.
fn mount_in(links: &Path, target: &Path, options: &str) -> io::Result<()> {
    let options = std::ffi::CString::new(options)?;
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| -> io::Result<()> {
            let directory = File::open(links)?;
            // SAFETY: CLONE_FS only gives this thread its own working directory, root and umask;
            // the file descriptor table stays shared.
            #[expect(
                unsafe_code,
                reason = "unshare is unsafe for the sake of CLONE_FILES, which is not asked for"
            )]
            unsafe {
                rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::FS)?;
            }
            rustix::process::fchdir(directory.as_fd())?;
            Ok(mount(SOURCE, target, "overlay", MountFlags::RDONLY, &*options)?)
        });
        thread.join().unwrap_or_else(|_| Err(io::Error::other("the mounting thread panicked")))
    })
}

/// The ID of what is mounted exactly at `path`, on top of all others there.
pub(crate) fn mount_at(path: &Path) -> io::Result<Option<i64>> {
    match stat_mount(path) {
        Ok(found) if found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT) => Ok(Some(mount_id(&found))),
        Ok(_) | Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

/// Whether trees are mounted at `path`, be it below another mount, where no path leads to them.
pub(crate) fn is_mounted_below(path: &Path) -> io::Result<bool> {
    let table = fs::read("/proc/self/mountinfo")?;
    Ok(table.split(|byte| *byte == b'\n').any(|line| {
        // The mount point is the fifth field; type and source come after those that vary in number.
        let mut fields = line.split(|byte| *byte == b' ');
        let here = fields.nth(4).is_some_and(|point| unescape(point) == path.as_os_str().as_bytes());
        let mut rest = fields.skip_while(|field| *field != b"-").skip(1);
        here && rest.next() == Some(b"overlay") && rest.next() == Some(SOURCE.as_bytes())
    }))
}

/// The kernel writes space, tab, newline and backslash as `\ooo`.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, tail)) = rest.split_first() {
        let code = tail.get(..3).filter(|_| first == b'\\').and_then(|code| std::str::from_utf8(code).ok());
        match code.and_then(|code| u8::from_str_radix(code, 8).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[3..];
            }
            None => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    bytes
}
