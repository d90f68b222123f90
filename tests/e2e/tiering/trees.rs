//! Images whose trees were evicted.

use std::fs;

use layerstore_testkit::image::Image;
use layerstore_testkit::layer::{Entry, LayerBuilder};
use layerstore_testkit::registry::Registry;
use layerstore_testkit::sandbox::Sandbox;
use layerstore_testkit::tree::Snapshot;

use super::save;
use crate::remote::{pull, push};
use crate::remote::{pulled, two_layers};
use crate::varied_image;

/// Takes all trees of images and their chains away.
fn evict_trees(store: &Sandbox) {
    let ids = store.sql("SELECT id FROM tree");
    store.execute("DELETE FROM snapshot; DELETE FROM tree");
    for id in ids {
        fs::remove_dir_all(store.root().join("overlay2").join(id)).unwrap();
    }
}

#[test]
fn privileged_trees_grow_back_on_first_use() {
    let Some((store, _registry, name)) = pulled(&varied_image()) else { return };
    let root = store.mount(&name);
    let before = Snapshot::of(&root);
    store.umount(&root);
    let looks: [&dyn Fn(); 5] = [
        &|| Snapshot::of(store.mount(&name)).assert_same(&before),
        &|| assert_eq!(store.ok(["cat", &name, "etc/hostname"]), "above\n"),
        &|| assert!(store.ok(["ls", &name, "/opaque"]).contains("seen")),
        &|| drop(store.ok(["create", "--name", "box", &name])),
        &|| drop(store.ok(["bundle", &name, store.dir().join("bundle").to_str().unwrap(), "true"])),
    ];
    for look in looks {
        evict_trees(&store);
        look();
        assert_eq!(store.sql("SELECT count(*) FROM tree WHERE diff_id IS NOT NULL"), ["2"]);
        store.ok(["umount", "--all"]);
        for container in store.ok(["ps", "-aq"]).lines() {
            store.ok(["rm", container]);
        }
        store.assert_nothing_to_collect();
    }
    store.ok(["rmi", &name]);
    store.assert_no_leftovers();
    assert_eq!(store.names_of_trees(), 0);
}

#[test]
fn privileged_save_and_push_need_no_trees() {
    let image = two_layers("top");
    let Some((store, _registry, name)) = pulled(&image) else { return };
    evict_trees(&store);
    save(&store, &["-o", store.dir().join("a.tar").to_str().unwrap(), &name]).success();
    let other = Registry::plain();
    push(&store, &[&name, &other.reference("b:1")]).success();
    assert_eq!(store.names_of_trees(), 0);
    let run = pull(&store, &[&name]).success();
    assert_eq!(store.names_of_trees(), 2, "a pull unpacks\n{run}");
}

#[test]
fn privileged_a_container_keeps_its_stack_and_a_child_gets_its_own() {
    let image = two_layers("top");
    let Some((store, _registry, name)) = pulled(&image) else { return };
    evict_trees(&store);
    store.ok(["create", "--name", "box", &name]);
    let root = store.ok(["mount", "box"]);
    fs::write(format!("{}/new", root.trim_end()), "new").unwrap();
    store.ok(["umount", "box"]);
    store.ok(["commit", "box", "localhost/child:1"]);
    store.ok(["rm", "box"]);
    evict_trees(&store);
    assert_eq!(store.ok(["cat", "localhost/child:1", "new"]), "new");
    assert_eq!(store.ok(["cat", "localhost/child:1", "base"]), "base");
}

/// The layer above implies a directory whose attributes are those of the one below, and links to its file.
#[test]
fn privileged_a_stack_that_needs_a_fixup_gets_it_again() {
    let below = LayerBuilder::gzip()
        .entry(Entry::dir("d/").mode(0o700).owner(7, 8))
        .entry(Entry::file("d/file", "content").mode(0o600));
    let above = LayerBuilder::gzip().file("d/other", "x").hard_link("link", "d/file");
    let Some((store, _registry, name)) = pulled(&Image::new([below.finish(), above.finish()])) else {
        return;
    };
    let root = store.mount(&name);
    let before = Snapshot::of(&root);
    store.umount(&root);
    let trees = store.names_of_trees();
    assert_eq!(trees, 3, "there is a fix-up");
    for _ in 0..2 {
        evict_trees(&store);
        let root = store.mount(&name);
        Snapshot::of(&root).assert_same(&before);
        store.umount(&root);
        assert_eq!(store.names_of_trees(), trees);
        store.assert_nothing_to_collect();
    }
    // The chain alone: its trees are here, its snapshots are not.
    store.execute("DELETE FROM snapshot");
    Snapshot::of(store.mount(&name)).assert_same(&before);
}

#[test]
fn privileged_neither_trees_nor_blobs_is_what_a_pull_mends() {
    let image = two_layers("top");
    let Some((store, _registry, name)) = pulled(&image) else { return };
    super::evict(&store, &image);
    evict_trees(&store);
    let error = store.run(["ls", &name]).failure(3);
    assert!(error.contains(&image.layers[0].digest()), "{error}");
    save(&store, &["-o", store.dir().join("a.tar").to_str().unwrap(), &name]).success();
    store.ok(["ls", &name]);
    super::evict(&store, &image);
    evict_trees(&store);
    pull(&store, &[&name]).success();
    assert_eq!(super::have(&store, &image), 2);
    store.ok(["ls", &name]);
}
