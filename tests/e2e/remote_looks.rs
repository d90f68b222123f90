//! `search --list-tags`, `manifest inspect` and `manifest referrers`.

use layerstore_testkit::fault_proxy::{Fault, FaultProxy, Match};
use layerstore_testkit::image::{Image, Layout, MANIFEST, descriptor, host_architecture};
use layerstore_testkit::registry::{Registry, Uploader};
use layerstore_testkit::require;
use layerstore_testkit::sandbox::Sandbox;
use serde_json::{Value, json};

use crate::remote::remote;
use crate::small_layer;

const SIGNATURE: &str = "application/vnd.example.signature";

#[track_caller]
fn setting() -> Option<(Sandbox, Registry)> {
    if !require::registry() {
        return None;
    }
    Some((Sandbox::new()?, Registry::plain()))
}

fn image() -> Image {
    Image::new([small_layer("a")])
}

fn document(store: &Sandbox, args: &[&str]) -> Value {
    let run = remote(store, &["manifest", "inspect"], args).success();
    serde_json::from_str(&run.stdout).unwrap_or_else(|e| panic!("{e}\n{run}"))
}

#[test]
fn privileged_tags_are_listed() {
    let Some((store, registry)) = setting() else { return };
    for tag in ["1", "2", "latest"] {
        registry.push(&format!("a/b:{tag}"), &image());
    }
    let name = registry.reference("a/b");
    let run = remote(&store, &["search", "--list-tags"], &["--format", "{{.Name}} {{.Tag}}", &name]);
    let run = run.success();
    // In the registry's order, which is that of its disk.
    let mut lines: Vec<_> = run.stdout.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["1", "2", "latest"].map(|tag| format!("{name} {tag}")));
    let run = remote(&store, &["search", "--list-tags"], &["--limit", "1", &name]).success();
    assert_eq!(run.stdout.lines().count(), 2, "the titles and one tag\n{run}");
    remote(&store, &["search", "--list-tags"], &[&registry.reference("none")]).failure(3);
}

/// The registry of Debian has no pages, so the proxy makes them.
#[test]
fn privileged_tags_of_several_pages_are_listed() {
    let Some((store, registry)) = setting() else { return };
    let proxy = FaultProxy::start(registry.address());
    let page = |tags: &[&str], next: Option<&str>| Fault::Answer {
        status: 200,
        headers: next
            .map(|next| ("Link".to_owned(), format!("</v2/a/tags/list?n=2&last={next}>; rel=\"next\"")))
            .into_iter()
            .collect(),
        body: json!({"name": "a", "tags": tags}).to_string().into_bytes(),
    };
    proxy.on(Match::get("last=2"), page(&["3", "4"], Some("4")));
    proxy.on(Match::get("last=4"), page(&["5"], None));
    proxy.on(Match::get("/tags/list"), page(&["1", "2"], Some("2")));
    let name = format!("{}/a", proxy.host());
    let run = remote(&store, &["search", "--list-tags"], &["--format", "{{.Tag}}", &name]).success();
    assert_eq!(run.stdout, "1\n2\n3\n4\n5\n");
    assert_eq!(proxy.traffic().count("GET", "/tags/list"), 3);
}

#[test]
fn privileged_a_manifest_is_printed() {
    let Some((store, registry)) = setting() else { return };
    let digest = registry.push("a:1", &image());
    for name in ["a:1", &format!("a@{digest}")] {
        assert_eq!(document(&store, &[&registry.reference(name)]), image().manifest());
    }
    remote(&store, &["manifest", "inspect"], &[&registry.reference("a:2")]).failure(3);
    assert!(!store.root().exists(), "a look needs no store");
}

#[test]
fn privileged_a_manifest_is_printed_with_what_it_means() {
    let Some((store, registry)) = setting() else { return };
    let digest = registry.push("a:1", &image());
    let shown = document(&store, &["--verbose", &registry.reference("a:1")]);
    assert_eq!(shown["Descriptor"]["digest"], json!(digest));
    assert_eq!(shown["Descriptor"]["platform"]["architecture"], host_architecture());
    assert_eq!(shown["OCIManifest"], image().manifest());
}

#[test]
fn privileged_an_index_is_printed() {
    let Some((store, registry)) = setting() else { return };
    let images = ["amd64", "arm64"].map(|arch| image().platform("linux", arch, None));
    registry.push_layout("a:1", &Layout::new().platforms("localhost/a:1", &images));
    let name = registry.reference("a:1");
    let index: Value = serde_json::from_slice(&registry.manifest("a", "1").unwrap()).unwrap();
    assert_eq!(document(&store, &[&name]), index);
    let verbose = document(&store, &["--verbose", &name]);
    let architectures = [0, 1].map(|n: usize| verbose[n]["Descriptor"]["platform"]["architecture"].clone());
    assert_eq!(architectures, [json!("amd64"), json!("arm64")]);
}

#[test]
fn privileged_referrers_are_listed() {
    let Some((store, registry)) = setting() else { return };
    let digest = registry.push("a:1", &image());
    let name = registry.reference("a:1");
    let list = |args: &[&str]| {
        let format = ["--format", "{{.Digest}} {{.ArtifactType}}"];
        remote(&store, &["manifest", "referrers"], &[&format, args].concat()).success().stdout
    };
    assert_eq!(list(&[&name]), "");
    let uploader = Uploader::new(registry.address(), "a");
    uploader.blob(b"{}");
    let subject =
        json!({"mediaType": MANIFEST, "digest": digest, "size": image().manifest().to_string().len()});
    let mut artifacts: Vec<_> = [SIGNATURE, "application/vnd.example.sbom"]
        .into_iter()
        .map(|artifact_type| {
            let manifest = json!({
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "artifactType": artifact_type,
                "config": descriptor("application/vnd.oci.empty.v1+json", b"{}"),
                "layers": [descriptor("application/vnd.oci.empty.v1+json", b"{}")],
                "subject": subject,
            });
            let bytes = manifest.to_string().into_bytes();
            (uploader.manifest(&layerstore_testkit::digest(&bytes), &bytes), artifact_type, bytes)
        })
        .collect();
    if list(&[&name]).is_empty() {
        // A registry without the API: clients keep an index under a tag.
        let manifests: Vec<_> = artifacts
            .iter()
            .map(|(_, artifact_type, bytes)| {
                let mut entry = descriptor(MANIFEST, bytes);
                entry["artifactType"] = json!(artifact_type);
                entry
            })
            .collect();
        let index = json!({
            "schemaVersion": 2,
            "mediaType": layerstore_testkit::image::INDEX,
            "manifests": manifests,
        });
        uploader.manifest(&digest.replace(':', "-"), index.to_string().as_bytes());
    }
    artifacts.sort();
    let shown = list(&[&name]);
    let mut lines: Vec<_> = shown.lines().collect();
    lines.sort_unstable();
    let wanted: Vec<_> = artifacts.iter().map(|(digest, kind, _)| format!("{digest} {kind}")).collect();
    assert_eq!(lines, wanted);
    let signatures = list(&["--artifact-type", SIGNATURE, &registry.reference(&format!("a@{digest}"))]);
    assert_eq!(signatures.lines().count(), 1);
    assert!(signatures.ends_with(&format!(" {SIGNATURE}\n")), "{signatures}");
}
