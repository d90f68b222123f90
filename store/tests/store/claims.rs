//! What is claimed between a plan and its execution stays, with all that it needs, and everything else goes.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};

use layerstore_gc::{Evict, Plan, Policy, Scope};
use layerstore_oci::ErrorKind;
use layerstore_store::{
    LOCAL, Labels, NewContainer, NewSnapshot, Object, Publication, RootKind, Session, Store, Unless, Untag,
    Victim,
};

use crate::open::execute;
use crate::{add_image, audit, blob, commit_of, diff_id, digest, manifest, open, publish_image, sql, untag};

const NAME: &str = "localhost/a:1";

type Counts = [usize; 3];
/// Blobs, trees and snapshots of the image, which has two layers.
const ALL: Counts = [4, 2, 2];

/// Somebody claims something. What is returned lives until the plan is carried out.
type Claim = fn(&Store) -> Option<Session>;

fn lease(store: &Store, wanted: &[(&str, bool)]) -> Session {
    let session = store.session(LOCAL).unwrap();
    let wanted: Vec<_> =
        wanted.iter().map(|(text, layer)| (digest(text), layer.then(|| diff_id(text)))).collect();
    let found = store.lease_layers(&session, &wanted).unwrap();
    assert!(found.iter().all(|presence| presence.blob.is_some()));
    session
}

fn lease_base(store: &Store) -> Session {
    lease(store, &[("base", true)])
}

fn lease_manifest(store: &Store) -> Session {
    lease(store, &[("manifest a", false)])
}

fn snapshot(key: &str, layers: &[&str]) -> NewSnapshot {
    let layers = layers.iter().map(|layer| diff_id(layer)).collect();
    NewSnapshot { owner: LOCAL.to_owned(), key: key.to_owned(), layers, ..NewSnapshot::default() }
}

fn view(store: &Store) -> Option<Session> {
    store.insert_snapshot(&snapshot("look", &["base", "a"]), None).unwrap();
    None
}

fn view_of_others(store: &Store) -> Option<Session> {
    let owner = "runtime".to_owned();
    store.insert_snapshot(&NewSnapshot { owner, ..snapshot("look", &["base"]) }, None).unwrap();
    None
}

fn container(store: &Store) -> Option<Session> {
    let id = digest("c").hex();
    let (name, image) = ("c".to_owned(), NAME.to_owned());
    let new = NewContainer { id: id.clone(), name, manifest: manifest("a"), image, labels: Labels::new() };
    let tree = store.writable_tree().unwrap();
    store.insert_container(&new, &snapshot(&id, &["base", "a"]), tree).unwrap();
    None
}

fn mount(store: &Store) -> Option<Session> {
    // As `Store::mount` records it, which only root can do.
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let row = format!(
        "INSERT INTO mount (target, namespace, manifest, boot_id, own_directory, created_at) \
         VALUES (x'2f6d', 1, '{}', '{}', 0, 0); \
         INSERT INTO mount_tree SELECT x'2f6d', 1, id FROM tree WHERE diff_id = '{}'",
        manifest("a"),
        boot.trim(),
        diff_id("base")
    );
    execute(store.layout().root(), &row);
    None
}

fn name(store: &Store) -> Option<Session> {
    store.set_reference(LOCAL, "localhost/b:1", &manifest("a")).unwrap();
    None
}

fn name_of_others(store: &Store) -> Option<Session> {
    store.set_reference("runtime", "localhost/b:1", &manifest("a")).unwrap();
    None
}

/// Another image that has the lower layer.
fn image(store: &Store) -> Option<Session> {
    let session = store.session(LOCAL).unwrap();
    add_image(store, &session, "localhost/b:1", "b", &["base"]).unwrap();
    None
}

fn plan(store: &Store, evict: Option<Evict>) -> Plan {
    layerstore_gc::plan(&store.graph().unwrap(), &Policy { scope: Scope::Unused, evict, ..Policy::default() })
}

fn carry_out(store: &Store, plan: &Plan) {
    let names: Vec<_> = plan.names.iter().map(|name| name.untag.clone()).collect();
    let victims: Vec<Victim> = plan.victims.iter().map(|planned| planned.victim.clone()).collect();
    let gone = store.forget(&names, &victims).unwrap().victims;
    let gone: Vec<Object> = gone.into_iter().map(|index| victims[index].object.clone()).collect();
    store.sweep(&gone).unwrap();
}

/// Objects of layers and documents; what a container writes to is not among them.
fn counts(root: &Path) -> Counts {
    let count = |query| sql(root, query).len();
    [
        count("SELECT digest FROM blob"),
        count("SELECT id FROM tree WHERE diff_id IS NOT NULL"),
        count("SELECT owner || key FROM snapshot WHERE kind = 'committed'"),
    ]
}

fn race(case: &str, evict: Option<Evict>, named: bool, claim: Claim) -> Counts {
    let dir = tempfile::tempdir().unwrap();
    let (store, other) = (open(dir.path()), open(dir.path()));
    let session = store.session(LOCAL).unwrap();
    add_image(&store, &session, NAME, "a", &["base", "a"]).unwrap();
    drop(session);
    execute(dir.path(), "UPDATE reference SET pulled_at = 1; UPDATE tree SET synced = 1");
    if !named {
        store.forget(&[untag(&store, NAME)], &[]).unwrap();
    }
    let plan = plan(&store, evict);
    assert_eq!(plan.names.len(), usize::from(named && evict.is_none()), "{case}");
    let session = claim(&other);
    carry_out(&store, &plan);
    // What is there is whole: all that it needs is there as well, rows and files.
    let left = layerstore_gc::plan(&other.graph().unwrap(), &Policy::default());
    assert_eq!(left.victims, [], "{case}: something that nothing keeps is left");
    let missing =
        "SELECT e.child FROM edge AS e WHERE NOT EXISTS (SELECT 1 FROM blob WHERE digest = e.child)";
    assert!(evict == Some(Evict::Blobs) || sql(dir.path(), missing).is_empty(), "{case}");
    let leased = sql(
        dir.path(),
        "SELECT key FROM lease_item WHERE kind = 'blob' AND key NOT IN (SELECT digest FROM blob)",
    );
    assert_eq!(leased, BTreeSet::new(), "{case}");
    let leased = sql(
        dir.path(),
        "SELECT key FROM lease_item WHERE kind = 'tree' AND key NOT IN (SELECT diff_id FROM tree WHERE diff_id IS NOT NULL)",
    );
    assert_eq!(leased, BTreeSet::new(), "{case}");
    let mounted = sql(dir.path(), "SELECT tree FROM mount_tree WHERE tree NOT IN (SELECT id FROM tree)");
    assert_eq!(mounted, BTreeSet::new(), "{case}");
    assert_eq!(sql(dir.path(), "SELECT \"table\" FROM pragma_foreign_key_check"), BTreeSet::new(), "{case}");
    for id in sql(dir.path(), "SELECT id FROM tree") {
        assert!(dir.path().join("overlay2").join(id).join("diff").is_dir(), "{case}");
    }
    for hex in sql(dir.path(), "SELECT substr(digest, 8) FROM blob") {
        assert!(dir.path().join("blobs/sha256").join(hex).is_file(), "{case}");
    }
    drop(session);
    counts(dir.path())
}

#[test]
fn claims_hold_against_a_plan_that_is_older() {
    // With the image in the garbage already, and with its name about to go because nothing uses it.
    let cases: [(&str, Claim, Counts, Counts); 9] = [
        ("a layer is leased", |store| Some(lease_base(store)), [1, 1, 0], [1, 1, 0]),
        ("the manifest is leased", |store| Some(lease_manifest(store)), ALL, ALL),
        ("a view is above it", view, [0, 2, 2], ALL),
        // Of the lower layer only: that is not the image.
        ("somebody else's view is above a layer", view_of_others, [0, 1, 1], [0, 1, 1]),
        ("a container is made from it", container, ALL, ALL),
        ("it is mounted", mount, ALL, ALL),
        ("it gets another name", name, ALL, ALL),
        ("it gets a name of somebody else", name_of_others, ALL, ALL),
        ("another image has its layer", image, [3, 1, 1], [3, 1, 1]),
    ];
    for (case, claim, garbage, unused) in cases {
        assert_eq!(race(case, None, false, claim), garbage, "{case}, garbage");
        assert_eq!(race(case, None, true, claim), unused, "{case}, unused");
    }
}

#[test]
fn claims_hold_against_evictions() {
    let cases: [(&str, Claim, Counts, Counts); 8] = [
        ("nothing happens", |_| None, [4, 0, 0], [2, 2, 2]),
        ("a layer is leased", |store| Some(lease_base(store)), [4, 1, 0], [3, 2, 2]),
        ("a view is above it", view, ALL, [2, 2, 2]),
        ("somebody else's view is above a layer", view_of_others, [4, 1, 1], [2, 2, 3]),
        ("a container is made from it", container, ALL, [2, 2, 2]),
        ("it is mounted", mount, [4, 1, 0], [2, 2, 2]),
        ("it gets another name", name, [4, 0, 0], [2, 2, 2]),
        // That one keeps its stack, which is not the one that the plan is about; and it was not pulled, so that its layer
        // cannot be fetched again.
        ("another image has its layer", image, [6, 1, 1], [5, 2, 2]),
    ];
    for (case, claim, trees, blobs) in cases {
        assert_eq!(race(case, Some(Evict::Trees), true, claim), trees, "{case}, trees");
        assert_eq!(race(case, Some(Evict::Blobs), true, claim), blobs, "{case}, blobs");
    }
}

#[test]
fn names_that_changed_since_stay() {
    let changes: [fn(&Store); 3] = [
        |store| assert!(store.set_pinned(LOCAL, NAME, true).unwrap()),
        |store| store.note_use(&manifest("a")).unwrap(),
        |store| {
            let session = store.session(LOCAL).unwrap();
            add_image(store, &session, NAME, "b", &["base"]).unwrap();
        },
    ];
    for change in changes {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        add_image(&store, &store.session(LOCAL).unwrap(), NAME, "a", &["base", "a"]).unwrap();
        let plan = plan(&store, None);
        change(&open(dir.path()));
        carry_out(&store, &plan);
        let target = store.reference(LOCAL, NAME).unwrap().unwrap().target;
        assert!(store.blob(&target).unwrap().is_some());
        audit(dir.path());
    }
}

/// A person who removes a name was told that nobody uses it, and that may have changed since.
#[test]
fn a_name_that_is_claimed_meanwhile_is_not_removed_by_hand() {
    for (claim, is_claimed) in [(container as Claim, true), (mount, true), (view, false)] {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        add_image(&store, &store.session(LOCAL).unwrap(), NAME, "a", &["base", "a"]).unwrap();
        let by_hand = Untag { unless: Unless::Claimed(vec![manifest("a")]), ..untag(&store, NAME) };
        claim(&store);
        let removed = store.forget(std::slice::from_ref(&by_hand), &[]);
        assert_eq!(
            removed.as_ref().err().map(layerstore_store::Error::kind),
            is_claimed.then_some(ErrorKind::InUse)
        );
        assert_eq!(store.reference(LOCAL, NAME).unwrap().is_some(), is_claimed);
    }
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    add_image(&store, &store.session(LOCAL).unwrap(), NAME, "a", &["base"]).unwrap();
    store.set_pinned(LOCAL, NAME, true).unwrap();
    let by_hand = Untag { unless: Unless::Claimed(Vec::new()), ..untag(&store, NAME) };
    assert_eq!(store.forget(std::slice::from_ref(&by_hand), &[]).unwrap_err().kind(), ErrorKind::InUse);
    store.set_pinned(LOCAL, NAME, false).unwrap();
    assert_eq!(store.forget(&[by_hand], &[]).unwrap().names, [0]);
}

#[test]
fn what_is_gone_cannot_be_claimed() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    add_image(&store, &store.session(LOCAL).unwrap(), NAME, "a", &["base", "a"]).unwrap();
    carry_out(&store, &plan(&store, None));
    let other = open(dir.path());
    let named = other.set_reference(LOCAL, "localhost/b:1", &manifest("a")).unwrap_err();
    assert_eq!(named.kind(), ErrorKind::NotFound);
    assert!(
        other
            .insert_snapshot(&NewSnapshot { parent: Some("none".to_owned()), ..snapshot("x", &[]) }, None)
            .is_err()
    );
    let session = other.session(LOCAL).unwrap();
    let found = other.lease_layers(&session, &[(digest("base"), Some(diff_id("base")))]).unwrap();
    assert!(found[0].blob.is_none() && found[0].tree.is_none());
    // It was leased as it is published, and what another collector planned before does it no harm.
    publish_image(&other, &session, "a", &["base", "a"]).unwrap();
    carry_out(&store, &plan(&store, None));
    other.commit_images(&session, &commit_of("a", &["base", "a"])).unwrap();
    let leftover = vec![blob(&session, "more", None).unwrap()];
    other.publish(&session, Publication { blobs: leftover, ..Publication::default() }).unwrap();
    drop(session);
    carry_out(&store, &plan(&store, None));
    audit(dir.path());
}

const ROOT: &str = "LAYERSTORE_TEST_CLAIMS";

/// Half of them claim and look, the others collect, each in a process of its own.
#[test]
fn collectors_and_their_victims_meet_in_six_processes() {
    let dir = tempfile::tempdir().unwrap();
    let start = |number: usize| {
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "claims::one_of_six_processes", "--ignored", "--quiet"])
            .env(ROOT, format!("{number}:{}", dir.path().display()))
            .stdout(Stdio::null())
            .spawn()
            .unwrap()
    };
    let children: Vec<_> = (0..6).map(start).collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    let store = open(dir.path());
    store.recover_all().unwrap();
    store.empty_trash().unwrap();
    carry_out(&store, &plan(&store, None));
    audit(dir.path());
    assert_eq!(counts(dir.path()), [0, 0, 0]);
}

#[test]
#[ignore = "run by collectors_and_their_victims_meet_in_six_processes"]
fn one_of_six_processes() {
    let text = std::env::var(ROOT).unwrap();
    let (number, root) = text.split_once(':').unwrap();
    let (number, store) = (number.parse::<usize>().unwrap(), open(Path::new(root)));
    for round in 0..30 {
        if number % 2 == 0 {
            let evict = [None, Some(Evict::Trees), Some(Evict::Blobs), None][(round + number) % 4];
            carry_out(&store, &plan(&store, evict));
            continue;
        }
        let layers = [["base", "a"], ["base", "b"]][round % 2];
        let image = ["a", "b"][round % 2];
        let tag = format!("localhost/{number}:{}", round % 3);
        let session = store.session(LOCAL).unwrap();
        add_image(&store, &session, &tag, image, &layers).unwrap();
        // What the session has leased is there, whatever the others do.
        for layer in layers {
            assert_eq!(store.read_blob(&digest(layer), 9).unwrap(), layer.as_bytes());
            let tree = store.tree(&diff_id(layer)).unwrap().unwrap();
            assert!(store.layout().diff(&tree.id).join("file").is_file());
        }
        let key = format!("{number}-{round}");
        store.insert_snapshot(&snapshot(&key, &layers), None).unwrap();
        drop(session);
        // And so is what the snapshot is above.
        for link in store.links(LOCAL, &key).unwrap() {
            let Some(tree) = link.tree else { continue };
            assert!(store.layout().diff(&tree.id).join("file").is_file(), "{key}");
        }
        let graph = store.graph().unwrap();
        assert!(
            graph
                .roots
                .iter()
                .any(|root| matches!(&root.kind, RootKind::Snapshot { key: found, .. } if *found == key))
        );
        let discarded = store.remove_snapshot(LOCAL, &key).unwrap();
        store.unlink_discarded(discarded).unwrap();
    }
}
