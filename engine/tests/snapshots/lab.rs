//! A store with its mounts, and images made for one test.

use std::fs;
use std::path::{Path, PathBuf};

use layerstore::oci::ErrorKind;
use layerstore::{
    Labels, Layerstore, LoadOptions, Parent, PrepareOptions, Result, SnapshotCommit, Snapshots, Source,
};
use layerstore_testkit::image::{Image, Layout};
use layerstore_testkit::layer::Layer;
use layerstore_testkit::require;

/// Who the snapshots belong to.
pub(crate) const OWNER: &str = "suite";

/// A store in a directory of its own. What is mounted below goes with it.
pub(crate) struct Lab {
    pub(crate) store: Layerstore,
    root: PathBuf,
    dir: tempfile::TempDir,
}

impl Lab {
    /// Nothing when tests that need root are left out.
    pub(crate) fn new() -> Option<Self> {
        Self::at("store")
    }

    /// The store at a path below the test's directory.
    pub(crate) fn at(name: &str) -> Option<Self> {
        let lab = Self::prepared()?;
        Some(lab.with_root(|dir| dir.join(name)))
    }

    /// The store in a directory whose absolute path has exactly `length` bytes.
    pub(crate) fn with_path_of(length: usize) -> Option<Self> {
        let lab = Self::prepared()?;
        Some(lab.with_root(|dir| {
            let missing = length - dir.as_os_str().len() - 1;
            let path = dir.join("l".repeat(missing));
            assert_eq!(path.as_os_str().len(), length);
            path
        }))
    }

    fn prepared() -> Option<tempfile::TempDir> {
        if !require::root() {
            return None;
        }
        let parent = std::env::var_os("LAYERSTORE_TEST_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
        Some(tempfile::Builder::new().prefix("layerstore-test-").tempdir_in(parent).unwrap())
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// A new folder beside the store.
    pub(crate) fn folder(&self, name: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        fs::create_dir(&path).unwrap();
        path
    }

    pub(crate) fn snapshots(&self) -> Snapshots<'_> {
        self.store.snapshots(OWNER)
    }

    /// Loads an image of `layers` under `name`.
    pub(crate) fn load(&self, name: &str, layers: impl IntoIterator<Item = Layer>) {
        let path = self.dir.path().join("image.tar");
        fs::write(&path, Layout::of(name, &Image::new(layers)).archive()).unwrap();
        self.store.load(Source::Path(path), &LoadOptions::default(), &|_| {}).unwrap();
    }

    /// Prepares an active snapshot above a committed one, or above nothing.
    #[track_caller]
    pub(crate) fn prepare(&self, key: &str, parent: Option<&str>) {
        let parent = parent.map_or(Parent::Nothing, Parent::Snapshot);
        self.snapshots().prepare(key, parent, &PrepareOptions::default(), &|_| {}).unwrap();
    }

    #[track_caller]
    pub(crate) fn view(&self, key: &str, parent: Parent<'_>) {
        self.snapshots().view(key, parent, &PrepareOptions::default(), &|_| {}).unwrap();
    }

    #[track_caller]
    pub(crate) fn commit(&self, name: &str, key: &str) {
        self.snapshots().commit(name, key, &quick()).unwrap();
    }

    /// Mounts a snapshot, lets `use_it` work there, and unmounts it.
    #[track_caller]
    pub(crate) fn mounted<T>(&self, key: &str, use_it: impl FnOnce(&Path) -> T) -> T {
        let target = self.snapshots().mount(key, None, &|_| {}).unwrap();
        let value = use_it(&target);
        self.snapshots().unmount(key).unwrap();
        value
    }

    /// Prepares `key` above `parent`, changes it and commits it as `name`.
    #[track_caller]
    pub(crate) fn layer(&self, name: &str, parent: Option<&str>, change: impl FnOnce(&Path)) {
        let key = format!("{name}-active");
        self.prepare(&key, parent);
        self.mounted(&key, change);
        self.commit(name, &key);
    }

    pub(crate) fn keys(&self) -> Vec<String> {
        let mut keys = Vec::new();
        let all = self.snapshots().walk(&[], |info| {
            keys.push(info.key);
            std::ops::ControlFlow::Continue(())
        });
        all.unwrap();
        keys
    }

    /// Names in a folder of the store.
    pub(crate) fn names(&self, folder: &str) -> Vec<String> {
        names(&self.root.join(folder))
    }
}

/// Turns the prepared directory into a store.
trait WithRoot {
    fn with_root(self, root: impl FnOnce(&Path) -> PathBuf) -> Lab;
}

impl WithRoot for tempfile::TempDir {
    fn with_root(self, root: impl FnOnce(&Path) -> PathBuf) -> Lab {
        let root = root(self.path());
        Lab { store: Layerstore::open(&root).unwrap(), root, dir: self }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for mounted in self.store.mounted().unwrap_or_default() {
            let _ = rustix::mount::unmount(&mounted.target, rustix::mount::UnmountFlags::DETACH);
        }
    }
}

/// A commit that does not wait for the disk.
pub(crate) fn quick() -> SnapshotCommit {
    SnapshotCommit { sync: false, ..SnapshotCommit::default() }
}

/// The same, above a parent that is given at commit.
pub(crate) fn above(parent: &str) -> SnapshotCommit {
    SnapshotCommit { parent: Some(parent.to_owned()), ..quick() }
}

pub(crate) fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[track_caller]
pub(crate) fn refused<T: std::fmt::Debug>(result: Result<T>, kind: ErrorKind) {
    let error = result.unwrap_err();
    assert_eq!(error.kind(), kind, "{error}");
}

/// The error numbers that the kernel gives to who uses a mount.
#[track_caller]
pub(crate) fn errno<T: std::fmt::Debug>(result: std::io::Result<T>, errno: rustix::io::Errno) {
    assert_eq!(result.unwrap_err().raw_os_error(), Some(errno.raw_os_error()));
}

pub(crate) fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[track_caller]
pub(crate) fn text(path: impl AsRef<Path>) -> String {
    let path = path.as_ref();
    fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Collects all that nothing keeps, also what interrupted pulls have.
pub(crate) fn everything() -> layerstore::Policy {
    layerstore::Policy { interrupted: true, ..layerstore::Policy::default() }
}
