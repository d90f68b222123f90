//! What is refused: with an exit code, a sentence, and a store that stays as it was.

use std::fs;

use layerstore_testkit::sandbox::Sandbox;

use super::{SMALL, mount, refused, umount, with_small};

/// A store with the containers `one` and `two`.
fn with_containers() -> Option<Sandbox> {
    let store = with_small()?;
    for name in ["one", "two"] {
        store.ok(["create", "--name", name, SMALL]);
    }
    Some(store)
}

#[test]
fn privileged_a_container_that_there_is_not() {
    let Some(store) = with_containers() else { return };
    let sentence = "no such container: three";
    for args in [
        &["rm", "three"][..],
        &["diff", "three"],
        &["commit", "three", "a:1"],
        &["export", "three"],
        &["rename", "three", "four"],
    ] {
        let hint = refused(&store, args, 3, sentence);
        assert_eq!(hint, "`layerstore ps -a` lists what there is");
    }
    for args in [["mount", "three"], ["umount", "three"]] {
        let hint = refused(&store, &args, 3, "no such container or image: three");
        assert_eq!(hint, "`layerstore ps -a` and `layerstore images` list what there is");
    }
    refused(&store, &["create", "three"], 3, "no such image: three");
    let forced = store.run(["rm", "-f", "three"]).success();
    assert!(forced.stderr.contains(sentence), "{forced}");
    // The others of a list are removed all the same.
    let run = store.run(["rm", "three", "one", "four"]);
    assert_eq!((run.code, run.stdout.as_str()), (3, "one\n"));
    assert_eq!(run.stderr.matches("error: no such container").count(), 2, "{run}");
    let out = store.dir().join("archive");
    refused(&store, &["export", "-o", out.to_str().unwrap(), "three"], 3, sentence);
    assert!(!out.exists());
}

#[test]
fn privileged_names_that_cannot_be_given() {
    let Some(store) = with_containers() else { return };
    let taken = "the name `two` is taken by container";
    let hint = refused(&store, &["create", "--name", "two", SMALL], 4, taken);
    assert!(hint.contains("choose another, or `layerstore rm two` first"), "{hint}");
    refused(&store, &["rename", "one", "two"], 4, taken);
    let long = "a".repeat(300);
    for name in ["", "a", "-a", ".a", "a/b", "a b", "a:b", "a\u{e4}", "a\nb", "..", &long] {
        let option = format!("--name={name}");
        refused(&store, &["create", &option, SMALL], 1, "cannot be the name of a container");
        if !name.starts_with('-') {
            refused(&store, &["rename", "one", name], 1, "cannot be the name of a container");
        }
    }
}

#[test]
fn privileged_what_is_mounted_is_not_mounted_again() {
    let Some(store) = with_containers() else { return };
    let one = mount(&store, "one");
    assert_eq!(mount(&store, "one"), one, "its own place, where it is");
    let other = store.dir().join("other");
    fs::create_dir(&other).unwrap();
    let mounted = format!("container one is mounted at {}", one.display());
    let hint = refused(&store, &["mount", "one", other.to_str().unwrap()], 4, &mounted);
    assert_eq!(hint, "`layerstore umount one` first", "nobody who mounts wants to hear of --force");
    let hint = refused(&store, &["rm", "one"], 4, &mounted);
    assert_eq!(hint, "`layerstore umount one` first\n--force unmounts it before it removes it");
    // Where something else is mounted.
    store.ok(["mount", "two", other.to_str().unwrap()]);
    umount(&store, "one");
    let point = format!("{} is already a mount point", other.display());
    refused(&store, &["mount", "one", other.to_str().unwrap()], 4, &point);
    refused(&store, &["mount", SMALL, other.to_str().unwrap()], 4, &point);
    umount(&store, "two");
    refused(&store, &["umount", "two"], 3, "not mounted: two");
    refused(&store, &["umount", other.to_str().unwrap()], 3, &format!("not mounted: {}", other.display()));
}

#[test]
fn privileged_a_busy_container_stays_mounted() {
    let Some(store) = with_containers() else { return };
    let one = mount(&store, "one");
    let open = fs::File::create(one.join("open")).unwrap();
    for args in [&["umount", "one"][..], &["rm", "-f", "one"], &["umount", "--all"]] {
        refused(&store, args, 4, "busy");
    }
    drop(open);
    store.ok(["diff", "one"]);
    layerstore_testkit::sandbox::until_free(|| store.run(["rm", "-f", "one"])).success();
}

#[test]
fn privileged_targets_that_are_no_place_to_mount() {
    let Some(store) = with_containers() else { return };
    let file = store.write("file", b"mine");
    let link = store.dir().join("link");
    std::os::unix::fs::symlink(store.root().join("mnt"), &link).unwrap();
    let path = |path: &std::path::Path| path.display().to_string();
    let cases = [
        (path(&file), 1, "file is not a directory"),
        (path(&store.dir().join("none")), 3, "No such file or directory"),
        (path(&store.root().join("mnt")), 1, "is part of the store"),
        (path(&link), 1, "is part of the store"),
        (path(store.root()), 1, "is part of the store"),
        (path(store.dir()), 1, "or around it"),
    ];
    for (target, code, sentence) in &cases {
        for what in ["one", SMALL] {
            refused(&store, &["mount", what, target], *code, sentence);
        }
    }
    assert_eq!(fs::read(file).unwrap(), b"mine");
}

#[test]
fn privileged_options_that_make_no_sense() {
    let Some(store) = with_small() else { return };
    let cases: [(&[&str], &str); 8] = [
        (&["--storage-opt", "size"], "size"),
        (&["--storage-opt", "size=much"], "much"),
        (&["--storage-opt", "size=-1"], "-1"),
        (&["--storage-opt", "colour=1M"], "there are `size` and `inodes`"),
        (&["--uidmap", "0:0"], "`0:0` is not CONTAINER:HOST:COUNT"),
        (&["--uidmap", "0:0:0"], "0:0:0"),
        (&["--uidmap", "0:100:10", "--uidmap", "5:200:10"], "overlap"),
        (&["--gidmap", "0:4294967295:2"], "4294967295"),
    ];
    for (options, part) in cases {
        let run = store.run([&["create"], options, &[SMALL]].concat());
        assert!(run.code == 2 && run.stderr.contains(part), "{run}");
    }
    assert_eq!(store.ok(["ps", "-aq"]), "");
    store.assert_nothing_to_collect();
}

/// A limit that nobody keeps would be worse than none.
#[test]
fn privileged_a_quota_where_the_filesystem_keeps_none() {
    let disk = layerstore_testkit::require::root().then(|| layerstore_testkit::disk::Disk::ext4(64));
    let Some(disk) = disk else { return };
    let Some(store) = Sandbox::at(&disk.path().join("store")) else { return };
    let layout = layerstore_testkit::image::Layout::of(SMALL, &crate::varied_image());
    store.load_bytes(&layout.archive());
    for option in ["size=1M", "inodes=100", "size=1M,inodes=100"] {
        refused(&store, &["create", "--storage-opt", option, SMALL], 1, "a quota is not possible: the ext4");
    }
    store.assert_no_leftovers();
}
