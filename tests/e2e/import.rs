//! Images of a root filesystem in a tar archive.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use layerstore_testkit::image::{Image, Layout, host_architecture};
use layerstore_testkit::layer::Compression;
use layerstore_testkit::podman::Podman;
use layerstore_testkit::registry::Registry;
use layerstore_testkit::sandbox::{Run, Sandbox};
use layerstore_testkit::tree::Snapshot;
use layerstore_testkit::{digest, require};
use serde_json::{Value, json};

use crate::remote::push;
use crate::small_layer;

const WRONG_USAGE: i32 = 2;
const NOT_FOUND: i32 = 3;
const CORRUPT: i32 = 5;

/// A small root filesystem.
fn tree(store: &Sandbox) -> PathBuf {
    let root = store.dir().join("rootfs");
    fs::create_dir_all(root.join("etc/empty")).unwrap();
    fs::create_dir(root.join("bin")).unwrap();
    fs::write(root.join("etc/hostname"), "here\n").unwrap();
    fs::write(root.join("bin/tool"), vec![7; 100_000]).unwrap();
    fs::set_permissions(root.join("bin/tool"), fs::Permissions::from_mode(0o4755)).unwrap();
    fs::hard_link(root.join("bin/tool"), root.join("bin/too")).unwrap();
    symlink("../etc/hostname", root.join("bin/link")).unwrap();
    root
}

/// What GNU tar makes of a directory.
fn packed(root: &Path) -> Vec<u8> {
    let tar = Command::new("tar")
        .args(["--xattrs", "--xattrs-include=*", "--numeric-owner", "--format=pax", "-c", "."])
        .current_dir(root)
        .output()
        .unwrap();
    assert!(tar.status.success(), "{}", String::from_utf8_lossy(&tar.stderr));
    tar.stdout
}

fn id(run: &Run) -> String {
    let id = run.stdout.strip_suffix('\n').unwrap();
    assert!(id.starts_with("sha256:") && id.len() == 71, "{run}");
    id.to_owned()
}

#[test]
fn privileged_the_tree_is_the_one_that_was_packed_and_the_blob_is_the_archive() {
    let Some(store) = Sandbox::new() else { return };
    let root = tree(&store);
    let tar = packed(&root);
    for (name, compression) in
        [("plain", Compression::None), ("gz", Compression::Gzip), ("zst", Compression::Zstd)]
    {
        let archive = compression.compress(&tar);
        let file = store.write(name, &archive);
        let run = store.run(["import", file.to_str().unwrap(), name]).success();
        assert_eq!(store.ok(["images", "-q", "--no-trunc", name]).trim_end(), id(&run));
        assert!(store.names("blobs/sha256").contains(&digest(&archive)["sha256:".len()..]));
        let mounted = store.mount(name);
        Snapshot::of(&root).assert_same(&Snapshot::of(&mounted));
        store.umount(&mounted);
    }
    assert_eq!(store.names_of_trees(), 1, "one layer in three forms");
    store.assert_nothing_to_collect();
    store.assert_no_leftovers();
}

#[test]
fn privileged_a_pipe_is_imported_without_a_name() {
    let Some(store) = Sandbox::new() else { return };
    let tar = packed(&tree(&store));
    let run = store.run_with(["image", "import", "-"], &tar).success();
    let image = &store.json(["inspect", &id(&run)])[0];
    assert_eq!(image["RepoTags"], json!([]));
    assert_eq!((&image["Os"], &image["Architecture"]), (&json!("linux"), &json!(host_architecture())));
    assert_eq!(image["RootFS"]["Layers"], json!([digest(&tar)]));
    assert_eq!(image["Comment"], "Imported from -");
    let history = store.json_lines(["history", "--format", "json", &id(&run)]);
    assert_eq!((history.len(), &history[0]["Comment"]), (1, &json!("Imported from -")));
}

#[test]
fn privileged_changes_message_and_platform_are_the_images() {
    let Some(store) = Sandbox::new() else { return };
    let file = store.write("rootfs.tar", &packed(&tree(&store)));
    let file = file.to_str().unwrap();
    store.ok([
        "import",
        "-c",
        "ENTRYPOINT [\"/bin/tool\"]",
        "--change",
        "CMD [\"a\", \"b c\"]",
        "-c",
        "ENV A=1 B=\"x y\"",
        "-c",
        "ENV C=$A/z",
        "-c",
        "LABEL who=me",
        "-c",
        "EXPOSE 80 90/udp",
        "-c",
        "WORKDIR /srv",
        "-c",
        "WORKDIR app",
        "-c",
        "USER 7:8",
        "-c",
        "VOLUME /data",
        "-c",
        "STOPSIGNAL SIGINT",
        "-m",
        "by hand",
        "--platform",
        "linux/arm64/v8",
        file,
        "localhost/a:1",
    ]);
    let image = &store.json(["inspect", "localhost/a:1"])[0];
    assert_eq!((&image["Architecture"], &image["Comment"]), (&json!("arm64"), &json!("by hand")));
    assert_eq!(
        image["Config"],
        json!({
            "Entrypoint": ["/bin/tool"],
            "Cmd": ["a", "b c"],
            "Env": ["A=1", "B=x y", "C=1/z"],
            "Labels": {"who": "me"},
            "ExposedPorts": {"80/tcp": {}, "90/udp": {}},
            "WorkingDir": "/srv/app",
            "User": "7:8",
            "Volumes": {"/data": {}},
            "StopSignal": "SIGINT",
        })
    );
    assert!(store.ok(["history", "localhost/a:1"]).contains("by hand"));
}

#[test]
fn privileged_the_same_archive_at_the_same_time_is_the_same_image() {
    let Some(store) = Sandbox::new() else { return };
    let file = store.write("rootfs.tar", &packed(&tree(&store)));
    let at = |seconds: &str| {
        let mut command = store.command(["import", file.to_str().unwrap()]);
        Run::of(command.env("SOURCE_DATE_EPOCH", seconds), &[])
    };
    let first = id(&at("1600000000").success());
    assert_eq!(first, id(&at("1600000000").success()));
    assert_eq!(store.json(["inspect", &first])[0]["Created"], "2020-09-13T12:26:40Z");
    assert_ne!(first, id(&at("1600000001").success()));
    assert!(at("yesterday").failure(WRONG_USAGE).contains("SOURCE_DATE_EPOCH"));
}

#[test]
fn privileged_what_is_no_root_filesystem_is_refused_and_leaves_nothing() {
    let Some(store) = Sandbox::new() else { return };
    let tar = packed(&tree(&store));
    let images = Layout::of("localhost/a:1", &Image::new([small_layer("base")])).archive();
    let cut = |bytes: &[u8]| bytes[..bytes.len() / 2].to_vec();
    // Long ago, so that its age does not change while the test runs.
    let mut kept = store.command(["import", "-", "kept"]);
    Run::of(kept.env("SOURCE_DATE_EPOCH", "1000000000"), &tar).success();
    let before = store.state();
    for (bytes, code, words) in [
        (b"no tar archive at all, but some text".to_vec(), 1, "not a tar archive"),
        (b"\xfd7zXZ\0, or so it seems".to_vec(), 1, "xz data"),
        (cut(&tar), CORRUPT, "truncated"),
        (tar[..100].to_vec(), 1, "not a tar archive"),
        (cut(&Compression::Gzip.compress(&tar)), CORRUPT, "truncated"),
        (cut(&Compression::Zstd.compress(&tar)), CORRUPT, "truncated"),
        (images.clone(), 1, "an archive of images"),
        (Compression::Gzip.compress(&images), 1, "an archive of images"),
    ] {
        let run = store.run_with(["import", "-", "kept"], &bytes);
        let sentence = run.failure(code);
        assert!(sentence.contains(words), "{sentence}");
        assert_eq!(store.state(), before, "{words}");
    }
    assert!(store.run(["import", "-"]).failure(1).contains("the archive is empty"));
    let file = store.write("images.tar", &images);
    let run = store.run(["import", file.to_str().unwrap()]);
    assert!(run.stderr.contains(&format!("hint: `layerstore load -i {}`", file.display())), "{run}");
    assert!(store.run(["import", store.dir().to_str().unwrap()]).failure(1).contains("Is a directory"));
    assert_eq!(store.run(["import", "/no/such/file"]).code, NOT_FOUND);
    assert_eq!(store.run(["import", "https://example.com/rootfs.tar"]).code, WRONG_USAGE);
    assert_eq!(store.state(), before);
}

#[test]
fn privileged_wrong_names_and_changes_are_refused_before_anything_is_read() {
    let Some(store) = Sandbox::new() else { return };
    // A pipe to which nobody writes: reading it would not come to an end.
    let refused = |args: &[&str]| {
        let (reader, writer) = std::io::pipe().unwrap();
        let run = Run::of(store.command(args).stdin(Stdio::from(reader)), &[]);
        drop(writer);
        run
    };
    for (args, code) in [
        (&["import", "-c", "RUN make", "-", "a"][..], WRONG_USAGE),
        (&["import", "-c", "EXPOSE $UNSET", "-", "a"], WRONG_USAGE),
        (&["import", "--platform", "!", "-", "a"], 1),
        (&["import", "-", "UPPER"], 1),
        (&["import", "-", "sha256:1234"], 1),
    ] {
        let run = refused(args);
        assert_eq!(run.code, code, "{run}");
    }
    let digest = format!("a@{}", digest(b"x"));
    assert!(refused(&["import", "-", &digest]).failure(1).contains("a digest is not chosen"));
    assert_eq!(store.ok(["images", "-q"]), "");
}

#[test]
fn privileged_an_empty_archive_is_an_empty_root_as_dockers_scratch() {
    let Some(store) = Sandbox::new() else { return };
    store.run_with(["import", "-", "scratch-like"], &[0; 10240]).success();
    let mounted = store.mount("scratch-like");
    assert_eq!(fs::read_dir(mounted).unwrap().count(), 0);
}

#[test]
fn privileged_the_root_of_a_real_image_comes_back_as_it_was() {
    let (Some(store), Some(images)) = (Sandbox::new(), require::images()) else { return };
    store.load(images.join("app.oci.tar"));
    let app = store.mount("localhost/app:1");
    let expected = Snapshot::of(&app);
    let mut tar = Command::new("tar")
        .args(["--xattrs", "--xattrs-include=*", "--numeric-owner", "--format=pax", "-c", "."])
        .current_dir(&app)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut import = store.command(["import", "-", "localhost/flat:1"]);
    let run = Run::of(import.stdin(tar.stdout.take().unwrap()), &[]).success();
    assert!(tar.wait().unwrap().success());
    expected.assert_same(&Snapshot::of(store.mount("localhost/flat:1")));
    assert!(run.peak < 64 << 20, "{} bytes of memory", run.peak);
    let flat: &Value = &store.json(["inspect", "localhost/flat:1"])[0];
    assert_eq!(flat["RootFS"]["Layers"].as_array().unwrap().len(), 1);
}

#[test]
fn privileged_a_file_is_read_from_where_standard_input_stands() {
    let Some(store) = Sandbox::new() else { return };
    let tar = packed(&tree(&store));
    let path = store.dir().join("after-a-header");
    let mut file = fs::File::options().read(true).write(true).create_new(true).open(&path).unwrap();
    file.write_all(b"header").unwrap();
    file.write_all(&tar).unwrap();
    std::io::Seek::seek(&mut file, std::io::SeekFrom::Start(6)).unwrap();
    let run = Run::of(store.command(["import", "-"]).stdin(file), &[]).success();
    assert_eq!(store.json(["inspect", &id(&run)])[0]["RootFS"]["Layers"], json!([digest(&tar)]));
}

#[test]
fn privileged_podman_takes_what_was_imported() {
    if !require::registry() || !require::podman() {
        return;
    }
    let Some(store) = Sandbox::new() else { return };
    let registry = Registry::plain();
    let name = registry.reference("a:1");
    let file = store.write("rootfs.tar.gz", &Compression::Gzip.compress(&packed(&tree(&store))));
    let changes = ["-c", "CMD [\"/bin/tool\"]", "-c", "LABEL who=me"];
    let run =
        store.run(["import"].into_iter().chain(changes).chain([file.to_str().unwrap(), &name])).success();
    push(&store, &[&name]).success();
    let parent = std::env::var_os("LAYERSTORE_TEST_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
    let dir = tempfile::tempdir_in(parent).unwrap();
    let podman = Podman::new(dir.path());
    assert_eq!(podman.pull(&name), id(&run));
    let image = podman.inspect(&name);
    assert_eq!((&image["Config"]["Cmd"], &image["Labels"]["who"]), (&json!(["/bin/tool"]), &json!("me")));
    assert!(image["History"][0]["comment"].as_str().unwrap().starts_with("Imported from "));
    // Podman gives its root directory a mode and a time of its own.
    let [theirs, ours] = [podman.mount(&name), store.mount(&name)].map(|root| {
        let mut tree = Snapshot::of(root);
        tree.entries.remove(&[] as &[u8]);
        tree
    });
    theirs.assert_same(&ours);
}
