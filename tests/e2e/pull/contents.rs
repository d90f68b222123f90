//! What an image may be made of.

use layerstore_testkit::hex_of;
use std::fs;

use layerstore_testkit::image::{Image, MANIFEST, descriptor};
use layerstore_testkit::layer::{Compression, Layer, LayerBuilder};
use layerstore_testkit::registry::Uploader;
use serde_json::{Value, json};

use super::{setting, two_layers};
use crate::remote::{assert_holds, pull};
use crate::small_layer;

const DOCKER: &str = "application/vnd.docker.distribution.manifest.v2+json";

fn layer_of(compression: Compression, name: &str) -> Layer {
    LayerBuilder::new(compression).file(name, name).finish()
}

/// The manifest of an image with Docker's media types.
pub(crate) fn docker_manifest(image: &Image) -> Value {
    let mut manifest = image.manifest();
    manifest["mediaType"] = DOCKER.into();
    manifest["config"]["mediaType"] = "application/vnd.docker.container.image.v1+json".into();
    for layer in manifest["layers"].as_array_mut().unwrap() {
        layer["mediaType"] = "application/vnd.docker.image.rootfs.diff.tar.gzip".into();
    }
    manifest
}

#[test]
fn privileged_schema_2_of_docker() {
    let Some((store, registry)) = setting() else { return };
    let image = two_layers("top");
    let uploader = Uploader::new(registry.address(), "a");
    image.layers.iter().for_each(|layer| drop(uploader.blob(&layer.blob)));
    uploader.blob(&image.config_bytes());
    let digest = uploader.manifest("1", docker_manifest(&image).to_string().as_bytes());
    let name = registry.reference("a:1");
    let run = pull(&store, &[&name]).success();
    assert!(run.stdout.contains(&digest), "{run}");
    assert_holds(&store, &name, &["base", "top"]);
}

#[test]
fn privileged_layers_of_every_compression() {
    let Some((store, registry)) = setting() else { return };
    let all = [Compression::None, Compression::Gzip, Compression::Zstd];
    let image = Image::new(all.map(|compression| layer_of(compression, &format!("{compression:?}"))));
    registry.push("a:1", &image);
    let name = registry.reference("a:1");
    pull(&store, &[&name]).success();
    assert_holds(&store, &name, &["None", "Gzip", "Zstd"]);
}

#[test]
fn privileged_empty_layers_and_none_at_all() {
    let Some((store, registry)) = setting() else { return };
    let empty = LayerBuilder::gzip().finish();
    registry.push("a:1", &Image::new([small_layer("a"), empty.clone(), small_layer("b"), empty]));
    registry.push("none:1", &Image::new([]));
    let [a, none] = ["a:1", "none:1"].map(|name| registry.reference(name));
    pull(&store, &[&a, &none]).success();
    assert_holds(&store, &a, &["a", "b"]);
    assert_holds(&store, &none, &[]);
}

#[test]
fn privileged_an_artifact_is_kept_and_not_unpacked() {
    let Some((store, registry)) = setting() else { return };
    let uploader = Uploader::new(registry.address(), "chart");
    uploader.blob(b"{}");
    let content = uploader.blob(b"what it is");
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": "application/vnd.example.chart",
        "config": descriptor("application/vnd.oci.empty.v1+json", b"{}"),
        "layers": [descriptor("application/vnd.example.chart.content", b"what it is")],
    });
    let digest = uploader.manifest("1", manifest.to_string().as_bytes());
    let name = registry.reference("chart:1");
    let run = pull(&store, &[&name]).success();
    assert!(run.stdout.contains(&digest), "{run}");
    assert!(store.names("blobs/sha256").contains(hex_of(&content)));
    assert_eq!(store.names_of_trees(), 0);
    assert!(store.ok(["images", "-a"]).contains("/chart"));
    store.assert_nothing_to_collect();
    let again = pull(&store, &[&name]).success();
    assert!(again.stdout.contains("Image is up to date"), "{again}");
}

#[test]
fn privileged_a_foreign_layer_that_the_registry_lacks_is_named() {
    let Some((store, registry)) = setting() else { return };
    let mut image = two_layers("foreign");
    image.layers[1].media_type = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip".to_owned();
    let foreign = image.layers[1].digest();
    registry.push("a:1", &image);
    fs::remove_file(registry.blob_path(&foreign)).unwrap();
    let sentence = pull(&store, &[&registry.reference("a:1")]).failure(1);
    assert!(sentence.contains(&foreign) || sentence.contains(&hex_of(&foreign)[..12]), "{sentence}");
    assert!(!store.ok(["images", "-a"]).contains("/a"));
}

#[test]
fn privileged_a_layer_that_is_not_what_the_config_says() {
    let Some((store, registry)) = setting() else { return };
    let mut image = two_layers("top");
    image.config["rootfs"]["diff_ids"][1] = format!("sha256:{}", "0".repeat(64)).into();
    registry.push("a:1", &image);
    pull(&store, &[&registry.reference("a:1")]).failure(5);
    assert!(!store.ok(["images", "-a"]).contains("/a"));
}
