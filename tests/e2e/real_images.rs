//! Real Debian images: in from every source, and out exact.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use layerstore_testkit::sandbox::{Run, Sandbox};
use layerstore_testkit::tree::Snapshot;
use layerstore_testkit::{hex_of, reference, require};
use serde_json::Value;

/// What GNU tar and the whiteout rules make of an image. The root directory's time is left out, because no
/// layer of these images lists the root.
fn expected(layout: &Path) -> Snapshot {
    let out = tempfile::tempdir().unwrap();
    assert!(!reference::unpack(layout, out.path()));
    Snapshot::of(out.path()).without_root_mtime()
}

pub(crate) fn expected_app(images: &Path) -> &'static Snapshot {
    static APP: OnceLock<Snapshot> = OnceLock::new();
    APP.get_or_init(|| expected(&images.join("oci-app")))
}

/// Mounts what `load` loaded and compares it; returns the mount point.
fn assert_exact(store: &Sandbox, load: &Run, expected: &Snapshot) -> std::path::PathBuf {
    let root = store.mount(load.loaded()[0]);
    expected.assert_same(&Snapshot::of(&root).without_root_mtime());
    root
}

#[test]
fn privileged_oci_archive_is_exact_and_runs() {
    let (Some(store), Some(images)) = (Sandbox::new(), require::images()) else { return };
    let load = store.load(images.join("app.oci.tar"));
    assert_eq!(load.loaded(), ["localhost/app:1"]);
    let root = assert_exact(&store, &load, expected_app(&images));
    let python = ["python3", "-c", "import numpy; print(numpy.arange(3).sum())"];
    let out = Command::new("chroot").arg(&root).args(python).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&out.stdout), "3\n", "{}", String::from_utf8_lossy(&out.stderr));
}

#[test]
fn privileged_docker_archive_is_exact() {
    let (Some(store), Some(images)) = (Sandbox::new(), require::images()) else { return };
    let load = store.load(images.join("app.docker.tar"));
    assert_eq!(load.loaded(), ["localhost/app:1"]);
    assert_exact(&store, &load, expected_app(&images));
}

#[test]
fn privileged_standard_input_is_exact() {
    let (Some(store), Some(images)) = (Sandbox::new(), require::images()) else { return };
    // Through a pipe, which cannot seek as a file could.
    let mut cat =
        Command::new("cat").arg(images.join("app.oci.tar")).stdout(std::process::Stdio::piped()).spawn();
    let cat = cat.as_mut().unwrap();
    let load = Run::of(store.command(["load"]).stdin(cat.stdout.take().unwrap()), &[]).success();
    assert!(cat.wait().unwrap().success());
    assert_exact(&store, &load, expected_app(&images));

    let file = File::open(images.join("app.oci.tar")).unwrap();
    let again = Run::of(store.command(["load", "-i", "-"]).stdin(file), &[]).success();
    assert_eq!(again.loaded(), load.loaded());
}

#[test]
fn privileged_layout_directory_is_exact() {
    let (Some(store), Some(images)) = (Sandbox::new(), require::images()) else { return };
    let load = store.load(images.join("oci-node"));
    assert_exact(&store, &load, &expected(&images.join("oci-node")));
}

#[test]
fn privileged_shared_layer_is_stored_once() {
    let (Some(store), Some(images)) = (Sandbox::new(), require::images()) else { return };
    assert_eq!(store.load(images.join("app.oci.tar")).reused_layers(), 0);
    assert_eq!(store.names("blobs/sha256").len(), 5, "three layers, a config and a manifest");
    assert_eq!(store.names("overlay2").len(), 3);
    assert_eq!(store.load(images.join("node.oci.tar")).reused_layers(), 1, "the base");
    assert_eq!(store.names("blobs/sha256").len(), 8, "one more layer, config and manifest");
    assert_eq!(store.names("overlay2").len(), 4);
    store.assert_no_leftovers();
}

/// Layer blobs of the same size that hold only zeros show that they are not read.
#[test]
fn privileged_second_load_reads_no_layer_and_is_quick() {
    let (Some(store), Some(images)) = (Sandbox::new(), require::images()) else { return };
    let layout = images.join("oci-node");
    store.load(&layout);

    let copy = store.dir().join("copy");
    fs::create_dir_all(copy.join("blobs/sha256")).unwrap();
    for name in ["index.json", "oci-layout"] {
        fs::copy(layout.join(name), copy.join(name)).unwrap();
    }
    let blob = |dir: &Path, d: &Value| dir.join("blobs/sha256").join(hex_of(d["digest"].as_str().unwrap()));
    let json = |path: &Path| -> Value { serde_json::from_slice(&fs::read(path).unwrap()).unwrap() };
    let index = json(&layout.join("index.json"));
    let manifest = json(&blob(&layout, &index["manifests"][0]));
    for document in [&index["manifests"][0], &manifest["config"]] {
        fs::copy(blob(&layout, document), blob(&copy, document)).unwrap();
    }
    for layer in manifest["layers"].as_array().unwrap() {
        File::create(blob(&copy, layer)).unwrap().set_len(layer["size"].as_u64().unwrap()).unwrap();
    }

    let runs: Vec<_> = (0..5).map(|_| store.load(&copy)).collect();
    assert_eq!(runs[0].reused_layers(), 2);
    let quickest = runs.iter().map(|r| r.time).min().unwrap();
    assert!(quickest < Duration::from_millis(50), "a load of what is there took {quickest:?}");
}
