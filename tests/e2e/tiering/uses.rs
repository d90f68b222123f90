//! When images were used and pulled, and which are pinned.

use std::fs;

use layerstore_testkit::image::{Image, Layout};
use layerstore_testkit::sandbox::Sandbox;
use serde_json::Value;

use crate::remote::pull;
use crate::remote::{pulled, two_layers};
use crate::small_layer;

/// Makes everything so long ago that each use shows.
fn forget_uses(store: &Sandbox) {
    store.execute("UPDATE image SET last_used_at = 1000; UPDATE reference SET pulled_at = 1000");
}

fn used(store: &Sandbox) -> bool {
    store.sql("SELECT last_used_at FROM image") != ["1000"]
}

#[test]
fn privileged_uses_are_recorded() {
    let Some((store, _registry, name)) = pulled(&two_layers("top")) else { return };
    assert!(used(&store), "a pull is a use");
    let dir = store.dir().join("at");
    fs::create_dir(&dir).unwrap();
    let dir = dir.to_str().unwrap();
    let bundle = store.dir().join("bundle");
    let steps: [(&[&str], bool); 9] = [
        (&["images"], false),
        (&["ls", &name], false),
        (&["mount", &name, dir], true),
        (&["umount", dir], true),
        (&["create", "--name", "box", &name], true),
        (&["mount", "box"], true),
        (&["umount", "box"], true),
        (&["rm", "box"], true),
        (&["bundle", &name, bundle.to_str().unwrap(), "true"], true),
    ];
    for (line, is_use) in steps {
        forget_uses(&store);
        store.ok(line);
        assert_eq!(used(&store), is_use, "{line:?}");
    }
    assert_eq!(store.sql("SELECT pulled_at FROM reference"), ["1000"], "only a pull is a pull");
}

#[test]
fn privileged_pulls_are_recorded_also_those_that_find_nothing_new() {
    let Some((store, _registry, name)) = pulled(&two_layers("top")) else { return };
    forget_uses(&store);
    let run = pull(&store, &["--policy", "missing", &name]).success();
    assert!(run.stdout.contains("up to date"), "{run}");
    assert!(used(&store));
    assert_eq!(store.sql("SELECT pulled_at FROM reference"), ["1000"], "the registry was not asked");
    forget_uses(&store);
    pull(&store, &[&name]).success();
    let pulled_at = store.sql("SELECT pulled_at FROM reference");
    assert!(used(&store) && pulled_at != ["1000"]);
    // Once more within a minute is not worth a transaction.
    let used_at = store.sql("SELECT last_used_at FROM image");
    pull(&store, &[&name]).success();
    assert_eq!(store.sql("SELECT last_used_at FROM image"), used_at);
    assert_eq!(store.sql("SELECT pulled_at FROM reference"), pulled_at);
}

#[test]
fn privileged_a_name_is_pulled_until_another_image_gets_it() {
    let Some((store, _registry, name)) = pulled(&two_layers("top")) else { return };
    let pulled_at = || store.ok(["images", "--filter", "dangling=false", "--format", "{{.PulledAt}}"]);
    assert_ne!(pulled_at(), "\n");
    let metadata = |name: &str| store.json(["inspect", name])[0]["Metadata"].clone();
    let seen = metadata(&name);
    assert!(
        ["LastTagTime", "LastUsedTime", "PulledTime"].iter().all(|time| seen[time].is_string()),
        "{seen}"
    );
    assert_eq!(seen["Pinned"], false);
    store.load_bytes(&Layout::of(&name, &two_layers("top")).archive());
    assert_ne!(pulled_at(), "\n", "it is the same image");
    store.load_bytes(&Layout::of(&name, &Image::new([small_layer("other")])).archive());
    assert_eq!(pulled_at(), "\n");
    assert_eq!(metadata(&name)["PulledTime"], Value::Null);
}

#[test]
fn privileged_pins_keep_names_and_move_with_them() {
    let Some(store) = Sandbox::new() else { return };
    store.load_bytes(&Layout::of("localhost/a:1", &two_layers("a")).archive());
    store.ok(["tag", "localhost/a:1", "localhost/a:2"]);
    assert_eq!(store.ok(["pin", "localhost/a:1"]), "localhost/a:1\n");
    assert_eq!(store.ok(["image", "pin", "localhost/a:1"]), "localhost/a:1\n", "twice is once");
    let pins = || store.ok(["images", "--format", "{{.Tag}} {{.Pinned}}"]);
    assert_eq!(pins(), "1 true\n2 false\n");
    assert_eq!(store.json(["inspect", "localhost/a:1"])[0]["Metadata"]["Pinned"], true);
    let run = store.run(["rmi", "localhost/a:1"]);
    assert!(run.stderr.contains("hint: unpin it first, or use --force"), "{run}");
    assert_eq!(run.failure(4), "error: image localhost/a:1 is pinned");
    store.ok(["rmi", "localhost/a:2"]);

    // The name stays pinned, not the image that had it.
    store.load_bytes(&Layout::of("localhost/a:1", &two_layers("b")).archive());
    assert_eq!(pins(), "1 true\n<none> false\n");
    let nameless = store.ok(["images", "-q", "--no-trunc", "--filter", "dangling=true"]);
    let nameless = nameless.trim();
    let pinned = store.ok(["pin", nameless]);
    assert!(pinned.starts_with("sha256:"), "{pinned}");
    store.run(["rmi", nameless]).failure(4);
    // A name in the place of none keeps what its owner wanted.
    store.ok(["tag", nameless, "localhost/b:1"]);
    assert_eq!(store.ok(["images", "localhost/b", "--format", "{{.Pinned}}"]), "true\n");
    store.ok(["rmi", "-f", "localhost/b:1"]);
    assert_eq!(store.ok(["image", "unpin", "localhost/a:1"]), "localhost/a:1\n");
    store.ok(["rmi", "localhost/a:1"]);
    store.run(["pin", "localhost/a:1"]).failure(3);
}

#[test]
fn privileged_an_id_pins_all_names() {
    let Some(store) = Sandbox::new() else { return };
    store.load_bytes(&Layout::of("localhost/a:1", &two_layers("a")).archive());
    store.ok(["tag", "localhost/a:1", "localhost/b:1"]);
    let id = store.ok(["images", "-q", "localhost/a"]);
    assert_eq!(store.ok(["pin", id.trim()]), "localhost/a:1\nlocalhost/b:1\n");
    let error = store.run(["rmi", "localhost/b:1"]).failure(4);
    assert_eq!(error, "error: image localhost/b:1 is pinned");
    store.ok(["unpin", "localhost/b:1"]);
    let error = store.run(["rmi", id.trim()]).failure(4);
    assert!(error.contains("localhost/a:1"), "{error}");
}
