//! Every form of input that `load` reads, and what it chooses from it.

use layerstore_testkit::docker::Archive;
use layerstore_testkit::image::{Image, Layout, host_architecture};
use layerstore_testkit::layer::{Compression, LayerBuilder};
use layerstore_testkit::reference;
use layerstore_testkit::sandbox::{Run, Sandbox};
use layerstore_testkit::tree::Snapshot;

use crate::remote::assert_holds;
use crate::{small_layer, varied_image};

/// A two-layer image whose layers are compressed with `compression`.
fn plain_image(compression: Compression) -> Image {
    let layer = |name: &str| LayerBuilder::new(compression).file(name, name).finish();
    Image::new([layer("a"), layer("b")])
}

/// Loads `archive` with `options` from a file and, into a store of its own, from standard input. Both say the
/// same and leave nothing that a collection would take.
#[track_caller]
fn load_with(store: &Sandbox, options: &[&str], archive: &[u8]) -> Run {
    let path = store.write("archive.tar", archive);
    let load = [&["load"], options].concat();
    let run = store.run([&load[..], &["-i", path.to_str().unwrap()]].concat()).success();
    store.assert_nothing_to_collect();

    let other = Sandbox::new().unwrap();
    let piped = other.run_with(load, archive).success();
    other.assert_nothing_to_collect();
    other.assert_no_leftovers();
    assert_eq!(piped.loaded(), run.loaded());
    run
}

#[track_caller]
fn load(store: &Sandbox, archive: &[u8]) -> Run {
    load_with(store, &[], archive)
}

#[test]
fn privileged_every_kind_of_entry_is_exact() {
    let Some(store) = Sandbox::new() else { return };
    let layout = Layout::of("localhost/varied:1", &varied_image());
    let (dir, out) = (store.dir().join("layout"), store.dir().join("reference"));
    layout.write(&dir);
    std::fs::create_dir(&out).unwrap();
    assert!(reference::unpack(&dir, &out));
    store.load(&dir);
    store.assert_nothing_to_collect();
    Snapshot::of(&out).assert_same(&Snapshot::of(store.mount("localhost/varied:1")));
}

#[test]
fn privileged_docker_archives_old_and_new() {
    let Some(store) = Sandbox::new() else { return };
    let base = LayerBuilder::new(Compression::None).file("base", "base").finish();
    let top = |name: &str| LayerBuilder::new(Compression::None).file(name, name).finish();
    let (one, two) = (Image::new([base.clone(), top("one")]), Image::new([base, top("two")]));
    let archive = Archive::new().image(&["localhost/one:1", "localhost/uno:1"], &one).image(&[], &two);
    for bytes in [archive.legacy(), archive.modern()] {
        let run = load(&store, &bytes);
        let mut loaded = run.loaded();
        loaded.sort_unstable();
        assert_eq!(loaded, ["localhost/one:1", "localhost/uno:1", &two.id()]);
        assert_holds(&store, "localhost/one:1", &["base", "one"]);
        assert_holds(&store, hex(&two.id()), &["base", "two"]);
    }
    assert_eq!(store.names("overlay2").len(), 3, "both forms hold the same layers");
}

fn hex(id: &str) -> &str {
    &layerstore_testkit::hex_of(id)[..12]
}

#[test]
fn privileged_layers_of_every_compression() {
    let Some(store) = Sandbox::new() else { return };
    for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
        let name = format!("localhost/{compression:?}:1").to_lowercase();
        load(&store, &Layout::of(&name, &plain_image(compression)).archive());
        assert_holds(&store, &name, &["a", "b"]);
    }
    assert_eq!(store.names("overlay2").len(), 2, "a layer is known by its content, not by its compression");
}

#[test]
fn privileged_compressed_layers_in_a_docker_archive() {
    let Some(store) = Sandbox::new() else { return };
    let archive = Archive::new().image(&["localhost/a:1"], &plain_image(Compression::Gzip));
    load(&store, &archive.legacy());
    assert_holds(&store, "localhost/a:1", &["a", "b"]);
}

#[test]
fn privileged_archives_compressed_as_a_whole() {
    let Some(store) = Sandbox::new() else { return };
    let docker = |name: &str| Archive::new().image(&[name], &plain_image(Compression::None)).legacy();
    load(&store, &Compression::Gzip.compress(&docker("localhost/gzip:1")));
    assert_holds(&store, "localhost/gzip:1", &["a", "b"]);
    let oci = Layout::of("localhost/zstd:1", &plain_image(Compression::Gzip)).archive();
    load(&store, &Compression::Zstd.compress(&oci));
    assert_holds(&store, "localhost/zstd:1", &["a", "b"]);
}

#[test]
fn privileged_several_images_in_one_layout() {
    let Some(store) = Sandbox::new() else { return };
    let image = |name: &str| Image::new([small_layer("base"), small_layer(name)]);
    let layout = Layout::new().image("localhost/x:1", &image("x")).image("localhost/y:2", &image("y"));
    let run = load(&store, &layout.archive());
    assert_eq!(run.loaded(), ["localhost/x:1", "localhost/y:2"]);
    assert_holds(&store, "localhost/x:1", &["base", "x"]);
    assert_holds(&store, "localhost/y:2", &["base", "y"]);
}

#[test]
fn privileged_the_platform_of_this_machine_is_chosen() {
    let Some(store) = Sandbox::new() else { return };
    let image = |arch: &str| Image::new([small_layer(arch)]).platform("linux", arch, None);
    let layout = Layout::new().platforms("localhost/multi:1", &[image("s390x"), image(host_architecture())]);
    load(&store, &layout.archive());
    assert_holds(&store, "localhost/multi:1", &[host_architecture()]);
}

#[test]
fn privileged_another_platform_can_be_asked_for() {
    let Some(store) = Sandbox::new() else { return };
    let image = |arch: &str, variant| Image::new([small_layer(arch)]).platform("linux", arch, variant);
    let images = [image(host_architecture(), None), image("s390x", None), image("riscv64", Some("v1"))];
    let layout = Layout::new().platforms("localhost/multi:1", &images);
    load_with(&store, &["--platform", "linux/s390x"], &layout.archive());
    assert_holds(&store, "localhost/multi:1", &["s390x"]);
}

#[test]
fn privileged_an_image_without_layers() {
    let Some(store) = Sandbox::new() else { return };
    load(&store, &Layout::of("localhost/nothing:1", &Image::new([])).archive());
    assert!(store.ok(["images"]).contains("localhost/nothing"));
    assert_holds(&store, "localhost/nothing:1", &[]);
}

#[test]
fn privileged_the_same_layer_twice_in_one_image() {
    let Some(store) = Sandbox::new() else { return };
    let (a, b) = (small_layer("a"), small_layer("b"));
    load(&store, &Layout::of("localhost/twice:1", &Image::new([a.clone(), b, a])).archive());
    assert_holds(&store, "localhost/twice:1", &["a", "b"]);
    assert_eq!(store.names("overlay2").len(), 2);
}

#[test]
fn privileged_a_layer_that_is_opaque_at_its_root_hides_all_below() {
    let Some(store) = Sandbox::new() else { return };
    let layer = |name: &str| LayerBuilder::gzip().file(name, name);
    let opaque = layer("new").file(".wh..wh..opq", "").finish();
    let image = Image::new([layer("old").finish(), opaque, layer("top").finish()]);
    load(&store, &Layout::of("localhost/opaque:1", &image).archive());
    assert_holds(&store, "localhost/opaque:1", &["new", "top"]);
    assert_eq!(store.ok(["ls", "localhost/opaque:1"]), "new\ntop\n");
}
