//! What the policies of `gc` take, in which order, and what they leave.

mod budget;
mod file;

use std::collections::BTreeSet;
use std::time::{SystemTime, UNIX_EPOCH};

use layerstore_testkit::image::{Image, Layout};
use layerstore_testkit::layer::{Layer, LayerBuilder};
use layerstore_testkit::rng::Rng;
use layerstore_testkit::sandbox::Sandbox;
use serde_json::{Value, json};

const DAY: i64 = 86_400;

fn now() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap()
}

/// A layer with a file that does not compress.
fn noise(seed: u64, bytes: usize) -> Layer {
    LayerBuilder::gzip().file(format!("noise-{seed}"), Rng::new(seed).bytes(bytes)).finish()
}

/// An image with a layer that all have and one of its own.
fn image(seed: u64, bytes: usize) -> Image {
    Image::new([noise(0, 20_000), noise(seed, bytes)])
}

/// Loads an image whose last use is so many days ago.
#[track_caller]
fn load(store: &Sandbox, name: &str, image: &Image, days: i64) {
    store.load_bytes(&Layout::of(name, image).archive());
    unused_for(store, name, days);
}

/// Sets all times of a name and its images.
fn unused_for(store: &Sandbox, name: &str, days: i64) {
    let at = now() - days * DAY;
    store.execute(&format!(
        "UPDATE reference SET created_at = {at}, updated_at = {at}, pulled_at = NULL WHERE name = '{name}';
         UPDATE image SET last_used_at = {at} WHERE manifest IN
             (SELECT target FROM reference WHERE name = '{name}')"
    ));
}

/// Names in the order in which a dry run says that they go.
#[track_caller]
fn planned(store: &Sandbox, args: &[&str]) -> Vec<String> {
    let told = store.ok([&["gc", "--dry-run"], args].concat());
    let name = |line: &str| Some(line.strip_prefix("Would untag: ")?.split(' ').next()?.to_owned());
    let dangling = |line: &str| line.starts_with("Would delete image: ").then(|| "<none>".to_owned());
    told.lines().filter_map(|line| name(line).or_else(|| dangling(line))).collect()
}

/// Collects, which must do exactly what a dry run has said. Returns what it printed.
#[track_caller]
fn collect(store: &Sandbox, args: &[&str]) -> String {
    let planned = store.ok([&["gc", "--dry-run", "-v"], args].concat());
    let du = || disk_usage(store);
    let before = du();
    let done = store.ok([&["gc", "-v"], args].concat());
    let expected = planned
        .replace("Would untag:", "Untagged:")
        .replace("Would delete", "Deleted")
        .replace("Would evict:", "Evicted:")
        .replace("Reclaimable space:", "Total reclaimed space:");
    assert_eq!(done, expected, "a run does what its dry run says");
    let rows = store.json_lines([&["gc", "--dry-run", "--format", "json"], args].concat());
    assert!(rows.is_empty() || args.contains(&"--evict"), "a second run has nothing to do: {rows:?}");
    assert!(du() <= before);
    done
}

/// Bytes below the root, as `du` counts them, without the database, whose log grows by what is deleted.
fn disk_usage(store: &Sandbox) -> u64 {
    let paths = ["blobs", "overlay2", "ingest", "partial", "trash"].map(|name| store.root().join(name));
    let out = std::process::Command::new("du").args(["-s", "-c", "-B1"]).args(paths).output().unwrap();
    let text = String::from_utf8(out.stdout).unwrap();
    text.lines().last().unwrap().split_whitespace().next().unwrap().parse().unwrap()
}

fn names(store: &Sandbox) -> BTreeSet<String> {
    store.ok(["images", "--format", "{{.Repository}}:{{.Tag}}"]).lines().map(str::to_owned).collect()
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// Images of several kinds: four tags of a repository, one that is pinned, one with a container, one without a name.
fn store() -> Option<Sandbox> {
    let store = Sandbox::new()?;
    for (tag, days, created, label) in [
        ("1", 40, "2020-01-01T00:00:00Z", json!({"kind": "old", "temporary": ""})),
        ("2", 20, "2022-01-01T00:00:00Z", json!({"kind": "new"})),
        ("3", 10, "2024-01-01T00:00:00Z", json!({"temporary": "yes"})),
        ("4", 1, "2024-06-01T00:00:00Z", Value::Null),
    ] {
        let mut image = image(tag.parse().unwrap(), 100_000);
        image.config["created"] = json!(created);
        image.config["config"]["Labels"] = label;
        load(&store, &format!("localhost/a:{tag}"), &image, days);
    }
    load(&store, "localhost/pinned:1", &image(11, 100_000), 50);
    store.ok(["pin", "localhost/pinned:1"]);
    load(&store, "localhost/used:1", &image(12, 100_000), 60);
    store.ok(["create", "--name", "user", "localhost/used:1"]);
    unused_for(&store, "localhost/used:1", 60);
    load(&store, "localhost/lost:1", &image(13, 100_000), 5);
    store.ok(["tag", "localhost/a:4", "localhost/lost:1"]);
    store.ok(["rmi", "localhost/lost:1"]);
    store.execute(&format!(
        "UPDATE reference SET updated_at = {0}, created_at = {0} WHERE name LIKE 'sha256:%'",
        now() - 5 * DAY
    ));
    unused_for(&store, "localhost/a:4", 1);
    Some(store)
}

#[test]
fn privileged_each_condition_takes_what_it_says() {
    let Some(store) = store() else { return };
    let cases: &[(&[&str], &[&str])] = &[
        (&[], &[]),
        (&["--dangling"], &["<none>"]),
        (&["--filter", "dangling=true"], &["<none>"]),
        (&["--all"], &["localhost/a:1", "localhost/a:2", "localhost/a:3", "<none>", "localhost/a:4"]),
        (
            &["--filter", "dangling=false"],
            &["localhost/a:1", "localhost/a:2", "localhost/a:3", "<none>", "localhost/a:4"],
        ),
        (&["--unused-for", "15d"], &["localhost/a:1", "localhost/a:2"]),
        (&["--unused-for", "30d"], &["localhost/a:1"]),
        (&["--unused-for", "2w"], &["localhost/a:1", "localhost/a:2"]),
        (&["--unused-for", "100d"], &[]),
        (&["--dangling", "--unused-for", "4d"], &["<none>"]),
        (&["--dangling", "--unused-for", "6d"], &[]),
        (&["--filter", "until=2021-01-01"], &["localhost/a:1"]),
        (&["--filter", "until=2023-01-01T00:00:00Z"], &["localhost/a:1", "localhost/a:2"]),
        (&["--filter", "label=temporary"], &["localhost/a:1", "localhost/a:3"]),
        (&["--filter", "label=temporary=yes"], &["localhost/a:3"]),
        (&["--filter", "label=temporary", "--filter", "label=kind=old"], &["localhost/a:1"]),
        (
            &["--filter", "label!=temporary", "--filter", "reference=localhost/*"],
            &["localhost/a:2", "localhost/a:4"],
        ),
        (
            &["--filter", "label!=kind=new", "--filter", "reference=localhost/a"],
            &["localhost/a:1", "localhost/a:3", "localhost/a:4"],
        ),
        (&["--filter", "reference=localhost/a:2"], &["localhost/a:2"]),
        (
            &["--filter", "reference=localhost/a:2", "--filter", "reference=*/a:1"],
            &["localhost/a:1", "localhost/a:2"],
        ),
        (&["--filter", "reference=localhost/b"], &[]),
        (&["--keep-last", "2"], &["localhost/a:1", "localhost/a:2", "<none>"]),
        (&["--keep-last", "3", "--filter", "reference=localhost/*"], &["localhost/a:1"]),
        (&["--keep-last", "4"], &["<none>"]),
        (&["--all", "--protect", "localhost/a:[12]"], &["localhost/a:3", "<none>", "localhost/a:4"]),
        (&["--all", "--protect", "localhost/*"], &["<none>"]),
        (&["--unused-for", "15d", "--keep-last", "3"], &["localhost/a:1"]),
        (&["--unused-for", "15d", "--filter", "label=kind=new"], &["localhost/a:2"]),
    ];
    for (args, expected) in cases {
        assert_eq!(planned(&store, args), *expected, "{args:?}");
    }
}

#[test]
fn privileged_a_run_does_what_its_dry_run_says() {
    let Some(store) = store() else { return };
    std::fs::write(store.root().join("junk"), "x").unwrap();
    collect(&store, &[]);
    assert!(!store.root().join("junk").exists());
    collect(&store, &["--unused-for", "30d"]);
    let all = [
        "localhost/a:2",
        "localhost/a:3",
        "localhost/a:4",
        "localhost/pinned:1",
        "localhost/used:1",
        "<none>:<none>",
    ];
    assert_eq!(names(&store), set(&all));
    collect(&store, &["--dangling"]);
    assert_eq!(names(&store), set(&all[..5]));
    collect(&store, &["--keep-last", "1"]);
    assert_eq!(names(&store), set(&all[2..5]));
    collect(&store, &["--evict", "trees"]);
    assert_eq!(names(&store), set(&all[2..5]));
    collect(&store, &["--all"]);
    assert_eq!(names(&store), set(&all[3..5]));
    // What stayed works.
    store.ok(["mount", "user"]);
    store.ok(["umount", "user"]);
    store.ok(["rm", "user"]);
    store.ok(["unpin", "localhost/pinned:1"]);
    collect(&store, &["--all"]);
    assert_eq!(names(&store), set(&[]));
    assert_eq!(store.names_of_trees(), 0);
    store.assert_no_leftovers();
}

#[test]
fn privileged_what_stays_is_told_with_its_reason() {
    let Some(store) = store() else { return };
    let told = store.ok(["gc", "--dry-run", "-v", "--all", "--protect", "*/a:3", "--keep-last", "1"]);
    for line in [
        "Kept: localhost/pinned:1 (localhost/pinned:1 is pinned)",
        "Kept: localhost/used:1 (in use by container user)",
        "Kept: localhost/a:3 (localhost/a:3 is protected by */a:3)",
        "Kept: localhost/a:4 (localhost/a:4 is among the newest of its repository)",
    ] {
        assert!(told.lines().any(|other| other == line), "{line}\n{told}");
    }
    let told = store.ok(["gc", "--dry-run", "-v", "--unused-for", "15d"]);
    assert!(told.contains("Kept: localhost/a:3 (used 10 days ago)"), "{told}");
    let told = store.ok(["gc", "--dry-run", "--unused-for", "30d"]);
    assert!(told.contains("Would untag: localhost/a:1 (unused for 5 weeks, frees "), "{told}");
    assert!(!told.contains("Kept: "), "{told}");
    // What goes of an image does not stay.
    store.ok(["tag", "localhost/pinned:1", "localhost/also:1"]);
    let told = store.ok(["gc", "--dry-run", "-v", "--all"]);
    assert!(told.contains("Would untag: localhost/also:1 "), "{told}");
    assert!(told.contains("Kept: localhost/pinned:1 (localhost/pinned:1 is pinned)\n"), "{told}");
    store.ok(["rmi", "localhost/also:1"]);
    let root = store.mount("localhost/a:2");
    let told = store.ok(["gc", "--dry-run", "-v", "--unused-for", "15d"]);
    store.umount(&root);
    assert!(told.contains(&format!("Kept: localhost/a:2 (mounted at {})", root.display())), "{told}");
}

#[test]
fn privileged_an_image_stays_as_long_as_one_of_its_names_does() {
    let Some(store) = Sandbox::new() else { return };
    load(&store, "localhost/a:1", &image(1, 100_000), 10);
    store.ok(["tag", "localhost/a:1", "localhost/b:1"]);
    unused_for(&store, "localhost/b:1", 10);
    let done = collect(&store, &["--filter", "reference=localhost/a"]);
    assert!(
        done.contains(
            "Untagged: localhost/a:1 (unused for 10 days, frees nothing: the rest is still needed)"
        ),
        "{done}"
    );
    assert_eq!(names(&store), set(&["localhost/b:1"]));
    collect(&store, &["--filter", "reference=localhost/b"]);
    assert_eq!(store.names_of_trees(), 0);
}

#[test]
fn privileged_rows_are_for_programs() {
    let Some(store) = store() else { return };
    let rows = store.json_lines(["gc", "--dry-run", "--format", "json", "--unused-for", "30d"]);
    let of = |kind: &str| rows.iter().filter(|row| row["Type"] == kind).count();
    assert_eq!((of("image"), of("tree"), of("blob"), of("kept")), (1, 1, 3, 0));
    assert_eq!(rows[0]["Name"], "localhost/a:1");
    let sum: u64 = rows.iter().map(|row| row["Size"].as_u64().unwrap()).sum();
    assert_eq!(rows[0]["Freed"], sum);
    let rows = store.json_lines(["gc", "--dry-run", "-v", "--format", "json", "--unused-for", "30d"]);
    let reasons: BTreeSet<&str> =
        rows.iter().filter(|row| row["Type"] == "kept").map(|row| row["Reason"].as_str().unwrap()).collect();
    assert_eq!(reasons, BTreeSet::from(["container", "pinned", "used-since"]));
    let template = "{{.Type}} {{.Name}}";
    let lines = store.ok(["gc", "--dry-run", "--format", template, "--unused-for", "30d"]);
    assert_eq!(lines.lines().next(), Some("image localhost/a:1"));
}
