//! The everyday verbs: what they print, and with which status they end.

use layerstore_testkit::digest;
use layerstore_testkit::image::{Image, Layout};
use layerstore_testkit::layer::{Entry, LayerBuilder};
use layerstore_testkit::sandbox::Sandbox;
use serde_json::json;

use crate::{small_layer, varied_image};

const WRONG_USAGE: i32 = 2;
const NOT_FOUND: i32 = 3;
const IN_USE: i32 = 4;

fn image() -> Image {
    Image::new([small_layer("base"), small_layer("top")])
}

fn store() -> Option<Sandbox> {
    let store = Sandbox::new()?;
    store.load_bytes(&Layout::of("localhost/a:1", &image()).archive());
    Some(store)
}

#[test]
fn privileged_images_prints_dockers_table() {
    let Some(store) = store() else { return };
    let out = store.ok(["images"]);
    let mut lines = out.lines();
    let heading: Vec<_> =
        lines.next().unwrap().split("  ").map(str::trim).filter(|w| !w.is_empty()).collect();
    assert_eq!(heading, ["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE"]);
    let row: Vec<_> = lines.next().unwrap().split_whitespace().collect();
    let id = image().id();
    assert_eq!(row[..3], ["localhost/a", "1", &id["sha256:".len()..][..12]]);
    assert_eq!(lines.next(), None);

    assert_eq!(store.ok(["image", "ls"]), out);
    assert_eq!(store.ok(["images", "-q", "--no-trunc"]).trim_end(), id);
    assert_eq!(store.ok(["images", "--format", "{{.Repository}}:{{.Tag}}"]), "localhost/a:1\n");
    assert!(store.ok(["images", "--format", "table {{.ID}}\t{{.Size}}"]).starts_with("IMAGE ID"));
    let manifest = digest(image().manifest().to_string().as_bytes());
    assert!(store.ok(["images", "--digests"]).contains(&manifest));
    assert_eq!(store.ok(["images", "--filter", "reference=localhost/b*", "-q"]), "");
    assert_eq!(store.ok(["images", "--filter", "reference=localhost/a*", "-q"]).lines().count(), 1);
}

#[test]
fn privileged_images_prints_dockers_json() {
    let Some(store) = store() else { return };
    let rows = store.json_lines(["images", "--no-trunc", "--format", "json"]);
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0]["Repository"], "localhost/a");
    assert_eq!(rows[0]["Tag"], "1");
    assert_eq!(rows[0]["ID"], image().id());
    for field in ["Digest", "CreatedAt", "CreatedSince", "Size", "SharedSize", "UniqueSize", "Containers"] {
        assert!(rows[0][field].is_string(), "{field} is a string, as Docker prints it: {}", rows[0]);
    }
}

#[test]
fn privileged_inspect_prints_dockers_array() {
    let Some(store) = store() else { return };
    let found = store.json(["inspect", "localhost/a:1"]);
    let found = &found[0];
    let image = image();
    assert_eq!(found["Id"], image.id());
    assert_eq!(found["RepoTags"], json!(["localhost/a:1"]));
    assert_eq!(found["Architecture"], image.config["architecture"]);
    assert_eq!(found["Os"], "linux");
    assert_eq!(found["Config"]["Cmd"], json!(["sh"]));
    assert_eq!(found["RootFS"], json!({"Type": "layers", "Layers": image.config["rootfs"]["diff_ids"]}));
    assert!(found["Size"].is_u64());
    let platform = store.ok(["inspect", "--format", "{{.Os}}/{{.Architecture}}", "localhost/a:1"]);
    assert_eq!(platform, format!("linux/{}\n", image.config["architecture"].as_str().unwrap()));
    let root = store.json(["inspect", "--format", "{{json .RootFS}}", "localhost/a:1"]);
    assert_eq!(root["Type"], "layers");
}

#[test]
fn privileged_an_image_is_found_by_its_id_and_its_digest() {
    let Some(store) = store() else { return };
    let id = image().id();
    let manifest = digest(image().manifest().to_string().as_bytes());
    let hex = &id["sha256:".len()..];
    for name in [&id, hex, &hex[..12], &hex[..4], &format!("localhost/a@{manifest}")] {
        assert_eq!(store.json(["inspect", name])[0]["Id"], *id, "{name}");
    }
    store.run(["inspect", "ffffffffffff"]).failure(NOT_FOUND);
}

#[test]
fn privileged_history_lists_the_steps_latest_first() {
    let Some(store) = store() else { return };
    let out = store.ok(["history", "localhost/a:1"]);
    let lines: Vec<_> = out.lines().collect();
    assert!(lines[0].starts_with("IMAGE") && lines[0].contains("CREATED BY"), "{out}");
    assert!(lines[1].contains("step 1") && lines[2].contains("step 0"), "{out}");
    assert_eq!(lines.len(), 3);
}

#[test]
fn privileged_tag_and_rmi() {
    let Some(store) = store() else { return };
    store.ok(["tag", "localhost/a:1", "localhost/b:2"]);
    let names = |store: &Sandbox| {
        let out = store.ok(["images", "--format", "{{.Repository}}:{{.Tag}}"]);
        let mut names: Vec<_> = out.lines().map(str::to_owned).collect();
        names.sort();
        names
    };
    assert_eq!(names(&store), ["localhost/a:1", "localhost/b:2"]);
    assert_eq!(store.ok(["rmi", "localhost/a:1"]), "Untagged: localhost/a:1\n");
    assert_eq!(names(&store), ["localhost/b:2"]);
    let out = store.ok(["rmi", "localhost/b:2"]);
    assert!(out.contains("Untagged: localhost/b:2\n"), "{out}");
    assert!(out.contains(&format!("Deleted: {}\n", image().id())), "{out}");
    assert_eq!(names(&store), Vec::<String>::new());
    store.run(["rmi", "localhost/b:2"]).failure(NOT_FOUND);
    store.run(["tag", "localhost/b:2", "localhost/c:1"]).failure(NOT_FOUND);
}

#[test]
fn privileged_a_mounted_image_is_not_removed() {
    let Some(store) = store() else { return };
    let root = store.mount("localhost/a:1");
    store.run(["rmi", "localhost/a:1"]).failure(IN_USE);
    assert_eq!(std::fs::read_to_string(root.join("top")).unwrap(), "top");
    assert!(std::fs::write(root.join("new"), "x").is_err(), "an image is mounted read-only");
    store.umount(&root);
    store.ok(["rmi", "localhost/a:1"]);
}

#[test]
fn privileged_mount_without_a_directory_prints_where() {
    let Some(store) = store() else { return };
    let out = store.ok(["mount", "localhost/a:1"]);
    let root = std::path::Path::new(out.trim_end());
    assert_eq!(std::fs::read_to_string(root.join("base")).unwrap(), "base");
    layerstore_testkit::sandbox::until_free(|| store.run(["umount", "localhost/a:1"])).success();
    assert!(!root.join("base").exists());
}

#[test]
fn privileged_ls_and_cat_look_through_the_layers() {
    let Some(store) = Sandbox::new() else { return };
    store.load_bytes(&Layout::of("localhost/v:1", &varied_image()).archive());
    let ls = |path: &str| store.ok(["ls", "localhost/v:1", path]);
    assert!(ls("/").lines().any(|l| l.ends_with("etc")));
    assert!(!ls("/").contains("gone"), "deleted by the upper layer");
    assert!(!ls("/opaque").contains("hidden") && ls("/opaque").contains("seen"));
    assert!(!ls("/").contains(".wh."));
    assert_eq!(store.ok(["cat", "localhost/v:1", "/etc/hostname"]), "above\n");
    assert_eq!(store.ok(["cat", "localhost/v:1", "etc/precise"]), "p", "with or without the slash");
    assert_eq!(store.ok(["cat", "localhost/v:1", "/bin/tool"]), "#!/bin/sh\n", "through a symbolic link");
    for path in ["/gone/file", "/opaque/hidden", "/no/such"] {
        store.run(["cat", "localhost/v:1", path]).failure(NOT_FOUND);
        store.run(["ls", "localhost/v:1", path]).failure(NOT_FOUND);
    }
    store.run(["ls", "localhost/nope:1"]).failure(NOT_FOUND);
}

/// Links lead to places inside the image only, as they would in a container.
#[test]
fn privileged_cat_stays_inside_the_image() {
    let Some(store) = Sandbox::new() else { return };
    let secret = store.write("secret", b"of the host");
    let layer = LayerBuilder::gzip()
        .symlink("absolute", secret.to_str().unwrap())
        .symlink("climbing", "../../../../../../../../etc/passwd")
        .entry(Entry::dir("etc/"))
        .symlink("loop", "loop");
    store.load_bytes(&Layout::of("localhost/l:1", &Image::new([layer.finish()])).archive());
    for path in ["/absolute", "/climbing", "/../../../../etc/passwd", secret.to_str().unwrap()] {
        store.run(["cat", "localhost/l:1", path]).failure(NOT_FOUND);
    }
    let run = store.run(["cat", "localhost/l:1", "/loop"]);
    assert!(run.code != 0 && run.stdout.is_empty(), "{run}");
}

#[test]
fn privileged_load_talks_to_stderr_and_is_quiet_when_asked() {
    let Some(store) = Sandbox::new() else { return };
    let archive = store.write("a.tar", &Layout::of("localhost/a:1", &image()).archive());
    let archive = archive.to_str().unwrap();
    let run = store.run(["load", "-i", archive]).success();
    assert_eq!(run.stdout, "Loaded image: localhost/a:1\n");
    let run = store.run(["--progress", "plain", "load", "-i", archive]).success();
    assert_eq!(run.reused_layers(), 2, "{run}");
    let run = store.run(["-q", "load", "-i", archive]).success();
    assert_eq!((run.stderr.as_str(), run.reused_layers()), ("", 0));
}

#[test]
fn privileged_info_version_and_completions() {
    let Some(store) = store() else { return };
    assert!(store.ok(["version"]).contains(env!("CARGO_PKG_VERSION")));
    assert!(store.ok(["--version"]).contains(env!("CARGO_PKG_VERSION")));
    assert!(store.ok(["info"]).contains(store.root().to_str().unwrap()));
    for shell in ["bash", "zsh", "fish"] {
        assert!(store.ok(["completions", shell]).contains("layerstore"), "{shell}");
    }
    assert!(store.ok(["--help"]).contains("load"));
}

#[test]
fn privileged_wrong_usage() {
    let Some(store) = store() else { return };
    for args in [&["no-such-verb"][..], &["tag", "localhost/a:1"], &["images", "--no-such-option"], &["ls"]] {
        let run = store.run(args);
        assert_eq!(run.code, WRONG_USAGE, "{run}");
        assert!(run.stderr.starts_with("error: ") && run.stdout.is_empty(), "{run}");
    }
    let run = store.run(["images", "--format", "{{.Nope"]);
    assert!(run.code != 0 && run.stderr.starts_with("error: "), "{run}");
}
