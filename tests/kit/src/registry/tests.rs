//! The registry in each of its forms, as a plain client sees it.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use super::*;
use crate::fault_proxy::{Fault, FaultProxy, Match};
use crate::http::{get, request};
use crate::image::{Image, Layout};
use crate::layer::LayerBuilder;
use crate::require;

fn image() -> Image {
    Image::new([LayerBuilder::gzip().file("etc/x", "x").finish()])
}

#[test]
fn an_image_that_was_pushed_comes_back_through_a_proxy_that_cuts_once() {
    if !require::registry() {
        return;
    }
    let registry = Registry::plain();
    let digest = registry.push("a/b:1", &image());
    let proxy = FaultProxy::start(registry.address());
    proxy.on(Match::get("/blobs/").first(1), Fault::Cut { after: 10 });

    let manifest = get(proxy.address(), "/v2/a/b/manifests/1").unwrap();
    assert_eq!((manifest.status, manifest.header("Docker-Content-Digest")), (200, Some(digest.as_str())));
    assert_eq!(crate::digest(&manifest.body), digest);
    let layer = &image().layers[0];
    let target = format!("/v2/a/b/blobs/{}", layer.digest());
    let cut = get(proxy.address(), &target).unwrap();
    assert_eq!((&cut.body[..], cut.broken.is_some()), (&layer.blob[..10], true));
    let rest = request(proxy.address(), "GET", &target, &[("Range", "bytes=10-")], b"").unwrap();
    assert_eq!((rest.status, &rest.body[..]), (206, &layer.blob[10..]));
    assert_eq!(proxy.traffic().bytes_served("/blobs/"), layer.blob.len() as u64);
    registry.wait_for_log(|log| log.matches("GET /v2/a/b/blobs/").count() == 2);
}

#[test]
fn an_upload_that_is_cut_leaves_the_upstream_with_what_was_passed_on() {
    if !require::registry() {
        return;
    }
    let registry = Registry::plain();
    let proxy = FaultProxy::start(registry.address());
    proxy.on(Match::new("PATCH", "").first(1), Fault::CutUpload { after: 4 });
    let begin = || {
        let begun = request(proxy.address(), "POST", "/v2/a/blobs/uploads/", &[], b"").unwrap();
        let location = begun.header("Location").unwrap();
        location
            .strip_prefix(&proxy.url())
            .unwrap_or_else(|| panic!("not of the proxy: {location}"))
            .to_owned()
    };
    let patch = |target: &str| {
        request(proxy.address(), "PATCH", target, &[("Expect", "100-continue")], b"0123456789")
    };
    let target = begin();
    assert!(patch(&target).is_err());
    let log = registry.log();
    assert!(log.contains("copied=4"), "{log}");
    // distribution 2.8 keeps the bytes, but knows no upload any more whose state in the address does not count them.
    assert_eq!(get(proxy.address(), &target).unwrap().status, 404);
    assert_eq!(patch(&begin()).unwrap().status, 202);
    assert_eq!(proxy.traffic().bytes_received(""), 14);
    assert_eq!(registry.uploads("a"), 2);
}

#[test]
fn the_storage_tells_what_a_repository_has() {
    if !require::registry() {
        return;
    }
    let registry = Registry::plain();
    let layout =
        Layout::new().platforms("localhost/a:1", &[image(), image().platform("linux", "riscv64", None)]);
    let digest = registry.push_layout("a:all", &layout);
    assert_eq!(registry.tag("a", "all").as_ref(), Some(&digest));
    assert_eq!(registry.manifest("a", "all").as_ref(), Some(&layout.blobs[&digest]));
    assert_eq!(registry.tags("a"), ["all"]);
    assert!(registry.has_manifest("a", &digest) && !registry.has_manifest("b", &digest));
    let layer = image().layers[0].digest();
    assert!(registry.has_blob("a", &layer) && !registry.has_blob("b", &layer));
    assert_eq!(registry.uploads("a"), 0);
    assert_eq!(
        get(registry.address(), "/v2/a/tags/list").unwrap().body,
        b"{\"name\":\"a\",\"tags\":[\"all\"]}\n"
    );

    assert_eq!(registry.mounts(), 0);
    let target = format!("/v2/b/blobs/uploads/?mount={layer}&from=a");
    assert_eq!(request(registry.address(), "POST", &target, &[], b"").unwrap().status, 201);
    registry.wait_for_log(|log| log.contains("mount="));
    assert_eq!(registry.mounts(), 1);
    assert!(registry.has_blob("b", &layer));
}

#[test]
fn a_password_is_asked_for() {
    if !require::registry() {
        return;
    }
    let registry = Registry::start(RegistryOptions::new().user("anna", "pa:ss"));
    registry.push("a:1", &image());
    let fetch = |login: &str| {
        let basic = format!("Basic {}", BASE64_STANDARD.encode(login));
        let headers = [("Authorization", basic.as_str())];
        request(registry.address(), "GET", "/v2/a/manifests/1", &headers, b"").unwrap().status
    };
    assert_eq!((fetch("anna:pa:ss"), fetch("anna:guess")), (200, 401));
}

#[test]
fn a_mirror_gets_what_its_upstream_has() {
    if !require::registry() {
        return;
    }
    let upstream = Registry::plain();
    let digest = upstream.push("a:1", &image());
    let mirror = Registry::start(RegistryOptions::new().mirror_of(&upstream.url()));
    let answer = get(mirror.address(), "/v2/a/manifests/1").unwrap();
    assert_eq!(crate::digest(&answer.body), digest);
}

#[test]
fn a_registry_keeps_its_port_and_its_images_when_it_starts_again() {
    if !require::registry() {
        return;
    }
    let mut registry = Registry::plain();
    registry.push("a:1", &image());
    let address = registry.address();
    registry.restart();
    assert_eq!(registry.address(), address);
    assert_eq!(get(address, "/v2/a/manifests/1").unwrap().status, 200);
}

#[test]
fn tls_has_an_authority_of_its_own() {
    if !require::registry() {
        return;
    }
    let registry = Registry::start(RegistryOptions::new().tls(Tls::Mutual));
    registry.push("a:1", &image());
    let certs = registry.certs_d().join(registry.host());
    let fetch = |identity: bool| {
        let script = "import ssl, sys, urllib.request\n\
            context = ssl.create_default_context(cafile=sys.argv[2])\n\
            if sys.argv[3:]: context.load_cert_chain(sys.argv[3], sys.argv[4])\n\
            print(urllib.request.urlopen(sys.argv[1], context=context).status)";
        let mut command = Command::new("python3");
        command.args(["-c", script]).arg(format!("{}/v2/a/tags/list", registry.url())).arg(registry.ca());
        if identity {
            command.arg(certs.join("client.cert")).arg(certs.join("client.key"));
        }
        String::from_utf8(command.output().unwrap().stdout).unwrap()
    };
    assert_eq!((fetch(true).as_str(), fetch(false).as_str()), ("200\n", ""));
}

#[test]
fn skopeo_pushes_an_archive_and_gets_it_back() {
    if !require::registry() {
        return;
    }
    let registry = Registry::start(RegistryOptions::new().user("anna", "pass"));
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.tar");
    fs::write(&path, Layout::of("localhost/a:1", &image()).archive()).unwrap();
    registry.push_archive(&path, "a/b:1");
    let manifest = registry.manifest("a/b", "1").unwrap();
    assert_eq!(crate::digest(&manifest), crate::digest(image().manifest().to_string().as_bytes()));
    registry.pull_with_skopeo("a/b:1", &format!("oci:{}:1", dir.path().join("out").display()), &[]);
    let layer = dir.path().join("out/blobs/sha256").join(crate::hex_of(&image().layers[0].digest()));
    assert_eq!(fs::read(layer).unwrap(), image().layers[0].blob);
    registry.push_with_skopeo(&format!("oci-archive:{}", path.display()), "a/b:2", &["--format", "v2s2"]);
    let manifest = String::from_utf8(registry.manifest("a/b", "2").unwrap()).unwrap();
    assert!(manifest.contains("application/vnd.docker.distribution.manifest.v2+json"), "{manifest}");
}
