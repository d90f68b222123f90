//! Who must not mount is told how to.

use std::fs;
use std::process::Command;

use layerstore_testkit::image::{Image, Layout};
use layerstore_testkit::layer::LayerBuilder;
use layerstore_testkit::sandbox::{Run, Sandbox};

#[test]
fn privileged_without_the_privilege_to_mount_there_is_a_hint_and_no_mount() {
    let Some(store) = Sandbox::new() else { return };
    let image = Image::new([LayerBuilder::gzip().file("f", "x").finish()]);
    let archive = store.write("a.tar", &Layout::of("localhost/a:1", &image).archive());
    // Somebody else's privileges would be refused before.
    let run = |arguments: &[&str]| {
        let inside = store.command(arguments);
        let mut command = Command::new("setpriv");
        command.args(["--bounding-set", "-sys_admin"]).arg(inside.get_program()).args(inside.get_args());
        Run::of(&mut command, &[])
    };
    run(&["load", "-i", archive.to_str().unwrap()]).success();
    let run = run(&["mount", "localhost/a:1"]);
    assert_eq!(run.code, 1, "{run}");
    assert!(run.stderr.contains("no privilege to mount at"), "{run}");
    assert!(run.stderr.contains("unshare --user") && !run.stderr.contains("this needs root"), "{run}");
    assert_eq!(store.sql("SELECT count(*) FROM mount"), ["0"]);
    assert_eq!(fs::read_dir(store.root().join("mnt")).unwrap().count(), 0);
}
