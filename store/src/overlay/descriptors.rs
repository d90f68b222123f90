//! Overlays by the new mount API.

use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::path::Path;

use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, fsconfig_create, fsconfig_set_fd,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount,
};

use super::layers::{Layers, Opener};
use super::shape::{kernel_knows, overlay_options};
use super::{Attempt, MountOptions, SOURCE, namespace};

/// Mounts an overlay whose directories are given as descriptors, or as their paths in `/proc`, which are
/// short.
pub(super) fn mount_overlay(
    layers: &Layers<'_>,
    target: &Path,
    options: &MountOptions,
    by_path: bool,
) -> Result<(), Attempt> {
    // First, since it tells who must not mount.
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    // A kernel that takes any option takes none of ours: it only reads them in the end, and then complains in
    // its log. That is so before Linux 6.5.
    if by_path && fsconfig_set_flag(context.as_fd(), "no-such-option").is_ok() {
        return Err(Errno::INVAL.into());
    }
    let opener = Opener::new(layers, options.id_map.as_ref())?;
    let owner = match layers.upper {
        Some(upper) if options.id_map.is_some() => Some(opener.open(&upper.work())?),
        _ => None,
    };
    let mounted = namespace::as_owner_of(owner.as_ref(), || {
        configure(&context, layers, &opener, options, by_path)?;
        let attributes =
            if layers.read_only { MountAttrFlags::MOUNT_ATTR_RDONLY } else { MountAttrFlags::empty() };
        Ok(fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
    })?;
    attach(&mounted, target)
}

fn configure(
    context: &OwnedFd,
    layers: &Layers<'_>,
    opener: &Opener,
    options: &MountOptions,
    by_path: bool,
) -> Result<(), Attempt> {
    let context = context.as_fd();
    fsconfig_set_string(context, "source", SOURCE)?;
    for (key, value) in overlay_options(options, layers.upper.is_some(), kernel_knows) {
        match value {
            Some(value) => fsconfig_set_string(context, key, value)?,
            None => fsconfig_set_flag(context, key)?,
        }
    }
    if layers.read_only {
        fsconfig_set_flag(context, "ro")?;
    }
    let give = |key: &str, directory: &Path| -> Result<(), Attempt> {
        let directory = opener.open(directory)?;
        if by_path {
            fsconfig_set_string(context, key, format!("/proc/self/fd/{}", directory.as_raw_fd()))?;
        } else {
            fsconfig_set_fd(context, key, directory.as_fd())?;
        }
        Ok(())
    };
    for lower in layers.lowers {
        give("lowerdir+", lower)?;
    }
    if let Some(upper) = layers.upper {
        give("upperdir", &upper.diff())?;
        give("workdir", &upper.work())?;
    }
    Ok(fsconfig_create(context)?)
}

/// Puts a mount that is nowhere at `target`.
pub(super) fn attach(mounted: &OwnedFd, target: &Path) -> Result<(), Attempt> {
    Ok(move_mount(mounted.as_fd(), "", CWD, target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?)
}
