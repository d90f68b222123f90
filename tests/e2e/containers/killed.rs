//! `kill -9` at any moment of what is done with containers.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use layerstore_testkit::hex_of;
use layerstore_testkit::image::{Image, Layout};
use layerstore_testkit::layer::LayerBuilder;
use layerstore_testkit::require;
use layerstore_testkit::sandbox::Sandbox;

const NAME: &str = "localhost/many:1";

/// How often each command is killed.
const POINTS: u32 = 24;

/// An image with so many files that work on a container of it takes a while.
fn with_many() -> Option<Sandbox> {
    let store = Sandbox::new()?;
    let layer = |l: u32| {
        (0..500).fold(LayerBuilder::gzip(), |b, f| b.file(format!("f{l}-{f}"), "text ".repeat(200))).finish()
    };
    store.load_bytes(&Layout::of(NAME, &Image::new((0..4).map(layer))).archive());
    Some(store)
}

/// Makes a container with 200 files of its own and some of the image's deleted.
fn changed(store: &Sandbox, name: &str) {
    store.ok(["create", "--name", name, NAME]);
    let root = super::mount(store, name);
    for file in 0..200 {
        fs::write(root.join(format!("new-{file}")), "content ".repeat(50)).unwrap();
        fs::remove_file(root.join(format!("f0-{file}"))).unwrap();
    }
    super::umount(store, name);
}

/// Starts a command and kills it after `delay`. Returns whether it was still running.
fn kill(store: &Sandbox, args: &[&str], delay: Duration) -> bool {
    let mut command = store.command(args);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    std::thread::sleep(delay);
    let running = child.try_wait().unwrap().is_none();
    child.kill().unwrap();
    child.wait().unwrap();
    running
}

/// What the database names is there, and each container has all that it needs.
#[track_caller]
fn assert_nothing_half_done(store: &Sandbox) {
    let trees = store.names("overlay2");
    for id in store.sql("SELECT id FROM tree") {
        assert!(trees.contains(&id), "the database names a tree `{id}` that is not there");
    }
    for digest in store.sql("SELECT digest FROM blob") {
        let bytes = fs::read(store.root().join("blobs/sha256").join(hex_of(&digest))).unwrap();
        assert_eq!(layerstore_testkit::digest(&bytes), digest, "a blob that is not whole");
    }
    let keys: BTreeSet<_> = store.sql("SELECT key FROM snapshot WHERE kind = 'active'").into_iter().collect();
    let containers: BTreeSet<_> = store.sql("SELECT id FROM container").into_iter().collect();
    assert_eq!(keys, containers, "snapshots (left) and containers (right)");
    assert_eq!(store.sql("PRAGMA integrity_check"), ["ok"]);
    assert_eq!(store.sql("SELECT count(*) FROM pragma_foreign_key_check"), ["0"]);
}

/// What the kills have left goes with a collection.
#[track_caller]
fn assert_clean(store: &Sandbox) {
    store.ok(["gc"]);
    store.assert_no_leftovers();
    store.assert_nothing_to_collect();
    assert_eq!(store.sql("SELECT count(*) FROM lease"), ["0"]);
}

/// Kills the command that `args` gives for each point, after a part of the time that `whole` takes.
fn kill_at_all_points(
    store: &Sandbox,
    whole: &[&str],
    args: impl Fn(u32) -> Vec<String>,
    then: impl Fn(u32),
) {
    let start = Instant::now();
    store.ok(whole);
    let time = start.elapsed();
    let mut killed = 0;
    for point in 0..POINTS {
        let args = args(point);
        let args: Vec<_> = args.iter().map(String::as_str).collect();
        killed += u32::from(kill(store, &args, time * point / POINTS));
        assert_nothing_half_done(store);
        then(point);
    }
    assert!(killed >= POINTS / 4, "only {killed} of {POINTS} were killed in time");
    assert_clean(store);
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

#[test]
fn privileged_a_killed_create() {
    let Some(store) = with_many() else { return };
    let args = |point| words(&["create", "--name", &format!("c-{point}"), NAME]);
    kill_at_all_points(&store, &["create", NAME], args, |point| {
        // The name is free, or its container whole.
        let name = format!("c-{point}");
        if store.sql(&format!("SELECT count(*) FROM container WHERE name = '{name}'")) == ["0"] {
            store.ok(["create", "--name", &name, NAME]);
        }
        let root = super::mount(&store, &name);
        assert_eq!(fs::read_dir(&root).unwrap().count(), 2000);
        store.umount(&root);
        store.ok(["rm", &name]);
    });
}

/// The image's trees are not there yet: they are unpacked for the container.
#[test]
fn privileged_a_killed_create_that_unpacks() {
    let Some(store) = with_many() else { return };
    store.ok(["rmi", NAME]);
    let archive = store.dir().join("archive.tar");
    let load = || store.ok(["load", "-q", "--no-unpack", "-i", archive.to_str().unwrap()]);
    load();
    let args = |point| words(&["create", "--name", &format!("c-{point}"), NAME]);
    kill_at_all_points(&store, &["create", NAME], args, |_| {
        store.ok(["ps", "-aq"]).lines().for_each(|id| drop(store.ok(["rm", id])));
        store.ok(["rmi", NAME]);
        load();
    });
}

#[test]
fn privileged_a_killed_commit() {
    let Some(store) = with_many() else { return };
    changed(&store, "work");
    let expected = store.ok(["diff", "work"]);
    // Each makes another image: a layer that is known already is not written.
    let commit = |point: u32| {
        let message = format!("point {point}");
        words(&["commit", "-m", &message, "--compression", "zstd", "work", &format!("localhost/c:{point}")])
    };
    kill_at_all_points(&store, &["commit", "work", "localhost/whole:1"], commit, |point| {
        let name = format!("localhost/c:{point}");
        let listed = store.ok(["images", "--format", "{{.Repository}}:{{.Tag}}"]);
        if listed.lines().any(|line| line == name) {
            assert!(store.ok(["ls", &name]).lines().count() == 2000);
            store.ok(["rmi", &name]);
        }
        if point % 6 == 5 {
            store.ok(commit(point));
            assert_eq!(store.ok(["tree-diff", NAME, &name]), expected);
            store.ok(["rmi", &name]);
        }
        assert_eq!(store.ok(["diff", "work"]), expected, "the container is as it was");
    });
}

#[test]
fn privileged_a_killed_rm() {
    let Some(store) = with_many() else { return };
    changed(&store, "whole");
    let names = BTreeSet::from(["many".to_owned()]);
    kill_at_all_points(
        &store,
        &["rm", "whole"],
        |_| {
            changed(&store, "many");
            words(&["rm", "many"])
        },
        |_| {
            // All of it, or nothing.
            let listed: BTreeSet<_> =
                store.ok(["ps", "-a", "--format", "{{.Names}}"]).lines().map(str::to_owned).collect();
            if listed == names {
                assert_eq!(store.ok(["diff", "many"]).lines().count(), 400);
                store.ok(["rm", "many"]);
            } else {
                assert!(listed.is_empty(), "{listed:?}");
            }
        },
    );
}

/// The file is whole or not there; one that was there before stays.
#[test]
fn privileged_a_killed_export() {
    let Some(store) = require::root().then(with_many).flatten() else { return };
    changed(&store, "work");
    let out = store.dir().join("out");
    fs::create_dir(&out).unwrap();
    let path = |name: &str| out.join(name).to_str().unwrap().to_owned();
    let [whole, part, old] = ["whole.tar", "part.tar", "old.tar"].map(path);
    fs::write(&old, "old").unwrap();
    let archive = |path: &str| fs::read(Path::new(path));
    kill_at_all_points(
        &store,
        &["export", "-o", &whole, "work"],
        |point| words(&["export", "-o", if point % 2 == 0 { &part } else { &old }, "work"]),
        |_| {
            let expected = archive(&whole).unwrap();
            assert!(archive(&part).map_or(true, |bytes| bytes == expected), "half an archive");
            let bytes = archive(&old).unwrap();
            assert!(bytes == b"old" || bytes == expected, "half an archive in the place of a file");
            fs::remove_file(&part).ok();
            fs::write(&old, "old").unwrap();
        },
    );
    let left: Vec<_> = fs::read_dir(&out).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "{left:?}");
}
