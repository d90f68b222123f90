//! Quotas on a real filesystem, by way of overlayfs.

use std::io::Write as _;
use std::path::PathBuf;

use layerstore_oci::ErrorKind;
use layerstore_testkit::disk::Disk;
use layerstore_testkit::require;
use rustix::mount::{UnmountFlags, unmount};

use super::*;
use crate::overlay::{MountOptions, Stack};
use crate::store::{Store, Surroundings};

const MIB: usize = 1 << 20;

/// Containers on a disk of their own.
struct Containers {
    store: Store,
    targets: Vec<PathBuf>,
    /// Whether the filesystem deletes in the background, and counts until then.
    is_lazy: bool,
    disk: Disk,
}

impl Containers {
    /// One for each filesystem of which the kernel knows quotas.
    fn all() -> Vec<Self> {
        let disks = [
            ("project quotas of ext4", false, Disk::ext4_with_quotas(48)),
            ("project quotas of XFS", true, Disk::xfs_with_quotas(320)),
        ];
        let there = disks.into_iter().filter(|(what, _, disk)| require::kernel_has(disk.is_some(), what));
        there.filter_map(|(_, is_lazy, disk)| Some(Self::on(disk?, is_lazy))).collect()
    }

    fn on(disk: Disk, is_lazy: bool) -> Self {
        let store = Store::open(&disk.path().join("root"), Surroundings::default()).unwrap();
        fs::create_dir_all(store.layout().overlay2().join("lower/diff")).unwrap();
        fs::write(store.layout().overlay2().join("lower/diff/big"), vec![1; 2 * MIB]).unwrap();
        Self { store, targets: Vec::new(), is_lazy, disk }
    }

    fn upper(&self, name: &str) -> Upper {
        let upper = Upper { tree: self.store.layout().overlay2().join(name) };
        fs::create_dir_all(upper.diff()).unwrap();
        fs::create_dir_all(upper.work()).unwrap();
        upper
    }

    fn mount(&mut self, upper: &Upper) -> PathBuf {
        let target = self.disk.path().join(format!("target-{}", self.targets.len()));
        fs::create_dir(&target).unwrap();
        let lowers = vec![self.store.layout().overlay2().join("lower/diff")];
        let stack = Stack { lowers, upper: Some(upper.clone()), plain: false };
        self.store.mount_stack(&stack, &target, &MountOptions::default()).unwrap();
        self.targets.push(target.clone());
        target
    }
}

impl Drop for Containers {
    fn drop(&mut self) {
        for target in &self.targets {
            let _ = unmount(target, UnmountFlags::DETACH);
        }
    }
}

fn write(path: &Path, bytes: usize) -> std::io::Result<()> {
    let mut file = fs::File::create(path)?;
    file.write_all(&vec![1; bytes])?;
    file.sync_all()
}

fn is_full(outcome: std::io::Result<()>) -> bool {
    outcome.is_err_and(|error| ErrorKind::of_io(&error) == ErrorKind::NoSpace)
}

#[test]
fn privileged_a_container_cannot_hold_more_bytes_than_its_quota() {
    if !require::root() {
        return;
    }
    for containers in &mut Containers::all() {
        let [limited, free] = ["limited0", "free0000"].map(|name| containers.upper(name));
        set_quota(&limited, 7, &Quota { bytes: Some(4 << 20), inodes: None }).unwrap();
        set_quota(&free, 8, &Quota::default()).unwrap();
        let [inside, other] = [&limited, &free].map(|upper| containers.mount(upper));

        // Copied up, renamed, written.
        fs::rename(inside.join("big"), inside.join("moved")).unwrap();
        fs::create_dir(inside.join("dir")).unwrap();
        write(&inside.join("dir/more"), MIB).unwrap();
        fs::rename(inside.join("dir/more"), inside.join("more")).unwrap();
        assert!(is_full(write(&inside.join("too-much"), 2 * MIB)));
        write(&other.join("file"), 8 * MIB).unwrap();
        let usage = quota_usage(containers.disk.path(), 7).unwrap();
        assert!(usage.bytes >= 3 << 20 && usage.bytes <= 4 << 20, "{usage:?}");
        assert!(quota_usage(&other, 8).is_err(), "overlayfs has no projects");
        assert!(quota_usage(containers.disk.path(), 8).unwrap().bytes >= 8 << 20);

        clear_quota(&limited.tree, 7).unwrap();
        write(&inside.join("too-much"), 2 * MIB).unwrap();

        unmount(&inside, UnmountFlags::empty()).unwrap();
        fs::remove_dir_all(&limited.tree).unwrap();
        if !containers.is_lazy {
            let usage = quota_usage(containers.disk.path(), 7).unwrap();
            assert_eq!(usage, QuotaUsage::default(), "what is deleted does not count");
        }
    }
}

#[test]
fn privileged_a_copy_up_that_does_not_fit_fails() {
    if !require::root() {
        return;
    }
    for containers in &mut Containers::all() {
        let upper = containers.upper("limited0");
        set_quota(&upper, 7, &Quota { bytes: Some(1 << 20), inodes: None }).unwrap();
        let inside = containers.mount(&upper);
        let outcome = fs::OpenOptions::new().append(true).open(inside.join("big")).map(drop);
        assert!(is_full(outcome));
        assert_eq!(fs::metadata(inside.join("big")).unwrap().len(), 2 << 20);
        let left = quota_usage(&upper.tree, 7).unwrap().bytes;
        assert!(containers.is_lazy || left < 1 << 20, "{left} of the attempt");
    }
}

#[test]
fn privileged_a_container_cannot_hold_more_files_than_its_quota() {
    if !require::root() {
        return;
    }
    for containers in &mut Containers::all() {
        let [limited, free] = ["limited0", "free0000"].map(|name| containers.upper(name));
        set_quota(&limited, 7, &Quota { bytes: None, inodes: Some(14) }).unwrap();
        let [inside, other] = [&limited, &free].map(|upper| containers.mount(upper));
        let create = |inside: &Path, count: usize| {
            (0..count).try_for_each(|index| fs::write(inside.join(index.to_string()), ""))
        };
        // XFS counts what overlayfs made and deleted while mounting until it has cleaned up.
        let created =
            (0..20).take_while(|index| fs::write(inside.join(index.to_string()), "").is_ok()).count();
        assert!(created == 10 || containers.is_lazy && (6..10).contains(&created), "{created}");
        assert_eq!(quota_usage(&limited.tree, 7).unwrap().inodes, 14);
        assert!(is_full(fs::write(inside.join("one-more"), "")));
        assert!(is_full(fs::create_dir(inside.join("dir"))));
        create(&other, 20).unwrap();
        fs::remove_file(inside.join("0")).unwrap();
        assert!(containers.is_lazy || fs::write(inside.join("one-more"), "").is_ok());
        clear_quota(&limited.tree, 7).unwrap();
        create(&inside, 20).unwrap();
    }
}

#[test]
fn privileged_a_tree_with_files_of_another_project_gets_no_quota() {
    if !require::root() {
        return;
    }
    for containers in &mut Containers::all() {
        let upper = containers.upper("used0000");
        fs::write(upper.diff().join("file"), "").unwrap();
        let quota = Quota { bytes: Some(1 << 20), inodes: None };
        let error = set_quota(&upper, 7, &quota).unwrap_err();
        assert!(error.to_string().contains("has files already"), "{error}");
        assert_eq!(quota_usage(&upper.tree, 7).unwrap(), QuotaUsage::default());
        assert!(set_quota(&containers.upper("new00000"), 0, &quota).is_err());
    }
}

#[test]
fn privileged_what_is_missing_for_quotas_is_told() {
    if !require::root() {
        return;
    }
    let expected = [
        (Disk::tmpfs(1), "tmpfs", "has no quotas of projects"),
        (Disk::ext4(8), "ext4", "`prjquota`"),
        (Disk::xfs(320), "xfs", "`prjquota`"),
    ];
    for (disk, kind, reason) in expected {
        let upper = Upper { tree: disk.path().join("tree") };
        fs::create_dir_all(upper.diff()).unwrap();
        fs::create_dir_all(upper.work()).unwrap();
        for error in [
            quota_support(disk.path()).unwrap_err(),
            set_quota(&upper, 7, &Quota::default()).unwrap_err(),
            quota_usage(disk.path(), 7).unwrap_err(),
            clear_quota(disk.path(), 7).unwrap_err(),
        ] {
            assert_eq!(error.kind(), ErrorKind::Unsupported, "{error:?}");
            let text = error.to_string();
            assert!(text.contains(&format!("the {kind} filesystem on")) && text.contains(reason), "{text}");
        }
    }
}
