//! What is made twice of the same container has the same bytes.

use layerstore_testkit::registry::Registry;
use layerstore_testkit::require;
use layerstore_testkit::sandbox::{Run, Sandbox};

use super::{change, commit, mount, umount, with_app};
use crate::remote::push;

fn digest(store: &Sandbox, image: &str) -> String {
    store.ok(["inspect", "--format", "{{.Id}} {{.Descriptor.digest}}", image]).trim_end().to_owned()
}

/// What `save` writes: nothing of it goes to a disk.
fn save(store: &Sandbox, form: &str, image: &str) -> Vec<u8> {
    let out = store.command(["save", "--format", form, image]).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    out.stdout
}

#[test]
fn privileged_commit_save_and_push_give_the_same_bytes_twice() {
    if !require::registry() {
        return;
    }
    let Some(store) = with_app() else { return };
    store.ok(["create", "--name", "work", super::APP]);
    change(&mount(&store, "work"));
    umount(&store, "work");
    let registry = Registry::plain();
    let names = ["first", "second"].map(|name| registry.reference(&format!("{name}/app:1")));
    let ids = names.each_ref().map(|name| commit(&store, "work", name));
    assert_eq!(ids[0], ids[1]);
    let [first, second] = names.each_ref().map(|name| digest(&store, name));
    assert_eq!(first, second);
    for compression in ["zstd", "none"] {
        let committed = ["localhost/a:1", "localhost/b:1"].map(|name| {
            let mut command = store.command(["commit", "--compression", compression, "work", name]);
            Run::of(command.env("SOURCE_DATE_EPOCH", "2000000000"), &[]).success();
            digest(&store, name)
        });
        assert_eq!(committed[0], committed[1], "{compression}");
    }

    for form in ["docker", "oci"] {
        let [one, two] = [(); 2].map(|()| save(&store, form, &names[0]));
        assert!(one == two, "two archives of one image differ ({form})");
        let other = Sandbox::new().unwrap();
        let loaded = other.run_with(["load", "--no-unpack"], &one).success();
        assert_eq!(loaded.loaded(), [&names[0]]);
        assert_eq!(digest(&other, &names[0]), first, "an image that is loaded from it");
    }

    for name in &names {
        push(&store, &[name]).success();
    }
    let [one, two] = ["first/app", "second/app"].map(|name| registry.tag(name, "1"));
    assert_eq!(one, two);
    assert!(second.ends_with(&one.unwrap()), "what is in the registry is what was committed");
    push(&store, &[&names[0]]).success();
    assert_eq!(registry.tag("first/app", "1"), two);
}
