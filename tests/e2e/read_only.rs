//! A store on a filesystem that is read-only can be looked at, and shows what is true.

use std::fs;
use std::path::Path;
use std::process::{Child, Stdio};

use layerstore_testkit::disk::Disk;
use layerstore_testkit::image::{Image, Layout};
use layerstore_testkit::require;
use layerstore_testkit::sandbox::Sandbox;

use crate::small_layer;

const FAILED: i32 = 1;

/// A command that has the store open until it is killed, so that nobody empties the log meanwhile.
struct Holder(Child);

impl Holder {
    fn of(store: &Sandbox) -> Self {
        let mut load = store.command(["load", "-q"]);
        let load = load.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        while store.names("ingest").is_empty() {
            std::thread::yield_now();
        }
        Self(load)
    }

    fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

fn log(store: &Sandbox) -> u64 {
    fs::metadata(store.root().join("layerstore.db-wal")).map_or(0, |log| log.len())
}

fn filled(root: &Path) -> Option<Sandbox> {
    let store = Sandbox::at(root)?;
    let image = Image::new([small_layer("one"), small_layer("two")]);
    store.load_bytes(&Layout::of("localhost/a:1", &image).archive());
    store.ok(["create", "--name", "box", "localhost/a:1"]);
    Some(store)
}

/// A store on ext4 whose last commit is in the log alone, as a writer leaves it that is killed.
fn killed(disk: &Disk) -> Option<Sandbox> {
    let store = filled(&disk.path().join("store"))?;
    let holder = Holder::of(&store);
    store.ok(["tag", "localhost/a:1", "localhost/new:1"]);
    holder.kill();
    assert!(log(&store) > 32);
    Some(store)
}

/// What looks works, and sees the last commit.
#[track_caller]
fn assert_seen(store: &Sandbox) {
    let names = store.ok(["images", "--format", "{{.Repository}}:{{.Tag}}"]);
    assert!(names.contains("localhost/new:1"), "{names}");
    let usage = store.ok(["df", "--format", "{{.Type}} {{.TotalCount}}"]);
    assert!(usage.starts_with("Images 1\nContainers 1\nBlobs 4\nTrees 2\n"), "{usage}");
    store.ok(["df", "-v"]);
    assert!(store.ok(["df", "--html", "-"]).contains("localhost/new:1"));
    assert!(store.ok(["ps", "-a", "-s"]).contains("localhost/a:1"));
    store.ok(["inspect", "localhost/new:1"]);
    store.ok(["inspect", "box"]);
    store.ok(["history", "localhost/new:1"]);
    store.ok(["info"]);
    store.ok(["limits"]);
    assert!(store.ok(["why", "localhost/new:1"]).contains("localhost/a:1"));
    store.ok(["why", "--freed-by", "localhost/new:1"]);
    assert!(store.ok(["gc", "--dry-run"]).contains("Reclaimable space"));
    store.ok(["image", "prune", "--all", "--force", "--dry-run"]);
    store.ok(["system", "prune", "--force", "--dry-run"]);
}

/// So does what looks at files, if they are known to be whole: were they written to this mount, or are durable.
#[track_caller]
fn assert_files_seen(store: &Sandbox) {
    assert_eq!(store.ok(["cat", "localhost/new:1", "one"]), "one");
    assert!(store.ok(["ls", "localhost/new:1"]).contains("two"));
    assert_eq!(store.ok(["diff", "box"]), "");
    store.ok(["export", "-o", "/dev/null", "box"]);
}

#[track_caller]
fn assert_not_written(store: &Sandbox) {
    let root = store.root().display();
    let archive =
        store.write("b.tar", &Layout::of("localhost/b:1", &Image::new([small_layer("b")])).archive());
    for line in [
        "pull 127.0.0.1:1/x:1",
        "gc",
        "rmi localhost/a:1",
        "rmi --force nothing",
        "image prune --force",
        "container prune --force",
        "system prune --force",
        "mount localhost/a:1",
        "create localhost/a:1",
        "tag localhost/a:1 localhost/b:1",
        "pin localhost/a:1",
        "rm box",
        "rename box crate",
        "limits entries=5",
    ] {
        let run = store.run(line.split(' '));
        assert!(run.stderr.contains("hint: what only looks works"), "{run}");
        let sentence = format!("error: the filesystem of the store at {root} is read-only");
        assert_eq!(run.failure(FAILED), sentence, "{line}");
    }
    let sentence = store.run(["load", "-i", archive.to_str().unwrap()]).failure(FAILED);
    assert!(sentence.ends_with("is read-only"), "{sentence}");
}

#[test]
fn privileged_after_an_error_of_ext4_a_store_shows_what_is_true() {
    if !require::root() {
        return;
    }
    let disk = Disk::ext4_with(40, &["-e", "remount-ro"]);
    let Some(store) = killed(&disk) else { return };
    disk.meet_error();
    assert!(fs::write(disk.path().join("new"), "x").is_err());
    assert_seen(&store);
    assert_not_written(&store);
    assert_seen(&store);
    assert_files_seen(&store);
}

#[test]
fn privileged_a_log_is_read_without_its_index_if_nobody_writes() {
    if !require::root() {
        return;
    }
    let disk = Disk::ext4(40);
    let Some(store) = killed(&disk) else { return };
    fs::remove_file(store.root().join("layerstore.db-shm")).unwrap();
    disk.make_read_only();
    assert_seen(&store);
    assert_not_written(&store);
}

#[test]
fn privileged_a_store_without_a_log_is_read_only_too() {
    if !require::root() {
        return;
    }
    for gone in [&[][..], &["-shm"], &["-wal"], &["-wal", "-shm"]] {
        let disk = Disk::ext4(40);
        let Some(store) = filled(&disk.path().join("store")) else { return };
        store.ok(["tag", "localhost/a:1", "localhost/new:1"]);
        assert_eq!(log(&store), 0, "{gone:?}");
        for end in gone {
            fs::remove_file(store.root().join(format!("layerstore.db{end}"))).unwrap();
        }
        disk.make_read_only();
        assert_seen(&store);
        assert_not_written(&store);
    }
}

#[test]
fn privileged_who_looks_through_a_read_only_mount_sees_what_others_write() {
    let Some(dir) = require::root().then(|| tempfile::tempdir().unwrap()) else { return };
    let Some(store) = filled(&dir.path().join("store")) else { return };
    let view = Disk::read_only_view(store.root());
    let Some(seen) = Sandbox::at(view.path()) else { return };
    let names = |store: &Sandbox| store.ok(["images", "--format", "{{.Tag}}"]);
    // Nobody has it open; somebody has, and goes on writing; somebody has been killed.
    assert_eq!(names(&seen), "1\n");
    let holder = Holder::of(&store);
    for tag in 2..20 {
        store.ok(["tag", "localhost/a:1", &format!("localhost/a:{tag}")]);
        assert_eq!(names(&seen).lines().count(), tag);
    }
    store.ok(["tag", "localhost/a:1", "localhost/new:1"]);
    assert!(log(&store) > 32);
    assert_seen(&seen);
    holder.kill();
    assert_seen(&seen);
    assert_not_written(&seen);
    // Through this mount nobody can tell if the log is all there is.
    fs::rename(store.root().join("layerstore.db-shm"), dir.path().join("shm")).unwrap();
    let run = seen.run(["images"]);
    assert!(run.stderr.contains("hint: look at a copy"), "{run}");
    let sentence = run.failure(FAILED);
    assert!(
        sentence.ends_with("layerstore.db-wal has transactions, and layerstore.db-shm is missing"),
        "{sentence}"
    );
    assert_seen(&store);
    assert_seen(&seen);
}

#[test]
fn privileged_many_write_while_many_look_through_a_read_only_mount() {
    let Some(dir) = require::root().then(|| tempfile::tempdir().unwrap()) else { return };
    let Some(store) = filled(&dir.path().join("store")) else { return };
    let view = Disk::read_only_view(store.root());
    let Some(seen) = Sandbox::at(view.path()) else { return };
    std::thread::scope(|scope| {
        // Each is alone with the store at times, and then empties the log.
        let writer = scope.spawn(|| {
            for tag in 2..40 {
                store.ok(["tag", "localhost/a:1", &format!("localhost/a:{tag}")]);
            }
        });
        let mut last = 1;
        while !writer.is_finished() {
            let found = seen.ok(["images", "-q"]).lines().count();
            assert!(found >= last, "{found} after {last}");
            last = found;
            seen.ok(["gc", "--dry-run"]);
        }
    });
    assert_eq!(seen.ok(["images", "-q"]).lines().count(), 39);
}

#[test]
fn privileged_where_there_is_no_store_nothing_is_shown() {
    let Some(disk) = require::root().then(|| Disk::tmpfs(8)) else { return };
    disk.make_read_only();
    let Some(store) = Sandbox::at(disk.path()) else { return };
    let sentence = store.run(["images"]).failure(FAILED);
    assert!(sentence.ends_with("while its filesystem is read-only: there is no database yet"), "{sentence}");
}
