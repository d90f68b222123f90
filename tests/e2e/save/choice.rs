//! Which images, names and platforms are saved.

use std::fs;

use layerstore_testkit::image::{Image, Layout, MANIFEST, descriptor, host_architecture};
use layerstore_testkit::registry::Registry;
use layerstore_testkit::sandbox::Sandbox;
use layerstore_testkit::{digest, require};
use serde_json::{Value, json};

use super::{Unpacked, blob_path, save};
use crate::remote::{noise, pull};
use crate::small_layer;

fn two_layers(name: &str) -> Image {
    Image::new([small_layer("base"), small_layer(name)])
}

fn manifest_of(image: &Image) -> String {
    digest(image.manifest().to_string().as_bytes())
}

fn pair(name: &str, digest: &str) -> (String, String) {
    (name.to_owned(), digest.to_owned())
}

/// The image of this machine in the middle.
fn platforms() -> [Image; 3] {
    ["s390x", host_architecture(), "riscv64"]
        .map(|arch| Image::new([small_layer("base"), small_layer(arch)]).platform("linux", arch, None))
}

/// The configs that `manifest.json` names, as digests.
fn docker_ids(saved: &Unpacked) -> Vec<String> {
    let manifest = saved.json("manifest.json");
    let id = |entry: &Value| entry["Config"].as_str().unwrap().replace("blobs/sha256/", "sha256:");
    manifest.as_array().unwrap().iter().map(id).collect()
}

#[test]
fn privileged_several_images_and_names_go_into_one_archive() {
    let Some(store) = Sandbox::new() else { return };
    let (a, b) = (two_layers("a"), two_layers("b"));
    store.load_bytes(&Layout::of("docker.io/library/a:1", &a).image("localhost/b:1", &b).archive());
    store.ok(["tag", "a:1", "localhost/x:2"]);
    let (id, short) = (b.id(), &b.id()[7..19]);
    let saved = Unpacked::of(&save(&store, &["a:1", &id, "localhost/x:2", short, "a:1"]));
    assert_eq!(saved.blobs(), 2 + 2 + 3, "the base is there once");
    let (of_a, of_b) = (manifest_of(&a), manifest_of(&b));
    assert_eq!(
        saved.index(),
        [pair("docker.io/library/a:1", &of_a), pair("localhost/x:2", &of_a), pair("", &of_b)]
    );
    assert_eq!(docker_ids(&saved), [a.id(), b.id()]);
    let manifest = saved.json("manifest.json");
    assert_eq!(manifest[0]["RepoTags"], json!(["docker.io/library/a:1", "localhost/x:2"]));
    assert_eq!(manifest[1]["RepoTags"], Value::Null);

    let other = Sandbox::new().unwrap();
    assert_eq!(other.load(store.dir().join("saved.tar")).loaded(), ["a:1", "localhost/x:2", &id]);
}

/// Two manifests with one config, such as those of another compression: for Docker it is one image.
#[test]
fn privileged_two_manifests_of_one_image_are_one_for_docker() {
    let Some(store) = Sandbox::new() else { return };
    let image = two_layers("a");
    let mut layout = Layout::of("localhost/a:1", &image);
    let mut other = image.manifest();
    other["annotations"] = json!({"of": "another builder"});
    let other = other.to_string().into_bytes();
    layout.blob(&other);
    layout.list("localhost/b:1", descriptor(MANIFEST, &other));
    store.load_bytes(&layout.archive());
    let saved = Unpacked::of(&save(&store, &["localhost/a:1", "localhost/b:1"]));
    let digests: Vec<_> = saved.index().into_iter().map(|(_, digest)| digest).collect();
    assert_ne!(digests[0], digests[1]);
    assert_eq!(docker_ids(&saved), [image.id()]);
    let tags = &saved.json("manifest.json")[0]["RepoTags"];
    assert_eq!(tags, &json!(["localhost/a:1", "localhost/b:1"]));
}

#[test]
fn privileged_a_whole_index_is_saved_whole() {
    let Some(store) = Sandbox::new() else { return };
    let layout = Layout::new().platforms("localhost/a:1", &platforms());
    store.load_bytes(&layout.archive());
    let saved = Unpacked::of(&save(&store, &["localhost/a:1"]));
    assert_eq!(saved.blobs(), layout.blobs.len());
    let index = layout.index["manifests"][0]["digest"].as_str().unwrap();
    assert_eq!(saved.index(), [pair("localhost/a:1", index)]);
    assert_eq!(docker_ids(&saved), [platforms()[1].id()], "the one of this machine");
}

#[test]
fn privileged_one_platform_is_saved_alone() {
    let Some(store) = Sandbox::new() else { return };
    store.load_bytes(&Layout::new().platforms("localhost/a:1", &platforms()).archive());
    let wanted = &platforms()[2];
    let manifest = manifest_of(wanted);
    let by_digest = format!("localhost/a@{manifest}");
    for (name, args) in [
        ("localhost/a:1", &["--platform", "linux/riscv64", "localhost/a:1"][..]),
        ("", &[wanted.id().as_str()]),
        ("", &[manifest.as_str()]),
        ("", &[by_digest.as_str()]),
    ] {
        let saved = Unpacked::of(&save(&store, args));
        assert_eq!(saved.index(), [pair(name, &manifest)], "{args:?}");
        assert_eq!(docker_ids(&saved), [wanted.id()]);
        assert_eq!(saved.blobs(), 4);
    }
    for image in ["localhost/a:1", &wanted.id()] {
        let sentence = store.run(["save", "--platform", "linux/mips", image]).failure(3);
        assert!(sentence.contains("linux/mips") && sentence.contains("linux/riscv64"), "{sentence}");
    }
}

#[test]
fn privileged_an_index_without_this_machine_needs_a_choice_for_docker() {
    let Some(store) = Sandbox::new() else { return };
    let [one, _, two] = platforms();
    let layout = Layout::new().platforms("localhost/a:1", &[one, two]);
    let path = store.write("a.tar", &layout.archive());
    store.run(["load", "--platform", "linux/riscv64", "-i", path.to_str().unwrap()]).success();
    store.run(["load", "--platform", "linux/s390x", "-i", path.to_str().unwrap()]).success();
    let run = store.run(["save", "localhost/a:1"]);
    assert!(run.stderr.contains("hint: choose one of them with --platform"), "{run}");
    assert!(run.failure(3).contains("linux/s390x, linux/riscv64"));
    save(&store, &["--format", "oci", "localhost/a:1"]);
    save(&store, &["--platform", "linux/s390x", "localhost/a:1"]);
}

#[test]
fn privileged_of_an_incomplete_index_what_is_here_is_saved_or_chosen() {
    if !require::registry() {
        return;
    }
    let Some(store) = Sandbox::new() else { return };
    let registry = Registry::plain();
    registry.push_layout("a:1", &Layout::new().platforms("localhost/a:1", &platforms()));
    let name = registry.reference("a:1");
    pull(&store, &[&name]).success();
    let out = store.dir().join("one.tar");
    let run = store.run(["save", "-o", out.to_str().unwrap(), &name]).success();
    let host = format!("linux/{}", host_architecture());
    let note = format!("note: {name}: only {host} of the image is here: its manifest is saved alone");
    assert!(run.stderr.contains(&note), "{run}");
    assert_eq!(Unpacked::of(&out).index(), [pair(&name, &manifest_of(&platforms()[1]))]);

    pull(&store, &["--platform", "linux/riscv64", &name]).success();
    let run = store.run(["save", "-o", out.to_str().unwrap(), &name]);
    assert!(
        run.stderr.contains(&format!("hint: choose one of {host}, linux/riscv64 with --platform\n")),
        "{run}"
    );
    assert!(run.failure(3).ends_with("it lacks linux/s390x"));
    let saved = Unpacked::of(&save(&store, &["--platform", "linux/riscv64", &name]));
    assert_eq!(saved.index(), [pair(&name, &manifest_of(&platforms()[2]))]);
}

/// What others remove while it is being saved stays until it is.
#[test]
fn privileged_a_save_keeps_what_it_saves() {
    let Some(store) = Sandbox::new() else { return };
    // While it writes the large one, the other is not open yet.
    let image = Image::new([noise(2048), small_layer("above")]);
    store.load_bytes(&Layout::of("localhost/a:1", &image).archive());
    // It waits for its reader, who removes the image first.
    let pipe = store.dir().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let mut save =
        store.command(["-q", "save", "-o", pipe.to_str().unwrap(), "localhost/a:1"]).spawn().unwrap();
    let mut reader = fs::File::open(&pipe).unwrap();
    // It writes when all is under its lease.
    let mut first = [0; 512];
    std::io::Read::read_exact(&mut reader, &mut first).unwrap();
    store.ok(["rmi", "localhost/a:1"]);
    store.ok(["gc"]);
    let mut rest = Vec::new();
    std::io::Read::read_to_end(&mut reader, &mut rest).unwrap();
    assert!(save.wait().unwrap().success());
    let archive = [&first[..], &rest].concat();
    store.ok(["gc"]);
    assert!(!blob_path(&store, &image.layers[1].digest()).exists());
    assert_eq!(store.load_bytes(&archive).loaded(), ["localhost/a:1"]);
}
