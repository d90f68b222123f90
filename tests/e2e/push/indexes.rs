//! Pushes of images for several platforms.

use layerstore_testkit::image::{Image, Layout, host_architecture};

use super::setting;
use crate::remote::{pull, push};
use crate::small_layer;

fn images() -> [Image; 3] {
    ["s390x", host_architecture(), "riscv64"]
        .map(|arch| Image::new([small_layer("base"), small_layer(arch)]).platform("linux", arch, None))
}

fn manifest_of(image: &Image) -> String {
    layerstore_testkit::digest(image.manifest().to_string().as_bytes())
}

#[test]
fn privileged_all_platforms_are_pushed() {
    let Some((store, registry)) = setting() else { return };
    let name = registry.reference("a:1");
    let layout = Layout::new().platforms(&name, &images());
    store.load_bytes(&layout.archive());
    push(&store, &[&name]).success();
    assert_eq!(registry.tag("a", "1").as_deref(), layout.index["manifests"][0]["digest"].as_str());
    for image in images() {
        assert!(registry.has_manifest("a", &manifest_of(&image)));
        assert!(image.layers.iter().all(|layer| registry.has_blob("a", &layer.digest())));
    }
}

#[test]
fn privileged_one_platform_is_pushed_alone() {
    let Some((store, registry)) = setting() else { return };
    let name = registry.reference("a:1");
    store.load_bytes(&Layout::new().platforms(&name, &images()).archive());
    push(&store, &["--platform", "linux/riscv64", &name]).success();
    assert_eq!(registry.tag("a", "1"), Some(manifest_of(&images()[2])));
    assert!(!registry.has_blob("a", &images()[0].layers[1].digest()));
    let sentence = push(&store, &["--platform", "linux/mips", &name]).failure(3);
    assert!(sentence.contains("linux/mips") && sentence.contains("linux/s390x"), "{sentence}");
}

#[test]
fn privileged_the_only_platform_that_is_here_is_pushed_with_a_note() {
    let Some((store, registry)) = setting() else { return };
    registry.push_layout("a:1", &Layout::new().platforms("localhost/a:1", &images()));
    let (name, to) = (registry.reference("a:1"), registry.reference("b:1"));
    pull(&store, &[&name]).success();
    let run = push(&store, &[&name, &to]).success();
    let platform = format!("linux/{}", host_architecture());
    assert!(run.stderr.contains(&format!("note: only {platform} of the image is here")), "{run}");
    assert_eq!(registry.tag("b", "1"), Some(manifest_of(&images()[1])));
}

#[test]
fn privileged_an_incomplete_index_names_what_is_missing() {
    let Some((store, registry)) = setting() else { return };
    registry.push_layout("a:1", &Layout::new().platforms("localhost/a:1", &images()));
    let (name, to) = (registry.reference("a:1"), registry.reference("b:1"));
    pull(&store, &[&name]).success();
    pull(&store, &["--platform", "linux/riscv64", &name]).success();
    let run = push(&store, &[&name, &to]);
    let hint = format!("hint: choose one of linux/{}, linux/riscv64 with --platform\n", host_architecture());
    assert!(run.stderr.contains(&hint), "{run}");
    assert!(run.failure(3).ends_with("it lacks linux/s390x"));
    assert!(!registry.log().contains("/v2/b/"), "nothing was sent");
    push(&store, &["--platform", "linux/riscv64", &name, &to]).success();
    assert_eq!(registry.tag("b", "1"), Some(manifest_of(&images()[2])));
}
