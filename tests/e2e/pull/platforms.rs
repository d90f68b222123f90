//! Several tags, and images for several platforms.

use layerstore_testkit::fault_proxy::FaultProxy;
use layerstore_testkit::image::{Image, Layout, host_architecture};
use layerstore_testkit::registry::Registry;
use layerstore_testkit::sandbox::Sandbox;

use super::{setting, two_layers};
use crate::remote::{assert_holds, pull};
use crate::small_layer;

/// An architecture that this machine does not have.
fn other() -> &'static str {
    if host_architecture() == "arm64" { "amd64" } else { "arm64" }
}

/// An image for three platforms, this machine's in the middle.
fn images() -> [Image; 3] {
    ["s390x", host_architecture(), other()]
        .map(|arch| Image::new([small_layer("base"), small_layer(arch)]).platform("linux", arch, None))
}

/// A store, a registry with the image above as `a:1`, and a proxy before it.
#[track_caller]
fn index() -> Option<(Sandbox, Registry, FaultProxy, String)> {
    let (store, registry) = setting()?;
    registry.push_layout("a:1", &Layout::new().platforms("localhost/a:1", &images()));
    let proxy = FaultProxy::start(registry.address());
    let name = format!("{}/a:1", proxy.host());
    Some((store, registry, proxy, name))
}

#[test]
fn privileged_only_this_platform_is_fetched() {
    let Some((store, registry, proxy, name)) = index() else { return };
    let run = pull(&store, &[&name]).success();
    let digest = registry.tag("a", "1").unwrap();
    assert!(run.stdout.starts_with(&format!("Digest: {digest}\n")), "of the index\n{run}");
    assert_holds(&store, &name, &["base", host_architecture()]);
    let counts = ["/manifests/", "/blobs/"].map(|part| proxy.traffic().count("GET", part));
    assert_eq!(counts, [2, 3], "index and manifest; config and two layers");
    proxy.traffic().clear();
    pull(&store, &[&name]).success();
    assert_eq!(proxy.traffic().requests(), ["HEAD /v2/a/manifests/1"]);
}

#[test]
fn privileged_another_platform_is_pulled_on_request() {
    let Some((store, _registry, _proxy, name)) = index() else { return };
    pull(&store, &["--platform", &format!("linux/{}", other()), &name]).success();
    assert_holds(&store, &name, &["base", other()]);
}

#[test]
fn privileged_a_second_platform_joins_the_first() {
    let Some((store, _registry, proxy, name)) = index() else { return };
    pull(&store, &[&name]).success();
    proxy.traffic().clear();
    let run = pull(&store, &["--platform", "linux/s390x", &name]).success();
    assert!(run.stdout.contains("Downloaded newer image"), "{run}");
    assert_eq!(proxy.traffic().count("GET", "/blobs/"), 2, "config and one layer; the base is here");
    store.assert_nothing_to_collect();
}

#[test]
fn privileged_a_platform_that_is_not_there_names_those_that_are() {
    let Some((store, _registry, proxy, name)) = index() else { return };
    let run = pull(&store, &["--platform", "linux/riscv64", &name]);
    for arch in ["s390x", host_architecture(), other()] {
        assert!(run.stderr.contains(&format!("linux/{arch}")), "{run}");
    }
    let sentence = run.failure(3);
    assert!(sentence.contains("linux/riscv64"), "{sentence}");
    assert_eq!(proxy.traffic().count("GET", "/blobs/"), 0);
}

#[test]
fn privileged_all_platforms_are_kept_and_one_is_unpacked() {
    let Some((store, registry, proxy, name)) = index() else { return };
    pull(&store, &["--all-platforms", &name]).success();
    assert_eq!(store.names("blobs/sha256").len(), 1 + 3 * 2 + 4, "index, manifests, configs, layers");
    for image in images() {
        for layer in &image.layers {
            assert!(store.names("blobs/sha256").contains(layerstore_testkit::hex_of(&layer.digest())));
        }
    }
    assert_eq!(store.names_of_trees(), 2);
    assert_holds(&store, &name, &["base", host_architecture()]);
    store.assert_nothing_to_collect();
    proxy.traffic().clear();
    let again = pull(&store, &["--all-platforms", &name]).success();
    assert!(again.stdout.contains("Image is up to date"), "{again}");
    assert_eq!(proxy.traffic().requests(), ["HEAD /v2/a/manifests/1"]);
    drop(registry);
}

#[test]
fn privileged_an_image_without_an_index_is_for_what_its_config_says() {
    let Some((store, registry)) = setting() else { return };
    registry.push("a:1", &Image::new([small_layer("s")]).platform("linux", "s390x", None));
    let name = registry.reference("a:1");
    let sentence = pull(&store, &["--platform", "linux/riscv64", &name]).failure(3);
    assert!(sentence.contains("linux/riscv64"), "{sentence}");
    // As nobody chose a platform, there is nothing to contradict.
    pull(&store, &[&name]).success();
    assert_holds(&store, &name, &["s"]);
}

#[test]
fn privileged_all_tags_are_pulled() {
    let Some((store, registry)) = setting() else { return };
    for tag in ["1", "2", "latest"] {
        registry.push(&format!("a/b:{tag}"), &two_layers(&format!("of-{tag}")));
    }
    registry.push("a/c:1", &two_layers("not-asked-for"));
    let run = pull(&store, &["--all-tags", &registry.reference("a/b")]).success();
    assert_eq!(run.stdout.matches("Status: Downloaded newer image for").count(), 3, "{run}");
    for tag in ["1", "2", "latest"] {
        assert_holds(&store, &registry.reference(&format!("a/b:{tag}")), &["base", &format!("of-{tag}")]);
    }
    assert!(!store.ok(["images"]).contains("a/c"));
}

#[test]
fn privileged_all_tags_and_a_tag_contradict_each_other() {
    let Some((store, registry)) = setting() else { return };
    pull(&store, &["-a", &registry.reference("a:1")]).failure(2);
    pull(&store, &["-a", &registry.reference("a")]).failure(3);
}

#[test]
fn privileged_sizes_and_plans_are_of_the_image_that_is_listed() {
    let Some((store, _registry, _proxy, name)) = index() else { return };
    pull(&store, &["--all-platforms", &name]).success();
    let listed = store.ok(["images", "--format", "{{.ID}} {{.Size}}"]);
    let (id, size) = listed.trim_end().split_once(' ').unwrap();
    let detailed = store.ok(["df", "-v"]);
    let row = detailed.lines().find(|line| line.contains(id));
    assert!(row.is_some_and(|row| row.contains(size)), "{listed}{detailed}");
    let planned = store.json_lines(["gc", "--dry-run", "--all", "--format", "json"]);
    assert!(planned[0]["ID"].as_str().unwrap().contains(id), "{listed}{}", planned[0]);
}
