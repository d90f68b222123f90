//! `push` to real registries.

mod access;
mod indexes;
mod uploads;

use std::fs;
use std::path::PathBuf;

use layerstore_testkit::fault_proxy::FaultProxy;
use layerstore_testkit::hex_of;
use layerstore_testkit::image::{Image, Layout, MANIFEST, descriptor};
use layerstore_testkit::layer::{Entry, LayerBuilder};
use layerstore_testkit::podman::Podman;
use layerstore_testkit::registry::Uploader;
use layerstore_testkit::require;
use layerstore_testkit::sandbox::Sandbox;
use layerstore_testkit::tree::Snapshot;
use serde_json::json;

use crate::pull::contents::docker_manifest;
use crate::remote::{noise, pull, push, requests, setting, two_layers};
use crate::varied_image;

/// Loads an image under the name under which it is to be in a registry.
#[track_caller]
fn load(store: &Sandbox, name: &str, image: &Image) {
    store.load_bytes(&Layout::of(name, image).archive());
}

#[test]
fn privileged_a_push_says_what_docker_says() {
    let Some((store, registry)) = setting() else { return };
    let image = two_layers("top");
    let name = registry.reference("a/b:1");
    load(&store, &name, &image);
    let run = push(&store, &[&name]).success();
    let manifest = image.manifest().to_string();
    let digest = layerstore_testkit::digest(manifest.as_bytes());
    assert_eq!(run.stdout, format!("1: digest: {digest} size: {}\n", manifest.len()));
    let repository = format!("The push refers to repository [{}]\n", registry.reference("a/b"));
    assert!(run.stderr.contains(&repository), "{run}");
    assert_eq!(run.stderr.matches(": Pushed").count(), 3, "two layers and the config\n{run}");
    assert_eq!(registry.tag("a/b", "1"), Some(digest));
    assert_eq!(push(&store, &["-q", &name]).success().stdout, format!("{name}\n"));
}

/// What skopeo gets is, byte by byte, what has been loaded.
#[test]
fn privileged_every_byte_arrives() {
    let Some((store, registry)) = setting() else { return };
    let image = varied_image();
    let layout = Layout::of(&registry.reference("a:1"), &image);
    store.load_bytes(&layout.archive());
    push(&store, &[&registry.reference("a:1")]).success();
    let copy = store.dir().join("copy");
    registry.pull_with_skopeo("a:1", &format!("oci:{}:1", copy.display()), &[]);
    for (digest, bytes) in &layout.blobs {
        assert_eq!(&fs::read(copy.join("blobs/sha256").join(hex_of(digest))).unwrap(), bytes, "{digest}");
    }
    assert_eq!(fs::read_dir(copy.join("blobs/sha256")).unwrap().count(), layout.blobs.len());
}

#[test]
fn privileged_podman_pulls_what_was_pushed() {
    if !require::podman() {
        return;
    }
    let Some((store, registry)) = setting() else { return };
    // Each layer lists the parents of what it has, as those of builders do: podman makes up what is not listed.
    let layer = |name: &str| {
        let shadow =
            Entry::file(format!("etc/{name}"), name).mode(0o640).owner(7, 42).mtime(1_650_000_000, 5);
        let base = LayerBuilder::gzip().entry(Entry::dir("./").mtime(1_600_000_000, 1)).dir("etc/");
        base.entry(shadow).symlink(format!("to-{name}"), format!("etc/{name}"))
    };
    let image = Image::new([layer("gone").finish(), layer("seen").whiteout("etc/gone").finish()]);
    let name = registry.reference("a:1");
    load(&store, &name, &image);
    push(&store, &[&name]).success();
    let parent = std::env::var_os("LAYERSTORE_TEST_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
    let dir = tempfile::tempdir_in(parent).unwrap();
    let podman = Podman::new(dir.path());
    assert_eq!(podman.pull(&name), image.id());
    // Podman gives its root directory a mode and a time of its own.
    let [theirs, ours] = [podman.mount(&name), store.mount(&name)].map(|root| {
        let mut tree = Snapshot::of(root);
        tree.entries.remove(&[] as &[u8]);
        tree
    });
    theirs.assert_same(&ours);
}

#[test]
fn privileged_what_was_pushed_can_be_pulled() {
    let Some((store, registry)) = setting() else { return };
    let name = registry.reference("a:1");
    load(&store, &name, &varied_image());
    push(&store, &[&name]).success();
    let other = Sandbox::new().unwrap();
    pull(&other, &[&name]).success();
    Snapshot::of(store.mount(&name)).assert_same(&Snapshot::of(other.mount(&name)));
}

#[test]
fn privileged_a_second_push_sends_no_blob() {
    let Some((store, registry)) = setting() else { return };
    let proxy = FaultProxy::start(registry.address());
    let name = format!("{}/a:1", proxy.host());
    load(&store, &name, &two_layers("top"));
    push(&store, &[&name]).success();
    proxy.traffic().clear();
    let again = push(&store, &[&name]).success();
    assert_eq!(again.stderr.matches("Layer already exists").count(), 3, "{again}");
    assert_eq!(proxy.traffic().count("POST", ""), 0, "{:?}", requests(&proxy));
    assert_eq!(proxy.traffic().bytes_received("/blobs/"), 0);
}

#[test]
fn privileged_a_layer_is_mounted_from_another_repository() {
    let Some((store, registry)) = setting() else { return };
    let (a, b) = (registry.reference("a:1"), registry.reference("b:1"));
    let (first, second) = (two_layers("a"), two_layers("b"));
    load(&store, &a, &first);
    push(&store, &[&a]).success();
    load(&store, &b, &second);
    let run = push(&store, &[&b]).success();
    assert!(run.stderr.contains("Mounted from"), "{run}");
    registry.wait_for_log(|log| log.contains("\"PUT /v2/b/manifests/1"));
    assert_eq!(registry.mounts(), 1);
    assert!(registry.has_blob("b", &first.layers[0].digest()));
}

#[test]
fn privileged_a_layer_goes_in_pieces() {
    let Some((store, registry)) = setting() else { return };
    let proxy = FaultProxy::start(registry.address());
    let image = Image::new([noise(100)]);
    let name = format!("{}/a:1", proxy.host());
    load(&store, &name, &image);
    push(&store, &["--chunk-size", "30K", &name]).success();
    let layer = image.layers[0].digest();
    assert_eq!(registry.blob(&layer).as_ref(), Some(&image.layers[0].blob));
    let pieces: Vec<_> = proxy.traffic().of("/blobs/uploads/");
    assert!(pieces.iter().all(|piece| piece.received <= 30 << 10), "{pieces:?}");
    assert!(pieces.iter().filter(|piece| piece.received > 0).count() >= 4, "{pieces:?}");
}

#[test]
fn privileged_a_place_of_its_own_is_given() {
    let Some((store, registry)) = setting() else { return };
    let image = two_layers("top");
    load(&store, "localhost/mine:1", &image);
    let there = registry.reference("team/app:2");
    push(&store, &["localhost/mine:1", &there]).success();
    push(&store, &[&hex_of(&image.id())[..12], &registry.reference("by/id:3")]).success();
    assert_eq!(registry.tag("team/app", "2"), registry.tag("by/id", "3"));
    assert!(registry.tag("by/id", "3").is_some());
    assert!(!store.ok(["images"]).contains("team/app"), "a push gives no name");
}

#[test]
fn privileged_what_cannot_be_pushed_is_said() {
    let Some((store, registry)) = setting() else { return };
    let image = two_layers("top");
    load(&store, "localhost/mine:1", &image);
    let id = hex_of(&image.id())[..12].to_owned();
    let run = push(&store, &[&id]);
    assert!(run.stderr.contains("hint: name the destination"), "{run}");
    assert!(run.failure(1).contains(&id));
    let by_digest = registry.reference(&format!("a@{}", image.id()));
    push(&store, &["localhost/mine:1", &by_digest]).failure(1);
    push(&store, &[&registry.reference("nothing:1")]).failure(3);
    assert_eq!(registry.tags("a"), Vec::<String>::new());
}

/// The manifest says what the types are, and it is sent as it came.
#[test]
fn privileged_images_with_dockers_types_and_artifacts_pass_through() {
    let Some((store, registry)) = setting() else { return };
    let image = two_layers("top");
    let uploader = Uploader::new(registry.address(), "from");
    for blob in [&image.layers[0].blob, &image.layers[1].blob, &image.config_bytes(), b"{}" as &[u8]] {
        uploader.blob(blob);
    }
    let empty = descriptor("application/vnd.oci.empty.v1+json", b"{}");
    let artifact = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": "application/vnd.example.chart",
        "config": empty,
        "layers": [empty],
    });
    for (tag, manifest) in [("docker", docker_manifest(&image)), ("artifact", artifact)] {
        let digest = uploader.manifest(tag, manifest.to_string().as_bytes());
        let name = registry.reference(&format!("from:{tag}"));
        pull(&store, &[&name]).success();
        push(&store, &[&name, &registry.reference(&format!("to:{tag}"))]).success();
        assert_eq!(registry.tag("to", tag), Some(digest));
    }
    assert!(registry.has_blob("to", &image.id()));
}

#[test]
fn privileged_all_tags_are_pushed() {
    let Some((store, registry)) = setting() else { return };
    for tag in ["1", "2"] {
        load(&store, &registry.reference(&format!("a:{tag}")), &two_layers(tag));
    }
    load(&store, &registry.reference("b:1"), &two_layers("other"));
    push(&store, &["-a", &registry.reference("a")]).success();
    assert_eq!(registry.tags("a"), ["1", "2"]);
    assert_eq!(registry.tags("b"), Vec::<String>::new());
}

#[test]
fn privileged_a_registry_that_is_not_there() {
    let Some((store, registry)) = setting() else { return };
    let name = registry.reference("a:1");
    drop(registry);
    load(&store, &name, &two_layers("top"));
    push(&store, &[&name]).failure(8);
}
