//! Layers of which one half is not what the database says.

use std::fs;

use layerstore_testkit::hex_of;

use crate::remote::{pulled, two_layers};

/// How a blob can be of no use.
type Damage = fn(&std::path::Path) -> std::io::Result<()>;

#[test]
fn privileged_trees_stay_that_no_blob_could_replace() {
    let cut: Damage = |blob| fs::OpenOptions::new().write(true).open(blob)?.set_len(10);
    for damage in [cut, |blob| fs::remove_file(blob)] {
        let image = two_layers("top");
        let Some((store, _registry, _)) = pulled(&image) else { return };
        store.ok(["gc"]);
        damage(&store.root().join("blobs/sha256").join(hex_of(&image.layers[0].digest()))).unwrap();
        for options in [&["--dry-run"][..], &[]] {
            let run = store.ok([&["-v", "gc", "--evict", "trees"][..], options].concat());
            assert!(run.contains("not here as blobs"), "{run}");
            assert_eq!(store.names_of_trees(), 2);
        }
        assert_eq!(store.sql("SELECT count(*) FROM tree WHERE diff_id IS NOT NULL"), ["2"]);
    }
}

#[test]
fn privileged_blobs_stay_that_no_tree_stands_for() {
    let image = two_layers("top");
    let Some((store, _registry, _)) = pulled(&image) else { return };
    store.ok(["gc"]);
    let tree = &store.sql("SELECT id FROM tree")[0];
    fs::remove_dir_all(store.root().join("overlay2").join(tree)).unwrap();
    for options in [&["--dry-run"][..], &[]] {
        let run = store.ok([&["-v", "gc", "--evict", "blobs"][..], options].concat());
        assert!(run.contains("not unpacked"), "{run}");
        for layer in &image.layers {
            assert!(store.root().join("blobs/sha256").join(hex_of(&layer.digest())).is_file());
        }
    }
}
