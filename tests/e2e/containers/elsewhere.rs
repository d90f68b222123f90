//! Containers that are mounted in other mount namespaces.

use std::io::Read as _;
use std::process::{Child, Command, Stdio};

use layerstore_testkit::require;
use layerstore_testkit::sandbox::{Sandbox, binary};

use super::{SMALL, with_small};

/// A shell in a mount namespace of its own, which says when it is ready and lives until it is dropped.
struct Elsewhere(Child);

impl Elsewhere {
    fn doing(store: &Sandbox, script: &str) -> Self {
        Self::living_as(store, script, "cat")
    }

    /// The same; in the end it becomes `program`.
    fn living_as(store: &Sandbox, script: &str, program: &str) -> Self {
        let mut child = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "sh", "-c"])
            .arg(format!("{script}; echo ready; exec {program}"))
            .env("LAYERSTORE_ROOT", store.root())
            .env("PROGRAM", binary())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = Vec::new();
        let out = child.stdout.as_mut().unwrap();
        while !said.ends_with(b"ready\n") {
            let mut byte = [0];
            assert_eq!(out.read(&mut byte).unwrap(), 1, "it ended after {said:?}");
            said.push(byte[0]);
        }
        Self(child)
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        // Its input ends, and so does it.
        drop(self.0.stdin.take());
        self.0.wait().unwrap();
    }
}

/// The container `copied`, which is not mounted here any more, but in a namespace that was made while it was.
fn copied(store: &Sandbox) -> Elsewhere {
    store.ok(["create", "--name", "copied", SMALL]);
    // A directory of the store's own would go with the mount, and with it what others have mounted there.
    let place = store.dir().join("place");
    std::fs::create_dir(&place).unwrap();
    store.ok(["mount", "copied", place.to_str().unwrap()]);
    let elsewhere = Elsewhere::doing(store, "true");
    store.ok(["umount", "copied"]);
    elsewhere
}

#[test]
fn privileged_a_mount_ends_with_its_namespace() {
    let Some(store) = with_small() else { return };
    store.ok(["create", "--name", "away", SMALL]);
    let elsewhere = Elsewhere::doing(&store, "$PROGRAM mount away");
    assert!(store.ok(["ps"]).contains("away"));
    assert!(store.run(["rm", "away"]).failure(4).contains("is mounted"));
    drop(elsewhere);
    assert!(!store.ok(["ps"]).contains("away"));
    store.ok(["mount", "away"]);
    store.ok(["umount", "away"]);
    store.ok(["rm", "away"]);
    store.assert_no_leftovers();
}

/// A namespace that was made while the container was mounted has a copy of the mount, whatever becomes of it here.
#[test]
fn privileged_a_copy_of_a_mount_counts_unless_forced() {
    let Some(store) = with_small() else { return };
    let elsewhere = copied(&store);
    for verb in ["rm", "mount"] {
        let said = store.run([verb, "copied"]).failure(4);
        assert!(said.contains("container copied is in use by process"), "{said}");
    }
    store.ok(["rm", "-f", "copied"]);
    drop(elsewhere);
    store.assert_no_leftovers();
}

/// What `df -v` and the page say of the one container.
#[track_caller]
fn assert_shown(store: &Sandbox, status: &str, used: &str) {
    let text = store.ok(["df", "-v"]);
    let row = text.lines().find(|line| line.trim_end().ends_with(" copied")).unwrap();
    assert!(row.contains(&format!("  {status}  ")), "{row}");
    let page = store.ok(["df", "--html", "-"]);
    let end = if used.is_empty() { "\"" } else { "" };
    assert!(page.contains(&format!("\"used\":\"{used}{end}")), "the page does not say `{used}`");
}

#[test]
fn privileged_df_shows_which_containers_are_mounted() {
    let Some(store) = with_small() else { return };
    store.ok(["create", "--name", "copied", SMALL]);
    assert_shown(&store, "Created", "");
    let place = store.ok(["mount", "copied"]);
    assert_shown(&store, "Mounted", &format!("mounted at {}", place.trim_end()));
}

/// Neither told to be deleted nor deleted, and not free either.
#[test]
fn privileged_what_others_have_mounted_is_not_pruned() {
    let Some(store) = with_small() else { return };
    let elsewhere = copied(&store);
    let active = || {
        let told = store.ok(["df", "--no-scan", "--format", "{{.Type}} {{.Active}} {{.Reclaimable}}"]);
        told.lines().find(|line| line.starts_with("Containers ")).unwrap().to_owned()
    };
    assert!(active().starts_with("Containers 1 0B"), "{}", active());
    assert_shown(&store, "In use", "by process ");
    let container = &store.json(["df", "-v", "--format", "json"])["Containers"][0];
    assert!(container["InUseBy"].as_str().unwrap().starts_with("process "), "{container}");
    for line in [
        &["container", "prune", "--dry-run"][..],
        &["system", "prune", "--dry-run"],
        &["container", "prune", "-f"],
        &["--progress", "none", "system", "prune", "-f"],
    ] {
        let run = store.run(line).success();
        assert!(!run.stdout.contains("Containers"), "{line:?}: {run}");
        assert!(run.stderr.contains("note: container copied is in use by process "), "{line:?}: {run}");
    }
    drop(elsewhere);
    assert!(active().starts_with("Containers 0 "), "{}", active());
    assert_shown(&store, "Created", "");
    assert!(store.ok(["container", "prune", "-f"]).contains("Deleted Containers:"));
    store.assert_no_leftovers();
}

/// Nobody is told that space is free which is not.
#[test]
fn privileged_what_is_mounted_elsewhere_is_not_told_to_be_gone() {
    let Some(store) = with_small() else { return };
    let place = store.dir().join("place");
    std::fs::create_dir(&place).unwrap();
    store.ok(["mount", SMALL, place.to_str().unwrap()]);
    let elsewhere = Elsewhere::doing(&store, "true");
    store.ok(["umount", place.to_str().unwrap()]);
    let told = store.ok(["gc", "-v", "--filter", "reference=localhost/small"]);
    assert!(told.contains("Untagged: ") && told.contains("Deleted blob: "), "{told}");
    assert!(!told.contains("tree"), "{told}");
    drop(elsewhere);
    assert!(store.ok(["gc"]).contains("Deleted unknown: "));
    store.assert_no_leftovers();
}

/// As in a container, whose process has the files as its root, and no other mount of them.
#[test]
fn privileged_what_a_process_has_as_its_root_is_not_removed_by_force() {
    let Some(store) = Sandbox::new() else { return };
    store.load(require::workspace().join("fixtures/busybox/busybox.oci.tar"));
    store.ok(["create", "--name", "running", "busybox:1.35"]);
    let target = store.ok(["mount", "running"]);
    let script = format!(
        "cd {} && mkdir old && pivot_root . old && cd / && /bin/busybox umount -l /old",
        target.trim_end()
    );
    let elsewhere = Elsewhere::living_as(&store, &script, "/bin/busybox cat");
    for line in [&["rm", "running"][..], &["rm", "-f", "running"]] {
        store.run(line).failure(4);
        assert!(store.ok(["ps"]).contains("running"), "nothing is half done");
    }
    store.ok(["umount", "running"]);
    for line in [&["rm", "running"][..], &["rm", "-f", "running"], &["mount", "running"]] {
        let said = store.run(line).failure(4);
        assert!(said.contains("container running is in use by process"), "{said}");
    }
    drop(elsewhere);
    store.ok(["rm", "running"]);
    store.assert_no_leftovers();
}
