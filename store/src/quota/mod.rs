//! Quotas: how much a writable tree may hold, in bytes and in files.
//!
//! A tree gets a project ID, which everything created in it inherits (`FS_XFLAG_PROJINHERIT`), and the
//! filesystem counts and limits by project. What overlayfs writes for a container is limited whoever runs in
//! it: overlayfs gives up the capability that root has to exceed quotas (`CAP_SYS_RESOURCE`, in
//! `ovl_fill_super`). Both `diff` and `work` have the project, since ext4 and XFS refuse to rename a file into
//! a directory of another one (`EXDEV`).
//!
//! | what | Linux | source |
//! | --- | --- | --- |
//! | project quotas of XFS, mounted with `prjquota` | any in use | xfs(5) |
//! | project quotas of ext4, with the features `project` and `quota`, mounted with `prjquota` | 4.5 | ext4(5) |
//! | project IDs by `FS_IOC_FSSETXATTR` | 4.5 | `ioctl_xfs_fsgetxattr(2)` |
//! | `Q_SETQUOTA`, `Q_GETQUOTA` of any filesystem, XFS as well | any in use | `fs/quota/quota.c` |
//! | `Q_XGETQSTATV`, which tells whether limits are kept | any in use | quotactl(2) |
//! | `quotactl_fd`; before, the block device has to be found | 5.14 | quotactl(2) |

mod system;
#[cfg(test)]
mod tests;

use std::fs;
use std::path::Path;

use rustix::io::Errno;

use crate::error::{Error, IoContext as _, Result};
use crate::overlay::Upper;
use system::Filesystem;

/// What a writable tree may hold. Nothing given is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Quota {
    /// Allocated bytes; the kernel counts in KiB, so what is left over of one does not count.
    pub bytes: Option<u64>,
    /// Files, directories and everything else with an inode. The tree has four of its own: itself, `diff`,
    /// `work`, and what overlayfs makes in `work`.
    pub inodes: Option<u64>,
}

/// What a project has on a filesystem.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct QuotaUsage {
    /// Allocated bytes.
    pub bytes: u64,
    /// Inodes.
    pub inodes: u64,
}

/// Whether the filesystem of `path`, a directory, keeps quotas of projects. If not, [`Error::NotSupported`]
/// says what is missing.
pub fn quota_support(path: &Path) -> Result<()> {
    supported(path).map(drop)
}

/// Gives a writable tree a quota, or another one.
///
/// `project` is any number but 0 that no other tree of the filesystem has. A tree that has files gets no
/// quota unless they are of this project already: its files would stay outside, and could not be renamed.
/// Fails with [`Error::NotSupported`] then, and where [`quota_support`] does; changing limits is root's.
pub fn set_quota(upper: &Upper, project: u32, quota: &Quota) -> Result<()> {
    let filesystem = supported(&upper.tree)?;
    if project == 0 {
        return Err(refusal("0 is the project of everything else".to_owned()));
    }
    let directories = [upper.work(), upper.diff(), upper.tree.clone()];
    let mut foreign = Vec::new();
    for directory in &directories {
        let opened = system::open(directory).context("open", directory)?;
        let found = system::project(&opened).context("read the project of", directory)?;
        if found != project {
            foreign.push((directory, opened));
        }
    }
    for (directory, _) in &foreign {
        if *directory != &upper.tree && fs::read_dir(directory).context("list", directory)?.next().is_some() {
            return Err(refusal(format!("{} has files already", directory.display())));
        }
    }
    filesystem.set_limits(project, quota).context("set a quota on", &upper.tree)?;
    let joined = foreign.iter().try_for_each(|(directory, opened)| {
        system::set_project(opened, project).context("set the project of", directory)
    });
    if joined.is_err()
        && let Err(errno) = filesystem.set_limits(project, &Quota::default())
    {
        tracing::warn!(%errno, project, "the limits of a project stay");
    }
    joined
}

/// What a project has on the filesystem of `path`, in O(1).
pub fn quota_usage(path: &Path, project: u32) -> Result<QuotaUsage> {
    match supported(path)?.usage(project) {
        // XFS has no entry for who never had a file or a limit.
        Err(Errno::NOENT) => Ok(QuotaUsage::default()),
        usage => usage.context("read the quota on", path),
    }
}

/// Takes the limits of a project away. Its files stay, and stay counted.
pub fn clear_quota(path: &Path, project: u32) -> Result<()> {
    supported(path)?.set_limits(project, &Quota::default()).context("clear the quota on", path)
}

fn supported(path: &Path) -> Result<Filesystem> {
    let directory = system::open(path).context("open", path)?;
    let project = system::project(&directory);
    let filesystem = Filesystem::of(path, directory);
    let state = project.and_then(|_| filesystem.keeps_limits());
    match (state, filesystem.kind()) {
        (Ok(true), _) => Ok(filesystem),
        (
            Ok(false) | Err(Errno::NOSYS | Errno::INVAL | Errno::SRCH | Errno::NODEV),
            kind @ ("ext4" | "xfs"),
        ) => {
            let features =
                if kind == "ext4" { " (first `tune2fs -O project,quota -Q prjquota`)" } else { "" };
            Err(refusal(format!(
                "{filesystem} has to be mounted with `prjquota`{features}, by a kernel with quotas"
            )))
        }
        (Ok(false) | Err(Errno::NOTTY | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL), _) => {
            Err(refusal(format!("{filesystem} has no quotas of projects; ext4 and XFS do")))
        }
        (Err(errno), _) => Err(errno).context("ask for quotas of", path),
    }
}

fn refusal(reason: String) -> Error {
    Error::NotSupported { what: "a quota", reason }
}
