//! Users of images whose lists of users are not what they seem: what counts is in the image, or nothing.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::fs;
use std::path::{Path, PathBuf};

use layerstore::oci::ErrorKind;
use layerstore::{BundleOptions, Error, Layerstore, LoadOptions, RuntimeConfig, Source};
use layerstore_testkit::image::{Image, Layout};
use layerstore_testkit::layer::{Entry, EntryType, LayerBuilder};
use layerstore_testkit::require;

const USERS: &str = "tester:x:7:8::/home:\n";

/// Looks up `tester` in an image of these layers.
fn tester(dir: &Path, layers: Vec<LayerBuilder>) -> Result<RuntimeConfig, Error> {
    let image = Image::new(layers.into_iter().map(LayerBuilder::finish));
    let archive = dir.join("archive.tar");
    fs::write(&archive, Layout::of("test:1", &image).archive()).unwrap();
    let store = Layerstore::open(&dir.join("store")).unwrap();
    store.load(Source::Path(archive), &LoadOptions::default(), &|_| {}).unwrap();
    let options =
        BundleOptions { user: Some("tester".into()), args: vec!["true".into()], ..BundleOptions::default() };
    store.runtime_config(&image.id(), &options, &|_| {})
}

#[track_caller]
fn assert_found(found: &Result<RuntimeConfig, Error>) {
    assert_eq!(found.as_ref().unwrap().json["process"]["user"]["uid"], 7);
}

#[track_caller]
fn assert_unknown(found: Result<RuntimeConfig, Error>) {
    let error = found.unwrap_err();
    assert_eq!(error.to_string(), "there is no user `tester` in /etc/passwd of the image");
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

fn directory() -> Option<tempfile::TempDir> {
    if !require::root() {
        return None;
    }
    let parent = std::env::var_os("LAYERSTORE_TEST_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
    Some(tempfile::Builder::new().prefix("layerstore-test-").tempdir_in(parent).unwrap())
}

#[test]
fn privileged_links_to_the_list_stay_in_the_image() {
    let Some(dir) = directory() else { return };
    // A list of the machine's that has the user.
    let outside = dir.path().join("passwd");
    fs::write(&outside, USERS).unwrap();
    let etc = || LayerBuilder::gzip().dir("etc/");
    assert_unknown(tester(dir.path(), vec![etc().symlink("etc/passwd", outside.to_str().unwrap())]));
    let up = format!("{}{}", "../".repeat(20), outside.to_str().unwrap().trim_start_matches('/'));
    assert_unknown(tester(dir.path(), vec![etc().symlink("etc/passwd", &up)]));
    assert_unknown(tester(
        dir.path(),
        vec![LayerBuilder::gzip().symlink("etc", dir.path().to_str().unwrap())],
    ));
    // `/proc` of an image is empty, whatever is mounted there on the machine.
    assert_unknown(tester(dir.path(), vec![etc().symlink("etc/passwd", "/proc/self/cwd/passwd")]));
    assert_unknown(tester(dir.path(), vec![etc().symlink("etc/passwd", "passwd")]));

    let users = || LayerBuilder::gzip().dir("usr/").dir("usr/lib/").file("usr/lib/passwd", USERS);
    for target in ["/usr/lib/passwd", "../usr/lib/passwd", "../../../usr/lib/passwd"] {
        assert_found(&tester(dir.path(), vec![users(), etc().symlink("etc/passwd", target)]));
    }
}

#[test]
fn privileged_the_topmost_layer_has_the_list() {
    let Some(dir) = directory() else { return };
    let of = |list: &str| LayerBuilder::gzip().dir("etc/").file("etc/passwd", list);
    assert_found(&tester(dir.path(), vec![of(""), of(USERS)]));
    assert_unknown(tester(dir.path(), vec![of(USERS), of("")]));
    assert_unknown(tester(dir.path(), vec![of(USERS), LayerBuilder::gzip().whiteout("etc/passwd")]));
    assert_unknown(tester(dir.path(), vec![of(USERS), LayerBuilder::gzip().dir("etc/").opaque("etc")]));
}

#[test]
fn privileged_what_is_no_file_is_not_read() {
    let Some(dir) = directory() else { return };
    let etc = || LayerBuilder::gzip().dir("etc/");
    let layers = [
        (etc().entry(Entry::new(EntryType::Fifo, "etc/passwd")), "not a regular file"),
        (etc().entry(Entry::device("etc/passwd", 1, 5)), "not a regular file"),
        (
            etc().entry(Entry::new(EntryType::Fifo, "pipe")).symlink("etc/passwd", "/pipe"),
            "not a regular file",
        ),
        (etc().dir("etc/passwd/"), "a directory"),
    ];
    for (layer, what) in layers {
        let error = tester(dir.path(), vec![layer]).unwrap_err();
        assert!(error.to_string().ends_with(&format!("is {what}")), "{error}");
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    }
}
