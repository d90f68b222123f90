//! What a second pull makes of what the first has left.

use std::fs;

use layerstore_testkit::hex_of;
use layerstore_testkit::image::{Image, Layout, host_architecture};
use layerstore_testkit::sandbox::Sandbox;

use crate::remote::{assert_holds, pull, pulled, push, setting, two_layers};
use crate::small_layer;

#[test]
fn privileged_damaged_documents_are_mended() {
    let image = two_layers("top");
    let Some((store, registry, name)) = pulled(&image) else { return };
    let config = store.sql("SELECT config FROM image").pop().unwrap();
    for document in [registry.tag("a", "1").unwrap(), config] {
        let path = store.root().join("blobs/sha256").join(document.strip_prefix("sha256:").unwrap());
        let whole = fs::read(&path).unwrap();
        let mut damaged = whole.clone();
        damaged[whole.len() / 2] ^= 1;
        fs::remove_file(&path).unwrap();
        fs::write(&path, damaged).unwrap();
        pull(&store, &[&name]).success();
        assert!(fs::read(&path).unwrap() == whole, "{document}");
    }
    store.ok(["inspect", &name]);
}

#[test]
fn privileged_a_platform_is_looked_at_though_the_image_is_here() {
    let image = Image::new([small_layer("a")]).platform("linux", host_architecture(), None);
    let Some((store, _registry, name)) = pulled(&image) else { return };
    for policy in ["always", "missing"] {
        pull(&store, &["--platform", "linux/s390x", "--policy", policy, &name]).failure(3);
    }
}

#[test]
fn privileged_of_all_platforms_the_one_asked_for_is_unpacked() {
    let images = ["s390x", "ppc64le"]
        .map(|arch| Image::new([small_layer("base"), small_layer(arch)]).platform("linux", arch, None));
    let Some((store, registry)) = setting() else { return };
    registry.push_layout("a:1", &Layout::new().platforms("localhost/a:1", &images));
    let name = registry.reference("a:1");
    pull(&store, &["--all-platforms", "--no-unpack", &name]).success();
    assert_eq!(store.names_of_trees(), 0);
    // None of them is this machine's.
    let run = pull(&store, &["--all-platforms", "--platform", "linux/ppc64le", &name]).success();
    assert!(run.stdout.contains("Status: "), "{run}");
    assert_eq!(store.names_of_trees(), 2);
    let run = pull(&store, &["--all-platforms", "--platform", "linux/ppc64le", &name]).success();
    assert!(run.stdout.contains("up to date"), "{run}");
}

#[test]
fn privileged_a_tag_is_not_taken_back_to_what_it_once_stood_for() {
    let Some((store, registry, name)) = pulled(&Image::new([small_layer("old")])) else { return };
    let old = registry.tag("a", "1").unwrap();
    pull(&store, &[&format!("{name}@{old}")]).success();
    registry.push("a:1", &Image::new([small_layer("new")]));
    let new = registry.tag("a", "1").unwrap();
    pull(&store, &[&name]).success();
    let repository = registry.reference("a");
    push(&store, &["-a", &repository]).success();
    assert_eq!(registry.tag("a", "1").unwrap(), new);
    push(&store, &[&format!("{name}@{old}")]).failure(1);
    assert_eq!(registry.tag("a", "1").unwrap(), new);
    assert_holds(&store, &name, &["new"]);
}

#[test]
fn privileged_a_partial_download_goes_when_its_blob_has_come_another_way() {
    let image = two_layers("top");
    let Some((store, _registry, _name)) = pulled(&image) else { return };
    let partial = store.root().join("partial").join(format!("sha256-{}", hex_of(&image.layers[0].digest())));
    store.execute(INTERRUPTED);
    fs::write(&partial, "beginning").unwrap();
    store.ok(["gc"]);
    assert!(!partial.exists());
}

/// The lease of a pull that was interrupted.
const INTERRUPTED: &str = "INSERT INTO lease VALUES ('keep-pull', 'local', 1, 'boot', 0, 9000000000)";

#[test]
fn privileged_a_partial_download_goes_when_no_pull_wants_it() {
    let Some(store) = Sandbox::new() else { return };
    store.ok(["images"]);
    let partial = store.root().join("partial").join(format!("sha256-{}", "ab".repeat(32)));
    fs::write(&partial, "beginning").unwrap();
    store.execute(INTERRUPTED);
    store.ok(["gc"]);
    assert!(partial.exists());
    store.execute("DELETE FROM lease");
    assert!(store.ok(["gc", "--dry-run"]).contains("partial download"));
    store.ok(["gc"]);
    assert!(!partial.exists());
}
