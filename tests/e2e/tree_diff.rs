//! How the files of two images differ.

use std::collections::HashSet;
use std::process::Command;
use std::time::Duration;

use layerstore_testkit::image::{Image, Layout};
use layerstore_testkit::layer::{self, LayerBuilder};
use layerstore_testkit::require;
use layerstore_testkit::sandbox::{Run, Sandbox};
use layerstore_testkit::tree::{Entry, Snapshot};
use serde_json::json;

use crate::small_layer;

const NOT_FOUND: i32 = 3;

/// Two images above the same layer.
fn store() -> Option<Sandbox> {
    let store = Sandbox::new()?;
    let base = || {
        let base = LayerBuilder::gzip().dir("etc/").file("etc/hosts", "old").file("etc/gone", "");
        base.dir("lib/").file("lib/kept", "").dir("lib/old/").file("lib/old/f", "").finish()
    };
    let top =
        LayerBuilder::gzip().dir("etc/").file("etc/hosts", "new").whiteout("etc/gone").whiteout("lib/old");
    let top = top.entry(layer::Entry::dir("lib/").mode(0o700)).dir("new/").file("new/a\u{1b}[2J<b>", "");
    let layout = Layout::new()
        .image("localhost/a:1", &Image::new([base(), small_layer("only-a")]))
        .image("localhost/b:1", &Image::new([base(), top.finish()]));
    store.load_bytes(&layout.archive());
    Some(store)
}

#[test]
fn privileged_a_line_for_each_file_that_differs() {
    let Some(store) = store() else { return };
    let out = store.ok(["tree-diff", "localhost/a:1", "localhost/b:1"]);
    let expected = [
        "D /etc/gone",
        "C /etc/hosts",
        "C /lib",
        "D /lib/old",
        "A /new",
        "A /new/a\u{1b}[2J<b>",
        "D /only-a",
        "",
    ];
    assert_eq!(out.split('\n').collect::<Vec<_>>(), expected);
    assert_eq!(store.ok(["tree-diff", "localhost/b:1", "localhost/b:1"]), "");
    store.run(["tree-diff", "localhost/a:1", "localhost/c:1"]).failure(NOT_FOUND);
    store.assert_no_leftovers();
}

#[test]
fn privileged_as_json_and_by_a_template() {
    let Some(store) = store() else { return };
    let verb = ["tree-diff", "localhost/a:1", "localhost/b:1", "--format"];
    let rows = store.json_lines(verb.into_iter().chain(["json"]));
    assert_eq!(rows[0], json!({"Kind": "D", "Path": "/etc/gone"}));
    assert_eq!(rows.len(), 7);
    let out = store.ok(verb.into_iter().chain(["{{.Path}}={{.Kind}}"]));
    assert_eq!(out.lines().nth(1), Some("/etc/hosts=C"));
}

/// A process may not have so many files open.
#[test]
fn privileged_two_images_of_five_hundred_layers() {
    let Some(store) = Sandbox::new() else { return };
    let layers = |name: &str| (0..500).map(|i| small_layer(&format!("{name}-{i}"))).collect::<Vec<_>>();
    let layout = Layout::new()
        .image("localhost/a:1", &Image::new(layers("a")))
        .image("localhost/b:1", &Image::new(layers("b")));
    store.load_bytes(&layout.archive());
    let command = store.command(["tree-diff", "localhost/a:1", "localhost/b:1"]);
    let mut limited = Command::new("sh");
    limited.args(["-c", "ulimit -n 256 && exec \"$0\" \"$@\""]).arg(command.get_program());
    let out = Run::of(limited.args(command.get_args()), &[]).success().stdout;
    assert_eq!(out.lines().filter(|line| line.starts_with("D /a-")).count(), 500);
    assert_eq!(out.lines().filter(|line| line.starts_with("A /b-")).count(), 500);
}

/// The real images share their base.
#[test]
fn privileged_real_images_differ_as_their_mounts_do_and_that_is_quick() {
    let (Some(store), Some(images)) = (Sandbox::new(), require::images()) else { return };
    store.load(images.join("app.oci.tar"));
    store.load(images.join("node.oci.tar"));
    let runs: Vec<_> =
        (0..3).map(|_| store.run(["tree-diff", "localhost/app:1", "localhost/node:1"]).success()).collect();
    let quickest = runs.iter().map(|run| run.time).min().unwrap();
    assert!(quickest < Duration::from_secs(1), "it took {quickest:?}");

    let snapshot = |image: &str| {
        let root = store.mount(image);
        let snapshot = Snapshot::of(&root);
        store.umount(&root);
        snapshot
    };
    let [app, node] = ["localhost/app:1", "localhost/node:1"].map(snapshot);
    let plain = |entry: &Entry| Entry { link_of: None, ..entry.clone() };
    let lines: HashSet<&str> = runs[0].stdout.lines().collect();
    let mut expected: HashSet<String> = HashSet::new();
    for (path, entry) in node.entries.iter().filter(|(path, _)| !path.is_empty()) {
        let kind = match app.entries.get(path) {
            None => "A",
            Some(before) if plain(before) != plain(entry) => "C",
            Some(_) => continue,
        };
        expected.insert(format!("{kind} /{}", String::from_utf8_lossy(path)));
    }
    let found: HashSet<String> =
        lines.iter().filter(|line| !line.starts_with('D')).map(|line| (*line).to_owned()).collect();
    let wrong: Vec<_> = found.symmetric_difference(&expected).take(20).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
    assert!(expected.len() > 30_000 && lines.contains("D /app"));
}
