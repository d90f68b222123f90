//! Mounts on the running kernel.

mod idmap;
mod privilege;
mod stacks;

use std::fs;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use layerstore_oci::ErrorKind;
use layerstore_testkit::require;
use rustix::mount::{UnmountFlags, unmount};

use super::*;
use crate::store::Surroundings;

/// The ways that this kernel has for such options, each by itself.
fn ways(options: &MountOptions) -> Vec<Way> {
    let all = [Way::Descriptors, Way::DescriptorPaths, Way::Classic];
    let fixture = Fixture::new();
    let lowers = fixture.lowers(2);
    let there = all.into_iter().filter(|way| {
        let layers = Layers { lowers: &lowers, upper: None, read_only: true };
        fixture.store.try_overlay(*way, &layers, &fixture.target, options).is_ok()
    });
    let there: Vec<Way> = there.collect();
    // What is missing on a kernel that has everything is broken.
    let release = rustix::system::uname();
    let mut version =
        release.release().to_str().unwrap().split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    let version = (version.next().unwrap(), version.next().unwrap());
    assert!(version < (6, 15) || there == all, "{there:?}");
    assert!(there.contains(&Way::Classic));
    there
}

/// A name with everything that is special in options of a mount.
const AWKWARD: &str = "a:b,c d\\e=\"f'";

/// A store with a mount point; both go with the value.
struct Fixture {
    store: Store,
    target: PathBuf,
    dir: tempfile::TempDir,
}

impl Fixture {
    fn new() -> Self {
        Self::with_root("root")
    }

    fn with_root(name: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join(name), Surroundings::default()).unwrap();
        let target = dir.path().join("target");
        fs::create_dir(&target).unwrap();
        Self { store, target, dir }
    }

    /// A new tree, as the store keeps them.
    fn tree(&self, name: &str) -> PathBuf {
        let tree = self.store.layout().overlay2().join(format!("{name:x>8}"));
        fs::DirBuilder::new().mode(0o755).recursive(true).create(tree.join("diff")).unwrap();
        tree
    }

    /// A tree with files of one name and content each.
    fn lower(&self, name: &str, files: &[(&str, &str)]) -> PathBuf {
        let diff = self.tree(name).join("diff");
        for (path, content) in files {
            let path = diff.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        diff
    }

    /// `count` trees; the lowest is named `0`, and each has the file `shared` with its name; every fiftieth
    /// has a file that no other has.
    fn lowers(&self, count: usize) -> Vec<PathBuf> {
        let lower = |index: usize| {
            let (name, own) = (index.to_string(), format!("only-{index}"));
            let files = [("shared", name.as_str()), (own.as_str(), "")];
            self.lower(&name, if index.is_multiple_of(50) { &files } else { &files[..1] })
        };
        (0..count).rev().map(lower).collect()
    }

    fn upper(&self, name: &str) -> Upper {
        let upper = Upper { tree: self.tree(name) };
        fs::create_dir(upper.work()).unwrap();
        upper
    }

    fn stack(&self, lowers: Vec<PathBuf>) -> Stack {
        Stack { lowers, upper: Some(self.upper("upper")), plain: false }
    }

    fn mount(&self, stack: &Stack, options: &MountOptions) -> Result<()> {
        self.store.mount_stack(stack, &self.target, options)
    }

    /// Mounts by exactly one way.
    fn mount_by(&self, way: Way, stack: &Stack, options: &MountOptions) {
        let shape = Shape::of(stack, self.store.layout(), options).unwrap();
        let Shape::Overlay { lowers, upper, read_only } = shape else { panic!("{shape:?}") };
        let layers = Layers { lowers: &lowers, upper, read_only };
        self.store
            .try_overlay(way, &layers, &self.target, options)
            .unwrap_or_else(|e| panic!("{way:?}: {e:?}"));
    }

    fn unmount(&self) {
        let mut done = unmount_at(&self.target);
        // What another test starts in this moment holds copies of all descriptors until it runs its program.
        for _ in 0..100_000 {
            match &done {
                Err(error) if error.kind() == ErrorKind::InUse => std::thread::yield_now(),
                _ => break,
            }
            done = unmount_at(&self.target);
        }
        done.unwrap();
        assert!(!self.is_mounted());
    }

    fn is_mounted(&self) -> bool {
        mount_at(&self.target).unwrap().is_some()
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.target.join(name)).unwrap()
    }

    fn owner(&self, name: &str) -> (u32, u32) {
        owner(&self.target.join(name))
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        while unmount(&self.target, UnmountFlags::DETACH).is_ok() {}
        let links = fs::read_dir(self.store.layout().mounts()).unwrap().count();
        if !std::thread::panicking() {
            assert_eq!(links, 0, "links stay in {}", self.dir.path().display());
        }
    }
}

fn owner(path: &Path) -> (u32, u32) {
    let metadata = fs::symlink_metadata(path).unwrap();
    (metadata.uid(), metadata.gid())
}

/// The options of what is mounted at `target`, as the kernel shows them.
fn shown_options(target: &Path) -> String {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let target = target.to_str().unwrap();
    let line = table.lines().rev().find(|line| line.split(' ').nth(4) == Some(target)).unwrap();
    line.to_owned()
}
