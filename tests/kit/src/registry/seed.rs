//! Puts images into a registry, past what keeps clients out.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::{Process, Registry, RegistryOptions};
use crate::digest;
use crate::http::{Answer, request};
use crate::image::{Image, Layout};

impl Registry {
    /// Pushes an image of the kit as `name` (`a/b:tag`). Returns the manifest's digest.
    #[track_caller]
    pub fn push(&self, name: &str, image: &Image) -> String {
        self.push_layout(name, &Layout::of("localhost/a:1", image))
    }

    /// Pushes the first image or index of a layout as `name`, with all that it refers to and the layout has.
    #[track_caller]
    pub fn push_layout(&self, name: &str, layout: &Layout) -> String {
        self.with_open_door(|address| push_layout(address, name, layout))
    }

    /// Copies `source`, an image in a form that skopeo knows (`oci-archive:/a.tar`, `docker-archive:/b.tar`), to
    /// `name`. `arguments` go to `skopeo copy`, such as `--all`, `--format` and `v2s2`.
    #[track_caller]
    pub fn push_with_skopeo(&self, source: &str, name: &str, arguments: &[&str]) {
        self.with_open_door(|address| copy(source, &format!("docker://{address}/{name}"), arguments));
    }

    /// Copies `name` to `target`, such as `oci:/dir:tag`, as another client of registries gets it.
    #[track_caller]
    pub fn pull_with_skopeo(&self, name: &str, target: &str, arguments: &[&str]) {
        self.with_open_door(|address| copy(&format!("docker://{address}/{name}"), target, arguments));
    }

    /// Copies the OCI archive at `path` to `name` with skopeo, its indexes whole.
    #[track_caller]
    pub fn push_archive(&self, path: &Path, name: &str) {
        self.push_with_skopeo(&format!("oci-archive:{}", path.display()), name, &["--all"]);
    }

    /// Calls `reach` with the address of a registry that has this one's storage and asks nobody for anything.
    #[track_caller]
    fn with_open_door<T>(&self, reach: impl FnOnce(SocketAddr) -> T) -> T {
        assert!(!self.options.is_mirror(), "a mirror takes no pushes: push to its upstream");
        if self.options.is_open() {
            return reach(self.address());
        }
        let door = Process::start(self.dir.path(), "door", &RegistryOptions::new().config(self.dir.path()));
        reach(door.address)
    }
}

#[track_caller]
fn copy(source: &str, target: &str, arguments: &[&str]) {
    let out = Command::new("skopeo")
        .args(["--insecure-policy", "copy", "--quiet", "--src-tls-verify=false", "--dest-tls-verify=false"])
        .args(arguments)
        .args([source, target])
        .output()
        .unwrap_or_else(|e| panic!("skopeo: {e}: run scripts/setup-tests"));
    assert!(out.status.success(), "skopeo: {}", String::from_utf8_lossy(&out.stderr));
}

#[track_caller]
fn push_layout(address: SocketAddr, name: &str, layout: &Layout) -> String {
    let (repository, tag) = name.rsplit_once(':').unwrap_or((name, "latest"));
    let uploader = Uploader::new(address, repository);
    let top = layout.index["manifests"][0]["digest"].as_str().expect("the layout has an image");
    // Parts before what refers to them.
    let mut manifests = Vec::new();
    let mut blobs = BTreeSet::new();
    collect(layout, top, &mut manifests, &mut blobs);
    for blob in blobs {
        uploader.blob(&layout.blobs[&blob]);
    }
    for manifest in manifests {
        let bytes = &layout.blobs[&manifest];
        uploader.manifest(if manifest == top { tag } else { &manifest }, bytes);
    }
    top.to_owned()
}

/// Lists the manifests below `manifest`, itself last, and their blobs.
fn collect(layout: &Layout, manifest: &str, manifests: &mut Vec<String>, blobs: &mut BTreeSet<String>) {
    let Some(bytes) = layout.blobs.get(manifest) else { return };
    let document: Value = serde_json::from_slice(bytes).expect("a manifest is JSON");
    let digests = |list: &Value| -> Vec<String> {
        let list = list.as_array().into_iter().flatten();
        list.filter_map(|d| d["digest"].as_str().map(str::to_owned)).collect()
    };
    for part in digests(&document["manifests"]) {
        collect(layout, &part, manifests, blobs);
    }
    blobs.extend(document["config"]["digest"].as_str().map(str::to_owned));
    blobs.extend(digests(&document["layers"]));
    blobs.retain(|blob| layout.blobs.contains_key(blob));
    manifests.push(manifest.to_owned());
}

/// Sends single blobs and manifests to one repository, each in one request.
#[derive(Clone, Debug)]
pub struct Uploader {
    address: SocketAddr,
    repository: String,
    authorization: Option<String>,
}

impl Uploader {
    /// An uploader to `repository` of the registry or proxy at `address`.
    pub fn new(address: SocketAddr, repository: &str) -> Self {
        Self { address, repository: repository.to_owned(), authorization: None }
    }

    /// Sends `value` as `Authorization` with each request.
    #[must_use]
    pub fn authorization(self, value: &str) -> Self {
        Self { authorization: Some(value.to_owned()), ..self }
    }

    /// Sends a blob. Returns its digest.
    #[track_caller]
    pub fn blob(&self, bytes: &[u8]) -> String {
        let digest = digest(bytes);
        let begun = self.send("POST", &format!("/v2/{}/blobs/uploads/", self.repository), None, b"");
        assert_eq!(begun.status, 202, "{begun:?}");
        let location = begun.header("Location").expect("an upload has a location");
        let target =
            location.split_once("://").map_or(location, |(_, rest)| &rest[rest.find('/').unwrap()..]);
        let sep = if target.contains('?') { '&' } else { '?' };
        let target = format!("{target}{sep}digest={digest}");
        let done = self.send("PUT", &target, Some("application/octet-stream"), bytes);
        assert_eq!(done.status, 201, "{done:?}");
        digest
    }

    /// Sends a manifest or index as it stands, under `reference`: a tag or its digest. Its type is what it says of
    /// itself, or else that of an OCI manifest. Returns its digest.
    #[track_caller]
    pub fn manifest(&self, reference: &str, bytes: &[u8]) -> String {
        let document: Value = serde_json::from_slice(bytes).unwrap_or_default();
        let media_type = document["mediaType"].as_str().unwrap_or(crate::image::MANIFEST);
        let target = format!("/v2/{}/manifests/{reference}", self.repository);
        let answer = self.send("PUT", &target, Some(media_type), bytes);
        assert_eq!(answer.status, 201, "{}", String::from_utf8_lossy(&answer.body));
        digest(bytes)
    }

    #[track_caller]
    fn send(&self, method: &str, target: &str, media_type: Option<&str>, body: &[u8]) -> Answer {
        let mut headers = Vec::new();
        headers.extend(media_type.map(|media_type| ("Content-Type", media_type)));
        headers.extend(self.authorization.as_deref().map(|value| ("Authorization", value)));
        request(self.address, method, target, &headers, body)
            .unwrap_or_else(|e| panic!("{method} {target}: {e}"))
    }
}
