//! `image prune`, `container prune` and `system prune`: Docker's verbs, rules and words.

mod docker;

use layerstore_testkit::image::{Image, Layout};
use layerstore_testkit::sandbox::Sandbox;
use serde_json::json;

use crate::small_layer;

const WRONG_USAGE: i32 = 2;

fn image(name: &str) -> Image {
    Image::new([small_layer("base"), small_layer(name)])
}

/// An image that is used, one that is not, one that is pinned, and one without a name.
fn store() -> Option<Sandbox> {
    let store = Sandbox::new()?;
    for name in ["used", "unused", "pinned", "lost"] {
        store.load_bytes(&Layout::of(&format!("localhost/{name}:1"), &image(name)).archive());
    }
    store.ok(["create", "--name", "web", "localhost/used:1"]);
    store.ok(["pin", "localhost/pinned:1"]);
    store.ok(["tag", "localhost/unused:1", "localhost/lost:1"]);
    store.ok(["rmi", "localhost/lost:1"]);
    assert_eq!(store.ok(["images", "-q", "--filter", "dangling=true"]).lines().count(), 1);
    Some(store)
}

/// What a prune says that does what the dry run told.
fn in_the_past(planned: &str) -> String {
    assert!(!planned.contains("eleted") && !planned.contains("untagged"), "{planned}");
    let words = [
        ("Would delete", "Deleted"),
        ("would delete", "deleted"),
        ("would untag", "untagged"),
        ("Reclaimable space", "Total reclaimed space"),
    ];
    words.iter().fold(planned.to_owned(), |text, (planned, done)| text.replace(planned, done))
}

fn list(store: &Sandbox) -> String {
    store.ok(["images", "--format", "{{.Repository}}"]).replace("localhost/", "").replace('\n', " ")
}

#[test]
fn privileged_image_prune_takes_images_without_a_name() {
    let Some(store) = store() else { return };
    let planned = store.ok(["image", "prune", "--dry-run"]);
    let done = store.ok(["image", "prune", "-f"]);
    assert_eq!(done, in_the_past(&planned));
    let lines: Vec<&str> = done.lines().collect();
    assert_eq!(lines[..2], ["Deleted Images:", &format!("deleted: {}", image("lost").id())]);
    assert!(lines[2].starts_with("deleted: sha256:"), "{done}");
    assert_eq!((lines[3], lines.len()), ("", 5));
    assert!(lines[4].starts_with("Total reclaimed space: "), "{done}");
    assert!(!list(&store).contains("<none>"));
    assert_eq!(store.ok(["image", "prune", "-f"]), "Total reclaimed space: 0B\n");
}

#[test]
fn privileged_image_prune_all_leaves_what_is_used_or_pinned() {
    let Some(store) = store() else { return };
    let done = store.ok(["image", "prune", "-af"]);
    assert!(done.contains("untagged: localhost/unused:1\n"), "{done}");
    assert_eq!(
        list(&store).split_whitespace().collect::<std::collections::BTreeSet<_>>(),
        ["pinned", "used"].into()
    );
    store.assert_no_leftovers();
    store.ok(["mount", "web"]);
    store.ok(["umount", "web"]);
}

#[test]
fn privileged_prune_asks_before_it_does_anything() {
    let Some(store) = store() else { return };
    let before = (list(&store), store.ok(["ps", "-aq"]));
    let asked = "\nAre you sure you want to continue? [y/N] ";
    for (args, warning) in [
        (&["image", "prune"][..], "WARNING! This will remove all dangling images."),
        (
            &["image", "prune", "-a"],
            "WARNING! This will remove all images without at least one container associated to them.",
        ),
        (&["container", "prune"], "WARNING! This will remove all stopped containers."),
        (
            &["system", "prune"],
            "WARNING! This will remove:\n  - all stopped containers\n  - all dangling images\n  - what nothing needs\n",
        ),
    ] {
        for answer in ["", "\n", "n\n", "no\n", "yes\n", "\u{fffd}\n"] {
            let run = store.run_with(args, answer.as_bytes()).success();
            assert_eq!(run.stdout, format!("{warning}{asked}"), "{args:?} {answer:?}");
        }
    }
    assert_eq!((list(&store), store.ok(["ps", "-aq"])), before);
    let run = store.run_with(["image", "prune"], b"Y\n").success();
    assert!(run.stdout.contains("Deleted Images:\n"), "{run}");
    let run = store.run_with(["container", "prune"], b"y\n").success();
    assert!(run.stdout.contains("Deleted Containers:\n"), "{run}");
}

#[test]
fn privileged_image_prune_filters() {
    let Some(store) = Sandbox::new() else { return };
    for (name, created, labels) in [
        ("old", "2020-01-01T00:00:00Z", json!({"keep": "1"})),
        ("new", "2024-01-01T00:00:00Z", json!({"drop": ""})),
    ] {
        let mut image = image(name);
        image.config["created"] = json!(created);
        image.config["config"]["Labels"] = labels;
        store.load_bytes(&Layout::of(&format!("localhost/{name}:1"), &image).archive());
    }
    for (filter, gone) in [
        ("until=2021-01-01", "old"),
        ("until=87600h", ""),
        ("label=drop", "new"),
        ("label!=keep", "new"),
        ("label!=drop", "old"),
        ("label=keep=1", "old"),
        ("label=keep=2", ""),
        ("until=1h", "new old"),
    ] {
        let told = store.ok(["image", "prune", "-a", "--dry-run", "--filter", filter]);
        let mut names: Vec<&str> = told
            .lines()
            .filter_map(|line| line.strip_prefix("would untag: localhost/")?.strip_suffix(":1"))
            .collect();
        names.sort_unstable();
        assert_eq!(names.join(" "), gone, "{filter}\n{told}");
    }
    for args in [
        &["--filter", "until=1h", "--filter", "until=2h"][..],
        &["--filter", "reference=x"],
        &["--filter", "size=1"],
    ] {
        assert_eq!(store.run([&["image", "prune", "-f"], args].concat()).code, WRONG_USAGE, "{args:?}");
    }
    assert_eq!(list(&store).split_whitespace().count(), 2);
}

#[test]
fn privileged_container_prune_leaves_what_is_mounted() {
    let Some(store) = store() else { return };
    let mounted = store.ok(["create", "--name", "mounted", "localhost/used:1"]);
    store.ok(["mount", "mounted"]);
    let labelled = store.ok(["create", "--label", "keep=1", "--name", "labelled", "localhost/used:1"]);
    let web = store.ok(["ps", "-aq", "--no-trunc", "--filter", "name=web"]);
    assert_eq!(store.ok(["container", "prune", "-f", "--filter", "until=1h"]), "Total reclaimed space: 0B\n");
    let planned = store.ok(["container", "prune", "--dry-run", "--filter", "label!=keep"]);
    let done = store.ok(["container", "prune", "-f", "--filter", "label!=keep"]);
    assert!(
        done.starts_with(&format!("Deleted Containers:\n{}\n\nTotal reclaimed space: ", web.trim())),
        "{done}"
    );
    assert!(!done.ends_with(": 0B\n"), "a container takes some directories: {done}");
    assert_eq!(done, in_the_past(&planned));
    let done = store.ok(["container", "prune", "-f", "--filter", "label=keep=1"]);
    assert!(done.contains(labelled.trim()), "{done}");
    assert_eq!(store.ok(["ps", "-aq", "--no-trunc"]), mounted);
    assert_eq!(store.run(["container", "prune", "-f", "--filter", "reference=x"]).code, WRONG_USAGE);
    store.ok(["umount", "mounted"]);
    store.assert_no_leftovers();
}

#[test]
fn privileged_system_prune_takes_images_whose_containers_it_took() {
    let Some(store) = store() else { return };
    let planned = store.ok(["system", "prune", "-a", "--dry-run"]);
    assert_eq!(list(&store).split_whitespace().count(), 4, "a dry run does nothing");
    assert_eq!(store.ok(["ps", "-aq"]).lines().count(), 1);
    let done = store.ok(["system", "prune", "-af"]);
    assert_eq!(done, in_the_past(&planned));
    let part = |text: &str| done.find(text).unwrap_or_else(|| panic!("{text}\n{done}"));
    assert!(part("Deleted Containers:\n") < part("\n\nDeleted Images:\n"));
    assert!(part("untagged: localhost/used:1\n") < part("\n\nTotal reclaimed space: "));
    assert_eq!(list(&store), "pinned ");
    store.assert_no_leftovers();
    let sentence = store.run(["system", "prune", "-f", "--volumes"]).failure(WRONG_USAGE);
    assert!(sentence.contains("no volumes"), "{sentence}");
    assert!(store.ok(["system", "df"]).starts_with("TYPE "));
}
