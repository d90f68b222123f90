//! Images whose blobs or trees were evicted.
//!
//! Where it matters what exactly is gone, files and rows are taken away by hand.

mod evicting;
mod fetching;
mod halves;
mod moved;
mod trees;
mod uses;

use std::fs;

use layerstore_testkit::hex_of;
use layerstore_testkit::image::{Image, Layout};
use layerstore_testkit::sandbox::{Run, Sandbox};
use layerstore_testkit::tree::Snapshot;

use crate::remote::{pull, pulled, remote, two_layers};
use crate::varied_image;

/// Takes the blobs of these layers away, after their trees have reached the disk.
fn evict(store: &Sandbox, image: &Image) {
    store.ok(["gc"]);
    assert_eq!(store.sql("SELECT count(*) FROM tree WHERE synced = 0"), ["0"]);
    for layer in &image.layers {
        evict_one(store, &layer.digest());
    }
}

fn evict_one(store: &Sandbox, digest: &str) {
    store.execute(&format!("DELETE FROM blob WHERE digest = '{digest}'"));
    fs::remove_file(store.root().join("blobs/sha256").join(hex_of(digest))).unwrap();
}

/// Whether a blob is here, with its diff ID.
fn is_whole(store: &Sandbox, digest: &str) -> bool {
    let file = store.root().join("blobs/sha256").join(hex_of(digest)).is_file();
    let query = format!("SELECT count(*) FROM blob WHERE digest = '{digest}' AND diff_id IS NOT NULL");
    let row = store.sql(&query) == ["1"];
    assert_eq!(file, row, "file and row of {digest}");
    file
}

fn have(store: &Sandbox, image: &Image) -> usize {
    image.layers.iter().filter(|layer| is_whole(store, &layer.digest())).count()
}

#[must_use = "either look at the output or assert the exit status"]
fn save(store: &Sandbox, args: &[&str]) -> Run {
    remote(store, &["save"], args)
}

#[test]
fn privileged_all_that_needs_files_only_works_without_blobs() {
    let image = varied_image();
    let Some((store, _registry, name)) = pulled(&image) else { return };
    let looks = || {
        [
            store.ok(["images", "--no-trunc"]),
            store.ok(["images", "--format", "json"]),
            store.ok(["history", "--human=false", &name]),
            store.ok(["ls", "-l", &name, "/etc"]),
            store.ok(["cat", &name, "etc/hostname"]),
        ]
    };
    let root = store.mount(&name);
    let before = Snapshot::of(&root);
    store.umount(&root);
    let (seen, inspected) = (looks(), store.json(["inspect", &name]));
    evict(&store, &image);
    assert_eq!(looks(), seen);
    let now = store.json(["inspect", &name]);
    for part in ["Size", "RootFS", "GraphDriver", "Config", "Descriptor", "RepoDigests"] {
        assert_eq!(now[0][part], inspected[0][part], "{part}");
    }
    Snapshot::of(store.mount(&name)).assert_same(&before);
    store.ok(["create", "--name", "box", &name]);
    let root = store.ok(["mount", "box"]);
    fs::write(format!("{}/etc/new", root.trim_end()), "new").unwrap();
    assert!(store.ok(["diff", "box"]).contains("A /etc/new"));
    store.ok(["export", "-o", store.dir().join("box.tar").to_str().unwrap(), "box"]);
    store.ok(["umount", "box"]);
    store.ok(["commit", "box", "localhost/child:1"]);
    assert_eq!(store.ok(["cat", "localhost/child:1", "etc/new"]), "new");
    store.ok(["bundle", &name, store.dir().join("bundle").to_str().unwrap(), "true"]);
    store.ok(["umount", "--all"]);
    store.ok(["gc"]);
    assert_eq!(have(&store, &image), 0, "nothing brought a blob back");
    store.assert_no_leftovers();
}

#[test]
fn privileged_an_archive_brings_blobs_back() {
    let image = two_layers("top");
    let Some((store, _registry, name)) = pulled(&image) else { return };
    evict(&store, &image);
    store.load_bytes(&Layout::of(&name, &image).archive());
    assert_eq!(have(&store, &image), 2);
    assert_eq!(store.names_of_trees(), 2);
    let pulled = store.ok(["images", "--format", "{{.PulledAt}}"]);
    assert_ne!(pulled.trim(), "", "the name stands for what it stood for");
    store.assert_no_leftovers();
    store.assert_nothing_to_collect();
}

#[test]
fn privileged_a_tree_that_did_not_reach_the_disk_needs_its_blob() {
    let image = two_layers("top");
    let Some((store, _registry, name)) = pulled(&image) else { return };
    evict(&store, &image);
    // Synced, it outlives a power cut.
    store.execute("UPDATE tree SET boot_id = 'another'");
    store.ok(["ls", &name]);
    store.execute("UPDATE tree SET synced = 0");
    let error = store.run(["ls", &name]).failure(3);
    assert!(error.contains(&image.layers[0].digest()), "{error}");
    // It is the pull's business again.
    pull(&store, &[&name]).success();
    assert_eq!(have(&store, &image), 2);
    store.ok(["ls", &name]);
}
