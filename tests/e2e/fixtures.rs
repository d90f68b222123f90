//! The fixtures that ship with the project.

use std::fs;

use layerstore_testkit::sandbox::Sandbox;
use layerstore_testkit::{digest, hex_of, require};

#[test]
fn checksums_match() {
    let dir = require::workspace().join("fixtures/busybox");
    let sums = fs::read_to_string(dir.join("SHA256SUMS")).unwrap();
    for line in sums.lines() {
        let (sum, name) = line.split_once("  ").unwrap();
        assert_eq!(hex_of(&digest(&fs::read(dir.join(name)).unwrap())), sum, "{name}");
    }
    assert_eq!(sums.lines().count(), 1);
}

#[test]
fn privileged_busybox_runs_from_its_mounted_image() {
    let Some(store) = Sandbox::new() else { return };
    let run = store.load(require::workspace().join("fixtures/busybox/busybox.oci.tar"));
    assert_eq!(run.loaded(), ["busybox:1.35"]);
    let root = store.mount("busybox:1.35");
    let out = std::process::Command::new("chroot")
        .arg(&root)
        .args(["/bin/sh", "-c", "echo hello"])
        .output()
        .unwrap();
    assert_eq!(String::from_utf8(out.stdout).unwrap(), "hello\n");
    store.umount(&root);
    assert_eq!(fs::read_dir(&root).unwrap().count(), 0, "nothing is mounted any more");
}
