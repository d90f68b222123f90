//! What only a stack of layers can tell: hard links to files of lower layers, attributes of directories that a
//! layer does not list, and the same layer several times.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use layerstore_testkit::image::{Image, Layout};
use layerstore_testkit::layer::{Entry, Layer, LayerBuilder};
use layerstore_testkit::sandbox::Sandbox;
use layerstore_testkit::tree::Snapshot;

/// Loads an image of `layers`, and mounts it: the snapshot of what is seen, and where.
fn mounted(store: &Sandbox, name: &str, layers: Vec<Layer>) -> (Snapshot, std::path::PathBuf) {
    store.load_bytes(&Layout::of(name, &Image::new(layers)).archive());
    let at = store.mount(name);
    (Snapshot::of(&at), at)
}

fn base() -> Layer {
    LayerBuilder::gzip()
        .dir("usr/")
        .entry(Entry::dir("usr/lib/").mode(0o750).owner(7, 8).mtime(1_600_000_000, 5))
        .entry(Entry::file("usr/lib/real", "content").mode(0o4711).owner(5, 6).xattr("user.k", "v"))
        .symlink("lib", "usr/lib")
        .symlink("usr/lib/link", "real")
        .entry(Entry::device("usr/lib/null", 1, 3).mode(0o666))
        .finish()
}

#[test]
fn privileged_a_hard_link_to_a_file_of_a_lower_layer() {
    let Some(store) = Sandbox::new() else { return };
    let above = LayerBuilder::gzip()
        .hard_link("bin/tool", "usr/lib/real")
        .hard_link("bin/again", "bin/tool")
        .hard_link("bin/by-link", "lib/real")
        .hard_link("bin/symlink", "usr/lib/link")
        .hard_link("bin/null", "usr/lib/null")
        .finish();
    let top = LayerBuilder::gzip().hard_link("last", "bin/tool").file("bin/null", "replaced").finish();
    let (tree, at) = mounted(&store, "localhost/linked:1", vec![base(), above, top]);
    for name in ["bin/again", "bin/by-link", "bin/tool", "last", "usr/lib/real"] {
        let entry = tree.at(name);
        assert_eq!((entry.mode, entry.uid, entry.gid, entry.size), (0o4711, 5, 6, 7), "{name}");
        assert_eq!(entry.xattrs[&b"user.k"[..]], b"v", "{name}");
        assert_eq!(fs::metadata(at.join(name)).unwrap().nlink(), 5, "{name}");
        assert_eq!(store.ok(["cat", "localhost/linked:1", name]), "content", "{name}");
    }
    assert_eq!(tree.at("last").link_of.as_deref(), Some(&b"bin/again"[..]));
    assert_eq!(tree.at("bin/symlink").target, b"real");
    assert_eq!(fs::read(at.join("bin/null")).unwrap(), b"replaced");
    // The directories of the files are those of the image.
    let lib = tree.at("usr/lib");
    assert_eq!((lib.mode, lib.uid, lib.mtime), (0o750, 7, (1_600_000_000, 5)));
    assert_eq!(tree.at("bin").mode, 0o755);
    let listed = store.ok(["ls", "localhost/linked:1", "/bin"]);
    assert_eq!(listed.lines().collect::<Vec<_>>(), ["again", "by-link", "null", "symlink", "tool"]);
    store.umount(&at);
    // All of it goes with the image.
    store.ok(["rmi", "localhost/linked:1"]);
    assert_eq!(store.sql("SELECT count(*) FROM tree"), ["0"]);
}

#[test]
fn privileged_layers_above_hide_or_replace_such_a_link() {
    let Some(store) = Sandbox::new() else { return };
    let link = || LayerBuilder::gzip().hard_link("d/link", "usr/lib/real").finish();
    for (number, top, shown) in [
        (0, LayerBuilder::gzip().whiteout("d/link").finish(), false),
        (1, LayerBuilder::gzip().whiteout("d").finish(), false),
        (2, LayerBuilder::gzip().opaque("d").finish(), false),
        (3, LayerBuilder::gzip().file("d", "no directory").finish(), false),
        (4, LayerBuilder::gzip().whiteout("usr").file("d/other", "").finish(), true),
        // The target's name is another file's by now.
        (5, LayerBuilder::gzip().file("usr/lib/real", "new").finish(), true),
    ] {
        let name = format!("localhost/hidden:{number}");
        let (tree, at) = mounted(&store, &name, vec![base(), link(), top]);
        assert_eq!(tree.has("d/link"), shown, "{number}");
        if shown {
            assert_eq!(fs::read(at.join("d/link")).unwrap(), b"content", "{number}");
            assert_eq!(tree.at("d/link").link_of, None, "{number}");
        }
        store.umount(&at);
    }
}

#[test]
fn privileged_a_whiteout_of_the_target_beside_the_link_moves_the_file() {
    let Some(store) = Sandbox::new() else { return };
    let moved = LayerBuilder::gzip().whiteout("usr/lib/real").hard_link("moved", "usr/lib/real").finish();
    let (tree, at) = mounted(&store, "localhost/moved:1", vec![base(), moved]);
    assert!(!tree.has("usr/lib/real"));
    assert_eq!(fs::read(at.join("moved")).unwrap(), b"content");
}

#[test]
fn privileged_a_hard_link_to_nothing_is_refused() {
    let Some(store) = Sandbox::new() else { return };
    for (number, target) in
        ["missing", "usr/lib/missing", "usr/lib/real/x", "usr/lib"].into_iter().enumerate()
    {
        let layers = [base(), LayerBuilder::gzip().hard_link("bin/broken", target).finish()];
        let archive = store.write("broken.tar", &Layout::of("localhost/b:1", &Image::new(layers)).archive());
        let archive = archive.to_str().unwrap();
        let sentence = store.run(["load", "-i", archive]).failure(1);
        assert!(sentence.contains("`bin/broken`") && sentence.contains(&format!("`{target}`")), "{sentence}");
        assert_eq!(store.sql("SELECT count(*) FROM blob"), ["0"]);
        assert_eq!(store.sql("SELECT count(*) FROM tree"), ["0"]);
        assert_eq!(fs::read_dir(store.root().join("overlay2")).unwrap().count(), 0);
        // What was not unpacked is found out when it is.
        store.ok(["load", "--no-unpack", "-i", archive]);
        store.run(["mount", "localhost/b:1"]).failure(1);
        store.ok(["rmi", "localhost/b:1"]);
        assert_eq!(store.sql("SELECT count(*) FROM tree"), ["0"], "case {number}");
    }
}

#[test]
fn privileged_one_layer_under_different_ones() {
    let Some(store) = Sandbox::new() else { return };
    let shared = || LayerBuilder::gzip().file("usr/lib/new", "x").hard_link("link", "usr/lib/real").finish();
    let other = LayerBuilder::gzip()
        .entry(Entry::dir("./").mode(0o700).mtime(1, 1))
        .entry(Entry::dir("usr/").mode(0o711))
        .entry(Entry::dir("usr/lib/").mode(0o511).owner(9, 9).mtime(2, 2))
        .file("usr/lib/real", "other content")
        .finish();
    let (first, _) = mounted(&store, "localhost/one:1", vec![base(), shared()]);
    let (second, at) = mounted(&store, "localhost/two:1", vec![other, shared()]);
    assert_eq!(store.sql("SELECT count(*) FROM tree WHERE diff_id IS NOT NULL"), ["3"]);
    assert_eq!((first.at("usr/lib").mode, first.at("link").size), (0o750, 7));
    assert_eq!((second.at("usr/lib").mode, second.at("link").size), (0o511, 13));
    assert_eq!((second.at("").mode, second.at("").mtime), (0o700, (1, 1)));
    assert_eq!(second.at("usr/lib").mtime, (2, 2));
    assert_eq!(fs::read(at.join("link")).unwrap(), b"other content");
}

#[test]
fn privileged_the_same_layer_several_times() {
    let Some(store) = Sandbox::new() else { return };
    let one = || LayerBuilder::gzip().file("f", "one").file("d/one", "1").whiteout("d/two").finish();
    let two = || LayerBuilder::gzip().file("f", "two").file("d/two", "2").hard_link("l", "d/one").finish();
    let (tree, at) = mounted(&store, "localhost/same:1", vec![one(), two(), one()]);
    assert_eq!(fs::read(at.join("f")).unwrap(), b"one");
    assert!(tree.has("d/one") && !tree.has("d/two"));
    assert_eq!(fs::read(at.join("l")).unwrap(), b"1");
    let (tree, at) = mounted(&store, "localhost/same:2", vec![one(), two(), two(), one(), two()]);
    assert_eq!(fs::read(at.join("f")).unwrap(), b"two");
    assert!(tree.has("d/one") && tree.has("d/two"));
}

#[test]
fn privileged_paths_longer_than_a_system_call_takes() {
    let Some(store) = Sandbox::new() else { return };
    let name = "n".repeat(250);
    let deep = vec![name.as_str(); 20].join("/");
    let below = LayerBuilder::gzip()
        .entry(Entry::dir(format!("{deep}/")).mode(0o751))
        .file(format!("{deep}/file"), "deep")
        .finish();
    let above = LayerBuilder::gzip()
        .file(format!("{deep}/new"), "x")
        .hard_link("link", format!("{deep}/file"))
        .whiteout(&format!("{deep}/gone"))
        .finish();
    let (tree, at) = mounted(&store, "localhost/long:1", vec![below, above]);
    assert_eq!(tree.at(&deep).mode, 0o751);
    assert_eq!(tree.at(&format!("{deep}/new")).size, 1);
    assert_eq!(fs::read(at.join("link")).unwrap(), b"deep");
    assert_eq!(store.ok(["cat", "localhost/long:1", &format!("/{deep}/file")]), "deep");
    store.umount(&at);
    store.ok(["rmi", "localhost/long:1"]);
    assert_eq!(fs::read_dir(store.root().join("overlay2")).unwrap().count(), 0);
}

#[test]
fn privileged_an_images_own_overlay_attributes_neither_act_nor_vanish() {
    let Some(store) = Sandbox::new() else { return };
    let below = LayerBuilder::gzip().dir("d/").file("d/f", "below").file("g", "below").finish();
    let above = LayerBuilder::gzip()
        .entry(Entry::dir("d/").xattr("trusted.overlay.opaque", "y").xattr("user.overlay.opaque", "y"))
        .entry(
            Entry::file("g", "")
                .xattr("trusted.overlay.whiteout", "")
                .xattr("trusted.overlay.overlay.x", "1"),
        )
        .entry(
            Entry::file("h", "here").xattr("trusted.overlay.redirect", "/g").xattr("user.overlay.origin", ""),
        )
        .finish();
    let (tree, at) = mounted(&store, "localhost/marks:1", vec![below, above]);
    assert!(tree.has("d/f"), "the directory became opaque");
    assert_eq!(tree.at("g").size, 0);
    assert_eq!(fs::read(at.join("h")).unwrap(), b"here");
    for (path, name, value) in [
        ("d", "trusted.overlay.opaque", "y"),
        ("d", "user.overlay.opaque", "y"),
        ("g", "trusted.overlay.whiteout", ""),
        ("g", "trusted.overlay.overlay.x", "1"),
        ("h", "trusted.overlay.redirect", "/g"),
        ("h", "user.overlay.origin", ""),
    ] {
        let mut found = [0; 8];
        match rustix::fs::lgetxattr(at.join(path), name, &mut found[..]) {
            Ok(length) => assert_eq!(&found[..length], value.as_bytes(), "{path} {name}"),
            // Only newer kernels take the escape off (Linux 6.7).
            Err(error) if error == rustix::io::Errno::NODATA && name.starts_with("trusted.") => {}
            Err(error) => panic!("{path} {name}: {error}"),
        }
    }
}

/// The kernel refuses a seventeenth sandbox in a sandbox; a thread that cannot be confined must stop the rest.
#[test]
fn privileged_two_hundred_layers_where_no_thread_can_be_confined() {
    let Some(store) = Sandbox::new() else { return };
    let layers = (0..200).map(|i| crate::small_layer(&format!("f{i}")));
    let archive = store.write("many.tar", &Layout::of("localhost/many:1", &Image::new(layers)).archive());
    store.ok(["load", "--no-unpack", "-i", archive.to_str().unwrap()]);
    let args = ["ls", "localhost/many:1"];
    let mut command = layerstore_testkit::sandbox::in_sixteen_sandboxes(&store.command(args));
    let run = layerstore_testkit::sandbox::Run::of(&mut command, &[]);
    if run.code != 0 {
        run.failure(1);
    }
    store.ok(args);
}

#[test]
fn privileged_nothing_of_where_the_store_is_gets_into_a_fix_up() {
    let Some(store) = Sandbox::new() else { return };
    fs::create_dir(store.root()).unwrap();
    // A default ACL that lets user 1000 in: an entry each for owner, that user, group, mask and others.
    let acl: Vec<u8> =
        [(1_u16, 7_u16, u32::MAX), (2, 7, 1000), (4, 5, u32::MAX), (0x10, 7, u32::MAX), (0x20, 5, u32::MAX)]
            .iter()
            .fold(2_u32.to_le_bytes().to_vec(), |mut acl, (tag, rights, id)| {
                acl.extend(tag.to_le_bytes());
                acl.extend(rights.to_le_bytes());
                acl.extend(id.to_le_bytes());
                acl
            });
    let name = "system.posix_acl_default";
    rustix::fs::setxattr(store.root(), name, &acl, rustix::fs::XattrFlags::empty()).unwrap();
    let above = LayerBuilder::gzip().file("usr/lib/new", "x").hard_link("link", "usr/lib/real").finish();
    let (tree, _) = mounted(&store, "localhost/acl:1", vec![base(), above]);
    for (path, entry) in tree.entries {
        let acls: Vec<_> = entry.xattrs.keys().filter(|name| name.starts_with(b"system.")).collect();
        assert!(acls.is_empty(), "{}: {acls:?}", path.escape_ascii());
    }
}

#[test]
fn privileged_a_fix_up_is_made_once_also_for_mount_namespaces_that_go() {
    let Some(store) = Sandbox::new() else { return };
    let above = LayerBuilder::gzip().hard_link("link", "usr/lib/real").finish();
    store.load_bytes(&Layout::of("localhost/ns:1", &Image::new([base(), above])).archive());
    let mut trees = Vec::new();
    for _ in 0..4 {
        let mut command = std::process::Command::new("unshare");
        let inside = store.command(["ls", "localhost/ns:1"]);
        command.arg("--mount").arg(inside.get_program()).args(inside.get_args());
        layerstore_testkit::sandbox::Run::of(&mut command, &[]).success();
        trees.push(store.sql("SELECT count(*) FROM tree"));
    }
    assert_eq!(trees[2], trees[3], "{trees:?}");
}

#[test]
fn privileged_one_layer_a_thousand_times_needs_few_files() {
    let Some(store) = Sandbox::new() else { return };
    let same = || LayerBuilder::gzip().file("d/f", "x").finish();
    let layers = std::iter::once(base()).chain((0..1500).map(|_| same()));
    store.load_bytes(&Layout::of("localhost/same:1", &Image::new(layers)).archive());
    let command = store.command(["ls", "localhost/same:1", "/d"]);
    let mut shell = std::process::Command::new("sh");
    shell
        .args(["-c", "ulimit -n 256; exec \"$0\" \"$@\""])
        .arg(command.get_program())
        .args(command.get_args());
    assert_eq!(layerstore_testkit::sandbox::Run::of(&mut shell, &[]).success().stdout, "f\n");
}

#[test]
fn privileged_deep_directories_are_put_together_soon() {
    let Some(store) = Sandbox::new() else { return };
    let deep = "d/".repeat(2000);
    let below = LayerBuilder::gzip().file(format!("{deep}file"), "x").file("f", "y").finish();
    let above = (0..200).fold(LayerBuilder::gzip().file(format!("{deep}new"), "x"), |layer, i| {
        layer.hard_link(format!("l{i}"), format!("{deep}file"))
    });
    let image = Image::new([below, above.finish()]);
    let archive = store.write("deep.tar", &Layout::of("localhost/deep:1", &image).archive());
    let start = std::time::Instant::now();
    let run = store.run(["load", "-i", archive.to_str().unwrap()]);
    // Accepted or refused, but not for ever.
    assert!(matches!(run.code, 0 | 1), "{run}");
    let looked = store.run(["ls", "localhost/deep:1"]);
    assert!(matches!(looked.code, 0 | 1 | 3), "{looked}");
    assert!(start.elapsed() < std::time::Duration::from_secs(30), "{:?}", start.elapsed());
    store.run(["rmi", "-f", "localhost/deep:1"]).success();
}
