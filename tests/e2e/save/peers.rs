//! Other stores take what `save` writes, and `load` takes what they write.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use layerstore_testkit::containerd::Containerd;
use layerstore_testkit::docker::Archive;
use layerstore_testkit::docker_engine::DockerEngine;
use layerstore_testkit::image::{Image, Layout, descriptor};
use layerstore_testkit::layer::{Compression, LayerBuilder};
use layerstore_testkit::podman::Podman;
use layerstore_testkit::require;
use layerstore_testkit::sandbox::Sandbox;
use serde_json::Value;

use super::{every_compression, save};
use crate::pull::contents::docker_manifest;
use crate::{small_layer, varied_image};

const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const APP: &str = "localhost/app:1";

/// A store with an image out of the cache of real ones.
fn with(images: &Path, archive: &str) -> Option<Sandbox> {
    let store = Sandbox::new()?;
    let archive = images.join(archive);
    store
        .run([OsStr::new("load"), OsStr::new("--no-unpack"), OsStr::new("-i"), archive.as_os_str()])
        .success();
    Some(store)
}

fn look(store: &Sandbox, image: &str, format: &str) -> String {
    store.ok(["inspect", "--format", format, image]).trim_end().to_owned()
}

fn id(store: &Sandbox, image: &str) -> String {
    look(store, image, "{{.Id}}")
}

fn digest(store: &Sandbox, image: &str) -> String {
    look(store, image, "{{.Descriptor.digest}}")
}

/// Loads into an empty store; returns the ID and the digest of `image` there.
#[track_caller]
fn loaded(archive: &Path, image: &str) -> (String, String) {
    let store = Sandbox::new().unwrap();
    store
        .run([OsStr::new("load"), OsStr::new("--no-unpack"), OsStr::new("-i"), archive.as_os_str()])
        .success();
    (id(&store, image), digest(&store, image))
}

fn skopeo(args: &[&str]) -> Vec<u8> {
    let out = Command::new("skopeo").args(args).output().unwrap();
    assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
    out.stdout
}

/// Composed images with their IDs: with everything in its layers, with the compressions that Docker 20 knows, from a
/// docker-archive, for several platforms.
fn composed() -> Option<(Sandbox, Vec<(&'static str, String)>)> {
    let store = Sandbox::new()?;
    let varied = varied_image();
    let mut layers = every_compression().layers;
    layers.pop();
    let plain = Image::new(layers);
    let docker = Image::new([LayerBuilder::new(Compression::None).file("docker", "docker").finish()]);
    let layout = Layout::of("localhost/varied:1", &varied).image("docker.io/library/plain:1", &plain);
    let [other, host] = ["s390x", "host"].map(|name| Image::new([small_layer(name)]));
    let other = other.platform("linux", "s390x", None);
    let layout = layout.platforms("localhost/multi:1", &[other, host.clone()]);
    let pulled = Image::new([small_layer("pulled")]);
    let mut layout = layout;
    layout.parts(&pulled);
    let manifest = docker_manifest(&pulled).to_string().into_bytes();
    layout.blob(&manifest);
    layout.list("localhost/pulled:1", descriptor(DOCKER_MANIFEST, &manifest));
    store.load_bytes(&layout.archive());
    store.load_bytes(&Archive::new().image(&["localhost/docker:1"], &docker).legacy());
    store.ok(["tag", "localhost/varied:1", "registry.example.com/a/b:2"]);
    let expected = vec![
        ("localhost/varied:1", varied.id()),
        ("docker.io/library/plain:1", plain.id()),
        ("localhost/docker:1", docker.id()),
        ("registry.example.com/a/b:2", varied.id()),
        ("localhost/multi:1", host.id()),
        ("localhost/pulled:1", pulled.id()),
    ];
    Some((store, expected))
}

fn names(images: &[(&'static str, String)]) -> Vec<&'static str> {
    images.iter().map(|(name, _)| *name).collect()
}

#[test]
fn privileged_docker_and_save_understand_each_other() {
    let Some(images) = require::images().filter(|_| require::docker()) else { return };
    let Some((store, expected)) = composed() else { return };
    let docker = DockerEngine::start();
    docker.load(&save(&store, &names(&expected)));
    for (name, id) in &expected {
        assert_eq!(&docker.image_id(name), id, "{name}");
    }
    assert_eq!(docker.load(&save(&store, &[&expected[0].1])), [expected[0].1.as_str()], "by its ID");

    let app = with(&images, "app.oci.tar").unwrap();
    assert_eq!(docker.load(&save(&app, &[APP])), [APP]);
    assert_eq!(docker.image_id(APP), id(&app, APP));
    let back = app.dir().join("back.tar");
    docker.ok(["save", "-o", back.to_str().unwrap(), APP]);
    assert_eq!(loaded(&back, APP).0, id(&app, APP));
}

#[test]
fn privileged_podman_and_save_understand_each_other() {
    let Some(images) = require::images().filter(|_| require::podman()) else { return };
    let Some((store, expected)) = composed() else { return };
    let podman = Podman::new(&store.dir().join("podman"));
    podman.load(&save(&store, &names(&expected)));
    for (name, id) in &expected {
        assert_eq!(&podman.image_id(name), id, "{name}");
    }
    for form in ["docker-archive", "oci-archive"] {
        let back = store.dir().join(form);
        podman.ok(["save", "-q", "--format", form, "-o", back.to_str().unwrap(), expected[0].0]);
        // Podman keeps no compressed layers, so its manifest is another one.
        assert_eq!(loaded(&back, expected[0].0).0, expected[0].1);
    }
    let app = with(&images, "app.oci.tar").unwrap();
    podman.load(&save(&app, &["--format", "oci", APP]));
    assert_eq!(podman.image_id(APP), id(&app, APP));
    assert_eq!(podman.inspect(APP)["Digest"], digest(&app, APP));
}

#[test]
fn privileged_skopeo_reads_what_save_writes() {
    let Some(images) = require::images().filter(|_| require::registry()) else { return };
    let (Some(app), Some((store, expected))) = (with(&images, "app.oci.tar"), composed()) else { return };
    let saved = save(&app, &["--format", "oci", APP]);
    let about: Value =
        serde_json::from_slice(&skopeo(&["inspect", &format!("oci-archive:{}", saved.display())])).unwrap();
    assert_eq!(about["Digest"], digest(&app, APP));
    let layers: Vec<String> = app.sql("SELECT blob FROM image_layer ORDER BY position");
    assert_eq!(about["Layers"], serde_json::json!(layers));
    let docker = with(&images, "app.docker.tar").unwrap();
    let source = format!("docker-archive:{}", save(&docker, &[APP]).display());
    let config = skopeo(&["inspect", "--config", "--raw", &source]);
    assert_eq!(layerstore_testkit::digest(&config), id(&docker, APP));
    // Of several, by the tag.
    let saved = save(&store, &["--format", "oci", expected[0].0, expected[3].0]);
    let raw = skopeo(&["inspect", "--raw", &format!("oci-archive:{}:2", saved.display())]);
    assert_eq!(layerstore_testkit::digest(&raw), digest(&store, expected[3].0));
    let saved = save(&store, &names(&expected));
    let source = format!("docker-archive:{}:{}", saved.display(), expected[1].0);
    let config = skopeo(&["inspect", "--config", "--raw", &source]);
    assert_eq!(layerstore_testkit::digest(&config), expected[1].1);
}

#[test]
fn privileged_containerd_and_save_understand_each_other() {
    let Some(images) = require::images().filter(|_| require::containerd()) else { return };
    let Some((store, expected)) = composed() else { return };
    let containerd = Containerd::start();
    let import = |args: &[&str], archive: PathBuf| {
        containerd.ok([&["image", "import"], args, &[archive.to_str().unwrap()]].concat());
    };
    import(&[], save(&store, &names(&expected)));
    for (name, id) in &expected {
        assert_eq!(&containerd.image_id(name), id, "{name}");
    }
    assert_eq!(containerd.images().len(), expected.len());

    let app = with(&images, "app.oci.tar").unwrap();
    import(&["--digests", "--base-name", "app"], save(&app, &["--format", "oci", APP]));
    let target = digest(&app, APP);
    for name in [APP, &format!("app@{target}")] {
        assert!(containerd.images().contains(&(name.to_owned(), target.clone())), "{name}");
    }
    assert_eq!(containerd.image_id(APP), id(&app, APP));
    let back = app.dir().join("back.tar");
    containerd.ok(["image", "export", back.to_str().unwrap(), APP]);
    assert_eq!(loaded(&back, APP), (id(&app, APP), digest(&app, APP)));
}
