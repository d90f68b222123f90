//! Registries whose content comes from elsewhere.

use layerstore_testkit::fault_proxy::{Fault, FaultProxy, Match};
use layerstore_testkit::registry::{Registry, RegistryOptions};

use super::{setting, two_layers};
use crate::remote::{assert_holds, pull, push, requests, write_hosts};

/// A `hosts.toml` with one mirror before the registry itself.
fn mirror_before(server: &str, mirror: &str) -> String {
    format!("server = '{server}'\n[host.'{mirror}']\ncapabilities = ['pull', 'resolve']\n")
}

#[test]
fn privileged_an_image_comes_through_a_mirror() {
    let Some((store, upstream)) = setting() else { return };
    let origin = FaultProxy::start(upstream.address());
    let mirror = Registry::start(RegistryOptions::new().mirror_of(&upstream.url()));
    upstream.push("a:1", &two_layers("top"));
    write_hosts(&store, "registry.invalid", &mirror_before(&origin.url(), &mirror.url()));
    let run = pull(&store, &["registry.invalid/a:1"]).success();
    assert!(run.stdout.ends_with("\nregistry.invalid/a:1\n"), "{run}");
    assert_eq!(requests(&origin), Vec::<String>::new(), "nobody asked the registry itself");
    assert_holds(&store, "registry.invalid/a:1", &["base", "top"]);
}

#[test]
fn privileged_a_mirror_that_is_down_is_passed_over() {
    let Some((store, registry)) = setting() else { return };
    registry.push("a:1", &two_layers("top"));
    // Nothing listens on port 1.
    write_hosts(&store, "registry.invalid", &mirror_before(&registry.url(), "http://127.0.0.1:1"));
    pull(&store, &["registry.invalid/a:1"]).success();
    assert_holds(&store, "registry.invalid/a:1", &["base", "top"]);
}

#[test]
fn privileged_what_a_mirror_does_not_have_comes_from_the_registry() {
    let Some((store, registry)) = setting() else { return };
    let mirror = Registry::plain();
    registry.push("a:1", &two_layers("top"));
    write_hosts(&store, "registry.invalid", &mirror_before(&registry.url(), &mirror.url()));
    pull(&store, &["registry.invalid/a:1"]).success();
    assert_holds(&store, "registry.invalid/a:1", &["base", "top"]);
}

#[test]
fn privileged_a_mirror_that_fails_within_an_image_is_passed_over() {
    let Some((store, registry)) = setting() else { return };
    let mirror = FaultProxy::start(registry.address());
    registry.push("a:1", &two_layers("top"));
    mirror.on(Match::get("/blobs/"), Fault::status(404));
    write_hosts(&store, "registry.invalid", &mirror_before(&registry.url(), &mirror.url()));
    pull(&store, &["registry.invalid/a:1"]).success();
    assert_ne!(mirror.traffic().count("GET", "/manifests/"), 0);
    assert_holds(&store, "registry.invalid/a:1", &["base", "top"]);
}

#[test]
fn privileged_what_a_mirror_damages_comes_from_the_registry() {
    let Some((store, registry)) = setting() else { return };
    let (mirror, origin) = (FaultProxy::start(registry.address()), FaultProxy::start(registry.address()));
    let image = two_layers("top");
    registry.push("a:1", &image);
    let layer = image.layers[1].digest();
    mirror.on(Match::get(&layer), Fault::Flip { at: 40 });
    write_hosts(&store, "registry.invalid", &mirror_before(&origin.url(), &mirror.url()));
    let run = pull(&store, &["registry.invalid/a:1"]).success();
    assert!(run.stderr.contains(&format!("note: layer {layer} arrived damaged")), "{run}");
    let asked = requests(&origin);
    assert!(asked.len() == 1 && asked[0].starts_with(&format!("GET /v2/a/blobs/{layer}")), "{asked:?}");
    assert_holds(&store, "registry.invalid/a:1", &["base", "top"]);
    store.assert_no_leftovers();
}

#[test]
fn privileged_nothing_is_pushed_to_a_mirror() {
    let Some((store, registry)) = setting() else { return };
    let mirror = FaultProxy::start(registry.address());
    registry.push("a:1", &two_layers("top"));
    write_hosts(&store, "registry.invalid", &mirror_before(&registry.url(), &mirror.url()));
    pull(&store, &["registry.invalid/a:1"]).success();
    mirror.traffic().clear();
    push(&store, &["registry.invalid/a:1", "registry.invalid/b:1"]).success();
    assert_eq!(requests(&mirror), Vec::<String>::new());
    assert_eq!(registry.tags("b"), ["1"]);
}
