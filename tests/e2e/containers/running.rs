//! Containers that a runtime runs while the store is worked on.

use std::fs;
use std::path::PathBuf;

use layerstore_testkit::require;
use layerstore_testkit::runtime::Runtime;
use layerstore_testkit::sandbox::Sandbox;

/// A store with a bundle of busybox, which has nothing to do for two minutes.
#[track_caller]
fn with_bundle() -> Option<(Sandbox, PathBuf)> {
    if !require::runtimes() {
        return None;
    }
    let store = Sandbox::new()?;
    store.load(require::workspace().join("fixtures/busybox/busybox.oci.tar"));
    let dir = store.dir().join("bundle");
    store.ok(["bundle", "--name", "busy", "busybox:1.35", dir.to_str().unwrap(), "sleep", "120"]);
    Some((store, dir))
}

/// The container has its root in another mount namespace: what is unmounted here is not unmounted there.
#[test]
fn privileged_a_container_goes_on_when_its_mount_is_undone_here() {
    for runtime in Runtime::ALL {
        let Some((store, dir)) = with_bundle() else { return };
        let container = runtime.start(&dir);
        let write = |name: &str| {
            let script = format!("echo {name} > /{name} && cat /{name}");
            let run = container.exec(&["/bin/sh", "-c", &script]).success();
            assert_eq!(run.stdout, format!("{name}\n"), "{}", runtime.name());
        };
        write("before");
        for line in [&["rm", "busy"][..], &["rm", "-f", "busy"]] {
            let run = store.run(line);
            assert_eq!(run.code, 4, "{}: {run}", runtime.name());
            write("after-a-refused-rm");
        }
        let rootfs = dir.join("rootfs");
        let umount = store.run(["umount", rootfs.to_str().unwrap()]);
        assert!(umount.code == 0 || umount.code == 4, "{umount}");
        write("after-umount");
        for line in [&["rm", "busy"][..], &["rm", "-f", "busy"], &["mount", "busy"]] {
            let run = store.run(line);
            assert_eq!(run.code, 4, "{}: {run}", runtime.name());
            assert!(run.stderr.contains("is in use by process"), "{run}");
            write("after-a-second-refusal");
        }
        store.ok(["gc"]);
        write("after-gc");
        drop(container);
        let changes = store.ok(["diff", "busy"]);
        for name in ["before", "after-a-refused-rm", "after-umount", "after-gc"] {
            assert!(changes.contains(&format!("A /{name}\n")), "{changes}");
        }
        store.ok(["rm", "busy"]);
        store.assert_no_leftovers();
        assert_eq!(fs::read_dir(rootfs).unwrap().count(), 0);
    }
}
