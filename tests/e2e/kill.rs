//! `kill -9` at any moment of a load.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use layerstore_testkit::docker::Archive;
use layerstore_testkit::image::{Image, Layout};
use layerstore_testkit::layer::LayerBuilder;
use layerstore_testkit::sandbox::Sandbox;
use layerstore_testkit::tree::Snapshot;
use layerstore_testkit::{digest, hex_of, require};

/// How a load gets its input.
#[derive(Clone, Copy, PartialEq, Eq)]
enum From {
    File,
    Pipe,
}

/// Starts a load and kills it after `delay`. Returns whether it was still running.
fn load_and_kill(store: &Sandbox, input: &Path, from: From, delay: Duration) -> bool {
    let mut command = store.command(["load", "-q"]);
    match from {
        From::File => command.arg("-i").arg(input),
        From::Pipe => command.stdin(Stdio::piped()),
    };
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let pipe = child.stdin.take();
    std::thread::scope(|scope| {
        // Ends early when nobody reads any more.
        scope.spawn(|| pipe.map(|mut pipe| io::copy(&mut fs::File::open(input).unwrap(), &mut pipe)));
        std::thread::sleep(delay);
        let running = child.try_wait().unwrap().is_none();
        child.kill().unwrap();
        child.wait().unwrap();
        running
    })
}

/// What the database names is on disk and whole; an image that is listed is complete.
fn assert_nothing_half_done(store: &Sandbox, image: &str, expected: &Snapshot) {
    let listed = store.ok(["images", "--format", "{{.Repository}}:{{.Tag}}"]);
    let trees = store.names("overlay2");
    for id in store.sql("SELECT id FROM tree") {
        assert!(trees.contains(&id), "the database names a tree `{id}` that is not there");
    }
    for name in store.sql("SELECT digest FROM blob") {
        let bytes = fs::read(store.root().join("blobs/sha256").join(hex_of(&name))).unwrap();
        assert_eq!(hex_of(&digest(&bytes)), hex_of(&name), "the database names a blob that is not whole");
    }
    if listed.lines().any(|l| l == image) {
        let root = store.mount(image);
        expected.assert_same(&Snapshot::of(&root).without_root_mtime());
        store.umount(&root);
    }
}

/// Kills loads of `input` at `points` moments spread over the time that a load takes. Each kill meets what
/// the ones before have left, until a load gets through and the store is begun anew.
fn kill_loads(input: &Path, from: From, image: &str, points: u32) {
    let Some(whole) = Sandbox::new() else { return };
    let start = Instant::now();
    whole.load(input);
    let time = start.elapsed();
    let expected = Snapshot::of(whole.mount(image)).without_root_mtime();

    let mut killed = 0;
    let mut store = Sandbox::new().unwrap();
    for point in 0..points {
        killed += u32::from(load_and_kill(&store, input, from, time * point / points));
        assert_nothing_half_done(&store, image, &expected);
        // Every few kills a load gets through, over the debris of all of them.
        if point % 4 == 3 {
            store.load(input);
            assert_nothing_half_done(&store, image, &expected);
            assert!(store.ok(["images", "--format", "{{.Repository}}:{{.Tag}}"]).contains(image));
            store.ok(["gc"]);
            store.assert_no_leftovers();
            store = Sandbox::new().unwrap();
        }
    }
    // Only the first of four starts from nothing; the layers that a killed load has published make the next faster.
    assert!(killed >= points / 6, "only {killed} of {points} loads were killed in time");
}

/// Many small layers: a kill falls into every phase of the work.
#[test]
fn privileged_a_killed_load_of_many_layers() {
    let Some(dir) = require::root().then(|| tempfile::tempdir().unwrap()) else { return };
    let layers = (0..40).map(|l| {
        (0..50)
            .fold(LayerBuilder::gzip(), |b, f| b.file(format!("f{l}-{f}"), "text ".repeat(l * 20)))
            .finish()
    });
    let image = Image::new(layers);
    let oci = dir.path().join("oci.tar");
    fs::write(&oci, Layout::of("localhost/many:1", &image).archive()).unwrap();
    kill_loads(&oci, From::File, "localhost/many:1", 24);
    kill_loads(&oci, From::Pipe, "localhost/many:1", 8);
    let docker = dir.path().join("docker.tar");
    fs::write(&docker, Archive::new().image(&["localhost/many:1"], &image).legacy()).unwrap();
    kill_loads(&docker, From::File, "localhost/many:1", 12);
    kill_loads(&docker, From::Pipe, "localhost/many:1", 8);
}

#[test]
fn privileged_a_killed_load_of_a_real_image() {
    let (true, Some(images)) = (require::root(), require::images()) else { return };
    kill_loads(&images.join("app.oci.tar"), From::File, "localhost/app:1", 40);
}

/// A kill while several processes load: the others finish as if nothing had happened.
#[test]
fn privileged_a_kill_does_not_disturb_the_others() {
    let Some(store) = Sandbox::new() else { return };
    let layers = (0..10).map(|l| {
        (0..300).fold(LayerBuilder::gzip(), |b, f| b.file(format!("f{l}-{f}"), "text ".repeat(100))).finish()
    });
    let input = store.write("a.tar", &Layout::of("localhost/a:1", &Image::new(layers)).archive());
    for delay in [0, 5, 10, 20, 40, 80] {
        let store = Sandbox::new().unwrap();
        let mut command = store.command(["load", "-i"]);
        let mut victim = command.arg(&input).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::scope(|scope| {
            let others: Vec<_> = (0..2).map(|_| scope.spawn(|| store.load(&input))).collect();
            std::thread::sleep(Duration::from_millis(delay));
            victim.kill().unwrap();
            victim.wait().unwrap();
            for other in others {
                assert_eq!(other.join().unwrap().loaded(), ["localhost/a:1"]);
            }
        });
        store.ok(["gc"]);
        store.assert_no_leftovers();
        assert_eq!(store.names("overlay2").len(), 10);
        assert_eq!(store.names("trash"), BTreeSet::new());
    }
}
