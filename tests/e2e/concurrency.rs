//! Several processes on one store.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use layerstore_testkit::docker::Archive;
use layerstore_testkit::image::{Image, Layout};
use layerstore_testkit::layer::LayerBuilder;
use layerstore_testkit::require;
use layerstore_testkit::sandbox::{Run, Sandbox};
use layerstore_testkit::tree::Snapshot;

/// Starts one `load` for each input at the same time.
fn load_all(store: &Sandbox, inputs: &[PathBuf]) -> Vec<Run> {
    std::thread::scope(|scope| {
        let loads: Vec<_> = inputs.iter().map(|input| scope.spawn(move || store.load(input))).collect();
        loads.into_iter().map(|load| load.join().unwrap()).collect()
    })
}

/// Eight loads of two images that share layers. Every layer is unpacked by one process, and every other
/// process says that it exists already.
fn assert_unpacked_once(store: &Sandbox, inputs: [PathBuf; 2], layers: [usize; 2], distinct: usize) {
    let inputs: Vec<_> = inputs.into_iter().cycle().take(8).collect();
    let runs = load_all(store, &inputs);
    assert_eq!(store.names("overlay2").len(), distinct);
    let reused: usize = runs.iter().map(Run::reused_layers).sum();
    assert_eq!(reused, 4 * (layers[0] + layers[1]) - distinct, "layers that another process had unpacked");
    store.assert_no_leftovers();
}

#[test]
fn privileged_eight_processes_load_small_images() {
    let Some(store) = Sandbox::new() else { return };
    let layer = |name: &str| {
        (0..50).fold(LayerBuilder::gzip(), |b, i| b.file(format!("{name}-{i}"), name.repeat(1000))).finish()
    };
    let base: Vec<_> = (0..6).map(|i| layer(&format!("base{i}"))).collect();
    let image = |name: &str| Image::new(base.iter().cloned().chain([layer(name)]));
    let archive = |name: &str| {
        let layout = Layout::of(&format!("localhost/{name}:1"), &image(name));
        store.write(&format!("{name}.tar"), &layout.archive())
    };
    assert_unpacked_once(&store, [archive("a"), archive("b")], [7, 7], 8);
    for name in ["a", "b"] {
        let tree = Snapshot::of(store.mount(&format!("localhost/{name}:1")));
        assert_eq!(tree.entries.len(), 7 * 50 + 1);
    }
}

#[test]
fn privileged_eight_processes_load_real_images() {
    let (Some(store), Some(images)) = (Sandbox::new(), require::images()) else { return };
    assert_unpacked_once(&store, [images.join("app.oci.tar"), images.join("node.oci.tar")], [3, 2], 4);
    store.ok(["cat", "localhost/app:1", "/app"]);
}

/// Looking never waits for a load, and sees whole images only.
#[test]
fn privileged_readers_see_whole_images_while_a_load_runs() {
    let (Some(store), Some(images)) = (Sandbox::new(), require::images()) else { return };
    let input = images.join("app.oci.tar");
    std::thread::scope(|scope| {
        let load = scope.spawn(|| store.load(&input));
        while !load.is_finished() {
            if store.ok(["images", "--format", "{{.Repository}}"]).contains("localhost/app") {
                assert_eq!(store.ok(["cat", "localhost/app:1", "/app"]), "app\n");
            }
        }
    });
}

/// Whoever removes an image takes nothing that a load has just found and counts on.
#[test]
fn privileged_an_image_is_loaded_in_two_forms_and_removed_all_the_time() {
    let Some(store) = Sandbox::new() else { return };
    let name = "localhost/a:1";
    let layers = (0..4).map(|l| {
        (0..20).fold(LayerBuilder::gzip(), |b, f| b.file(format!("f{l}-{f}"), "text ".repeat(100))).finish()
    });
    let image = Image::new(layers);
    let docker = store.write("docker.tar", &Archive::new().image(&[name], &image).legacy());
    let oci = store.write("oci.tar", &Layout::of(name, &image).archive());
    let end = Instant::now() + Duration::from_secs(5);
    std::thread::scope(|scope| {
        for input in [&docker, &oci] {
            let store = &store;
            scope.spawn(move || {
                while Instant::now() < end {
                    store.load(input);
                }
            });
        }
        scope.spawn(|| {
            while Instant::now() < end {
                let run = store.run(["rmi", name]);
                if run.code != 0 {
                    assert!(run.failure(3).contains("no such image"));
                }
            }
        });
    });
    for input in [&docker, &oci] {
        store.load(input);
        assert_eq!(Snapshot::of(store.mount(name)).entries.len(), 4 * 20 + 1);
        store.umount(&store.dir().join("mounted/localhost_a_1"));
        store.ok(["rmi", name]);
    }
    store.ok(["gc"]);
    store.assert_no_leftovers();
    assert!(store.names("overlay2").is_empty());
}
