//! `why`: what keeps something, and what would take it away.

use std::fs;

use layerstore_testkit::image::{Image, Layout};
use layerstore_testkit::sandbox::{Run, Sandbox, binary};
use layerstore_testkit::{digest, hex_of};

use crate::small_layer;

const NOT_FOUND: i32 = 3;

fn image(name: &str) -> Image {
    Image::new([small_layer("base"), small_layer(name)])
}

/// Two images on the same base.
fn store() -> Option<Sandbox> {
    let store = Sandbox::new()?;
    let layout = Layout::of("localhost/a:1", &image("a")).image("localhost/b:1", &image("b"));
    store.load_bytes(&layout.archive());
    settle(&store);
    Some(store)
}

/// Trees that are not synced yet need their blobs: more ways than are looked for here.
fn settle(store: &Sandbox) {
    store.ok(["gc"]);
}

fn tree(store: &Sandbox, diff_id: &str) -> String {
    store.sql(&format!("SELECT id FROM tree WHERE diff_id = '{diff_id}'")).remove(0)
}

#[test]
fn privileged_every_way_to_an_object_is_told() {
    let Some(store) = store() else { return };
    let [a, b] = [image("a"), image("b")];
    let manifest = |image: &Image| digest(image.manifest().to_string().as_bytes());
    let short = |digest: &str| format!("sha256:{}", &hex_of(digest)[..12]);
    let base = &a.layers[0];
    let expected = |name: &str, image: &Image| {
        format!("  name localhost/{name}:1 → manifest {} → this: layer 1 of 2\n", short(&manifest(image)))
    };
    let blob = base.digest();
    let told = store.ok(["why", &blob]);
    assert!(told.starts_with(&format!("layer blob {blob} (")), "{told}");
    assert!(told.contains(&expected("a", &a)) && told.contains(&expected("b", &b)), "{told}");
    assert!(told.contains("`image prune -a` and `gc --all` take it"), "{told}");
    for text in [
        hex_of(&blob).to_owned(),
        hex_of(&blob)[..12].to_owned(),
        format!("blobs/sha256/{}", hex_of(&blob)),
        store.root().join("blobs/sha256").join(hex_of(&blob)).display().to_string(),
    ] {
        // It may be a second later.
        let facts = |told: &str| told.split(", stored ").map(str::to_owned).collect::<Vec<_>>().remove(0);
        let again = store.ok(["why", &text]);
        assert_eq!(facts(&again), facts(&told), "{text}");
        assert!(again.contains(&expected("a", &a)) && again.contains(&expected("b", &b)), "{again}");
    }
    let of_tree = store.ok(["why", &tree(&store, &base.diff_id)]);
    assert!(of_tree.contains("→ this: tree of layer 1 of 2\n"), "{of_tree}");
    assert!(of_tree.contains("other ways; -v shows all"), "{of_tree}");
    let all = store.ok(["why", "-v", &tree(&store, &base.diff_id)]);
    assert!(all.contains("→ stack of all its layers sha256:"), "{all}");
    assert_eq!(all.lines().filter(|line| line.starts_with("  name ")).count(), 4, "{all}");
    for text in [a.id(), manifest(&a), "localhost/a:1".to_owned()] {
        assert!(store.ok(["why", &text]).starts_with("image localhost/a:1 ("), "{text}");
    }
    let json = store.json(["why", "--format", "json", &blob]);
    assert_eq!(json["Ways"].as_array().unwrap().len(), 2);
    assert_eq!(json["Ways"][0]["Objects"][1]["Name"], blob.as_str());
    assert_eq!(json["Outlook"]["Unused"], true);
}

#[test]
fn privileged_files_in_trees_lead_to_layers_and_images() {
    let Some(store) = store() else { return };
    let id = tree(&store, &image("a").layers[1].diff_id);
    let told = store.ok(["why", &format!("overlay2/{id}/diff/a")]);
    assert!(told.starts_with(&format!("file a in the tree of a layer {id} (1B, ")), "{told}");
    assert!(
        told.contains("name localhost/a:1 → ") && told.contains("→ this: tree of layer 2 of 2"),
        "{told}"
    );
    let missing = format!("overlay2/{id}/diff/none");
    store.run(["why", &missing]).failure(NOT_FOUND);
    // What an image has written leads nowhere else.
    std::os::unix::fs::symlink("/etc", store.root().join(format!("overlay2/{id}/diff/link"))).unwrap();
    store.ok(["why", &format!("overlay2/{id}/diff/link")]);
    store.run(["why", &format!("overlay2/{id}/diff/link/passwd")]).failure(NOT_FOUND);
    std::os::unix::fs::symlink(".", store.root().join(format!("overlay2/{id}/diff/here"))).unwrap();
    store.run(["why", &format!("overlay2/{id}/diff/here/a")]).failure(NOT_FOUND);
    for text in
        ["../etc/passwd", "/etc/passwd", "overlay2/../../etc", "nope", "ffffffff", "localhost/c:1", "", "%&"]
    {
        store.run(["why", text]).failure(NOT_FOUND);
    }
}

#[test]
fn privileged_what_has_no_row_is_told_too() {
    let Some(store) = store() else { return };
    let root = store.root();
    fs::write(root.join("overlay2/junk"), "junk").unwrap();
    let told = store.ok(["why", "overlay2/junk"]);
    assert!(told.starts_with("unknown overlay2/junk (4B, 4.096kB on disk)\n"), "{told}");
    assert!(told.contains("the next `gc` moves it to the trash"), "{told}");
    let partial = digest(b"partial");
    fs::create_dir_all(root.join("partial")).unwrap();
    fs::write(root.join(format!("partial/sha256-{}", hex_of(&partial))), "half").unwrap();
    let told = store.ok(["why", &partial]);
    assert!(told.contains("the next `gc` deletes it"), "no pull was interrupted: {told}");
    store.execute("INSERT INTO lease VALUES ('keep-pull', 'local', 1, 'boot', 0, 9000000000)");
    for text in [partial.clone(), format!("partial/sha256-{}", hex_of(&partial))] {
        let told = store.ok(["why", &text]);
        assert!(told.starts_with(&format!("partial download {partial} (4B")), "{told}");
        assert!(told.contains("A pull may go on with it: `gc` deletes it after "), "{told}");
    }
    store.execute("DELETE FROM lease");
    assert!(store.ok(["why", "layerstore.db"]).contains("Every store has it"));
    store.ok(["create", "--name", "web", "localhost/a:1"]);
    store.ok(["rmi", "-f", "localhost/a:1"]);
    store.ok(["rm", "web"]);
    let told = store.ok(["why", &image("a").layers[1].digest()]);
    assert!(told.contains("Nothing keeps it: the next `gc` deletes it.\n"), "{told}");
    store.ok(["gc"]);
    store.run(["why", &image("a").layers[1].digest()]).failure(NOT_FOUND);
}

#[test]
fn privileged_paths_lead_to_the_store_however_they_are_written() {
    use std::os::unix::ffi::OsStringExt as _;
    use std::os::unix::fs::symlink;

    let Some(store) = store() else { return };
    let base = &image("a").layers[0];
    let (hex, id) = (hex_of(&base.digest()).to_owned(), tree(&store, &base.diff_id));
    let (link, diff) = (store.dir().join("link"), store.root().join("overlay2").join(&id).join("diff"));
    symlink(store.root(), &link).unwrap();
    symlink("/etc", diff.join("out")).unwrap();
    let odd = std::ffi::OsString::from_vec(b"odd\xff".to_vec());
    std::fs::write(diff.join(&odd), "x").unwrap();
    let why = |from: &std::path::Path, root: &std::path::Path, path: &std::path::Path| {
        let mut command = std::process::Command::new(binary());
        command.arg("--root");
        Run::of(command.arg(root).arg("why").arg(path).current_dir(from), &[])
    };
    let (root, blob) = (store.root(), format!("blobs/sha256/{hex}"));
    for root in [root, link.as_path()] {
        for (from, path) in [
            ("/".as_ref(), link.join(&blob)),
            ("/".as_ref(), root.join("overlay2/../blobs/./sha256").join(&hex)),
            (root, format!("./{blob}").into()),
            (root.join("blobs").as_path(), format!("sha256/{hex}").into()),
            (root.join("overlay2").as_path(), format!("../{blob}").into()),
        ] {
            let told = why(from, root, &path).success().stdout;
            assert!(told.starts_with(&format!("layer blob {} (", base.digest())), "{path:?}: {told}");
        }
        let told = why(root, root, &diff.join("out")).success().stdout;
        assert!(told.starts_with("file out in the tree of "), "{told}");
        assert!(why(root, root, &diff.join(&odd)).success().stdout.contains("file odd"));
        for gone in [diff.join("out/passwd"), "../outside".into(), diff.join("out/../out/passwd")] {
            why(root, root, &gone).failure(NOT_FOUND);
        }
    }
}

/// Five are enough for a person, and `-v` is for who wants all.
#[test]
fn privileged_of_many_names_few_are_told() {
    let Some(store) = Sandbox::new() else { return };
    store.load_bytes(&Layout::of("localhost/n0:1", &image("n")).archive());
    for number in 1..8 {
        store.ok(["tag", "localhost/n0:1", &format!("localhost/n{number}:1")]);
    }
    let id = store.ok(["images", "-q", "--no-trunc", "localhost/n0"]);
    let told = store.ok(["why", id.trim()]);
    assert!(told.lines().next().unwrap().contains(", 3 others ("), "{told}");
    assert!(store.ok(["-v", "why", id.trim()]).lines().next().unwrap().contains("n7:1"));
    let said = store.run(["rmi", id.trim()]).failure(4);
    assert!(said.contains(" and 3 others"), "{said}");
}

#[test]
fn privileged_policies_and_users_are_named() {
    let Some(store) = store() else { return };
    store.ok(["create", "--name", "web", "localhost/a:1"]);
    let told = store.ok(["why", "localhost/a:1"]);
    assert!(told.contains("  container web, name localhost/a:1 → this: manifest\n"), "{told}");
    assert!(
        told.contains("`gc --all` does not take it:\n  localhost/a:1: in use by container web\n"),
        "{told}"
    );
    let told = store.ok(["why", "web"]);
    assert!(told.starts_with("container web ("), "{told}");
    assert!(told.contains("`rm` removes it, and `container prune` unless it is mounted.\n"), "{told}");
    let at = 1_700_000_000;
    store.execute(&format!("UPDATE reference SET updated_at = {at}; UPDATE image SET last_used_at = {at}"));
    let told = store.ok(["why", "localhost/b:1"]);
    assert!(told.contains("`gc --unused-for 30d` takes it from 2023-12-14 22:13 on.\n"), "{told}");
    let policy = |text: &str| store.write("gc.toml", text.as_bytes()).display().to_string();
    for (text, part) in [
        ("unused-for = \"30d\"\n", "The policy takes it now.\n"),
        ("unused-for = \"40000d\"\n", "The policy takes it from 2133-05-21 22:13 on.\n"),
        (
            "unused-for = \"1d\"\nprotect = [\"*/b:1\"]\n",
            "The policy does not take it:\n  localhost/b:1: localhost/b:1 is protected by */b:1\n",
        ),
        ("interrupted = true\n", "The policy takes no images.\n"),
        ("evict = \"trees\"\n", "The policy leaves it, and takes "),
        ("high = \"85%\"\nlow = \"70%\"\n", "The policy takes it when 85 % of the filesystem are in use"),
    ] {
        let told = store.ok(["why", "--policy", &policy(text), "localhost/b:1"]);
        assert!(told.contains(part), "{text}\n{told}");
    }
    store.ok(["pin", "localhost/b:1"]);
    let told = store.ok(["why", "localhost/b:1"]);
    assert!(told.contains("  localhost/b:1: localhost/b:1 is pinned\n"), "{told}");
}

#[test]
fn privileged_freed_by_is_what_rmi_frees() {
    let Some(store) = store() else { return };
    store.ok(["tag", "localhost/b:1", "localhost/c:1"]);
    let freed = store.json(["why", "--freed-by", "localhost/b:1", "--format", "json"]);
    assert_eq!(freed["Freed"], 0, "it has another name");
    assert_eq!(freed["Stays"][0]["Roots"][0], "name localhost/c:1");
    store.ok(["rmi", "localhost/c:1"]);
    let told = store.ok(["why", "--freed-by", "localhost/b:1"]);
    assert!(told.contains("because of name localhost/a:1\n"), "{told}");
    let freed = store.json(["why", "--freed-by", "localhost/b:1", "--format", "json"]);
    let space = |name: &str| -> u64 {
        let out = std::process::Command::new("du")
            .args(["-s", "-B1"])
            .arg(store.root().join(name))
            .output()
            .unwrap();
        String::from_utf8(out.stdout).unwrap().split_whitespace().next().unwrap().parse().unwrap()
    };
    let du = || space("blobs") + space("overlay2");
    let before = du();
    store.ok(["rmi", "localhost/b:1"]);
    assert_eq!(freed["Freed"], before - du());
    store.run(["why", "--freed-by", "localhost/b:1"]).failure(NOT_FOUND);
}

#[test]
fn privileged_many_ways_are_not_many_screens() {
    let Some(store) = Sandbox::new() else { return };
    let mut layout = Layout::new();
    for index in 0..30 {
        layout = layout.image(&format!("localhost/i{index}:1"), &image(&format!("f{index}")));
    }
    store.load_bytes(&layout.archive());
    settle(&store);
    let base = image("x").layers[0].digest();
    let told = store.ok(["why", &base]);
    assert_eq!(told.matches("→ this: layer 1 of 2").count(), 20, "{told}");
    assert!(told.contains("  and 10 other ways; -v shows all\n"), "{told}");
    assert_eq!(store.ok(["why", "-v", &base]).matches("→ this: layer 1 of 2").count(), 30);
    let freed = store.ok(["why", "--freed-by", "localhost/i0:1"]);
    assert!(freed.contains(", 24 others\n"), "{freed}");
}
