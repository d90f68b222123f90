//! Limits of what is unpacked, for the store and for one load; the sandbox.

use layerstore_testkit::image::{Image, Layout};
use layerstore_testkit::layer::{Entry, Layer, LayerBuilder};
use layerstore_testkit::sandbox::Sandbox;

fn archive(store: &Sandbox, layer: Layer) -> String {
    let path = store.write("archive.tar", &Layout::of("localhost/a:1", &Image::new([layer])).archive());
    path.to_str().unwrap().to_owned()
}

fn assert_empty(store: &Sandbox) {
    assert_eq!(store.sql("SELECT count(*) FROM blob"), ["0"]);
    assert_eq!(std::fs::read_dir(store.root().join("overlay2")).unwrap().count(), 0);
}

#[test]
fn privileged_a_limit_of_one_load_names_the_entry_and_leaves_nothing() {
    let Some(store) = Sandbox::new() else { return };
    let layer = LayerBuilder::gzip().file("one", "1").file("two", "22").entry(Entry::device("dev/x", 1, 3));
    let archive = archive(&store, layer.finish());
    for (limit, entry) in [
        ("entries=1", "`two`"),
        ("output-bytes=2", "more than 2 bytes"),
        ("devices=refuse", "`dev/x`"),
        ("path-bytes=3", "dev/x"),
    ] {
        let run = store.run(["load", "--limit", limit, "-i", &archive]);
        assert!(run.stderr.contains("hint: ") && run.stderr.contains("--limit"), "{run}");
        let sentence = run.failure(1);
        assert!(sentence.contains(entry), "{limit}: {sentence}");
        assert_empty(&store);
    }
    store.ok(["load", "--limit", "entries=3", "--limit", "depth=1", "-i", &archive]);
}

#[test]
fn privileged_limits_of_the_store_hold_for_load_and_mount() {
    let Some(store) = Sandbox::new() else { return };
    let archive = archive(&store, LayerBuilder::gzip().file("one", "1").file("two", "22").finish());
    let shown = store.ok(["limits", "entries=1", "devices=refuse", "--format", "{{.Name}}={{.Value}}"]);
    assert_eq!(shown.lines().collect::<Vec<_>>(), ["entries=1", "devices=refuse"]);
    store.run(["load", "-i", &archive]).failure(1);
    store.ok(["load", "--no-unpack", "-i", &archive]);
    store.run(["mount", "localhost/a:1"]).failure(1);
    // For this time more is accepted.
    store.ok(["rmi", "localhost/a:1"]);
    store.ok(["load", "--limit", "entries=2", "-i", &archive]);
    store.ok(["rmi", "localhost/a:1"]);
    store.ok(["limits", "entries=default"]);
    store.ok(["load", "-i", &archive]);
    assert!(store.ok(["limits"]).contains("refuse"));
}

#[test]
fn privileged_settings_that_make_no_sense_change_nothing() {
    let Some(store) = Sandbox::new() else { return };
    let before = store.ok(["limits", "--format", "json"]);
    assert!(store.run(["limits", "entries=5", "colour=red"]).failure(2).contains("`colour`"));
    assert!(store.run(["limits", "entries=5", "devices=some"]).failure(2).contains("allow or refuse"));
    assert_eq!(store.run(["limits", "entries"]).code, 2);
    assert_eq!(store.ok(["limits", "--format", "json"]), before);
}

/// As a newer version may leave it.
#[test]
fn privileged_a_setting_of_another_version_is_no_obstacle() {
    let Some(store) = Sandbox::new() else { return };
    store.ok(["limits"]);
    store.execute("INSERT INTO meta VALUES ('unpack.futures', '7')");
    for verb in ["limits", "info", "images"] {
        store.ok([verb]);
    }
    store.ok(["limits", "futures=default"]);
    store.run(["limits", "futures=default"]).failure(2);
}

#[test]
fn privileged_the_number_of_jobs_and_the_sandbox_make_no_difference() {
    let Some(store) = Sandbox::new() else { return };
    let layers = (0..5).map(|i| crate::small_layer(&format!("f{i}"))).chain(crate::varied_image().layers);
    let image = Image::new(layers);
    let archive = store.write("many.tar", &Layout::of("localhost/a:1", &image).archive());
    let archive = archive.to_str().unwrap();
    let mut seen = None;
    for limits in [["jobs=1", "sandbox=on"], ["jobs=1", "sandbox=off"], ["jobs=7", "sandbox=on"]] {
        store.ok(["load", "--limit", limits[0], "--limit", limits[1], "-i", archive]);
        let at = store.mount("localhost/a:1");
        let tree = layerstore_testkit::tree::Snapshot::of(&at).without_root_mtime();
        store.umount(&at);
        store.ok(["rmi", "localhost/a:1"]);
        seen.get_or_insert_with(|| tree.clone()).assert_same(&tree);
    }
}

#[test]
fn privileged_who_asks_is_told_what_gives_rights() {
    let Some(store) = Sandbox::new() else { return };
    let layer = LayerBuilder::gzip()
        .entry(Entry::file("bin/su", "").mode(0o4755))
        .entry(Entry::device("dev/null", 1, 3))
        .finish();
    let archive = archive(&store, layer);
    assert!(!store.run(["load", "-i", &archive]).success().stderr.contains("bin/su"));
    store.ok(["rmi", "localhost/a:1"]);
    let told = store.run(["-v", "load", "-i", &archive]).success().stderr;
    assert!(told.contains("1 with set-user-ID or set-group-ID, 1 device nodes: bin/su"), "{told}");
    store.ok(["rmi", "localhost/a:1"]);
    let told = store.run(["--progress", "json", "load", "-i", &archive]).success().stderr;
    assert!(told.contains(r#""privileged":{"setId":1,"#), "{told}");
}
