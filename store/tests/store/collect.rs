//! What keeps what, and forgetting.

use std::collections::BTreeSet;

use layerstore_oci::ErrorKind;
use layerstore_store::{Edge, EdgeKind, Forgotten, ImageCommit, LOCAL, NewBlob, Object, Publication};

use crate::{
    add_image, audit, blob, collect, diff_id, digest, everything, manifest, open, publish_image, sql, untag,
};

#[test]
fn the_graph_leads_from_names_to_everything_below() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let session = store.session(LOCAL).unwrap();
    add_image(&store, &session, "localhost/a:1", "a", &["base", "a"]).unwrap();
    drop(session);
    let graph = store.graph().unwrap();
    let root = graph.find(&Object::Blob(manifest("a"))).unwrap();
    assert_eq!(graph.roots.iter().flat_map(|root| &root.keeps).collect::<Vec<_>>(), [&root]);
    let (mut open, mut reached) = (vec![root], BTreeSet::new());
    while let Some(index) = open.pop() {
        if reached.insert(index) {
            open.extend(graph.children(index));
        }
    }
    assert_eq!(reached.len(), graph.nodes.len(), "all of it belongs to the image");
    let count = |is: fn(&Object) -> bool| graph.nodes.iter().filter(|node| is(&node.object)).count();
    assert_eq!(count(|object| matches!(object, Object::Blob(_))), 4);
    assert_eq!(count(|object| matches!(object, Object::Tree(_))), 2);
    assert_eq!(count(|object| matches!(object, Object::Snapshot { .. })), 2);
    let allocated: u64 = graph.nodes.iter().map(|node| node.size.allocated).sum();
    // Four blobs of a block each; a tree of as much, and its own directory.
    let own = std::os::unix::fs::MetadataExt::blocks(&dir.path().metadata().unwrap()) * 512;
    assert_eq!(allocated, 4 * 4096 + 2 * (4096 + own));
}

#[test]
fn what_images_share_goes_with_the_last() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let session = store.session(LOCAL).unwrap();
    add_image(&store, &session, "localhost/a:1", "a", &["base", "a"]).unwrap();
    add_image(&store, &session, "localhost/b:1", "b", &["base", "b"]).unwrap();
    drop(session);
    // Manifest, config, layer, tree and snapshot of its own.
    assert_eq!(collect(&store, &["localhost/a:1"]).unwrap().len(), 5);
    audit(dir.path());
    assert!(store.tree(&diff_id("base")).unwrap().is_some());
    assert_eq!(store.layers(&manifest("b")).unwrap().len(), 2);
    assert_eq!(collect(&store, &["localhost/b:1"]).unwrap().len(), 8);
    audit(dir.path());
    assert!(sql(dir.path(), "SELECT digest FROM blob UNION SELECT parent FROM edge").is_empty());
}

#[test]
fn a_lease_keeps_what_was_found_until_it_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let (store, other) = (open(dir.path()), open(dir.path()));
    add_image(&store, &store.session(LOCAL).unwrap(), "localhost/a:1", "a", &["base", "a"]).unwrap();
    let session = other.session(LOCAL).unwrap();
    // Finds `base`, publishes the rest.
    publish_image(&other, &session, "b", &["base", "b"]).unwrap();
    let gone = collect(&store, &["localhost/a:1"]).unwrap();
    assert!(!gone.contains(&Object::Blob(digest("base"))) && gone.contains(&Object::Blob(digest("a"))));
    assert!(other.tree(&diff_id("base")).unwrap().is_some());
    add_image(&other, &session, "localhost/b:1", "b", &["base", "b"]).unwrap();
    drop(session);
    assert!(collect(&store, &[]).unwrap().is_empty());
    audit(dir.path());
}

#[test]
fn forgetting_is_all_or_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    add_image(&store, &store.session(LOCAL).unwrap(), "localhost/a:1", "a", &["base"]).unwrap();
    let error = collect(&store, &["localhost/a:1", "localhost/none:1"]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(store.reference(LOCAL, "localhost/a:1").unwrap().is_some());
    // What is named cannot be forgotten, whatever is chosen.
    assert_eq!(store.forget(&[], &everything(&store)).unwrap(), Forgotten::default());
    audit(dir.path());
}

#[test]
fn what_got_a_row_again_before_the_sweep_stays() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    add_image(&store, &store.session(LOCAL).unwrap(), "localhost/a:1", "a", &["base"]).unwrap();
    let victims = everything(&store);
    let forgotten = store.forget(&[untag(&store, "localhost/a:1")], &victims).unwrap();
    assert_eq!(forgotten.victims.len(), victims.len());
    add_image(&store, &store.session(LOCAL).unwrap(), "localhost/a:1", "a", &["base"]).unwrap();
    let objects: Vec<Object> = victims.into_iter().map(|victim| victim.object).collect();
    store.sweep(&objects).unwrap();
    audit(dir.path());
    assert_eq!(sql(dir.path(), "SELECT digest FROM blob").len(), 3);
}

#[test]
fn the_parts_of_an_index_that_come_later_are_kept_by_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let session = store.session(LOCAL).unwrap();
    let add = |texts: &[&str], edges: &[(&str, &str, EdgeKind)]| {
        let blobs: Vec<NewBlob> = texts.iter().map(|text| blob(&session, text, None).unwrap()).collect();
        store.publish(&session, Publication { blobs, ..Publication::default() }).unwrap();
        let edge = |(from, to, kind): &(&str, &str, EdgeKind)| Edge {
            parent: digest(from),
            child: digest(to),
            kind: *kind,
        };
        let references = vec![("localhost/i:1".to_owned(), digest("index"))];
        let commit = ImageCommit {
            edges: edges.iter().map(edge).collect(),
            images: Vec::new(),
            references,
            pulled: false,
        };
        store.commit_images(&session, &commit).unwrap();
    };
    let first = [("index", "artifact", EdgeKind::Manifest)];
    add(&["index"], &first);
    // Another archive of the same index has the artifact as well.
    add(&["index", "artifact", "content"], &[first[0], ("artifact", "content", EdgeKind::Layer)]);
    drop(session);
    assert!(collect(&store, &[]).unwrap().is_empty());
    audit(dir.path());
}
