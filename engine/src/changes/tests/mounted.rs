//! What a program does in a real overlay is what is told afterwards.

use std::fs;

use super::*;
use crate::rootfs::trees::Tree;

/// Changes a tree through an overlay; the lines that tell of it.
fn after(change: impl FnOnce(&Tree)) -> Vec<String> {
    let trees = Trees::new();
    trees.tree("bottom").file("bottom", "");
    base(&trees.tree("base"));
    trees.tree("upper");
    let mounted = trees.mount(Some("upper"), &["base", "bottom"]);
    change(&mounted.tree());
    drop(mounted);
    lines(&trees, &["base", "bottom"], &["upper", "base", "bottom"], Parents::All)
}

fn base(tree: &Tree) {
    for directory in ["etc", "etc/opt", "usr", "usr/bin", "var", "var/lib", "var/lib/deep"] {
        tree.dir(directory);
    }
    for file in ["etc/gone", "etc/passwd", "etc/opt/conf", "usr/bin/tool", "var/lib/deep/f", "var/lib/same"] {
        tree.file(file, file);
    }
    tree.file("usr/mode", "").file("usr/owner", "").file("usr/xattr", "").file("usr/moved", "data");
    tree.file("usr/linked", "").link("usr/linked", "usr/linked-too");
}

#[test]
fn privileged_everything_that_one_does_in_a_container() {
    if !require::root() {
        return;
    }
    let found = after(|merged| {
        fs::write(merged.path("etc/passwd"), "other").unwrap();
        fs::remove_file(merged.path("etc/gone")).unwrap();
        // A directory becomes a file, and a directory again.
        fs::remove_dir_all(merged.path("etc/opt")).unwrap();
        fs::write(merged.path("etc/opt"), "file").unwrap();
        fs::remove_file(merged.path("etc/opt")).unwrap();
        fs::create_dir(merged.path("etc/opt")).unwrap();
        fs::write(merged.path("etc/opt/new"), "").unwrap();
        // A directory becomes a file, and stays one.
        fs::remove_dir_all(merged.path("var/lib")).unwrap();
        fs::write(merged.path("var/lib"), "file").unwrap();
        merged.mode("usr/mode", 0o4711).owner("usr/owner", 1000, 1000).xattr("usr/xattr", "user.k", "v");
        fs::rename(merged.path("usr/moved"), merged.path("usr/there")).unwrap();
        fs::hard_link(merged.path("usr/bin/tool"), merged.path("usr/bin/again")).unwrap();
        fs::create_dir_all(merged.path("new/in")).unwrap();
        merged.file("new/in/f", "").symlink("new/s", "in");
    });
    assert_eq!(
        found,
        [
            "C /etc",
            "D /etc/gone",
            "C /etc/opt",
            "D /etc/opt/conf",
            "A /etc/opt/new",
            "C /etc/passwd",
            "A /new",
            "A /new/in",
            "A /new/in/f",
            "A /new/s",
            "C /usr",
            "C /usr/bin",
            "A /usr/bin/again",
            "C /usr/mode",
            "D /usr/moved",
            "C /usr/owner",
            "A /usr/there",
            "C /usr/xattr",
            "C /var",
            "C /var/lib",
        ]
    );
}

#[test]
fn privileged_what_is_taken_back_is_no_change() {
    if !require::root() {
        return;
    }
    let found = after(|merged| {
        // Copied up, and as it was.
        merged.mode("usr/mode", 0o600).mode("usr/mode", 0o644);
        merged.xattr("usr/xattr", "user.k", "v");
        rustix::fs::removexattr(merged.path("usr/xattr"), "user.k").unwrap();
        drop(fs::OpenOptions::new().append(true).open(merged.path("var/lib/deep/f")).unwrap());
        fs::write(merged.path("var/temporary"), "").unwrap();
        fs::remove_file(merged.path("var/temporary")).unwrap();
        merged.time("var", 0);
        // One of two names.
        merged.mode("usr/linked", 0o600).mode("usr/linked", 0o644);
    });
    assert_eq!(found, Vec::<String>::new());
}

#[test]
fn privileged_the_time_of_a_directory_is_a_change() {
    if !require::root() {
        return;
    }
    let found = after(|merged| _ = merged.time("var/lib/deep", 7));
    assert_eq!(found, ["C /var", "C /var/lib", "C /var/lib/deep"]);
}
