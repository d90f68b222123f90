//! `gc --evict`, and what it leaves.

use std::fs;

use layerstore_testkit::hex_of;
use layerstore_testkit::image::Layout;
use layerstore_testkit::sandbox::Sandbox;

use super::{have, save};
use crate::remote::{pulled, two_layers};

const IN_USE: i32 = 4;

fn trees(store: &Sandbox) -> usize {
    store.sql("SELECT id FROM tree WHERE diff_id IS NOT NULL").len()
}

#[test]
fn privileged_blobs_go_that_a_registry_has_and_come_back() {
    let image = two_layers("top");
    let Some((store, _registry, name)) = pulled(&image) else { return };
    // A container needs files, not blobs; its image came from an archive, and shares a layer.
    store.load_bytes(&Layout::of("localhost/loaded:1", &two_layers("other")).archive());
    store.ok(["create", "--name", "box", &name]);
    let planned = store.ok(["gc", "--dry-run", "-v", "--evict", "blobs"]);
    let done = store.ok(["gc", "-v", "--evict", "blobs"]);
    assert_eq!(
        done,
        planned
            .replace("Would evict:", "Evicted:")
            .replace("Would delete", "Deleted")
            .replace("Reclaimable space:", "Total reclaimed space:")
    );
    assert!(done.contains("localhost/loaded:1"), "and why it stays: {done}");
    assert_eq!(have(&store, &image), 1, "the archive's image needs the layer that they share");
    assert_eq!(trees(&store), 3);
    store.ok(["mount", "box"]);
    store.ok(["umount", "box"]);
    save(&store, &["-o", store.dir().join("out.tar").to_str().unwrap(), &name]).success();
    assert_eq!(have(&store, &image), 2);
    store.assert_no_leftovers();
}

#[test]
fn privileged_the_last_name_to_fetch_by_stays() {
    let image = two_layers("top");
    let Some((store, _registry, name)) = pulled(&image) else { return };
    store.ok(["tag", &name, "localhost/mine:1"]);
    store.ok(["gc", "--evict", "blobs"]);
    assert_eq!(have(&store, &image), 0);
    let told = store.run(["rmi", &name]).failure(IN_USE);
    assert!(told.contains("localhost/mine:1"), "{told}");
    save(&store, &["-o", store.dir().join("out.tar").to_str().unwrap(), "localhost/mine:1"]).success();
    store.ok(["rmi", &name]);
    store.ok(["rmi", "localhost/mine:1"]);
    store.ok(["gc"]);
    assert!(store.names("blobs/sha256").is_empty() && store.names("overlay2").is_empty());
}

/// One form of each layer is always there, whatever is asked for in which order.
#[test]
fn privileged_never_both_forms_go() {
    let image = two_layers("top");
    let Some((store, _registry, name)) = pulled(&image) else { return };
    store.ok(["gc", "--evict", "blobs"]);
    assert_eq!((have(&store, &image), trees(&store)), (0, 2));
    store.ok(["gc", "--evict", "trees"]);
    assert_eq!((have(&store, &image), trees(&store)), (0, 2), "there is nothing to unpack them from");
    save(&store, &["-o", store.dir().join("out.tar").to_str().unwrap(), &name]).success();
    store.ok(["gc", "--evict", "trees"]);
    assert_eq!((have(&store, &image), trees(&store)), (2, 0));
    store.ok(["gc", "--evict", "blobs"]);
    assert_eq!((have(&store, &image), trees(&store)), (2, 0));
    store.ok(["ls", &name, "/"]);
    assert_eq!(trees(&store), 2, "they grow back");
}

/// What the database says is there need not be.
#[test]
fn privileged_a_form_that_is_lost_does_not_count() {
    let image = two_layers("top");
    let Some((store, _registry, name)) = pulled(&image) else { return };
    store.ok(["gc"]);
    let blob = store.root().join("blobs/sha256").join(hex_of(&image.layers[0].digest()));
    let bytes = fs::read(&blob).unwrap();
    fs::remove_file(&blob).unwrap();
    store.ok(["gc", "--evict", "trees"]);
    assert_eq!(trees(&store), 2, "the blob of one is gone");
    fs::write(&blob, &bytes[1..]).unwrap();
    store.ok(["gc", "--evict", "trees"]);
    assert_eq!(trees(&store), 2, "the blob of one is cut");
    fs::write(&blob, &bytes).unwrap();
    for id in store.names("overlay2") {
        fs::rename(store.root().join("overlay2").join(&id), store.dir().join(&id)).unwrap();
    }
    store.ok(["gc", "--evict", "blobs"]);
    assert_eq!(have(&store, &image), 2, "their trees are gone");
    store.ok(["create", &name]);
}
