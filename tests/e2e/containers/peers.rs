//! Other stores take an image that `commit` made, and unpack it to the same tree.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;

use layerstore_testkit::containerd::Containerd;
use layerstore_testkit::docker_engine::DockerEngine;
use layerstore_testkit::podman::Podman;
use layerstore_testkit::require;
use layerstore_testkit::sandbox::{Run, Sandbox};
use layerstore_testkit::tree::Snapshot;

use super::{APP, change, commit, mount, umount, with_app};

const NAME: &str = "localhost/committed:1";

/// Without the root, to which each gives a time, and podman a mode, of its own.
fn tree(root: impl AsRef<Path>) -> Snapshot {
    let mut tree = Snapshot::of(root);
    tree.entries.remove(&[] as &[u8]);
    tree
}

#[test]
fn privileged_other_stores_take_what_commit_makes() {
    if !(require::docker() && require::podman() && require::containerd()) {
        return;
    }
    let Some(store) = with_app() else { return };
    store.ok(["create", "--name", "work", APP]);
    let root = mount(&store, "work");
    change(&root);
    let expected = tree(&root);
    umount(&store, "work");
    let id = commit(&store, "work", NAME);
    let saved = store.dir().join("saved.tar");
    store.ok(["save", "-o", saved.to_str().unwrap(), NAME]);
    std::thread::scope(|scope| {
        scope.spawn(|| podman(&store, &saved, &id, &expected));
        scope.spawn(|| containerd(&store, &saved, &id, &expected));
        scope.spawn(|| docker(&store, &saved, &id, &expected));
    });
}

fn podman(store: &Sandbox, saved: &Path, id: &str, expected: &Snapshot) {
    let podman = Podman::new(&store.dir().join("podman"));
    podman.load(saved);
    assert_eq!(podman.image_id(NAME), id);
    expected.assert_same(&tree(podman.mount(NAME)));
}

fn containerd(store: &Sandbox, saved: &Path, id: &str, expected: &Snapshot) {
    let containerd = Containerd::start();
    containerd.ok([OsStr::new("image"), OsStr::new("import"), saved.as_os_str()]);
    assert_eq!(containerd.image_id(NAME), id);
    let target = store.dir().join("of-containerd");
    std::fs::create_dir(&target).unwrap();
    containerd.ok([OsStr::new("image"), OsStr::new("mount"), OsStr::new(NAME), target.as_os_str()]);
    // It sets no attributes of symbolic links.
    let differences = expected.compare(&tree(&target));
    let differences: Vec<_> = differences.iter().map(ToString::to_string).collect();
    assert_eq!(differences, ["/etc/rmt: xattrs trusted.note=hello / none"]);
    containerd.ok([OsStr::new("image"), OsStr::new("unmount"), target.as_os_str()]);
}

/// Docker has no network here, and so can start no container; but its layers are directories.
fn docker(store: &Sandbox, saved: &Path, id: &str, expected: &Snapshot) {
    let docker = DockerEngine::start();
    assert_eq!(docker.load(saved), [NAME]);
    assert_eq!(docker.image_id(NAME), id);
    let about = docker.inspect(NAME);
    let layers = &about["GraphDriver"]["Data"];
    let dir = |name: &str| layers[name].as_str().unwrap().to_owned();
    let target = store.dir().join("of-docker");
    std::fs::create_dir(&target).unwrap();
    let lowers = format!("ro,lowerdir={}:{}", dir("UpperDir"), dir("LowerDir"));
    let mut mount = Command::new("mount");
    Run::of(mount.args(["-t", "overlay", "overlay", "-o", &lowers]).arg(&target), &[]).success();
    expected.assert_same(&tree(&target));
    rustix::mount::unmount(&target, rustix::mount::UnmountFlags::DETACH).unwrap();
}
