//! What a container, or the image that it comes from, does to be in the way.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use layerstore_testkit::image::{Image, Layout};
use layerstore_testkit::layer::LayerBuilder;
use layerstore_testkit::sandbox::{Run, Sandbox};
use serde_json::Value;

use super::{SMALL, mount, refused, umount, with_small};

/// Where what a container has written lies.
fn upper(store: &Sandbox, container: &str) -> PathBuf {
    let query = format!(
        "SELECT tree FROM snapshot JOIN container ON container.id = key WHERE container.name = '{container}'"
    );
    let tree = store.sql(&query).remove(0);
    store.root().join("overlay2").join(tree).join("diff")
}

/// An archive may hold the secrets of a container.
#[test]
fn privileged_files_that_are_written_are_their_owner_s() {
    let Some(store) = with_small() else { return };
    store.ok(["create", "--name", "work", SMALL]);
    for (args, name) in [(["save", "-o"], "saved.tar"), (["export", "-o"], "exported.tar")] {
        let path = store.dir().join(name);
        let what = if args[0] == "save" { SMALL } else { "work" };
        store.ok([args[0], args[1], path.to_str().unwrap(), what]);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600, "{name}");
        // A file that was there keeps nothing of its own.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        store.ok([args[0], args[1], path.to_str().unwrap(), what]);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600, "{name} again");
    }
}

#[test]
fn privileged_a_home_that_no_terminal_should_see_is_not_used() {
    let Some(store) = Sandbox::new() else { return };
    let accounts = "root:x:0:0:root:/ro\x1b[2Jot:/bin/sh\nplain:x:5:5::/home/plain:/bin/sh\n";
    let layer = LayerBuilder::gzip().dir("etc/").file("etc/passwd", accounts).finish();
    store.load_bytes(&Layout::of(SMALL, &Image::new([layer])).archive());
    let home = |user: &str| {
        let dir = store.dir().join(user);
        store.ok(["bundle", "-u", user, SMALL, dir.to_str().unwrap(), "true"]);
        let config: Value = serde_json::from_slice(&fs::read(dir.join("config.json")).unwrap()).unwrap();
        let text = config.to_string();
        assert!(!text.contains("[2J"), "{text}");
        let variables = config["process"]["env"].as_array().unwrap();
        let mut homes =
            variables.iter().filter_map(|v| v.as_str().unwrap().strip_prefix("HOME=").map(str::to_owned));
        homes.next()
    };
    assert_eq!(home("root").as_deref(), Some("/"));
    assert_eq!(home("plain").as_deref(), Some("/home/plain"));
}

/// The namespace's root must be able to pass, and nobody else.
#[test]
fn privileged_a_bundle_with_a_map_is_open_to_its_group_alone() {
    let Some(store) = with_small() else { return };
    let dir = store.dir().join("mapped");
    let map = ["--uidmap", "0:100000:65536"];
    store.ok([&["bundle"], &map[..], &[SMALL, dir.to_str().unwrap(), "true"]].concat());
    let meta = fs::metadata(&dir).unwrap();
    assert_eq!((meta.mode() & 0o7777, meta.uid(), meta.gid()), (0o710, 0, 100_000));
}

#[test]
fn privileged_a_link_in_the_place_of_a_container_s_files_is_not_followed() {
    let Some(store) = with_small() else { return };
    for name in ["linked", "whole"] {
        store.ok(["create", "--name", name, SMALL]);
        let root = mount(&store, name);
        fs::write(root.join("written"), "x").unwrap();
        umount(&store, name);
    }
    let outside = store.dir().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("secret"), "do not read").unwrap();
    let place = upper(&store, "linked");
    fs::remove_dir_all(&place).unwrap();
    symlink(&outside, &place).unwrap();

    let sizes = store.ok(["ps", "-as", "--format", "{{.Names}} {{.Size}}"]);
    let size = |name: &str| sizes.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim();
    assert_eq!(size("linked"), "N/A");
    assert_ne!(size("whole"), "N/A");
    let out = store.dir().join("out.tar").to_str().unwrap().to_owned();
    for line in
        [&["diff", "linked"][..], &["export", "-o", &out, "linked"], &["commit", "linked", "localhost/c:1"]]
    {
        refused(&store, line, 5, "linked");
        assert!(!Path::new(&out).exists(), "{line:?}");
    }
    store.ok(["rm", "linked", "whole"]);
    assert_eq!(fs::read_to_string(outside.join("secret")).unwrap(), "do not read");
    store.assert_no_leftovers();
}

/// With attributes that keep even root from deleting them; a container with `CAP_LINUX_IMMUTABLE` can set them.
#[test]
fn privileged_what_is_immutable_stops_neither_rm_nor_gc() {
    let Some(store) = with_small() else { return };
    let lock = |path: &Path| {
        let status = Command::new("chattr").args(["-R", "+i"]).arg(path).status().unwrap();
        assert!(status.success(), "chattr {}", path.display());
    };
    store.ok(["create", "--name", "work", SMALL]);
    let root = mount(&store, "work");
    fs::create_dir_all(root.join("deep/er")).unwrap();
    fs::write(root.join("deep/er/file"), "x").unwrap();
    fs::write(root.join("file"), "x").unwrap();
    umount(&store, "work");
    let files = upper(&store, "work");
    for name in ["deep", "file"] {
        lock(&files.join(name));
    }
    store.ok(["rm", "work"]);
    store.ok(["gc"]);
    store.assert_no_leftovers();

    // The same in the trash, where nobody has a row any more.
    let junk = store.root().join("trash/junk");
    fs::create_dir_all(junk.join("deep")).unwrap();
    fs::write(junk.join("deep/file"), "x").unwrap();
    lock(&junk);
    store.ok(["gc"]);
    store.assert_no_leftovers();
}

/// As Docker's API writes names.
#[test]
fn privileged_a_name_may_have_a_slash_before_it() {
    let Some(store) = with_small() else { return };
    store.ok(["create", "--name", "work", SMALL]);
    let run: Run = store.run(["rm", "/work"]).success();
    assert_eq!(store.ok(["ps", "-aq"]), "", "{run}");
    store.assert_no_leftovers();
}
