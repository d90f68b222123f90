//! What a container wrote becomes an image that shows the same.

use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::path::PathBuf;

use layerstore_oci::{Document, MAX_DOCUMENT_BYTES, Manifest};
use layerstore_testkit::image::{Image, Layout};
use layerstore_testkit::layer::{Entry, LayerBuilder};
use layerstore_testkit::require;
use layerstore_testkit::tree::Snapshot;
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, XattrFlags, utimensat};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use serde_json::Value;

use super::*;
use crate::{LoadOptions, Source};

/// A store with the image `base:1`, and directories for a container of it.
struct Lab {
    dir: tempfile::TempDir,
    store: Layerstore,
}

impl Drop for Lab {
    fn drop(&mut self) {
        for row in self.store.store.live_mounts().unwrap_or_default() {
            drop(self.store.store.unmount(&row));
        }
        // Mounted only where a test has failed.
        unmount(self.at("merged"), UnmountFlags::DETACH).unwrap_or_default();
    }
}

fn base_image() -> Image {
    let lower = LayerBuilder::gzip()
        .entry(Entry::dir("etc"))
        .entry(Entry::file("etc/a", "one"))
        .entry(Entry::file("etc/b", "two"))
        .entry(Entry::dir("usr"))
        .entry(Entry::dir("usr/lib"))
        .entry(Entry::file("usr/lib/x", "x"))
        .entry(Entry::file("usr/lib/y", "y"))
        .entry(Entry::symlink("lib", "usr/lib"));
    let upper =
        LayerBuilder::gzip().entry(Entry::dir("opt")).entry(Entry::file("opt/tool", "tool").mode(0o4755));
    Image::new([lower.finish(), upper.finish()])
}

impl Lab {
    fn new() -> Option<Self> {
        Self::with(&base_image())
    }

    fn with(image: &Image) -> Option<Self> {
        if !require::root() {
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        for name in ["upper", "work", "merged"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
        }
        // As whoever makes a container does: the root below may be seen by all.
        std::fs::set_permissions(dir.path().join("upper"), Permissions::from_mode(0o755)).unwrap();
        let archive = dir.path().join("base.tar");
        std::fs::write(&archive, Layout::of("localhost/base:1", image).archive()).unwrap();
        let store = Layerstore::open(&dir.path().join("store")).unwrap();
        store.load(Source::Path(archive), &LoadOptions::default(), &|_| {}).unwrap();
        Some(Self { dir, store })
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn image(&self, name: &str) -> ImageInfo {
        self.store.find(name).unwrap().image.unwrap()
    }

    /// Lets `work` change a container's files, and returns what it saw at the end.
    fn run(&self, work: impl FnOnce(&Path)) -> Snapshot {
        let trees = self.store.unpacked(&self.image("localhost/base:1"), &|_| {}).unwrap();
        let lowers: Vec<String> =
            trees.iter().map(|id| self.store.store.layout().diff(id).display().to_string()).collect();
        let (upper, below) = (self.at("upper"), self.at("work"));
        let data =
            format!("lowerdir={},upperdir={},workdir={}", lowers.join(":"), upper.display(), below.display());
        let data = std::ffi::CString::new(data).unwrap();
        let merged = self.at("merged");
        mount("overlay", &merged, "overlay", MountFlags::empty(), data.as_c_str()).unwrap();
        work(&merged);
        let seen = Snapshot::of(&merged);
        unmount(&merged, UnmountFlags::empty()).unwrap();
        seen
    }

    fn commit(&self, name: Option<&str>, options: &CommitOptions) -> Result<Built> {
        let base = self.image("localhost/base:1");
        let name = name.map(|name| name.parse().unwrap());
        self.store.commit_tree(Some(&base), &self.at("upper"), name.as_ref(), options, &|| Ok(()), &|_| {})
    }

    fn mounted(&self, name: &str) -> Snapshot {
        Snapshot::of(self.store.mount(name, None, &|_| {}).unwrap())
    }

    fn manifest(&self, built: &Built) -> Manifest {
        let bytes = self.store.store.read_blob(&built.manifest, MAX_DOCUMENT_BYTES).unwrap();
        match Document::parse(&bytes, None).unwrap() {
            Document::Manifest(manifest) => manifest,
            Document::Index(_) => panic!("an index"),
        }
    }

    fn config(&self, built: &Built) -> Value {
        let bytes = self.store.store.read_blob(&built.id, MAX_DOCUMENT_BYTES).unwrap();
        serde_json::from_slice(&bytes).unwrap()
    }

    /// Everything that is in the store's directories of blobs, trees and unfinished things.
    fn objects(&self) -> Vec<PathBuf> {
        let root = self.at("store");
        let mut found: Vec<PathBuf> = ["blobs/sha256", "overlay2", "ingest", "trash"]
            .iter()
            .flat_map(|name| std::fs::read_dir(root.join(name)).unwrap())
            .map(|entry| entry.unwrap().path())
            .collect();
        found.sort();
        found
    }
}

fn set_time(path: &Path, seconds: i64) {
    let time = Timespec { tv_sec: seconds, tv_nsec: 5 };
    let times = Timestamps { last_access: time, last_modification: time };
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

/// Changes of every kind.
fn change(root: &Path) {
    let at = |name: &str| root.join(name);
    std::fs::write(at("etc/new"), vec![7; 300_000]).unwrap();
    std::fs::write(at("etc/a"), "changed").unwrap();
    std::fs::remove_file(at("etc/b")).unwrap();
    std::fs::rename(at("opt/tool"), at("opt/renamed")).unwrap();
    std::fs::set_permissions(at("usr"), Permissions::from_mode(0o711)).unwrap();
    chown(at("usr/lib/x"), Some(1234), Some(77)).unwrap();
    rustix::fs::setxattr(at("usr/lib/x"), "user.note", b"value", XattrFlags::empty()).unwrap();
    std::fs::hard_link(at("usr/lib/x"), at("opt/hard")).unwrap();
    symlink("/etc/new", at("opt/soft")).unwrap();
    // A directory becomes a file, and one in its place hides what was below.
    std::fs::remove_file(at("lib")).unwrap();
    std::fs::create_dir(at("lib")).unwrap();
    std::fs::remove_dir_all(at("etc")).unwrap();
    std::fs::create_dir(at("etc")).unwrap();
    std::fs::write(at("etc/only"), "this").unwrap();
}

#[test]
fn privileged_a_commit_shows_what_the_container_showed() {
    let Some(lab) = Lab::new() else { return };
    let seen = lab.run(change);
    assert!(seen.has("etc/only") && !seen.has("etc/a"));
    for (name, compression) in [("a", Compression::Gzip), ("b", Compression::Zstd), ("c", Compression::None)]
    {
        let built =
            lab.commit(Some(name), &CommitOptions { compression, ..CommitOptions::default() }).unwrap();
        seen.assert_same(&lab.mounted(name));
        let manifest = lab.manifest(&built);
        assert_eq!(manifest.layers.len(), 3);
        assert_eq!(
            manifest.layers[2].media_type,
            format!("{}{}", layerstore_oci::media_type::OCI_LAYER, document::suffix(compression))
        );
        assert_eq!((&manifest.layers[2].digest, manifest.layers[2].size), (&built.layer, built.size));
    }
}

#[test]
fn privileged_the_config_says_what_was_done() {
    let mut image = base_image();
    image.config["x.unknown"] = serde_json::json!({"kept": [1, null]});
    image.config["container"] = "abc".into();
    image.config["docker_version"] = "1".into();
    let Some(lab) = Lab::with(&image) else { return };
    let changes = ["CMD [\"run\"]", "ENV PATH=/opt:$PATH", "LABEL who=me"];
    let options = CommitOptions {
        author: Some("Ada".to_owned()),
        message: Some("more".to_owned()),
        created_by: Some("sh -c x".to_owned()),
        changes: changes.iter().map(|text| Change::parse(text).unwrap()).collect(),
        created: Some(1_600_000_000),
        ..CommitOptions::default()
    };
    let built = lab.commit(Some("localhost/new:1"), &options).unwrap();
    let config = lab.config(&built);
    assert_eq!(config["x.unknown"], image.config["x.unknown"]);
    assert!(config.get("container").is_none() && config.get("docker_version").is_none());
    assert_eq!((&config["author"], &config["created"]), (&"Ada".into(), &"2020-09-13T12:26:40Z".into()));
    assert_eq!(config["config"]["Cmd"], serde_json::json!(["run"]));
    assert_eq!(config["config"]["Env"], serde_json::json!(["PATH=/opt:/usr/bin:/bin"]));
    assert_eq!(config["rootfs"]["diff_ids"][2], built.diff_id.to_string());
    let steps = lab.store.history("localhost/new:1").unwrap();
    assert_eq!(
        (steps.len(), steps[0].created_by.as_str(), steps[0].comment.as_str()),
        (3, "sh -c x", "more")
    );
    let listed = lab.store.images().unwrap();
    let new = listed.iter().find(|image| image.id == built.id).unwrap();
    assert_eq!((new.labels["who"].as_str(), new.created), (Some("me"), Some(1_600_000_000)));
}

#[test]
fn privileged_the_same_files_give_the_same_bytes_whenever_they_were_written() {
    let (Some(first), Some(second)) = (Lab::new(), Lab::new()) else { return };
    let options =
        |compression| CommitOptions { compression, created: Some(1_650_000_000), ..CommitOptions::default() };
    let all = |lab: &Lab| {
        [Compression::Gzip, Compression::Zstd, Compression::None]
            .map(|compression| lab.commit(None, &options(compression)).unwrap())
    };
    first.run(change);
    second.run(|root| {
        change(root);
        set_time(&root.join("etc/only"), 1_900_000_000);
    });
    let built = all(&first);
    assert_eq!(built, all(&first));
    assert_eq!(built, all(&second));
    let mounted = first.mounted(&built[0].id.to_string());
    assert_eq!(mounted.at("etc/only").mtime, (1_650_000_000, 0));
    assert_eq!(mounted.at("usr/lib/y").mtime, (1_700_000_000, 0), "what is below stays as it is");
}

#[test]
fn privileged_a_container_that_changed_nothing_adds_a_layer() {
    let Some(lab) = Lab::new() else { return };
    let seen = lab.run(|_| {});
    let built = lab.commit(Some("same"), &CommitOptions::default()).unwrap();
    assert_eq!(lab.manifest(&built).layers.len(), 3);
    seen.assert_same(&lab.mounted("same"));
}

#[test]
fn privileged_without_a_base_the_directory_is_the_image() {
    let Some(lab) = Lab::new() else { return };
    std::fs::write(lab.at("upper/file"), "x").unwrap();
    let name = "alone".parse().unwrap();
    let options = CommitOptions { unpack: false, ..CommitOptions::default() };
    let built =
        lab.store.commit_tree(None, &lab.at("upper"), Some(&name), &options, &|| Ok(()), &|_| {}).unwrap();
    assert_eq!(lab.store.store.tree(&built.diff_id).unwrap(), None);
    assert_eq!(lab.store.store.blob(&built.layer).unwrap().unwrap().diff_id, Some(built.diff_id.clone()));
    Snapshot::of(lab.at("upper")).assert_same(&lab.mounted("alone"));
}

#[test]
fn privileged_a_name_moves_and_nothing_is_lost() {
    let Some(lab) = Lab::new() else { return };
    let first = lab.commit(Some("app:1"), &CommitOptions::default()).unwrap();
    std::fs::write(lab.at("upper/more"), "x").unwrap();
    let second = lab.commit(Some("app:1"), &CommitOptions::default()).unwrap();
    assert_eq!(lab.image("app:1").config, second.id);
    assert_ne!(first.id, second.id);
    // Without a name it is kept by its digest.
    let third = lab
        .commit(None, &CommitOptions { message: Some("x".to_owned()), ..CommitOptions::default() })
        .unwrap();
    assert_eq!(lab.image(&third.id.to_string()).config, third.id);
    let digest: Reference = format!("app@{}", first.manifest).parse().unwrap();
    let error = lab.store.commit_tree(
        None,
        &lab.at("upper"),
        Some(&digest),
        &CommitOptions::default(),
        &|| Ok(()),
        &|_| {},
    );
    assert!(matches!(error, Err(Error::DigestAsTag { .. })));
}

#[test]
fn privileged_docker_media_types_become_ocis_and_urls_stay() {
    let mut image = base_image();
    image.layers[0].media_type = "application/vnd.docker.image.rootfs.diff.tar.gzip".to_owned();
    // Says nothing about its compression.
    image.layers[1].media_type = "application/vnd.docker.image.rootfs.foreign.diff.tar".to_owned();
    let Some(lab) = Lab::with(&image) else { return };
    let built = lab.commit(None, &CommitOptions::default()).unwrap();
    let types: Vec<String> = lab.manifest(&built).layers.into_iter().map(|layer| layer.media_type).collect();
    assert_eq!(
        types,
        [
            "application/vnd.oci.image.layer.v1.tar+gzip",
            "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
            "application/vnd.oci.image.layer.v1.tar+gzip",
        ]
    );
    let windows = layerstore_oci::Descriptor {
        urls: vec!["https://example.com/layer".to_owned()],
        ..layerstore_oci::Descriptor::new(
            "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
            built.layer.clone(),
            7,
        )
    };
    let converted = lab.store.as_oci(windows.clone(), false).unwrap();
    assert_eq!(converted.media_type, "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip");
    assert_eq!((converted.urls, converted.size), (windows.urls, 7));
}

#[test]
fn privileged_a_base_that_has_lost_a_layer_is_named_before_work_begins() {
    let Some(lab) = Lab::new() else { return };
    let lost = base_image().layers[0].digest();
    std::fs::remove_file(lab.at("store/blobs/sha256").join(lost.strip_prefix("sha256:").unwrap())).unwrap();
    let before = lab.objects();
    let error = lab.commit(Some("x"), &CommitOptions::default()).unwrap_err();
    assert!(matches!(&error, Error::LostBlob { digest, .. } if digest.to_string() == lost), "{error}");
    assert_eq!(lab.objects(), before);
}

#[test]
fn privileged_a_commit_that_fails_leaves_nothing() {
    let Some(lab) = Lab::new() else { return };
    let before = lab.objects();
    std::fs::write(lab.at("upper/big"), vec![7; 3 << 20]).unwrap();
    let forbidden = lab.at("upper/.wh.name");
    std::fs::write(&forbidden, "").unwrap();
    for unpack in [true, false] {
        let error = lab.commit(Some("x"), &CommitOptions { unpack, ..CommitOptions::default() }).unwrap_err();
        assert!(matches!(&error, Error::Diff { .. }), "{error:?}");
        assert_eq!(error.kind(), layerstore_oci::ErrorKind::Unsupported);
        assert_eq!(lab.objects(), before);
    }
    std::fs::remove_file(forbidden).unwrap();
    let changes = vec![Change::parse("EXPOSE $NONE").unwrap()];
    let error = lab.commit(Some("x"), &CommitOptions { changes, ..CommitOptions::default() }).unwrap_err();
    assert!(matches!(error, Error::Change(_)));
    // The layer is in the store when this shows.
    let message = Some("x".repeat(5 << 20));
    let error = lab.commit(Some("x"), &CommitOptions { message, ..CommitOptions::default() });
    assert!(matches!(error, Err(Error::Document { .. })));
    let error = lab.commit(Some("x"), &CommitOptions { created: Some(i64::MAX), ..CommitOptions::default() });
    assert!(matches!(error, Err(Error::BadTime { .. })));
    assert!(lab.store.find("x").is_err());
    assert_eq!(lab.objects(), before);
}

#[test]
fn privileged_the_new_blob_is_read_only() {
    let Some(lab) = Lab::new() else { return };
    let built = lab.commit(None, &CommitOptions::default()).unwrap();
    let metadata = std::fs::metadata(lab.store.store.layout().blob(&built.layer)).unwrap();
    assert_eq!((metadata.mode() & 0o777, metadata.len()), (0o444, built.size));
}
