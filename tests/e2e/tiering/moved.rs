//! Names by which alone evicted layers can be fetched, and which another image gets.

use layerstore_testkit::image::{Image, Layout};
use layerstore_testkit::sandbox::{Run, Sandbox};

use super::{have, pulled, save};
use crate::remote::pull;
use crate::remote::two_layers;
use crate::small_layer;

fn other() -> Image {
    Image::new([small_layer("other")])
}

fn load(store: &Sandbox, name: &str) -> Run {
    store.load_bytes(&Layout::of(name, &other()).archive())
}

#[track_caller]
fn assert_told(run: &Run, what: &str, name: &str) {
    let sentence = format!("layers of {what} were evicted, and {name} was the last name to fetch them by");
    assert!(run.stderr.contains(&sentence), "{sentence}\n{run}");
}

#[track_caller]
fn assert_silent(run: &Run) {
    assert!(!run.stderr.contains("evicted"), "{run}");
}

#[test]
fn privileged_tag_tells_that_layers_cannot_be_fetched_any_more() {
    let image = two_layers("top");
    let Some((store, _registry, name)) = pulled(&image) else { return };
    load(&store, "localhost/other:1");
    // Nothing was evicted yet.
    store.ok(["tag", &name, "localhost/mine:1"]);
    store.ok(["gc", "--evict", "blobs"]);
    assert_silent(&store.run(["tag", &name, &name]).success());
    assert_silent(&store.run(["tag", "localhost/other:1", "localhost/mine:1"]).success());
    store.ok(["tag", &name, "localhost/mine:1"]);
    let run = store.run(["tag", "localhost/other:1", &name]).success();
    assert_told(&run, "localhost/mine:1", &name);
    // Now there is nothing to lose.
    assert_silent(&store.run(["tag", "localhost/mine:1", &name]).success());
    assert_silent(&store.run(["tag", "localhost/other:1", &name]).success());
    let out = store.dir().join("out.tar");
    save(&store, &["-o", out.to_str().unwrap(), "localhost/mine:1"]).failure(3);
    // What it says helps.
    let by_digest = run.stderr.split('`').nth(1).unwrap().strip_prefix("layerstore pull ").unwrap();
    pull(&store, &[by_digest]).success();
    assert_eq!(have(&store, &image), 0, "it is enough to know where they are");
    save(&store, &["-o", out.to_str().unwrap(), "localhost/mine:1"]).success();
}

#[test]
fn privileged_load_pull_commit_and_import_tell_it_too() {
    let moves: [fn(&Sandbox, &str) -> Run; 4] = [
        load,
        |store, name| pull(store, &[name]).success(),
        |store, name| {
            load(store, "localhost/other:1");
            store.ok(["create", "--name", "box", "localhost/other:1"]);
            store.run(["commit", "box", name]).success()
        },
        |store, name| {
            let archive = store.write("root.tar", &[0; 1024]);
            store.run(["import", archive.to_str().unwrap(), name]).success()
        },
    ];
    for (number, moved) in moves.into_iter().enumerate() {
        let image = two_layers("top");
        let Some((store, registry, name)) = pulled(&image) else { return };
        let id = store.ok(["images", "-q"]);
        store.ok(["gc", "--evict", "blobs"]);
        assert_silent(&pull(&store, &[&name]).success());
        registry.push("a:1", &other());
        let run = moved(&store, &name);
        assert_told(&run, &format!("image {}", id.trim()), &name);
        assert_eq!(have(&store, &image), 0, "{number}");
    }
}

#[test]
fn privileged_another_name_to_fetch_by_is_enough() {
    let image = two_layers("top");
    let Some((store, registry, name)) = pulled(&image) else { return };
    registry.push("a:2", &image);
    pull(&store, &[&registry.reference("a:2")]).success();
    store.ok(["gc", "--evict", "blobs"]);
    assert_eq!(have(&store, &image), 0);
    assert_silent(&load(&store, &name));
}
