//! `save`: what is in the archive, and what becomes of its file.

mod choice;
mod peers;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use layerstore_testkit::hex_of;
use layerstore_testkit::image::{CONFIG, Image, Layout, MANIFEST, descriptor};
use layerstore_testkit::layer::{Compression, Layer, LayerBuilder};
use layerstore_testkit::sandbox::{Run, Sandbox};
use serde_json::{Value, json};

use crate::{small_layer, varied_image};

/// Saves into a file, and returns where it is.
#[track_caller]
fn save(store: &Sandbox, args: &[&str]) -> PathBuf {
    let path = store.dir().join("saved.tar");
    let run = store.run([&["save", "-o", path.to_str().unwrap()], args].concat()).success();
    assert_eq!(run.stdout, "");
    path
}

/// The members of an archive, as GNU tar unpacks them.
#[derive(Debug)]
struct Unpacked(tempfile::TempDir);

impl Unpacked {
    #[track_caller]
    fn of(archive: &Path) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let tar = Command::new("tar").arg("-xf").arg(archive).arg("-C").arg(dir.path()).status().unwrap();
        assert!(tar.success());
        Self(dir)
    }

    fn json(&self, member: &str) -> Value {
        serde_json::from_slice(&fs::read(self.0.path().join(member)).unwrap()).unwrap()
    }

    fn blob(&self, digest: &str) -> Vec<u8> {
        fs::read(self.0.path().join("blobs/sha256").join(hex_of(digest))).unwrap()
    }

    fn blobs(&self) -> usize {
        fs::read_dir(self.0.path().join("blobs/sha256")).unwrap().count()
    }

    /// Names and digests in `index.json`.
    fn index(&self) -> Vec<(String, String)> {
        let index = self.json("index.json");
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let entry =
            |entry: &Value| (text(&entry["annotations"]["io.containerd.image.name"]), text(&entry["digest"]));
        index["manifests"].as_array().unwrap().iter().map(entry).collect()
    }
}

fn blob_path(store: &Sandbox, digest: &str) -> PathBuf {
    store.root().join("blobs/sha256").join(hex_of(digest))
}

/// Changes a bit in the middle of a blob.
fn damage(store: &Sandbox, digest: &str) {
    let path = blob_path(store, digest);
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::remove_file(&path).unwrap();
    fs::write(&path, bytes).unwrap();
}

fn every_compression() -> Image {
    let layer = |compression, name: &str| LayerBuilder::new(compression).file(name, name).finish();
    Image::new([
        layer(Compression::None, "none"),
        layer(Compression::Gzip, "gzip"),
        layer(Compression::Zstd, "zstd"),
    ])
}

#[test]
fn privileged_the_archive_has_the_original_bytes() {
    let Some(store) = Sandbox::new() else { return };
    let image = every_compression();
    let layout = Layout::of("localhost/a:1", &image);
    store.load_bytes(&layout.archive());
    let docker = Unpacked::of(&save(&store, &["localhost/a:1"]));
    let oci = Unpacked::of(&save(&store, &["--format", "oci", "localhost/a:1"]));
    for unpacked in [&docker, &oci] {
        for (digest, bytes) in &layout.blobs {
            assert_eq!(&unpacked.blob(digest), bytes, "{digest}");
        }
        assert_eq!(unpacked.blobs(), layout.blobs.len());
        assert_eq!(unpacked.json("index.json"), layout.index);
        assert_eq!(unpacked.json("oci-layout"), json!({"imageLayoutVersion": "1.0.0"}));
    }
    let path = |digest: &str| format!("blobs/sha256/{}", hex_of(digest));
    let layers: Vec<_> = image.layers.iter().map(|layer| path(&layer.digest())).collect();
    let entry = json!({"Config": path(&image.id()), "RepoTags": ["localhost/a:1"], "Layers": layers});
    assert_eq!(docker.json("manifest.json"), json!([entry]));
    assert!(!oci.0.path().join("manifest.json").exists());
}

/// Also from another store, and of what came as a stream.
#[test]
fn privileged_the_same_images_give_the_same_bytes() {
    let (Some(store), Some(other)) = (Sandbox::new(), Sandbox::new()) else { return };
    let layout = Layout::of("localhost/a:1", &varied_image()).image("localhost/b:1", &every_compression());
    store.load_bytes(&layout.archive());
    other.run_with(["load"], &layout.archive()).success();
    for form in ["docker", "oci"] {
        let save =
            |store| fs::read(save(store, &["--format", form, "localhost/b:1", "localhost/a:1"])).unwrap();
        let saved = save(&store);
        assert!(saved == save(&store) && saved == save(&other), "{form}");
    }
}

#[test]
fn privileged_members_have_no_owner_no_time_and_a_fixed_order() {
    let Some(store) = Sandbox::new() else { return };
    store.load_bytes(&Layout::of("localhost/a:1", &Image::new([small_layer("a")])).archive());
    let mut tar = Command::new("tar");
    tar.env("TZ", "UTC").args(["--numeric-owner", "-tvf"]).arg(save(&store, &["localhost/a:1"]));
    let list = Run::of(&mut tar, &[]).success().stdout;
    let mut names = Vec::new();
    for line in list.lines() {
        let mode = if line.ends_with('/') { "drwxr-xr-x" } else { "-rw-r--r--" };
        assert!(line.starts_with(&format!("{mode} 0/0 ")) && line.contains(" 1970-01-01 00:00 "), "{line}");
        names.push(line.rsplit_once(' ').unwrap().1);
    }
    assert_eq!(names[..5], ["oci-layout", "index.json", "manifest.json", "blobs/", "blobs/sha256/"]);
    let again = Sandbox::new().unwrap();
    let piped = again.run_with(["load"], &fs::read(store.dir().join("saved.tar")).unwrap()).success();
    assert_eq!(piped.loaded(), ["localhost/a:1"]);
}

#[test]
fn privileged_a_damaged_blob_is_named_and_the_old_file_stays() {
    let Some(store) = Sandbox::new() else { return };
    let image = Image::new([small_layer("a"), small_layer("b")]);
    let archive = Layout::of("localhost/a:1", &image).archive();
    let manifest = layerstore_testkit::digest(image.manifest().to_string().as_bytes());
    let out = store.dir().join("out");
    fs::create_dir(&out).unwrap();
    let (old, new) = (out.join("old.tar"), out.join("new.tar"));
    fs::write(&old, "old").unwrap();
    store.load_bytes(&archive);
    for digest in [image.layers[1].digest(), image.id(), manifest] {
        for path in [&old, &new] {
            damage(&store, &digest);
            let sentence = store.run(["save", "-o", path.to_str().unwrap(), "localhost/a:1"]).failure(5);
            assert!(sentence.contains(&digest) && sentence.contains("damaged"), "{sentence}");
            assert_eq!(fs::read_dir(&out).unwrap().count(), 1);
            assert_eq!(fs::read_to_string(&old).unwrap(), "old");
            store.load_bytes(&archive);
        }
        save(&store, &["localhost/a:1"]);
    }
}

#[test]
fn privileged_missing_blobs_are_named_before_anything_is_written() {
    let Some(store) = Sandbox::new() else { return };
    let image = Image::new([small_layer("a"), small_layer("b"), small_layer("c")]);
    store.load_bytes(&Layout::of("localhost/a:1", &image).archive());
    let gone: Vec<_> = image.layers[1..].iter().map(Layer::digest).collect();
    fs::remove_file(blob_path(&store, &gone[0])).unwrap();
    let run = store.run(["save", "localhost/a:1"]);
    assert_eq!(run.stdout, "");
    assert!(run.failure(5).contains(&gone[0]));
    for digest in &gone {
        fs::remove_file(blob_path(&store, digest)).ok();
        store.execute(&format!("DELETE FROM blob WHERE digest = '{digest}'"));
    }
    let run = store.run(["save", "localhost/a:1"]);
    assert_eq!(run.stdout, "");
    let sentence = run.failure(3);
    assert!(gone.iter().all(|digest| sentence.contains(digest)), "{sentence}");
    let run = store.run(["save", "localhost/b:1"]);
    assert!(run.failure(3).contains("no such image: localhost/b:1"));
}

#[test]
fn privileged_the_archive_goes_where_it_is_wanted() {
    let Some(store) = Sandbox::new() else { return };
    store.load_bytes(&Layout::of("localhost/a:1", &Image::new([small_layer("a")])).archive());
    let saved = fs::read(save(&store, &["localhost/a:1"])).unwrap();
    for args in [&["save", "localhost/a:1"][..], &["image", "save", "-o", "-", "localhost/a:1"]] {
        let out = store.command(args).output().unwrap();
        assert!(out.status.success() && out.stdout == saved);
    }
    // A pipe, by a name that stays what it is.
    let pipe = store.dir().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let reader = std::thread::spawn({
        let pipe = pipe.clone();
        move || fs::read(pipe).unwrap()
    });
    store.ok(["save", "-o", pipe.to_str().unwrap(), "localhost/a:1"]);
    assert!(reader.join().unwrap() == saved);
    for args in [&["save", "-o", "/dev/full", "localhost/a:1"][..], &["save", "localhost/a:1"]] {
        let full = File::create("/dev/full").unwrap();
        let out = store.command(args).stdout(full).output().unwrap();
        let talk = String::from_utf8(out.stderr).unwrap();
        assert!(out.status.code() == Some(6) && talk.contains("No space left on device"), "{talk}");
    }
    for (path, why) in
        [("/no/such/folder/a.tar", "No such file"), (store.dir().to_str().unwrap(), "directory")]
    {
        let run = store.run(["save", "-o", path, "localhost/a:1"]);
        let sentence = run.stderr.clone();
        assert!(run.code != 0 && sentence.contains(path) && sentence.contains(why), "{sentence}");
    }
}

#[test]
fn privileged_a_terminal_gets_no_archive() {
    let Some(store) = Sandbox::new() else { return };
    let pty = "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))";
    let save = store.command(["--color", "never", "save", "localhost/a:1"]);
    let mut python = Command::new("python3");
    python.args(["-c", pty]).arg(save.get_program()).args(save.get_args());
    let run = Run::of(&mut python, &[]);
    assert_eq!(run.code, 2, "{run}");
    assert!(run.stdout.contains("error: an archive is nothing for a terminal"), "{run}");
    assert!(run.stdout.contains("hint: name a file with -o"), "{run}");
}

#[test]
fn privileged_an_artifact_goes_into_an_oci_archive_only() {
    let Some(store) = Sandbox::new() else { return };
    let mut layout = Layout::new();
    layout.blob(b"{}");
    layout.blob(b"a chart");
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": "application/vnd.example.chart",
        "config": descriptor("application/vnd.oci.empty.v1+json", b"{}"),
        "layers": [descriptor("application/vnd.example.chart.content", b"a chart")],
    });
    let manifest = manifest.to_string().into_bytes();
    layout.blob(&manifest);
    layout.list("localhost/chart:1", descriptor(MANIFEST, &manifest));
    store.load_bytes(&layout.archive());
    let sentence = store.run(["save", "localhost/chart:1"]).failure(1);
    assert!(sentence.contains("`localhost/chart:1` is no image"), "{sentence}");
    let saved = Unpacked::of(&save(&store, &["--format", "oci-archive", "localhost/chart:1"]));
    assert_eq!(saved.blobs(), layout.blobs.len());
}

/// Docker gives them back the place where they come from.
#[test]
fn privileged_foreign_layers_go_along_with_their_source() {
    let Some(store) = Sandbox::new() else { return };
    let mut image = Image::new([small_layer("base"), small_layer("foreign")]);
    image.layers[1].media_type = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip".to_owned();
    let mut manifest = image.manifest();
    manifest["layers"][1]["urls"] = json!(["https://foreign.invalid/layer"]);
    assert_eq!(manifest["config"]["mediaType"], CONFIG);
    let bytes = manifest.to_string().into_bytes();
    let mut layout = Layout::new();
    layout.parts(&image);
    layout.blob(&bytes);
    layout.list("localhost/a:1", descriptor(MANIFEST, &bytes));
    store.load_bytes(&layout.archive());
    let saved = Unpacked::of(&save(&store, &["localhost/a:1"]));
    assert_eq!(saved.blob(&image.layers[1].digest()), image.layers[1].blob);
    let sources = &saved.json("manifest.json")[0]["LayerSources"];
    assert_eq!(sources, &json!({ &image.layers[1].diff_id: manifest["layers"][1] }));
}
