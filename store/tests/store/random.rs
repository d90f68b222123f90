//! Random lives of a store: whatever was done before, a collection takes exactly what nothing leads to, and frees exactly
//! the bytes that it says.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Command;

use layerstore_gc::{Evict, Plan, Policy, Scope};
use layerstore_oci::DiffId;
use layerstore_store::{
    Graph, LOCAL, Labels, NewContainer, NewSnapshot, Object, RootKind, Session, SnapshotCommit, Store, Victim,
};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::open::execute;
use crate::{add_image, diff_id, digest, everything, manifest, names, open, sql, untag};

const IMAGES: [&[&str]; 5] =
    [&["base"], &["base", "a"], &["base", "b"], &["base", "a", "c"], &["b", "a", "b"]];

struct Run {
    dir: tempfile::TempDir,
    store: Store,
    sessions: Vec<Session>,
    serial: usize,
}

fn layers(image: usize) -> &'static [&'static str] {
    IMAGES[image % IMAGES.len()]
}

fn name(image: usize) -> String {
    format!("i{}", image % IMAGES.len())
}

impl Run {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        Self { dir, store, sessions: Vec::new(), serial: 0 }
    }

    fn has(&self, image: usize) -> bool {
        self.store.image_info(&manifest(&name(image))).unwrap().is_some()
    }

    /// One step; what is not possible is left out.
    fn step(&mut self, (what, a, b): (u8, usize, usize)) {
        let (root, store) = (self.dir.path().to_owned(), self.store.clone());
        let target = manifest(&name(b));
        self.serial += 1;
        let serial = self.serial;
        match what {
            0..=3 => {
                let session = store.session(LOCAL).unwrap();
                let tag = format!("localhost/r:{}", a % 4);
                add_image(&store, &session, &tag, &name(b), layers(b)).unwrap();
                if a % 2 == 0 {
                    store.note_pull(LOCAL, &tag, &target).unwrap();
                }
            }
            4 if self.has(b) => {
                let owner = if a % 3 == 0 { "other" } else { LOCAL };
                store.set_reference(owner, &format!("localhost/t:{}", a % 3), &target).unwrap();
            }
            5 | 6 => {
                if let Some(row) = chosen(&store.references(LOCAL).unwrap(), a) {
                    store.forget(&[untag(&store, &row.name)], &[]).unwrap();
                }
            }
            7 => {
                let session = store.session(LOCAL).unwrap();
                let wanted: Vec<_> = layers(b)
                    .iter()
                    .map(|layer| (digest(layer), Some(diff_id(layer))))
                    .chain([(target, None)])
                    .collect();
                store.lease_layers(&session, &wanted[a % wanted.len()..]).unwrap();
                self.sessions.push(session);
            }
            8 if !self.sessions.is_empty() => drop(self.sessions.swap_remove(a % self.sessions.len())),
            9 => self.mount(a, b),
            10 => execute(&root, "PRAGMA foreign_keys = ON; DELETE FROM mount"),
            11 if self.unpacked(b) => {
                let id = digest(&serial.to_string()).hex();
                let container = NewContainer {
                    id: id.clone(),
                    name: format!("c{serial}"),
                    manifest: target,
                    image: name(b),
                    labels: Labels::new(),
                };
                let snapshot = above(LOCAL, &id, b);
                store.insert_container(&container, &snapshot, store.writable_tree().unwrap()).unwrap();
            }
            12 => {
                if let Some(row) = chosen(&store.containers().unwrap(), a) {
                    let discarded = store.remove_container(&row.id, layerstore_store::Use::Any).unwrap();
                    store.unlink_discarded(discarded).unwrap();
                }
            }
            13 if self.unpacked(b) => {
                let tree = (a % 3 != 0).then(|| store.writable_tree().unwrap());
                let owner = if a % 2 == 0 { LOCAL } else { "other" };
                store.insert_snapshot(&above(owner, &format!("s{serial}"), b), tree).unwrap();
            }
            14 => {
                for key in sql(&root, "SELECT key FROM snapshot WHERE kind = 'active' AND owner = 'other'") {
                    let commit = SnapshotCommit { sync: false, ..SnapshotCommit::default() };
                    store.commit_snapshot("other", &format!("done {key}"), &key, &commit).unwrap();
                    let parent = Some(format!("done {key}"));
                    let new =
                        NewSnapshot { owner: "other".to_owned(), key, parent, ..NewSnapshot::default() };
                    store.insert_snapshot(&new, None).unwrap();
                }
            }
            15 => {
                for key in sql(&root, "SELECT key FROM snapshot WHERE owner = 'other'") {
                    // Those that are in use stay.
                    if let Ok(discarded) = store.remove_snapshot("other", &key) {
                        store.unlink_discarded(discarded).unwrap();
                    }
                }
            }
            16 => execute(&root, "UPDATE tree SET synced = 0 WHERE diff_id IS NOT NULL AND id < 'i'"),
            17 => execute(&root, "UPDATE tree SET synced = 1"),
            _ => self.collect(&policy(a)),
        }
    }

    fn unpacked(&self, image: usize) -> bool {
        layers(image).iter().all(|layer| self.store.tree(&diff_id(layer)).unwrap().is_some())
            && self.has(image)
    }

    /// A row as a mount makes it, of an image, its stack or somebody's snapshot.
    fn mount(&self, a: usize, b: usize) {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
        let boot = if a % 5 == 4 { "another" } else { boot.trim() };
        let keys = sql(self.dir.path(), "SELECT owner || char(10) || key FROM snapshot");
        let key = chosen(&keys.into_iter().collect::<Vec<_>>(), b);
        let subject = match key {
            Some(key) if a.is_multiple_of(2) => {
                let (owner, key) = key.split_once('\n').unwrap();
                format!("NULL, '{owner}', '{key}'")
            }
            _ if self.has(b) => format!("'{}', NULL, NULL", manifest(&name(b))),
            _ => return,
        };
        let tree = sql(self.dir.path(), "SELECT id FROM tree");
        let tree = chosen(&tree.into_iter().collect::<Vec<_>>(), a).unwrap_or_default();
        let target = format!("CAST('/m{}' AS BLOB), 1", self.serial);
        execute(
            self.dir.path(),
            &format!(
                "INSERT INTO mount (target, namespace, manifest, owner, key, boot_id, own_directory, created_at) \
             SELECT {target}, {subject}, '{boot}', 0, 0; \
             INSERT INTO mount_tree (target, namespace, tree) SELECT {target}, id FROM tree WHERE id = '{tree}'"
            ),
        );
    }

    /// Collects, and holds what was planned against what happened.
    fn collect(&self, policy: &Policy) {
        count(self.dir.path());
        let plan = layerstore_gc::plan(&self.store.graph().unwrap(), policy);
        let before = disk(self.dir.path());
        let gone = carry_out(&self.store, &plan);
        assert_eq!(self.store.sweep(&gone).unwrap().len(), gone.len());
        assert_eq!(before - disk(self.dir.path()), plan.freed().allocated, "{plan:#?}");
        let again = layerstore_gc::plan(&self.store.graph().unwrap(), policy);
        assert_eq!((again.names, again.victims), (Vec::new(), Vec::new()));
    }

    fn check(&self, order: usize) {
        let root = self.dir.path();
        assert_eq!(sql(root, "PRAGMA integrity_check"), BTreeSet::from(["ok".to_owned()]));
        assert_eq!(sql(root, "SELECT \"table\" FROM pragma_foreign_key_check"), BTreeSet::new());
        assert_eq!(names(&root.join("overlay2")), sql(root, "SELECT id FROM tree"), "trees");
        assert_eq!(
            names(&root.join("blobs/sha256")),
            sql(root, "SELECT substr(digest, 8) FROM blob"),
            "blobs"
        );
        // On a copy of the rows, since it takes them away.
        let copy = tempfile::tempdir().unwrap();
        execute(root, &format!("VACUUM INTO '{}'", copy.path().join("layerstore.db").display()));
        let copy = open(copy.path());
        let garbage = garbage(&copy.graph().unwrap());
        let mut victims = everything(&copy);
        let parents_first = victims.clone();
        victims.sort_by_key(|victim| digest(&format!("{order} {:?}", victim.object)).to_string());
        let gone = forget(&copy, &victims);
        assert!(gone.is_subset(&garbage), "{:?}", gone.difference(&garbage));
        let gone: BTreeSet<String> = gone.union(&forget(&copy, &parents_first)).cloned().collect();
        assert_eq!(gone, garbage);
    }
}

fn above(owner: &str, key: &str, image: usize) -> NewSnapshot {
    let layers: Vec<DiffId> = layers(image).iter().map(|layer| diff_id(layer)).collect();
    NewSnapshot { owner: owner.to_owned(), key: key.to_owned(), layers, ..NewSnapshot::default() }
}

fn chosen<T: Clone>(list: &[T], which: usize) -> Option<T> {
    if list.is_empty() { None } else { Some(list[which % list.len()].clone()) }
}

fn policy(which: usize) -> Policy {
    let evict = [None, None, None, Some(Evict::Trees), Some(Evict::Blobs)][which % 5];
    let scope = if which.is_multiple_of(5) { Scope::Garbage } else { Scope::Unused };
    Policy { scope, evict, ..Policy::default() }
}

/// Carries a plan out that nothing came in the way of.
fn carry_out(store: &Store, plan: &Plan) -> Vec<Object> {
    let names: Vec<_> = plan.names.iter().map(|name| name.untag.clone()).collect();
    let victims: Vec<Victim> = plan.victims.iter().map(|planned| planned.victim.clone()).collect();
    let forgotten = store.forget(&names, &victims).unwrap();
    assert_eq!(forgotten.names.len(), names.len(), "{names:?}");
    let left = (0..victims.len()).filter(|index| !forgotten.victims.contains(index));
    assert_eq!(left.map(|index| &victims[index]).collect::<Vec<_>>(), Vec::<&Victim>::new());
    victims.into_iter().map(|victim| victim.object).collect()
}

fn forget(store: &Store, victims: &[Victim]) -> BTreeSet<String> {
    let gone = store.forget(&[], victims).unwrap().victims;
    gone.into_iter().map(|index| format!("{:?}", victims[index].object)).collect()
}

/// What no root leads to.
fn garbage(graph: &Graph) -> BTreeSet<String> {
    let mut kept = BTreeSet::new();
    let mut open: Vec<usize> = graph.roots.iter().flat_map(|root| root.keeps.clone()).collect();
    while let Some(index) = open.pop() {
        if kept.insert(index) {
            open.extend(graph.children(index));
        }
    }
    let gone = (0..graph.nodes.len()).filter(|index| !kept.contains(index));
    gone.map(|index| format!("{:?}", graph.nodes[index].object)).collect()
}

/// Bytes of everything but the database.
fn disk(root: &Path) -> u64 {
    let output =
        Command::new("du").args(["-x", "-s", "-B1", "--exclude=layerstore.db*"]).arg(root).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.split_whitespace().next().unwrap().parse().unwrap()
}

/// Writes into the rows what is really taken: the helpers here make up what they publish.
fn count(root: &Path) {
    for digest in sql(root, "SELECT digest FROM blob") {
        let path = root.join("blobs").join(digest.replace(':', "/"));
        let bytes = fs::metadata(path).unwrap().blocks() * 512;
        execute(root, &format!("UPDATE blob SET allocated = {bytes} WHERE digest = '{digest}'"));
    }
    for id in sql(root, "SELECT id FROM tree") {
        let bytes = disk(&root.join("overlay2").join(&id));
        execute(root, &format!("UPDATE tree SET allocated = {bytes} WHERE id = '{id}'"));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, max_shrink_iters: 60, ..ProptestConfig::with_cases(12) })]

    #[test]
    fn whatever_happened_a_collection_is_exact(steps in vec((0..24_u8, 0..60_usize, 0..60_usize), 5..40)) {
        let mut run = Run::new();
        for (number, step) in steps.into_iter().enumerate() {
            run.step(step);
            if number % 4 == 0 {
                run.check(number);
            }
        }
        run.check(0);
        // Everything that keeps anything goes, and with it all the rest.
        run.sessions.clear();
        execute(run.dir.path(), "PRAGMA foreign_keys = ON; DELETE FROM mount; DELETE FROM container");
        loop {
            let graph = run.store.graph().unwrap();
            let mut removed = 0;
            for root in &graph.roots {
                let RootKind::Snapshot { owner, key, .. } = &root.kind else { continue };
                if let Ok(discarded) = run.store.remove_snapshot(owner, key) {
                    run.store.unlink_discarded(discarded).unwrap();
                    removed += 1;
                }
            }
            if removed == 0 {
                break;
            }
        }
        execute(run.dir.path(), "DELETE FROM reference");
        run.collect(&Policy::default());
        for folder in ["overlay2", "blobs/sha256", "trash", "ingest", "partial"] {
            prop_assert_eq!(names(&run.dir.path().join(folder)), BTreeSet::new());
        }
        let rows = "SELECT digest FROM blob UNION ALL SELECT id FROM tree UNION ALL SELECT key FROM snapshot \
                    UNION ALL SELECT manifest FROM image UNION ALL SELECT parent FROM edge";
        prop_assert_eq!(sql(run.dir.path(), rows), BTreeSet::new());
    }
}
