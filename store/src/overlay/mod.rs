//! Mounting stacks of trees: read-only or with a tree that takes the changes.
//!
//! A [`Stack`] says which trees; it becomes an overlay or a bind mount (the module `shape`), which is either
//! described ([`Stack::as_mount`]) or performed ([`Store::mount_stack`]).
//!
//! With the new mount API each lower directory is passed by itself, so nothing has to be escaped and nothing
//! is too long. `mount(2)` takes all of its options in one page of memory; there the directories are given as
//! short relative symbolic links, which the kernel resolves while mounting.
//!
//! # What the kernel has since when
//!
//! | what | Linux | source |
//! | --- | --- | --- |
//! | `index=off` | 4.13 | its `overlayfs.rst`; asked of `/sys/module/overlay/parameters` |
//! | `redirect_dir=nofollow`, `metacopy=off` | 4.16, 4.19 | the same |
//! | `fsopen`, `fsmount`, `open_tree`, `move_mount` | 5.2 | `fsopen(2)`, `open_tree(2)` |
//! | `volatile` | 5.10 | `overlayfs.rst`, "Volatile mount" |
//! | `userxattr`, overlays in user namespaces | 5.11 | `overlayfs.rst`, "User xattr" |
//! | `mount_setattr`, id-mapped mounts | 5.12 | `mount_setattr(2)` |
//! | overlays of id-mapped layers | 5.19 | `mount_setattr(2)`; `ovl_get_layers` in `fs/overlayfs/super.c` |
//! | `lowerdir+`, a string of up to 255 bytes | 6.8 | `overlayfs.rst`; `fs/fsopen.c` has the limit |
//! | `lowerdir+`, `upperdir`, `workdir` as descriptors | 6.13 | `overlayfs.rst` |
//! | detached mounts as layers | 6.15 | `clone_private_mount` in `fs/namespace.c` |
//!
//! Each way is tried in turn, the newest first: kernels that miss one refuse it with `ENOSYS`,
//! `EINVAL` or `EBADF`.

mod bind;
mod classic;
mod data;
mod descriptors;
mod idmap;
mod layers;
mod namespace;
mod shape;
mod table;
#[cfg(test)]
mod tests;
mod volatile;

use std::path::{Path, PathBuf};

use rustix::io::Errno;

use crate::error::{Error, IoContext as _, Result};
use crate::store::Store;
use layers::Layers;
use shape::Shape;

pub(crate) use classic::LINKS;
pub use data::Mount;
pub use idmap::{IdMap, IdRange};
pub(crate) use table::{is_mounted_below, is_own_overlay, mount_at, shows_ours, unescape, unmount_at};
pub use volatile::{clear_volatile, has_volatile_mark};

/// What the mount table shows as the source.
const SOURCE: &str = "layerstore";

/// `OVL_MAX_STACK` of the kernel's overlayfs (`fs/overlayfs/params.h`).
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
#[derive(Debug, Clone, Default)]
pub struct MountOptions {
    /// How to ask the kernel.
    pub api: MountApi,
    /// Whether overlayfs reads its marks from `user.overlay.*`, as a user namespace must have it (Linux 5.11).
    pub user_xattrs: bool,
    /// Whether what is written need not survive a power cut: overlayfs syncs nothing (Linux 5.10). It leaves a
    /// mark behind, with which it refuses the same upper tree until [`clear_volatile`]. Without an upper
    /// tree, and where the mount is a bind mount, it means nothing.
    pub volatile: bool,
    /// The IDs of a container with a user namespace of its own: owners on disk stay those of the image, and
    /// the mount shows the host's (Linux 5.19).
    pub id_map: Option<IdMap>,
    /// Whether nothing can be written, though there is an upper tree.
    pub read_only: bool,
}

impl From<MountApi> for MountOptions {
    fn from(api: MountApi) -> Self {
        Self { api, ..Self::default() }
    }
}

/// A stack of trees as it is to be mounted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Stack {
    /// The directories that are only read, topmost first.
    pub lowers: Vec<PathBuf>,
    /// What takes the changes; without it the mount is read-only.
    pub upper: Option<Upper>,
    /// Whether the lowest tree has no whiteouts and no other marks of overlayfs, so that it can be shown as
    /// it is. Only then is a single tree a bind mount.
    pub plain: bool,
}

/// The tree that takes the changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upper {
    /// A directory that holds `diff` and `work`, on one filesystem, used by one mount at a time. The kernel
    /// does not look after that: with `index=off` it lets two mounts write to one tree.
    pub tree: PathBuf,
}

impl Upper {
    /// Where the changes are.
    pub fn diff(&self) -> PathBuf {
        self.tree.join(DIFF)
    }

    /// Overlayfs's own directory.
    pub fn work(&self) -> PathBuf {
        self.tree.join(WORK)
    }
}

const DIFF: &str = "diff";
const WORK: &str = "work";

impl Store {
    /// Mounts a stack at `target`, an existing directory; a symbolic link is not followed.
    ///
    /// Fails with [`Error::NotFound`] and [`Error::NotADirectory`] for a wrong target, [`Error::TooManyLayers`],
    /// [`Error::NoPrivilege`] where this process must not mount, and [`Error::NotSupported`] where the kernel
    /// or the filesystem cannot do what the options ask for. Then nothing is mounted.
    pub fn mount_stack(&self, stack: &Stack, target: &Path, options: &MountOptions) -> Result<()> {
        let shape = Shape::of(stack, self.layout(), options)?;
        check_target(target)?;
        match shape {
            Shape::Bind { tree, read_only } => bind::mount_tree(&tree, read_only, target, options),
            Shape::Overlay { lowers, upper, read_only } => {
                let layers = Layers { lowers: &lowers, upper, read_only };
                self.mount_overlay(&layers, target, options)
            }
        }
    }

    fn mount_overlay(&self, layers: &Layers<'_>, target: &Path, options: &MountOptions) -> Result<()> {
        let ways: &[Way] = match options.api {
            MountApi::Newest => &[Way::Descriptors, Way::DescriptorPaths, Way::Classic],
            MountApi::Classic => &[Way::Classic],
        };
        let mut refusal = Errno::NOSYS;
        for way in ways {
            match self.try_overlay(*way, layers, target, options) {
                Err(Attempt::Refused(errno)) if is_unknown(errno) => refusal = errno,
                other => return other.map_err(|error| error.at(target, options)),
            }
        }
        Err(Attempt::Refused(refusal).at(target, options))
    }

    fn try_overlay(
        &self,
        way: Way,
        layers: &Layers<'_>,
        target: &Path,
        options: &MountOptions,
    ) -> Result<(), Attempt> {
        match way {
            Way::Classic => self.mount_classic(layers, target, options),
            _ => descriptors::mount_overlay(layers, target, options, way == Way::DescriptorPaths),
        }
    }
}

/// The ways to hand layers to the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// As file descriptors.
    Descriptors,
    /// As the paths that `/proc` has for file descriptors.
    DescriptorPaths,
    /// In the options of `mount(2)`.
    Classic,
}

/// Whether the kernel may not have understood. Before Linux 6.13 descriptors that only stand for a directory
/// (`O_PATH`) are none to `fsconfig(2)`.
fn is_unknown(errno: Errno) -> bool {
    matches!(errno, Errno::NOSYS | Errno::INVAL | Errno::OPNOTSUPP | Errno::BADF)
}

/// Why one way to mount failed.
#[derive(Debug)]
enum Attempt {
    /// The kernel refused to mount. It may take another way.
    Refused(Errno),
    /// Something else, which no other way mends.
    Failed(Error),
}

impl From<Errno> for Attempt {
    fn from(errno: Errno) -> Self {
        Self::Refused(errno)
    }
}

impl From<Error> for Attempt {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl Attempt {
    /// The error of the whole mount.
    fn at(self, target: &Path, options: &MountOptions) -> Error {
        match self {
            Self::Failed(error) => error,
            Self::Refused(errno @ (Errno::PERM | Errno::ACCESS)) => {
                Error::NoPrivilege { target: target.to_owned(), source: errno.into() }
            }
            Self::Refused(errno @ (Errno::NOSYS | Errno::INVAL | Errno::OVERFLOW | Errno::OPNOTSUPP))
                if options.id_map.is_some() =>
            {
                idmap::unsupported(target, errno)
            }
            Self::Refused(errno) => {
                Error::Io { action: "mount trees at", path: target.to_owned(), source: errno.into() }
            }
        }
    }
}

/// A mount point that cannot be one is told before anything is mounted.
fn check_target(target: &Path) -> Result<()> {
    let metadata = match std::fs::symlink_metadata(target) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(Error::NotFound { what: "mount point", name: target.display().to_string() });
        }
        other => other.context("look at", target)?,
    };
    if metadata.is_dir() { Ok(()) } else { Err(Error::NotADirectory { path: target.to_owned() }) }
}
