//! Several processes that do the same with containers at once, and what happens behind the store's back.

use std::fs;
use std::path::Path;
use std::thread;

use layerstore_testkit::sandbox::{Run, Sandbox};
use rustix::mount::{UnmountFlags, unmount};

use super::{SMALL, diff, mount, umount, with_small};

/// Runs the same command in eight processes.
fn eight(store: &Sandbox, args: &[&str]) -> Vec<Run> {
    thread::scope(|scope| {
        let runs: Vec<_> = (0..8).map(|_| scope.spawn(|| store.run(args))).collect();
        runs.into_iter().map(|run| run.join().unwrap()).collect()
    })
}

/// One process does it; the others say why they could not. Returns what the one printed.
#[track_caller]
fn assert_one(runs: &[Run], code: i32, sentence: &str) -> String {
    let done: Vec<_> = runs.iter().filter(|run| run.code == 0).collect();
    assert_eq!(done.len(), 1, "{}", runs.iter().map(ToString::to_string).collect::<String>());
    for run in runs.iter().filter(|run| run.code != 0) {
        let said = run.clone().failure(code);
        assert!(said.contains(sentence), "{said}");
    }
    done[0].stdout.trim_end().to_owned()
}

fn mounts_of(store: &Sandbox) -> usize {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    table.lines().filter(|line| line.contains(store.dir().to_str().unwrap())).count()
}

#[test]
fn privileged_one_of_several_makes_mounts_and_removes_a_container() {
    let Some(store) = with_small() else { return };
    let other = store.dir().join("other");
    fs::create_dir(&other).unwrap();
    for _ in 0..4 {
        let id =
            assert_one(&eight(&store, &["create", "--name", "web", SMALL]), 4, "the name `web` is taken");
        assert_eq!(
            store.names_of_trees(),
            5,
            "two layers, three of the other image or less, and one container"
        );
        // Where it is mounted already, that is as good.
        let places = eight(&store, &["mount", "web"]);
        let place = places[0].stdout.trim_end();
        assert!(places.iter().all(|run| run.code == 0 && run.stdout.trim_end() == place), "{places:?}");
        assert!(Path::new(place).ends_with(&id[..12]));
        assert_eq!(mounts_of(&store), 1);
        umount(&store, "web");
        let elsewhere = eight(&store, &["mount", "web", other.to_str().unwrap()]);
        assert_one(&elsewhere, 4, "mount");
        assert_eq!(mounts_of(&store), 1);
        store.umount(&other);
        assert_one(&eight(&store, &["rm", "web"]), 3, "no such container: web");
        store.assert_no_leftovers();
        assert_eq!(mounts_of(&store), 0);
    }
    store.assert_nothing_to_collect();
}

/// Names that are chosen are different ones.
#[test]
fn privileged_many_containers_are_made_at_once() {
    let Some(store) = with_small() else { return };
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| (0..10).for_each(|_| drop(store.ok(["create", SMALL]))));
        }
    });
    let names = store.ok(["ps", "-a", "--format", "{{.Names}}"]);
    let distinct: std::collections::BTreeSet<_> = names.lines().collect();
    assert_eq!((names.lines().count(), distinct.len()), (80, 80));
    let ids = store.ok(["ps", "-aq"]);
    let ids: Vec<_> = ids.lines().collect();
    thread::scope(|scope| {
        for ids in ids.chunks(10) {
            let store = &store;
            scope.spawn(move || store.ok([&["rm"], ids].concat()));
        }
    });
    assert_eq!(store.sql("SELECT count(*) FROM container"), ["0"]);
    store.assert_no_leftovers();
    store.assert_nothing_to_collect();
}

#[test]
fn privileged_what_was_unmounted_by_others_is_not_mounted() {
    let Some(store) = with_small() else { return };
    store.ok(["create", "--name", "web", SMALL]);
    let root = mount(&store, "web");
    fs::write(root.join("file"), "x").unwrap();
    unmount(&root, UnmountFlags::DETACH).unwrap();
    assert_eq!(store.ok(["ps"]).lines().count(), 1, "nothing but the title");
    assert_eq!(diff(&store, "web"), ["A /file"]);
    assert_eq!(mount(&store, "web"), root);
    assert_eq!(fs::read(root.join("file")).unwrap(), b"x");
    unmount(&root, UnmountFlags::DETACH).unwrap();
    let sentence = store.run(["umount", "web"]).failure(3);
    assert!(sentence.contains("not mounted: web"), "{sentence}");
    store.ok(["rm", "web"]);
    store.assert_no_leftovers();
    assert_eq!(store.sql("SELECT count(*) FROM mount"), ["0"]);
}
