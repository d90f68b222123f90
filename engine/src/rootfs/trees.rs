//! Trees that tests make by hand, and look at as they are or through a real mount.

use std::ffi::{CString, OsStr};
use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use layerstore_unpack::OverlayXattr;
use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, Timespec, Timestamps, XattrFlags, lsetxattr, mkdirat, mknodat,
    openat, utimensat,
};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use super::Rootfs;

/// Who is not root marks trees as in a user namespace.
pub(crate) fn overlay() -> OverlayXattr {
    if rustix::process::geteuid().is_root() { OverlayXattr::Trusted } else { OverlayXattr::User }
}

/// A directory with trees in it.
pub(crate) struct Trees(tempfile::TempDir);

impl Trees {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A new, empty tree.
    pub(crate) fn tree(&self, name: &str) -> Tree {
        std::fs::create_dir(self.path(name)).unwrap();
        Tree(self.path(name))
    }

    /// The merged view of trees, topmost first.
    pub(crate) fn rootfs(&self, names: &[&str]) -> Rootfs {
        let open = |name: &&str| {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            (Rc::new(openat(CWD, self.path(name), flags, Mode::empty()).unwrap()), false)
        };
        Rootfs::new("test", names.iter().map(open).collect(), overlay())
    }

    /// Mounts trees, topmost first; with a writable layer if `upper`.
    pub(crate) fn mount(&self, upper: Option<&str>, lowers: &[&str]) -> Mounted {
        let target = self.path("merged");
        for name in ["merged", "work", "nothing"] {
            std::fs::create_dir_all(self.path(name)).unwrap();
        }
        let mut lowers: Vec<String> =
            lowers.iter().map(|name| self.path(name).display().to_string()).collect();
        if upper.is_none() {
            // The kernel wants two directories at least.
            lowers.push(self.path("nothing").display().to_string());
        }
        let mut data = format!("lowerdir={},index=off,redirect_dir=off,metacopy=off", lowers.join(":"));
        if let Some(upper) = upper {
            let (upper, work) = (self.path(upper), self.path("work"));
            write!(data, ",upperdir={},workdir={}", upper.display(), work.display()).unwrap();
        }
        let data = CString::new(data).unwrap();
        mount("overlay", &target, "overlay", MountFlags::empty(), Some(data.as_c_str())).unwrap();
        Mounted(target)
    }
}

impl Drop for Trees {
    fn drop(&mut self) {
        // Trees may be deeper than what the standard library removes.
        drop(std::process::Command::new("rm").arg("-rf").arg(self.0.path()).status());
    }
}

/// An overlay mount that goes away with the value.
pub(crate) struct Mounted(PathBuf);

impl Mounted {
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// To change it by the same means as a tree. New files get the time of now.
    pub(crate) fn tree(&self) -> Tree {
        Tree(self.0.clone())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        unmount(&self.0, UnmountFlags::DETACH).unwrap();
    }
}

/// A tree that a test fills. Files are all of the same age, as are the directories that they come into.
pub(crate) struct Tree(PathBuf);

impl Tree {
    pub(crate) fn path(&self, path: impl AsRef<[u8]>) -> PathBuf {
        self.0.join(OsStr::from_bytes(path.as_ref()))
    }

    /// Sets the time of a new file and of its directory.
    fn made(&self, path: &[u8]) -> &Self {
        let slash = path.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
        self.time(path, 0).time(&path[..slash], 0)
    }

    pub(crate) fn file(&self, path: impl AsRef<[u8]>, data: impl AsRef<[u8]>) -> &Self {
        std::fs::write(self.path(&path), data).unwrap();
        self.mode(&path, 0o644).made(path.as_ref())
    }

    pub(crate) fn dir(&self, path: impl AsRef<[u8]>) -> &Self {
        std::fs::create_dir(self.path(&path)).unwrap();
        self.mode(&path, 0o755).made(path.as_ref())
    }

    pub(crate) fn symlink(&self, path: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> &Self {
        rustix::fs::symlink(target.as_ref(), self.path(&path)).unwrap();
        self.made(path.as_ref())
    }

    pub(crate) fn link(&self, old: &str, new: &str) -> &Self {
        std::fs::hard_link(self.path(old), self.path(new)).unwrap();
        self.made(new.as_ref())
    }

    pub(crate) fn node(&self, path: impl AsRef<[u8]>, kind: FileType, device: u64) -> &Self {
        mknodat(CWD, self.path(&path), kind, Mode::from_raw_mode(0o644), device).unwrap();
        self.made(path.as_ref())
    }

    pub(crate) fn whiteout(&self, path: impl AsRef<[u8]>) -> &Self {
        self.node(path, FileType::CharacterDevice, 0)
    }

    pub(crate) fn opaque(&self, path: &str) -> &Self {
        self.xattr(path, overlay().opaque(), "y")
    }

    pub(crate) fn xattr(&self, path: impl AsRef<[u8]>, name: &str, value: impl AsRef<[u8]>) -> &Self {
        lsetxattr(self.path(path), name, value.as_ref(), XattrFlags::empty()).unwrap();
        self
    }

    pub(crate) fn mode(&self, path: impl AsRef<[u8]>, mode: u32) -> &Self {
        std::fs::set_permissions(self.path(path), std::fs::Permissions::from_mode(mode)).unwrap();
        self
    }

    pub(crate) fn owner(&self, path: impl AsRef<[u8]>, uid: u32, gid: u32) -> &Self {
        std::os::unix::fs::lchown(self.path(path), Some(uid), Some(gid)).unwrap();
        self
    }

    /// Last modified so many nanoseconds after a certain moment.
    pub(crate) fn time(&self, path: impl AsRef<[u8]>, nanoseconds: i64) -> &Self {
        let time = Timespec { tv_sec: 1_700_000_000, tv_nsec: nanoseconds };
        let times = Timestamps { last_access: time, last_modification: time };
        utimensat(CWD, self.path(path), &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
        self
    }

    /// A directory of the tree as one of its own.
    pub(crate) fn below(&self, path: &str) -> Self {
        Self(self.path(path))
    }

    /// Directories in each other, `depth` of them, all called `name`, and a file `end` in the last one.
    pub(crate) fn deep(&self, name: &str, depth: usize, end: &str) -> &Self {
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
        let mut here = openat(CWD, &self.0, flags, Mode::empty()).unwrap();
        let time = Timespec { tv_sec: 1_700_000_000, tv_nsec: 0 };
        let times = Timestamps { last_access: time, last_modification: time };
        for _ in 0..depth {
            mkdirat(&here, name, Mode::RWXU).unwrap();
            let next = openat(&here, name, flags, Mode::empty()).unwrap();
            // The time of a directory is set when the one in it is made.
            utimensat(&here, ".", &times, AtFlags::empty()).unwrap();
            here = next;
        }
        let create = OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC;
        let file = openat(&here, "file", create, Mode::RUSR).unwrap();
        rustix::io::write(&file, end.as_bytes()).unwrap();
        drop(file);
        utimensat(&here, "file", &times, AtFlags::empty()).unwrap();
        utimensat(&here, ".", &times, AtFlags::empty()).unwrap();
        self
    }
}
