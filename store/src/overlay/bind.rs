//! Bind mounts: one tree as it is.

use std::os::fd::AsFd as _;
use std::path::Path;

use rustix::fs::StatVfsMountFlags;
use rustix::io::Errno;
use rustix::mount::{
    MountAttrFlags, MountFlags, OpenTreeFlags, UnmountFlags, mount_bind, mount_remount, open_tree, unmount,
};

use super::layers::Opener;
use super::{Attempt, MountApi, MountOptions, descriptors, idmap};
use crate::error::Result;

/// Shows `tree` at `target`. Nobody sees it writable on its way to read-only, but for `mount(2)`.
pub(super) fn mount_tree(tree: &Path, read_only: bool, target: &Path, options: &MountOptions) -> Result<()> {
    // There is no other way to map IDs.
    let newest = options.api == MountApi::Newest || options.id_map.is_some();
    let outcome = match newest.then(|| clone(tree, read_only, target, options)) {
        None => classic(tree, read_only, target),
        Some(Err(Attempt::Refused(Errno::NOSYS | Errno::INVAL))) if options.id_map.is_none() => {
            classic(tree, read_only, target)
        }
        Some(outcome) => outcome,
    };
    outcome.map_err(|error| error.at(target, options))
}

fn clone(tree: &Path, read_only: bool, target: &Path, options: &MountOptions) -> Result<(), Attempt> {
    let directory = Opener::default().open(tree)?;
    let mounted = match &options.id_map {
        Some(id_map) => id_map.mapper().clone_of(tree)?,
        None => {
            let flags = OpenTreeFlags::OPEN_TREE_CLONE
                | OpenTreeFlags::OPEN_TREE_CLOEXEC
                | OpenTreeFlags::AT_EMPTY_PATH;
            open_tree(directory.as_fd(), "", flags)?
        }
    };
    if read_only {
        idmap::set_attributes(&mounted, MountAttrFlags::MOUNT_ATTR_RDONLY, None)?;
    }
    descriptors::attach(&mounted, target)
}

fn classic(tree: &Path, read_only: bool, target: &Path) -> Result<(), Attempt> {
    drop(Opener::default().open(tree)?);
    mount_bind(tree, target)?;
    if !read_only {
        return Ok(());
    }
    let outcome = rustix::fs::statvfs(target).and_then(|stat| {
        let flags = MountFlags::BIND | MountFlags::RDONLY | kept(stat.f_flag);
        mount_remount(target, flags, "")
    });
    if outcome.is_err() {
        // What was to be read-only must not stay writable.
        let _ = unmount(target, UnmountFlags::NOFOLLOW | UnmountFlags::DETACH);
    }
    Ok(outcome?)
}

/// A remount sets all flags, and in a user namespace those of the filesystem must not be taken away.
fn kept(flags: StatVfsMountFlags) -> MountFlags {
    let pairs = [
        (StatVfsMountFlags::NOSUID, MountFlags::NOSUID),
        (StatVfsMountFlags::NODEV, MountFlags::NODEV),
        (StatVfsMountFlags::NOEXEC, MountFlags::NOEXEC),
        (StatVfsMountFlags::NOATIME, MountFlags::NOATIME),
        (StatVfsMountFlags::NODIRATIME, MountFlags::NODIRATIME),
        (StatVfsMountFlags::RELATIME, MountFlags::RELATIME),
    ];
    pairs.into_iter().filter(|(has, _)| flags.contains(*has)).map(|(_, flag)| flag).collect()
}
