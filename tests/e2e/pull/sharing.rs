//! Real images, what pulls share, when the registry is asked, and the room that a pull needs.

use layerstore_testkit::disk::Disk;
use layerstore_testkit::fault_proxy::{Fault, FaultProxy, Match};
use layerstore_testkit::image::{Image, Layout};
use layerstore_testkit::layer::LayerBuilder;
use layerstore_testkit::registry::Registry;
use layerstore_testkit::require;
use layerstore_testkit::sandbox::Sandbox;
use layerstore_testkit::tree::Snapshot;

use super::{setting, two_layers};
use crate::real_images::expected_app;
use crate::remote::{assert_holds, noise, pull, pull_at_once, requests};
use crate::small_layer;

#[test]
fn privileged_real_images_share_their_base_and_are_exact() {
    let Some(images) = require::images() else { return };
    let Some((store, registry)) = setting() else { return };
    for name in ["app", "node"] {
        registry.push_archive(&images.join(format!("{name}.oci.tar")), &format!("{name}:1"));
    }
    let app = registry.reference("app:1");
    assert_eq!(pull(&store, &[&app]).success().reused_layers(), 0);
    assert_eq!(pull(&store, &[&registry.reference("node:1")]).success().reused_layers(), 1, "the base");
    assert_eq!(store.names("overlay2").len(), 4);
    store.assert_no_leftovers();

    let expected = expected_app(&images);
    expected.assert_same(&Snapshot::of(store.mount(&app)).without_root_mtime());
}

#[test]
fn privileged_a_loaded_layer_is_not_fetched() {
    let Some((store, registry)) = setting() else { return };
    let proxy = FaultProxy::start(registry.address());
    store.load_bytes(&Layout::of("localhost/x:1", &two_layers("x")).archive());
    registry.push("a:1", &two_layers("a"));
    let run = pull(&store, &[&format!("{}/a:1", proxy.host())]).success();
    assert_eq!(run.reused_layers(), 1, "{run}");
    assert_eq!(proxy.traffic().count("GET", "/blobs/"), 2, "config and one layer");
}

#[test]
fn privileged_processes_that_pull_the_same_fetch_each_layer_once() {
    let Some((store, registry)) = setting() else { return };
    let proxy = FaultProxy::start(registry.address());
    let layer = |name: &str| LayerBuilder::gzip().file(name, name.repeat(20_000)).finish();
    let image = Image::new(["a", "b", "c", "d"].map(layer));
    registry.push("a:1", &image);
    let name = format!("{}/a:1", proxy.host());
    let runs = pull_at_once(&store, &name, 5);
    let digest = runs[0].stdout.lines().next().unwrap().to_owned();
    assert!(runs.iter().all(|run| run.stdout.starts_with(&digest)));
    for layer in &image.layers {
        let served = proxy.traffic().bytes_served(&layer.digest());
        assert_eq!(served, layer.blob.len() as u64, "{:?}", requests(&proxy));
    }
    assert_holds(&store, &name, &["a", "b", "c", "d"]);
    store.assert_no_leftovers();
    store.assert_nothing_to_collect();
}

#[test]
fn privileged_missing_asks_only_for_what_is_not_here() {
    let Some((store, registry)) = setting() else { return };
    let proxy = FaultProxy::start(registry.address());
    registry.push("a:1", &two_layers("old"));
    let name = format!("{}/a:1", proxy.host());
    let missing = || pull(&store, &["--policy", "missing", &name]).success();
    assert!(missing().stdout.contains("Downloaded newer image"));
    registry.push("a:1", &two_layers("new"));
    proxy.traffic().clear();
    assert!(missing().stdout.contains("Image is up to date"));
    assert_eq!(proxy.traffic().requests(), Vec::<String>::new());
    assert_holds(&store, &name, &["base", "old"]);
}

#[test]
fn privileged_newer_does_without_a_registry_that_is_down() {
    let Some((store, registry)) = setting() else { return };
    registry.push("a:1", &two_layers("top"));
    let (name, other) = (registry.reference("a:1"), registry.reference("b:1"));
    pull(&store, &[&name]).success();
    drop(registry);
    let newer = pull(&store, &["--policy", "newer", &name]).success();
    assert!(newer.stdout.contains("Image is up to date"), "{newer}");
    assert!(newer.stderr.contains("note: the image in the store is used: "), "{newer}");
    pull(&store, &["--policy", "newer", &other]).failure(8);
    pull(&store, &["--policy", "always", &name]).failure(8);
}

#[test]
fn privileged_newer_takes_what_is_newer() {
    let Some((store, registry)) = setting() else { return };
    registry.push("a:1", &two_layers("old"));
    let name = registry.reference("a:1");
    pull(&store, &["--policy", "newer", &name]).success();
    registry.push("a:1", &two_layers("new"));
    pull(&store, &["--policy", "newer", &name]).success();
    assert_holds(&store, &name, &["base", "new"]);
}

#[test]
fn privileged_no_unpack_leaves_the_work_to_the_mount() {
    let Some((store, registry)) = setting() else { return };
    registry.push("a:1", &two_layers("top"));
    let name = registry.reference("a:1");
    pull(&store, &["--no-unpack", &name]).success();
    assert_eq!(store.names_of_trees(), 0);
    let run = pull(&store, &["--no-unpack", &name]).success();
    assert!(run.stdout.contains("Image is up to date"), "{run}");
    assert_holds(&store, &name, &["base", "top"]);
}

#[test]
fn privileged_an_interrupted_pull_goes_on_where_it_was() {
    let Some((store, registry)) = setting() else { return };
    let proxy = FaultProxy::start(registry.address());
    let image = Image::new([noise(1024), small_layer("top")]);
    registry.push("a:1", &image);
    let (name, layer) = (format!("{}/a:1", proxy.host()), image.layers[0].digest());
    proxy.on(Match::get(&layer).first(1), Fault::Cut { after: 600_000 });
    proxy.on(Match::get(&layer).since(2), Fault::status(404));
    pull(&store, &[&name]).failure(3);
    assert!(!store.ok(["images", "-a"]).contains("/a"), "no name shows it");
    proxy.heal();
    proxy.traffic().clear();
    pull(&store, &[&name]).success();
    let rest = proxy.traffic().bytes_served(&layer);
    assert!(rest < image.layers[0].blob.len() as u64 - 500_000, "{rest} bytes are fetched again");
    store.assert_no_leftovers();
}

#[test]
fn privileged_what_will_not_fit_is_not_begun() {
    let Some(registry) = require::registry().then(Registry::plain) else { return };
    if !require::root() {
        return;
    }
    let disk = Disk::tmpfs(8);
    let Some(store) = Sandbox::at(&disk.path().join("store")) else { return };
    let proxy = FaultProxy::start(registry.address());
    registry.push("a:1", &Image::new([small_layer("base"), noise(12 << 10)]));
    let name = format!("{}/a:1", proxy.host());
    let run = pull(&store, &[&name]);
    assert!(run.stderr.contains("hint: it is an estimate: --force tries it all the same"), "{run}");
    run.failure(6);
    assert_eq!(layers_asked_for(&proxy), 0, "{:?}", requests(&proxy));
    pull(&store, &["--force", &name]).failure(6);
    assert_ne!(layers_asked_for(&proxy), 0);
    registry.push("small:1", &two_layers("top"));
    let small = format!("{}/small:1", proxy.host());
    pull(&store, &[&small]).success();
    assert_holds(&store, &small, &["base", "top"]);
}

/// Of the blobs only the config may be asked for, since it says what the layers are.
fn layers_asked_for(proxy: &FaultProxy) -> usize {
    proxy.traffic().count("GET", "/blobs/").saturating_sub(1)
}
