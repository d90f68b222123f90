//! `pull` from real registries.

mod access;
mod again;
pub(crate) mod contents;
mod mirrors;
mod platforms;
mod sharing;

use std::fs;

use layerstore_testkit::fault_proxy::{Fault, FaultProxy, Match};
use layerstore_testkit::image::Layout;
use layerstore_testkit::reference;
use layerstore_testkit::tree::Snapshot;

use crate::remote::{assert_holds, pull, requests, setting, two_layers};
use crate::varied_image;

#[test]
fn privileged_a_pull_says_what_docker_says() {
    let Some((store, registry)) = setting() else { return };
    let digest = registry.push("a/b:1", &two_layers("top"));
    let name = registry.reference("a/b:1");
    let run = pull(&store, &[&name]).success();
    assert_eq!(run.stdout, format!("Digest: {digest}\nStatus: Downloaded newer image for {name}\n{name}\n"));
    assert!(run.stderr.contains("1: Pulling from a/b\n"), "{run}");
    assert_eq!(run.stderr.matches("Pull complete").count(), 2, "{run}");
    let again = pull(&store, &[&name]).success();
    assert_eq!(again.stdout, format!("Digest: {digest}\nStatus: Image is up to date for {name}\n{name}\n"));
    assert_eq!(pull(&store, &["-q", &name]).success().stdout, format!("{name}\n"));
}

#[test]
fn privileged_without_a_tag_it_is_latest() {
    let Some((store, registry)) = setting() else { return };
    registry.push("a:latest", &two_layers("top"));
    let run = pull(&store, &[&registry.reference("a")]).success();
    assert!(run.stderr.contains("Using default tag: latest\n"), "{run}");
    assert_holds(&store, &registry.reference("a:latest"), &["base", "top"]);
}

#[test]
fn privileged_a_pulled_tree_is_exact() {
    let Some((store, registry)) = setting() else { return };
    let image = varied_image();
    registry.push("a:1", &image);
    let (dir, out) = (store.dir().join("layout"), store.dir().join("reference"));
    Layout::of("localhost/a:1", &image).write(&dir);
    fs::create_dir(&out).unwrap();
    assert!(reference::unpack(&dir, &out));
    let name = registry.reference("a:1");
    pull(&store, &[&name]).success();
    store.assert_nothing_to_collect();
    store.assert_no_leftovers();
    Snapshot::of(&out).assert_same(&Snapshot::of(store.mount(&name)));
}

#[test]
fn privileged_what_is_here_costs_one_request() {
    let Some((store, registry)) = setting() else { return };
    let proxy = FaultProxy::start(registry.address());
    registry.push("a:1", &two_layers("top"));
    let name = format!("{}/a:1", proxy.host());
    pull(&store, &[&name]).success();
    assert_eq!(proxy.traffic().count("GET", "/blobs/"), 3, "{:?}", requests(&proxy));
    proxy.traffic().clear();
    pull(&store, &[&name]).success();
    assert_eq!(proxy.traffic().requests(), ["HEAD /v2/a/manifests/1"]);
}

#[test]
fn privileged_a_moved_tag_costs_only_what_is_new() {
    let Some((store, registry)) = setting() else { return };
    let proxy = FaultProxy::start(registry.address());
    registry.push("a:1", &two_layers("old"));
    let name = format!("{}/a:1", proxy.host());
    pull(&store, &[&name]).success();
    registry.push("a:1", &two_layers("new"));
    proxy.traffic().clear();
    let run = pull(&store, &[&name]).success();
    assert!(run.stdout.contains("Downloaded newer image"), "{run}");
    assert_eq!(run.reused_layers(), 1, "{run}");
    assert_eq!(proxy.traffic().count("GET", "/blobs/"), 2, "config and one layer");
    assert_holds(&store, &name, &["base", "new"]);
}

#[test]
fn privileged_a_digest_is_pulled_and_asked_for_once() {
    let Some((store, registry)) = setting() else { return };
    let proxy = FaultProxy::start(registry.address());
    let digest = registry.push("a:1", &two_layers("top"));
    let name = format!("{}/a@{digest}", proxy.host());
    let run = pull(&store, &[&name]).success();
    assert!(run.stdout.starts_with(&format!("Digest: {digest}\n")), "{run}");
    assert_holds(&store, &name, &["base", "top"]);
    proxy.traffic().clear();
    pull(&store, &[&name]).success();
    assert_eq!(proxy.traffic().requests(), Vec::<String>::new(), "a digest does not change");
}

#[test]
fn privileged_a_digest_wins_over_a_tag_that_has_moved() {
    let Some((store, registry)) = setting() else { return };
    let old = registry.push("a:1", &two_layers("old"));
    let new = registry.push("a:1", &two_layers("new"));
    let name = registry.reference(&format!("a:1@{old}"));
    let run = pull(&store, &[&name]).success();
    assert!(run.stdout.starts_with(&format!("Digest: {old}\n")), "{run}");
    assert!(run.stderr.contains(&new), "the note names what the tag is now\n{run}");
    assert_holds(&store, &registry.reference(&format!("a@{old}")), &["base", "old"]);
}

#[test]
fn privileged_what_is_not_there_is_not_found() {
    let Some((store, registry)) = setting() else { return };
    registry.push("a:1", &two_layers("top"));
    let wrong = format!("a@sha256:{}", "0".repeat(64));
    for name in ["a:2", "b:1", &wrong] {
        let name = registry.reference(name);
        let sentence = pull(&store, &[&name]).failure(3);
        assert!(sentence.contains(name.rsplit_once(':').unwrap().1), "{sentence}");
    }
    assert_eq!(store.names("blobs/sha256").len(), 0);
    store.assert_no_leftovers();
}

#[test]
fn privileged_several_images_and_a_failure_between_them() {
    let Some((store, registry)) = setting() else { return };
    for name in ["a:1", "c:1"] {
        registry.push(name, &two_layers(&name[..1]));
    }
    let names = ["a:1", "b:1", "c:1"].map(|name| registry.reference(name));
    pull(&store, &[&names[0], &names[1], &names[2]]).failure(3);
    assert_holds(&store, &names[0], &["base", "a"]);
    assert_holds(&store, &names[2], &["base", "c"]);
}

#[test]
fn privileged_damage_in_the_registry_is_found() {
    let Some((store, registry)) = setting() else { return };
    let image = two_layers("top");
    let digest = registry.push("a:1", &image);
    let name = registry.reference(&format!("a@{digest}"));
    for part in [image.id(), image.layers[1].digest()] {
        let (path, sound) = (registry.blob_path(&part), registry.blob(&part).unwrap());
        let mut damaged = sound.clone();
        *damaged.last_mut().unwrap() ^= 1;
        fs::write(&path, damaged).unwrap();
        let sentence = pull(&store, &[&name]).failure(5);
        assert!(sentence.contains(&part), "{sentence}");
        assert!(!store.ok(["images", "-a"]).contains("/a"), "no name shows it");
        fs::write(&path, sound).unwrap();
    }
    pull(&store, &[&name]).success();
    assert_holds(&store, &name, &["base", "top"]);
    store.assert_no_leftovers();
}

/// The registry itself looks at manifests, so the damage is on the way.
#[test]
fn privileged_a_damaged_manifest_is_found() {
    let Some((store, registry)) = setting() else { return };
    let proxy = FaultProxy::start(registry.address());
    let digest = registry.push("a:1", &two_layers("top"));
    proxy.on(Match::get("/manifests/"), Fault::Flip { at: 30 });
    let sentence = pull(&store, &[&format!("{}/a@{digest}", proxy.host())]).failure(5);
    assert!(sentence.contains(&digest), "{sentence}");
}
