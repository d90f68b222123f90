//! Evicted blobs that are fetched again, and those that cannot be.

use std::{fs, thread};

use layerstore_testkit::fault_proxy::{Fault, FaultProxy, Match};
use layerstore_testkit::hex_of;
use layerstore_testkit::image::{Image, Layout, host_architecture};
use layerstore_testkit::registry::Registry;
use layerstore_testkit::sandbox::Sandbox;

use super::{evict, evict_one, have, is_whole, save};
use crate::remote::{pull, pulled, push, requests, setting, two_layers};
use crate::small_layer;

/// A store with the image `a:1` of a registry behind a proxy, without the blobs of its layers.
#[track_caller]
fn evicted_behind_a_proxy(image: &Image) -> Option<(Sandbox, Registry, FaultProxy, String)> {
    let (store, registry) = setting()?;
    let proxy = FaultProxy::start(registry.address());
    let name = format!("{}/a:1", proxy.host());
    registry.push("a:1", image);
    pull(&store, &[&name]).success();
    evict(&store, image);
    Some((store, registry, proxy, name))
}

/// What is sent and written is what was pulled, byte by byte.
#[test]
fn privileged_a_push_and_a_save_fetch_what_they_need() {
    let image = two_layers("top");
    let Some((store, _registry, name)) = pulled(&image) else { return };
    let [before, after] = ["before.tar", "after.tar"].map(|file| store.dir().join(file));
    save(&store, &["-o", before.to_str().unwrap(), &name]).success();
    evict(&store, &image);
    save(&store, &["-o", after.to_str().unwrap(), &name]).success();
    assert!(fs::read(before).unwrap() == fs::read(after).unwrap());
    assert_eq!(have(&store, &image), 2);

    evict(&store, &image);
    let other = Registry::plain();
    let run = push(&store, &[&name, &other.reference("b:2")]).success();
    assert_eq!(run.stderr.matches(": Pushed").count(), 3, "two layers and the config, once each\n{run}");
    for layer in &image.layers {
        assert_eq!(other.blob(&layer.digest()).as_ref(), Some(&layer.blob));
    }
    assert_eq!(have(&store, &image), 2);
    store.assert_no_leftovers();
    store.assert_nothing_to_collect();
}

#[test]
fn privileged_what_the_destination_has_is_not_fetched_for_it() {
    let image = two_layers("top");
    let Some((store, _registry, proxy, name)) = evicted_behind_a_proxy(&image) else { return };
    proxy.traffic().clear();
    let run = push(&store, &[&name]).success();
    assert_eq!(run.stderr.matches("Layer already exists").count(), 3, "{run}");
    assert_eq!(proxy.traffic().count("GET", "/blobs/"), 0, "{:?}", requests(&proxy));
    assert_eq!(have(&store, &image), 0);
}

/// Its layers came with another image.
#[test]
fn privileged_a_child_is_pushed_with_its_parents_layers() {
    let image = two_layers("top");
    let Some((store, _registry, name)) = pulled(&image) else { return };
    evict(&store, &image);
    store.ok(["create", "--name", "box", &name]);
    let root = store.ok(["mount", "box"]);
    fs::write(format!("{}/new", root.trim_end()), "new").unwrap();
    store.ok(["umount", "box"]);
    store.ok(["commit", "box", "localhost/child:1"]);
    assert_eq!(have(&store, &image), 0);
    let other = Registry::plain();
    push(&store, &["localhost/child:1", &other.reference("child:1")]).success();
    for layer in &image.layers {
        assert!(other.has_blob("child", &layer.digest()));
    }
    assert_eq!(have(&store, &image), 2);
}

#[test]
fn privileged_without_a_registry_that_has_them_nothing_begins() {
    let image = two_layers("top");
    let Some((store, registry, name)) = pulled(&image) else { return };
    evict(&store, &image);
    let missing = store.dir().join("missing.tar");
    let other = Registry::plain();

    // Gone altogether.
    drop(registry);
    let run = save(&store, &["--registry-retry", "attempts=1", "-o", missing.to_str().unwrap(), &name]);
    assert!(run.stderr.contains("hint: once a registry has them again"), "{run}");
    let error = run.failure(8);
    assert!(error.contains(&name) && error.contains("2 evicted layers"), "{error}");
    assert!(image.layers.iter().all(|layer| error.contains(&layer.digest())), "{error}");
    assert!(!missing.exists());
    let run = save(&store, &["--registry-retry", "attempts=1", &name]);
    assert_eq!(run.stdout, "");
    run.failure(8);
    push(&store, &["--registry-retry", "attempts=1", &name, &other.reference("b:1")]).failure(8);
    assert!(!other.has_blob("b", &image.id()), "not even the config was sent");

    // Or never known.
    store.ok(["tag", &name, "localhost/mine:1"]);
    store.ok(["rmi", "--force", &name]);
    let run = save(&store, &["-o", missing.to_str().unwrap(), "localhost/mine:1"]);
    assert!(run.stderr.contains("hint: `layerstore pull localhost/mine:1` finds out"), "{run}");
    let error = run.failure(3);
    assert!(image.layers.iter().all(|layer| error.contains(&layer.digest())), "{error}");
    push(&store, &["localhost/mine:1", &other.reference("b:1")]).failure(3);
    assert!(!missing.exists() && !other.has_blob("b", &image.id()));
    store.ok(["ls", "localhost/mine:1"]);
    store.assert_no_leftovers();
}

#[test]
fn privileged_wrong_bytes_are_not_taken() {
    let image = two_layers("top");
    let Some((store, registry, proxy, name)) = evicted_behind_a_proxy(&image) else { return };
    let other = Registry::plain();
    proxy.on(Match::get(&image.layers[0].digest()), Fault::Flip { at: 20 });
    let error = push(&store, &[&name, &other.reference("b:1")]).failure(5);
    assert!(error.contains(&image.layers[0].digest()), "{error}");
    assert!(!is_whole(&store, &image.layers[0].digest()));
    assert!(!other.has_blob("b", &image.id()));

    // Another repository had it as well.
    registry.push("good:1", &image);
    pull(&store, &[&registry.reference("good:1")]).success();
    push(&store, &[&name, &other.reference("b:1")]).success();
    assert_eq!(have(&store, &image), 2);
}

#[test]
fn privileged_a_pull_leaves_evicted_what_is() {
    let image = two_layers("top");
    let Some((store, registry, proxy, name)) = evicted_behind_a_proxy(&image) else { return };
    let run = pull(&store, &[&name]).success();
    assert!(run.stdout.contains("Image is up to date"), "{run}");
    assert_eq!(have(&store, &image), 0);

    // What comes anew is fetched, what it shares is not.
    let newer = Image::new([image.layers[0].clone(), small_layer("newer")]);
    registry.push("a:1", &newer);
    proxy.traffic().clear();
    let run = pull(&store, &[&name]).success();
    assert!(run.stdout.contains("Downloaded newer image"), "{run}");
    assert!(!is_whole(&store, &image.layers[0].digest()) && is_whole(&store, &newer.layers[1].digest()));
    assert_eq!(proxy.traffic().count("GET", &image.layers[0].digest()), 0, "{:?}", requests(&proxy));
    store.ok(["cat", &name, "base"]);
    let other = Registry::plain();
    push(&store, &[&name, &other.reference("b:1")]).success();
    assert!(is_whole(&store, &image.layers[0].digest()));

    // Unless the blobs themselves are wanted.
    evict(&store, &newer);
    pull(&store, &["--no-unpack", &name]).success();
    let file = store.root().join("blobs/sha256").join(hex_of(&newer.layers[0].digest()));
    assert_eq!(fs::read(file).unwrap(), newer.layers[0].blob);
    pull(&store, &[&name]).success();
    save(&store, &["-o", store.dir().join("a.tar").to_str().unwrap(), &name]).success();
}

#[test]
fn privileged_of_several_platforms_those_that_share_a_layer_do_without_it_too() {
    let Some((store, registry)) = setting() else { return };
    let images = [host_architecture(), "s390x"]
        .map(|arch| Image::new([small_layer("base"), small_layer(arch)]).platform("linux", arch, None));
    registry.push_layout("a:1", &Layout::new().platforms("localhost/a:1", &images));
    let name = registry.reference("a:1");
    pull(&store, &["--all-platforms", &name]).success();
    evict(&store, &images[0]);
    let run = pull(&store, &["--all-platforms", &name]).success();
    assert!(run.stdout.contains("up to date"), "{run}");
    assert_eq!(have(&store, &images[0]), 0);
    let other = Registry::plain();
    push(&store, &["--platform", "linux/s390x", &name, &other.reference("b:1")]).success();
    assert!(!is_whole(&store, &images[0].layers[1].digest()), "only what is wanted");
    push(&store, &[&name, &other.reference("b:2")]).success();
    assert_eq!(have(&store, &images[0]), 2);
}

#[test]
fn privileged_several_at_once_fetch_each_layer_once() {
    let image = two_layers("top");
    let Some((store, _registry, proxy, name)) = evicted_behind_a_proxy(&image) else { return };
    proxy.traffic().clear();
    let files: Vec<_> = (0..4).map(|number| store.dir().join(format!("{number}.tar"))).collect();
    thread::scope(|scope| {
        for file in &files {
            scope.spawn(|| save(&store, &["-o", file.to_str().unwrap(), &name]).success());
        }
    });
    assert_eq!(proxy.traffic().count("GET", "/blobs/"), 2, "{:?}", requests(&proxy));
    let first = fs::read(&files[0]).unwrap();
    assert!(files.iter().all(|file| fs::read(file).unwrap() == first));
    store.assert_no_leftovers();
}

#[test]
fn privileged_limits_are_not_for_what_is_unpacked_already() {
    let image = two_layers("top");
    let Some((store, _registry, name)) = pulled(&image) else { return };
    evict(&store, &image);
    store.ok(["limits", "output-bytes=16"]);
    save(&store, &["-o", store.dir().join("a.tar").to_str().unwrap(), &name]).success();
    assert_eq!(have(&store, &image), 2);
}

/// That its row is here tells damage from eviction.
#[test]
fn privileged_a_damaged_blob_is_still_mended_by_a_pull() {
    let image = two_layers("top");
    let Some((store, _registry, name)) = pulled(&image) else { return };
    store.ok(["gc"]);
    let digest = image.layers[0].digest();
    let file = store.root().join("blobs/sha256").join(hex_of(&digest));
    fs::remove_file(&file).unwrap();
    evict_one(&store, &image.layers[1].digest());
    pull(&store, &[&name]).success();
    assert!(is_whole(&store, &digest) && !is_whole(&store, &image.layers[1].digest()));
}

/// A name that another image got does not lead to the registry any more; another that was pulled does.
#[test]
fn privileged_only_names_that_were_pulled_count() {
    let image = two_layers("top");
    let Some((store, registry, name)) = pulled(&image) else { return };
    let second = registry.reference("second:1");
    registry.push("second:1", &image);
    pull(&store, &[&second]).success();
    evict(&store, &image);
    store.load_bytes(&Layout::of(&name, &Image::new([small_layer("other")])).archive());
    let pulled_at = store.ok(["images", &name, "--format", "{{.PulledAt}}"]);
    assert_eq!(pulled_at, "\n");
    let file = store.dir().join("a.tar");
    save(&store, &["-o", file.to_str().unwrap(), &second]).success();
    assert_eq!(have(&store, &image), 2);
}
