//! The far ends: many layers, long paths, large files, many images.

use std::io::{self, Read};
use std::time::Duration;

use layerstore_testkit::docker;
use layerstore_testkit::image::{Image, Layout};
use layerstore_testkit::layer::{Compression, Entry, LayerBuilder};
use layerstore_testkit::require;
use layerstore_testkit::sandbox::Sandbox;
use layerstore_testkit::tree::Snapshot;

use crate::small_layer;

fn assert_mounts(store: &Sandbox, layers: usize) {
    let name = format!("localhost/deep{layers}:1");
    let image = Image::new((0..layers).map(|i| small_layer(&format!("f{i}"))));
    store.load_bytes(&Layout::of(&name, &image).archive());
    let root = store.mount(&name);
    let tree = Snapshot::of(&root);
    assert_eq!(tree.entries.len(), layers + 1);
    store.umount(&root);
}

#[test]
fn privileged_images_of_128_and_500_layers() {
    let Some(store) = Sandbox::new() else { return };
    assert_mounts(&store, 128);
    assert_mounts(&store, 500);
}

#[test]
fn privileged_a_root_with_a_long_and_awkward_path() {
    let Some(dir) = require::root().then(|| tempfile::tempdir().unwrap()) else { return };
    let root = dir.path().join("a:b,c\\d e").join("long-".repeat(40)).join("long-".repeat(40));
    let Some(store) = Sandbox::at(&root) else { return };
    assert_mounts(&store, 1);
    assert_mounts(&store, 128);
}

#[test]
fn privileged_memory_does_not_grow_with_a_layer() {
    let Some(store) = Sandbox::new() else { return };
    let gibibyte = 1 << 30;
    for compression in [Compression::Gzip, Compression::Zstd] {
        // Noise that repeats, so that the archive stays small and yet is not all zeros.
        let noise: Vec<u8> =
            (0..1 << 18_u32).map(|i: u32| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let data = noise.chain(io::repeat(0)).take(gibibyte);
        let file = Entry::file("big", []);
        let layer = LayerBuilder::new(compression).stream(file, gibibyte, data).finish();
        let name = format!("localhost/big-{compression:?}:1").to_lowercase();
        let run = store.load_bytes(&Layout::of(&name, &Image::new([layer])).archive());
        let mebibytes = run.peak >> 20;
        assert!((2..100).contains(&mebibytes), "a load took {mebibytes} MiB of memory");
    }
}

#[test]
fn privileged_three_hundred_images_of_ten_layers() {
    let Some(store) = Sandbox::new() else { return };
    let run = store.load_bytes(&docker::many(300, 10));
    assert_eq!(run.loaded().len(), 300);
    assert_eq!(store.names("overlay2").len(), 30 * 5 + 300 * 5);
    // The machine may be busy with other tests; `benches/compare/run` measures this properly.
    assert!(run.time < Duration::from_secs(12), "loading took {:?}", run.time);
    let lists: Vec<_> = (0..5).map(|_| store.run(["images", "-q"]).success()).collect();
    assert_eq!(lists[0].stdout.lines().count(), 300);
    let quickest = lists.iter().map(|r| r.time).min().unwrap();
    assert!(quickest < Duration::from_millis(100), "listing took {quickest:?}");
    assert_eq!(store.ok(["ls", "localhost/many/i299:v1", "/opt"]).lines().count(), 10);
}
