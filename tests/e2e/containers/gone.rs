//! Containers of which something was deleted by hand.

use std::fs;
use std::path::PathBuf;

use layerstore_testkit::hex_of;
use layerstore_testkit::sandbox::Sandbox;

use super::{SMALL, mount, refused, with_small};

/// The directory with what a container has written.
fn directory(store: &Sandbox, name: &str) -> PathBuf {
    let query = format!("SELECT tree FROM snapshot JOIN container ON id = key WHERE name = '{name}'");
    store.root().join("overlay2").join(&store.sql(&query)[0])
}

#[test]
fn privileged_a_container_whose_directory_was_deleted() {
    let Some(store) = with_small() else { return };
    for part in ["", "diff", "work"] {
        for name in ["lost", "whole"] {
            store.ok(["create", "--name", name, SMALL]);
        }
        fs::remove_dir_all(directory(&store, "lost").join(part)).unwrap();
        if part == "work" {
            // Nothing of it is lost.
            let root = mount(&store, "lost");
            fs::write(root.join("file"), "x").unwrap();
            assert_eq!(store.ok(["diff", "lost"]), "A /file\n");
            store.umount(&root);
        } else {
            let archive = store.dir().join("archive");
            for args in [
                &["mount", "lost"][..],
                &["diff", "lost"],
                &["commit", "lost", "localhost/lost:1"],
                &["export", "-o", archive.to_str().unwrap(), "lost"],
            ] {
                let hint = refused(&store, args, 5, "the files of container lost are gone: ");
                assert_eq!(hint, "what it had written is lost: `layerstore rm lost`");
            }
            assert!(!archive.exists());
            let listed = store.ok(["ps", "-a", "--size", "--format", "{{.Names}} {{.Size}}"]);
            assert_eq!(listed, "whole 0B\nlost N/A\n");
        }
        store.ok(["gc"]);
        assert_eq!(store.ok(["rm", "lost"]), "lost\n");
        mount(&store, "whole");
        store.ok(["rm", "-f", "whole"]);
        store.assert_no_leftovers();
        store.assert_nothing_to_collect();
    }
}

/// The trees of the image grow back from its blobs; a container does not depend on them being there.
#[test]
fn privileged_a_container_whose_image_s_trees_were_deleted() {
    let Some(store) = with_small() else { return };
    store.ok(["create", "--name", "work", SMALL]);
    let root = mount(&store, "work");
    fs::write(root.join("top"), "other").unwrap();
    store.umount(&root);
    for tree in store.sql("SELECT id FROM tree WHERE diff_id IS NOT NULL") {
        fs::remove_dir_all(store.root().join("overlay2").join(tree)).unwrap();
    }
    assert_eq!(store.ok(["diff", "work"]), "C /top\n");
    let root = mount(&store, "work");
    assert_eq!(fs::read(root.join("base")).unwrap(), b"base");
    assert_eq!(fs::read(root.join("top")).unwrap(), b"other");
}

#[test]
fn privileged_a_commit_whose_base_is_incomplete_is_refused() {
    let Some(store) = with_small() else { return };
    store.ok(["create", "--name", "work", SMALL]);
    fs::write(mount(&store, "work").join("file"), "x").unwrap();
    store.ok(["umount", "work"]);
    let query = "SELECT blob FROM image_layer JOIN container USING (manifest) WHERE position = 0";
    let blob = store.sql(query).remove(0);
    let path = store.root().join("blobs/sha256").join(hex_of(&blob));
    let bytes = fs::read(&path).unwrap();
    let commit = ["commit", "work", "localhost/new:1"];
    fs::remove_file(&path).unwrap();
    let sentence = format!("the store does not have its {blob} any more");
    refused(&store, &commit, 5, &sentence);
    // It says the same, whether the database knows that the blob is gone or not.
    store.execute(&format!("DELETE FROM blob WHERE digest = '{blob}'"));
    refused(&store, &commit, 5, &sentence);
    // What was written can still be had, and after loading the image again it can be committed.
    assert_eq!(store.ok(["diff", "work"]), "A /file\n");
    store.ok(["export", "-o", "archive", "work"]);
    store.load(store.dir().join("archive.tar"));
    assert_eq!(fs::read(&path).unwrap(), bytes);
    store.ok(commit);
}
