use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};

use layerstore_oci::ErrorKind;
use serde_json::json;

use super::*;
use crate::bundle::VolumeDirectory;

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
}

fn config(volumes: &[&str]) -> RuntimeConfig {
    let volumes = volumes
        .iter()
        .map(|name| VolumeDirectory {
            parent: "volumes".into(),
            name: (*name).to_owned(),
            destination: format!("/{name}"),
        })
        .collect();
    RuntimeConfig { json: json!({ "a": 1 }), volumes, notes: Vec::new() }
}

fn names(path: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[track_caller]
fn refused(path: &Path) {
    let error = BundleDirectory::create(path, None).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    assert!(error.to_string().ends_with("exists already and is not an empty directory"), "{error}");
}

#[test]
fn a_committed_bundle_stays() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bundle");
    let mut bundle = BundleDirectory::create(&path, None).unwrap();
    assert_eq!(bundle.rootfs(), path.join("rootfs"));
    bundle.make_volumes(&config(&["data", "a%2Fb"])).unwrap();
    bundle.write_config(&config(&[])).unwrap();
    bundle.write_config(&config(&[])).unwrap();
    assert_eq!(bundle.commit(), path);
    assert_eq!(names(&path), ["config.json", "rootfs", "volumes"]);
    assert_eq!(names(&path.join("volumes")), ["a%2Fb", "data"]);
    assert_eq!(fs::read_to_string(path.join("config.json")).unwrap(), "{\n  \"a\": 1\n}\n");
    assert_eq!(mode(&path), 0o700);
    assert_eq!(mode(&path.join("config.json")), 0o644);
    assert_eq!(mode(&path.join("volumes/data")), 0o1777);
    refused(&path);
    assert_eq!(names(&path), ["config.json", "rootfs", "volumes"]);
}

#[test]
fn a_bundle_that_is_given_up_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bundle");
    let make = || {
        let mut bundle = BundleDirectory::create(&path, Some(1000)).unwrap();
        bundle.make_volumes(&config(&["data"])).unwrap();
        bundle.write_config(&config(&[])).unwrap();
        bundle
    };
    let bundle = make();
    assert_eq!(mode(&path), 0o710);
    drop(bundle);
    assert!(!path.exists());

    // An empty directory of the caller's is empty again.
    fs::create_dir(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o750)).unwrap();
    drop(make());
    assert_eq!(names(&path), [""; 0]);
    assert_eq!(mode(&path), 0o750);
}

#[test]
fn only_what_was_made_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bundle");
    let mut bundle = BundleDirectory::create(&path, None).unwrap();
    bundle.make_volumes(&config(&["data", "old"])).unwrap();
    bundle.write_config(&config(&[])).unwrap();
    fs::write(path.join("rootfs/file"), "of somebody").unwrap();
    fs::write(path.join("volumes/data/file"), "of somebody").unwrap();
    drop(bundle);
    assert_eq!(names(&path), ["rootfs", "volumes"]);
    assert_eq!(names(&path.join("volumes")), ["data"]);
    assert_eq!(names(&path.join("rootfs")), ["file"]);
}

#[test]
fn what_exists_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    fs::write(path.join("file"), "").unwrap();
    refused(path);
    refused(&path.join("file"));
    symlink("nowhere", path.join("dangling")).unwrap();
    symlink("file", path.join("link-to-file")).unwrap();
    refused(&path.join("link-to-file"));
    refused(&path.join("link-to-file/.."));
    refused(Path::new("/"));
    assert_eq!(names(path), ["dangling", "file", "link-to-file"]);
    let error = BundleDirectory::create(&path.join("absent/bundle"), None).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(BundleDirectory::create(&path.join("dangling"), None).is_err());
    assert!(BundleDirectory::create(&path.join("file/bundle"), None).is_err());
}

#[test]
fn volumes_that_exist_are_used() {
    let dir = tempfile::tempdir().unwrap();
    let lasting = dir.path().join("lasting");
    fs::create_dir_all(lasting.join("data")).unwrap();
    fs::write(lasting.join("data/file"), "").unwrap();
    symlink("data", lasting.join("link")).unwrap();
    let in_lasting = |names: &[&str]| {
        let mut config = config(names);
        config.volumes.iter_mut().for_each(|volume| volume.parent.clone_from(&lasting));
        config
    };
    let mut bundle = BundleDirectory::create(&dir.path().join("bundle"), None).unwrap();
    bundle.make_volumes(&in_lasting(&["data", "new"])).unwrap();
    assert_eq!(names(&lasting), ["data", "link", "new"]);
    let error = bundle.make_volumes(&in_lasting(&["link"])).unwrap_err();
    assert!(error.to_string().ends_with("link is not a directory"), "{error}");
    drop(bundle);
    assert_eq!(names(&lasting), ["data", "link"]);
    assert_eq!(names(&lasting.join("data")), ["file"]);
}

#[test]
fn a_config_that_cannot_be_written_leaves_no_part_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bundle");
    let mut bundle = BundleDirectory::create(&path, None).unwrap();
    fs::create_dir(path.join("config.json")).unwrap();
    let error = bundle.write_config(&config(&[])).unwrap_err();
    assert!(error.to_string().contains("config.json"), "{error}");
    assert_eq!(names(&path), ["config.json", "rootfs"]);
    drop(bundle);
    assert_eq!(names(&path), ["config.json"]);
}
