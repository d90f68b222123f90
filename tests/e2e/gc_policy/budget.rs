//! Policies with a goal: how much is freed, and which images go first.

use layerstore_testkit::disk::Disk;
use layerstore_testkit::sandbox::Sandbox;

use super::{collect, disk_usage, image, load, names, planned, set, unused_for};

/// Four images of about 220 kB each, beside a layer that all have; the second was used last.
fn store() -> Option<Sandbox> {
    let store = Sandbox::new()?;
    for (seed, days) in [(1, 40), (2, 1), (3, 20), (4, 30)] {
        load(&store, &format!("localhost/i{seed}:1"), &image(seed, 100_000), days);
    }
    Some(store)
}

#[test]
fn privileged_what_was_not_used_for_the_longest_time_goes_first() {
    let Some(store) = store() else { return };
    let order = ["localhost/i1:1", "localhost/i4:1", "localhost/i3:1", "localhost/i2:1"];
    for (size, count) in [("1B", 1), ("200kB", 1), ("300kB", 2), ("500kB", 3), ("0.7MB", 4), ("10GB", 4)] {
        assert_eq!(planned(&store, &["--free", size]), order[..count], "{size}");
    }
    assert_eq!(planned(&store, &["--free", "0"]), [""; 0]);
    // What has another name that stays would free nothing.
    store.ok(["tag", "localhost/i1:1", "localhost/keep:1"]);
    unused_for(&store, "localhost/keep:1", 40);
    assert_eq!(planned(&store, &["--free", "200kB", "--protect", "*/keep:1"]), ["localhost/i4:1"]);
    store.ok(["pin", "localhost/i4:1"]);
    assert_eq!(planned(&store, &["--free", "200kB", "--protect", "*/keep:1"]), ["localhost/i3:1"]);
}

#[test]
fn privileged_storage_is_brought_down_to_what_may_stay() {
    let Some(store) = store() else { return };
    collect(&store, &["--keep-storage", "550kB"]);
    let du = disk_usage(&store);
    assert!(du < 600_000, "{du}");
    assert_eq!(names(&store), set(&["localhost/i2:1", "localhost/i3:1"]));
    assert_eq!(planned(&store, &["--keep-storage", "1MB"]), [""; 0]);
    assert_eq!(planned(&store, &["--keep-storage", "0"]).len(), 2);
}

#[test]
fn privileged_garbage_counts_towards_the_goal() {
    let Some(store) = store() else { return };
    store.ok(["create", "--name", "cc", "localhost/i1:1"]);
    store.ok(["rmi", "-f", "localhost/i1:1"]);
    store.ok(["rm", "cc"]);
    let told = store.ok(["gc", "--dry-run", "--free", "150kB"]);
    assert!(told.contains("Would delete tree: ") && !told.contains("Would untag"), "{told}");
    assert_eq!(planned(&store, &["--free", "300kB"]), ["localhost/i4:1"]);
}

/// As after a collection that was killed while it unlinked.
#[test]
fn privileged_what_goes_anyway_counts_towards_the_goal() {
    let Some(store) = store() else { return };
    let name = format!("sha256:{}", "0".repeat(64));
    for path in ["trash/one/file", "junk", &format!("partial/{}", name.replace(':', "-"))] {
        let path = store.root().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, vec![1; 200_000]).unwrap();
    }
    let options = &["--interrupted", "--free", "550kB"][..];
    assert_eq!(planned(&store, options), [""; 0]);
    let policy = store.dir().join("policy.toml");
    std::fs::write(&policy, "free = \"400kB\"\n").unwrap();
    let why = store.ok(["why", "--policy", policy.to_str().unwrap(), "localhost/i1:1"]);
    assert!(why.contains("enough"), "{why}");
    let run = store.run([&["gc"], options].concat()).success();
    assert!(run.stdout.contains("partial download") && run.stderr.is_empty(), "{run}");
    assert_eq!(names(&store).len(), 4);
    assert_eq!(planned(&store, options).len(), 3);
}

/// Something is mounted in the trash.
#[test]
fn privileged_what_is_gone_is_told_even_if_something_cannot_be_deleted() {
    let Some(store) = store() else { return };
    let held = store.root().join("trash/held/files");
    std::fs::create_dir_all(&held).unwrap();
    let mount =
        std::process::Command::new("mount").args(["-t", "tmpfs", "none"]).arg(&held).status().unwrap();
    assert!(mount.success());
    let runs = [store.run(["gc", "--all", "--free", "200kB"]), store.run(["image", "prune", "-af"])];
    let umount = std::process::Command::new("umount").arg(&held).status().unwrap();
    assert!(umount.success());
    for (run, word) in runs.into_iter().zip(["Untagged: ", "untagged: "]) {
        assert!(run.stdout.contains(word), "{run}");
        assert!(run.stderr.contains("hint: `layerstore gc` tries again"), "{run}");
        run.failure(4);
    }
    assert!(names(&store).is_empty());
    store.ok(["gc"]);
    store.assert_no_leftovers();
}

#[test]
fn privileged_a_goal_that_is_missed_says_who_stood_in_the_way() {
    let Some(store) = store() else { return };
    store.ok(["create", "localhost/i1:1"]);
    store.ok(["create", "localhost/i4:1"]);
    store.ok(["pin", "localhost/i3:1"]);
    let run = store.run(["gc", "--free", "10GB"]).success();
    let expected = " were freed: 2 images are in use by containers, 1 is pinned";
    assert!(run.stderr.contains("10GB were asked for, ") && run.stderr.contains(expected), "{run}");
    assert_eq!(names(&store).len(), 3);
    let quiet = store.run(["gc", "--free", "0"]).success();
    assert_eq!(quiet.stderr, "");
}

/// Percent of the filesystem that are not available, as the kubelet counts.
fn used(disk: &Disk) -> u64 {
    let stat = rustix::fs::statvfs(disk.path()).unwrap();
    100 - stat.f_bavail * 100 / stat.f_blocks
}

#[test]
fn privileged_watermarks_are_those_of_the_filesystem() {
    let disk = Disk::ext4(64);
    let Some(store) = Sandbox::at(&disk.path().join("store")) else { return };
    for seed in 1..=5 {
        load(
            &store,
            &format!("localhost/i{seed}:1"),
            &image(seed, 4 << 20),
            10 - i64::try_from(seed).unwrap(),
        );
    }
    std::fs::write(store.root().join("junk"), vec![0; 100_000]).unwrap();
    let full = used(&disk);
    assert!(full > 50, "{full}");
    let percent = |number: u64| format!("{number}%");
    // Below the upper mark no image goes; what nothing needs does.
    let run = store.run(["gc", "--high", &percent(full + 5), "--low", "0%"]).success();
    assert!(
        run.stderr.contains("of the filesystem are in use") && run.stderr.contains("no image goes"),
        "{run}"
    );
    assert!(!store.root().join("junk").exists());
    assert_eq!(names(&store).len(), 5);
    let low = full - 20;
    let done = collect(&store, &["--high", &percent(full - 5), "--low", &percent(low)]);
    assert!(used(&disk) <= low, "{} > {low}\n{done}", used(&disk));
    assert!(used(&disk) + 15 > low, "not more than needed: {}\n{done}", used(&disk));
    let left = names(&store);
    assert!(left.contains("localhost/i5:1") && !left.contains("localhost/i1:1"), "{left:?}");
}
