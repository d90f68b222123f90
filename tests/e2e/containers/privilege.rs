//! Those who may not mount.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::Path;
use std::process::Command;

use layerstore_testkit::image::{Image, Layout};
use layerstore_testkit::sandbox::{Run, Sandbox, binary};
use layerstore_testkit::tree::Snapshot;
use layerstore_testkit::user_namespace::UserNamespace;

use super::SMALL;
use crate::small_layer;

/// Nobody in particular.
const USER: u32 = 65_534;

/// A store that another user can make, with an archive that he can read.
fn with_user() -> Option<Sandbox> {
    let parent = Sandbox::new()?;
    let open = |mode| fs::set_permissions(parent.dir(), fs::Permissions::from_mode(mode)).unwrap();
    open(0o711);
    fs::create_dir(parent.root()).unwrap();
    chown(parent.root(), Some(USER), Some(USER)).unwrap();
    // He need not reach the place where it was built.
    fs::copy(binary(), parent.dir().join("layerstore")).unwrap();
    let image = Image::new([small_layer("base"), small_layer("top")]);
    parent.write("small.tar", &Layout::of(SMALL, &image).archive());
    Some(parent)
}

/// A command of that user, who has no privilege at all.
fn as_user(store: &Sandbox, args: &[&str]) -> Command {
    let own = store.command(args);
    let mut command = Command::new("setpriv");
    let id = USER.to_string();
    command.args(["--reuid", &id, "--regid", &id, "--clear-groups", "--no-new-privs"]);
    command.arg(store.dir().join("layerstore")).args(own.get_args());
    command.env_clear().envs(own.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.current_dir("/");
    command
}

#[test]
fn privileged_who_may_not_mount_is_told_how() {
    let Some(store) = with_user() else { return };
    let run = |args: &[&str]| Run::of(&mut as_user(&store, args), &[]);
    let archive = store.dir().join("small.tar");
    run(&["load", "-i", archive.to_str().unwrap()]).success();
    run(&["create", "--name", "work", SMALL]).success();
    let target = store.dir().join("target");
    fs::create_dir(&target).unwrap();
    chown(&target, Some(USER), Some(USER)).unwrap();
    for what in ["work", SMALL] {
        for place in [&[][..], &[target.to_str().unwrap()]] {
            let refused = run(&[&["mount", what], place].concat());
            let hints: Vec<_> = refused.stderr.lines().filter(|l| l.starts_with("hint: ")).collect();
            let hint =
                "hint: run it as root, or in a user namespace: `unshare --user --map-root-user --mount`";
            assert_eq!(hints, [hint], "{refused}");
            let sentence = refused.failure(1);
            assert!(sentence.contains("no privilege to mount at "), "{sentence}");
        }
    }
    assert_eq!(run(&["mount"]).success().stdout, "");
    assert_eq!(store.sql("SELECT count(*) FROM mount"), ["0"]);
    assert_eq!(store.names("mnt").len(), 0);
    // All that needs no mount works.
    assert_eq!(run(&["diff", "work"]).success().stdout, "");
    run(&["commit", "work", "localhost/new:1"]).success();
    run(&["export", "work", "-o", store.root().join("../store/archive").to_str().unwrap()]).success();
    run(&["rm", "work"]).success();
    assert_eq!(run(&["ps", "-aq"]).success().stdout, "");
}

#[test]
fn privileged_a_user_namespace_is_enough() {
    let Some(store) = with_user() else { return };
    let namespace = UserNamespace::new();
    let run = |args: &[&str]| Run::of(&mut namespace.enter(&store.command(args)), &[]);
    // Its root is this one, to whom the folder must belong.
    chown(store.root(), Some(0), Some(0)).unwrap();
    let archive = store.dir().join("small.tar");
    run(&["load", "-i", archive.to_str().unwrap()]).success();
    run(&["create", "--name", "work", SMALL]).success();
    let mounted = run(&["mount", "work"]).success().stdout;
    let place = mounted.trim_end();
    let root = namespace.outside(Path::new(place));
    // By its own path: a working directory would stay in the namespace of this process.
    let script = "cd $0 && echo x > new && rm top && mkdir top && echo y > top/file && chmod 600 base";
    let mut shell = Command::new("sh");
    shell.args(["-c", script, place]).env("PATH", "/usr/bin:/bin");
    Run::of(&mut namespace.enter(&shell), &[]).success();
    let changes = "C /base\nA /new\nC /top\nA /top/file\n";
    assert_eq!(run(&["diff", "work"]).success().stdout, changes);
    let expected = Snapshot::of(&root);
    assert_eq!(expected.at("top/file").size, 2);
    let sentence = run(&["rm", "work"]).failure(4);
    assert!(sentence.contains("container work is mounted at "), "{sentence}");
    // Another mount namespace does not see the mount, but knows of it.
    let elsewhere = store.run(["umount", "work"]);
    assert_ne!(elsewhere.code, 0, "{elsewhere}");
    run(&["commit", "work", "localhost/new:1"]).success();
    run(&["umount", "work"]).success();
    assert_eq!(run(&["diff", "work"]).success().stdout, changes);
    let image = run(&["mount", "localhost/new:1"]).success().stdout;
    let image = namespace.outside(Path::new(image.trim_end()));
    expected.assert_same(&Snapshot::of(image));
    run(&["umount", "--all"]).success();
    run(&["rm", "work"]).success();
    run(&["rmi", SMALL, "localhost/new:1"]).success();
    run(&["gc"]).success();
    assert_eq!(store.names_of_trees(), 0);
}
