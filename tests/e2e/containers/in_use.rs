//! Images that containers need.

use std::fs;

use layerstore_testkit::tree::Snapshot;

use super::{SMALL, diff, mount, refused, umount, with_small};

#[test]
fn privileged_an_image_that_containers_use_is_not_removed() {
    let Some(store) = with_small() else { return };
    for name in ["one", "two"] {
        store.ok(["create", "--name", name, SMALL]);
    }
    let id = store.ok(["inspect", "--format", "{{.Id}}", SMALL]).trim_end().to_owned();
    for image in [SMALL, &id] {
        let hint = refused(&store, &["rmi", image], 4, "is used by containers");
        assert!(hint.contains("`layerstore rm` removes containers"), "{hint}");
    }
    let sentence = store.run(["rmi", SMALL]).failure(4);
    assert!(sentence.contains("one") && sentence.contains("two"), "{sentence}");
    // It has another name: only that one goes.
    store.ok(["tag", SMALL, "localhost/other:1"]);
    assert_eq!(store.ok(["rmi", "localhost/other:1"]), "Untagged: localhost/other:1\n");
    store.ok(["rm", "one", "two"]);
    assert!(store.ok(["rmi", SMALL]).contains(&format!("Deleted: {id}")));
}

#[test]
fn privileged_what_a_container_needs_outlives_the_image_s_name() {
    let Some(store) = with_small() else { return };
    store.ok(["rmi", "localhost/varied:1"]);
    store.ok(["create", "--name", "work", SMALL]);
    let root = mount(&store, "work");
    fs::write(root.join("top"), "other").unwrap();
    let expected = Snapshot::of(&root);
    umount(&store, "work");
    let id = store.ok(["inspect", "--format", "{{.Id}}", SMALL]).trim_end().to_owned();
    assert_eq!(store.ok(["rmi", "-f", SMALL]), format!("Untagged: {SMALL}\n"));
    store.assert_nothing_to_collect();
    store.ok(["gc"]);
    assert_eq!(
        store.ok(["ps", "-a", "--no-trunc", "--format", "{{.Image}} {{.ImageID}}"]),
        format!("{SMALL} {id}\n")
    );
    expected.assert_same(&Snapshot::of(mount(&store, "work")));
    assert_eq!(diff(&store, "work"), ["C /top"]);
    umount(&store, "work");
    // The image is still there to build on; the new one keeps the layers after that.
    store.ok(["commit", "work", "localhost/new:1"]);
    store.ok(["rm", "work"]);
    store.ok(["gc"]);
    expected.assert_same(&Snapshot::of(store.mount("localhost/new:1")));
    store.ok(["umount", "--all"]);

    store.ok(["create", "--name", "work", "localhost/new:1"]);
    store.ok(["rmi", "-f", "localhost/new:1"]);
    store.ok(["rm", "work"]);
    store.ok(["gc"]);
    for folder in ["blobs/sha256", "overlay2", "trash", "ingest", "mnt"] {
        assert!(store.names(folder).is_empty(), "{folder}: {:?}", store.names(folder));
    }
    for table in ["blob", "tree", "image", "snapshot", "container", "mount", "lease", "reference"] {
        assert_eq!(store.sql(&format!("SELECT count(*) FROM {table}")), ["0"], "{table}");
    }
}
