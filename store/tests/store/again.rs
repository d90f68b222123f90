//! What belongs to one owner and not to another, and what has to be done again when part of it has gone.

use std::fs;

use layerstore_oci::{ChainId, ErrorKind};
use layerstore_store::{
    Edge, EdgeKind, LOCAL, Labels, MountOptions, MountPoint, NewContainer, NewSnapshot, Object, RootKind,
    SnapshotCommit, Stack, Store, Subject,
};

use crate::mounts::skip;
use crate::open::execute;
use crate::{add_image, audit, collect, commit_of, diff_id, digest, manifest, open, publish_image, sql};

const NAME: &str = "localhost/a:1";

fn new(owner: &str, key: &str, parent: Option<&str>) -> NewSnapshot {
    let (owner, key, parent) = (owner.to_owned(), key.to_owned(), parent.map(str::to_owned));
    NewSnapshot { owner, key, parent, ..NewSnapshot::default() }
}

fn prepare(store: &Store, new: &NewSnapshot) {
    store.insert_snapshot(new, Some(store.writable_tree().unwrap())).unwrap();
}

fn remove(store: &Store, owner: &str, key: &str) -> Option<ErrorKind> {
    match store.remove_snapshot(owner, key) {
        Ok(discarded) => {
            store.unlink_discarded(discarded).unwrap();
            None
        }
        Err(error) => Some(error.kind()),
    }
}

/// The keys of the stack of an image with these layers.
fn chain(layers: &[&str]) -> Vec<String> {
    let layers: Vec<_> = layers.iter().map(|layer| diff_id(layer)).collect();
    ChainId::chain(&layers).iter().map(ToString::to_string).collect()
}

#[test]
fn keys_of_others_are_not_in_the_way() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    add_image(&store, &store.session(LOCAL).unwrap(), NAME, "a", &["base"]).unwrap();
    for owner in ["one", "two"] {
        prepare(&store, &new(owner, "work", None));
        store.commit_snapshot(owner, "base", "work", &SnapshotCommit::default()).unwrap();
    }
    prepare(&store, &new("one", "above", Some("base")));
    assert_eq!(remove(&store, "one", "base"), Some(ErrorKind::InUse));
    assert_eq!(remove(&store, "two", "base"), None);
    // A container's ID may be a key of somebody else's.
    let id = digest("c").hex();
    let container = NewContainer {
        id: id.clone(),
        name: "c".to_owned(),
        manifest: manifest("a"),
        image: NAME.to_owned(),
        labels: Labels::new(),
    };
    let tree = store.writable_tree().unwrap();
    store.insert_container(&container, &new(LOCAL, &id, None), tree).unwrap();
    prepare(&store, &new("two", &id, None));
    assert_eq!((remove(&store, LOCAL, &id), remove(&store, "two", &id)), (Some(ErrorKind::InUse), None));
}

#[test]
fn stacks_of_images_stay_and_those_of_others_leave_their_layers() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let session = store.session(LOCAL).unwrap();
    add_image(&store, &session, NAME, "a", &["base"]).unwrap();
    let [base] = &chain(&["base"])[..] else { panic!("one layer") };
    assert_eq!(remove(&store, LOCAL, base), Some(ErrorKind::InUse));
    // Of these layers there is no image.
    publish_image(&store, &session, "b", &["b"]).unwrap();
    let layers = |layer| vec![diff_id(layer)];
    for (layer, key) in [("base", base), ("b", &chain(&["b"])[0])] {
        store
            .insert_snapshot(&NewSnapshot { layers: layers(layer), ..new("other", "look", None) }, None)
            .unwrap();
        assert_eq!((remove(&store, "other", "look"), remove(&store, "other", key)), (None, None));
        let tree = store.tree(&diff_id(layer)).unwrap().unwrap();
        assert!(store.layout().diff(&tree.id).is_dir(), "whoever comes next has it");
    }
}

/// Nothing shares what is written, but if something does it is not taken away from it.
#[test]
fn a_written_tree_stays_while_another_snapshot_has_it() {
    for column in ["tree", "fixup"] {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        prepare(&store, &new("one", "work", None));
        let columns = format!("owner, key, kind, {column}, created_at, updated_at");
        let values = "SELECT 'two', 'other', 'committed', tree, 0, 0 FROM snapshot";
        execute(dir.path(), &format!("INSERT INTO snapshot ({columns}) {values}"));
        assert_eq!(remove(&store, "one", "work"), None);
        audit_trees(&store, 1);
        execute(dir.path(), "DELETE FROM snapshot");
        assert_eq!(collect(&store, &[]).unwrap().len(), 1);
        audit(dir.path());
    }
}

fn audit_trees(store: &Store, count: usize) {
    assert_eq!(fs::read_dir(store.layout().overlay2()).unwrap().count(), count);
    assert_eq!(sql(store.layout().root(), "SELECT id FROM tree").len(), count);
}

/// A row of a mount of `work` of the owner `one`, which was never mounted otherwise.
fn mount_row(store: &Store, namespace: u64) {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let values = format!("x'2f6e6f6e65', {namespace}, 'one', 'work', '{}', 0, 0", boot.trim());
    let columns = "target, namespace, owner, key, boot_id, own_directory, created_at";
    execute(store.layout().root(), &format!("INSERT INTO mount ({columns}) VALUES ({values})"));
}

#[test]
fn a_mount_that_is_gone_does_not_keep_its_snapshot() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    prepare(&store, &new("one", "work", None));
    mount_row(&store, 1);
    assert_eq!(remove(&store, "one", "work"), None);
    audit_trees(&store, 0);
}

/// Somebody may have mounted it since it was looked for.
#[test]
fn privileged_what_another_namespace_has_just_mounted_is_not_removed() {
    use std::os::unix::fs::MetadataExt as _;
    if skip() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    prepare(&store, &new("one", "work", None));
    let mut command = std::process::Command::new("unshare");
    let mut elsewhere = command.args(["-m", "cat"]).stdin(std::process::Stdio::piped()).spawn().unwrap();
    let namespace = |process: &str| fs::metadata(format!("/proc/{process}/ns/mnt")).unwrap().ino();
    let process = elsewhere.id().to_string();
    while namespace(&process) == namespace("self") {
        std::thread::yield_now();
    }
    mount_row(&store, namespace(&process));
    assert_eq!(remove(&store, "one", "work"), Some(ErrorKind::InUse));
    drop(elsewhere.stdin.take());
    elsewhere.wait().unwrap();
    assert_eq!(remove(&store, "one", "work"), None);
}

#[test]
fn what_is_not_there_any_more_is_not_mounted() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    add_image(&store, &store.session(LOCAL).unwrap(), NAME, "a", &["base"]).unwrap();
    let tree = store.tree(&diff_id("base")).unwrap().unwrap().id;
    let mount = |name, tree| {
        let stack = Stack { lowers: vec![dir.path().join("nothing")], ..Stack::default() };
        let subject = Subject::Image(manifest(name));
        store.mount(&subject, &[tree], MountPoint::Own("x"), &stack, &MountOptions::default()).unwrap_err()
    };
    for error in [mount("none", tree), mount("a", "aaaaaaaa".parse().unwrap())] {
        assert!(matches!(error, layerstore_store::Error::NotFound { .. }), "{error}");
        assert!(!dir.path().join("mnt/x").exists());
    }
}

/// A name that moves leaves its image to whoever has another name for it: its own digest, if nobody of that owner has.
#[test]
fn a_name_that_moves_keeps_what_it_stood_for_unless_the_same_image_or_owner_has_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let session = store.session(LOCAL).unwrap();
    add_image(&store, &session, NAME, "a", &["base"]).unwrap();
    add_image(&store, &session, "localhost/b:1", "b", &["base"]).unwrap();
    drop(session);
    store.set_reference("other", "theirs", &manifest("a")).unwrap();
    let left = || {
        let rows = store.references(LOCAL).unwrap();
        rows.into_iter().map(|row| (row.name, row.pinned)).collect::<Vec<_>>()
    };
    let (first, second) = ((NAME.to_owned(), false), ("localhost/b:1".to_owned(), false));
    let nameless = (manifest("a").to_string(), false);
    store.set_reference(LOCAL, NAME, &manifest("b")).unwrap();
    assert_eq!(left(), [first.clone(), second.clone(), nameless], "the other's name is not ours");
    store.set_reference(LOCAL, "localhost/c:1", &manifest("a")).unwrap();
    let third = ("localhost/c:1".to_owned(), false);
    assert_eq!(left(), [first.clone(), second.clone(), third.clone()], "nobody has pinned it");
    store.set_reference(LOCAL, "localhost/c:1", &manifest("b")).unwrap();
    store.set_reference(LOCAL, "localhost/c:1", &manifest("a")).unwrap();
    // Under another manifest it is the same image.
    let same = format!("UPDATE image SET config = '{}'", digest("config a"));
    execute(dir.path(), &same);
    store.set_reference(LOCAL, "localhost/c:1", &manifest("b")).unwrap();
    assert_eq!(left(), [first, second, third]);
}

#[test]
fn a_commit_brings_back_what_was_evicted_or_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let session = store.session(LOCAL).unwrap();
    publish_image(&store, &session, "a", &["base"]).unwrap();
    let mut commit = commit_of("a", &["base"]);
    commit.references = vec![(NAME.to_owned(), manifest("a"))];
    let images = std::mem::take(&mut commit.images);
    assert!(store.commit_images(&session, &commit).unwrap());
    // Named, and not unpacked so far.
    commit.images = images;
    store.commit_images(&session, &commit).unwrap();
    assert!(store.image_info(&manifest("a")).unwrap().is_some());
    let key = &chain(&["base"])[0];
    let view = NewSnapshot { layers: vec![diff_id("base")], ..new("other", "look", None) };
    store.insert_snapshot(&view, None).unwrap();
    execute(dir.path(), "DELETE FROM snapshot WHERE owner = 'local'");
    store.commit_images(&session, &commit).unwrap();
    assert!(store.snapshot(LOCAL, key).is_ok(), "that of somebody else does not do");
    execute(dir.path(), "DELETE FROM image_layer; DELETE FROM image");
    store.commit_images(&session, &commit).unwrap();
    assert!(store.image_info(&manifest("a")).unwrap().is_some(), "its stack alone does not do");
}

#[test]
fn an_image_is_complete_without_what_it_is_about_and_not_without_a_layer() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let session = store.session(LOCAL).unwrap();
    publish_image(&store, &session, "a", &["base"]).unwrap();
    let mut commit = commit_of("a", &["base"]);
    commit.edges.push(Edge { parent: manifest("a"), child: digest("none"), kind: EdgeKind::Subject });
    store.commit_images(&session, &commit).unwrap();
    let found = || store.manifest_of_image(&digest("config a")).unwrap();
    assert_eq!(found(), Some(manifest("a")));
    execute(dir.path(), &format!("DELETE FROM blob WHERE digest = '{}'", digest("base")));
    assert_eq!(found(), None);
}

#[test]
fn a_fix_up_is_trusted_like_a_tree() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let session = store.session(LOCAL).unwrap();
    add_image(&store, &session, NAME, "a", &["base"]).unwrap();
    let chain: ChainId = chain(&["base"])[0].parse().unwrap();
    let new = crate::tree(&session, "fix-up").unwrap();
    let (id, _) = store.publish_fixup(&session, &chain, new.directory, new.usage).unwrap();
    let change = |change| execute(dir.path(), &format!("UPDATE tree SET {change} WHERE diff_id IS NULL"));
    let found = || store.fixup(&chain).unwrap().is_some();
    assert!(found());
    change("boot_id = 'another'");
    assert!(!found());
    change("synced = 1");
    assert!(found());
    fs::remove_dir_all(store.layout().diff(&id)).unwrap();
    assert!(!found());
}

/// Who may need a tree.
type Claim = fn(&Store);

#[test]
fn trees_are_made_durable_for_snapshots_and_not_for_images_alone() {
    let prepared = |store: &Store| {
        let layers = vec![diff_id("base")];
        store.insert_snapshot(&NewSnapshot { layers, ..new("one", "look", None) }, None).unwrap();
    };
    let written = |store: &Store| {
        prepare(store, &new("one", "work", None));
        store.commit_snapshot("one", "done", "work", &SnapshotCommit::default()).unwrap();
    };
    let cases: [(Claim, bool); 3] = [(|_| {}, false), (prepared, true), (written, true)];
    for (index, (who, durable)) in cases.into_iter().enumerate() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        add_image(&store, &store.session(LOCAL).unwrap(), NAME, "a", &["base"]).unwrap();
        who(&store);
        store.settle_for_snapshots().unwrap();
        let fresh = sql(dir.path(), "SELECT id FROM tree WHERE synced = 0");
        assert_eq!(fresh.is_empty(), durable, "case {index}");
    }
}

#[test]
fn mounts_of_another_boot_are_no_roots_and_files_that_are_gone_are_noted() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    add_image(&store, &store.session(LOCAL).unwrap(), NAME, "a", &["base", "a"]).unwrap();
    prepare(&store, &new("one", "work", None));
    let mounts = || {
        let roots = store.graph().unwrap().roots;
        roots.iter().filter(|root| matches!(root.kind, RootKind::Mount { .. })).count()
    };
    mount_row(&store, 1);
    assert_eq!(mounts(), 1);
    execute(dir.path(), "UPDATE mount SET boot_id = 'another'");
    assert_eq!(mounts(), 0);

    let tree = store.tree(&diff_id("base")).unwrap().unwrap().id;
    fs::remove_dir_all(store.layout().diff(&tree)).unwrap();
    fs::remove_file(store.layout().blob(&digest("base"))).unwrap();
    fs::remove_file(store.layout().blob(&digest("a"))).unwrap();
    fs::write(store.layout().blob(&digest("a")), "longer than it should be").unwrap();
    let mut graph = store.graph().unwrap();
    store.note_missing(&mut graph);
    let missing: std::collections::HashSet<_> =
        graph.missing.iter().map(|index| graph.nodes[*index].object.clone()).collect();
    let [base, a] = ["base", "a"].map(|layer| Object::Blob(digest(layer)));
    assert_eq!(missing, [Object::Tree(tree), base, a].into());
}
