//! A disk that fills up while an image is loaded, and one that is full.

mod cleared;

use layerstore_testkit::disk::Disk;
use layerstore_testkit::image::{Image, Layout};
use layerstore_testkit::layer::{Layer, LayerBuilder};
use layerstore_testkit::require;
use layerstore_testkit::sandbox::Sandbox;

use crate::small_layer;

const OUT_OF_SPACE: i32 = 6;

/// A layer of `megabytes` that do not compress.
fn incompressible(megabytes: usize) -> Layer {
    let mut state = 1_u64;
    let noise = std::iter::repeat_with(|| {
        // xorshift64, which a compressor cannot predict.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    LayerBuilder::gzip().file("noise", noise.flatten().take(megabytes << 20).collect::<Vec<_>>()).finish()
}

fn assert_survives(disk: &Disk) {
    let Some(store) = Sandbox::at(&disk.path().join("store")) else { return };
    store.load_bytes(&Layout::of("localhost/there:1", &Image::new([small_layer("there")])).archive());
    let before = store.state();
    // The blob alone fits, blob and tree together do not; then not even the blob.
    for megabytes in [24, 80] {
        let image = Image::new([small_layer("base"), incompressible(megabytes)]);
        let path = store.write("big.tar", &Layout::of("localhost/big:1", &image).archive());
        store.run(["load", "-i", path.to_str().unwrap()]).failure(OUT_OF_SPACE);
        assert_eq!(store.state(), before);
        store.assert_no_leftovers();
    }
    store.load_bytes(&Layout::of("localhost/small:1", &Image::new([small_layer("small")])).archive());
    store.ok(["ls", "localhost/small:1"]);
}

#[test]
fn privileged_a_full_ext4() {
    if require::root() {
        assert_survives(&Disk::ext4(40));
    }
}

#[test]
fn privileged_a_full_tmpfs() {
    if require::root() {
        assert_survives(&Disk::tmpfs(40));
    }
}

/// What a container has filled up can be looked at, unmounted and removed.
fn assert_freed(disk: &Disk) {
    let Some(store) = Sandbox::at(&disk.path().join("store")) else { return };
    store.load_bytes(&Layout::of("localhost/there:1", &Image::new([small_layer("there")])).archive());
    store.ok(["create", "--name", "full", "localhost/there:1"]);
    let mounted = store.ok(["mount", "full"]);
    let file = std::path::Path::new(mounted.trim_end()).join("noise");
    let filled = std::io::copy(&mut std::io::repeat(7), &mut std::fs::File::create(&file).unwrap());
    assert_eq!(filled.unwrap_err().kind(), std::io::ErrorKind::StorageFull);
    assert!(store.ok(["ps"]).contains("full"));
    store.ok(["images"]);
    store.ok(["umount", "full"]);
    store.ok(["rm", "full"]);
    store.ok(["gc"]);
    assert!(disk.free() > 10 << 20, "{} bytes are free", disk.free());
    store.ok(["create", "localhost/there:1"]);
    store.assert_no_leftovers();
}

#[test]
fn privileged_what_fills_an_ext4_is_removed() {
    if require::root() {
        assert_freed(&Disk::ext4(40));
    }
}

#[test]
fn privileged_what_fills_a_tmpfs_is_removed() {
    if require::root() {
        assert_freed(&Disk::tmpfs(40));
    }
}
