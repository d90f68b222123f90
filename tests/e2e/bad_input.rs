//! Bad input gives one sentence and an exit status, and leaves the store as it was.

use std::path::Path;

use layerstore_testkit::disk::Disk;
use layerstore_testkit::docker::Archive;
use layerstore_testkit::image::{Image, Layout, Member, pack};
use layerstore_testkit::layer::{Compression, LayerBuilder};
use layerstore_testkit::sandbox::{Run, Sandbox};
use layerstore_testkit::{digest, hex_of};
use serde_json::json;

use crate::small_layer;

const FAILED: i32 = 1;
const NOT_FOUND: i32 = 3;
const CORRUPT: i32 = 5;

/// A store that holds one image already.
fn store() -> Option<Sandbox> {
    let store = Sandbox::new()?;
    store.load_bytes(&Layout::of("localhost/there:1", &Image::new([small_layer("there")])).archive());
    Some(store)
}

fn image() -> Image {
    // Big enough that its layers are on disk before the end of the archive is seen.
    let noise: Vec<u8> =
        (0..1_000_000_u32).flat_map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    Image::new([LayerBuilder::gzip().file("noise", noise).finish(), small_layer("top")])
}

/// Loads `archive` from a file and from standard input; both must fail alike. Returns the sentence.
#[track_caller]
fn rejected(store: &Sandbox, archive: &[u8], code: i32) -> String {
    let before = store.state();
    let path = store.write("bad.tar", archive);
    let sentence = store.run(["load", "-i", path.to_str().unwrap()]).failure(code);
    assert_eq!(store.state(), before, "after: {sentence}");
    // An archive that is empty must be empty on standard input as well, so it comes from the file.
    let mut command = store.command(["load"]);
    command.stdin(std::fs::File::open(&path).unwrap());
    let other = Run::of(&mut command, &[]).failure(code);
    assert_eq!(store.state(), before, "after: {other}");
    store.assert_no_leftovers();
    sentence
}

#[track_caller]
fn assert_names(sentence: &str, what: &str) {
    assert!(sentence.contains(what), "`{sentence}` does not name `{what}`");
}

#[test]
fn privileged_a_truncated_archive() {
    let Some(store) = store() else { return };
    let oci = Layout::of("localhost/bad:1", &image()).archive();
    let docker = Archive::new().image(&["localhost/bad:1"], &image()).legacy();
    for archive in [oci, docker] {
        for part in [3, 2] {
            rejected(&store, &archive[..archive.len() * (part - 1) / part], CORRUPT);
        }
    }
}

#[test]
fn privileged_a_blob_that_does_not_match_its_digest() {
    let Some(store) = store() else { return };
    let image = image();
    let manifest = digest(image.manifest().to_string().as_bytes());
    for digest in [image.layers[0].digest(), image.layers[1].digest(), image.id(), manifest] {
        let mut layout = Layout::of("localhost/bad:1", &image);
        let blob = layout.blobs.get_mut(&digest).unwrap();
        let middle = blob.len() / 2;
        blob[middle] ^= 1;
        assert_names(&rejected(&store, &layout.archive(), CORRUPT), &digest);
    }
}

#[test]
fn privileged_a_blob_of_another_size_than_its_descriptor_says() {
    let Some(store) = store() else { return };
    let image = image();
    let mut layout = Layout::of("localhost/bad:1", &image);
    layout.blobs.get_mut(&image.layers[1].digest()).unwrap().push(0);
    assert_names(&rejected(&store, &layout.archive(), CORRUPT), &image.layers[1].digest());
}

#[test]
fn privileged_a_layer_that_does_not_match_its_diff_id() {
    let Some(store) = store() else { return };
    let mut image = image();
    let wrong = format!("sha256:{:064}", 7);
    image.config["rootfs"]["diff_ids"][1] = json!(wrong);
    for archive in [
        Layout::of("localhost/bad:1", &image).archive(),
        Archive::new().image(&["localhost/bad:1"], &image).legacy(),
        Archive::new().image(&["localhost/bad:1"], &image).modern(),
    ] {
        assert_names(&rejected(&store, &archive, CORRUPT), &wrong);
    }
}

/// What a `docker-archive` calls a layer is checked even when nothing is unpacked.
#[test]
fn privileged_a_wrong_diff_id_is_found_without_unpacking() {
    let Some(store) = store() else { return };
    for compression in [Compression::None, Compression::Gzip] {
        let layers = ["a", "b"].map(|name| LayerBuilder::new(compression).file(name, name).finish());
        let mut image = Image::new(layers);
        let wrong = format!("sha256:{:064}", 7);
        image.config["rootfs"]["diff_ids"][1] = json!(wrong);
        let before = store.state();
        let archive = Archive::new().image(&["localhost/bad:1"], &image).legacy();
        let path = store.write("bad.tar", &archive);
        let file = store.run(["load", "--no-unpack", "-i", path.to_str().unwrap()]);
        let pipe = store.run_with(["load", "--no-unpack"], &archive);
        for run in [file, pipe] {
            assert_names(&run.failure(CORRUPT), &wrong);
        }
        assert_eq!(store.state(), before);
    }
}

#[test]
fn privileged_a_pipe_that_ends_at_once() {
    let Some(store) = store() else { return };
    let before = store.state();
    let mut command = store.command(["load"]);
    Run::of(command.stdin(std::process::Stdio::piped()), &[]).failure(FAILED);
    assert_eq!(store.state(), before);
}

#[test]
fn privileged_a_blob_that_is_not_in_the_archive() {
    let Some(store) = store() else { return };
    let image = image();
    for digest in [image.layers[0].digest(), image.id()] {
        let mut layout = Layout::of("localhost/bad:1", &image);
        layout.blobs.remove(&digest);
        assert_names(&rejected(&store, &layout.archive(), CORRUPT), &digest);
    }
    let manifest =
        json!([{"Config": "config.json", "RepoTags": ["localhost/bad:1"], "Layers": ["layer.tar"]}]);
    let archive = pack([
        ("config.json", Member::File(&image.config_bytes())),
        ("manifest.json", Member::File(manifest.to_string().as_bytes())),
    ]);
    rejected(&store, &archive, CORRUPT);
}

#[test]
fn privileged_another_number_of_diff_ids_than_layers() {
    let Some(store) = store() else { return };
    let mut image = image();
    image.config["rootfs"]["diff_ids"].as_array_mut().unwrap().pop();
    rejected(&store, &Layout::of("localhost/bad:1", &image).archive(), CORRUPT);
    rejected(&store, &Archive::new().image(&["localhost/bad:1"], &image).legacy(), CORRUPT);
}

#[test]
fn privileged_what_is_not_an_image() {
    let Some(store) = store() else { return };
    rejected(&store, &[], FAILED);
    rejected(&store, b"hello, world\n", FAILED);
    rejected(&store, &pack([("etc/passwd", Member::File(b"root:x:0:0"))]), FAILED);
    rejected(&store, &pack([]), FAILED);
}

#[test]
fn privileged_json_that_is_not_a_manifest() {
    let Some(store) = store() else { return };
    for text in ["{", "null", "42", r#"{"Config": "x"}"#, r#"[{"Layers": 7}]"#] {
        rejected(&store, &pack([("manifest.json", Member::File(text.as_bytes()))]), FAILED);
    }
    let mut layout = Layout::of("localhost/bad:1", &image());
    let digest = layout.blob(br#"{"schemaVersion": 2, "layers": 7}"#);
    layout.index["manifests"][0]["digest"] = json!(digest);
    layout.index["manifests"][0]["size"] = json!(layout.blobs[&digest].len());
    assert_names(&rejected(&store, &layout.archive(), FAILED), &digest);
    layout.index = json!({"schemaVersion": 2, "manifests": "none"});
    rejected(&store, &layout.archive(), FAILED);
}

#[test]
fn privileged_an_unknown_media_type_is_kept_and_not_unpacked() {
    for piped in [false, true] {
        unknown_media_type(piped);
    }
}

fn unknown_media_type(piped: bool) {
    let Some(store) = store() else { return };
    let mut image = image();
    "application/vnd.example.layer+xyz".clone_into(&mut image.layers[1].media_type);
    let archive = Layout::of("localhost/odd:1", &image).archive();
    let run = if piped { store.run_with(["load"], &archive).success() } else { store.load_bytes(&archive) };
    assert_names(&run.stderr, "application/vnd.example.layer+xyz");
    assert!(store.names("blobs/sha256").contains(hex_of(&image.layers[1].digest())));
    let unpacked = format!("SELECT id FROM tree WHERE diff_id = '{}'", image.layers[1].diff_id);
    assert_eq!(store.sql(&unpacked), Vec::<String>::new());
    let trees = store.root().join("overlay2");
    assert!(store.names("overlay2").iter().all(|id| !trees.join(id).join("diff/top").exists()));
    store.assert_nothing_to_collect();
    store.assert_no_leftovers();
    let dir = store.dir().join("odd");
    std::fs::create_dir(&dir).unwrap();
    let sentence = store.run(["mount", "localhost/odd:1", dir.to_str().unwrap()]).failure(FAILED);
    assert_names(&sentence, "localhost/odd:1");
}

#[test]
fn privileged_no_matching_platform() {
    let Some(store) = store() else { return };
    let image = |arch: &str, variant| Image::new([small_layer(arch)]).platform("linux", arch, variant);
    let layout =
        Layout::new().platforms("localhost/bad:1", &[image("mips64le", None), image("arm", Some("v5"))]);
    let sentence = rejected(&store, &layout.archive(), NOT_FOUND);
    assert_names(&sentence, "linux/mips64le");
    assert_names(&sentence, "linux/arm/v5");
}

#[test]
fn privileged_a_name_that_is_not_a_reference() {
    let Some(store) = store() else { return };
    let archive = Archive::new().image(&["localhost/Upper Case:1"], &image()).legacy();
    assert_names(&rejected(&store, &archive, FAILED), "localhost/Upper Case:1");
    for name in ["UPPER", "a//b", "a:b:c", "localhost/a:-x", "a@sha256:12"] {
        let before = store.state();
        assert_names(&store.run(["tag", "localhost/there:1", name]).failure(FAILED), name);
        assert_eq!(store.state(), before);
    }
}

#[test]
fn privileged_an_archive_that_is_not_there() {
    let Some(store) = store() else { return };
    assert_names(&store.run(["load", "-i", "/no/such/archive"]).failure(NOT_FOUND), "/no/such/archive");
}

#[test]
fn privileged_a_root_that_cannot_be_written() {
    let disk = layerstore_testkit::require::root().then(|| Disk::tmpfs(8));
    let Some(disk) = disk else { return };
    disk.make_read_only();
    for root in [disk.path().join("store"), Path::new("/proc/version/store").to_owned()] {
        let Some(store) = Sandbox::at(&root) else { return };
        let path = store.write("good.tar", &Layout::of("localhost/a:1", &image()).archive());
        let sentence = store.run(["load", "-i", path.to_str().unwrap()]).failure(FAILED);
        assert_names(&sentence, root.to_str().unwrap());
    }
}

#[test]
fn privileged_a_store_of_a_newer_layerstore() {
    let Some(store) = store() else { return };
    store.execute("PRAGMA user_version = 999");
    for args in [&["images"][..], &["load", "-i", "archive.tar"]] {
        assert_names(&store.run(args).failure(FAILED), "999");
    }
    assert_eq!(store.sql("PRAGMA user_version"), ["999"]);
}

#[test]
fn privileged_a_name_that_would_pass_for_an_image_id() {
    let Some(store) = store() else { return };
    let id = image().id();
    let before = store.state();
    let archive = Layout::of(&id, &image()).archive();
    assert_names(&rejected(&store, &archive, FAILED), "image ID");
    store.run(["tag", "localhost/there:1", &id]).failure(FAILED);
    store.run(["tag", "localhost/there:1", &format!("localhost/x@{id}")]).failure(FAILED);
    assert_eq!(store.state(), before);
}

#[test]
fn privileged_a_mount_point_in_the_store_or_around_it() {
    let Some(store) = store() else { return };
    let root = store.root().to_path_buf();
    for target in [root.clone(), root.join("overlay2"), root.parent().unwrap().to_path_buf()] {
        let sentence = store.run(["mount", "localhost/there:1", target.to_str().unwrap()]).failure(FAILED);
        assert_names(&sentence, "part of the store");
    }
}
