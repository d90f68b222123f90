//! Snapshots: which keys, parents and states are accepted, and what goes when they go.

use std::collections::HashSet;
use std::fs;
use std::ops::ControlFlow;

use layerstore_oci::{ChainId, ErrorKind};
use layerstore_store::{
    Error, LOCAL, Labels, MountApi, MountPoint, NewContainer, NewSnapshot, Object, Result, Settings,
    SnapshotCommit, SnapshotInfo, SnapshotKind, Stack, Store, Subject, Upper,
};

use crate::{add_image, audit, collect, diff_id, manifest, open};

const OWNER: &str = "runtime";

fn new(owner: &str, key: &str, parent: Option<&str>) -> NewSnapshot {
    NewSnapshot {
        owner: owner.to_owned(),
        key: key.to_owned(),
        parent: parent.map(str::to_owned),
        ..NewSnapshot::default()
    }
}

fn prepare(store: &Store, key: &str, parent: Option<&str>) -> Result<SnapshotInfo> {
    store.insert_snapshot(&new(OWNER, key, parent), Some(store.writable_tree()?))
}

fn view(store: &Store, key: &str, parent: Option<&str>) -> Result<SnapshotInfo> {
    store.insert_snapshot(&new(OWNER, key, parent), None)
}

fn commit(store: &Store, name: &str, key: &str) -> Result<SnapshotInfo> {
    store.commit_snapshot(OWNER, name, key, &SnapshotCommit::default())
}

fn commit_above(store: &Store, name: &str, key: &str, parent: &str) -> Result<SnapshotInfo> {
    let commit = SnapshotCommit { parent: Some(parent.to_owned()), ..SnapshotCommit::default() };
    store.commit_snapshot(OWNER, name, key, &commit)
}

fn remove(store: &Store, key: &str) -> Result<()> {
    let discarded = store.remove_snapshot(OWNER, key)?;
    store.unlink_discarded(discarded)
}

fn keys(store: &Store, owner: &str) -> Vec<String> {
    let mut keys = Vec::new();
    store
        .walk_snapshots(owner, |info| {
            keys.push(info.key);
            ControlFlow::Continue(())
        })
        .unwrap();
    keys
}

fn trees(store: &Store) -> usize {
    fs::read_dir(store.layout().overlay2()).unwrap().count()
}

/// Each case with its kind, as containerd's interface has it.
#[test]
fn what_cannot_be_done_is_refused_with_its_kind() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    prepare(&store, "work", None).unwrap();
    let base = commit(&store, "base", "work").unwrap();
    assert_eq!((base.kind, base.parent), (SnapshotKind::Committed, None));
    prepare(&store, "one", Some("base")).unwrap();
    view(&store, "look", Some("base")).unwrap();
    prepare(&store, "free", None).unwrap();
    let kinds = |error: Error| (error.kind(), error.to_string());
    let cases = [
        (store.snapshot(OWNER, "nope").unwrap_err(), ErrorKind::NotFound, "no such snapshot: nope"),
        (prepare(&store, "one", None).unwrap_err(), ErrorKind::AlreadyExists, "snapshot one exists already"),
        (view(&store, "base", None).unwrap_err(), ErrorKind::AlreadyExists, "snapshot base exists already"),
        (prepare(&store, "x", Some("nope")).unwrap_err(), ErrorKind::NotFound, "no such snapshot: nope"),
        (
            prepare(&store, "x", Some("one")).unwrap_err(),
            ErrorKind::InvalidInput,
            "snapshot one cannot be a parent: it is an active one",
        ),
        (view(&store, "x", Some("look")).unwrap_err(), ErrorKind::InvalidInput, "it is a view"),
        (commit(&store, "x", "nope").unwrap_err(), ErrorKind::NotFound, "no such snapshot: nope"),
        (
            commit(&store, "base", "one").unwrap_err(),
            ErrorKind::AlreadyExists,
            "snapshot base exists already",
        ),
        (commit(&store, "one", "one").unwrap_err(), ErrorKind::AlreadyExists, "snapshot one exists already"),
        (commit(&store, "x", "look").unwrap_err(), ErrorKind::WrongState, "snapshot look is a view"),
        (commit(&store, "x", "base").unwrap_err(), ErrorKind::WrongState, "snapshot base is a committed one"),
        (commit_above(&store, "x", "one", "other").unwrap_err(), ErrorKind::InvalidInput, "is above base"),
        (
            commit_above(&store, "x", "free", "nope").unwrap_err(),
            ErrorKind::NotFound,
            "no such snapshot: nope",
        ),
        (
            commit_above(&store, "x", "free", "one").unwrap_err(),
            ErrorKind::WrongState,
            "snapshot one is an active",
        ),
        (remove(&store, "nope").unwrap_err(), ErrorKind::NotFound, "no such snapshot: nope"),
        (
            remove(&store, "base").unwrap_err(),
            ErrorKind::InUse,
            "snapshot base is in use by the snapshots above it: look, one",
        ),
        (prepare(&store, "", None).unwrap_err(), ErrorKind::InvalidInput, "it is empty"),
        (prepare(&store, "a\0b", None).unwrap_err(), ErrorKind::InvalidInput, "NUL"),
        (prepare(&store, &"k".repeat(1025), None).unwrap_err(), ErrorKind::InvalidInput, "longer than 1024"),
    ];
    for (error, kind, text) in cases {
        let (found, said) = kinds(error);
        assert_eq!(found, kind, "{said}");
        assert!(said.contains(text), "{said:?} does not say {text:?}");
    }
    assert_eq!(keys(&store, OWNER), ["base", "free", "look", "one"], "nothing was half done");
    assert_eq!(trees(&store), 3);
    let long = Labels::from([("name".to_owned(), "v".repeat(4096))]);
    let error = store.set_snapshot_labels(OWNER, "one", &long).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
}

#[test]
fn a_commit_replaces_labels_and_takes_a_parent_if_there_is_none() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    prepare(&store, "a", None).unwrap();
    commit(&store, "base", "a").unwrap();
    let mut labelled = new(OWNER, "b", None);
    labelled.labels.insert("old".to_owned(), "1".to_owned());
    store.insert_snapshot(&labelled, Some(store.writable_tree().unwrap())).unwrap();
    let labels = Labels::from([("new".to_owned(), "2".to_owned())]);
    let how = SnapshotCommit { parent: Some("base".to_owned()), labels: labels.clone(), sync: false };
    let top = store.commit_snapshot(OWNER, "top", "b", &how).unwrap();
    assert_eq!((top.parent.as_deref(), top.labels), (Some("base"), labels));
    let links = store.links(OWNER, "top").unwrap();
    assert_eq!(links.iter().map(|link| link.key.as_str()).collect::<Vec<_>>(), ["top", "base"]);
    let tree = links[0].tree.clone().unwrap();
    assert!(!store.layout().work(&tree.id).exists(), "nothing is written to it any more");
    assert_eq!(keys(&store, OWNER), ["base", "top"]);
    remove(&store, "top").unwrap();
    remove(&store, "base").unwrap();
    assert_eq!(trees(&store), 0);
}

#[test]
fn owners_do_not_see_each_other_and_share_trees() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    add_image(&store, &store.session(LOCAL).unwrap(), "localhost/a:1", "a", &["base", "a"]).unwrap();
    let layers = vec![diff_id("base"), diff_id("a")];
    for owner in ["one", "two"] {
        let new = NewSnapshot { layers: layers.clone(), ..new(owner, "c", None) };
        store.insert_snapshot(&new, Some(store.writable_tree().unwrap())).unwrap();
        let trees: Vec<_> =
            store.links(owner, "c").unwrap().into_iter().filter_map(|link| link.tree).collect();
        assert_eq!(trees.len(), 3);
        assert_eq!(trees[1].diff_id, Some(diff_id("a")));
    }
    assert_eq!(trees(&store), 4, "two of the layers, one for each snapshot");
    assert_eq!(store.snapshot("three", "c").unwrap_err().kind(), ErrorKind::NotFound);
    // The image goes, what the snapshots are above stays until they go.
    collect(&store, &["localhost/a:1"]).unwrap();
    assert_eq!(trees(&store), 4);
    for (owner, left) in [("one", 3), ("two", 0)] {
        let discarded = store.remove_snapshot(owner, "c").unwrap();
        store.unlink_discarded(discarded).unwrap();
        collect(&store, &[]).unwrap();
        assert_eq!(trees(&store), left, "after that of {owner}");
    }
    audit(dir.path());
}

#[test]
fn only_stacks_of_images_are_collected() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for owner in [OWNER, LOCAL] {
        store.insert_snapshot(&new(owner, "a", None), Some(store.writable_tree().unwrap())).unwrap();
        store.commit_snapshot(owner, "kept", "a", &SnapshotCommit::default()).unwrap();
        store.insert_snapshot(&new(owner, "active", None), Some(store.writable_tree().unwrap())).unwrap();
        store.insert_snapshot(&new(owner, "view", Some("kept")), None).unwrap();
    }
    collect(&store, &[]).unwrap();
    for owner in [OWNER, LOCAL] {
        assert_eq!(keys(&store, owner), ["active", "kept", "view"]);
    }
    assert_eq!(trees(&store), 4);
    let chain = ChainId::chain(&[diff_id("x")])[0].to_string();
    let error = store.insert_snapshot(&new(LOCAL, &chain, None), None).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "it would be taken for one");
}

#[test]
fn a_walk_sees_all_and_ends_when_told() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for number in 0..250 {
        view(&store, &format!("{number:03}"), None).unwrap();
    }
    let all = keys(&store, OWNER);
    assert_eq!(all.len(), 250);
    assert!(all.is_sorted());
    let mut seen = 0;
    store
        .walk_snapshots(OWNER, |_| {
            seen += 1;
            if seen == 120 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
        .unwrap();
    assert_eq!(seen, 120);
}

fn container(store: &Store, id: &str, name: &str) -> Result<SnapshotInfo> {
    let container = NewContainer {
        id: id.to_owned(),
        name: name.to_owned(),
        manifest: manifest("a"),
        image: "a:1".to_owned(),
        labels: Labels::new(),
    };
    let snapshot = NewSnapshot { layers: vec![diff_id("base"), diff_id("a")], ..new(LOCAL, id, None) };
    store.insert_container(&container, &snapshot, store.writable_tree()?)
}

#[test]
fn a_container_keeps_its_image_and_its_snapshot() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    add_image(&store, &store.session(LOCAL).unwrap(), "localhost/a:1", "a", &["base", "a"]).unwrap();
    container(&store, "c1", "web").unwrap();
    let error = container(&store, "c2", "web").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    assert_eq!(trees(&store), 3, "nothing is left of the one that failed");
    for error in [
        store.remove_snapshot(LOCAL, "c1").unwrap_err(),
        store.commit_snapshot(LOCAL, "x", "c1", &SnapshotCommit::default()).unwrap_err(),
    ] {
        assert_eq!(error.to_string(), "snapshot c1 is in use by container web");
        assert_eq!(error.kind(), ErrorKind::InUse);
    }
    let gone = collect(&store, &["localhost/a:1"]).unwrap();
    assert!(gone.is_empty(), "{gone:?}");
    store.rename_container("c1", "www").unwrap();
    assert_eq!(store.find_containers("c").unwrap()[0].name, "www");
    assert!(store.find_containers("web").unwrap().is_empty());
    let discarded = store.remove_container("c1", layerstore_store::Use::Any).unwrap();
    store.unlink_discarded(discarded).unwrap();
    let gone: HashSet<Object> = collect(&store, &[]).unwrap().into_iter().collect();
    assert!(gone.contains(&Object::Blob(manifest("a"))));
    assert_eq!(trees(&store), 0);
    audit(dir.path());
}

#[test]
fn a_prepare_that_fails_or_is_dropped_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    drop(store.writable_tree().unwrap());
    assert!(prepare(&store, "x", Some("nope")).is_err());
    assert_eq!(trees(&store), 0);
    assert_eq!(fs::read_dir(store.layout().trash()).unwrap().count(), 0);
}

#[test]
fn the_mode_of_a_new_root_does_not_depend_on_the_umask() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let tree = store.writable_tree().unwrap();
    assert_eq!(fs::metadata(tree.diff()).unwrap().permissions().mode() & 0o7777, 0o755);
}

#[test]
fn privileged_a_snapshot_is_mounted_once_and_stays_while_it_is() {
    if crate::mounts::skip() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for api in [MountApi::Newest, MountApi::Classic] {
        prepare(&store, "a", None).unwrap();
        fs::write(upper(&store, "a").diff().join("below"), "1").unwrap();
        commit(&store, "base", "a").unwrap();
        prepare(&store, "b", Some("base")).unwrap();
        let links = store.links(OWNER, "b").unwrap();
        let ids: Vec<_> = links.into_iter().filter_map(|link| link.tree).map(|tree| tree.id).collect();
        let stack = Stack {
            lowers: vec![store.layout().diff(&ids[1])],
            upper: Some(upper(&store, "b")),
            ..Stack::default()
        };
        let subject = Subject::Snapshot { owner: OWNER.to_owned(), key: "b".to_owned() };
        let place = dir.path().join("place");
        fs::create_dir_all(&place).unwrap();
        let mount = |point| store.mount(&subject, &ids, point, &stack, &api.into());
        let target = mount(MountPoint::Own("b")).unwrap();
        let _unmount = crate::mounts::Unmount(&target);
        assert_eq!(mount(MountPoint::Own("b")).unwrap(), target);
        let error = mount(MountPoint::At(&place)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists);
        assert!(error.to_string().ends_with(&target.display().to_string()), "{error}");
        fs::write(target.join("above"), "2").unwrap();
        for error in [remove(&store, "b").unwrap_err(), commit(&store, "x", "b").unwrap_err()] {
            assert_eq!(error.kind(), ErrorKind::InUse, "{error}");
            assert!(error.to_string().contains("mounted at"), "{error}");
        }
        store.unmount(&store.live_mounts().unwrap()[0]).unwrap();
        assert_eq!(fs::read_to_string(upper(&store, "b").diff().join("above")).unwrap(), "2");
        assert!(!upper(&store, "b").diff().join("below").exists());
        remove(&store, "b").unwrap();
        remove(&store, "base").unwrap();
        assert_eq!(trees(&store), 0);
    }
}

#[test]
fn privileged_what_was_mounted_volatile_is_trusted_in_the_same_boot_only() {
    if crate::mounts::skip() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    prepare(&store, "a", None).unwrap();
    commit(&store, "base", "a").unwrap();
    let settings = Settings { volatile: true, ..Settings::default() };
    let new = NewSnapshot { settings, ..new(OWNER, "b", Some("base")) };
    store.insert_snapshot(&new, Some(store.writable_tree().unwrap())).unwrap();
    let base = store.links(OWNER, "base").unwrap()[0].tree.clone().unwrap().id;
    let stack = Stack {
        lowers: vec![store.layout().diff(&base)],
        upper: Some(upper(&store, "b")),
        ..Stack::default()
    };
    let subject = Subject::Snapshot { owner: OWNER.to_owned(), key: "b".to_owned() };
    let options = layerstore_store::MountOptions { volatile: true, ..Default::default() };
    let mount = || store.mount(&subject, std::slice::from_ref(&base), MountPoint::Own("b"), &stack, &options);
    for _ in 0..2 {
        let target = mount().unwrap();
        let _unmount = crate::mounts::Unmount(&target);
        fs::write(target.join("file"), "x").unwrap();
        store.unmount(&store.live_mounts().unwrap()[0]).unwrap();
    }
    crate::open::execute(dir.path(), "UPDATE snapshot SET volatile_boot = 'another' WHERE key = 'b'");
    let error = mount().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains("mounted volatile when the machine went down"), "{error}");
}

fn upper(store: &Store, key: &str) -> Upper {
    let tree = store.links(OWNER, key).unwrap()[0].tree.clone().unwrap();
    Upper { tree: store.layout().tree(&tree.id) }
}

#[test]
fn a_project_number_is_given_once() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let project = |key: &str| {
        let settings = Settings { quota_bytes: Some(1 << 20), ..Settings::default() };
        let new = NewSnapshot { settings, ..new(OWNER, key, None) };
        store.insert_snapshot(&new, Some(store.writable_tree().unwrap())).unwrap();
        let query = format!("SELECT CAST(project AS TEXT) FROM snapshot WHERE key = '{key}'");
        crate::sql(dir.path(), &query).into_iter().next().unwrap()
    };
    let one = project("one");
    remove(&store, "one").unwrap();
    let two = project("two");
    commit(&store, "committed", "two").unwrap();
    let three = project("three");
    assert_eq!(HashSet::from([&one, &two, &three]).len(), 3, "{one} {two} {three}");
}

#[test]
fn directories_of_killed_mounts_go_and_those_of_others_stay() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let mounts = store.layout().mounts();
    for name in ["debris", "used", ".links-x"] {
        fs::create_dir(mounts.join(name)).unwrap();
    }
    fs::write(mounts.join("used/file"), "somebody's").unwrap();
    store.tidy_mount_points().unwrap();
    assert_eq!(crate::names(&mounts).into_iter().collect::<Vec<_>>(), ["used"]);
}
