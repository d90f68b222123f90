//! Bundles of a real image, run by runc and crun as they are.

use std::fs;
use std::path::{Path, PathBuf};

use layerstore_testkit::require;
use layerstore_testkit::runtime::Runtime;
use layerstore_testkit::sandbox::Sandbox;
use layerstore_testkit::tree::Snapshot;

use super::{APP, diff, refused, with_app};

const NUMPY: [&str; 3] = ["python3", "-c", "import numpy; print(numpy.__version__)"];

/// Makes a bundle of `app`, and returns its directory.
#[track_caller]
fn bundle(store: &Sandbox, name: &str, options: &[&str], args: &[&str]) -> PathBuf {
    let dir = store.dir().join(name);
    let place = ["bundle", "--name", name];
    let id = store.ok([&place[..], options, &[APP, dir.to_str().unwrap()], args].concat());
    assert_eq!(id, store.ok(["ps", "--no-trunc", "-q", "--filter", &format!("name={name}")]));
    dir
}

/// What the container prints, which has nothing to complain about.
#[track_caller]
fn run(runtime: Runtime, bundle: &Path) -> String {
    let run = runtime.run(bundle).success();
    assert_eq!(run.stderr, "", "{}", runtime.name());
    run.stdout
}

/// No container, nothing mounted, no row.
#[track_caller]
fn assert_nothing_left(store: &Sandbox) {
    assert_eq!(store.ok(["ps", "-aq"]), "");
    assert_eq!(store.ok(["mount"]), "");
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(store.dir().to_str().unwrap()), "{mounts}");
    for table in ["container", "mount", "mount_tree", "lease"] {
        assert_eq!(store.sql(&format!("SELECT count(*) FROM {table}")), ["0"], "{table}");
    }
    assert_eq!(store.sql("SELECT count(*) FROM snapshot WHERE kind <> 'committed'"), ["0"]);
    store.assert_no_leftovers();
    store.assert_nothing_to_collect();
}

#[test]
fn privileged_bundles_of_a_real_image_run() {
    if !require::runtimes() {
        return;
    }
    let Some(store) = with_app() else { return };
    for runtime in Runtime::ALL {
        the_image_s_program(&store, runtime);
        a_named_user_who_writes(&store, runtime);
    }
    what_fails_leaves_nothing(&store);
}

fn the_image_s_program(store: &Sandbox, runtime: Runtime) {
    let dir = bundle(store, "numpy", &[], &NUMPY);
    let version = run(runtime, &dir);
    let numbers: Vec<_> = version.trim_end().split('.').collect();
    assert!(numbers.len() > 1 && numbers.iter().all(|n| n.parse::<u32>().is_ok()), "{version}");
    assert_eq!(diff(store, "numpy"), [""; 0], "{}: nothing was written", runtime.name());
    store.ok(["rm", "-f", "numpy"]);
    assert_nothing_left(store);
    assert_eq!(fs::read_dir(dir.join("rootfs")).unwrap().count(), 0);
    // The bundle is the caller's.
    fs::remove_dir_all(dir).unwrap();
}

fn a_named_user_who_writes(store: &Sandbox, runtime: Runtime) {
    let script = "id -un; umask 022; echo text > /var/tmp/of-user; rm /var/tmp/none 2>/dev/null || echo no";
    let dir = bundle(store, "user", &["-u", "www-data"], &["sh", "-c", script]);
    assert_eq!(run(runtime, &dir), "www-data\nno\n");
    let written = ["C /var", "C /var/tmp", "A /var/tmp/of-user"];
    assert_eq!(diff(store, "user"), written, "{}", runtime.name());
    let tree = Snapshot::of(dir.join("rootfs/var/tmp"));
    let file = tree.at("of-user");
    assert_eq!((file.uid, file.gid, file.mode, file.size), (33, 33, 0o644, 5));

    let rootfs = dir.join("rootfs");
    let hint =
        refused(store, &["rm", "user"], 4, &format!("container user is mounted at {}", rootfs.display()));
    assert!(hint.contains("`layerstore umount user` first"), "{hint}");
    // What was written stays when it is unmounted, and a second run finds it.
    let target = rootfs.to_str().unwrap();
    store.umount(&rootfs);
    assert_eq!(diff(store, "user"), written);
    assert_eq!(Path::new(store.ok(["mount", "user", target]).trim_end()), rootfs);
    assert_eq!(run(runtime, &dir), "www-data\nno\n");
    assert_eq!(store.ok(["rm", "-f", "user"]), "user\n");
    assert_nothing_left(store);
    fs::remove_dir_all(dir).unwrap();
}

fn what_fails_leaves_nothing(store: &Sandbox) {
    let there = |name: &str| store.dir().join(name).display().to_string();
    let full = there("full");
    fs::create_dir(&full).unwrap();
    fs::write(store.dir().join("full/file"), "mine").unwrap();
    let file = store.write("file", b"").display().to_string();
    let new = there("new");
    let cases: [(&[&str], i32, &str); 9] = [
        (&["-u", "nobody-knows", APP, &new, "true"], 3, "there is no user `nobody-knows` in /etc/passwd"),
        (
            &["-u", "root:nobody-knows", APP, &new, "true"],
            3,
            "there is no group `nobody-knows` in /etc/group",
        ),
        (&[APP, &full, "true"], 4, "full exists already and is not an empty directory"),
        (&[APP, &file, "true"], 4, "file exists already and is not an empty directory"),
        (&[APP, &there("no/such/parent"), "true"], 3, "No such file or directory"),
        (&[APP, &new], 1, "there is nothing to run"),
        (&["-w", "relative", APP, &new, "true"], 1, "`relative` is not an absolute path"),
        (&["localhost/none:1", &new, "true"], 3, "no such image: localhost/none:1"),
        (&["--name", "-", APP, &new, "true"], 1, "`-` cannot be the name of a container"),
    ];
    for (args, code, sentence) in cases {
        refused(store, &[&["bundle"], args].concat(), code, sentence);
        assert!(!Path::new(&new).exists(), "{args:?}");
        assert_nothing_left(store);
    }
    assert_eq!(fs::read_dir(&full).unwrap().count(), 1);
    store.ok(["create", "--name", "taken", APP]);
    refused(
        store,
        &["bundle", "--name", "taken", APP, &new, "true"],
        4,
        "the name `taken` is taken by container",
    );
    assert!(!Path::new(&new).exists());
    // An empty directory is as good as none, also after a failure.
    fs::create_dir(&new).unwrap();
    refused(store, &["bundle", "-u", "nobody-knows", APP, &new, "true"], 3, "there is no user");
    assert_eq!(fs::read_dir(&new).unwrap().count(), 0);
    store.ok(["bundle", "--name", "at-last", APP, &new, "true"]);
    assert_eq!(run(Runtime::Crun, Path::new(&new)), "");
    store.ok(["rm", "-f", "at-last", "taken"]);
    assert_nothing_left(store);
}
