//! Uploads that are interrupted, damaged, or not to be made.

use std::fs;

use layerstore_testkit::fault_proxy::{Fault, FaultProxy, Match};
use layerstore_testkit::image::{Image, Layout, descriptor, host_architecture};
use layerstore_testkit::layer::Layer;
use layerstore_testkit::{hex_of, sandbox::Sandbox};
use serde_json::json;

use super::{load, setting, two_layers};
use crate::remote::{noise, push};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// An image of one layer that takes several chunks, and its name behind the proxy.
fn chunked(store: &Sandbox, proxy: &FaultProxy) -> (Layer, String) {
    let image = Image::new([noise(100)]);
    let name = format!("{}/a:1", proxy.host());
    load(store, &name, &image);
    (image.layers[0].clone(), name)
}

#[test]
fn privileged_a_refused_chunk_is_sent_again_and_no_other() {
    let Some((store, registry)) = setting() else { return };
    let proxy = FaultProxy::start(registry.address());
    let (layer, name) = chunked(&store, &proxy);
    proxy.on(Match::new("PATCH", "/blobs/uploads/").nth(3), Fault::status(503));
    let run = push(&store, &["--chunk-size", "20K", &name]).success();
    assert!(run.stderr.contains("503"), "{run}");
    assert_eq!(registry.blob(&layer.digest()).as_ref(), Some(&layer.blob));
    // The config and the layer have one upload each.
    assert_eq!(proxy.traffic().count("POST", "/blobs/uploads/"), 2, "{:?}", proxy.traffic().requests());
}

#[test]
fn privileged_an_upload_whose_answer_is_lost_is_not_repeated() {
    let Some((store, registry)) = setting() else { return };
    let proxy = FaultProxy::start(registry.address());
    let (layer, name) = chunked(&store, &proxy);
    let digest = format!("digest=sha256%3A{}", hex_of(&layer.digest()));
    proxy.on(Match::new("PUT", &digest).first(1), Fault::LoseAnswer);
    push(&store, &[&name]).success();
    assert_eq!(registry.blob(&layer.digest()).as_ref(), Some(&layer.blob));
    assert_eq!(proxy.traffic().count("PUT", &digest), 1, "{:?}", proxy.traffic().requests());
}

#[test]
fn privileged_a_layer_that_is_cut_on_the_way_arrives() {
    let Some((store, registry)) = setting() else { return };
    let proxy = FaultProxy::start(registry.address());
    let (layer, name) = chunked(&store, &proxy);
    let digest = format!("digest=sha256%3A{}", hex_of(&layer.digest()));
    proxy.on(Match::new("PUT", &digest).first(2), Fault::CutUpload { after: 30_000 });
    push(&store, &[&name]).success();
    assert_eq!(registry.blob(&layer.digest()).as_ref(), Some(&layer.blob));
}

#[test]
fn privileged_a_damaged_layer_is_not_pushed() {
    let Some((store, registry)) = setting() else { return };
    let image = Image::new([noise(100)]);
    for (number, chunk) in ["1G", "20K"].into_iter().enumerate() {
        let name = registry.reference(&format!("a{number}:1"));
        load(&store, &name, &image);
        let digest = image.layers[0].digest();
        let path = store.root().join("blobs/sha256").join(hex_of(&digest));
        let mut bytes = image.layers[0].blob.clone();
        bytes[5000] ^= 1;
        fs::remove_file(&path).unwrap();
        fs::write(&path, bytes).unwrap();
        let sentence = push(&store, &["--chunk-size", chunk, &name]).failure(5);
        assert!(sentence.contains("damaged") && sentence.contains(&digest), "{sentence}");
        assert_eq!(registry.tag(&format!("a{number}"), "1"), None);
        assert_eq!(registry.blob(&digest), None);
    }
}

#[test]
fn privileged_the_platform_of_an_image_that_has_one_may_be_given() {
    let Some((store, registry)) = setting() else { return };
    let name = registry.reference("a:1");
    load(&store, &name, &two_layers("top").platform("linux", host_architecture(), None));
    let platform = format!("linux/{}", host_architecture());
    push(&store, &["--platform", &platform, &name]).success();
    assert!(registry.tag("a", "1").is_some());
    let sentence = push(&store, &["--platform", "linux/mips", &name]).failure(3);
    assert!(sentence.contains(&platform), "{sentence}");
}

#[test]
fn privileged_a_layer_that_is_to_be_had_elsewhere_is_not_pushed() {
    let Some((store, registry)) = setting() else { return };
    let proxy = FaultProxy::start(registry.address());
    let name = format!("{}/a:1", proxy.host());
    let mut image = two_layers("foreign");
    image.layers[1].media_type = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip".to_owned();
    let mut manifest = image.manifest();
    manifest["layers"][1]["urls"] = json!(["https://foreign.invalid/layer"]);
    let manifest = manifest.to_string().into_bytes();
    let mut layout = Layout::new();
    layout.parts(&image);
    layout.blob(&manifest);
    layout.list(&name, descriptor(MANIFEST, &manifest));
    store.load_bytes(&layout.archive());
    // This registry does not let everybody name addresses.
    let stored = Fault::Answer { status: 201, headers: Vec::new(), body: Vec::new() };
    proxy.on(Match::new("PUT", "/manifests/"), stored);
    let run = push(&store, &[&name]).success();
    assert!(run.stderr.contains("1 foreign layers are not pushed"), "{run}");
    assert!(registry.has_blob("a", &image.layers[0].digest()));
    assert_eq!(registry.blob(&image.layers[1].digest()), None);
}
