//! `ps`, and the names by which containers are found.

use std::fs;
use std::path::Path;

use layerstore_testkit::sandbox::Sandbox;

use super::{SMALL, mount, refused, with_small};

/// A store with three containers, of which `web` is mounted. Returns also their IDs.
fn with_three() -> Option<(Sandbox, [String; 3])> {
    let store = with_small()?;
    let create = |args: &[&str]| store.ok([&["create"], args].concat()).trim_end().to_owned();
    let web = create(&["--name", "web", "-l", "tier=front", "--label", "x", SMALL]);
    let db = create(&["--name", "db", "-l", "tier=back", SMALL]);
    let varied = create(&["--name", "varied", "localhost/varied:1"]);
    mount(&store, "web");
    Some((store, [web, db, varied]))
}

/// The names of what a listing has.
#[track_caller]
fn listed(store: &Sandbox, args: &[&str]) -> String {
    store.ok([&["ps", "--format", "{{.Names}}"], args].concat()).lines().collect::<Vec<_>>().join(" ")
}

#[test]
fn privileged_the_table_is_docker_s() {
    let Some((store, [web, db, _])) = with_three() else { return };
    let table = store.ok(["ps", "-a"]);
    let lines: Vec<Vec<&str>> = table
        .lines()
        .map(|line| line.split("  ").map(str::trim).filter(|c| !c.is_empty()).collect())
        .collect();
    assert_eq!(lines[0], ["CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "NAMES"]);
    assert_eq!(lines.len(), 4);
    assert_eq!((lines[3][0], lines[3][1], lines[3][4], lines[3][5]), (&web[..12], SMALL, "Mounted", "web"));
    assert_eq!((lines[2][0], lines[2][4], lines[2][5]), (&db[..12], "Created", "db"));
    let table = store.ok(["ps", "--size"]);
    assert!(table.lines().next().unwrap().ends_with("SIZE") && table.lines().count() == 2, "{table}");
    for alias in [["container", "ls"], ["container", "list"], ["container", "ps"]] {
        assert_eq!(store.ok([&alias[..], &["-aq"]].concat()), store.ok(["ps", "-aq"]));
    }
}

#[test]
fn privileged_what_is_listed_can_be_chosen() {
    let Some((store, [web, db, varied])) = with_three() else { return };
    assert_eq!(listed(&store, &[]), "web");
    assert_eq!(listed(&store, &["-a"]), "varied db web");
    assert_eq!(store.ok(["ps", "-q"]), format!("{}\n", &web[..12]));
    assert_eq!(store.ok(["ps", "-aq", "--no-trunc"]), format!("{varied}\n{db}\n{web}\n"));
    let filters = [
        ("id", &db[..5], "db"),
        ("name", "b", "db web"),
        ("ancestor", "localhost/varied:1", "varied"),
        ("ancestor", SMALL, "db web"),
        ("status", "mounted", "web"),
        ("status", "created", "varied db"),
        ("label", "x", "web"),
        ("label", "tier", "db web"),
        ("label", "tier=back", "db"),
        ("label", "tier=b", ""),
    ];
    for (key, value, expected) in filters {
        assert_eq!(listed(&store, &["-a", "--filter", &format!("{key}={value}")]), expected, "{key}={value}");
    }
    assert_eq!(listed(&store, &["-a", "-f", "label=tier", "-f", "name=d"]), "db");
    let run = store.run(["ps", "--filter", "colour=red"]);
    assert!(run.code == 2 && run.stderr.contains("id, name, ancestor, status, label"), "{run}");
}

#[test]
fn privileged_other_forms() {
    let Some((store, [web, ..])) = with_three() else { return };
    let target = store.root().join("mnt").join(&web[..12]);
    fs::write(target.join("file"), vec![b'x'; 10_000]).unwrap();
    let format = "{{.ID}} {{.Image}} {{.Status}} {{.State}} {{.Names}} {{.Labels}} {{.Mounts}}";
    let expected = format!("{} {SMALL} Mounted mounted web tier=front,x= {}\n", &web[..12], target.display());
    assert_eq!(store.ok(["ps", "--format", format]), expected);
    let rows = store.json_lines(["ps", "--format", "json", "--no-trunc", "--size"]);
    assert_eq!(rows.len(), 1);
    assert_eq!((rows[0]["ID"].as_str(), rows[0]["Names"].as_str()), (Some(&*web), Some("web")));
    let size = rows[0]["Size"].as_str().unwrap();
    assert!(size.ends_with("kB"), "{size}");
    let run = store.run(["ps", "--format", "{{.Colour}}"]);
    let sentence = run.failure(2);
    assert!(sentence.contains("Colour"), "{sentence}");
}

#[test]
fn privileged_a_renamed_container_is_the_same() {
    let Some((store, [web, ..])) = with_three() else { return };
    let place = mount(&store, "web");
    store.ok(["rename", "web", "shop"]);
    refused(&store, &["diff", "web"], 3, "no such container: web");
    assert_eq!(listed(&store, &["--no-trunc"]), "shop");
    assert_eq!(mount(&store, "shop"), place);
    fs::write(place.join("file"), "x").unwrap();
    assert_eq!(store.ok(["diff", "shop"]), "A /file\n");
    assert_eq!(store.ok(["diff", &web]), "A /file\n");
    // The name is free.
    store.ok(["create", "--name", "web", SMALL]);
    assert_eq!(store.ok(["diff", "web"]), "");
    store.ok(["rename", &web[..12], "web-of-old"]);
    assert_eq!(listed(&store, &[]), "web-of-old");
}

#[test]
fn privileged_containers_are_mounted_and_unmounted_by_any_name() {
    let Some((store, [web, db, varied])) = with_three() else { return };
    let other = store.dir().join("other");
    fs::create_dir(&other).unwrap();
    assert_eq!(Path::new(store.ok(["mount", &db[..8], other.to_str().unwrap()]).trim_end()), other);
    assert_eq!(store.ok(["mount"]).lines().count(), 2);
    assert!(store.ok(["mount"]).contains(&format!("{} {}\n", &db[..12], other.display())));
    store.umount(&other);
    assert_eq!(listed(&store, &[]), "web");
    for name in [&web[..4], &web, "web"] {
        mount(&store, "web");
        super::umount(&store, name);
        assert_eq!(listed(&store, &[]), "", "{name}");
    }
    // One inside another: the inner goes first.
    let outer = store.dir().join("outer");
    fs::create_dir(&outer).unwrap();
    store.ok(["mount", "web", outer.to_str().unwrap()]);
    fs::create_dir(outer.join("inner")).unwrap();
    store.ok(["mount", "db", outer.join("inner").to_str().unwrap()]);
    store.mount(SMALL);
    mount(&store, &varied);
    layerstore_testkit::sandbox::until_free(|| store.run(["umount", "--all"])).success();
    assert_eq!(store.ok(["mount"]), "");
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(store.dir().to_str().unwrap()), "{mounts}");
    store.ok(["umount", "--all"]);
    assert_eq!(store.names("mnt").len(), 0);
    store.ok(["rm", "web", "db", "varied"]);
    store.assert_no_leftovers();
}
