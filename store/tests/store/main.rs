//! The store as its users see it, with a disk that fails and neighbours that die.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails, in helpers as well")]

mod again;
mod claims;
mod collect;
mod conditions;
mod doubt;
mod faults;
mod images;
mod interrupted;
mod last_use;
mod leftovers;
mod mounts;
mod open;
mod random;
mod scale;
mod scan;
mod sessions;
mod snapshots;
mod used;
mod waits;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use layerstore_gc::Policy;
use layerstore_oci::{Algorithm, DiffId, Digest};
use layerstore_store::{
    Edge, EdgeKind, ImageCommit, LOCAL, NewBlob, NewImage, NewTree, Object, Publication, Result, RootKind,
    Session, Store, Surroundings, Unless, Untag, Usage, Victim,
};

fn open(root: &Path) -> Store {
    Store::open(root, Surroundings::default()).unwrap()
}

/// Receives `bytes` as a blob; a layer's diff ID is the digest of its name.
fn blob(session: &Session, bytes: &str, diff_id: Option<DiffId>) -> Result<NewBlob> {
    let mut ingest = session.ingest(Algorithm::Sha256)?;
    ingest.write(bytes.as_bytes())?;
    let received = ingest.finish(Some((&digest(bytes), bytes.len() as u64)))?;
    Ok(NewBlob { received, media_type: None, diff_id })
}

fn tree(session: &Session, layer: &str) -> Result<NewTree> {
    let directory = session.tree_directory()?;
    fs::write(directory.diff().join("file"), layer).unwrap();
    let usage = Usage { bytes: layer.len() as u64, allocated: 4096, inodes: 2 };
    Ok(NewTree {
        directory,
        diff_id: diff_id(layer),
        usage,
        implied: Vec::new(),
        links: Vec::new(),
        whiteouts: Some(0),
    })
}

fn digest(text: &str) -> Digest {
    Digest::sha256_of(text.as_bytes())
}

/// The diff ID of the layer whose blob is `layer`.
fn diff_id(layer: &str) -> DiffId {
    DiffId::from(digest(&format!("uncompressed {layer}")))
}

/// Publishes an image of `layers`, unpacked, and names it. Its manifest is `manifest {name}`.
fn add_image(store: &Store, session: &Session, reference: &str, name: &str, layers: &[&str]) -> Result<()> {
    publish_image(store, session, name, layers)?;
    let target = digest(&format!("manifest {name}"));
    let mut commit = commit_of(name, layers);
    commit.references = vec![(reference.to_owned(), target)];
    store.commit_images(session, &commit).map(drop)
}

fn publish_image(store: &Store, session: &Session, name: &str, layers: &[&str]) -> Result<()> {
    for layer in layers {
        let wanted = [(digest(layer), Some(diff_id(layer)))];
        let present = store.lease_layers(session, &wanted)?.pop().unwrap();
        let mut publication = Publication::default();
        if present.blob.is_none() {
            publication.blobs.push(blob(session, layer, Some(diff_id(layer)))?);
        }
        if present.tree.is_none() {
            publication.trees.push(tree(session, layer)?);
        }
        store.publish(session, publication)?;
    }
    let documents = ["manifest", "config"].map(|kind| blob(session, &format!("{kind} {name}"), None));
    let blobs = documents.into_iter().collect::<Result<_>>()?;
    store.publish(session, Publication { blobs, ..Publication::default() })?;
    Ok(())
}

fn commit_of(name: &str, layers: &[&str]) -> ImageCommit {
    let [manifest, config] = ["manifest", "config"].map(|kind| digest(&format!("{kind} {name}")));
    let edge = |child: &Digest, kind| Edge { parent: manifest.clone(), child: child.clone(), kind };
    let mut edges = vec![edge(&config, EdgeKind::Config)];
    edges.extend(layers.iter().map(|layer| edge(&digest(layer), EdgeKind::Layer)));
    let image = NewImage {
        manifest,
        config,
        platform: "linux/amd64".to_owned(),
        created: Some(1),
        labels: vec![("a".to_owned(), "b".to_owned())],
        layers: layers.iter().map(|layer| (digest(layer), diff_id(layer))).collect(),
    };
    ImageCommit { edges, images: vec![image], references: Vec::new(), pulled: false }
}

fn manifest(name: &str) -> Digest {
    digest(&format!("manifest {name}"))
}

/// What a name stands for, to be removed whatever uses it.
fn untag(store: &Store, name: &str) -> Untag {
    let target = store.reference(LOCAL, name).unwrap().map_or_else(|| digest(name), |row| row.target);
    Untag { owner: LOCAL.to_owned(), name: name.to_owned(), target, unless: Unless::Never }
}

/// Removes names, and then everything that no root leads to.
fn collect(store: &Store, names: &[&str]) -> Result<Vec<Object>> {
    let names: Vec<Untag> = names.iter().map(|name| untag(store, name)).collect();
    let mut graph = store.graph()?;
    graph.roots.retain(|root| match &root.kind {
        RootKind::Name(name) => !names.iter().any(|untag| untag.name == name.name),
        _ => true,
    });
    let plan = layerstore_gc::plan(&graph, &Policy::default());
    let victims: Vec<Victim> = plan.victims.into_iter().map(|planned| planned.victim).collect();
    let forgotten = store.forget(&names, &victims)?;
    let objects: Vec<Object> = forgotten.victims.iter().map(|index| victims[*index].object.clone()).collect();
    store.sweep(&objects)?;
    Ok(objects)
}

/// All objects, as if nothing kept them, each after all that lead to it.
fn everything(store: &Store) -> Vec<Victim> {
    let mut graph = store.graph().unwrap();
    graph.roots.clear();
    let plan = layerstore_gc::plan(&graph, &Policy::default());
    plan.victims.into_iter().map(|planned| planned.victim).collect()
}

fn names(folder: &Path) -> BTreeSet<String> {
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// The first column of a query.
fn sql(root: &Path, query: &str) -> BTreeSet<String> {
    let db = rusqlite::Connection::open(root.join("layerstore.db")).unwrap();
    let mut statement = db.prepare(query).unwrap();
    let rows = statement.query_map([], |row| row.get(0)).unwrap();
    rows.map(rusqlite::Result::unwrap).collect()
}

/// Rows and files agree exactly, nothing is left over, and the database is sound.
fn audit(root: &Path) {
    audit_rows(root);
    let none = BTreeSet::new();
    assert_eq!(names(&root.join("ingest")), none, "ingests");
    assert_eq!(names(&root.join("trash")), none, "trash");
    assert_eq!(sql(root, "SELECT id FROM lease"), none, "leases");
    assert_eq!(names(&root.join("overlay2")), sql(root, "SELECT id FROM tree"), "trees");
    let blobs = sql(root, "SELECT substr(digest, 8) FROM blob");
    assert_eq!(names(&root.join("blobs/sha256")), blobs, "blobs");
}

/// Whatever has a row is there, and the database is sound.
fn audit_rows(root: &Path) {
    assert_eq!(sql(root, "PRAGMA integrity_check"), BTreeSet::from(["ok".to_owned()]));
    assert_eq!(sql(root, "SELECT \"table\" FROM pragma_foreign_key_check"), BTreeSet::new());
    for hex in sql(root, "SELECT substr(digest, 8) FROM blob") {
        let bytes = fs::read(root.join("blobs/sha256").join(&hex)).unwrap();
        assert_eq!(Digest::sha256_of(&bytes).hex(), hex, "a blob is not whole");
    }
    for id in sql(root, "SELECT id FROM tree") {
        assert!(root.join("overlay2").join(&id).join("diff/file").exists(), "tree {id} is not whole");
    }
}
