//! Names: given, moved, taken away.

use layerstore_oci::ErrorKind;
use layerstore_store::{ImageCommit, LOCAL};

use crate::{add_image, audit, collect, commit_of, digest, manifest, open, publish_image};

fn names_and_targets(store: &layerstore_store::Store) -> Vec<(String, layerstore_oci::Digest)> {
    store.references(LOCAL).unwrap().into_iter().map(|row| (row.name, row.target)).collect()
}

#[test]
fn a_name_that_moves_leaves_an_image_without_a_name() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let session = store.session(LOCAL).unwrap();
    add_image(&store, &session, "localhost/x:1", "a", &["base"]).unwrap();
    add_image(&store, &session, "localhost/x:1", "b", &["base", "b"]).unwrap();
    let nameless = manifest("a").to_string();
    let mut expected = vec![("localhost/x:1".to_owned(), manifest("b")), (nameless.clone(), manifest("a"))];
    expected.sort();
    assert_eq!(names_and_targets(&store), expected);
    drop(session);
    assert!(collect(&store, &[]).unwrap().is_empty(), "without a name, not without a root");

    // A name takes the place of none.
    assert!(store.set_reference(LOCAL, "localhost/y:1", &manifest("a")).unwrap());
    assert!(store.reference(LOCAL, &nameless).unwrap().is_none());
    assert!(!store.set_reference(LOCAL, "localhost/y:1", &manifest("a")).unwrap(), "nothing to change");
    assert!(!store.set_reference(LOCAL, &nameless, &manifest("a")).unwrap(), "it has a name");
    // With another name it needs no digest for one.
    store.set_reference(LOCAL, "localhost/z:1", &manifest("a")).unwrap();
    store.set_reference(LOCAL, "localhost/y:1", &manifest("b")).unwrap();
    assert!(store.reference(LOCAL, &nameless).unwrap().is_none());

    let absent = store.set_reference(LOCAL, "localhost/y:1", &digest("absent")).unwrap_err();
    assert_eq!(absent.kind(), ErrorKind::NotFound);
    audit(dir.path());
}

#[test]
fn images_are_listed_with_what_their_configs_say() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let session = store.session(LOCAL).unwrap();
    add_image(&store, &session, "localhost/x:1", "a", &["base", "top"]).unwrap();
    store.set_reference(LOCAL, "localhost/y:1", &manifest("a")).unwrap();
    let rows = store.images(LOCAL).unwrap();
    assert_eq!(rows.iter().map(|row| &*row.name).collect::<Vec<_>>(), ["localhost/x:1", "localhost/y:1"]);
    let image = rows[0].image.as_ref().unwrap();
    assert_eq!((&image.manifest, &image.config), (&manifest("a"), &digest("config a")));
    assert_eq!((image.created, image.size), (Some(1), "basetop".len() as u64));
    assert_eq!(image.labels["a"], "b");
    let layers = store.layers(&manifest("a")).unwrap();
    assert_eq!(
        layers.iter().map(|row| row.blob.clone()).collect::<Vec<_>>(),
        [digest("base"), digest("top")]
    );
    assert!(store.images("another").unwrap().is_empty());
}

#[test]
fn the_same_commit_twice_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let session = store.session(LOCAL).unwrap();
    publish_image(&store, &session, "a", &["base"]).unwrap();
    let references = vec![(manifest("a").to_string(), manifest("a"))];
    let commit = ImageCommit { references, ..commit_of("a", &["base"]) };
    assert!(store.commit_images(&session, &commit).unwrap());
    assert!(!store.commit_images(&session, &commit).unwrap());
    assert_eq!(store.images(LOCAL).unwrap().len(), 1, "an image without a name is listed");
}

#[test]
fn a_commit_that_names_what_is_not_there_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let session = store.session(LOCAL).unwrap();
    publish_image(&store, &session, "a", &["base"]).unwrap();
    let references = vec![("localhost/a:1".to_owned(), digest("absent"))];
    let commit = ImageCommit { references, ..commit_of("a", &["base"]) };
    assert!(store.commit_images(&session, &commit).is_err());
    assert!(store.images(LOCAL).unwrap().is_empty());
    drop(session);
    assert_eq!(collect(&store, &[]).unwrap().len(), 4, "three blobs and a tree");
    audit(dir.path());
}
