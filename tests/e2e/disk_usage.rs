//! `df` says what `du` says.

use std::fs;
use std::path::Path;
use std::process::Command;

use layerstore_testkit::disk::Disk;
use layerstore_testkit::require;
use layerstore_testkit::sandbox::Sandbox;

/// Bytes of all blocks below `root`, without what is mounted there.
fn du(root: &Path) -> u64 {
    let out = Command::new("du").args(["-x", "-s", "-B1"]).arg(root).output().unwrap();
    let text = String::from_utf8(out.stdout).unwrap();
    text.split_whitespace().next().unwrap().parse().unwrap()
}

/// What the rows of `df` that are ours add up to, and that of what nobody knows. Docker's rows count things again.
fn df(store: &Sandbox) -> (u64, u64) {
    let rows = store.json_lines(["df", "--format", "json"]);
    let size = |row: &serde_json::Value| row["Allocated"].as_u64().unwrap();
    let ours =
        rows.iter().filter(|row| !["Images", "Containers", "Total"].contains(&row["Type"].as_str().unwrap()));
    let unknown = rows.iter().filter(|row| row["Type"] == "Unknown").map(size).sum();
    (ours.map(size).sum(), unknown)
}

#[track_caller]
fn assert_adds_up(store: &Sandbox, when: &str) {
    let (expected, (found, _)) = (du(store.root()), df(store));
    assert!(expected.abs_diff(found) * 100 <= expected, "{when}: du says {expected}, df says {found}");
}

fn write(path: &Path, bytes: usize) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, "x".repeat(bytes)).unwrap();
}

/// Files of a container: small ones, one with holes, one with two names, and one of the image that is changed.
fn change(root: &Path) {
    for i in 0..300 {
        write(&root.join(format!("opt/dir-{}/file-{i}", i % 7)), 3000);
    }
    let sparse = fs::File::create(root.join("opt/sparse")).unwrap();
    sparse.set_len(1 << 30).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&sparse, &vec![1; 100_000], 500 << 20).unwrap();
    write(&root.join("opt/big"), 5 << 20);
    fs::hard_link(root.join("opt/big"), root.join("opt/big-too")).unwrap();
    fs::remove_dir_all(root.join("usr/share/doc")).unwrap();
}

#[test]
fn privileged_df_adds_up_to_what_du_says() {
    let (Some(store), Some(images)) = (Sandbox::new(), require::images()) else { return };
    store.ok(["images"]);
    assert_adds_up(&store, "an empty store");
    for name in ["app", "node"] {
        store.load(images.join(format!("{name}.oci.tar")));
    }
    assert_adds_up(&store, "two images");
    for name in ["written", "mounted", "new"] {
        store.ok(["create", "--name", name, "localhost/app:1"]);
    }
    for name in ["written", "mounted"] {
        let root = store.ok(["mount", name]);
        change(Path::new(root.trim_end()));
    }
    store.ok(["umount", "written"]);
    store.mount("localhost/node:1");
    assert_adds_up(&store, "containers that were written to");
    // An image without a name, and one that is made of a container.
    store.ok(["commit", "written", "localhost/committed:1"]);
    store.ok(["tag", "localhost/app:1", "localhost/node:1"]);
    assert_adds_up(&store, "an image of a container");

    let root = store.root();
    write(&root.join(format!("partial/sha256-{}", "ab".repeat(32))), 3_000_000);
    let (_, unknown) = df(&store);
    assert_eq!(unknown, 0);
    write(&root.join("junk/deep/er/file"), 4_000_000);
    write(&root.join("core"), 1_000_000);
    write(&root.join(format!("blobs/sha256/{}", "cd".repeat(32))), 700_000);
    write(&root.join("overlay2/abcdefgh/diff/file"), 800_000);
    write(&root.join("trash/old/file"), 900_000);
    assert_adds_up(&store, "junk");
    let (_, unknown) = df(&store);
    assert!((6_500_000..6_600_000).contains(&unknown), "{unknown}");

    let before = du(root);
    store.ok(["gc"]);
    assert_adds_up(&store, "after a collection");
    let (_, unknown) = df(&store);
    assert_eq!(unknown, 0);
    assert!(du(root) < before - 7_400_000, "{before} bytes before, {} after", du(root));
    store.assert_no_leftovers();
    store.ok(["umount", "--all"]);
}

/// XFS gives files that are being written more than they need.
#[test]
fn privileged_df_is_right_on_xfs() {
    let (true, Some(images)) = (require::root(), require::images()) else { return };
    let disk = Disk::xfs(1500);
    let Some(store) = Sandbox::at(&disk.path().join("store")) else { return };
    store.load(images.join("app.oci.tar"));
    assert_adds_up(&store, "an image on XFS");
}
