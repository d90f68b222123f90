//! The far ends: many layers, long paths, large files, many images.

use std::ffi::OsStr;
use std::io::{self, Read};
use std::process::Command;
use std::time::Duration;

use layerstore_testkit::docker;
use layerstore_testkit::image::{INDEX, Image, Layout, Member, descriptor, pack};
use layerstore_testkit::layer::{Compression, Entry, LayerBuilder};
use layerstore_testkit::require;
use layerstore_testkit::sandbox::{Run, Sandbox};
use layerstore_testkit::tree::Snapshot;

use serde_json::{Value, json};

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

/// Loads `archive` from a file and, into a store of its own, from standard input.
fn load_both_ways(store: &Sandbox, archive: &[u8]) -> [Run; 2] {
    let path = store.write("archive.tar", archive);
    let other = Sandbox::new().unwrap();
    [store.run(["load", "-i", path.to_str().unwrap()]), other.run_with(["load"], archive)]
}

/// Followed blindly, eight levels of twelve make 430 million.
#[test]
fn privileged_indexes_that_list_one_index_again_and_again() {
    let Some(store) = Sandbox::new() else { return };
    let image = Image::new([small_layer("a")]);
    let mut layout = Layout::new();
    let mut listed = vec![layout.parts(&image)];
    listed[0]["platform"] = image.platform_object();
    for _ in 0..8 {
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": listed}).to_string();
        layout.blob(index.as_bytes());
        listed = vec![descriptor(INDEX, index.as_bytes()); 12];
    }
    layout.list("localhost/deep:1", listed.remove(0));
    for run in load_both_ways(&store, &layout.archive()) {
        assert!(run.time < Duration::from_secs(5), "{:?}", run.time);
        assert!(run.peak >> 20 < 100, "{} MiB", run.peak >> 20);
        if run.code != 0 {
            run.clone().failure(run.code);
        }
    }
}

#[test]
fn privileged_many_images_with_one_large_config() {
    let Some(store) = Sandbox::new() else { return };
    let layer = LayerBuilder::new(Compression::None).file("a", "a").finish();
    let mut image = Image::new([layer.clone()]);
    image.config["config"]["Labels"] = json!({"note": "text ".repeat(200_000)});
    let entry = |i| json!({"Config": "config.json", "RepoTags": [format!("localhost/i{i}:1")], "Layers": ["layer.tar"]});
    let manifest: Value = (0..500).map(entry).collect();
    let archive = pack([
        ("config.json", Member::File(&image.config_bytes())),
        ("layer.tar", Member::File(&layer.blob)),
        ("manifest.json", Member::File(manifest.to_string().as_bytes())),
    ]);
    for run in load_both_ways(&store, &archive) {
        let run = run.success();
        assert_eq!(run.loaded().len(), 500);
        assert!(run.peak >> 20 < 100, "{} MiB", run.peak >> 20);
    }
}

/// The same command with at most `files` open files, which nobody can raise again.
fn with_few_files(command: &Command, files: u32) -> Command {
    let script = format!("ulimit -n {files} && exec \"$0\" \"$@\"");
    let mut limited = Command::new("sh");
    limited
        .args([OsStr::new("-c"), script.as_ref(), command.get_program()])
        .args(command.get_args())
        .env_clear()
        .envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    limited
}

#[test]
fn privileged_many_layers_with_few_open_files() {
    let Some(store) = Sandbox::new() else { return };
    let image = Image::new((0..400).map(|i| small_layer(&format!("f{i}"))));
    let archive = Layout::of("localhost/a:1", &image).archive();
    let path = store.write("archive.tar", &archive);
    let file = store.command(["load", "-i", path.to_str().unwrap()]);
    Run::of(&mut with_few_files(&file, 256), &[]).success();
    assert_eq!(store.names("overlay2").len(), 400);

    let other = Sandbox::new().unwrap();
    Run::of(&mut with_few_files(&other.command(["load"]), 256), &archive).success();
    assert_eq!(other.names("overlay2").len(), 400);
}

/// What a layer says of a directory holds however many layers above only put files into it.
#[test]
fn privileged_a_directory_below_499_layers_that_imply_it() {
    let Some(store) = Sandbox::new() else { return };
    let directory = Entry::dir("d/").mode(0o750).owner(1000, 2000).mtime(1_600_000_000, 5);
    let lowest = LayerBuilder::gzip().entry(directory.xattr("user.note", "hello")).finish();
    let layer = |i| LayerBuilder::gzip().file(format!("d/f{i}"), "x").finish();
    let image = Image::new(std::iter::once(lowest).chain((1..499).map(layer)));
    store.load_bytes(&Layout::of("localhost/a:1", &image).archive());
    let tree = Snapshot::of(store.mount("localhost/a:1"));
    assert_eq!(tree.entries.len(), 500);
    let d = tree.at("d");
    assert_eq!((d.mode & 0o7777, d.uid, d.gid, d.mtime), (0o750, 1000, 2000, (1_600_000_000, 5)));
    assert_eq!(d.xattrs[&b"user.note"[..]], b"hello");
}

/// Layers that other images have brought in are stacked for an image that was only kept as blobs.
#[test]
fn privileged_an_image_that_was_not_unpacked_is_mounted_from_the_trees_of_others() {
    let Some(store) = Sandbox::new() else { return };
    let directory = Entry::dir("d/").mode(0o750).owner(1000, 2000).mtime(1_600_000_000, 5);
    let x = LayerBuilder::gzip().entry(directory.xattr("user.note", "hello")).finish();
    let y = LayerBuilder::gzip().file("d/f", "x").finish();
    let layout = |name: &str, layers: &[_]| Layout::of(name, &Image::new(layers.to_vec())).archive();

    let both = store.write("xy.tar", &layout("localhost/xy:1", &[x.clone(), y.clone()]));
    store.ok(["load", "--no-unpack", "-i", both.to_str().unwrap()]);
    assert!(store.names("overlay2").is_empty());
    store.load_bytes(&layout("localhost/x:1", std::slice::from_ref(&x)));
    store.load_bytes(&layout("localhost/y:1", std::slice::from_ref(&y)));
    let tree = Snapshot::of(store.mount("localhost/xy:1"));
    let d = tree.at("d");
    assert!(tree.has("d/f"));
    assert_eq!((d.mode & 0o7777, d.uid, d.gid, d.mtime), (0o750, 1000, 2000, (1_600_000_000, 5)));
    assert_eq!(d.xattrs[&b"user.note"[..]], b"hello");
    let alone = Snapshot::of(store.mount("localhost/y:1"));
    assert_eq!((alone.at("d").mode & 0o7777, alone.at("d").uid), (0o755, 0));

    let usual = Sandbox::new().unwrap();
    usual.load(&both);
    Snapshot::of(usual.mount("localhost/xy:1")).without_root_mtime().assert_same(&tree.without_root_mtime());
}
