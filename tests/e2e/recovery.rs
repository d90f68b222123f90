//! `kill -9` of commands that remove and mount, and files that somebody deleted by hand.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Instant;

use layerstore_testkit::docker::Archive;
use layerstore_testkit::hex_of;
use layerstore_testkit::image::{Image, Layout};
use layerstore_testkit::layer::LayerBuilder;
use layerstore_testkit::sandbox::Sandbox;
use layerstore_testkit::tree::Snapshot;

use crate::varied_image;

const NAME: &str = "localhost/many:1";
const POINTS: u32 = 12;

/// Some hundred files in 20 layers.
fn archive(store: &Sandbox) -> PathBuf {
    let layers = (0..20).map(|l| {
        (0..30)
            .fold(LayerBuilder::gzip(), |b, f| b.file(format!("d{l}/f{f}"), "text ".repeat(f * 50)))
            .finish()
    });
    store.write("many.tar", &Layout::of(NAME, &Image::new(layers)).archive())
}

/// Prepares, runs and kills a command again and again, each time a little later, until it gets through; what
/// has to hold after each kill is up to `check`, which also cleans up.
fn kill_at_many_points(store: &Sandbox, args: &[&str], prepare: impl Fn(), check: impl Fn(bool)) {
    prepare();
    let start = Instant::now();
    store.ok(args);
    let time = start.elapsed();
    check(true);
    for point in 0..POINTS {
        prepare();
        let mut command = store.command(args);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(time * point / POINTS);
        let finished = child.try_wait().unwrap().is_some();
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(store.sql("PRAGMA integrity_check"), ["ok"]);
        check(finished);
    }
}

fn is_listed(store: &Sandbox) -> bool {
    store.ok(["images", "--format", "{{.Repository}}:{{.Tag}}"]).lines().any(|line| line == NAME)
}

fn assert_empty(store: &Sandbox) {
    store.ok(["gc"]);
    store.assert_no_leftovers();
    for folder in ["blobs/sha256", "overlay2", "mnt"] {
        assert_eq!(store.names(folder), BTreeSet::new(), "{folder}");
    }
}

fn look(store: &Sandbox, name: &str) -> Snapshot {
    let root = store.mount(name);
    let snapshot = Snapshot::of(&root).without_root_mtime();
    store.umount(&root);
    snapshot
}

#[test]
fn privileged_a_killed_removal() {
    let Some(store) = Sandbox::new() else { return };
    let input = archive(&store);
    store.load(&input);
    let expected = look(&store, NAME);
    let load = || {
        store.load(&input);
    };
    kill_at_many_points(&store, &["rmi", NAME], load, |finished| {
        if is_listed(&store) {
            assert!(!finished);
            expected.assert_same(&look(&store, NAME));
            store.ok(["rmi", NAME]);
        }
        assert_empty(&store);
    });
    // The next load works over what a kill left, before any collection.
    kill_at_many_points(&store, &["rmi", NAME], load, |_| {
        store.load(&input);
        expected.assert_same(&look(&store, NAME));
    });
    store.ok(["rmi", NAME]);
    assert_empty(&store);
}

#[test]
fn privileged_a_killed_collection() {
    let Some(store) = Sandbox::new() else { return };
    let input = archive(&store);
    let garbage = || {
        store.load(&input);
        store.execute("DELETE FROM reference");
    };
    kill_at_many_points(&store, &["gc"], garbage, |_| assert_empty(&store));
}

#[test]
fn privileged_a_killed_mount() {
    let Some(store) = Sandbox::new() else { return };
    let input = archive(&store);
    store.load(&input);
    let expected = look(&store, NAME);
    // As after a power cut: all trees have to be made again.
    let distrust = || store.execute("UPDATE tree SET boot_id = 'another', synced = 0");
    kill_at_many_points(&store, &["mount", NAME], distrust, |_| {
        let root = PathBuf::from(store.ok(["mount", NAME]).trim_end());
        expected.assert_same(&Snapshot::of(&root).without_root_mtime());
        layerstore_testkit::sandbox::until_free(|| store.run(["umount", NAME])).success();
        store.ok(["gc"]);
        store.assert_no_leftovers();
        assert_eq!(store.names("mnt"), BTreeSet::new(), "mounted once");
        assert_eq!(store.names("overlay2").len(), 20);
    });
}

#[test]
fn privileged_trees_that_were_deleted_are_made_again() {
    let Some(store) = Sandbox::new() else { return };
    let name = "localhost/varied:1";
    store.load_bytes(&Layout::of(name, &varied_image()).archive());
    let expected = look(&store, name);
    store.ok(["gc"]);
    for id in store.names("overlay2") {
        fs::remove_dir_all(store.root().join("overlay2").join(&id)).unwrap();
        expected.assert_same(&look(&store, name));
        assert!(!store.names("overlay2").contains(&id), "a new tree has a new name");
    }
    fs::remove_dir_all(store.root().join("overlay2")).unwrap();
    expected.assert_same(&look(&store, name));
    store.ok(["gc"]);
    store.assert_no_leftovers();
}

/// Loading again mends what the archive holds: manifest, config and layers.
fn blobs_are_mended(store: &Sandbox, name: &str, input: &Path) {
    store.load(input);
    let expected = look(store, name);
    let inspected = store.json(["inspect", name]);
    for blob in store.names("blobs/sha256") {
        let path = store.root().join("blobs/sha256").join(&blob);
        let bytes = fs::read(&path).unwrap();
        let half = |bytes: &[u8]| {
            fs::remove_file(&path).unwrap();
            fs::write(&path, bytes).unwrap();
        };
        let damages: [&dyn Fn(); 3] =
            [&|| fs::remove_file(&path).unwrap(), &|| half(&bytes[..bytes.len() / 2]), &|| half(b"")];
        for damage in damages {
            damage();
            store.load(input);
            assert_eq!(fs::read(&path).unwrap(), bytes, "{blob} is not mended");
            assert_eq!(store.json(["inspect", name]), inspected);
        }
    }
    store.execute("UPDATE tree SET boot_id = 'another', synced = 0");
    expected.assert_same(&look(store, name));
    store.ok(["gc"]);
    store.assert_no_leftovers();
}

#[test]
fn privileged_blobs_that_were_deleted_or_cut_are_mended_from_an_oci_archive() {
    let Some(store) = Sandbox::new() else { return };
    let name = "localhost/oci:1";
    let input = store.write("oci.tar", &Layout::of(name, &varied_image()).archive());
    blobs_are_mended(&store, name, &input);
}

#[test]
fn privileged_blobs_that_were_deleted_or_cut_are_mended_from_a_docker_archive() {
    let Some(store) = Sandbox::new() else { return };
    let name = "localhost/docker:1";
    let input = store.write("docker.tar", &Archive::new().image(&[name], &varied_image()).legacy());
    blobs_are_mended(&store, name, &input);
}

/// The layer cannot be unpacked again from a blob that the disk has changed. It is named, and taken out of the way
/// of the next load.
#[test]
fn privileged_a_damaged_blob_is_named_and_put_back_by_the_next_load() {
    let Some(store) = Sandbox::new() else { return };
    let layer = LayerBuilder::gzip().file("a", "text ".repeat(10_000)).finish();
    let archive = Layout::of("localhost/a:1", &Image::new([layer.clone()])).archive();
    store.load_bytes(&archive);
    let blob = store.root().join("blobs/sha256").join(hex_of(&layer.digest()));
    let mut bytes = fs::read(&blob).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::remove_file(&blob).unwrap();
    fs::write(&blob, bytes).unwrap();
    for tree in store.names("overlay2") {
        fs::remove_dir_all(store.root().join("overlay2").join(tree)).unwrap();
    }
    let path = store.write("a.tar", &archive);
    let sentence = store.run(["load", "-i", path.to_str().unwrap()]).failure(5);
    assert!(sentence.contains(&layer.digest()) && sentence.contains("damaged"), "{sentence}");
    store.load_bytes(&archive);
    assert!(Snapshot::of(store.mount("localhost/a:1")).has("a"));
}
