//! Small file systems of their own, for what happens when a disk is full, cannot be written, or loses its
//! power.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::mount::{UnmountFlags, unmount};

/// A mounted file system that goes away with the value.
#[derive(Debug)]
pub struct Disk {
    path: PathBuf,
    _dir: tempfile::TempDir,
}

impl Disk {
    /// An ext4 file system of `megabytes`, in a file that is mounted by a loop device.
    pub fn ext4(megabytes: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("image");
        format_ext4(&image, megabytes);
        Self::mount(dir, Command::new("mount").args(["-o", "loop"]).arg(image))
    }

    /// The same with more options for `mkfs.ext4`, such as the number of inodes.
    pub fn ext4_with(megabytes: u64, options: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("image");
        File::create(&image).unwrap().set_len(megabytes << 20).unwrap();
        command(Command::new("mkfs.ext4").args(["-q", "-m", "0"]).args(options).arg(&image));
        Self::mount(dir, Command::new("mount").args(["-o", "loop"]).arg(image))
    }

    /// An ext4 file system of `megabytes` that keeps quotas of projects, or nothing where the kernel has no
    /// quotas of ext4 (`CONFIG_QFMT_V2`).
    pub fn ext4_with_quotas(megabytes: u64) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("image");
        File::create(&image).unwrap().set_len(megabytes << 20).unwrap();
        let features = ["-q", "-m", "0", "-O", "quota,project", "-E", "quotatype=prjquota"];
        command(Command::new("mkfs.ext4").args(features).arg(&image));
        Self::mount_if_known(dir, &image)
    }

    /// An XFS of `megabytes` that keeps quotas of projects, or nothing where the kernel has none of XFS.
    pub fn xfs_with_quotas(megabytes: u64) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("image");
        File::create(&image).unwrap().set_len(megabytes << 20).unwrap();
        command(Command::new("mkfs.xfs").arg("-q").arg(&image));
        Self::mount_if_known(dir, &image)
    }

    fn mount_if_known(dir: tempfile::TempDir, image: &Path) -> Option<Self> {
        let path = dir.path().join("mounted");
        std::fs::create_dir(&path).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-o", "loop,prjquota"]).arg(image).arg(&path).stderr(std::process::Stdio::null());
        let status = mount.status().unwrap_or_else(|e| panic!("cannot run {mount:?}: {e}"));
        status.success().then(|| Self { path, _dir: dir })
    }

    /// An XFS of `megabytes`, whose files can be copied in one step ([`cut_power`]).
    pub fn xfs(megabytes: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("image");
        File::create(&image).unwrap().set_len(megabytes << 20).unwrap();
        command(Command::new("mkfs.xfs").args(["-q", "-m", "reflink=1"]).arg(&image));
        Self::mount(dir, Command::new("mount").args(["-o", "loop"]).arg(image))
    }

    /// The file system in the file `image`, which stays when the value goes.
    pub fn of_image(image: &Path) -> Self {
        Self::mount(tempfile::tempdir().unwrap(), Command::new("mount").args(["-o", "loop"]).arg(image))
    }

    /// A tmpfs of `megabytes`.
    pub fn tmpfs(megabytes: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let options = format!("size={megabytes}m,mode=0755");
        Self::mount(dir, Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]))
    }

    fn mount(dir: tempfile::TempDir, mount: &mut Command) -> Self {
        let path = dir.path().join("mounted");
        std::fs::create_dir(&path).unwrap();
        command(mount.arg(&path));
        Self { path, _dir: dir }
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes that an ordinary file could still take.
    pub fn free(&self) -> u64 {
        let stat = rustix::fs::statvfs(&self.path).unwrap();
        stat.f_bavail * stat.f_frsize
    }

    /// Takes all bytes that are left for the file `name`, which may be there already. Returns how many that were.
    pub fn fill(&self, name: &str) -> u64 {
        let mut file = OpenOptions::new().create(true).append(true).open(self.path.join(name)).unwrap();
        let mut written = 0;
        for size in [1 << 20, 4096, 512, 1] {
            let noise = vec![7; size];
            while let Ok(count @ 1..) = file.write(&noise) {
                written += count as u64;
            }
        }
        // What is promised to a file that is not written out yet may turn out to be less.
        drop(file.sync_all());
        written
    }

    /// Takes all inodes that are left for files in the folder `name`.
    pub fn fill_with_files(&self, name: &str) {
        let folder = self.path.join(name);
        std::fs::create_dir_all(&folder).unwrap();
        let first = std::fs::read_dir(&folder).unwrap().count();
        let full = (first..).find_map(|i| File::create_new(folder.join(i.to_string())).err()).unwrap();
        assert_eq!(full.kind(), std::io::ErrorKind::StorageFull, "{full}");
    }

    /// What is below `folder`, seen through a mount that is read-only; through others it can be written as before.
    pub fn read_only_view(folder: &Path) -> Self {
        let view = Self::mount(tempfile::tempdir().unwrap(), Command::new("mount").arg("--bind").arg(folder));
        command(Command::new("mount").args(["-o", "remount,bind,ro"]).arg(&view.path));
        view
    }

    /// Lets ext4 meet an error. If it was made with `-e remount-ro`, every write fails from now on.
    pub fn meet_error(&self) {
        let found = Command::new("findmnt").args(["-no", "SOURCE"]).arg(&self.path).output().unwrap();
        let device = String::from_utf8(found.stdout).unwrap();
        let device = device.trim().strip_prefix("/dev/").unwrap();
        std::fs::write(format!("/sys/fs/ext4/{device}/trigger_fs_error"), "a test").unwrap();
    }

    /// From now on every write fails.
    pub fn make_read_only(&self) {
        // As long as the kernel has not let go of a file that was deleted, the file system is busy.
        let change = || Command::new("mount").args(["-o", "remount,ro"]).arg(&self.path).output().unwrap();
        let out = (0..200).map(|_| change()).find(|out| out.status.success()).unwrap_or_else(change);
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        crate::sandbox::unmount_below(&self.path);
        // Detached, so that a test that fails while a file is open still takes its disk along.
        let _ = unmount(&self.path, UnmountFlags::DETACH);
    }
}

/// Makes an ext4 file system of `megabytes` in the new file `image`.
pub fn format_ext4(image: &Path, megabytes: u64) {
    File::create(image).unwrap().set_len(megabytes << 20).unwrap();
    command(Command::new("mkfs.ext4").args(["-q", "-m", "0"]).arg(image));
}

/// Writes to `to` what the disk in the file `image` would hold if the power failed now: everything that the
/// file system has sent to it, and nothing that is only in memory. Both are on one [`Disk::xfs`], which
/// shares all blocks of a file in one step, while nobody can write to it.
pub fn cut_power(image: &Path, to: &Path) {
    command(Command::new("cp").arg("--reflink=always").args([image, to]));
}

fn command(command: &mut Command) {
    let status = command.status().unwrap_or_else(|e| panic!("cannot run {command:?}: {e}"));
    assert!(status.success(), "{command:?} failed");
}
